//! What vanished, was cut short or zeroed: it is told, once, and no number comes again.

use std::collections::BTreeSet;

use super::rig::*;

/// What identifies an event for good.
fn ids(entries: &[Entry]) -> BTreeSet<(u64, u64)> {
    entries
        .iter()
        .map(|entry| (entry.epoch.0, entry.sequence.0))
        .collect()
}

fn named(entries: &[Entry], name: &str) -> usize {
    entries
        .iter()
        .filter(|entry| &*entry.event.draft.name == name)
        .count()
}

fn confirm_all(open: &Open) {
    let newest = open.read_all();
    open.journal
        .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
}

/// Two commits after which whatever reading found is told, too: the thread takes it over before the second.
fn settle(open: &Open) -> Vec<Entry> {
    open.commit(&["settled"], &[]);
    everything(open);
    open.commit(&["settled"], &[]);
    everything(open)
}

#[test]
fn numbers_of_a_segment_that_vanished_after_a_kill_never_come_again() {
    for zeroed in [false, true] {
        let disk = Simulated::default();
        let open = Open::new(&disk);
        open.commit(&["a", "b"], &[]);
        open.commit(&["c"], &[]);
        let before = ids(&open.read_all());
        open.kill(&disk);
        let path = newest_segment(&disk);
        let length = disk.content(&path).unwrap().len();
        disk.put_content(&path, zeroed.then(|| vec![0; length]));
        let open = Open::new(&disk);
        let new = settle(&open);
        assert!(ids(&new).is_disjoint(&before), "a number came again");
        assert_eq!(named(&new, "StorageDamaged"), 1);
        let (_, told) = account(&new);
        assert!(told.iter().any(|(from, to)| *from == 1 && *to >= 3), "{told:?}");
    }
}

#[test]
fn when_every_segment_vanished_all_that_they_can_have_held_is_named() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[]);
    open.commit(&["c"], &[]);
    let before = ids(&open.read_all());
    open.kill(&disk);
    for path in segment_files(&disk) {
        disk.put_content(&path, None);
    }
    let new = settle(&Open::new(&disk));
    assert!(ids(&new).is_disjoint(&before), "a number came again");
    let (_, told) = account(&new);
    assert!(told.iter().any(|(from, to)| *from == 1 && *to >= 3), "{told:?}");
}

#[test]
fn numbers_of_a_newest_segment_that_vanished_later_never_come_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    let before = ids(&open.read_all());
    open.kill(&disk);
    disk.put_content(&newest_segment(&disk), None);
    let open = Open::new(&disk);
    let all = settle(&open);
    let texts: BTreeSet<String> = texts(&all).into_iter().filter(|text| text.len() < 100).collect();
    assert!(texts.contains("settled"));
    let again: Vec<&Entry> = all
        .iter()
        .filter(|entry| text(entry) == "settled" || &*entry.event.draft.name != "Test")
        .collect();
    for entry in again {
        assert!(
            !before.contains(&(entry.epoch.0, entry.sequence.0)),
            "{} came again",
            entry.sequence
        );
    }
    assert_eq!(named(&all, "StorageDamaged"), 1);
}

#[test]
fn the_oldest_segment_that_vanished_is_told_even_if_all_of_it_was_delivered_but_as_no_loss() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    confirm_all(&open);
    open.close();
    let oldest = PathBuf::from("/journal/current/0001.seg");
    disk.put_content(&oldest, None);
    let open = Open::new(&disk);
    let all = settle(&open);
    assert_eq!(named(&all, "StorageDamaged"), 1);
    assert_eq!(named(&all, "EventsDiscarded"), 0, "the only sink has it");
}

#[test]
fn a_delivered_segment_that_was_cut_short_is_told_at_opening() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    confirm_all(&open);
    open.close();
    let oldest = PathBuf::from("/journal/current/0001.seg");
    let bytes = disk.content(&oldest).unwrap();
    disk.put_content(&oldest, Some(bytes[..100_000].to_vec()));
    let open = Open::new(&disk);
    open.commit(&["new"], &[]);
    let all = open.read(open.journal.cursor(&sink("cloud")));
    assert_eq!(texts(&all), ["StorageDamaged", "new"], "nobody loses anything");
}

#[test]
fn a_newest_segment_that_was_cut_behind_its_frames_loses_nothing_and_is_told() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    let epoch = open.recovered.epoch;
    open.kill(&disk);
    let path = newest_segment(&disk);
    let bytes = disk.content(&path).unwrap();
    let used = *frames(&bytes).last().unwrap();
    for length in [used + 28, used + 100, bytes.len() - 4096, bytes.len() - 1] {
        let copy = disk.copy();
        copy.put_content(&path, Some(bytes[..length].to_vec()));
        let open = Open::new(&copy);
        assert_eq!(open.recovered.epoch, epoch, "cut to {length}");
        let all = settle(&open);
        assert_eq!(texts(&all), ["a", "b", "StorageDamaged", "settled", "settled"]);
        assert_eq!(open.state(), [("k".to_owned(), "1".to_owned())]);
        open.kill(&copy);
        let open = Open::new(&copy);
        assert_eq!(named(&settle(&open), "StorageDamaged"), 1, "it is told once");
    }
}

#[test]
fn a_newest_segment_that_was_cut_in_its_frames_ends_the_epoch() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for text in ["a", "b", "c"] {
        open.commit(&[text], &[]);
    }
    let before = ids(&open.read_all());
    open.kill(&disk);
    let path = newest_segment(&disk);
    let bytes = disk.content(&path).unwrap();
    let ends = frames(&bytes);
    // Cursor, a, b, c.
    for length in [ends[2], ends[2] + 10, ends[3], ends[4] - 1, ends[4]] {
        let copy = disk.copy();
        copy.put_content(&path, Some(bytes[..length].to_vec()));
        let open = Open::new(&copy);
        let all = settle(&open);
        let kept: Vec<String> = texts(&all).into_iter().filter(|text| text.len() == 1).collect();
        assert_eq!(kept.len(), ends.iter().filter(|end| **end <= length).count() - 2);
        for entry in all.iter().filter(|entry| text(entry).len() > 1) {
            assert!(
                !before.contains(&(entry.epoch.0, entry.sequence.0)),
                "cut to {length}"
            );
        }
        assert_eq!(named(&all, "StorageDamaged"), 1);
        let (_, told) = account(&all);
        let first_lost = kept.len() as u64 + 1;
        assert!(
            told.iter().any(|(from, to)| *from == first_lost && *to >= 3),
            "{told:?}"
        );
    }
}

#[test]
fn damage_is_told_once_however_often_it_is_met() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    for text in ["a", "b", "c"] {
        open.commit(&[text], &[]);
    }
    open.kill(&disk);
    // In the backlog, in what is replayed, and a whole file in the middle.
    damage(&disk, Path::new("/journal/current/0001.seg"), 100_000, 1);
    let newest = newest_segment(&disk);
    let ends = frames(&disk.content(&newest).unwrap());
    damage(&disk, &newest, ends[ends.len() - 3] + 30, 1);
    disk.put_content(Path::new("/journal/current/0003.seg"), None);
    let open = Open::new(&disk);
    let told = named(&settle(&open), "StorageDamaged");
    assert_eq!(told, 3);
    assert_no_gap(&everything(&open));
    let discarded = named(&everything(&open), "EventsDiscarded");
    open.kill(&disk);
    for clean in [true, false] {
        let open = Open::new(&disk);
        let all = settle(&open);
        assert_eq!(named(&all, "StorageDamaged"), told, "it is told again");
        assert_eq!(named(&all, "EventsDiscarded"), discarded);
        assert_no_gap(&all);
        if clean {
            open.close();
        } else {
            open.kill(&disk);
        }
    }
}

#[test]
fn damage_in_an_old_epoch_is_told_once() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 40);
    open.close();
    damage(&disk, Path::new("/journal/current/0001.seg"), 100_000, 1);
    let other = || Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    };
    for _ in 0..3 {
        let open = Open::on(&disk, &settings(), other());
        let all = settle(&open);
        assert_eq!(named(&all, "StorageDamaged"), 1);
        assert_eq!(named(&all, "EventsDiscarded"), 1);
        open.kill(&disk);
    }
}

#[test]
fn numbers_that_a_torn_tail_took_back_are_named_though_the_next_start_is_cut_short() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b", "c"], &[]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    damage(&disk, &path, ends[ends.len() - 2] + 40, 1);
    // It starts, recovers, and dies before it can say anything.
    disk.fail_after_syncs(1);
    if let Ok((journal, _, running)) =
        Journal::open_on(disk.mount(), &settings(), owner(&["cloud"]), Clock::system())
    {
        drop(running.ended.blocking_recv());
        drop(journal);
    }
    disk.set_failing_sync(false);
    let mut random = fastrand::Rng::with_seed(3);
    for _ in 0..8 {
        let copy = disk.clone_with_unsynced();
        copy.power_cut(&mut random);
        let open = Open::new(&copy);
        open.commit(&["d"], &[]);
        let entries = open.read_all();
        assert_no_gap(&entries);
        let d = entries.iter().find(|entry| text(entry) == "d").unwrap();
        assert!(d.sequence > Sequence(3), "{} was given out before", d.sequence);
    }
}

#[test]
fn a_header_with_a_flipped_byte_still_keeps_its_number_from_coming_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b"], &[]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    let header = ends[ends.len() - 2];
    for at in header..header + 28 {
        let copy = disk.copy();
        damage(&copy, &path, at, 1);
        let open = Open::new(&copy);
        open.commit(&["d"], &[]);
        let entries = open.read_all();
        assert_no_gap(&entries);
        let d = entries.iter().find(|entry| text(entry) == "d").unwrap();
        assert!(d.sequence > Sequence(2), "flipped byte {} of it", at - header);
    }
}

#[test]
fn a_sink_whose_place_was_lost_starts_at_the_oldest_event() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    open.kill(&disk);
    for slot in ["a.snap", "b.snap"] {
        disk.put_content(&Path::new("/journal/current").join(slot), None);
    }
    disk.put_content(Path::new("/journal/current/0001.seg"), None);
    let open = Open::new(&disk);
    open.commit(&["new"], &[]);
    let owed = open.read(open.journal.cursor(&sink("cloud")));
    assert!(
        owed.len() > 30,
        "only {} of what is kept is delivered",
        owed.len()
    );
}

#[test]
fn a_snapshot_slot_that_vanished_is_told_once() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for round in 0..40 {
        open.commit(&[&"x".repeat(20_000)], &[(&format!("k{round}"), Some("1"))]);
    }
    open.close();
    for slot in ["a.snap", "b.snap"] {
        let copy = disk.copy();
        copy.put_content(&Path::new("/journal/current").join(slot), None);
        for _ in 0..2 {
            let open = Open::new(&copy);
            assert_eq!(open.recovered.state.len(), 40);
            assert_eq!(named(&settle(&open), "StorageDamaged"), 1);
            open.close();
        }
    }
}

#[test]
fn what_the_disk_cannot_read_is_told_and_the_rest_is_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    let before = ids(&open.read_all());
    open.kill(&disk);
    let newest = newest_segment(&disk);
    let used = *frames(&disk.content(&newest).unwrap()).last().unwrap();
    let sealed = PathBuf::from("/journal/current/0001.seg");
    for (path, range, told) in [
        (&sealed, 8192..12288, true),
        (&sealed, 0..4096, true),
        (&newest, 0..4096, true),
        (&newest, 8192..12288, true),
        (&newest, used - 4096..used + 1, true),
        (&PathBuf::from("/journal/current/a.snap"), 0..4096, false),
    ] {
        let copy = disk.copy();
        copy.set_unreadable(path, range.clone());
        let open = Open::on(&copy, &settings(), owner(&["cloud"]));
        let all = settle(&open);
        let kept = ids(&all).intersection(&before).count();
        assert!(kept >= 40, "{kept} are left with {range:?} of {}", path.display());
        assert_eq!(
            named(&all, "StorageDamaged"),
            usize::from(told),
            "{range:?} of {}",
            path.display()
        );
        let (_, lost) = account(&all);
        for (epoch, sequence) in &before {
            let known = ids(&all).contains(&(*epoch, *sequence))
                || lost.iter().any(|(from, to)| (from..=to).contains(&sequence));
            assert!(
                known,
                "{sequence} is missing with {range:?} of {}",
                path.display()
            );
        }
        let again = all
            .iter()
            .filter(|entry| &*entry.event.draft.name != "Test" || text(entry) == "settled");
        for entry in again {
            assert!(
                !before.contains(&(entry.epoch.0, entry.sequence.0)),
                "a number came again"
            );
        }
    }
}

#[test]
fn a_disk_that_does_not_answer_now_has_its_journal_left_in_place() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    let epoch = open.recovered.epoch;
    open.close();
    let identity = PathBuf::from("/journal/current/identity");
    disk.set_unreadable(&identity, 0..1);
    let failed = Journal::open_on(disk.mount(), &settings(), owner(&["cloud"]), Clock::system());
    assert!(failed.is_err());
    disk.set_unreadable(&identity, 0..0);
    assert_eq!(Open::new(&disk).recovered.epoch, epoch);
}

#[test]
fn a_damaged_segment_before_a_vanished_one_loses_only_what_was_damaged() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    let before = ids(&everything(&open));
    open.close();
    let first = disk.content(Path::new("/journal/current/0001.seg")).unwrap();
    let third = disk.content(Path::new("/journal/current/0003.seg")).unwrap();
    // Where the header says which sequence stands before a segment.
    let after = |bytes: &[u8]| u64::from_le_bytes(bytes[32..40].try_into().unwrap());
    let second = disk.content(Path::new("/journal/current/0002.seg")).unwrap();
    let gone = after(&second) + 1..=after(&third);
    damage(&disk, Path::new("/journal/current/0001.seg"), first.len() / 2, 1);
    disk.put_content(Path::new("/journal/current/0002.seg"), None);
    let open = Open::new(&disk);
    let all = settle(&open);
    let kept = ids(&all);
    let lost = before
        .iter()
        .filter(|id| !kept.contains(id))
        .map(|(_, sequence)| *sequence);
    let lost: Vec<u64> = lost.filter(|sequence| !gone.contains(sequence)).collect();
    assert_eq!(lost.len(), 1, "one event was hit: {lost:?}");
    assert_no_gap(&all);
    assert_eq!(named(&all, "StorageDamaged"), 2);
}
