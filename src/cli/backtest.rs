//! `tidegate backtest`: what rules would have said of recorded readings, beside what was said.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Failure, noted, printed,
    recorded::{Span, Time, place, warn_of},
};
use crate::{
    event::{self, Data, Draft, Position, Transition},
    journal::inspect::Inspection,
    recorder::{self, Record},
    story::{Replay, Rules, Stop},
    time::Timestamp,
};

/// Events of the two sides further apart than this are two events. Between them lie a clock that is being steered, and
/// the moment at which the gateway woke.
const SAME: i64 = 2_000_000;

/// Which rules, over which readings.
#[derive(Debug, clap::Args)]
pub(super) struct Backtest {
    /// The rules to try: a rule set, or a whole configuration.
    #[arg(long, value_name = "FILE")]
    rules: PathBuf,
    /// The configuration whose gateway recorded the readings and the events.
    #[arg(long, short, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// Only readings from this time on: 2026-11-21T10:00:00Z, or how long ago: 2h. No alarm is open then.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Only readings before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
}

/// One event, of either side.
#[derive(Debug)]
struct Event {
    at: Timestamp,
    draft: Draft,
}

impl Backtest {
    pub fn run(self) -> Result<(), Failure> {
        let wanted = Span::between(self.from, self.to)?;
        let rules = super::test::rules(&self.rules).map_err(|report| super::wrong(&report))?;
        let config = super::configuration(&self.config)?;
        let dir = place(&self.config, None)?;
        let near = Span {
            from: Timestamp(wanted.from.0.saturating_sub(SAME)),
            to: Timestamp(wanted.to.0.saturating_add(SAME)),
        };
        let mut did = Vec::new();
        let mut runs = Runs::default();
        let mut take = |event: Arc<event::Event>| {
            let at = event.recorded.wall_of(event.draft.at);
            runs.take(at, &event.draft);
            if near.has(at) && matches!(event.draft.data, Data::Rule(_)) {
                did.push(Event {
                    at,
                    draft: event.draft.clone(),
                });
            }
        };
        let read = Inspection::look(&config.journal.dir).and_then(|journal| {
            journal.events(Position(0), |found| {
                take(found.entry.event);
                ControlFlow::Continue(())
            })
        });
        let replayed = replay(&dir, rules, wanted, &runs.starts);
        let (would, span, count, damage) = replayed.map_err(|error| {
            Failure::Failed(format!("tidegate: could not read {}: {error}", dir.display()))
        })?;
        warn_of(damage);
        did.retain(|event| span.has(event.at));
        match read {
            Ok(unread) => super::journal::warn_of(&unread),
            Err(error) => noted(&format!(
                "warning: {error}; only what would have happened is shown"
            )),
        }
        let mut out = BufWriter::new(io::stdout().lock());
        printed(tell(&would, &did, count, &mut out).and_then(|()| out.flush()))
    }
}

/// When the gateway was down, as its own events tell.
#[derive(Debug, Default)]
struct Runs {
    /// In order of time, unless a clock was wrong.
    starts: Vec<Start>,
    /// The last that was said before, and whether that was goodbye.
    last: Option<Timestamp>,
    stopped: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Start {
    /// The last that is known of the run before; none: nothing.
    down: Option<Timestamp>,
    stop: Stop,
    up: Timestamp,
}

impl Runs {
    fn take(&mut self, at: Timestamp, draft: &Draft) {
        match &*draft.kind {
            "io.tidegate.gateway.GatewayStarted" => {
                // What recovery found wrong stands before it: only goodbye is right behind a clean stop.
                let Data::Gateway(data) = &draft.data else { return };
                let is_clean = self.stopped || data.get("unclean") == Some(&false.into());
                self.starts.push(Start {
                    down: self.last,
                    stop: if is_clean { Stop::Restart } else { Stop::Kill },
                    up: at,
                });
                self.stopped = false;
            }
            "io.tidegate.gateway.GatewayStopped" => self.stopped = true,
            // A start finds them and says so before it says that it is one: no sign of life of the run before.
            "io.tidegate.gateway.EventsDiscarded" | "io.tidegate.gateway.StorageDamaged" => return,
            _ => {}
        }
        self.last = Some(at);
    }
}

type Replayed = (Vec<Event>, Span, u64, recorder::Damage);

/// What the rules say of the readings, and from when to when these are.
fn replay(dir: &Path, rules: Rules, wanted: Span, starts: &[Start]) -> io::Result<Replayed> {
    let mut rules = Some(rules);
    let mut replay: Option<Replay> = None;
    let mut down = None;
    let mut starts = starts.iter().peekable();
    let (mut first, mut last) = (Timestamp(i64::MAX), Timestamp(i64::MIN));
    let mut count = 0_u64;
    let damage = recorder::read(dir, |record| {
        match record {
            Record::Began(stopped) => down = stopped,
            Record::Reading { reading, wall, .. } if wanted.has(wall) => {
                let mut recorded = down.take();
                if let Some(rules) = rules.take() {
                    replay = Some(Replay::new(rules, wall));
                    first = wall;
                    while starts.next_if(|start| start.up <= wall).is_some() {}
                } else if let Some(replay) = &mut replay {
                    while let Some(start) = starts.next_if(|start| start.up <= wall) {
                        // The recorder may have heard more of the run before than the journal.
                        let down = start.down.max(Some(last)).max(recorded.take());
                        replay.restart(
                            start.stop,
                            down.map_or(start.up, |down| down.min(start.up)),
                            start.up,
                        );
                    }
                    // Only the recorder remembers.
                    if let Some(down) = recorded {
                        replay.restart(Stop::Restart, down, wall);
                    }
                }
                if let Some(replay) = &mut replay {
                    replay.tell(&reading, wall);
                }
                last = last.max(wall);
                count += 1;
            }
            Record::Reading { .. } => {}
        }
        Ok(())
    })?;
    let span = Span {
        from: Timestamp(first.0.saturating_sub(SAME)),
        to: Timestamp(last.0.saturating_add(SAME)),
    };
    let said = replay.map(|replay| replay.done(last)).unwrap_or_default();
    let would = said.into_iter().map(|(at, said)| Event {
        at,
        draft: said.draft,
    });
    Ok((would.collect(), span, count, damage))
}

fn tell(would: &[Event], did: &[Event], readings: u64, out: &mut impl Write) -> io::Result<()> {
    let mut left = Left::default();
    for (index, event) in did.iter().enumerate() {
        left.put(event, index);
    }
    let mut lines: Vec<(Timestamp, char, String)> = Vec::new();
    for event in would {
        let mark = if left.take(event) { '=' } else { '+' };
        lines.push((event.at, mark, event.shown()));
    }
    let rest = left.0.values().flatten();
    lines.extend(
        rest.filter_map(|(_, index)| did.get(*index))
            .map(|event| (event.at, '-', event.shown())),
    );
    lines.sort();
    let counted = |mark: char| lines.iter().filter(|(_, other, _)| *other == mark).count();
    for (at, mark, text) in &lines {
        writeln!(out, "{mark} {at}  {text}")?;
    }
    if !lines.is_empty() {
        writeln!(out)?;
    }
    let readings = super::counted(
        usize::try_from(readings).unwrap_or(usize::MAX),
        "reading",
        "readings",
    );
    let (both, new, gone) = (counted('='), counted('+'), counted('-'));
    writeln!(
        out,
        "{readings}; = {both} as it was, + {new} only with these rules, - {gone} only as it was"
    )
}

/// The events that were and have no partner yet, by what must be the same, in order of time: a flood of them must not
/// be searched for each event.
#[derive(Default)]
struct Left(HashMap<Key, BTreeSet<(Timestamp, usize)>>);

type Key = (Arc<str>, Arc<str>, Option<Transition>);

impl Left {
    fn put(&mut self, event: &Event, index: usize) {
        self.0.entry(event.key()).or_default().insert((event.at, index));
    }

    /// Takes the nearest in time that is the same event, if there is one.
    fn take(&mut self, event: &Event) -> bool {
        let Some(same) = self.0.get_mut(&event.key()) else {
            return false;
        };
        let here = (event.at, 0);
        let near = [same.range(..here).next_back(), same.range(here..).next()];
        let nearest = near
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| at.0.abs_diff(event.at.0))
            .filter(|(at, _)| at.0.abs_diff(event.at.0) <= SAME.unsigned_abs())
            .copied();
        nearest.is_some_and(|nearest| same.remove(&nearest))
    }
}

impl Event {
    fn key(&self) -> Key {
        let draft = &self.draft;
        (
            Arc::clone(&draft.name),
            Arc::clone(&draft.about),
            draft.transition,
        )
    }

    fn shown(&self) -> String {
        let draft = &self.draft;
        let mut text = format!("{:<32}  {}", draft.name, draft.about);
        if let Data::Rule(data) = &draft.data
            && let Some(value) = &data.value
        {
            text = format!("{text}  value {value}");
        }
        match draft.transition {
            Some(Transition::Reminded) => text.push_str("  reminded"),
            Some(Transition::Changed) => text.push_str("  changed"),
            _ => {}
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        event::Severity,
        reading::{DeviceId, Metric, Reading, Value},
        recorder::Recorder,
        time::{BootId, Clock, EngineTime, Simulated},
    };

    fn event(at: i64) -> Event {
        Event {
            at: Timestamp(at),
            draft: Draft {
                kind: "io.tidegate.rule.TooHot".into(),
                name: "TooHot".into(),
                subject: "boiler/temperature".into(),
                about: "boiler".into(),
                severity: Severity::Warning,
                at: EngineTime(at),
                transition: Some(Transition::Raised),
                correlation: None,
                data: Data::Gateway(serde_json::Map::new()),
            },
        }
    }

    #[test]
    fn the_journal_tells_when_the_gateway_was_down_and_whether_it_had_said_goodbye() {
        let mut runs = Runs::default();
        let mut take = |at: i64, name: &str, data: serde_json::Value| {
            let mut event = event(at);
            event.draft.kind = format!("io.tidegate.gateway.{name}").into();
            event.draft.data = Data::Gateway(data.as_object().cloned().unwrap_or_default());
            runs.take(Timestamp(at), &event.draft);
        };
        take(10, "GatewayStarted", serde_json::json!({ "unclean": false }));
        take(50, "GatewayStopped", serde_json::json!({}));
        take(60, "GatewayStarted", serde_json::json!({ "unclean": false }));
        take(70, "GatewayAlive", serde_json::json!({}));
        take(88, "StorageDamaged", serde_json::json!({}));
        take(89, "EventsDiscarded", serde_json::json!({}));
        take(90, "GatewayStarted", serde_json::json!({ "unclean": true }));
        let start = |down: Option<i64>, stop, up| Start {
            down: down.map(Timestamp),
            stop,
            up: Timestamp(up),
        };
        assert_eq!(
            runs.starts,
            [
                start(None, Stop::Restart, 10),
                start(Some(50), Stop::Restart, 60),
                start(Some(70), Stop::Kill, 90),
            ]
        );
    }

    #[test]
    fn a_silence_that_fell_due_between_a_start_and_the_first_reading_after_it_is_found() {
        const START: i64 = 1_800_000_000_000_000;
        let wall = |second: i64| Timestamp(START + second * 1_000_000);
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (folder.path().join("readings"), folder.path().join("rules.toml"));
        let hands = Simulated::new(BootId(1));
        hands.set(wall(0));
        hands.synchronise(true);
        // Two runs of the gateway, and each hears of the boiler once.
        for second in [0, 2_000] {
            hands.advance(Duration::from_secs(second));
            let clock = Clock::simulated(&hands);
            let settings = recorder::Settings {
                dir: dir.clone(),
                max_bytes: 1 << 20,
            };
            let (recorder, ended) = Recorder::start(settings, clock.clone()).unwrap();
            let reading = Reading {
                device: DeviceId::new("boiler").unwrap(),
                metric: Metric::new("temperature").unwrap(),
                value: Value::Number(20.0),
                unit: None,
                at: clock.now(),
                stamped: false,
            };
            recorder.record(vec![reading], clock.now());
            drop(recorder);
            ended.blocking_recv().unwrap();
        }
        // The second run began long before: the silence fell due ten minutes later, less the minute of the first.
        let mut runs = Runs::default();
        let said = [
            (0, "GatewayStarted"),
            (60, "GatewayStopped"),
            (100, "GatewayStarted"),
        ];
        for (second, name) in said {
            let mut event = event(second);
            event.draft.kind = format!("io.tidegate.gateway.{name}").into();
            let unclean = ("unclean".to_owned(), false.into());
            event.draft.data = Data::Gateway([unclean].into_iter().collect());
            runs.take(wall(second), &event.draft);
        }
        let rule = "[[rule]]\nevent = \"BoilerSilent\"\nmetric = \"temperature\"\nsilent-for = \"10m\"\n";
        std::fs::write(&file, rule).unwrap();
        let would = |starts: &[Start]| {
            let rules = crate::cli::test::rules(&file).unwrap();
            let (would, ..) = replay(&dir, rules, Span::of(None, None), starts).unwrap();
            let told = would.iter().map(|event| (event.draft.name.to_string(), event.at));
            told.collect::<Vec<_>>()
        };
        let silence = [("BoilerSilent", wall(640)), ("BoilerSilentCleared", wall(2_000))];
        let silence = silence.map(|(name, at)| (name.to_owned(), at));
        assert_eq!(would(&runs.starts), silence);
        // Without the journal the second run begins with its first reading.
        assert_eq!(would(&[]), []);
    }

    #[test]
    fn a_flood_of_the_same_event_is_paired_as_one_pass() {
        // Tried one against the other, these would be 10^10 comparisons: minutes.
        let many = || (0..100_000).map(|number| event(number * 10)).collect::<Vec<_>>();
        let mut out = Vec::new();
        let mut later = many();
        later.push(event(10_000_000));
        tell(&many(), &later, 4, &mut out).unwrap();
        let told = String::from_utf8(out).unwrap();
        let last = told.lines().last().unwrap();
        assert_eq!(
            last,
            "4 readings; = 100000 as it was, + 0 only with these rules, - 1 only as it was"
        );
    }

    #[test]
    fn the_nearest_event_within_two_seconds_is_the_same() {
        let mut left = Left::default();
        for (index, at) in [0, 3_000_000, 9_000_000].into_iter().enumerate() {
            left.put(&event(at), index);
        }
        assert!(left.take(&event(2_000_000)));
        assert_eq!(left.0.values().flatten().count(), 2);
        assert!(left.take(&event(2_000_000)), "the one at 0 is left for it");
        assert!(!left.take(&event(6_999_999)));
    }
}
