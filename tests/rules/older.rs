//! What an older version saved is read: an upgrade loses no alarm and raises none twice.

use super::story::*;

use tidegate::{
    event::Severity,
    reading::{Metric, Value},
    rule::{Condition, Rule},
    time::{BootId, Moment},
};

/// The state of [`rules`] as the engine saved it when a slot had its rule's facts in it. The rules were of another
/// severity at first, and `High` had another clear point; since then a start of theirs has read it once.
const SAVED: &str = include_str!("../fixtures/engine-2/saved");

/// An alarm at once, one that waits to clear, one that waits to be raised, a silence and one of two metrics.
fn rules() -> Vec<Rule> {
    let named = |name: &str, rule: Rule| Rule {
        name: name.into(),
        event: name.into(),
        cleared_event: format!("{name}Cleared").into(),
        ..rule
    };
    let silent = Condition::Silent {
        metric: Metric::new("temperature").unwrap(),
        after: lasting(300),
    };
    let both = vec![
        part("temperature", above(30.0, 28.0)),
        part("humidity", above(80.0, 80.0)),
    ];
    vec![
        named("High", above_30()),
        named(
            "Slow",
            Rule {
                clear_hold: lasting(3600),
                ..above_30()
            },
        ),
        named("Held", high_temperature()),
        named("Silent", rule(silent)),
        named("Damp", rule(Condition::All(both))),
    ]
}

/// Five seconds after it was saved, after a kill or a power cut.
fn upgraded(rules: Vec<Rule>, is_reboot: bool) -> Story {
    let mut story = Story::of(rules);
    for line in SAVED.lines() {
        let (key, value) = line.split_once(' ').unwrap();
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        let value = value.as_bytes().chunks(2).map(byte).collect();
        story.saved.insert(key.as_bytes().to_vec(), value);
    }
    let before = story.moment;
    let wall = before.wall_of(seconds(317.0));
    let boot = if is_reboot { seconds(3.0) } else { seconds(317.0) };
    let boot_id = if is_reboot { BootId(1) } else { before.boot_id };
    story.started(Moment {
        boot_id,
        boot,
        wall,
        ..before
    });
    story
}

fn open(story: &Story) -> Vec<(u64, String, String, Severity)> {
    let episodes = story.engine.episodes();
    let mut open: Vec<_> = episodes
        .map(|open| {
            let device = open.device.as_str().to_owned();
            (
                open.id.number,
                open.rule.as_ref().to_owned(),
                device,
                open.severity,
            )
        })
        .collect();
    open.sort_unstable_by_key(|open| open.0);
    open
}

#[test]
fn what_an_older_version_saved_of_its_slots_is_read_and_no_alarm_is_raised_twice() {
    use Severity::{Critical, Warning};
    let then = [
        (1, "High", "t-1", Critical),
        (2, "Slow", "t-1", Critical),
        (3, "Damp", "t-1", Critical),
        (5, "Slow", "t-2", Critical),
        (6, "Held", "t-1", Critical),
        (8, "Silent", "t-2", Critical),
        (9, "High", "t-4", Critical),
        (10, "Slow", "t-4", Critical),
        (11, "High", "t-5", Warning),
        (12, "Slow", "t-5", Warning),
    ]
    .map(|(number, rule, device, severity)| (number, rule.to_owned(), device.to_owned(), severity));
    for is_reboot in [false, true] {
        let mut story = upgraded(rules(), is_reboot);
        assert_eq!(story.engine.counts().unreadable, 0);
        assert_eq!(story.told(), "");
        assert_eq!(open(&story), then);
        // Another start of this version: as it was written again, or not.
        story.killed(story.moment.boot.0 as f64 / 1e6 + 1.0);
        assert_eq!(story.engine.counts().unreadable, 0);
        assert_eq!(open(&story), then);
    }
}

#[test]
fn an_older_version_s_slots_go_on_where_they_were() {
    let mut story = upgraded(rules(), false);
    // Its hold began at 310.
    story.wait(341.0);
    assert_eq!(story.told(), "raised@340 e13");
    // Judged by the other clear point before; raised as critical.
    story.tell("t-1", 350.0, Value::Number(20.0), false).0.unwrap();
    let cleared = story
        .said
        .iter()
        .find(|draft| &*draft.name == "HighCleared")
        .unwrap();
    assert_eq!(data(cleared).episode.id.number, 1);
    assert_eq!(
        (data(cleared).episode.max, cleared.severity),
        (Some(31.5), Severity::Critical)
    );
    assert_eq!(data(cleared).episode.since, seconds(1.0));
    // t-2 has been quiet since 3, for an hour.
    story.wait(3_603.0);
    let cleared = story
        .said
        .iter()
        .find(|draft| &*draft.name == "SlowCleared")
        .unwrap();
    assert_eq!((&*cleared.about, cleared.at), ("t-2", seconds(3_603.0)));
}

#[test]
fn alarms_of_rules_that_an_upgrade_comes_without_are_cleared_with_the_facts_that_an_older_version_kept() {
    let story = upgraded(Vec::new(), false);
    assert_eq!(story.said.len(), 10);
    assert!(
        story
            .told()
            .split(", ")
            .all(|said| said.starts_with("rule-removed@317"))
    );
    let high = story
        .said
        .iter()
        .find(|draft| &*draft.name == "HighCleared")
        .unwrap();
    assert_eq!(data(high).rule.kind.as_ref(), "above");
    let slots = |key: &&Vec<u8>| key.starts_with(b"r/");
    assert_eq!(story.saved.keys().filter(slots).count(), 0);
}
