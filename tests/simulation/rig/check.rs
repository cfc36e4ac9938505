//! What must hold, asked when a gateway starts and when all is done.

use std::{collections::BTreeSet, sync::Arc};

use tidegate::{
    event::{Data, Entry, Epoch, Event, RuleData, Transition},
    reading::Value,
};

use super::{
    device,
    gateway::sink_name,
    plan::Plan,
    receiver::told,
    reference::{Expected, Micros, Reference},
    world::Inside,
};

/// A gateway starts: what was on the disk is there, what reached anybody among it. `there` is all that can be read.
pub fn found(world: &mut Inside, before: Option<Epoch>, epoch: Epoch, first: u64, there: &[Entry]) {
    if let Some(before) = before
        && before != epoch
        && world.of_epoch(before).next().is_some()
    {
        world.accuse("a crash made a new epoch".to_owned());
    }
    let there: BTreeSet<u64> = there
        .iter()
        .filter(|entry| entry.epoch == epoch)
        .map(|entry| entry.sequence.0)
        .collect();
    let mut known = world.of_epoch(epoch).map(|(sequence, _)| sequence);
    if let Some(gone) = known.find(|sequence| *sequence >= first && !there.contains(sequence)) {
        drop(known);
        world.accuse(format!("G1, G3: {gone} was on the disk and is gone"));
    }
}

/// Whether every reading is acknowledged, and every sink has all, or was told that it does not come.
pub fn is_done(world: &Inside) -> bool {
    world.owing.iter().all(|owing| *owing == 0) && missing(world).is_none()
}

/// The first event that a sink neither got nor was told of, or whose receiver does not know that it has all.
fn missing(world: &Inside) -> Option<String> {
    for (sink, endpoint) in world.endpoints.iter().enumerate() {
        let name = sink_name(sink);
        let mut due = BTreeSet::new();
        let mut last = (0, 0);
        for (id, event) in &world.known {
            // Numbers that nobody ever saw are missing, too.
            let from = if id.0 == last.0 { last.1 + 1 } else { 1 };
            due.extend((from..id.1).map(|sequence| (id.0, sequence)));
            last = *id;
            if endpoint.filter.passes(&name, &event.draft) {
                due.insert(*id);
            }
        }
        due.retain(|id| !endpoint.received.contains_key(id));
        for (epoch, from, to) in world.known.values().flat_map(|event| told(event, &name)) {
            due.retain(|id| id.0 != epoch || !(from..=to).contains(&id.1));
        }
        if let Some(lost) = due.first() {
            let was_there = world.known.contains_key(lost);
            let what = if was_there { "G2" } else { "G4: a gap" };
            return Some(format!(
                "{what}: sink {sink} never got {lost:?} of {last:?} and was not told"
            ));
        }
        if let Some(number) = endpoint.receiver.awaits() {
            return Some(format!(
                "G4: the receiver of sink {sink} still waits for {number} of {last:?}"
            ));
        }
    }
    None
}

/// All is done: is it?
pub fn all(
    world: &mut Inside,
    epoch: Option<Epoch>,
    references: &[Vec<Reference>],
    plan: &Plan,
    ups: &[Micros],
) {
    let Some(epoch) = epoch else { return };
    if let Some(device) = world.owing.iter().position(|owing| *owing > 0) {
        world.accuse(format!("no progress: device {device} still waits"));
    }
    if let Some(what) = missing(world) {
        world.accuse(what);
    }
    let now = world.now();
    // Across a reboot without a clock nobody knows how much time has passed: then what deadlines say is not compared.
    let timed = plan.synchronised || world.boots.len() == 1;
    for ((name, law), devices) in plan.laws.iter().zip(references) {
        for (index, reference) in devices.iter().enumerate() {
            let told: Vec<(Arc<Event>, RuleData)> = world
                .of_epoch(epoch)
                .filter_map(|(_, event)| match &event.draft.data {
                    Data::Rule(data) => Some((Arc::clone(event), (**data).clone())),
                    Data::Gateway(_) => None,
                })
                .filter(|(_, data)| *data.rule.name == **name && data.device.as_str() == device::name(index))
                .collect();
            if !timed && !(law.hold + law.clear_hold).is_zero() {
                let raised =
                    |(event, _): &(Arc<Event>, RuleData)| event.draft.transition == Some(Transition::Raised);
                if let Some(twice) = told.windows(2).position(|two| raised(&two[0]) == raised(&two[1])) {
                    world.accuse(format!(
                        "G8: {name} on device {index}: event {twice} and the next are alike"
                    ));
                }
                continue;
            }
            // What falls due just now may be told or not.
            let pasts = [reference.told(now), reference.told(now - 2_000_000)].concat();
            if let Some(what) = contradiction(world, &pasts, &told, timed.then_some(ups)) {
                world.accuse(format!("G1, G8: {name} on device {index}: {what}"));
            }
        }
    }
}

/// What was told and what should have been, from where they differ, unless one of the pasts agrees.
fn contradiction(
    world: &Inside,
    pasts: &[Vec<Expected>],
    told: &[(Arc<Event>, RuleData)],
    ups: Option<&[Micros]>,
) -> Option<String> {
    let alike = |past: &[Expected]| {
        let pairs = past.iter().zip(told);
        pairs
            .take_while(|(expected, (event, data))| is_told(world, expected, event, data, ups))
            .count()
    };
    if pasts
        .iter()
        .any(|past| past.len() == told.len() && alike(past) == told.len())
    {
        return None;
    }
    let nearest = pasts.iter().max_by_key(|past| alike(past))?;
    let from = alike(nearest);
    let next = told.get(from).map(|(event, data)| {
        let at = world.time_of(event, event.draft.at);
        let since = world.time_of(event, data.episode.since);
        format!(
            "{:?} at {at} since {since} by {:?}",
            event.draft.transition, data.value
        )
    });
    Some(format!(
        "event {from} of {} was {next:?}, but should have been {:?} (of {}; {} pasts)",
        told.len(),
        nearest.get(from),
        nearest.len(),
        pasts.len()
    ))
}

/// Whether that event is what was expected; when `ups` says when gateways began to run, its times, too.
fn is_told(
    world: &Inside,
    expected: &Expected,
    event: &Event,
    data: &RuleData,
    ups: Option<&[Micros]>,
) -> bool {
    let in_time = ups.is_none_or(|ups| {
        let at = world.time_of(event, event.draft.at);
        // What fell due while nobody ran is told when somebody does.
        let late = |up: &Micros| *up == at && at >= expected.at;
        (at == expected.at || (expected.by.is_none() && ups.iter().any(late)))
            && world.time_of(event, data.episode.since) == expected.since
    });
    let raised = event.draft.transition == Some(Transition::Raised);
    let is_by = |by: u32| {
        let Some(Value::Number(value)) = data.value else {
            return false;
        };
        // The value tells the reading's number: a device takes so many millionths off.
        let level = (value * 2.0).round() / 2.0;
        ((level - value) * 1e6 - f64::from(by)).abs() < 0.5
    };
    raised == expected.raised && in_time && expected.by.is_none_or(is_by)
}
