//! What is kept of an engine while it is not there: read back from the journal after a start, or taken from memory
//! when another configuration comes. A reload is a clean restart without the disk, so both are kept alike.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Engine, MuteTarget, basis,
    hush::Muted,
    latch::NEVER,
    restore::nth_input,
    saved::{
        COUNTER, MOMENT, MUTE_COUNTER, Question, STOPPED, SavedMute, SavedRun, SavedWatch, decode, encode,
        forget, move_by, mute_key, parse_mute_key, parse_run_key, parse_slot_key, parse_watch_key, run_key,
        shift,
    },
    slot::{ReadBases, SavedSlot},
    watch::Keep,
    window::{Chunk, Window},
};
use crate::{
    event::Position,
    reading::{DeviceId, Metric},
    rule::state::{Outcome, StateChange},
    time::{BootId, ClockQuality, EngineTime, Moment},
};

/// All of it, with times of the boot that now is.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub watches: Vec<KeptWatch>,
    pub slots: Vec<KeptSlot>,
    pub windows: Vec<KeptWindow>,
}

/// What is left to do for the disk to have it as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnDisk {
    /// Nothing.
    Same,
    /// It has to wait for the next checkpoint, as before.
    Older,
    /// It is of another boot: it must be written before the next kill takes that boot's time from it again.
    OtherBoot,
}

#[derive(Debug)]
pub(super) struct KeptWatch {
    pub device: DeviceId,
    pub metric: Metric,
    pub saved: SavedWatch,
    pub on_disk: OnDisk,
}

#[derive(Debug)]
pub(super) struct KeptSlot {
    pub rule: Arc<str>,
    pub device: DeviceId,
    pub saved: SavedSlot,
    pub on_disk: OnDisk,
    pub committed: Position,
    /// Nothing vouches for it: what was not saved yet is missing. How far the run is known that kept it.
    pub crashed: Option<EngineTime>,
}

#[derive(Debug)]
pub(super) struct KeptWindow {
    pub rule: Arc<str>,
    pub device: DeviceId,
    /// Which of the rule's inputs it was.
    pub place: usize,
    pub question: Question,
    pub window: Box<Window>,
    pub on_disk: OnDisk,
}

/// The newest moment of each boot: all that was saved in one boot is as old as that, as its clock tells.
#[derive(Debug, Default)]
struct Boots(HashMap<BootId, Boot>);

#[derive(Clone, Copy, Debug)]
struct Boot {
    newest: Moment,
    /// The newest at which the wall clock was right.
    right: Option<Moment>,
}

/// What the journal's keys say, as it was saved.
#[derive(Debug, Default)]
struct Read {
    boots: Boots,
    stopped: Option<Moment>,
    mutes: Vec<(MuteTarget, SavedMute)>,
    watches: Vec<(DeviceId, Metric, SavedWatch)>,
    slots: Vec<(Arc<str>, DeviceId, SavedSlot)>,
    runs: BTreeMap<(Arc<str>, DeviceId, usize), BTreeMap<u32, SavedRun>>,
    bases: ReadBases,
}

impl Boots {
    fn note(&mut self, at: Moment) {
        let right = (at.quality == ClockQuality::Synchronised).then_some(at);
        let boot = self.0.entry(at.boot_id).or_insert(Boot { newest: at, right });
        if at.boot >= boot.newest.boot {
            boot.newest = at;
        }
        if let Some(at) = right
            && boot.right.is_none_or(|right| at.boot >= right.boot)
        {
            boot.right = Some(at);
        }
    }

    /// The end of the boot in which something was saved, as far as it is known.
    fn end(&self, saved: Moment) -> Moment {
        let Some(boot) = self.0.get(&saved.boot_id) else {
            return saved;
        };
        match boot.right {
            Some(right) => Moment {
                wall: right.wall_of(boot.newest.boot),
                quality: ClockQuality::Synchronised,
                ..boot.newest
            },
            None => boot.newest,
        }
    }
}

impl Engine {
    /// Reads what the journal kept. Mutes and counters go straight into the engine.
    pub(super) fn read(
        &mut self,
        saved: &[(Vec<u8>, Vec<u8>)],
        now: &Moment,
        out: &mut Outcome,
    ) -> (Kept, ReadBases) {
        let mut read = Read::default();
        let is_basis = |(key, _): &&(Vec<u8>, Vec<u8>)| basis::parse_key(key).is_some();
        // What slots rest on comes before them.
        let (bases, others): (Vec<_>, Vec<_>) = saved.iter().partition(is_basis);
        for (key, bytes) in bases.into_iter().chain(others) {
            if self.read_key(key, bytes, &mut read).is_none() {
                self.counts.unreadable = self.counts.unreadable.saturating_add(1);
                out.state.push(forget(key));
                out.may_end();
            }
        }
        if read.stopped.is_some() {
            // From now on only another clean stop vouches for it.
            out.state.push(forget(STOPPED));
        }
        let boots = std::mem::take(&mut read.boots);
        for (target, mute) in std::mem::take(&mut read.mutes) {
            self.take_mute(target, mute, &boots, now, out);
            out.may_end();
        }
        let bases = std::mem::take(&mut read.bases);
        (read.kept(&boots, now, out), bases)
    }

    fn read_key(&mut self, key: &[u8], bytes: &[u8], read: &mut Read) -> Option<()> {
        match key {
            COUNTER => self.episodes = self.episodes.max(decode(bytes)?),
            MUTE_COUNTER => self.mute_number = self.mute_number.max(decode(bytes)?),
            MOMENT => read.boots.note(decode(bytes)?),
            STOPPED => {
                let stopped = decode(bytes)?;
                read.boots.note(stopped);
                read.stopped = Some(stopped);
            }
            _ if key.starts_with(b"m/") => {
                let mute: SavedMute = decode(bytes)?;
                read.boots.note(mute.at);
                read.mutes.push((parse_mute_key(key)?, mute));
            }
            _ if key.starts_with(b"l/") => {
                let (device, metric) = parse_watch_key(key)?;
                let watch: SavedWatch = decode(bytes)?;
                read.boots.note(watch.at);
                read.watches.push((device, metric, watch));
            }
            _ if key.starts_with(b"r/") => {
                let (rule, device) = parse_slot_key(key)?;
                let of_plan = || self.basis_of(rule, &device);
                let slot = SavedSlot::read(bytes, &mut read.bases, of_plan)?;
                read.boots.note(slot.at);
                read.slots.push((rule.into(), device, slot));
            }
            _ if key.starts_with(b"w/") => {
                let (rule, device, place, number) = parse_run_key(key)?;
                let run: SavedRun = decode(bytes)?;
                read.boots.note(run.at);
                let window = read.runs.entry((rule.into(), device, place)).or_default();
                window.insert(number, run);
            }
            _ => {
                if let Some(name) = basis::parse_key(key) {
                    read.bases.add(name, bytes)?;
                }
                // Else another's key.
            }
        }
        Some(())
    }

    fn take_mute(
        &mut self,
        target: MuteTarget,
        mut mute: SavedMute,
        boots: &Boots,
        now: &Moment,
        out: &mut Outcome,
    ) {
        move_by(&mut mute.until, shift(&boots.end(mute.at), now));
        if mute.at.boot_id != now.boot_id {
            mute.at = *now;
            out.state.push(StateChange {
                key: mute_key(&target),
                value: Some(encode(&mute)),
            });
        }
        self.mute_number = self.mute_number.max(mute.number);
        let muted = Muted {
            number: mute.number,
            // What ended while nobody ran ends now.
            until: mute.until.max(now.boot),
            reason: mute.reason,
        };
        self.hushes.mute(target, muted);
    }

    /// Takes what must be kept out of a running engine; `forgotten` is a device of which nothing may be.
    pub(super) fn keep(&mut self, forgotten: Option<u32>, out: &mut Outcome) -> Kept {
        let mut kept = Kept::default();
        let at = self.saved_at();
        for number in (0..self.devices.len()).filter(|number| forgotten != Some(*number)) {
            let device = &self.devices[number];
            for (metric, watch) in &device.watches {
                let row = &self.watches[*watch];
                // As on the disk: of what nobody looks at nothing is kept.
                if row.seen() == NEVER || !row.is_of_note() {
                    continue;
                }
                kept.watches.push(KeptWatch {
                    device: device.about.device.clone(),
                    metric: self.metric_names[*metric].clone(),
                    saved: SavedWatch {
                        at,
                        watch: self.keep_watch(*watch),
                        offset: device.offset,
                        late_since: device.late_since,
                    },
                    on_disk: if row.keep == Keep::Nothing || row.queued {
                        OnDisk::Older
                    } else {
                        OnDisk::Same
                    },
                });
            }
        }
        for index in self.slots_where(|_, device| forgotten != Some(device)) {
            let slot = &mut self.slots[index];
            let plan = Arc::clone(&self.plans[slot.plan]);
            let device = self.devices[slot.device].about.device.clone();
            let gone = forgotten.map(|gone| &self.devices[gone].about.device);
            for place in 0.. {
                let Some((input, _)) = nth_input(slot, &plan, place) else {
                    break;
                };
                let (Some(window), Some(question)) = (input.window.take(), Question::of(&plan, place)) else {
                    continue;
                };
                if window.is_empty() || gone.is_some_and(|gone| question.is_about(gone)) {
                    for number in window.log.numbers() {
                        out.state
                            .push(forget(&run_key(&plan.rule.name, &device, place, number)));
                        out.may_end();
                    }
                    continue;
                }
                let on_disk = if window.log.is_saved() {
                    OnDisk::Same
                } else {
                    OnDisk::Older
                };
                kept.windows.push(KeptWindow {
                    rule: Arc::clone(&plan.rule.name),
                    device: device.clone(),
                    place,
                    question,
                    window,
                    on_disk,
                });
            }
            if self.must_keep(index) {
                kept.slots.push(KeptSlot {
                    rule: Arc::clone(&plan.rule.name),
                    device,
                    saved: self.keep_slot(index),
                    on_disk: OnDisk::Same,
                    committed: self.slots[index].committed,
                    crashed: None,
                });
            }
        }
        kept
    }

    /// Whether anything of a slot is needed after a clean restart.
    pub(super) fn must_keep(&self, index: u32) -> bool {
        let slot = &self.slots[index];
        let plan = &self.plans[slot.plan];
        let is_silence = slot.heard != NEVER;
        // A rule about other devices' metrics: nothing else may tell that this device is there.
        is_silence || plan.is_composite() || !slot.is_plain(self.now)
    }
}

impl Read {
    /// The same, as of now.
    fn kept(self, boots: &Boots, now: &Moment, out: &mut Outcome) -> Kept {
        let mut kept = Kept::default();
        let on_disk = |at: Moment| {
            if at.boot_id == now.boot_id {
                OnDisk::Same
            } else {
                OnDisk::OtherBoot
            }
        };
        for (device, metric, mut saved) in self.watches {
            let (on_disk, end) = (on_disk(saved.at), boots.end(saved.at));
            saved.watch.rebase(&end, now);
            move_by(&mut saved.late_since, shift(&end, now));
            kept.watches.push(KeptWatch {
                device,
                metric,
                saved,
                on_disk,
            });
        }
        for (rule, device, mut saved) in self.slots {
            let (on_disk, end) = (on_disk(saved.at), boots.end(saved.at));
            // The gateway's own absence is no silence of the device; after a crash nobody knows how long it was.
            saved.heard = self.stopped.and_then(|stopped| {
                let mut heard = saved.heard?;
                move_by(&mut heard, now.boot.0.saturating_sub(stopped.boot.0));
                Some(heard)
            });
            let crashed = end.boot.shifted(shift(&end, now));
            kept.slots.push(KeptSlot {
                rule,
                device,
                saved: saved.rebased(&end, now),
                on_disk,
                committed: Position::default(),
                crashed: self.stopped.is_none().then_some(crashed),
            });
        }
        // How far the run had come that ended with a clean stop.
        let stopped = self.stopped.map(|at| at.boot.shifted(shift(&boots.end(at), now)));
        for ((rule, device, place), runs) in self.runs {
            let void = |number: u32| forget(&run_key(&rule, &device, place, number));
            let newest = runs.values().next_back().and_then(|run| run.question.clone());
            let Some((question, spec)) = newest.and_then(|it| it.window.map(|spec| (it, spec))) else {
                out.state.extend(runs.keys().copied().map(void));
                continue;
            };
            let mut window = Box::<Window>::default();
            let (mut of_now, mut is_other) = (true, false);
            for (number, run) in runs {
                let summed = !run.extract.buckets.is_empty();
                if !run
                    .question
                    .as_ref()
                    .is_some_and(|asked| asked.fits(&question, summed))
                {
                    out.state.push(void(number));
                    continue;
                }
                of_now &= run.at.boot_id == now.boot_id;
                let end = boots.end(run.at);
                let extract = run.rebased(&end, now);
                let len = extract.samples.len().max(extract.buckets.len());
                is_other |= window.take_back(&spec, extract);
                match window.newest() {
                    Some(newest) => window.log.chunks.push_back(Chunk { number, newest, len }),
                    None => out.state.push(void(number)),
                }
            }
            // A run is saved whole: what had left it before the stop does not leave it once more, and nobody is asked
            // again because of it. Summaries know how far they had come.
            if let (Some(stopped), false) = (stopped, window.is_summed()) {
                window.pass(&spec, stopped);
            }
            out.may_end();
            kept.windows.push(KeptWindow {
                rule,
                device,
                place,
                question,
                window,
                on_disk: if of_now && !is_other {
                    OnDisk::Same
                } else {
                    OnDisk::OtherBoot
                },
            });
        }
        kept
    }
}
