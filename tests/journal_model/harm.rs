//! Copies of real journals, harmed at random: no panic, no wrong event, the good part kept, the loss named, and
//! the journal goes on. And the fixtures of format 1.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use super::rig::*;

type Files = BTreeMap<PathBuf, Vec<u8>>;
type Id = (u64, u64);

/// A journal that the real code wrote into a real directory.
struct Original {
    name: &'static str,
    files: Files,
    /// Every event, by its identity.
    events: BTreeMap<Id, String>,
    /// Another gateway's at first.
    owner: Owner,
}

fn collect(dir: &Path, root: &Path, files: &mut Files) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, root, files);
        } else if path.file_name().unwrap() != "lock" {
            let under = Path::new("/journal").join(path.strip_prefix(root).unwrap());
            files.insert(under, fs::read(&path).unwrap());
        }
    }
}

fn disk_with(files: &Files) -> Simulated {
    let disk = Simulated::default();
    for (path, bytes) in files {
        disk.put_content(path, Some(bytes.clone()));
    }
    disk
}

/// Runs `work` on a real journal; then the files, as they lie there without a goodbye.
fn real(work: impl FnOnce(&Settings, &Path) -> Owner) -> (Files, Owner) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("journal");
    let settings = Settings {
        dir: root.clone(),
        ..settings()
    };
    let owner = work(&settings, &root);
    let mut files = Files::new();
    collect(&root, &root, &mut files);
    (files, owner)
}

fn opened(settings: &Settings, owner: Owner) -> Open {
    let (journal, recovered, running) = Journal::open(settings, owner, Clock::system()).unwrap();
    Open {
        journal,
        recovered,
        running,
    }
}

/// Some 120 commits over several segments, with state; every third event is confirmed if `confirm`.
fn write(open: &Open, confirm: bool) {
    let mut random = fastrand::Rng::with_seed(11);
    for number in 0..120 {
        let text = format!("event {number} {}", "p".repeat(random.usize(10..6_000)));
        let state = number.to_string();
        open.commit(&[&text, &format!("second of {number}")], &[("k", Some(&state))]);
        if confirm && number % 30 == 29 {
            let third = open.read_all();
            let third = &third[third.len() / 3];
            open.journal.acknowledge(&sink("cloud"), cursor_at(third));
        }
    }
}

fn originals() -> Vec<Original> {
    let plain = || owner(&["cloud"]);
    let other = || Owner {
        board_serial: "another".to_owned(),
        ..owner(&["cloud"])
    };
    let shapes: Vec<(&'static str, (Files, Owner))> = vec![
        (
            "clean",
            real(|settings, _| {
                let open = opened(settings, plain());
                write(&open, false);
                open.close();
                plain()
            }),
        ),
        (
            "killed",
            real(|settings, _| {
                let open = opened(settings, plain());
                write(&open, false);
                open.gone();
                plain()
            }),
        ),
        (
            "with cursors",
            real(|settings, _| {
                let open = opened(settings, owner(&["cloud", "second"]));
                write(&open, true);
                open.close();
                let open = opened(settings, owner(&["cloud", "second"]));
                open.commit(&["after the stop"], &[]);
                open.gone();
                plain()
            }),
        ),
        (
            "with an old epoch",
            real(|settings, _| {
                let open = opened(settings, plain());
                write(&open, true);
                open.close();
                let open = opened(settings, other());
                open.commit(&["new"], &[("k", Some("1"))]);
                open.commit(&["newer"], &[]);
                open.gone();
                other()
            }),
        ),
        (
            "small and killed",
            real(|settings, _| {
                let open = opened(settings, plain());
                for text in ["a", "b", "c"] {
                    open.commit(&[text], &[(text, Some("1"))]);
                }
                open.gone();
                plain()
            }),
        ),
    ];
    let mut originals = Vec::new();
    for (name, (files, owner)) in shapes {
        let open = Open::on(&disk_with(&files), &settings(), owner.clone());
        let events = everything(&open)
            .iter()
            .map(|entry| ((entry.epoch.0, entry.sequence.0), text(entry)))
            .collect();
        originals.push(Original {
            name,
            files,
            events,
            owner,
        });
    }
    originals
}

/// Harms the files; says how.
fn harm(files: &mut Files, random: &mut fastrand::Rng) -> String {
    let paths: Vec<PathBuf> = files.keys().cloned().collect();
    let path = paths[random.usize(0..paths.len())].clone();
    let bytes = files.get_mut(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |at| at + 1);
    // Mostly where something stands, which is not up to the copy of the header at the end.
    let frames = bytes[..used.saturating_sub(200)]
        .iter()
        .rposition(|byte| *byte != 0);
    let end = match random.u8(0..8) {
        0 => bytes.len(),
        1 => used,
        _ => frames.map_or(used, |at| at + 1),
    };
    let at = random.usize(0..end.max(1));
    let what = match random.u8(0..6) {
        0 | 1 => {
            let mut flips: Vec<usize> = Vec::new();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(0..end.max(1));
                // Two wounds in the newest header leave nothing that says it was one.
                if flips.iter().all(|flip| flip.abs_diff(at) > 28) {
                    bytes[at] ^= 1 << random.u8(0..8);
                    flips.push(at);
                }
            }
            format!("at {flips:?} flipped")
        }
        2 => {
            let page = at / 4096 * 4096;
            let end = (page + 4096).min(bytes.len());
            bytes[page..end].fill(0);
            format!("page {page} zeroed")
        }
        3 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        4 => {
            files.remove(&path);
            "vanished".to_owned()
        }
        _ => {
            let second = paths[random.usize(0..paths.len())].clone();
            let (a, b) = (files[&path].clone(), files[&second].clone());
            files.insert(path.clone(), b);
            files.insert(second.clone(), a);
            format!("swapped with {}", second.display())
        }
    };
    format!("{} {what}", path.display())
}

fn told_by(entries: &[Entry]) -> BTreeSet<Id> {
    let mut told = BTreeSet::new();
    for entry in entries {
        if &*entry.event.draft.name != "EventsDiscarded" {
            continue;
        }
        let epoch = epoch_number(data(entry)["epoch"].as_str().unwrap());
        for range in data(entry)["ranges"].as_array().unwrap() {
            for sequence in range[0].as_u64().unwrap()..=range[1].as_u64().unwrap() {
                told.insert((epoch, sequence));
            }
        }
    }
    told
}

/// The number that an epoch's text stands for.
fn epoch_number(text: &str) -> u64 {
    const DIGITS: &str = "0123456789abcdefghjkmnpqrstvwxyz";
    text.chars().fold(0, |number, digit| {
        number << 5 | DIGITS.find(digit).unwrap() as u64
    })
}

fn count(entries: &[Entry], name: &str) -> usize {
    entries
        .iter()
        .filter(|entry| &*entry.event.draft.name == name)
        .count()
}

/// All that is read once whatever reading found is told, too.
fn settled(open: &Open) -> Vec<Entry> {
    for text in ["new 1", "new 2"] {
        everything(open);
        open.commit(&[text], &[]);
    }
    everything(open)
}

/// Panics with what is wrong.
fn check(original: &Original, files: &Files, what: &str) {
    let disk = disk_with(files);
    let open = Open::on(&disk, &settings(), original.owner.clone());
    let epoch = open.recovered.epoch.0;
    let cursor = open.journal.cursor(&sink("cloud"));
    let entries = settled(&open);
    let mut read = BTreeSet::new();
    for entry in &entries {
        let id = (entry.epoch.0, entry.sequence.0);
        assert!(read.insert(id), "{what}: {id:?} is read twice");
        let new = text(entry).starts_with("new ")
            || ["StorageDamaged", "EventsDiscarded"].contains(&&*entry.event.draft.name);
        match original.events.get(&id) {
            Some(before) => assert!(
                *before == text(entry) || is_unprovable(original, files),
                "{what}: {id:?} is another event"
            ),
            None => assert!(new, "{what}: {id:?} never was"),
        }
    }
    let told = told_by(&entries);
    let aside = disk
        .paths()
        .iter()
        .any(|path| path.starts_with("/journal/unreadable"));
    let missing: Vec<Id> = original
        .events
        .keys()
        .filter(|id| !read.contains(*id))
        .copied()
        .collect();
    if aside {
        assert!(count(&entries, "StorageDamaged") > 0, "{what}: not told");
    } else {
        for id in &missing {
            let delivered = id.0 == epoch && id.1 <= cursor.sequence.0;
            let known = delivered || told.contains(id) || is_unprovable(original, files);
            assert!(known, "{what}: {id:?} is lost and not named");
        }
        // The good part is kept: what is lost stood in what was harmed, and flips lose the frames they hit.
        let harmed = stood_in_harmed(original, files);
        for id in &missing {
            assert!(harmed.contains(id), "{what}: {id:?} was not harmed and is lost");
        }
        if what.ends_with("flipped") {
            assert!(missing.len() <= 6, "{what}: {} are lost", missing.len());
        }
    }
    let again: Vec<&Id> = told
        .iter()
        .filter(|id| read.contains(*id) && original.events.contains_key(*id))
        .collect();
    assert!(
        again.is_empty(),
        "{what}: {again:?} are named as lost and delivered"
    );
    // Once, and it goes on.
    let before = (
        count(&entries, "StorageDamaged"),
        count(&entries, "EventsDiscarded"),
    );
    open.kill(&disk);
    let open = Open::on(&disk, &settings(), original.owner.clone());
    let entries = settled(&open);
    let after = (
        count(&entries, "StorageDamaged"),
        count(&entries, "EventsDiscarded"),
    );
    assert_eq!(before, after, "{what}: told again");
    open.close();
}

/// Where the last groups of a newest segment are nothing but zeros, it looks as if they had never been written,
/// and their numbers come again: no bytes are left that say otherwise, unless a snapshot does.
fn is_unprovable(original: &Original, files: &Files) -> bool {
    original.files.iter().any(|(path, bytes)| {
        let Some(now) = files.get(path) else { return false };
        path.extension().is_some_and(|it| it == "seg")
            && now != bytes
            && now.len() == bytes.len()
            && now
                .iter()
                .zip(bytes)
                .all(|(now, before)| now == before || *now == 0)
            && original.name != "clean"
    })
}

/// The events of the segments whose files are not what they were.
fn stood_in_harmed(original: &Original, files: &Files) -> BTreeSet<Id> {
    let number = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let segments = original
        .files
        .iter()
        .filter(|(_, bytes)| bytes.starts_with(b"TGSEG"));
    let segments: Vec<(&PathBuf, u64, u64)> = segments
        .map(|(path, bytes)| (path, number(bytes, 8), number(bytes, 32)))
        .collect();
    let old = |path: &Path| {
        let dir = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        dir.strip_prefix("epoch-").map(epoch_number)
    };
    let olds: BTreeSet<u64> = segments.iter().filter_map(|(path, ..)| old(path)).collect();
    let mut harmed = BTreeSet::new();
    for (path, number, after) in &segments {
        if files.get(*path) == original.files.get(*path) {
            continue;
        }
        let next = segments
            .iter()
            .find(|(other, next, _)| other.parent() == path.parent() && *next == number + 1);
        let until = next.map_or(u64::MAX, |(_, _, after)| *after);
        harmed.extend(original.events.keys().copied().filter(|(epoch, sequence)| {
            let here = old(path).map_or(!olds.contains(epoch), |old| old == *epoch);
            here && sequence > after && *sequence <= until
        }));
    }
    harmed
}

#[test]
fn harmed_copies_of_real_journals_open_and_name_what_they_lost() {
    let long = std::env::var_os("TIDEGATE_LONG").is_some();
    let copies = if long { 1000 } else { 200 };
    let seed = std::env::var("TIDEGATE_SEED").map_or(1, |seed| seed.parse().unwrap());
    let originals = originals();
    let mut failed = Vec::new();
    for copy in 0..copies {
        let original = &originals[copy % originals.len()];
        let mut random = fastrand::Rng::with_seed(seed + copy as u64);
        let mut files = original.files.clone();
        let what = format!(
            "{}, copy {copy}: {}",
            original.name,
            harm(&mut files, &mut random)
        );
        if std::panic::catch_unwind(|| check(original, &files, &what)).is_err() {
            failed.push(what);
        }
    }
    assert!(
        failed.is_empty(),
        "TIDEGATE_SEED={seed}: {} of {copies}: {failed:#?}",
        failed.len()
    );
}

fn fixture(name: &str) -> Simulated {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/journal-1")
        .join(name);
    let mut files = Files::new();
    for line in fs::read_to_string(dir.join("recipe")).unwrap().lines() {
        let [path, length, header] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let mut bytes = fs::read(dir.join(path)).unwrap();
        bytes.resize(length.parse().unwrap(), 0);
        if header == "1" {
            let at = bytes.len() - 128;
            bytes.copy_within(..100, at);
        }
        files.insert(Path::new("/journal").join(path), bytes);
    }
    disk_with(&files)
}

#[test]
fn a_clean_journal_of_format_1_opens() {
    let open = Open::new(&fixture("clean"));
    assert!(open.recovered.clean);
    assert_eq!(open.recovered.findings, Vec::<String>::new());
    assert_eq!(open.state(), [("r/y".to_owned(), "2".to_owned())]);
    assert_eq!(texts(&open.read_all()), ["a", "b", "c", "d", "e"]);
    assert_eq!(
        texts(&open.read(open.journal.cursor(&sink("cloud")))),
        ["c", "d", "e"]
    );
}

#[test]
fn a_torn_journal_of_format_1_opens() {
    let open = Open::new(&fixture("torn"));
    assert!(!open.recovered.clean);
    assert_eq!(open.state().len(), 2);
    open.commit(&["new"], &[]);
    let entries = open.read_all();
    assert_eq!(texts(&entries), ["a", "b", "c", "EventsDiscarded", "new"]);
    assert_eq!(account(&entries), (vec![1, 2, 3, 6, 7], vec![(4, 5)]));
}

#[test]
fn a_damaged_journal_of_format_1_opens() {
    let open = Open::new(&fixture("damaged"));
    let entries = settled(&open);
    let found = texts(&entries)
        .into_iter()
        .filter(|text| !text.starts_with("new "));
    let expected = ["a", "c", "d", "e", "StorageDamaged"];
    assert_eq!(
        found.collect::<Vec<_>>(),
        expected,
        "the sink had b before it was damaged"
    );
    assert_eq!(texts(&open.read(open.journal.cursor(&sink("cloud"))))[0], "c");
}

#[test]
fn a_journal_from_a_future_version_is_moved_aside_whole() {
    let disk = fixture("from-a-future-version");
    let identity = disk.content(Path::new("/journal/current/identity"));
    let open = Open::new(&disk);
    let finding = &open.recovered.findings[0];
    assert!(
        finding.contains("its format is version 2, this is version 1"),
        "{finding}"
    );
    let aside = disk.content(Path::new("/journal/unreadable/identity"));
    assert_eq!(aside, identity, "nothing in it is touched");
    open.commit(&["new"], &[]);
    assert_eq!(texts(&open.read_all()), ["StorageDamaged", "new"]);
}
