use super::{super::frame, *};
use crate::journal::{
    Cursor,
    storage::{Storage, simulated::Simulated},
    trial,
};

const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};

#[test]
fn an_event_of_a_later_version_is_passed_over_and_that_is_said() {
    let storage: Arc<dyn Storage> = Simulated::default().mount();
    let (journal, mut steps) = trial::open(storage, "m", None);
    for number in 0..3 {
        journal.record(trial::event(number));
        steps.turn().unwrap();
    }
    let catalog = &journal.0.catalog;
    let numbers = || {
        let entries = journal.read_after_blocking(Cursor::default(), ALL).unwrap();
        let numbers = entries.iter().map(|entry| entry.sequence.0);
        numbers.collect::<Vec<_>>()
    };
    assert_eq!(numbers(), [1, 2, 3]);
    assert!(!catalog.later.is_completed());

    let second = journal
        .read_after_blocking(Cursor::default(), ALL)
        .unwrap()
        .remove(1);
    let payload = frame::encode(&*second.event);
    let segment = catalog.segments().remove(0);
    let mut bytes = vec![0; segment.size];
    segment.file.read_at(&mut bytes, 0).unwrap();
    let found = bytes.windows(payload.len()).position(|window| window == payload);
    let at = found.expect("it stands there");
    // Another form: the array's first number.
    bytes[at + 1] += 1;
    let frame = &mut bytes[at - frame::HEADER..at + payload.len()];
    frame::end_group(frame, segment.header.salt);
    let start = (at - frame::HEADER) as u64;
    segment.file.write_all_at(frame, start).unwrap();

    assert_eq!(numbers(), [1, 3]);
    assert!(catalog.later.is_completed());
}
