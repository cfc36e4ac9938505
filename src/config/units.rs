//! Durations, sizes and rates as people write them. Pure.
//!
//! A number and one unit, nothing between and nothing after: `1h30m` and `0.5h` are refused, `90m` and `30m` say it.

use std::time::Duration;

use crate::rule::MaxRaises;

/// What a duration looks like.
pub const DURATION_FORM: &str = r#"a duration is a whole number and ms, s, m, h or d, like "30s""#;
/// What a size looks like.
pub const SIZE_FORM: &str = r#"a size is a whole number and B, KiB, MiB, GiB or TiB, like "64KiB""#;
/// What a rate looks like.
pub(super) const RATE_FORM: &str = r#"a rate is a whole number from 1 and /s, /m, /h or /d, like "12/h""#;

/// A century: longer is a slip, and all sums of it stay far from overflowing.
pub const LONGEST: Duration = Duration::from_hours(876_000);

/// `30s`, `5m`, `250ms`. One that no number holds is the longest there is: out of every range, and no slip of form.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        _ => seconds(unit)?.saturating_mul(1000),
    };
    Some(Duration::from_millis(number.saturating_mul(millis)))
}

/// `64KiB`, `256MiB`: in bytes. As with durations, too large a number is the largest.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    Some(number.saturating_mul(bytes))
}

/// `12/h`.
pub(super) fn rate(text: &str) -> Option<MaxRaises> {
    let (number, unit) = split(text)?;
    let per = Duration::from_secs(seconds(unit.strip_prefix('/')?)?);
    let count = u32::try_from(number).ok().filter(|count| *count > 0)?;
    Some(MaxRaises { count, per })
}

/// A duration as it would be written: in the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
        .into_iter()
        .find(|(name, unit)| millis.is_multiple_of(*unit) && (millis > 0 || *name == "s"))
        .map_or_else(
            || format!("{millis}ms"),
            |(name, unit)| format!("{}{name}", millis / unit),
        )
}

/// A size as it would be written: in the largest unit that divides it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)]
        .into_iter()
        .find(|(_, bits)| bytes > 0 && bytes.is_multiple_of(1 << bits))
        .map_or_else(
            || format!("{bytes}B"),
            |(name, bits)| format!("{}{name}", bytes >> bits),
        )
}

fn split(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    // Digits alone fail to parse only if they are none or too many.
    let number = match number.parse() {
        Ok(number) => number,
        Err(_) if digits > 0 => u64::MAX,
        Err(_) => return None,
    };
    Some((number, unit))
}

fn seconds(unit: &str) -> Option<u64> {
    match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Some(Duration::from_secs(30)));
        assert_eq!(duration("2h"), Some(Duration::from_hours(2)));
        assert_eq!(duration("0s"), Some(Duration::ZERO));
        for wrong in ["", "30", "s", "-1s", "1.5h", "1h30m", "30 s", "30S"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        for long in ["99999999999999999999s", "36501d", "18446744073709551615d"] {
            assert!(duration(long).is_some_and(|length| length > LONGEST), "{long}");
        }
    }

    #[test]
    fn sizes_are_binary() {
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("1GiB"), Some(1 << 30));
        assert_eq!(size("99999999TiB"), Some(u64::MAX));
        for wrong in ["64", "64KB", "64kib", "KiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn rates_are_a_count_per_unit() {
        assert_eq!(
            rate("12/h"),
            Some(MaxRaises {
                count: 12,
                per: Duration::from_hours(1)
            })
        );
        for wrong in ["12", "0/h", "12/hour", "/h", "12/2h"] {
            assert_eq!(rate(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_shown_can_be_written() {
        for text in ["0s", "250ms", "90s", "15m", "1h", "30d"] {
            assert_eq!(show_duration(duration(text).unwrap()), text);
        }
        for text in ["100B", "64KiB", "8MiB", "1GiB"] {
            assert_eq!(show_size(size(text).unwrap()), text);
        }
    }
}
