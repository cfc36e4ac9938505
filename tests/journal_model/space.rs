//! What happens when it is full.

use super::rig::*;

fn refuse() -> Settings {
    Settings {
        when_full: WhenFull::Refuse,
        ..settings()
    }
}

#[test]
fn drop_oldest_names_what_it_drops_and_stays_within_max_bytes() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 900);
    assert!(disk.bytes() <= settings().max_bytes, "{} bytes", disk.bytes());
    let entries = open.read(open.journal.cursor(&sink("cloud")));
    assert!(entries[0].sequence > Sequence(1));
    assert_no_gap(&entries);
    // A sink that has nothing yet is behind by what is kept.
    let kept = entries.len() as u64;
    open.health(|health| health.behind(Sequence(0)) == kept);
    assert_eq!(open.health(|_| true).behind(entries[9].sequence), kept - 10);
    let note = entries
        .iter()
        .rfind(|entry| &*entry.event.draft.name == "EventsDiscarded")
        .unwrap();
    assert_eq!(&*note.event.draft.kind, "io.tidegate.gateway.EventsDiscarded");
    assert_eq!(note.event.draft.severity, Severity::Error);
    let data = data(note);
    assert_eq!(data["reason"], "journal-full");
    assert_eq!(data["sinks"], serde_json::json!(["cloud"]));
    assert_eq!(data["epoch"], open.recovered.epoch.to_string());
    let (_, told) = account(std::slice::from_ref(note));
    assert_eq!(
        told.len(),
        1,
        "what was told and went unread is told again, in one range"
    );
    assert_eq!(data["count"].as_u64().unwrap(), told[0].1 - told[0].0 + 1);
    let health = open.health(|health| health.undelivered_bytes > 0);
    assert!(!health.parked && health.undelivered_bytes > 6 * 1024 * 1024);
    open.kill(&disk);
    assert_no_gap(&Open::new(&disk).read_all());
}

#[test]
fn what_lies_aside_is_no_room_for_events() {
    let disk = Simulated::default();
    let large = Settings {
        max_bytes: 32 * 1024 * 1024,
        ..settings()
    };
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    fill(&open, 1000);
    open.close();
    damage(&disk, Path::new("/journal/current/identity"), 30, 1);
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    open.commit(&["a"], &[]);
    let health = open.journal.health().borrow().clone();
    let own = 8 * 1024 * 1024;
    assert!(health.used_bytes > 2 * own, "{health:?}");
    assert!(health.room_bytes < large.max_bytes - 2 * own, "{health:?}");
}

#[test]
fn a_copy_of_what_is_damaged_is_kept_only_where_there_is_room_for_it() {
    for (count, copies) in [(100, 1), (900, 0)] {
        let disk = Simulated::default();
        let open = Open::new(&disk);
        fill(&open, count);
        let entries = open.read_all();
        let oldest = entries
            .iter()
            .find(|entry| entry.event.draft.name == draft("").name);
        let wanted = text(oldest.unwrap()).into_bytes();
        open.kill(&disk);
        let holding = |path: &PathBuf| {
            let bytes = disk.content(path).unwrap();
            bytes.windows(wanted.len()).position(|it| it == wanted)
        };
        let (path, at) = segment_files(&disk)
            .into_iter()
            .find_map(|path| holding(&path).map(|at| (path, at)))
            .unwrap();
        damage(&disk, &path, at, 1);
        let open = Open::new(&disk);
        assert!(
            !texts(&open.read_all()).contains(&text(oldest.unwrap())),
            "{count}"
        );
        open.commit(&["a"], &[]);
        assert_eq!(says(&open, "StorageDamaged").len(), 1, "{count}");
        let is_copy = |path: &PathBuf| path.to_string_lossy().contains("damaged-");
        assert_eq!(
            disk.paths().iter().filter(|path| is_copy(path)).count(),
            copies,
            "{count}"
        );
        assert!(disk.bytes() <= settings().max_bytes, "{} bytes", disk.bytes());
    }
}

#[test]
fn delivered_segments_stay_until_their_room_is_needed_and_go_without_a_word() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    for _ in 0..30 {
        fill(&open, 20);
        let newest = open.read_all();
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    }
    let entries = open.read_all();
    assert!(entries.len() > 200, "delivered events stay");
    assert!(entries[0].sequence > Sequence(1), "but not for ever");
    assert!(account(&entries).1.is_empty());
    assert_eq!(
        open.health(|health| health.undelivered_bytes == 0).last,
        Sequence(600)
    );
    assert!(disk.bytes() <= settings().max_bytes);
}

#[test]
fn refuse_parks_and_goes_on_in_order_when_there_is_room() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &refuse(), owner(&["cloud"]));
    let padding = "x".repeat(20_000);
    let mut positions = Vec::new();
    while !open.journal.health().borrow().parked {
        positions.push(
            open.journal
                .append(outcome(&[&format!("{} {padding}", positions.len())], &[])),
        );
        assert!(positions.len() < 5000);
        // The thread keeps up: what counts is the room, not who is faster.
        let newest = positions[positions.len() - 1];
        block_on(async {
            let (mut durable, mut health) = (open.journal.durable(), open.journal.health());
            tokio::select! {
                safe = durable.wait_for(|at| *at >= newest) => drop(safe),
                parked = health.wait_for(|health| health.parked) => drop(parked),
            }
        });
    }
    let last = open.journal.append(outcome(&["the last"], &[]));
    assert!(*open.journal.durable().borrow() < last);
    let mut cursor = Cursor::default();
    let mut read = Vec::new();
    while *open.journal.durable().borrow() < last {
        for entry in open
            .journal
            .read_after_blocking(
                cursor,
                Limit {
                    entries: 50,
                    bytes: usize::MAX,
                },
            )
            .unwrap()
        {
            cursor = cursor_at(&entry);
            read.push(entry);
        }
        open.journal.acknowledge(&sink("cloud"), cursor);
    }
    read.extend(open.read(cursor));
    assert!(!open.health(|health| !health.parked).parked);
    assert_eq!(
        read.len(),
        positions.len() + 1,
        "nothing is lost and nothing is said"
    );
    assert!(
        read.iter()
            .enumerate()
            .all(|(index, entry)| entry.sequence.0 == index as u64 + 1)
    );
    for (entry, position) in read.iter().zip(&positions) {
        assert_eq!(entry.position, *position);
    }
    assert!(disk.bytes() <= settings().max_bytes);
}

#[test]
fn a_sink_that_is_not_required_does_not_park_but_is_told() {
    let disk = Simulated::default();
    let mut owner = owner(&["cloud", "extra"]);
    owner.sinks[1].required = false;
    let open = Open::on(&disk, &refuse(), owner);
    for _ in 0..30 {
        fill(&open, 20);
        let newest = open.read(open.journal.cursor(&sink("cloud")));
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    }
    let entries = open.read_all();
    assert_no_gap(&entries);
    let note = entries
        .iter()
        .find(|entry| &*entry.event.draft.name == "EventsDiscarded")
        .unwrap();
    assert_eq!(data(note)["sinks"], serde_json::json!(["extra"]));
}

#[test]
fn a_removed_sink_keeps_its_cursor_and_holds_nothing_back() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &refuse(), owner(&["cloud", "gone"]));
    open.commit(&["a", "b"], &[]);
    let entries = open.read_all();
    open.journal.acknowledge(&sink("gone"), cursor_at(&entries[0]));
    open.close();
    let open = Open::on(&disk, &refuse(), owner(&[]));
    fill(&open, 600);
    assert!(account(&open.read_all()).1.is_empty());
    assert_eq!(open.journal.cursor(&sink("gone")), cursor_at(&entries[0]));
}

#[test]
fn a_sink_added_later_starts_at_the_end_or_at_the_oldest() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[]);
    open.close();
    let mut owner = owner(&["cloud", "late", "archive"]);
    owner.sinks[2].from_oldest = true;
    let open = Open::on(&disk, &settings(), owner);
    open.commit(&["c"], &[]);
    assert_eq!(texts(&open.read(open.journal.cursor(&sink("late")))), ["c"]);
    assert_eq!(
        texts(&open.read(open.journal.cursor(&sink("archive")))),
        ["a", "b", "c"]
    );
    assert_eq!(
        texts(&open.read(open.journal.cursor(&sink("cloud")))),
        ["a", "b", "c"]
    );
    // Its place is on the disk from the start: a crash does not move it.
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), self::owner(&["late"]));
    assert_eq!(texts(&open.read(open.journal.cursor(&sink("late")))), ["c"]);
}

#[test]
fn a_full_disk_parks_and_nothing_undelivered_is_dropped() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 50);
    disk.set_full(true);
    let padding = "x".repeat(20_000);
    let mut count = 50;
    while !open.journal.health().borrow().parked {
        open.journal
            .append(outcome(&[&format!("{count} {padding}")], &[]));
        count += 1;
        assert!(count < 5000);
        std::thread::yield_now();
    }
    let last = open.journal.append(outcome(&["the last"], &[]));
    // Reading goes on, and what is delivered makes room.
    let read = open.read_all();
    assert!(read.len() >= 50);
    let full_at = Clock::system().moment().wall;
    // So that what is stored was tried again after that.
    let pulse = open.journal.health().borrow().pulse;
    open.health(|health| health.pulse >= pulse + 2);
    disk.set_full(false);
    open.wait(last);
    let entries = open.read_all();
    let waited = &entries[read.len()..];
    assert!(!waited.is_empty());
    assert!(
        waited.iter().all(|entry| entry.event.recorded.wall >= full_at),
        "what waited for room is recorded when it is stored"
    );
    assert_eq!(entries.len(), count + 1);
    assert!(account(&entries).1.is_empty());
}

#[test]
fn on_a_full_disk_delivered_segments_are_used_again() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 100);
    disk.set_full(true);
    for _ in 0..10 {
        let newest = open.read_all();
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
        fill(&open, 10);
    }
    assert!(!open.journal.health().borrow().parked);
    assert!(account(&open.read_all()).1.is_empty());
}

#[test]
fn a_commit_larger_than_a_segment_is_whole_all_the_same() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let large = "y".repeat(1_500_000);
    open.commit(&["a"], &[]);
    open.commit(&[&large, "b"], &[("k", Some("1"))]);
    open.commit(&["c"], &[]);
    assert_eq!(open.read_all().len(), 4);
    fill(&open, 500);
    open.commit(&[&large], &[]);
    assert_no_gap(&open.read_all());
    assert!(disk.bytes() <= settings().max_bytes, "{} bytes", disk.bytes());
    open.kill(&disk);
    let open = Open::new(&disk);
    assert_no_gap(&open.read_all());
    assert_eq!(open.read_all().last().map(text), Some(large));
}

#[test]
fn delivered_events_older_than_max_age_go() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    fill(&open, 100);
    let newest = open.read_all();
    open.journal
        .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
    open.close();
    let young = Settings {
        max_age: Some(Duration::ZERO),
        ..settings()
    };
    let open = Open::on(&disk, &young, owner(&["cloud"]));
    open.health(|health| health.pulse > 1);
    let entries = open.read_all();
    assert!(
        entries.len() < 30,
        "only the segment in use is left, not {}",
        entries.len()
    );
    open.kill(&disk);
    let open = Open::new(&disk);
    assert!(
        open.recovered.findings.is_empty(),
        "{:?}",
        open.recovered.findings
    );
    assert!(account(&open.read_all()).1.is_empty());
}

#[test]
fn undelivered_events_older_than_max_age_go_too_and_are_named() {
    let disk = Simulated::default();
    let open = Open::on(&disk, &refuse(), owner(&["cloud"]));
    fill(&open, 100);
    open.close();
    let young = Settings {
        max_age: Some(Duration::ZERO),
        ..refuse()
    };
    let open = Open::on(&disk, &young, owner(&["cloud"]));
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
    assert_eq!(data(&told[0])["reason"], "max-age");
    assert_eq!(data(&told[0])["sinks"], serde_json::json!(["cloud"]));
    open.health(|health| health.pulse > 2);
    let owed = open.read(open.journal.cursor(&sink("cloud")));
    assert!(owed[0].sequence > Sequence(80), "they go: {}", owed[0].sequence);
    assert_eq!(account(&told).1, [(1, owed[0].sequence.0 - 1)]);
    open.kill(&disk);
    assert!(says(&Open::new(&disk), "StorageDamaged").is_empty());
}

#[test]
fn a_commit_that_the_journal_cannot_hold_is_refused_alone() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    let large = "y".repeat(5_000_000);
    let refused = open.journal.append(outcome(&[&large], &[("k", Some("1"))]));
    open.commit(&["b"], &[]);
    assert!(
        *open.journal.durable().borrow() < refused,
        "it is never said to be safe"
    );
    assert_eq!(texts(&open.read_all()), ["a", "b"]);
    open.close();
    assert!(Open::new(&disk).state().is_empty());
}

#[test]
fn state_takes_a_quarter_of_the_journal_at_most() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let value = "v".repeat(4000);
    let mut safe = 0;
    let mut refused = Position(0);
    for key in 0..1000 {
        let position = open
            .journal
            .append(outcome(&[], &[(&format!("r/{key}"), Some(&value))]));
        if key % 50 == 49 {
            open.commit(&["x"], &[]);
            if *open.journal.durable().borrow() >= position {
                safe = key + 1;
            } else {
                refused = position;
            }
        }
    }
    assert!((150..270).contains(&safe), "{safe} values of 4 KB");
    assert!(
        *open.journal.durable().borrow() < refused,
        "it is never said to be safe"
    );
    // What is there may change and go, and makes room.
    open.commit(&[], &[("r/0", Some(&"w".repeat(4000)))]);
    open.commit(&[], &[("r/0", None), ("r/1", None)]);
    open.commit(&[], &[("r/2000", Some(&value))]);
    open.close();
    let snapshots: usize = ["a.snap", "b.snap"]
        .iter()
        .map(|slot| {
            disk.content(&Path::new("/journal/current").join(slot))
                .unwrap()
                .len()
        })
        .sum();
    assert!(snapshots <= 2 * 1024 * 1024, "{snapshots} bytes");
    assert!(Open::new(&disk).recovered.state.len() >= 150);
}

#[test]
fn what_goes_for_a_large_commit_is_delivered_on_the_disk_first() {
    for syncs in 1..4 {
        let disk = Simulated::default();
        let open = Open::new(&disk);
        fill(&open, 380);
        let newest = open.read_all();
        open.journal
            .acknowledge(&sink("cloud"), cursor_at(newest.last().unwrap()));
        disk.fail_after_syncs(syncs);
        open.journal.append(outcome(&[&"y".repeat(1_500_000)], &[]));
        open.health(|health| health.pulse > 1 || health.parked);
        disk.set_failing_sync(true);
        open.journal.append(outcome(&["z"], &[]));
        open.gone();
        disk.power_cut(&mut fastrand::Rng::with_seed(syncs));
        disk.set_failing_sync(false);
        let open = Open::new(&disk);
        open.commit(&["new"], &[]);
        let cursor = open.journal.cursor(&sink("cloud"));
        let owed = open.read(cursor);
        let (read, told) = account(&owed);
        for sequence in cursor.sequence.0 + 1..*read.last().unwrap() {
            let known =
                read.contains(&sequence) || told.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
            assert!(known, "{sequence} is missing after {syncs} flushes");
        }
        assert!(says(&open, "StorageDamaged").is_empty(), "a crash is no damage");
    }
}

#[test]
fn a_backlog_is_not_read_at_opening() {
    let disk = Simulated::default();
    let large = Settings {
        max_bytes: 64 * 1024 * 1024,
        ..settings()
    };
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    fill(&open, 1500);
    open.kill(&disk);
    disk.take_read_bytes();
    let open = Open::on(&disk, &large, owner(&["cloud"]));
    assert!(disk.take_read_bytes() < 12 * 1024 * 1024);
    assert_eq!(open.recovered.last, Sequence(1500));
    assert_eq!(open.read_all().len(), 1500);
}

/// Appends one event after the other until the thread has ended.
fn until_it_fails(open: &Open) {
    let padding = "x".repeat(20_000);
    loop {
        let position = open.journal.append(outcome(&[&padding], &[]));
        let safe = block_on(async {
            let mut durable = open.journal.durable();
            durable.wait_for(|at| *at >= position).await.is_ok()
        });
        if !safe {
            return;
        }
    }
}

#[test]
fn a_roll_that_is_torn_drops_nothing_untold() {
    let full = Simulated::default();
    let open = Open::new(&full);
    fill(&open, 500);
    open.close();
    let mut rolls = 0;
    for syncs in 0..24 {
        let disk = full.copy();
        let open = Open::new(&disk);
        open.commit(&["a"], &[]);
        let number = |disk: &Simulated| disk.content(&newest_segment(disk)).unwrap()[8..16].to_vec();
        disk.fail_after_syncs(syncs);
        let before = number(&disk);
        until_it_fails(&open);
        let is_roll = number(&disk) != before;
        if is_roll {
            rolls += 1;
            for seed in 0..24 {
                let cut = disk.clone_with_unsynced();
                cut.power_cut(&mut fastrand::Rng::with_seed(seed));
                let again = Open::new(&cut);
                again.commit(&["b"], &[]);
                assert_no_gap(&again.read_all());
                assert!(says(&again, "StorageDamaged").is_empty(), "a crash is no damage");
                again.kill(&cut);
                let again = Open::new(&cut);
                again.commit(&["c"], &[]);
                assert_no_gap(&again.read_all());
            }
        }
        open.gone();
        if rolls == 2 {
            return;
        }
    }
    panic!("no roll failed");
}

#[test]
fn what_is_too_old_goes_from_a_parked_journal_too_and_makes_room() {
    let disk = Simulated::default();
    // The second time the rest is filled with small ones.
    for size in [20_000, 10] {
        let open = Open::on(&disk, &refuse(), owner(&["cloud"]));
        let padding = "x".repeat(size);
        while !open.journal.health().borrow().parked {
            let newest = open.journal.append(outcome(&[&padding], &[]));
            block_on(async {
                let (mut durable, mut health) = (open.journal.durable(), open.journal.health());
                tokio::select! {
                    safe = durable.wait_for(|at| *at >= newest) => drop(safe),
                    parked = health.wait_for(|health| health.parked) => drop(parked),
                }
            });
        }
        open.kill(&disk);
    }
    // So that there is something to tell, which does not fit.
    disk.put_content(Path::new("/journal/current/a.snap"), None);
    let young = Settings {
        max_age: Some(Duration::ZERO),
        ..refuse()
    };
    let open = Open::on(&disk, &young, owner(&["cloud"]));
    open.health(|health| health.pulse > 1 && !health.parked);
    open.commit(&["new"], &[]);
    let owed = open.read_all();
    assert_no_gap(&owed);
    assert_eq!(says(&open, "EventsDiscarded").len(), 1);
    assert_eq!(says(&open, "StorageDamaged").len(), 1);
    open.kill(&disk);
    assert_no_gap(&Open::new(&disk).read_all());
}

#[test]
fn a_segment_that_is_too_old_is_filled_on_where_there_is_no_room_for_another() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a"], &[]);
    open.close();
    disk.set_full(true);
    let young = Settings {
        max_age: Some(Duration::ZERO),
        ..settings()
    };
    let open = Open::on(&disk, &young, owner(&["cloud"]));
    open.health(|health| health.pulse > 1);
    open.commit(&["b"], &[]);
    assert_eq!(texts(&open.read_all()), ["a", "b"]);
}
