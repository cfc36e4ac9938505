use super::*;
use crate::{
    reading::{DeviceId, Metric, Value},
    time::{BootId, ClockQuality, Moment, Timestamp},
};

fn reading(number: u32) -> Reading {
    Reading {
        device: DeviceId::new(&format!("t-{}", number % 3)).unwrap(),
        metric: Metric::new("temperature").unwrap(),
        value: Value::Number(f64::from(number)),
        unit: None,
        at: EngineTime(i64::from(number) * 1_000_000),
        stamped: false,
    }
}

fn moment(boot_id: u128, boot: i64, wall: i64, quality: ClockQuality) -> Moment {
    Moment {
        boot_id: BootId(boot_id),
        boot: EngineTime(boot * 1_000_000),
        wall: Timestamp(wall * 1_000_000),
        quality,
    }
}

fn frame(encoder: &mut Encoder, numbers: std::ops::Range<u32>, moment: Moment) -> Vec<u8> {
    numbers.for_each(|number| encoder.push(&reading(number), EngineTime(0)));
    encoder.frame(&moment).unwrap().0
}

fn some_moment() -> Moment {
    moment(1, 100, 1_800_000_000, ClockQuality::Synchronised)
}

fn recorded(dir: &Path) -> (Vec<(Value, Timestamp, ClockQuality)>, usize, Damage) {
    let (mut readings, mut began) = (Vec::new(), 0);
    let damage = read(dir, |record| {
        match record {
            Record::Reading {
                reading,
                wall,
                quality,
            } => readings.push((reading.value, wall, quality)),
            Record::Began(_) => began += 1,
        }
        Ok(())
    });
    (readings, began, damage.unwrap())
}

fn numbers(dir: &Path) -> Vec<u32> {
    let (readings, ..) = recorded(dir);
    let number = |(value, ..): &(Value, Timestamp, ClockQuality)| match value {
        Value::Number(number) => number.to_string().parse().unwrap(),
        other => panic!("{other:?}"),
    };
    readings.iter().map(number).collect()
}

#[test]
fn the_bound_holds_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let max = 64 * 1024;
    let mut store = Store::open(dir.path(), max).unwrap();
    let mut encoder = Encoder::new();
    for batch in 0..1000 {
        if store.is_full() {
            store.roll().unwrap();
            encoder.anew();
        }
        store
            .append(&frame(&mut encoder, batch * 50..batch * 50 + 50, some_moment()))
            .unwrap();
        let used: u64 = store::list(dir.path())
            .unwrap()
            .iter()
            .map(|(_, length)| length)
            .sum();
        assert!(used <= max, "{used} bytes after batch {batch}");
    }
    let kept = numbers(dir.path());
    assert_eq!(kept.last(), Some(&49_999));
    let first = kept.first().unwrap();
    assert!(
        *first > 10_000 && kept.len() > 3000,
        "from {first}: {} readings",
        kept.len()
    );
    assert!(
        kept.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "without a gap"
    );
    let smaller = Store::open(dir.path(), max / 2).unwrap();
    drop(smaller);
    let used: u64 = store::list(dir.path())
        .unwrap()
        .iter()
        .map(|(_, length)| length)
        .sum();
    assert!(used <= max / 2, "{used} bytes under a smaller bound");
}

#[test]
fn a_torn_tail_is_cut_off_and_what_comes_next_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), 1 << 20).unwrap();
    store.roll().unwrap();
    let mut encoder = Encoder::new();
    store.append(&frame(&mut encoder, 0..10, some_moment())).unwrap();
    let torn = frame(&mut encoder, 10..20, some_moment());
    store.append(&torn[..torn.len() - 3]).unwrap();
    drop(store);
    assert_eq!(numbers(dir.path()).len(), 10, "read while the tail is torn");
    let mut store = Store::open(dir.path(), 1 << 20).unwrap();
    assert!(!store.is_full(), "it goes on in the same file");
    store
        .append(&frame(&mut Encoder::new(), 20..30, some_moment()))
        .unwrap();
    let (readings, began, damage) = recorded(dir.path());
    assert_eq!((readings.len(), began, damage.bytes), (20, 2, 0));
    assert_eq!(numbers(dir.path())[10], 20);
}

#[test]
fn damage_in_an_older_file_costs_the_rest_of_that_file_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), 1 << 20).unwrap();
    let mut encoder = Encoder::new();
    for file in 0..2 {
        store.roll().unwrap();
        encoder.anew();
        store
            .append(&frame(&mut encoder, file * 20..file * 20 + 10, some_moment()))
            .unwrap();
        store
            .append(&frame(
                &mut encoder,
                file * 20 + 10..file * 20 + 20,
                some_moment(),
            ))
            .unwrap();
    }
    let path = store::path(dir.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (readings, _, damage) = recorded(dir.path());
    assert_eq!(readings.len(), 30);
    assert!(damage.bytes > 20, "{damage:?}");
}

#[test]
fn times_of_a_boot_are_computed_from_when_its_clock_was_right() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path(), 1 << 20).unwrap();
    store.roll().unwrap();
    let mut encoder = Encoder::new();
    let unknown = moment(1, 20, 5, ClockQuality::Unknown);
    let right = moment(1, 30, 1_800_000_030, ClockQuality::Synchronised);
    store.append(&frame(&mut encoder, 10..11, unknown)).unwrap();
    store.append(&frame(&mut encoder, 25..26, right)).unwrap();
    let (readings, ..) = recorded(dir.path());
    let told: Vec<_> = readings
        .iter()
        .map(|(_, wall, quality)| (wall.0 / 1_000_000, *quality))
        .collect();
    assert_eq!(
        told,
        [
            (1_800_000_010, ClockQuality::Corrected),
            (1_800_000_025, ClockQuality::Synchronised)
        ]
    );
}

#[tokio::test]
async fn what_is_recorded_is_read_back_after_the_thread_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().join("readings"),
        max_bytes: 1 << 20,
    };
    for run in 0..2 {
        let (recorder, ended) = Recorder::start(settings.clone(), Clock::system()).unwrap();
        recorder.record((run * 100..run * 100 + 100).map(reading).collect(), EngineTime(0));
        let shared = Arc::clone(&recorder.shared);
        drop(recorder);
        ended.await.unwrap();
        let counts = shared.counts();
        assert_eq!((counts.readings, counts.dropped), (100, 0));
        assert!(counts.bytes > 500);
    }
    let (readings, began, damage) = recorded(&settings.dir);
    assert_eq!((readings.len(), began, damage.bytes), (200, 2, 0));
}

#[tokio::test]
async fn more_than_may_wait_is_dropped_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings {
        dir: dir.path().to_owned(),
        max_bytes: 1 << 20,
    };
    let (recorder, _ended) = Recorder::start(settings, Clock::system()).unwrap();
    let many = u32::try_from(WAITING).unwrap() + 1;
    recorder.record((0..many).map(reading).collect(), EngineTime(0));
    assert_eq!(recorder.counts().dropped, u64::from(many));
}

#[tokio::test]
async fn a_disk_that_fails_drops_readings_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let in_the_way = dir.path().join("readings");
    std::fs::write(&in_the_way, "a file where the directory should be").unwrap();
    let settings = Settings {
        dir: in_the_way,
        max_bytes: 1 << 20,
    };
    let (recorder, ended) = Recorder::start(settings, Clock::system()).unwrap();
    recorder.record((0..10).map(reading).collect(), EngineTime(0));
    let shared = Arc::clone(&recorder.shared);
    drop(recorder);
    ended.await.unwrap();
    assert_eq!((shared.counts().readings, shared.counts().dropped), (0, 10));
}

#[test]
fn nothing_recorded_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(numbers(&dir.path().join("never-made")), Vec::<u32>::new());
}
