//! The journal's promises, on a disk whose power can be cut: one test for each, and random histories against
//! a list.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod harm;
mod letters;
mod loss;
mod promises;
mod recovery;
mod rig;
mod space;
mod told;

use std::collections::BTreeMap;

use proptest::prelude::*;

use rig::*;

#[derive(Clone, Debug)]
enum Act {
    /// A commit with so many events of so many bytes.
    Append(usize, usize),
    /// Waits until all is durable.
    Wait,
    /// The sink confirms so many events.
    Acknowledge(usize),
    /// Reads from the sink's cursor, and from the beginning.
    Read,
    Close,
    Kill,
    PowerCut(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        8 => (0_usize..4, prop_oneof![3 => 1_usize..300, 2 => Just(90_000_usize)])
            .prop_map(|(events, size)| Act::Append(events, size)),
        4 => Just(Act::Wait),
        3 => (1_usize..20).prop_map(Act::Acknowledge),
        2 => Just(Act::Read),
        1 => Just(Act::Close),
        1 => Just(Act::Kill),
        3 => any::<u64>().prop_map(Act::PowerCut),
    ];
    proptest::collection::vec(act, 1..150)
}

/// What the journal must agree with.
struct Model {
    disk: Simulated,
    settings: Settings,
    open: Option<Open>,
    /// Every commit ever appended that is not known to be lost: its number and its events' texts.
    commits: Vec<(u64, Vec<String>)>,
    /// So many of them are known to be durable.
    durable: usize,
    next: u64,
    newest: Position,
    /// What a sequence was ever seen to mean.
    seen: BTreeMap<u64, String>,
    confirmed: Cursor,
}

impl Model {
    fn new(when_full: WhenFull) -> Self {
        let disk = Simulated::default();
        let settings = Settings {
            when_full,
            state_delay: Duration::from_millis(1),
            ..settings()
        };
        let open = Some(Open::on(&disk, &settings, owner(&["cloud"])));
        let (commits, seen) = (Vec::new(), BTreeMap::new());
        let (newest, confirmed) = (Position(0), Cursor::default());
        Self {
            disk,
            settings,
            open,
            commits,
            durable: 0,
            next: 0,
            newest,
            seen,
            confirmed,
        }
    }

    fn open(&self) -> &Open {
        self.open.as_ref().unwrap()
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Append(events, size) => self.append(*events, *size),
            Act::Wait => self.wait(),
            Act::Acknowledge(count) => self.acknowledge(*count),
            Act::Read => self.read(),
            Act::Close => {
                self.wait();
                self.open.take().unwrap().close();
                self.reopen();
                assert!(self.open().recovered.clean);
            }
            Act::Kill => {
                let disk = self.disk.clone();
                self.open.take().unwrap().kill(&disk);
                self.reopen();
            }
            Act::PowerCut(seed) => {
                let disk = self.disk.clone();
                self.open
                    .take()
                    .unwrap()
                    .power_cut(&disk, &mut fastrand::Rng::with_seed(*seed));
                self.reopen();
            }
        }
    }

    fn append(&mut self, events: usize, size: usize) {
        let number = self.next;
        self.next += 1;
        let texts: Vec<String> = (0..events)
            .map(|event| format!("{number}.{event} {}", "x".repeat(size)))
            .collect();
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        let state = [("n", Some(number.to_string()))];
        let state: Vec<_> = state
            .iter()
            .map(|(key, value)| (*key, value.as_deref()))
            .collect();
        let position = self.open().journal.append(outcome(&borrowed, &state));
        assert!(position > self.newest);
        self.newest = position;
        self.commits.push((number, texts));
    }

    fn wait(&mut self) {
        while *self.open().journal.durable().borrow() < self.newest {
            if self.open().journal.health().borrow().parked {
                self.acknowledge(usize::MAX);
            }
            std::thread::yield_now();
        }
        self.durable = self.commits.len();
    }

    fn acknowledge(&mut self, count: usize) {
        let limit = Limit {
            entries: count,
            bytes: usize::MAX,
        };
        let entries = self
            .open()
            .journal
            .read_after_blocking(self.confirmed, limit)
            .unwrap();
        self.check(&entries);
        if let Some(last) = entries.last() {
            self.confirmed = cursor_at(last);
            self.open().journal.acknowledge(&sink("cloud"), self.confirmed);
            assert_eq!(self.open().journal.cursor(&sink("cloud")), self.confirmed);
        }
    }

    fn reopen(&mut self) {
        let open = Open::on(&self.disk, &self.settings, owner(&["cloud"]));
        let kept = open
            .state()
            .first()
            .map_or(0, |(_, number)| number.parse::<u64>().unwrap() + 1);
        let whole = self
            .commits
            .iter()
            .take_while(|(number, _)| *number < kept)
            .count();
        assert!(
            whole >= self.durable,
            "what was durable is gone: {whole} of {}",
            self.durable
        );
        self.commits.truncate(whole);
        self.durable = whole;
        self.newest = *open.journal.durable().borrow();
        let cursor = open.journal.cursor(&sink("cloud"));
        assert!(cursor <= self.confirmed, "a cursor never goes ahead");
        self.confirmed = cursor;
        assert!(says(&open, "StorageDamaged").is_empty(), "a crash is no damage");
        self.open = Some(open);
        self.wait();
        self.read();
    }

    fn read(&mut self) {
        let entries = self.open().read_all();
        self.check(&entries);
        let own: Vec<String> = texts(&entries)
            .into_iter()
            .filter(|text| text.contains('.'))
            .collect();
        let appended: Vec<&String> = self.commits.iter().flat_map(|(_, texts)| texts).collect();
        // What is read was appended, in this order; some may be dropped even while it is read.
        let mut rest = appended.iter();
        assert!(own.iter().all(|text| rest.any(|appended| *appended == text)));
        let must: usize = self.commits[..self.durable]
            .iter()
            .map(|(_, texts)| texts.len())
            .sum();
        let newest = own.last().map_or(0, |last| {
            appended.iter().position(|text| *text == last).unwrap() + 1
        });
        assert!(newest >= must || own.is_empty());
        // From the cursor on, everything is there or told.
        let owed = self.open().read(self.confirmed);
        let (read, told) = account(&owed);
        if let Some(last) = read.last() {
            for sequence in self.confirmed.sequence.0 + 1..*last {
                let known = read.binary_search(&sequence).is_ok()
                    || told.iter().any(|(from, to)| (*from..=*to).contains(&sequence));
                assert!(known, "{sequence} is missing");
            }
        }
        assert!(self.disk.bytes() <= self.settings.max_bytes);
    }

    fn check(&mut self, entries: &[Entry]) {
        assert!(entries.is_sorted_by(|a, b| a.position < b.position && a.sequence < b.sequence));
        for entry in entries {
            let before = self.seen.entry(entry.sequence.0).or_insert_with(|| text(entry));
            assert_eq!(
                *before,
                text(entry),
                "sequence {} was something else",
                entry.sequence
            );
        }
    }
}

fn cases() -> u32 {
    if std::env::var_os("TIDEGATE_LONG").is_some() {
        2400
    } else {
        120
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_journal_agrees_with_a_list_through_any_crash(acts in acts(), refuse in any::<bool>()) {
        let mut model = Model::new(if refuse { WhenFull::Refuse } else { WhenFull::DropOldest });
        for act in &acts {
            model.act(act);
        }
        model.wait();
        model.read();
    }
}
