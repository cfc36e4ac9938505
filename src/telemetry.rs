//! What the daemon says of itself: to systemd's journal with real fields, else to the terminal.
//!
//! Under systemd every field of an event is a field of the journal's entry, its name in capitals:
//! `journalctl -u tidegate LINE=boiler`; the line that plain `journalctl` shows has them too; docs/operating.md lists them. `GATEWAY` is in all, `MESSAGE_ID` in those that
//! [`ids`] names, and the priority is syslog's: error 3, warn 4, info 6, debug and trace 7. On a terminal, one compact line on standard error, in colour only
//! where somebody sees it. `TIDEGATE_LOG` filters (`info`, `debug`, `tidegate::source=debug`); `info` if unset.
//!
//! Absent: fields of enclosing spans in the journal (an event names all it is about), and any guarantee: an
//! entry that the journal does not take is printed, and the daemon goes on.

use std::{
    fmt,
    io::{IsTerminal, Write},
};

use log::kv;
use systemd_journal_logger::JournalLog;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::{SubscriberInitExt, TryInitError},
};

pub mod ids;

/// The environment variable that filters.
const FILTER: &str = "TIDEGATE_LOG";

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `TIDEGATE_LOG` is no filter.
    #[error("could not read {FILTER}=`{text}`: {reason} (for example: info, debug, tidegate::source=debug)")]
    Filter {
        /// What it says.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// Somebody was here before.
    #[error("could not start the log: {0}")]
    Taken(#[from] TryInitError),
}

/// Starts logging for this gateway, once in the life of the process.
///
/// # Errors
///
/// If `TIDEGATE_LOG` is no filter, or logging was started before.
pub fn init(gateway: &str) -> Result<(), Error> {
    let filter = filter(std::env::var(FILTER).ok().as_deref())?;
    let registry = tracing_subscriber::registry().with(filter);
    if let Some(journal) = Journal::connect(Some(gateway)) {
        return Ok(registry.with(journal).try_init()?);
    }
    let terminal = tracing_subscriber::fmt::layer()
        .compact()
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    Ok(registry.with(terminal).try_init()?)
}

/// Whether the journal took why the process ends, as the message of this name: a line on standard error would have no
/// priority there. If not, it is still to be printed.
#[must_use]
pub fn last_word(name: &'static str, text: &str) -> bool {
    Journal::connect(None).is_some_and(|journal| {
        let mut entry = Entry {
            message: text.to_owned(),
            ..Entry::default()
        };
        entry.identify(name);
        journal.send(Level::ERROR, None, &entry).is_ok()
    })
}

/// Targets and levels only: a filter by spans and fields would bring a regular expression engine along.
fn filter(text: Option<&str>) -> Result<Targets, Error> {
    let text = text.map_or("info", |text| if text.trim().is_empty() { "info" } else { text });
    text.parse::<Targets>().map_err(|error| Error::Filter {
        text: text.to_owned(),
        reason: error.to_string(),
    })
}

/// Sends events to systemd's journal.
struct Journal {
    log: JournalLog,
}

impl Journal {
    /// None if standard error does not go to the journal: then a person, or another manager, reads it.
    fn connect(gateway: Option<&str>) -> Option<Self> {
        if !systemd_journal_logger::connected_to_journal() {
            return None;
        }
        // Standard error still goes to the journal, only without fields.
        let log = JournalLog::empty().ok()?;
        Some(Self {
            log: log
                .with_syslog_identifier("tidegate".into())
                .with_extra_fields(gateway.map(|id| ("GATEWAY", id))),
        })
    }

    fn send(&self, level: Level, from: Option<&Metadata<'_>>, entry: &Entry) -> std::io::Result<()> {
        self.log.journal_send(
            &log::Record::builder()
                .level(priority(level))
                .target(from.map_or("tidegate", Metadata::target))
                .module_path(from.and_then(Metadata::module_path))
                .file(from.and_then(Metadata::file))
                .line(from.and_then(Metadata::line))
                .args(format_args!("{entry}"))
                .key_values(entry)
                .build(),
        )
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let entry = Entry::of(event);
        let metadata = event.metadata();
        if let Err(error) = self.send(*metadata.level(), Some(metadata), &entry) {
            // Nobody is left to tell if this fails too.
            writeln!(std::io::stderr(), "{entry} (not in the journal: {error})").ok();
        }
    }
}

/// The journal's client gives `Info` the priority 5 (notice) and `Debug` 6 (info): one step down is what syslog means.
fn priority(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// An event as the journal wants it. The journal's client puts the names in capitals.
#[derive(Debug, Default)]
struct Entry {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Entry {
    fn of(event: &Event<'_>) -> Self {
        let mut entry = Self::default();
        event.record(&mut entry);
        entry.identify(event.metadata().name());
        entry
    }

    /// Gives it the id of the message of this name, if it has one.
    fn identify(&mut self, name: &str) {
        if let Some(id) = ids::id(name) {
            self.fields.push(("message_id", id.to_owned()));
        }
    }

    fn put(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), text));
        }
    }
}

/// The line that plain `journalctl` shows: a person at night shall not need to ask for the fields.
impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)?;
        for (name, text) in &self.fields {
            match (*name, text.as_str()) {
                ("message_id", _) | ("unsaid", "0") => {}
                (name, text) if text.is_empty() || text.contains([' ', '"', '\n']) => {
                    write!(formatter, " {name}={text:?}")?;
                }
                (name, text) => write!(formatter, " {name}={text}")?,
            }
        }
        Ok(())
    }
}

impl Visit for Entry {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    /// Without the quotes of its `Debug`: a field is compared with `=`.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string());
    }
}

impl kv::Source for Entry {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn kv::VisitSource<'kvs>) -> Result<(), kv::Error> {
        for (name, text) in &self.fields {
            visitor.visit_pair(kv::Key::from_str(name), kv::Value::from(text.as_str()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<Entry>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
            self.0.lock().expect("one thread").push(Entry::of(event));
        }
    }

    fn entry_of(act: impl FnOnce()) -> Entry {
        let kept = Kept::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept.clone()), act);
        kept.0.lock().expect("one thread").pop().expect("one event")
    }

    #[test]
    fn every_field_keeps_its_name_and_text_has_no_quotes() {
        let entry = entry_of(|| {
            let error = std::io::Error::other("gone");
            tracing::warn!(line = "boiler", times = 3, shown = %"as is", error = &error as &dyn std::error::Error, "a frame was {}", "dropped");
        });
        assert_eq!(entry.message, "a frame was dropped");
        let expected = [
            ("line", "boiler"),
            ("times", "3"),
            ("shown", "as is"),
            ("error", "gone"),
        ];
        assert_eq!(entry.fields, expected.map(|(name, text)| (name, text.to_owned())));
    }

    #[test]
    fn the_journal_gets_each_field_once() {
        struct Names(Vec<String>);
        impl<'kvs> kv::VisitSource<'kvs> for Names {
            fn visit_pair(&mut self, key: kv::Key<'kvs>, value: kv::Value<'kvs>) -> Result<(), kv::Error> {
                self.0.push(format!("{key}={value}"));
                Ok(())
            }
        }
        let entry = entry_of(|| tracing::info!(device = "a", metric = "b", "c"));
        let mut names = Names(Vec::new());
        kv::Source::visit(&entry, &mut names).expect("nothing fails");
        assert_eq!(names.0, ["device=a", "metric=b"]);
    }

    #[test]
    fn the_line_shows_what_the_fields_say() {
        let entry = entry_of(
            || tracing::warn!(name: "UplinkLost", sink = "cloud", reason = "no route", unsaid = 0, "uplink lost"),
        );
        assert_eq!(entry.to_string(), "uplink lost sink=cloud reason=\"no route\"");
        let entry = entry_of(|| tracing::warn!(unsaid = 2, "uplink lost"));
        assert_eq!(entry.to_string(), "uplink lost unsaid=2");
    }

    #[test]
    fn a_message_with_a_name_has_its_id() {
        let entry = entry_of(|| tracing::warn!(name: "UplinkLost", sink = "cloud", "uplink lost"));
        let id = ids::id("UplinkLost").expect("it has one").to_owned();
        assert_eq!(entry.fields, [("sink", "cloud".to_owned()), ("message_id", id)]);
    }

    #[test]
    fn an_unset_filter_is_info_and_a_wrong_one_is_told() {
        assert_eq!(filter(None).expect("the default").to_string(), "info");
        assert_eq!(filter(Some(" ")).expect("the default").to_string(), "info");
        assert_eq!(filter(Some("debug")).expect("a level").to_string(), "debug");
        let error = filter(Some("tidegate=loud")).expect_err("no level").to_string();
        assert!(
            error.starts_with("could not read TIDEGATE_LOG=`tidegate=loud`"),
            "{error}"
        );
    }
}
