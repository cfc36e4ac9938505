//! How everything stands: looked together from what each stage shows of itself. Nothing waits for a stage but the
//! engine's answer.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::watch;

use super::{
    evaluate::{self, Open},
    lines, local, uplinks,
    watch::FILLING,
};
use crate::{
    control::status::{DoorStatus, JournalStatus, LineStatus, SinkStatus, Status},
    event::Epoch,
    journal::{self, Journal},
    recorder,
    source::{
        mqtt::{self, Counters},
        serial::Link,
    },
    time::{Clock, ClockQuality, EngineTime},
};

const EVENTS_DISCARDED: &str = "events_discarded";
const STORAGE_DAMAGED: &str = "storage_damaged";

/// Where to look.
#[derive(Clone, Debug)]
pub(super) struct Views {
    pub(super) gateway: Arc<str>,
    pub(super) epoch: Epoch,
    pub(super) clock: Clock,
    pub(super) started: EngineTime,
    /// A configuration that was found wrong at the start, and another is used.
    pub(super) is_rejected: bool,
    pub(super) journal: Journal,
    pub(super) settings: journal::Settings,
    pub(super) is_journal_sized_by_card: bool,
    pub(super) engine: watch::Receiver<evaluate::Status>,
    pub(super) uplinks: watch::Receiver<Vec<uplinks::View>>,
    pub(super) lines: watch::Receiver<Vec<lines::View>>,
    pub(super) door: Option<mqtt::Handle>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) lost: Arc<local::Lost>,
}

impl Views {
    /// All of it. `open` is what the engine says; none: it did not answer, which is the worst trouble.
    pub(super) fn status(&self, open: Option<&Open>) -> Status {
        let moment = self.clock.moment();
        let (counts, heard) = {
            let engine = self.engine.borrow();
            (engine.counts, engine.heard)
        };
        let uptime_s = moment.boot.since(self.started).as_secs();
        let written = recorder::written_by_this_process();
        let mut status = Status {
            gateway: self.gateway.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: self.epoch.to_string(),
            uptime_s,
            time: moment.wall.to_string(),
            clock: match moment.quality {
                ClockQuality::Synchronised => "synchronised",
                ClockQuality::Corrected | ClockQuality::Unknown => "unknown",
            }
            .to_owned(),
            journal: self.journal(),
            sinks: self.sinks(),
            door: self.door(),
            lines: self.lines(),
            devices: open.map_or(0, |open| open.devices),
            readings: counts.evaluated,
            last_reading_s: heard.map(|at| moment.boot.since(at).as_secs()),
            written_bytes: written,
            written_per_day_bytes: written.and_then(|bytes| per_day(bytes, uptime_s)),
            alarms: open.map_or(0, |open| open.episodes.len()),
            mutes: open.map_or(0, |open| open.mutes.len()),
            losses: self.losses(),
            ..Status::default()
        };
        status.troubles = self.troubles(&status, open.is_some());
        status.healthy = status.troubles.is_empty();
        status
    }

    fn journal(&self) -> JournalStatus {
        let health = self.journal.health().borrow().clone();
        JournalStatus {
            dir: self.settings.dir.to_string_lossy().into_owned(),
            max_bytes: self.settings.max_bytes,
            is_sized_by_card: self.is_journal_sized_by_card,
            used_bytes: health.used_bytes,
            undelivered_bytes: health.undelivered_bytes,
            last: health.last.0,
            parked: health.parked,
        }
    }

    fn sinks(&self) -> Vec<SinkStatus> {
        let health = self.journal.health().borrow().clone();
        let letters = self.journal.dead_letters();
        let sink = |view: &uplinks::View| {
            let status = view.status.borrow().clone();
            SinkStatus {
                name: view.name.to_string(),
                connected: status.connected,
                delivered: status.delivered.0,
                backlog: health.behind(status.delivered),
                last_error: status.last_error,
                sent: status.sent,
                confirmed: status.acked,
                redelivered: status.redelivered,
                refused: status.refused,
                dead_letters: letters.iter().filter(|letter| letter.sink == view.name).count(),
            }
        };
        self.uplinks.borrow().iter().map(sink).collect()
    }

    fn door(&self) -> Option<DoorStatus> {
        let door = self.door.as_ref()?;
        Some(DoorStatus {
            listen: self.addresses.iter().map(ToString::to_string).collect(),
            connected: door.presence().present().len(),
            publishes: door.counters().publishes.load(Relaxed),
        })
    }

    fn lines(&self) -> Vec<LineStatus> {
        let line = |view: &lines::View| {
            let link = view.counters.link.borrow().clone();
            LineStatus {
                name: view.name.clone(),
                port: view.port.clone(),
                open: link == Link::Up,
                last_error: match link {
                    Link::Lost(why) => Some(why),
                    Link::New | Link::Up => None,
                },
                frames: view.counters.frames.load(Relaxed),
            }
        };
        self.lines.borrow().iter().map(line).collect()
    }

    fn losses(&self) -> BTreeMap<String, u64> {
        let engine = self.engine.borrow().counts;
        let mut losses = BTreeMap::from([
            (EVENTS_DISCARDED.to_owned(), self.lost.events()),
            ("readings_late".to_owned(), engine.late),
            ("readings_over_limit".to_owned(), engine.over_limit),
            ("states_unreadable".to_owned(), engine.unreadable),
            (
                "commits_refused".to_owned(),
                self.journal.health().borrow().refused,
            ),
        ]);
        let mut add = |name: &str, counter: &AtomicU64| {
            *losses.entry(name.to_owned()).or_default() += counter.load(Relaxed);
        };
        add(STORAGE_DAMAGED, &self.lost.damages);
        if let Some(door) = &self.door {
            let Counters {
                turned_away,
                refused_connections,
                undecodable,
                rejected_values,
                parked,
                not_authorised,
                protocol_errors,
                slow_subscribers,
                too_large_for_subscriber,
                wills_not_evaluated,
                panics,
                connections: _,
                taken_over: _,
                publishes: _,
                acknowledged: _,
                untimed: _,
                // Counted by the engine, too.
                over_limit: _,
                wills: _,
            } = &*door.counters();
            add("connections_turned_away", turned_away);
            add("connections_refused", refused_connections);
            add("connections_that_broke_the_protocol", protocol_errors);
            add("connections_that_panicked", panics);
            add("payloads_undecodable", undecodable);
            add("values_rejected", rejected_values);
            add("publishes_refused_for_room", parked);
            add("publishes_not_authorised", not_authorised);
            add("subscribers_cut", slow_subscribers);
            add("events_too_large_for_subscriber", too_large_for_subscriber);
            add("wills_not_evaluated", wills_not_evaluated);
        }
        for line in self.lines.borrow().iter() {
            let counters = &line.counters;
            add("payloads_undecodable", &counters.rejected);
            add("values_rejected", &counters.rejected_values);
            add("serial_frames_oversized", &counters.oversized);
            add("serial_frames_dropped", &counters.dropped_frames);
            add("serial_bytes_dropped", &counters.dropped_bytes);
            add("polls_unanswered", &counters.unanswered);
        }
        losses
    }

    fn troubles(&self, status: &Status, engine_answers: bool) -> Vec<String> {
        let mut troubles = Vec::new();
        if !engine_answers {
            troubles.push("the engine does not answer; the log may say why".to_owned());
        }
        if self.is_rejected {
            troubles.push(
                "the configuration file was wrong at the start and another one runs: `tidegate check` says why"
                    .to_owned(),
            );
        }
        let journal = &status.journal;
        if journal.parked {
            troubles.push(
                "the journal is full: nothing is evaluated; let the uplink deliver, free the disk, or raise \
                 [journal] max-bytes"
                    .to_owned(),
            );
        } else if journal.undelivered_bytes >= journal.max_bytes / 100 * FILLING {
            troubles.push("the journal is filling: most of it waits to be delivered".to_owned());
        }
        for sink in &status.sinks {
            match (&sink.last_error, sink.connected) {
                (Some(error), _) => troubles.push(format!("sink {}: {error}", sink.name)),
                (None, false) => troubles.push(format!("sink {}: not connected yet", sink.name)),
                (None, true) => {}
            }
            if sink.dead_letters > 0 {
                troubles.push(format!(
                    "sink {}: {} events are set aside: `tidegate journal dead ls` lists them",
                    sink.name, sink.dead_letters
                ));
            }
        }
        for line in status.lines.iter().filter(|line| !line.open) {
            let why = line.last_error.as_deref().unwrap_or("not opened yet");
            troubles.push(format!("line {}: {why}", line.name));
        }
        let lost = |name: &str| status.losses.get(name).copied().unwrap_or(0);
        if lost(EVENTS_DISCARDED) > 0 {
            troubles.push(format!(
                "events were discarded since the start before every sink had them: {}; the log and EventsDiscarded name \
                 them and why",
                lost(EVENTS_DISCARDED)
            ));
        }
        if lost(STORAGE_DAMAGED) > 0 {
            troubles.push(
                "the journal's files were found damaged since the start: StorageDamaged and the log say where; if it \
                 comes again, replace the card"
                    .to_owned(),
            );
        }
        if lost("commits_refused") > 0 {
            troubles.push(
                "commits were refused: the journal or its state has no room for them; the log names them"
                    .to_owned(),
            );
        }
        troubles
    }
}

/// Bytes of so many seconds in a day.
fn per_day(bytes: u64, seconds: u64) -> Option<u64> {
    let a_day = u128::from(bytes) * 86_400 / u128::from(seconds.max(1));
    (seconds >= 3_600).then(|| u64::try_from(a_day).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_of_writing_is_told_after_an_hour_of_it() {
        assert_eq!(per_day(1_000_000, 3_599), None, "the start makes files");
        assert_eq!(per_day(1_000_000, 3_600), Some(24_000_000));
        assert_eq!(per_day(u64::MAX, 3_600), Some(u64::MAX));
    }
}
