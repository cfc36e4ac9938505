//! The truth about time, with every clock in the test's hand: a boot in 1970, restarts before anybody knows the
//! time, jumps of an hour, a smeared leap second, a lost time source. Timers run on the boot clock and are exact;
//! times are as right as they are known to be when they are sent.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../contract/mod.rs"]
mod contract;
mod rig;

use std::time::Duration;

use rig::{Board, HOUR, NOON, PATIENCE};
use serde_json::Value as Json;
use tidegate::{
    decode::OwnTime,
    source::Stamps,
    time::{BootId, EARLIEST, Timestamp},
};

fn text<'a>(event: &'a Json, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Json::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {event}"))
}

/// Microseconds since 1970.
fn micros(event: &Json, pointer: &str) -> i64 {
    let time: jiff::Timestamp = text(event, pointer).parse().expect("RFC 3339");
    time.as_microsecond()
}

fn after(from: Timestamp, seconds: i64) -> i64 {
    from.0 + seconds * 1_000_000
}

fn quality(event: &Json) -> &str {
    text(event, "/clockquality")
}

fn named<'e>(events: &'e [Json], name: &str) -> Vec<&'e Json> {
    let ends = format!(".{name}");
    let named = events
        .iter()
        .filter(|event| text(event, "/type").ends_with(&ends));
    named.collect()
}

#[tokio::test]
async fn after_two_restarts_in_1970_the_clock_synchronises_and_all_times_of_the_boot_are_right() {
    let board = Board::new();
    // Boot second 40: the condition holds from second 10 on.
    let mut run = board.start();
    run.wait(10).read(31.0).wait(30);
    run.stop().await;
    // Second 50 to 60: it clears.
    board.hands.advance(Duration::from_secs(10));
    let mut run = board.start();
    run.wait(10).read(20.0);
    run.kill().await;
    // Second 70 to 110: it holds again from second 80 on.
    board.hands.advance(Duration::from_secs(10));
    let mut run = board.start();
    run.wait(10).read(32.0).wait(30);

    let before = run.events().await;
    assert!(before.iter().all(|event| quality(event) == "unknown"));
    let mut newest = EARLIEST.0;
    for event in &before {
        let recorded = micros(event, "/recordedtime");
        assert!(
            recorded >= newest,
            "{event} was stored before what stands before it"
        );
        assert!(micros(event, "/time") >= EARLIEST.0, "{event}");
        newest = recorded;
    }

    // Second 111.
    board.synchronise(NOON);
    run.wait(1);
    let right = |second: i64| after(NOON, second - 110);
    let events = run.events().await;
    let raised = named(&events, "HighTemperature");
    let cleared = named(&events, "HighTemperatureCleared");
    for (event, at, since, raised_at) in [
        (raised[0], 40, 10, 40),
        (cleared[0], 60, 10, 40),
        (raised[1], 110, 80, 110),
    ] {
        assert_eq!(quality(event), "corrected");
        assert_eq!(micros(event, "/time"), right(at), "{event}");
        assert_eq!(micros(event, "/recordedtime"), right(at), "{event}");
        assert_eq!(micros(event, "/data/episode/since"), right(since), "{event}");
        assert_eq!(
            micros(event, "/data/episode/raised_at"),
            right(raised_at),
            "{event}"
        );
    }
    for (event, second) in named(&events, "GatewayStarted").into_iter().zip([0, 50, 70]) {
        assert_eq!(
            (quality(event), micros(event, "/time")),
            ("corrected", right(second))
        );
    }
    let told = named(&events, "ClockSynchronised");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(
        (quality(told[0]), micros(told[0], "/time")),
        ("synchronised", right(111))
    );
    assert_eq!(text(told[0], "/data/boot_id"), format!("{:032x}", 1));
    let moved = told[0]["data"]["moved_s"].as_f64().unwrap();
    let was = micros(before.last().unwrap(), "/recordedtime");
    assert_eq!(
        (moved * 1e3).to_string(),
        ((right(110) - was) / 1_000).to_string()
    );
    // Nothing but its times has changed of any event.
    for (earlier, now) in before.iter().zip(&events) {
        assert_eq!(text(earlier, "/id"), text(now, "/id"));
        assert_eq!(earlier["data"]["rule"], now["data"]["rule"]);
        assert_eq!(
            earlier["data"]["episode"]["duration_ms"],
            now["data"]["episode"]["duration_ms"]
        );
    }
    run.stop().await;
}

#[tokio::test]
async fn what_a_boot_learned_is_known_after_later_boots_and_a_boot_that_never_knew_stays_unknown() {
    let board = Board::new();
    let mut run = board.start();
    run.wait(100);
    board.synchronise(NOON);
    run.wait(10);
    run.kill().await;

    // Nobody to ask, and 1970 again.
    board.hands.reboot(BootId(2));
    let mut run = board.start();
    run.wait(5).read(31.0).wait(30);
    let events = run.events().await;
    let started = named(&events, "GatewayStarted");
    assert_eq!(
        (quality(started[0]), micros(started[0], "/time")),
        ("corrected", after(NOON, -100))
    );
    let raised = named(&events, "HighTemperature")[0];
    assert_eq!(quality(raised), "unknown");
    // Boot 1 stored its last event at second 101, one after noon.
    assert_eq!(micros(raised, "/time"), after(NOON, 1 + 35));
    assert_eq!(micros(raised, "/data/episode/since"), after(NOON, 1 + 5));
    run.kill().await;

    // Right from the start: there is nothing to tell.
    board.hands.reboot(BootId(3));
    board.synchronise(Timestamp(after(NOON, 86_400)));
    let mut run = board.start();
    run.wait(5);
    let events = run.events().await;
    let started = named(&events, "GatewayStarted");
    let qualities: Vec<_> = started.iter().map(|event| quality(event)).collect();
    assert_eq!(qualities, ["corrected", "unknown", "synchronised"]);
    assert_eq!(named(&events, "ClockSynchronised").len(), 1, "boot 1's");
    assert_eq!(*raised, *named(&events, "HighTemperature")[0]);
    run.stop().await;
}

#[tokio::test]
async fn a_boot_of_which_only_events_tell_is_corrected_after_a_kill() {
    let board = Board::new();
    // The newest snapshot is this boot's.
    let run = board.start();
    run.stop().await;
    board.hands.reboot(BootId(2));
    let mut run = board.start();
    run.wait(100);
    run.kill().await;
    // Nobody has vouched for the clock when it was killed; somebody does before it is up again.
    board.hands.advance(Duration::from_secs(100));
    board.synchronise(NOON);
    let run = board.start();
    let events = run.events().await;
    let started = named(&events, "GatewayStarted");
    let qualities: Vec<_> = started.iter().map(|event| quality(event)).collect();
    assert_eq!(qualities, ["unknown", "corrected", "synchronised"]);
    assert_eq!(named(&events, "ClockSynchronised").len(), 1);
    run.stop().await;
}

#[tokio::test]
async fn a_clock_that_synchronises_while_the_daemon_is_down_corrects_what_was_stored_before() {
    let board = Board::new();
    let run = board.start();
    run.stop().await;
    board.hands.advance(Duration::from_secs(100));
    board.synchronise(NOON);
    let run = board.start();
    let events = run.events().await;
    let started = named(&events, "GatewayStarted");
    assert_eq!(
        (quality(started[0]), micros(started[0], "/time")),
        ("corrected", after(NOON, -100))
    );
    assert_eq!(
        (quality(started[1]), micros(started[1], "/time")),
        ("synchronised", NOON.0)
    );
    assert_eq!(named(&events, "ClockSynchronised").len(), 1);
    run.stop().await;
}

#[tokio::test]
async fn a_wall_clock_that_jumps_an_hour_each_way_moves_no_timer() {
    for vouched in [true, false] {
        for jump in [3_600, -3_600] {
            let board = Board::new();
            board.hands.set(NOON);
            board.hands.synchronise(vouched);
            let mut run = board.start();
            run.wait(10).read(31.0).wait(15);
            board.hands.set(Timestamp(after(NOON, 25 + jump)));
            let deadline = run.engine.next_deadline().expect("the hold runs");
            assert_eq!(deadline.0, 40_000_000);
            run.wait(14);
            assert!(named(&run.events().await, "HighTemperature").is_empty());
            run.wait(1);
            let events = run.events().await;
            let raised = named(&events, "HighTemperature")[0];
            assert_eq!(raised["data"]["episode"]["duration_ms"], 30_000);
            // Whom somebody vouches for is followed; else no time goes back, and none forward is undone.
            let follows = if vouched || jump > 0 { jump } else { 0 };
            assert_eq!(micros(raised, "/time"), after(NOON, 40 + follows));
            let expected = if vouched { "synchronised" } else { "unknown" };
            assert_eq!(quality(raised), expected);
            run.stop().await;
        }
    }
}

#[tokio::test]
async fn in_the_night_of_a_clock_change_a_device_with_local_time_is_never_late_and_no_timer_is_off() {
    let berlin = jiff::tz::TimeZone::get("Europe/Berlin").unwrap();
    // An hour comes twice; an hour is left out.
    for midnight in ["2027-10-31T00:00:00+02:00", "2027-03-28T00:00:00+01:00"] {
        let midnight: jiff::Timestamp = midnight.parse().unwrap();
        let board = Board::new();
        board.synchronise(Timestamp(midnight.as_microsecond()));
        let mut run = board.start();
        let stamps = Stamps::new(run.clock.clone(), Duration::from_secs(600)).in_zone(berlin.clone());
        for minute in 0..300 {
            // Five minutes hot, five minutes cold; measured two seconds before it arrives.
            let value = if minute / 5 % 2 == 0 { 31.0 } else { 20.0 };
            let now = jiff::Timestamp::from_microsecond(run.clock.moment().wall.0 - 2_000_000).unwrap();
            let local = berlin.to_datetime(now);
            let (at, stamped) = stamps.stamp(Some(OwnTime::Local(local)));
            assert!(stamped, "{local} is its own time");
            run.read_at(value, at, stamped).wait(60);
        }
        assert_eq!(run.engine.counts().late, 0);
        let events = run.events().await;
        let raised = named(&events, "HighTemperature");
        assert_eq!(raised.len(), 30);
        for (turn, event) in (0..).zip(raised) {
            let since = midnight.as_microsecond() + (turn * 600 - 2) * 1_000_000;
            assert_eq!(micros(event, "/data/episode/since"), since);
            assert_eq!(event["data"]["episode"]["duration_ms"], 30_000);
        }
        run.stop().await;
    }
}

#[tokio::test]
async fn a_smeared_leap_second_leaves_timers_exact_and_times_with_the_wall_clock() {
    let board = Board::new();
    board.synchronise(NOON);
    let mut run = board.start();
    // 0.001 % slow for a day: 864 ms.
    board.hands.drift(-10);
    let mut began = Vec::new();
    for _ in 0..24 {
        began.push(run.clock.moment());
        run.read(31.0).wait(31).read(20.0).wait(3_600 - 31);
    }
    let events = run.events().await;
    let raised = named(&events, "HighTemperature");
    assert_eq!(raised.len(), 24);
    for (event, began) in raised.iter().zip(&began) {
        assert_eq!(event["data"]["episode"]["duration_ms"], 30_000);
        let since = micros(event, "/data/episode/since");
        // 30 s at 0.001 % are 0.3 ms; what is sent has milliseconds.
        let off = since.abs_diff(began.wall.0);
        assert!(off <= 1_300, "{off} us off the wall clock");
        assert_eq!(micros(event, "/time") - since, 30_000_000);
        assert_eq!(quality(event), "synchronised");
    }
    let day = run.clock.moment().wall.0 - NOON.0;
    assert_eq!(day, 24 * 3_600_000_000 - 864_000, "the smear was seen");
    run.stop().await;
}

#[tokio::test]
async fn a_lost_time_source_is_told_after_an_hour_and_times_go_on_by_the_boot_clock() {
    let board = Board::new();
    board.synchronise(NOON);
    let mut run = board.start();
    run.wait(10);
    board.hands.synchronise(false);
    run.wait(3_590);
    assert!(named(&run.events().await, "ClockLost").is_empty());
    run.wait(30);
    let events = run.events().await;
    let lost = named(&events, "ClockLost");
    assert_eq!(lost.len(), 1);
    assert_eq!(micros(lost[0], "/data/since"), after(NOON, 10));
    // Somebody sets it by hand, wrong; that is no source.
    board.hands.set(EARLIEST);
    run.wait(1).read(31.0).wait(30);
    let events = run.events().await;
    let raised = named(&events, "HighTemperature")[0];
    assert_eq!(
        (quality(raised), micros(raised, "/time")),
        ("corrected", after(NOON, 3_661))
    );

    board.synchronise(Timestamp(after(NOON, 3_661)));
    run.wait(1);
    let events = run.events().await;
    let found = named(&events, "ClockSynchronised");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["data"]["moved_s"], 0.0);
    assert_eq!(text(found[0], "/correlationid"), text(lost[0], "/correlationid"));
    run.stop().await;
}

#[tokio::test]
async fn time_daemons_that_fight_are_told_once_in_five_minutes() {
    let board = Board::new();
    board.synchronise(NOON);
    let mut run = board.start();
    for second in 0..300 {
        board.hands.synchronise(false);
        board.hands.set(EARLIEST);
        run.wait(1);
        board.synchronise(Timestamp(after(NOON, 2 * second + 1)));
        run.wait(1);
    }
    let events = run.events().await;
    assert_eq!(named(&events, "ClockLost").len(), 2);
    assert_eq!(named(&events, "ClockSynchronised").len(), 2);
    run.stop().await;
}

#[tokio::test]
async fn what_only_looks_old_because_nobody_knew_the_time_does_not_expire() {
    let mut board = Board::new();
    board.max_age = Some(24 * HOUR);
    let mut run = board.start();
    // Several segments, and room left: every second takes a commit's place.
    for _ in 0..1_000 {
        run.read(31.0).wait(30).read(20.0).wait(1);
    }
    board.synchronise(Timestamp(after(EARLIEST, 3 * 365 * 86_400)));
    // It is looked for once a minute, after a write: the second one comes after the first has looked.
    run.wait(61);
    for _ in 0..2 {
        run.read(31.0).wait(30).read(20.0).wait(1);
    }
    let events = run.events().await;
    assert_eq!(
        text(&events[0], "/sequence"),
        format!("{:020}", 1),
        "the oldest is kept"
    );
    // Its age is known now, and grows.
    board.hands.advance(25 * HOUR);
    run.turn();
    let expired = tokio::time::timeout(PATIENCE, async {
        while named(&run.events().await, "EventsDiscarded").is_empty() {
            run.read(31.0).wait(30).read(20.0).wait(1);
        }
    });
    expired.await.expect("what is older than max-age goes");
    run.stop().await;
}
