//! The engine under simulated time beside the reference, and what a journal would have kept of it.

use std::{collections::BTreeMap, fmt::Write, sync::Arc, time::Duration};

use tidegate::{
    event::{Data, Draft, Epoch, Position, Reason},
    reading::{Reading, Value},
    rule::{
        Rule,
        engine::{Engine, MuteTarget, Setup, Skipped},
        state::Outcome,
    },
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

use super::{
    contract,
    reference::{Reference, Restart, Second},
    strategy::{Act, Boot, Edit, RuleSpec, Step, Story, Target, WALL, device, facts, metric_of, name},
    told::{Figures, Told},
};

/// A crash comes right after a save, but nobody may count on that.
const CHECKPOINT: Duration = Duration::from_secs(10);

pub struct Rig {
    rules: Vec<Option<RuleSpec>>,
    lazy: bool,
    kills: bool,
    /// Since a kill figures may lag behind.
    killed: bool,
    engine: Engine,
    setup: Setup,
    saved: BTreeMap<Vec<u8>, Vec<u8>>,
    commits: u64,
    reference: Reference,
    told: Vec<Told>,
    now: Second,
    /// When the last reading arrived that had no stamp of its own.
    arrived: Second,
    /// Some rule looks at a window.
    windowed: bool,
    /// Some rule is `silent-for`.
    has_silence: bool,
    /// Some rule has sub-conditions.
    has_parts: bool,
    /// No stamp is earlier.
    stamps_from: Second,
    /// What the second device's clock is behind.
    behind: Second,
    boot: u128,
    /// When the machine was started.
    booted: Second,
    /// What the wall clock is ahead of the story.
    wall: Second,
    synchronised: bool,
}

impl Rig {
    pub fn new(story: &Story) -> Self {
        let setup = Setup {
            rules: rules(&story.rules.iter().cloned().map(Some).collect::<Vec<_>>()),
            devices: facts(&story.expects),
            epoch: Epoch(7),
            max_devices: 100,
            max_metrics: 10,
            checkpoint: CHECKPOINT,
        };
        let (boot, booted, wall) = (1, -100, WALL);
        let synchronised = story.synchronised;
        let moment = moment(boot, booted, 0, wall, synchronised);
        let mut out = Outcome::default();
        let mut rig = Self {
            rules: story.rules.iter().cloned().map(Some).collect(),
            lazy: story.lazy,
            kills: story.kills,
            killed: false,
            engine: Engine::restore(setup.clone(), &[], moment, &mut out),
            reference: Reference::new(
                setup.rules.clone(),
                setup.devices.clone(),
                synchronised.then_some(wall),
            ),
            setup,
            saved: BTreeMap::new(),
            commits: 0,
            told: Vec::new(),
            now: 0,
            arrived: -1,
            windowed: story.rules.iter().any(RuleSpec::has_windows),
            has_silence: story.rules.iter().any(RuleSpec::is_silence),
            has_parts: story.rules.iter().any(RuleSpec::has_parts),
            stamps_from: Second::MIN,
            behind: 0,
            boot,
            booted,
            wall,
            synchronised,
        };
        rig.commit(out);
        rig
    }

    /// The whole story, and the three minutes after it.
    pub fn tell(story: &Story) -> Result<(), String> {
        let mut rig = Self::new(story);
        for (number, step) in story.steps.iter().enumerate() {
            let when = format!("step {number}, {:?}", step.act);
            rig.step(step)
                .map_err(|why| format!("{when} at {}: {why}", rig.now))?;
            rig.compare(&format!("after {when} at {}", rig.now))?;
        }
        rig.pass(180);
        rig.advance();
        rig.compare("three minutes after the end")
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        self.pass(step.pass.into());
        let reads = matches!(step.act, Act::Read { .. });
        if !(reads && self.lazy) {
            self.advance();
        }
        match &step.act {
            Act::Wait => {}
            Act::Read {
                device,
                metric,
                value,
                age,
            } => self.read(*device, *metric, value, *age)?,
            Act::ClockBehind(seconds) => self.behind = (*seconds).into(),
            Act::SaveWindows => {
                self.with_engine(Engine::save_windows);
            }
            Act::Restart { clean, gone, boot } => self.restart(*clean, (*gone).into(), *boot),
            Act::Edit { .. } if self.kills => {}
            Act::Edit { rule, edit, hot } => self.edit(*rule, edit, *hot),
            Act::Mute { target, length } => {
                let (target, length) = (target_of(*target), Duration::from_secs((*length).into()));
                self.with_engine(|engine, out| engine.mute(target.clone(), length, "why", out));
                self.reference
                    .mute(target, self.now, self.now + length.as_secs() as Second);
            }
            Act::Unmute { target } => {
                let target = target_of(*target);
                let was = self.with_engine(|engine, out| engine.unmute(&target, out));
                agree(
                    "whether it was muted",
                    was,
                    self.reference.unmute(&target, self.now),
                )?;
            }
            Act::Forget { device: index } => {
                let device = device(*index);
                self.with_engine(|engine, out| engine.forget(&device, out));
                self.reference.forget(&device, self.now);
            }
        }
        Ok(())
    }

    fn pass(&mut self, seconds: Second) {
        self.now += seconds;
        let moment = moment(self.boot, self.booted, self.now, self.wall, self.synchronised);
        self.engine.set_moment(moment);
    }

    /// Only when the engine asks for it: a deadline that it does not tell is one that nobody wakes it for.
    fn advance(&mut self) {
        let now = engine_time(self.now, self.booted);
        while let Some(deadline) = self.engine.next_deadline().filter(|it| *it <= now) {
            self.with_engine(|engine, out| engine.advance(deadline, out));
            assert_ne!(
                self.engine.next_deadline(),
                Some(deadline),
                "a deadline that does not go away"
            );
        }
        self.reference.until(self.now);
    }

    fn read(&mut self, index: usize, metric: usize, value: &Value, age: u8) -> Result<(), String> {
        let stamped = index == 1 && !self.kills;
        let mut at = self.now;
        if stamped {
            at = (at - Second::from(age) - self.behind).max(self.stamps_from);
            if self.windowed || self.has_parts {
                // What has left a window is gone, and of another metric the last value counts: nobody asks again
                // how it was before.
                at = self.now;
            }
        } else if self.arrived == self.now {
            // Arrival stamps are strictly increasing.
            self.pass(1);
            at = self.now;
        }
        if !stamped {
            self.arrived = at;
        }
        let value = match value {
            // A text under `above` is no reading of a sub-condition, but shows that its metric is not stale.
            Value::Bool(_) | Value::Text(_) if self.has_parts => &Value::Number(0.0),
            value => value,
        };
        let reading = Reading {
            device: device(index),
            metric: metric_of(metric),
            value: value.clone(),
            unit: None,
            at: engine_time(at, self.booted),
            stamped,
        };
        let engine: Result<(), Skipped> = self.with_engine(|engine, out| engine.observe(&reading, out));
        let reference = self.reference.observe(&reading, at, self.now);
        agree("whether it was taken", engine, reference)
    }

    fn restart(&mut self, clean: bool, gone: Second, boot: Boot) {
        let clean = clean || !self.kills;
        let gone_at = self.now;
        if clean {
            self.with_engine(Engine::checkpoint);
        } else {
            // What is missing after a kill is not part of this: it is younger than the last checkpoint.
            self.with_engine(Engine::save_windows);
            self.killed = true;
        }
        let (same, synchronised) = match boot {
            Boot::Same => (true, self.synchronised),
            // What was saved when nobody knows: only a clean stop says how old all of it is.
            Boot::New { synchronised } if !clean => (false, synchronised && self.synchronised),
            Boot::New { synchronised } => (false, synchronised),
        };
        let same = same || (!clean && !synchronised);
        let known = same || (self.synchronised && synchronised);
        if known {
            self.now += gone;
        } else {
            // "Otherwise what remained starts anew": for the story no time passed.
            self.wall += gone;
            // How long ago something of before was is a question without an answer.
            self.stamps_from = self.now;
        }
        if !same {
            self.boot += 1;
            self.booted = self.now - 5;
            self.synchronised = synchronised;
        }
        let moment = moment(self.boot, self.booted, self.now, self.wall, self.synchronised);
        let saved: Vec<_> = self.saved.clone().into_iter().collect();
        let mut out = Outcome::default();
        self.engine = Engine::restore(self.setup.clone(), &saved, moment, &mut out);
        self.commit(out);
        if self.has_silence {
            // Whether silence counts from a stamp of before an absence is nobody's question.
            self.stamps_from = self.now;
        }
        self.reference.restart(Restart {
            clean,
            gone_at,
            back_at: self.now,
            checkpoint: CHECKPOINT,
            known,
            wall: self.synchronised.then_some(self.wall),
            rules: self.setup.rules.clone(),
        });
    }

    fn edit(&mut self, rule: usize, edit: &Edit, hot: bool) {
        let Some(spec) = self.rules.get_mut(rule) else {
            return;
        };
        *spec = match spec {
            Some(before) => before.edited(edit),
            None => None,
        };
        self.setup.rules = rules(&self.rules);
        self.has_silence |= self.rules.iter().flatten().any(RuleSpec::is_silence);
        self.has_parts |= self.rules.iter().flatten().any(RuleSpec::has_parts);
        self.windowed |= self.rules.iter().flatten().any(RuleSpec::has_windows);
        if hot {
            let setup = self.setup.clone();
            self.with_engine(|engine, out| engine.reconfigure(setup, out));
            self.reference.edit(&self.setup.rules, self.now);
        } else {
            self.restart(true, 1, Boot::Same);
        }
    }

    fn with_engine<T>(&mut self, act: impl FnOnce(&mut Engine, &mut Outcome) -> T) -> T {
        let mut out = Outcome::default();
        let said = act(&mut self.engine, &mut out);
        self.commit(out);
        said
    }

    /// What the driver does with an outcome.
    fn commit(&mut self, out: Outcome) {
        if out.events.is_empty() && out.state.is_empty() {
            return;
        }
        out.events.iter().for_each(contract::check_draft);
        for change in out.state {
            assert!(change.key.len() <= 512);
            match change.value {
                Some(value) => {
                    assert!(value.len() <= 4096);
                    self.saved.insert(change.key, value);
                }
                None => {
                    self.saved.remove(&change.key);
                }
            }
        }
        let booted = self.booted;
        self.told
            .extend(out.events.iter().filter_map(|draft| told(draft, booted)));
        self.commits += 1;
        self.engine.committed(Position(self.commits));
    }

    fn compare(&self, when: &str) -> Result<(), String> {
        let lines = |told: &[Told]| -> Vec<String> {
            let mut told = told.to_vec();
            // In which order an edit ends several episodes is nobody's business.
            for ends in told.chunk_by_mut(|one, other| ends(one) && ends(other) && one.at == other.at) {
                ends.sort_by_key(|told| told.episode);
            }
            let line = |told: &Told| {
                let mut figures = told.figures.clone().plain();
                if self.killed {
                    figures = Figures::default();
                }
                if told.reason.is_some_and(|reason| reason != Reason::BackToNormal) {
                    // No value decided.
                    figures.value = None;
                }
                Told {
                    figures,
                    ..told.clone()
                }
                .to_string()
            };
            told.iter().map(line).collect()
        };
        let (engine, reference) = (lines(&self.told), lines(&self.reference.told));
        if engine != reference {
            let same = engine
                .iter()
                .zip(&reference)
                .take_while(|(engine, reference)| engine == reference)
                .count();
            let mut report = format!("{when}:\n");
            let mut list = |who: &str, lines: &[String]| {
                for line in lines {
                    _ = writeln!(report, "  {who:9} {line}");
                }
            };
            list("both", &engine[..same]);
            list("engine", &engine[same..]);
            list("reference", &reference[same..]);
            return Err(report);
        }
        let open = (self.engine.active(), self.reference.open());
        if open.0 != open.1 {
            return Err(format!(
                "{when}: {} episodes are open, by the reference {}",
                open.0, open.1
            ));
        }
        Ok(())
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, engine: T, reference: T) -> Result<(), String> {
    if engine == reference {
        return Ok(());
    }
    Err(format!(
        "{what}: the engine says {engine:?}, the reference {reference:?}"
    ))
}

fn ends(told: &Told) -> bool {
    let because_of_an_edit = [
        Reason::RuleChanged,
        Reason::RuleRemoved,
        Reason::DeviceRemoved,
        Reason::Muted,
    ];
    told.reason
        .is_some_and(|reason| because_of_an_edit.contains(&reason))
}

fn rules(specs: &[Option<RuleSpec>]) -> Vec<Arc<Rule>> {
    let named = |(index, spec): (usize, &Option<RuleSpec>)| Some(Arc::new(spec.as_ref()?.rule(index)));
    specs.iter().enumerate().filter_map(named).collect()
}

fn target_of(target: Target) -> MuteTarget {
    match target {
        Target::Device(index) => MuteTarget::Device(device(index)),
        Target::Rule(index) => MuteTarget::Rule(name(index)),
    }
}

fn moment(boot: u128, booted: Second, now: Second, wall: Second, synchronised: bool) -> Moment {
    Moment {
        boot_id: BootId(boot),
        boot: engine_time(now, booted),
        wall: Timestamp((now + wall) * 1_000_000),
        quality: if synchronised {
            ClockQuality::Synchronised
        } else {
            ClockQuality::Unknown
        },
    }
}

fn engine_time(at: Second, booted: Second) -> EngineTime {
    EngineTime((at - booted) * 1_000_000)
}

fn told(draft: &Draft, booted: Second) -> Option<Told> {
    let Data::Rule(data) = &draft.data else {
        return None;
    };
    let second = |at: EngineTime| {
        assert_eq!(at.0 % 1_000_000, 0, "whole seconds went in");
        at.0 / 1_000_000 + booted
    };
    let episode = &data.episode;
    Some(Told {
        at: second(draft.at),
        transition: draft.transition?,
        reason: episode.reason,
        name: draft.name.to_string(),
        rule: data.rule.name.to_string(),
        device: data.device.clone(),
        episode: episode.id.number,
        severity: draft.severity,
        since: second(episode.since),
        raised_at: second(episode.raised_at),
        reminder: episode.reminder,
        flaps: episode.flaps,
        figures: Figures {
            value: data.value.clone(),
            min: episode.min,
            max: episode.max,
            readings: episode.readings,
        },
    })
}
