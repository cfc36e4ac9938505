//! `[gateway]`, `[journal]` and `[events]`: who this is, where events are kept, what is said of the gateway itself.

use std::{path::PathBuf, time::Duration};

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use super::{
    Events, Gateway, Machine, Recorder,
    check::{Checker, Words, listed},
    raw,
    shape::closest,
};
use crate::{
    event::{gateway::FACTS, is_identifier},
    journal::{Settings, WhenFull},
};

const MIB: u64 = 1 << 20;
/// Below this the journal has no room for its segments and its state.
const LEAST_JOURNAL: u64 = 8 * MIB;
/// Where the filesystem is small, or its size is not known.
const SMALL_JOURNAL: u64 = 64 * MIB;
/// More than any board has: a slip.
const MOST_JOURNAL: u64 = 1 << 44;

/// The gateway's own events (docs/events.md): what `off` may name and what no rule may be called.
pub(super) fn gateway_events() -> impl Iterator<Item = &'static str> {
    FACTS.iter().map(|fact| fact.name)
}

/// Pairs of events: the second ends what the first began.
const PAIRS: &[[&str; 2]] = &[
    ["DeviceConnected", "DeviceDisconnected"],
    ["SourceFailed", "SourceRecovered"],
    ["JournalFilling", "JournalDrained"],
    ["UplinkLost", "UplinkRestored"],
    ["ClockSynchronised", "ClockLost"],
    ["AlarmMuted", "AlarmUnmuted"],
];

pub(super) fn gateway(raw: &raw::Gateway, machine: &Machine, checker: &mut Checker<'_>) -> Gateway {
    let id = match &raw.id {
        Some(id) => {
            if !is_identifier(id.get_ref()) {
                let form = "1 to 64 of the characters A-Z a-z 0-9 . _ -";
                checker.wrong(id.span(), format!("[gateway]: id = {:?} must be {form}", id.get_ref()));
            }
            id.get_ref().clone()
        }
        None => machine_name(machine).unwrap_or_else(|| {
            checker.wrong(
                0..0,
                "[gateway]: id is missing and this machine has neither a serial number nor a machine id to make \
                 one of; write id = \"...\" under [gateway]",
            );
            String::new()
        }),
    };
    let source = raw
        .source
        .as_ref()
        .map_or("urn:tidegate:gateway:{id}", |source| source.get_ref());
    if let Some(written) = &raw.source {
        let known = checker.placeholders("[gateway]", "source", written, &["id"]);
        if known && (source.is_empty() || source.contains(|c: char| c.is_whitespace() || c.is_control())) {
            let form = "a URI reference, like \"urn:tidegate:gateway:{id}\"";
            checker.wrong(
                written.span(),
                format!("[gateway]: source = {source:?} must be {form}"),
            );
        }
    }
    Gateway {
        timezone: timezone(&raw.timezone, checker),
        source: source.replace("{id}", &id).into(),
        id: id.into(),
        labels: raw.labels.clone(),
    }
}

/// A zone that is not known is told with those that are spelled like it.
pub(super) fn timezone(written: &raw::Text, checker: &mut Checker<'_>) -> TimeZone {
    let Some(written) = written else {
        return TimeZone::UTC;
    };
    let name = written.get_ref();
    TimeZone::get(name).unwrap_or_else(|_| {
        let known: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        // People write the city, or its name in their own language.
        let city = known.iter().find(|zone| {
            let last = zone.rsplit('/').next().unwrap_or(zone);
            last.eq_ignore_ascii_case(&name.replace(' ', "_"))
        });
        let meant = city
            .map(String::as_str)
            .or_else(|| closest(name, known.iter().map(String::as_str)));
        let remedy = match meant {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => "write one of the tz database, like \"Europe/Berlin\"".to_owned(),
        };
        checker.wrong(
            written.span(),
            format!("[gateway]: timezone = {name:?} is no time zone; {remedy}"),
        );
        TimeZone::UTC
    })
}

/// `tg-` and eight characters: of the board if it has a number, else of the installation.
fn machine_name(machine: &Machine) -> Option<String> {
    let serial: Vec<char> = machine
        .board_serial
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    if let Some(last) = serial.last_chunk::<8>() {
        return Some(format!("tg-{}", last.iter().collect::<String>().to_lowercase()));
    }
    if machine.machine_id.is_empty() {
        return None;
    }
    // Hashed, because a machine id is meant to stay on its machine.
    let digest = Sha256::digest(machine.machine_id.as_bytes());
    let digest = super::hex(&digest);
    digest.get(digest.len() - 8..).map(|tail| format!("tg-{tail}"))
}

/// What the journal may occupy where `max-bytes` is not written: 5 % of the filesystem (a gateway is not alone on its
/// card), from 64 MiB to 1 GiB.
#[must_use]
pub fn journal_size(filesystem_bytes: u64) -> u64 {
    (filesystem_bytes / 20).clamp(SMALL_JOURNAL, 1024 * MIB)
}

pub(super) fn journal(raw: &raw::Journal, machine: &Machine, checker: &mut Checker<'_>) -> Settings {
    let who = "[journal]";
    let state = machine.state_directory.clone();
    let dir = match raw.dir.as_ref().map(|dir| (dir.get_ref().as_str(), dir.span())) {
        None => state.join("journal"),
        Some((written, span)) => match written.strip_prefix("$STATE_DIRECTORY") {
            Some("") => state,
            Some(below) if below.starts_with('/') => state.join(below.trim_start_matches('/')),
            _ if written.is_empty() || written.contains('$') => {
                let form = "a directory; of variables only a leading $STATE_DIRECTORY is known";
                checker.wrong(span, format!("{who}: dir = {written:?} must be {form}"));
                state
            }
            _ => PathBuf::from(written),
        },
    };
    let written = checker.size_in(
        who,
        "max-bytes",
        raw.max_bytes.as_ref(),
        LEAST_JOURNAL..=MOST_JOURNAL,
    );
    let share = || (machine.filesystem_bytes)(&dir).map(journal_size);
    let max_bytes = written.or_else(share).unwrap_or(SMALL_JOURNAL);
    let when_full = Words {
        now: &[
            ("drop-oldest", WhenFull::DropOldest),
            ("refuse", WhenFull::Refuse),
        ],
        later: &[],
    };
    Settings {
        dir,
        max_bytes,
        max_age: {
            let century = Duration::from_hours(876_000);
            checker.duration_in(
                who,
                "max-age",
                raw.max_age.as_ref(),
                Duration::from_mins(1)..=century,
            )
        },
        when_full: checker
            .word(who, "when-full", raw.when_full.as_ref(), &when_full)
            .unwrap_or_default(),
        state_delay: checker
            .duration_in(
                who,
                "state-delay",
                raw.state_delay.as_ref(),
                Duration::ZERO..=Duration::from_mins(1),
            )
            .unwrap_or(Duration::from_millis(250)),
    }
}

pub(super) fn checkpoint(raw: &raw::Journal, checker: &mut Checker<'_>) -> Duration {
    // Oftener would write windows more than events; rarer would cost a whole window.
    let bounds = Duration::from_secs(1)..=Duration::from_hours(1);
    checker
        .duration_in("[journal]", "checkpoint", raw.checkpoint.as_ref(), bounds)
        .unwrap_or(Duration::from_mins(1))
}

pub(super) fn recorder(
    raw: Option<&toml::Spanned<raw::Recorder>>,
    checker: &mut Checker<'_>,
) -> Option<Recorder> {
    let table = raw?;
    let who = "[recorder]";
    let form = "everything that it may occupy, like \"64MiB\"";
    let written = checker.required(who, "max-bytes", &table.get_ref().max_bytes, &table.span(), form);
    let max_bytes = checker.size_in(who, "max-bytes", written, MIB..=MOST_JOURNAL)?;
    Some(Recorder { max_bytes })
}

pub(super) fn events(raw: &raw::Events, checker: &mut Checker<'_>) -> Events {
    let who = "[events]";
    let off = match &raw.off {
        None => vec!["DeviceConnected".to_owned(), "DeviceDisconnected".to_owned()],
        Some(list) => {
            for name in list.get_ref() {
                let text = name.get_ref().as_str();
                let needed = match text {
                    "EventsDiscarded" => Some("it is the proof of what will not come"),
                    "StorageDamaged" => Some("it is a disk that is dying"),
                    _ => None,
                };
                if let Some(why) = needed {
                    let message = format!("{who}: off: {text} cannot be off, {why}");
                    checker.wrong(name.span(), message);
                } else if !gateway_events().any(|known| known == text) {
                    let remedy = closest(text, gateway_events()).map_or_else(
                        || format!("they are {}", listed(gateway_events())),
                        |meant| format!("did you mean {meant:?}?"),
                    );
                    checker.wrong(
                        name.span(),
                        format!("{who}: off: {text:?} is no event of the gateway's own; {remedy}"),
                    );
                }
            }
            let off: Vec<String> = list.get_ref().iter().map(|name| name.get_ref().clone()).collect();
            let is_off = |name: &str| off.iter().any(|off| off == name);
            for [one, other] in PAIRS {
                let half = match (is_off(one), is_off(other)) {
                    (true, false) => [one, other],
                    (false, true) => [other, one],
                    _ => continue,
                };
                let [off, on] = half;
                checker.warn(
                    list.span(),
                    format!("{who}: off: {off} is off and {on} is not; name both or none, one ends what the other begins"),
                );
            }
            off
        }
    };
    let heartbeat = match raw.heartbeat.as_ref() {
        Some(written) if written.get_ref() == "off" => None,
        written => {
            let bounds = Duration::from_secs(1)..=Duration::from_hours(720);
            let said = checker.duration_in(who, "heartbeat", written, bounds);
            Some(said.unwrap_or(Duration::from_mins(15)))
        }
    };
    let skew_bounds = Duration::from_secs(1)..=Duration::from_hours(8760);
    let max_clock_skew = checker
        .duration_in(who, "max-clock-skew", raw.max_clock_skew.as_ref(), skew_bounds)
        .unwrap_or(Duration::from_mins(10));
    let offline_bounds = Duration::from_secs(1)..=Duration::from_hours(720);
    let offline_after = checker
        .duration_in(who, "offline-after", raw.offline_after.as_ref(), offline_bounds)
        .unwrap_or(Duration::from_mins(5));
    Events {
        off,
        offline_after,
        heartbeat,
        max_clock_skew,
    }
}

/// What stands before a rule event's name in its type.
pub(super) fn type_prefix(raw: &raw::Events, checker: &mut Checker<'_>) -> String {
    let Some(written) = &raw.type_prefix else {
        return "io.tidegate.rule.".to_owned();
    };
    let prefix = written.get_ref();
    let shown = format!("[events]: type-prefix = {prefix:?}");
    let part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    if prefix.starts_with("io.tidegate.gateway.") {
        let why = "is the gateway's own; write a domain of yours, like \"com.example.site.\"";
        checker.wrong(written.span(), format!("{shown} {why}"));
    } else if !prefix.ends_with('.') {
        checker.wrong(
            written.span(),
            format!("{shown} must end with a dot: {:?}", format!("{prefix}.")),
        );
    } else if !prefix.trim_end_matches('.').split('.').all(part) || prefix.ends_with("..") {
        let form = "must be names and dots, like \"com.example.site.\"";
        checker.wrong(written.span(), format!("{shown} {form}"));
    }
    prefix.clone()
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Machine};

    #[test]
    fn half_a_pair_that_is_off_is_warned_of() {
        let warnings = |off: &str| {
            let text = format!("[gateway]\nid = \"gw\"\n[events]\noff = {off}\n");
            let config = Config::parse("test.toml", &text, &Machine::read()).unwrap();
            config
                .warnings
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        };
        let said = warnings("[\"GatewayAlive\", \"UplinkLost\"]");
        assert!(
            said.contains("UplinkLost is off and UplinkRestored is not"),
            "{said}"
        );
        assert_eq!(warnings("[\"UplinkRestored\", \"UplinkLost\"]"), warnings("[]"));
    }
}
