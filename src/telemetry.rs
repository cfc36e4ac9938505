//! What the daemon says of itself: to systemd's journal with real fields, else to the terminal.
//!
//! Under systemd every field of an event is a field of the journal's entry, its name in capitals:
//! `journalctl -u tidegate LINE=boiler`. On a terminal, one compact line on standard error, in colour only
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
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::{SubscriberInitExt, TryInitError},
};

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

/// Starts logging, once in the life of the process.
///
/// # Errors
///
/// If `TIDEGATE_LOG` is no filter, or logging was started before.
pub fn init() -> Result<(), Error> {
    let filter = filter(std::env::var(FILTER).ok().as_deref())?;
    let registry = tracing_subscriber::registry().with(filter);
    if let Some(journal) = Journal::connect() {
        return Ok(registry.with(journal).try_init()?);
    }
    let terminal = tracing_subscriber::fmt::layer()
        .compact()
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    Ok(registry.with(terminal).try_init()?)
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
    fn connect() -> Option<Self> {
        if !systemd_journal_logger::connected_to_journal() {
            return None;
        }
        // Standard error still goes to the journal, only without fields.
        let log = JournalLog::empty().ok()?;
        Some(Self {
            log: log.with_syslog_identifier("tidegate".into()),
        })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let entry = Entry::of(event);
        let metadata = event.metadata();
        let sent = self.log.journal_send(
            &log::Record::builder()
                .level(level(*metadata.level()))
                .target(metadata.target())
                .module_path(metadata.module_path())
                .file(metadata.file())
                .line(metadata.line())
                .args(format_args!("{}", entry.message))
                .key_values(&entry)
                .build(),
        );
        if let Err(error) = sent {
            // Nobody is left to tell if this fails too.
            writeln!(
                std::io::stderr(),
                "{} (not in the journal: {error})",
                entry.message
            )
            .ok();
        }
    }
}

fn level(level: Level) -> log::Level {
    match level {
        Level::ERROR => log::Level::Error,
        Level::WARN => log::Level::Warn,
        Level::INFO => log::Level::Info,
        Level::DEBUG => log::Level::Debug,
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
        entry
    }

    fn put(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.fields.push((field.name(), text));
        }
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
