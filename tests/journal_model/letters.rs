//! Dead letters: on the disk before anybody relies on them, bounded, told, and told when they are given up.

use tidegate::journal::{DeadLetter, Full, Refused};

use super::rig::*;

fn refused<'e>(sink: &'e SinkName, entry: &'e Entry) -> Refused<'e> {
    Refused {
        sink,
        entry,
        previous: Sequence(entry.sequence.0 - 1),
        reason: "no",
        attempts: 10,
    }
}

fn set_aside(open: &Open, name: &str, entry: &Entry) -> Result<Position, Full> {
    open.journal.set_aside(&refused(&sink(name), entry))
}

fn numbers(letters: &[DeadLetter]) -> Vec<u64> {
    letters.iter().map(|letter| letter.entry.sequence.0).collect()
}

#[test]
fn a_letter_is_durable_when_its_position_is_and_outlives_a_power_cut_and_its_segment() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["one", "two"], &[]);
    let entries = open.read_all();
    let position = set_aside(&open, "cloud", &entries[0]).unwrap();
    open.wait(position);
    let mut random = fastrand::Rng::with_seed(7);
    open.power_cut(&disk, &mut random);

    let open = Open::new(&disk);
    assert!(open.state().is_empty(), "no rule's state");
    let letters = open.journal.dead_letters();
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].entry, letters[0].attempts), (&entries[0], 10));
    // Its segment is long gone.
    fill(&open, 900);
    assert!(open.read_all()[0].sequence > Sequence(2));
    assert_eq!(open.journal.dead_letters(), letters);
    open.close();
    let open = Open::new(&disk);
    assert_eq!(open.journal.dead_letters(), letters);
    open.journal.settle(&letters[0], None);
    assert!(open.journal.dead_letters().is_empty(), "at once");
    open.close();
    assert!(Open::new(&disk).journal.dead_letters().is_empty());
}

#[test]
fn the_letters_of_one_sink_and_of_all_are_bounded() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    let padding = "x".repeat(20_000);
    open.commit(&[&padding], &[]);
    let entry = open.read_all().remove(0);
    let mut fit = 0;
    loop {
        // Another event each time, as far as the letters know.
        let mut another = entry.clone();
        another.sequence = Sequence(fit + 1);
        match set_aside(&open, "cloud", &another) {
            Ok(position) => open.wait(position),
            Err(full) => {
                assert_eq!(full.letters as u64, fit);
                break;
            }
        }
        fit += 1;
    }
    assert!((10..13).contains(&fit), "256 KiB of 20 KB each, not {fit}");
    assert!(
        set_aside(&open, "archive", &entry).is_err(),
        "a 32nd of 8 MiB for all"
    );
    let one = &open.journal.dead_letters()[0];
    open.journal.settle(one, None);
    assert!(set_aside(&open, "archive", &entry).is_ok());
}

#[test]
fn dropped_letters_are_told_to_their_sink_in_the_same_commit() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["one", "two", "three", "four"], &[]);
    let entries = open.read_all();
    for index in [0, 1, 3] {
        open.wait(set_aside(&open, "cloud", &entries[index]).unwrap());
    }
    open.wait(open.journal.drop_letters(&open.journal.dead_letters()[..2]));
    assert_eq!(numbers(&open.journal.dead_letters()), [4]);
    let told = open.read_all().pop().unwrap();
    let told = data(&told);
    assert_eq!((&told["reason"], &told["count"]), (&"dropped".into(), &2.into()));
    assert_eq!(told["sinks"], serde_json::json!(["cloud"]));
    assert_eq!(told["ranges"], serde_json::json!([[1, 2]]));
}

#[test]
fn what_is_to_be_sent_again_is_so_after_a_restart_and_no_longer_once_it_was_refused() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["one"], &[]);
    open.wait(set_aside(&open, "cloud", &open.read_all()[0]).unwrap());
    assert_eq!(open.journal.letter_to_resend(&sink("cloud")), None);
    open.wait(open.journal.resend(&open.journal.dead_letters()));
    open.kill(&disk);
    let open = Open::new(&disk);
    let letter = open.journal.letter_to_resend(&sink("cloud")).expect("one");
    open.journal.settle(&letter, Some("still not"));
    assert_eq!(open.journal.letter_to_resend(&sink("cloud")), None, "at once");
    open.close();
    let letters = Open::new(&disk).journal.dead_letters();
    assert_eq!(
        (letters[0].reason.as_str(), letters[0].attempts),
        ("still not", 11)
    );
}

#[test]
fn what_was_set_aside_is_told_once_and_a_telling_that_is_set_aside_waits_for_the_next() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["one", "two", "three"], &[]);
    let entries = open.read_all();
    for index in [0, 1] {
        open.wait(set_aside(&open, "cloud", &entries[index]).unwrap());
    }
    let mut untold = open.journal.untold();
    let untold = untold.pop().expect("two are untold");
    assert_eq!(
        (untold.facts[0].count, untold.facts[0].ranges.as_slice()),
        (2, &[(1, 2)][..])
    );
    open.wait(open.journal.tell_set_aside(untold));
    let telling = open.read_all().pop().unwrap();
    assert_eq!(&*telling.event.draft.kind, "io.tidegate.gateway.EventSetAside");
    assert!(open.journal.untold().is_empty());
    // The sink will not have that either.
    open.wait(set_aside(&open, "cloud", &telling).unwrap());
    assert!(open.journal.untold().is_empty(), "it raises no further one");
    open.close();
    let open = Open::new(&disk);
    assert!(open.journal.untold().is_empty());
    open.wait(set_aside(&open, "cloud", &entries[2]).unwrap());
    let next = open.journal.untold().pop().expect("another one is untold");
    assert_eq!(
        next.facts[0].ranges,
        [(3, 4)],
        "with the telling, which is number 4"
    );
}

#[test]
fn a_new_epoch_takes_the_dead_letters_of_the_old_one_over_once() {
    let disk = Simulated::default();
    let open = Open::new(&disk);
    open.commit(&["one", "two"], &[]);
    open.wait(set_aside(&open, "cloud", &open.read_all()[0]).unwrap());
    open.close();
    let another = || Owner {
        machine_id: "another".to_owned(),
        ..owner(&["cloud"])
    };
    let open = Open::on(&disk, &settings(), another());
    let letters = open.journal.dead_letters();
    assert_eq!(numbers(&letters), [1]);
    assert_ne!(letters[0].entry.epoch, open.recovered.epoch);
    open.commit(&["three"], &[]);
    open.journal.settle(&letters[0], None);
    open.close();
    let open = Open::on(&disk, &settings(), another());
    assert!(
        open.journal.dead_letters().is_empty(),
        "though the old one is still owed"
    );
    assert_eq!(open.read_all()[0].epoch, letters[0].entry.epoch);
}
