//! What each sink's receiver is told that it will not get: its own, exactly that, and once.

use std::collections::BTreeSet;

use tidegate::journal::{Refused, Stepped};

use super::rig::*;

/// What `EventsDiscarded` names to a sink, event by event.
fn named(entries: &[Entry], name: &str) -> Vec<Vec<(u64, u64)>> {
    let tells = entries
        .iter()
        .filter(|entry| &*entry.event.draft.name == "EventsDiscarded")
        .filter(|entry| data(entry)["sinks"].as_array().unwrap().contains(&name.into()));
    tells
        .map(|entry| account(std::slice::from_ref(entry)).1)
        .collect()
}

fn numbers(ranges: Vec<Vec<(u64, u64)>>) -> BTreeSet<u64> {
    ranges
        .into_iter()
        .flatten()
        .flat_map(|(from, to)| from..=to)
        .collect()
}

/// Its turns are taken by hand; what opening has to tell is told.
fn stepped(disk: &Simulated) -> (Journal, Stepped) {
    let opened = Journal::open_stepped(disk.mount(), &settings(), owner(&["cloud"]), Clock::system());
    let (journal, _, mut steps) = opened.unwrap();
    steps.turn().unwrap();
    (journal, steps)
}

fn set_aside(open: &Open, name: &str, entry: &Entry) {
    let sink = sink(name);
    let refused = Refused {
        sink: &sink,
        entry,
        previous: Sequence(0),
        reason: "no",
        attempts: 10,
    };
    open.wait(open.journal.set_aside(&refused).unwrap());
}

#[test]
fn each_sink_is_told_what_it_loses_and_nothing_of_what_another_does() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site", "done"]));
    fill(&open, 100);
    let there = open.read_all();
    open.journal.acknowledge(&sink("site"), cursor_at(&there[59]));
    open.journal.acknowledge(&sink("done"), cursor_at(&there[99]));
    fill(&open, 330);
    // What is told goes right after that: it is gone when the next is there.
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    let first = all[0].sequence.0;
    assert!((61..100).contains(&first), "it goes on right behind: {first}");
    assert_eq!(numbers(named(&all, "cloud")), (1..first).collect());
    assert_eq!(numbers(named(&all, "site")), (61..first).collect());
    assert_eq!(named(&all, "done"), Vec::<Vec<_>>::new());
}

#[test]
fn what_is_set_aside_for_a_sink_is_not_named_to_it() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site"]));
    fill(&open, 100);
    let there = open.read_all();
    set_aside(&open, "site", &there[4]);
    // Its place is from before it was set aside: the power went, or it was moved back.
    open.journal.acknowledge(&sink("site"), cursor_at(&there[1]));
    fill(&open, 400);
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    let first = all[0].sequence.0;
    let but_5: BTreeSet<u64> = (3..first).filter(|number| *number != 5).collect();
    assert_eq!(numbers(named(&all, "site")), but_5, "it can still be sent again");
    assert_eq!(numbers(named(&all, "cloud")), (1..first).collect());
}

#[test]
fn what_is_still_to_be_read_of_a_loss_is_not_told_again_and_what_goes_unread_is() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 450);
    let told = named(&open.read_all(), "cloud");
    assert!(told.len() > 1, "{told:?}");
    let named_once: Vec<u64> = told.iter().flatten().flat_map(|(from, to)| *from..=*to).collect();
    assert_eq!(named_once.len(), numbers(told).len(), "each number once");
    // Several times around: each `EventsDiscarded` goes itself before anybody has read it.
    fill(&open, 2000);
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    let first = all[0].sequence.0;
    let told = named(&all, "cloud");
    assert!(told.iter().all(|ranges| ranges.len() == 1), "{told:?}");
    assert_eq!(numbers(told), (1..first).collect());
}

#[test]
fn that_letters_were_dropped_is_told_again_if_it_goes_unread() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 10);
    let there = open.read_all();
    set_aside(&open, "cloud", &there[2]);
    open.journal.acknowledge(&sink("cloud"), cursor_at(&there[9]));
    open.wait(open.journal.drop_letters(&open.journal.dead_letters()));
    fill(&open, 900);
    let all = open.read(open.journal.cursor(&sink("cloud")));
    assert!(all[0].sequence.0 > 100, "it is gone unread");
    assert!(numbers(named(&all, "cloud")).contains(&3));
}

#[test]
fn damage_is_told_to_the_sinks_that_have_yet_to_come_to_it() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site", "done"]));
    fill(&open, 60);
    let there = open.read_all();
    open.journal.acknowledge(&sink("done"), cursor_at(&there[59]));
    open.close();
    damage(&disk, Path::new("/journal/current/0001.seg"), 100_000, 1);
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site", "done", "new"]));
    open.read_all();
    open.commit(&["settled"], &[]);
    let told = says(&open, "EventsDiscarded");
    assert_eq!(told.len(), 1, "those that lose the same are told in one");
    assert_eq!(data(&told[0])["sinks"], serde_json::json!(["cloud", "site"]));
    // One that had passed it is moved back, and comes to the gap.
    let there = open.read_all();
    let next = there.iter().position(|entry| entry.sequence.0 == 6).unwrap();
    assert_eq!(there[next - 1].sequence.0, 4, "5 is damaged");
    let before = cursor_at(&there[next - 1]);
    block_on(open.journal.replay(&sink("done"), before.position));
    open.journal.came_to(&sink("done"), before, &there[next]);
    open.journal.acknowledge(&sink("done"), cursor_at(&there[next]));
    open.journal.came_to(&sink("cloud"), before, &there[next]);
    open.journal.acknowledge(&sink("cloud"), cursor_at(&there[next]));
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    assert_eq!(named(&all, "done"), [[(5, 5)]]);
    assert_eq!(named(&all, "cloud"), [[(5, 5)]], "it was told before");
}

#[test]
fn what_a_filter_left_out_before_a_gap_is_told_in_one_commit_with_the_cursor() {
    let base = Simulated::default();
    let open = Open::new(&base);
    fill(&open, 8);
    let there = open.read_all();
    // 3 passed, 4 did not, and 5 is damaged.
    let before = Cursor {
        passed: Sequence(3),
        ..cursor_at(&there[3])
    };
    open.journal.acknowledge(&sink("cloud"), before);
    open.close();
    damage(&base, Path::new("/journal/current/0001.seg"), 100_000, 1);
    let mut random = fastrand::Rng::with_seed(5);
    let mut torn = BTreeSet::new();
    for stop in 0.. {
        let disk = base.copy();
        let (journal, mut steps) = stepped(&disk);
        let next = journal.read_after_blocking(before, ALL).unwrap().remove(0);
        assert_eq!(next.sequence, Sequence(6));
        steps.turn().unwrap();
        journal.came_to(&sink("cloud"), before, &next);
        journal.came_to(&sink("cloud"), before, &next);
        journal.acknowledge(&sink("cloud"), cursor_at(&next));
        journal.append(outcome(&["next"], &[]));
        disk.stop_after(stop);
        let is_done = steps.turn().is_ok();
        for _ in 0..20 {
            let cut = disk.clone_with_unsynced();
            cut.power_cut(&mut random);
            let again = Open::new(&cut);
            again.commit(&["settled"], &[]);
            let told = named(&again.read_all(), "cloud").concat();
            let times = told.iter().filter(|range| **range == (4, 4)).count();
            let is_past = again.journal.cursor(&sink("cloud")) > before;
            assert_eq!(
                times,
                usize::from(is_past),
                "told if and only if the cursor is there"
            );
            torn.insert((is_done, is_past));
        }
        if is_done {
            break;
        }
    }
    let all = [(false, false), (false, true), (true, true)];
    assert_eq!(torn.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn a_chain_that_starts_within_an_epoch_is_told_nothing_of_what_stands_before_its_place() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 20);
    let there = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&there[19]));
    block_on(open.journal.replay(&sink("cloud"), there[9].position));
    let start = open.journal.cursor(&sink("cloud"));
    assert_eq!((start.sequence, start.began), (Sequence(0), Sequence(11)));
    // Nothing of 11 to 15 passes its filter, and 16 and 17 are not there.
    let before = Cursor {
        passed: Sequence(0),
        began: start.began,
        ..cursor_at(&there[14])
    };
    open.journal.acknowledge(&sink("cloud"), before);
    open.close();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "new"]));
    assert_eq!(
        open.journal.cursor(&sink("new")).began,
        Sequence(21),
        "at the end"
    );
    let before = open.journal.cursor(&sink("cloud"));
    open.journal.came_to(&sink("cloud"), before, &there[17]);
    open.journal.acknowledge(&sink("cloud"), cursor_at(&there[17]));
    open.commit(&["next"], &[]);
    assert_eq!(named(&open.read_all(), "cloud"), [[(11, 17)]]);
}

#[test]
fn a_replay_of_what_a_sink_has_yet_to_come_to_passes_over_nothing_that_it_lost() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site"]));
    fill(&open, 20);
    let there = open.read_all();
    open.journal.acknowledge(&sink("site"), cursor_at(&there[4]));
    open.close();
    // Nobody is told what goes meanwhile.
    let open = Open::on(&disk, &settings(), owner(&["cloud"]));
    fill(&open, 1000);
    open.close();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site"]));
    let all = open.read_all();
    assert!(all[0].sequence.0 > 6, "its place is gone");
    assert!(block_on(open.journal.replay(&sink("site"), Position(0))));
    let before = open.journal.cursor(&sink("site"));
    assert_eq!(before, cursor_at(&there[4]));
    open.journal.came_to(&sink("site"), before, &all[0]);
    open.journal.acknowledge(&sink("site"), cursor_at(&all[0]));
    open.commit(&["next"], &[]);
    assert_eq!(named(&open.read_all(), "site"), [[(6, all[0].sequence.0 - 1)]]);
}

#[test]
fn what_was_delivered_between_two_absences_is_not_named_when_the_first_is_told_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 450);
    // What the last one gave up is gone.
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    let is_told = |entry: &Entry| &*entry.event.draft.name == "EventsDiscarded";
    let told = all.iter().position(is_told).unwrap();
    let first = all[0].sequence.0;
    // It is back, gets the oldest, and is away again before it is told of the first absence.
    let last = &all[told - 2];
    open.journal.acknowledge(&sink("cloud"), cursor_at(last));
    fill(&open, 900);
    open.commit(&["settled"], &[]);
    let all = open.read_all();
    let again = named(&all, "cloud");
    assert!(again.iter().all(|ranges| ranges.len() <= 2), "{again:?}");
    let lost: BTreeSet<u64> = (1..first).chain(last.sequence.0 + 1..all[0].sequence.0).collect();
    assert_eq!(numbers(again), lost);
}

#[test]
fn sinks_that_lose_the_same_for_want_of_room_are_told_in_one() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "site"]));
    fill(&open, 450);
    let told = says(&open, "EventsDiscarded");
    assert!(!told.is_empty());
    for told in &told {
        assert_eq!(data(told)["sinks"], serde_json::json!(["cloud", "site"]));
    }
}

#[test]
fn who_finds_damage_and_comes_to_it_is_told_once() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 8);
    open.close();
    for at in [100_000, 130_000] {
        damage(&disk, Path::new("/journal/current/0001.seg"), at, 1);
    }
    let (journal, mut steps) = stepped(&disk);
    let read = |after, entries| {
        let limit = Limit { entries, ..ALL };
        journal.read_after_blocking(after, limit).unwrap()
    };
    let there = read(Cursor::default(), 5);
    assert_eq!(there[4].sequence, Sequence(6), "5 is damaged");
    journal.came_to(&sink("cloud"), cursor_at(&there[3]), &there[4]);
    steps.turn().unwrap();
    journal.acknowledge(&sink("cloud"), cursor_at(&there[4]));
    journal.append(outcome(&["more"], &[]));
    steps.turn().unwrap();
    assert_eq!(named(&read(Cursor::default(), usize::MAX), "cloud"), [[(5, 5)]]);
    // The same where the cursor is there before it is told.
    let next = &read(cursor_at(&there[4]), 1)[0];
    assert_eq!(next.sequence, Sequence(8), "7 is damaged");
    journal.came_to(&sink("cloud"), cursor_at(&there[4]), next);
    journal.acknowledge(&sink("cloud"), cursor_at(next));
    for text in ["more", "and more"] {
        journal.append(outcome(&[text], &[]));
        steps.turn().unwrap();
    }
    let all = read(Cursor::default(), usize::MAX);
    assert_eq!(named(&all, "cloud"), [[(5, 5)], [(7, 7)]]);
}

/// Another board has the card.
fn moved() -> Owner {
    Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    }
}

#[test]
fn what_a_filter_left_out_before_the_lost_end_of_an_epoch_is_told_also_after_a_kill() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 8);
    let there = open.read_all();
    // 4 passed, 5 and 6 did not.
    let before = Cursor {
        passed: Sequence(4),
        ..cursor_at(&there[5])
    };
    open.journal.acknowledge(&sink("cloud"), before);
    open.close();
    for at in [130_000, 150_000] {
        damage(&disk, Path::new("/journal/current/0001.seg"), at, 1);
    }
    let open = Open::on(&disk, &settings(), moved());
    for text in ["one", "two", "three", "four"] {
        open.commit(&[text], &[]);
    }
    let told = named(&everything(&open), "cloud");
    assert_eq!(told.concat(), [(7, 8)], "its end is damaged");
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), moved());
    let before = open.journal.cursor(&sink("cloud"));
    let next = &open.read(before)[0];
    assert_eq!(next.sequence, Sequence(1));
    open.journal.came_to(&sink("cloud"), before, next);
    open.journal.acknowledge(&sink("cloud"), cursor_at(next));
    for text in ["five", "six"] {
        open.commit(&[text], &[]);
    }
    let told = named(&everything(&open), "cloud");
    assert_eq!(told.concat(), [(7, 8), (5, 6)]);
    assert_eq!(open.read_all()[0].epoch, next.epoch, "now the old one is gone");
}

#[test]
fn what_a_filter_left_out_at_the_whole_end_of_an_epoch_is_no_loss() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 8);
    let there = open.read_all();
    open.close();
    let open = Open::on(&disk, &settings(), moved());
    open.commit(&["one"], &[]);
    // 4 passed, 5 to 8 did not.
    let before = Cursor {
        passed: Sequence(4),
        ..cursor_at(&there[7])
    };
    let next = open.read(before).remove(0);
    open.journal.came_to(&sink("cloud"), before, &next);
    open.journal.acknowledge(&sink("cloud"), cursor_at(&next));
    for text in ["two", "three"] {
        open.commit(&[text], &[]);
    }
    assert_eq!(named(&everything(&open), "cloud"), Vec::<Vec<_>>::new());
}

#[test]
fn an_event_whose_segment_goes_while_it_is_set_aside_is_not_named() {
    let disk = Simulated::default();
    let (journal, mut steps) = stepped(&disk);
    let padding = "x".repeat(20_000);
    let event = || journal.append(outcome(&[&padding], &[]));
    let oldest = || {
        let one = Limit { entries: 1, bytes: 1 };
        let read = journal.read_after_blocking(Cursor::default(), one);
        read.unwrap().into_iter().next()
    };
    // How many go at once.
    let mut lost = Vec::new();
    let mut rolled = 0;
    for number in 0.. {
        event();
        steps.turn().unwrap();
        let first = oldest().unwrap().sequence.0;
        if lost.last() != Some(&first) {
            lost.push(first);
            rolled = number;
        }
        if let [.., before, last] = lost[..]
            && lost.len() > 3
            && number - rolled == last - before - 2
        {
            break;
        }
    }
    let letter = oldest().unwrap();
    event();
    event();
    let cloud = sink("cloud");
    let refused = Refused {
        sink: &cloud,
        entry: &letter,
        previous: Sequence(0),
        reason: "no",
        attempts: 10,
    };
    journal.set_aside(&refused).unwrap();
    steps.turn().unwrap();
    assert!(oldest().unwrap().sequence > letter.sequence, "its segment went");
    assert_eq!(journal.dead_letters().len(), 1);
    let all = journal.read_after_blocking(Cursor::default(), ALL).unwrap();
    let named = numbers(named(&all, "cloud"));
    assert!(!named.contains(&letter.sequence.0), "it can still be sent again");
    assert!(named.contains(&(letter.sequence.0 + 1)));
}

#[test]
fn what_a_filter_left_out_before_a_letter_is_told_when_that_is_dropped() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b", "c", "d", "e", "f"], &[]);
    let there = open.read_all();
    // 1 passed, 2 did not, 3 is a letter, and so is 5: 4 did not pass.
    for (number, previous) in [(3, 1), (5, 3)] {
        let cloud = sink("cloud");
        let refused = Refused {
            sink: &cloud,
            entry: &there[number - 1],
            previous: Sequence(previous),
            reason: "no",
            attempts: 10,
        };
        open.wait(open.journal.set_aside(&refused).unwrap());
    }
    let letters = open.journal.dead_letters();
    open.wait(open.journal.drop_letters(&letters[1..]));
    assert_eq!(named(&open.read_all(), "cloud"), [[(4, 5)]]);
    open.wait(open.journal.drop_letters(&letters[..1]));
    assert_eq!(named(&open.read_all(), "cloud"), [[(4, 5)], [(2, 3)]]);
}

#[test]
fn a_forgotten_sink_leaves_nothing_behind() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "gone"]));
    open.commit(&["one"], &[]);
    set_aside(&open, "gone", &open.read_all()[0]);
    open.wait(open.journal.tell_set_aside(open.journal.untold().remove(0)));
    open.wait(open.journal.drop_letters(&open.journal.dead_letters()));
    open.close();
    let open = Open::new(&disk);
    assert!(block_on(open.journal.forget(&sink("gone"))));
    open.commit(&["two"], &[]);
    open.close();
    let slots = ["a.snap", "b.snap"].map(|slot| Path::new("/journal/current").join(slot));
    let slots = slots.map(|slot| disk.content(&slot).unwrap());
    let newest = slots.into_iter().max_by_key(|slot| slot[8..16].to_vec()).unwrap();
    assert!(newest.windows(5).any(|part| part == b"cloud"));
    assert!(!newest.windows(9).any(|part| part == b"dead-told"));
}
