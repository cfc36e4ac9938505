//! A journal whose bytes are wrong: it opens, reading ends, it takes the next event and closes. Checksums are
//! not compared here (`cfg(fuzzing)`), so that what lies behind them is reached.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/journal_model/rig.rs"]
#[allow(dead_code, unused_imports)]
mod rig;
use rig::{Cursor, Open, Simulated};

/// The least there is: three commits with state, a cursor, an unclean end.
static SMALL: LazyLock<Simulated> = LazyLock::new(|| {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["a", "b"], &[("k", Some("1"))]);
    open.commit(&["c"], &[("k", Some("2")), ("l", Some("3"))]);
    open.journal
        .acknowledge(&rig::sink("cloud"), rig::cursor_at(&open.read_all()[0]));
    open.commit(&["d"], &[("l", None)]);
    open.kill(&disk);
    disk
});

fuzz_target!(|input: &[u8]| {
    let disk = SMALL.copy();
    // Edits: which file, where, and what is written there.
    for edit in input.chunks(16) {
        let [file, low, high, bytes @ ..] = edit else {
            break;
        };
        let paths = disk.paths();
        let path = &paths[usize::from(*file) % paths.len()];
        let Some(mut content) = disk.content(path) else {
            continue;
        };
        let at = usize::from(u16::from_le_bytes([*low, *high]) % 2048);
        match bytes {
            [] => content.truncate(at),
            _ if content.len() < at + bytes.len() => continue,
            _ => content[at..at + bytes.len()].copy_from_slice(bytes),
        }
        disk.put_content(path, Some(content));
    }
    let open = Open::new(&disk);
    open.commit(&["next"], &[]);
    // Numbers may be anything where no checksum vouches for them: what is asked is that reading ends.
    let mut cursor = Cursor::default();
    let mut rounds = 0;
    while let Some(last) = open.read(cursor).last() {
        cursor = rig::cursor_at(last);
        rounds += 1;
        assert!(rounds < 100, "reading goes in circles");
    }
    open.close();
});
