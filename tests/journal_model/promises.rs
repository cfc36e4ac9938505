//! What is durable, in which order, and whose.

use super::rig::*;

#[test]
fn what_is_durable_is_read_in_order_with_consecutive_sequences() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    assert!(open.recovered.clean && open.recovered.findings.is_empty());
    open.commit(&["a", "b"], &[("r/x", Some("1"))]);
    let last = open.commit(&["c"], &[]);
    let entries = open.read_all();
    assert_eq!(texts(&entries), ["a", "b", "c"]);
    assert_eq!(
        entries.iter().map(|entry| entry.sequence.0).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(entries.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!(entries[2].position, last);
    assert_eq!(entries[0].epoch, open.recovered.epoch);
    assert_eq!(&*entries[0].event.origin.gateway, "plantroom-1");
    assert_eq!(texts(&open.read(cursor_at(&entries[0]))), ["b", "c"]);
    let two = open.journal.read_after_blocking(
        Cursor::default(),
        Limit {
            entries: 2,
            bytes: usize::MAX,
        },
    );
    assert_eq!(texts(&two.unwrap()), ["a", "b"]);
    assert!(open.read(cursor_at(&entries[2])).is_empty());
    assert_eq!(
        texts(&block_on(async { open.journal.read_after(Cursor::default(), ALL).await }).unwrap()),
        ["a", "b", "c"]
    );
    open.close();
}

#[test]
fn a_closed_journal_reopens_clean_with_its_state_and_cursors() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("r/x", Some("1")), ("r/y", Some("2"))]);
    open.commit(&[], &[("r/y", None), ("r/z", Some("3"))]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    let epoch = open.recovered.epoch;
    open.close();
    let open = Open::new(&disk);
    assert!(open.recovered.clean);
    assert_eq!(open.recovered.epoch, epoch);
    assert_eq!(
        (open.recovered.first, open.recovered.last),
        (Sequence(1), Sequence(2))
    );
    assert_eq!(
        open.state(),
        [
            ("r/x".to_owned(), "1".to_owned()),
            ("r/z".to_owned(), "3".to_owned())
        ]
    );
    let cursor = open.journal.cursor(&sink("cloud"));
    assert_eq!(cursor, cursor_at(&entries[0]));
    assert_eq!(texts(&open.read(cursor)), ["b"]);
    open.commit(&["c"], &[]);
    assert_eq!(open.read_all()[2].sequence, Sequence(3));
}

#[test]
fn going_back_with_a_cursor_changes_nothing() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[1]));
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    assert_eq!(open.journal.cursor(&sink("cloud")), cursor_at(&entries[1]));
}

#[test]
fn an_empty_outcome_is_as_durable_as_what_came_before_it() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let position = open.journal.append(Outcome::default());
    open.wait(position);
    let a = open.journal.append(outcome(&["a"], &[]));
    assert_eq!(open.journal.append(Outcome::default()), a);
}

#[test]
fn what_was_durable_survives_any_power_cut() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Simulated::default();
        let open = Open::new(&disk);
        open.commit(&["a", "b"], &[("k", Some("1"))]);
        open.journal.append(outcome(&["c", "d"], &[("k", Some("2"))]));
        open.power_cut(&disk, &mut random);
        let open = Open::new(&disk);
        let found = texts(&open.read_all());
        let kept = found
            .iter()
            .filter(|text| text.len() == 1)
            .cloned()
            .collect::<Vec<_>>();
        let value = &open.state()[0].1;
        let whole = (kept == ["a", "b"] && value == "1") || (kept == ["a", "b", "c", "d"] && value == "2");
        assert!(whole, "seed {seed}: {found:?} {value}");
        assert!(!open.recovered.clean);
    }
}

#[test]
fn another_gateway_begins_a_new_epoch_and_the_old_one_is_still_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[0]));
    let old = open.recovered.epoch;
    open.close();
    let renamed = || Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    };
    let open = Open::on(&disk, &settings(), renamed());
    assert_ne!(open.recovered.epoch, old);
    assert!(open.recovered.state.is_empty());
    open.commit(&["c"], &[]);
    let cursor = open.journal.cursor(&sink("cloud"));
    let owed = open.read(cursor);
    assert_eq!(
        (texts(&owed), owed[0].epoch, owed[0].sequence),
        (vec!["b".to_owned()], old, Sequence(2))
    );
    open.kill(&disk);
    // Also after a crash: what is owed is owed until it is confirmed.
    let open = Open::on(&disk, &settings(), renamed());
    let owed = open.read(open.journal.cursor(&sink("cloud")));
    assert_eq!(texts(&owed), ["b"]);
    let new = open.read(cursor_at(&owed[0]));
    assert_eq!(
        (texts(&new), new[0].epoch, new[0].sequence),
        (vec!["c".to_owned()], open.recovered.epoch, Sequence(1))
    );
    open.journal.acknowledge(&sink("cloud"), cursor_at(&new[0]));
    open.close();
    let open = Open::on(&disk, &settings(), renamed());
    open.health(|health| health.pulse > 1);
    assert!(
        !disk
            .paths()
            .iter()
            .any(|path| path.to_string_lossy().contains("epoch-"))
    );
    assert_eq!(open.journal.cursor(&sink("cloud")).sequence, Sequence(1));
}

#[test]
fn a_second_process_is_told_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("journal"),
        ..settings()
    };
    let (journal, _, _running) = Journal::open(&settings, owner(&[]), Clock::system()).unwrap();
    let Err(error) = Journal::open(&settings, owner(&[]), Clock::system()) else {
        panic!("it opened twice")
    };
    assert!(
        matches!(&error, Error::Locked { pid, .. } if *pid == std::process::id().to_string()),
        "{error}"
    );
    block_on(journal.close());
    Journal::open(&settings, owner(&[]), Clock::system()).unwrap();
}

#[test]
fn a_real_directory_keeps_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("journal"),
        ..settings()
    };
    let (journal, recovered, _running) =
        Journal::open(&settings, owner(&["cloud"]), Clock::system()).unwrap();
    let position = journal.append(outcome(&["a"], &[("k", Some("1"))]));
    block_on(async { journal.durable().wait_for(|at| *at >= position).await.map(|_| ()) }).unwrap();
    block_on(journal.close());
    let (journal, again, _running) = Journal::open(&settings, owner(&["cloud"]), Clock::system()).unwrap();
    assert_eq!(again.epoch, recovered.epoch);
    assert_eq!(
        texts(&journal.read_after_blocking(Cursor::default(), ALL).unwrap()),
        ["a"]
    );
}

#[test]
fn a_failed_flush_ends_the_journal() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    disk.set_failing_sync(true);
    let position = open.journal.append(outcome(&["b"], &[]));
    let mut durable = open.journal.durable();
    let ended = block_on(async { durable.wait_for(|at| *at >= position).await.map(|_| ()) });
    assert!(ended.is_err(), "nothing is durable after a failed flush");
    assert!(open.running.ended.blocking_recv().unwrap().is_err());
    assert_eq!(
        texts(&open.journal.read_after_blocking(Cursor::default(), ALL).unwrap()),
        ["a"]
    );
}

#[test]
fn state_alone_waits_for_company_and_an_event_takes_it_along() {
    let disk = Simulated::default();
    let slow = Settings {
        state_delay: Duration::from_hours(1),
        ..settings()
    };
    let open = Open::on(&disk, &slow, owner(&["cloud"]));
    let state = open.journal.append(outcome(&[], &[("k", Some("1"))]));
    assert!(*open.journal.durable().borrow() < state);
    let event = open.commit(&["a"], &[]);
    assert!(state < event);
    open.kill(&disk);
    assert_eq!(Open::new(&disk).state(), [("k".to_owned(), "1".to_owned())]);
}

#[test]
fn a_reader_at_the_end_misses_nothing_while_segments_change() {
    let disk = Simulated::default();
    let large = Settings {
        max_bytes: 64 * 1024 * 1024,
        ..settings()
    };
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    let journal = open.journal.clone();
    let events = 600;
    let reader = std::thread::spawn(move || {
        let mut cursor = Cursor::default();
        while cursor.sequence < Sequence(events) {
            for entry in journal.read_after_blocking(cursor, ALL).unwrap() {
                assert_eq!(
                    entry.sequence,
                    Sequence(cursor.sequence.0 + 1),
                    "one is passed over"
                );
                cursor = cursor_at(&entry);
            }
        }
    });
    let padding = "x".repeat(60_000);
    for number in 0..events {
        open.commit(&[&format!("{number} {padding}")], &[]);
    }
    reader.join().unwrap();
}

#[test]
fn a_cursor_that_was_moved_back_stays_there_through_power_cuts_and_goes_on_from_there() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let disk = Simulated::default();
        let open = Open::new(&disk);
        open.commit(&["a", "b", "c"], &[]);
        let entries = open.read_all();
        open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[2]));
        open.commit(&["d"], &[]);
        let before = Position(entries[1].position.0 - 1);
        assert!(block_on(open.journal.replay(&sink("cloud"), before)));
        open.power_cut(&disk, &mut random);
        let open = Open::new(&disk);
        let cursor = open.journal.cursor(&sink("cloud"));
        assert_eq!(
            (cursor.position, cursor.sequence),
            (before, Sequence(0)),
            "seed {seed}"
        );
        assert_eq!(texts(&open.read(cursor)), ["b", "c", "d"]);
        open.journal.acknowledge(&sink("cloud"), cursor_at(&entries[1]));
        open.close();
        let open = Open::new(&disk);
        assert_eq!(open.journal.cursor(&sink("cloud")), cursor_at(&entries[1]));
    }
}

#[test]
fn a_forgotten_cursor_is_gone_after_a_power_cut_too() {
    let mut random = fastrand::Rng::with_seed(1);
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "old"]));
    open.commit(&["a"], &[]);
    assert_eq!(open.journal.sinks(), [sink("cloud"), sink("old")]);
    assert!(block_on(open.journal.forget(&sink("old"))));
    open.power_cut(&disk, &mut random);
    let open = Open::new(&disk);
    assert_eq!(open.journal.sinks(), [sink("cloud")]);
    open.close();
    assert_eq!(Open::new(&disk).journal.sinks(), [sink("cloud")]);
}

#[test]
fn a_forgotten_cursor_does_not_come_back_from_an_old_epoch() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &settings(), owner(&["cloud", "old"]));
    open.commit(&["a"], &[]);
    open.close();
    let mut another = owner(&["cloud"]);
    "another".clone_into(&mut another.machine_id);
    let open = Open::on(&disk, &settings(), another.clone());
    open.commit(&["b"], &[]);
    assert_eq!(texts(&open.read_all()), ["a"], "the old epoch is kept");
    assert_eq!(open.journal.sinks(), [sink("cloud"), sink("old")]);
    assert!(block_on(open.journal.forget(&sink("old"))));
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), another);
    assert_eq!(open.journal.sinks(), [sink("cloud")]);
}

#[test]
fn a_cursor_goes_back_no_further_than_what_is_kept() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let mut number = 0;
    while open
        .read_all()
        .first()
        .is_none_or(|first| first.sequence == Sequence(1))
    {
        number += 1;
        let position = open.commit(&[&format!("{number} {}", "p".repeat(50_000))], &[]);
        let all = Cursor {
            position,
            sequence: Sequence(number),
            passed: Sequence(number),
            ..Cursor::default()
        };
        open.journal.acknowledge(&sink("cloud"), all);
    }
    assert!(block_on(open.journal.replay(&sink("cloud"), Position(0))));
    let cursor = open.journal.cursor(&sink("cloud"));
    assert!(cursor.position > Position(0));
    assert_eq!(open.read(cursor), open.read_all());
}

#[test]
fn a_new_epoch_counts_from_one_also_if_it_is_killed_before_anything_of_it_was_delivered() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b", "c", "d", "e"], &[]);
    let last = open.read_all().pop().unwrap();
    open.journal.acknowledge(&sink("cloud"), cursor_at(&last));
    open.close();
    let moved = || Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    };
    let open = Open::on(&disk, &settings(), moved());
    open.commit(&["first"], &[]);
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), moved());
    assert_eq!(open.recovered.last, Sequence(1));
    open.commit(&["second"], &[]);
    let entries = open.read(open.journal.cursor(&sink("cloud")));
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.sequence.0).collect();
    assert_eq!(numbers, [1, 2]);
}
