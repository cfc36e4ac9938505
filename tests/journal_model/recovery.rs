//! What is found after a crash, and after damage.

use super::rig::*;

#[test]
fn every_prefix_of_a_tail_recovers_to_whole_commits() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    open.commit(&["c", "d"], &[("k", Some("2"))]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let whole = disk.content(&path).unwrap();
    let ends = frames(&whole);
    let used = *ends.last().unwrap();
    // Where the second commit begins: after the cursor, a, b and k.
    let second = ends[4];
    for cut in (second..used).chain([ends[1], ends[1] + 5, ends[3]]) {
        let copy = disk.copy();
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        copy.put_content(&path, Some(bytes));
        let open = Open::new(&copy);
        let kept = texts(&open.read_all())
            .into_iter()
            .filter(|text| text.len() == 1)
            .collect::<Vec<_>>();
        let state = open.state();
        if cut >= second {
            assert_eq!(
                (kept, &*state[0].1),
                (vec!["a".to_owned(), "b".to_owned()], "1"),
                "cut at {cut}"
            );
        } else {
            assert!(kept.is_empty() && state.is_empty(), "cut at {cut}");
        }
        let next = open.commit(&["e"], &[]);
        let entries = open.read_all();
        assert_eq!(
            entries.last().map(|entry| (text(entry), entry.position)),
            Some(("e".to_owned(), next))
        );
        assert_no_gap(&entries);
        assert!(says(&open, "StorageDamaged").is_empty());
        // What was cut never comes back.
        open.kill(&copy);
        assert_eq!(texts(&Open::new(&copy).read_all()), texts(&entries));
    }
}

#[test]
fn numbers_of_a_torn_tail_are_skipped_and_named() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b", "c"], &[]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    // The last frame's payload: its header still claims sequence 3.
    damage(&disk, &path, ends[ends.len() - 2] + 40, 1);
    let open = Open::new(&disk);
    open.commit(&["d"], &[]);
    let entries = open.read_all();
    assert_eq!(texts(&entries), ["a", "EventsDiscarded", "d"]);
    assert_eq!(data(&entries[1])["reason"], "torn-tail");
    assert_eq!(account(&entries), (vec![1, 4, 5], vec![(2, 3)]));
}

#[test]
fn a_flipped_byte_before_a_later_group_is_damage_and_is_told() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for text in ["a", "b", "c"] {
        open.commit(&[text], &[(text, Some("1"))]);
    }
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    // Cursor, a, its state, b, its state, c, its state.
    for at in ends[3]..ends[4] {
        let copy = disk.copy();
        damage(&copy, &path, at, 1);
        let open = Open::new(&copy);
        open.commit(&["d"], &[]);
        assert!(!open.recovered.findings.is_empty());
        assert!(open.recovered.state.len() == 3, "the good frame behind it counts");
        let entries = open.read_all();
        assert_eq!(
            texts(&entries),
            ["a", "c", "StorageDamaged", "EventsDiscarded", "d"],
            "flipped {at}"
        );
        assert_eq!(entries[2].event.draft.severity, Severity::Critical);
        let (_, told) = account(&entries);
        assert_eq!(told, [(2, 2)]);
        assert_eq!(data(&entries[3])["reason"], "damaged");
        let from = data(&entries[2])["from"].as_u64().unwrap();
        assert_eq!(usize::try_from(from).unwrap(), ends[3]);
        assert_eq!(
            copy.paths()
                .iter()
                .filter(|path| path.to_string_lossy().contains("damaged-"))
                .count(),
            1
        );
        // It is told once, and read past for ever.
        open.kill(&copy);
        let open = Open::new(&copy);
        assert_eq!(texts(&open.read_all())[..2], ["a".to_owned(), "c".to_owned()]);
    }
}

#[test]
fn anything_bad_before_a_clean_stop_is_damage() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b"], &[]);
    open.close();
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    damage(&disk, &path, ends[ends.len() - 3] + 30, 3);
    let open = Open::new(&disk);
    open.commit(&["c"], &[]);
    // The stop's snapshot stands behind it, so it is the reader who finds it.
    assert_eq!(texts(&open.read_all()), ["a", "c"]);
    let discarded = block_on(async {
        let mut durable = open.journal.durable();
        loop {
            let told = says(&open, "EventsDiscarded");
            if !told.is_empty() {
                return told;
            }
            durable.changed().await.unwrap();
        }
    });
    assert_eq!(data(&discarded[0])["ranges"], serde_json::json!([[2, 2]]));
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
}

#[test]
fn the_numbers_of_a_segment_that_vanished_after_a_clean_stop_are_not_given_out_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b", "c"], &[]);
    let epoch = open.recovered.epoch;
    open.close();
    let path = newest_segment(&disk);
    disk.put_content(&path, Some(Vec::new()));
    let open = Open::new(&disk);
    open.commit(&["d"], &[]);
    let later = open.read_all();
    let d = later.iter().find(|entry| text(entry) == "d").expect("it is read");
    assert!(
        d.epoch != epoch || d.sequence > Sequence(3),
        "{} was given out before",
        d.sequence
    );
}

#[test]
fn damage_in_the_backlog_is_found_by_the_reader_and_never_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    open.kill(&disk);
    let path = PathBuf::from("/journal/current/0001.seg");
    let bytes = disk.content(&path).unwrap();
    assert!(bytes.starts_with(b"TGSEG"));
    damage(&disk, &path, 100_000, 1);
    let open = Open::new(&disk);
    let before = open.read_all();
    assert_eq!(
        before
            .iter()
            .filter(|entry| &*entry.event.draft.name == "Test")
            .count(),
        59
    );
    let told = block_on(async {
        let mut durable = open.journal.durable();
        loop {
            let told = says(&open, "EventsDiscarded");
            if !told.is_empty() {
                return told;
            }
            durable.changed().await.unwrap();
        }
    });
    assert_eq!(account(&told).1.len(), 1);
    assert_no_gap(&open.read_all());
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
}

#[test]
fn every_flip_in_a_small_journal_opens_and_delivers_no_wrong_event() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for number in 0..4 {
        open.commit(&[&format!("good {number}")], &[("k", Some("1"))]);
    }
    open.close();
    let good =
        |text: &String| text.starts_with("good ") || text == "StorageDamaged" || text == "EventsDiscarded";
    let mut random = fastrand::Rng::with_seed(1);
    for path in disk.paths() {
        for _ in 0..30 {
            let copy = disk.copy();
            let used = disk.content(&path).unwrap();
            let end = used.iter().rposition(|byte| *byte != 0).unwrap_or(0).min(3000) + 1;
            damage(&copy, &path, random.usize(0..end.min(used.len())), 1);
            let open = Open::new(&copy);
            open.commit(&["good new"], &[]);
            let entries = open.read_all();
            assert!(texts(&entries).iter().all(good));
            assert_eq!(
                entries.last().map(text).as_deref(),
                Some("good new"),
                "{}",
                path.display()
            );
            assert!(entries.is_sorted_by(|a, b| a.position < b.position && a.sequence < b.sequence));
        }
    }
}

#[test]
fn a_vanished_or_shortened_file_is_told() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 60);
    open.close();
    for path in segment_files(&disk) {
        for shortened in [false, true] {
            let copy = disk.copy();
            let bytes = copy.content(&path).unwrap();
            // The newest one ends the epoch: loss.rs.
            if !bytes.starts_with(b"TGSEG") || path == newest_segment(&disk) {
                continue;
            }
            copy.put_content(&path, shortened.then(|| bytes[..5000].to_vec()));
            let open = Open::new(&copy);
            open.commit(&["new"], &[]);
            let mut entries = open.read_all();
            block_on(async {
                let mut durable = open.journal.durable();
                while account(&entries).1.is_empty() {
                    durable.changed().await.unwrap();
                    entries = open.read_all();
                }
            });
            assert_no_gap(&entries);
            assert!(entries.len() > 30);
        }
    }
}

#[test]
fn a_damaged_snapshot_is_replaced_by_the_other_one_and_the_log() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for round in 0..80 {
        let value = round.to_string();
        open.commit(
            &[&"x".repeat(20_000)],
            &[("k", Some(&value)), (&format!("k{round}"), Some("1"))],
        );
    }
    open.kill(&disk);
    for slot in ["a.snap", "b.snap"] {
        let copy = disk.copy();
        damage(&copy, &Path::new("/journal/current").join(slot), 40, 1);
        let open = Open::new(&copy);
        assert_eq!(open.recovered.state.len(), 81);
        assert!(open.state().contains(&("k".to_owned(), "79".to_owned())));
        assert_eq!(open.recovered.findings.len(), 1);
    }
}

#[test]
fn an_unreadable_directory_is_moved_aside_whole_and_a_new_epoch_begins() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    let epoch = open.recovered.epoch;
    open.close();
    damage(&disk, Path::new("/journal/current/identity"), 30, 1);
    let open = Open::new(&disk);
    assert_ne!(open.recovered.epoch, epoch);
    assert_eq!(open.recovered.findings.len(), 1);
    assert!(
        disk.paths()
            .iter()
            .any(|path| path.starts_with("/journal/unreadable"))
    );
    open.commit(&["b"], &[]);
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
    assert_eq!(open.read_all().last().map(text).as_deref(), Some("b"));
}

#[test]
fn a_killed_process_s_last_words_are_put_on_the_disk_before_they_are_believed() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    disk.set_failing_sync(true);
    let _ = open.journal.append(outcome(&["b"], &[]));
    assert!(open.running.ended.blocking_recv().unwrap().is_err());
    drop(open.journal);
    disk.set_failing_sync(false);
    let open = Open::new(&disk);
    let seen = texts(&open.read_all());
    assert_eq!(seen, ["a", "b"]);
    let mut random = fastrand::Rng::with_seed(7);
    open.power_cut(&disk, &mut random);
    assert_eq!(texts(&Open::new(&disk).read_all()), seen);
}

#[test]
fn a_snapshot_that_a_failed_flush_forgot_is_put_on_the_disk_before_it_is_believed() {
    let padding = "x".repeat(60_000);
    // What is forgotten is drawn: five times for each flush.
    for syncs in (0..12).flat_map(|syncs| [syncs; 5]) {
        let disk = Simulated::default();
        let open = Open::new(&disk);
        disk.fail_after_syncs(syncs);
        let mut durable = open.journal.durable();
        let goes_on = |number: u64| {
            let position = open
                .journal
                .append(outcome(&[&format!("{number} {padding}")], &[]));
            block_on(durable.wait_for(|at| *at >= position)).is_ok()
        };
        assert!(!(0..=syncs).all(goes_on), "each commit is a flush");
        open.kill(&disk);
        disk.set_failing_sync(false);
        let open = Open::new(&disk);
        // The next snapshot goes into the other slot.
        fill(&open, 13);
        let seen = texts(&open.read_all());
        open.power_cut(&disk, &mut fastrand::Rng::with_seed(syncs));
        let open = Open::new(&disk);
        assert_eq!(
            open.recovered.findings,
            Vec::<String>::new(),
            "after {syncs} flushes"
        );
        assert_eq!(texts(&open.read_all()), seen);
    }
}

#[test]
fn what_an_earlier_use_of_a_segment_left_is_never_read_as_new() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 30);
    open.commit(&["last"], &[]);
    let before = texts(&open.read_all());
    open.kill(&disk);
    let old = disk.content(Path::new("/journal/current/0001.seg")).unwrap();
    let path = newest_segment(&disk);
    let mut bytes = disk.content(&path).unwrap();
    let end = *frames(&bytes).last().unwrap();
    // Whole frames of another use line up behind the last one.
    let left = frames(&old)[3];
    bytes[end..end + left - FRAMES].copy_from_slice(&old[FRAMES..left]);
    disk.put_content(&path, Some(bytes));
    let open = Open::new(&disk);
    assert_eq!(texts(&open.read_all()), before);
    open.commit(&["new"], &[]);
    let after = open.read_all();
    assert_eq!(texts(&after)[..before.len()], before);
    assert_eq!(after.last().map(|entry| entry.sequence), Some(Sequence(32)));
}

#[test]
fn behind_a_torn_tail_nothing_is_left_that_could_come_back() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.commit(&["b", "c", "d"], &[]);
    open.kill(&disk);
    let path = newest_segment(&disk);
    let ends = frames(&disk.content(&path).unwrap());
    damage(&disk, &path, ends[2] + 40, 1);
    // The good frames of c and d are cut with b: they are whole, and of the next group's number.
    Open::new(&disk).power_cut(&disk, &mut fastrand::Rng::with_seed(1));
    let bytes = disk.content(&path).unwrap();
    let end = *frames(&bytes).last().unwrap();
    assert!(bytes[end..bytes.len() - 128].iter().all(|byte| *byte == 0));
}
