//! What an answer means. Pure.

use std::time::Duration;

use hyper::{
    HeaderMap, StatusCode,
    header::{DATE, HeaderValue, LOCATION, RETRY_AFTER},
};

/// The longest that a server may send us away for: it may be wrong about its own future.
const LONGEST_AWAY: Duration = Duration::from_hours(1);

/// How much of an answer's body is told to people.
const TOLD: usize = 200;

/// A request's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The endpoint has it.
    Taken,
    /// The endpoint will not have what was in the request: why.
    Refused {
        why: String,
        /// It was too much (413), not wrong.
        too_large: bool,
    },
    /// The endpoint will not have it from us, or not now: why.
    Rejected {
        why: String,
        /// Not before then.
        away: Option<Duration>,
        /// 401: another token may be another matter.
        unauthorized: bool,
    },
}

impl Answer {
    /// `body` as far as it was read.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        if status.is_success() {
            return Self::Taken;
        }
        let code = status.as_u16();
        let mut why = format!("the server answers {code}");
        if let Some(name) = status.canonical_reason() {
            why = format!("{why} {name}");
        }
        if matches!(code, 300..400)
            && let Some(place) = headers.get(LOCATION)
        {
            let place = said(
                place
                    .as_bytes()
                    .split(|byte| *byte == b'?')
                    .next()
                    .unwrap_or_default(),
            );
            why = format!("{why}: it points to {place}, and redirects are not followed; write that into url");
        } else {
            let said = said(body);
            if !said.is_empty() {
                why = format!("{why}: {said}");
            }
        }
        if code == 415 {
            // One event's fault by the contract; but whoever meets it with every event has the wrong form.
            why += " (if it takes no event: write another mode, or compression = \"none\")";
        }
        match code {
            400 | 413 | 415 | 422 => Self::Refused {
                why,
                too_large: code == 413,
            },
            _ => Self::Rejected {
                why,
                away: matches!(code, 429 | 503).then(|| retry_after(headers)).flatten(),
                unauthorized: code == 401,
            },
        }
    }
}

/// The beginning of what a server says, on one line and harmless to a terminal.
fn said(bytes: &[u8]) -> String {
    let start = bytes.get(..TOLD).unwrap_or(bytes);
    let text = String::from_utf8_lossy(start);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

/// As seconds, or as a date: then against the server's own clock, because ours may be wrong.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let away = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let until = date(headers.get(RETRY_AFTER)?)?;
            let away = until.duration_since(date(headers.get(DATE)?)?);
            Duration::try_from(away).ok()?
        }
    };
    Some(away.min(LONGEST_AWAY))
}

fn date(value: &HeaderValue) -> Option<jiff::Timestamp> {
    let zoned = jiff::fmt::rfc2822::parse(value.to_str().ok()?).ok()?;
    Some(zoned.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Answer::of(StatusCode::from_u16(code).unwrap(), &headers, body.as_bytes())
    }

    fn away(code: u16, headers: &[(&'static str, &str)]) -> Option<Duration> {
        match answer(code, headers, "") {
            Answer::Rejected { away, .. } => away,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn four_answers_judge_the_event_and_all_others_but_success_the_sink() {
        for code in 200..600 {
            let answer = answer(code, &[], "");
            match code {
                200..300 => assert_eq!(answer, Answer::Taken),
                400 | 413 | 415 | 422 => assert!(matches!(answer, Answer::Refused { .. }), "{code}"),
                _ => assert!(matches!(answer, Answer::Rejected { .. }), "{code}"),
            }
        }
    }

    #[test]
    fn a_form_that_is_not_taken_is_told_with_what_to_write() {
        let Answer::Refused { why, .. } = answer(415, &[], "") else {
            panic!()
        };
        assert!(why.contains("write another mode, or compression"), "{why}");
    }

    #[test]
    fn a_server_sends_us_away_for_seconds_or_until_a_date_of_its_own_clock() {
        assert_eq!(
            away(503, &[("retry-after", "120")]),
            Some(Duration::from_secs(120))
        );
        let dates = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT"),
        ];
        assert_eq!(away(429, &dates), Some(Duration::from_secs(30)));
    }

    #[test]
    fn no_server_sends_us_away_for_ever_or_into_the_past() {
        assert_eq!(away(503, &[("retry-after", "99999999999")]), Some(LONGEST_AWAY));
        let past = [
            ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("retry-after", "Sun, 06 Nov 1994 08:40:07 GMT"),
        ];
        assert_eq!(away(503, &past), None);
        for nonsense in ["", "-1", "soon", "99999999999999999999999999"] {
            assert_eq!(away(503, &[("retry-after", nonsense)]), None, "{nonsense}");
        }
        assert_eq!(
            away(500, &[("retry-after", "120")]),
            None,
            "only 429 and 503 have it"
        );
    }

    #[test]
    fn what_the_server_says_is_told_in_one_harmless_line_without_a_redirects_query() {
        let Answer::Refused { why, .. } = answer(422, &[], "no\n\u{1b}[31m such   field") else {
            panic!()
        };
        assert_eq!(
            why,
            "the server answers 422 Unprocessable Entity: no [31m such field"
        );
        let place = [("location", "https://other.example.com/in?token=s3cret")];
        let Answer::Rejected { why, .. } = answer(307, &place, "") else {
            panic!()
        };
        assert!(
            why.contains("https://other.example.com/in,") && !why.contains("s3cret"),
            "{why}"
        );
    }
}
