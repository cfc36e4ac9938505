//! The journal alone, through power cuts.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tidegate::{
    event::{Data, Draft, Entry, Origin, Severity},
    journal::{Cursor, Journal, Limit, Owner, Recovered, Running, Settings, SinkPlan, WhenFull},
    rule::state::{Outcome, StateChange},
    time::EngineTime,
};
use tokio::time::timeout;

use crate::{
    PATIENCE, cuts, moments, open_with, random,
    recorder::{Cut, Recorder},
    volume::{Volume, empty_ext4},
};

const ALL: Limit = Limit {
    entries: usize::MAX,
    bytes: usize::MAX,
};

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        max_bytes: 8 << 20,
        max_age: None,
        when_full: WhenFull::DropOldest,
        state_delay: Duration::from_millis(2),
    }
}

fn owner() -> Owner {
    let origin = Origin {
        gateway: "plantroom-1".into(),
        source: "urn:tidegate:gateway:plantroom-1".into(),
        labels: BTreeMap::default(),
        version: "0.1.0".into(),
    };
    Owner {
        origin: Arc::new(origin),
        machine_id: "m".to_owned(),
        board_serial: "b".to_owned(),
        sinks: vec![SinkPlan {
            name: "cloud".parse().expect("a name"),
            required: true,
            from_oldest: false,
        }],
    }
}

fn open(dir: &Path) -> (Journal, Recovered, Running) {
    open_with(&settings(dir), &owner())
}

/// A commit: a state that counts them, and events whose text nobody else writes.
fn commit(number: usize, texts: &[String]) -> Outcome {
    let draft = |text: &String| Draft {
        kind: "io.tidegate.gateway.Test".into(),
        name: "Test".into(),
        subject: "plantroom-1".into(),
        about: "plantroom-1".into(),
        severity: Severity::Warning,
        at: EngineTime(7),
        transition: None,
        correlation: None,
        data: Data::Gateway([("text".to_owned(), text.clone().into())].into_iter().collect()),
    };
    Outcome {
        events: texts.iter().map(draft).collect(),
        state: vec![StateChange {
            key: b"n".to_vec(),
            value: Some(number.to_string().into_bytes()),
        }],
        ..Outcome::default()
    }
}

fn said(entry: &Entry) -> String {
    match &entry.event.draft.data {
        Data::Gateway(data) => data.get("text").map_or_else(
            || entry.event.draft.name.to_string(),
            |text| text.as_str().unwrap_or_default().to_owned(),
        ),
        Data::Rule(_) => panic!("no rule events here"),
    }
}

/// What was handed to the journal, and what it said when.
#[derive(Default)]
struct Story {
    /// The texts of each commit.
    commits: Vec<Vec<String>>,
    /// (moment, how many commits are durable).
    durable: Vec<(usize, usize)>,
    /// What was read, so what may have left: (moment, sequence, text).
    read: Vec<(usize, u64, String)>,
    /// How far the sink has confirmed: (moment, sequence).
    confirmed: Vec<(usize, u64)>,
}

impl Story {
    /// One life of the journal: commits in bursts, a sink that follows, and an end that is clean or a kill.
    async fn live(&mut self, dir: &Path, disk: &Recorder, commits: usize, random: &mut fastrand::Rng) {
        let (journal, _, running) = open(dir);
        let sink = "cloud".parse().expect("a name");
        let first = self.commits.len();
        // Where each commit of this life ends.
        let (mut ends, mut known) = (Vec::new(), 0);
        let mut durable = journal.durable();
        while self.commits.len() < first + commits {
            for _ in 0..random.usize(1..20) {
                let number = self.commits.len();
                let events = random.usize(..3);
                let text = |event| format!("{number}.{event} {}", "x".repeat(random.usize(..1500)));
                let texts: Vec<String> = (0..events).map(text).collect();
                ends.push(journal.append(commit(number, &texts)));
                self.commits.push(texts);
            }
            // Some bursts are waited for whole, of others only the beginning.
            let wanted = ends[random.usize(known..ends.len())];
            loop {
                let reached = *durable.borrow_and_update();
                let moment = disk.now();
                known = ends.partition_point(|end| *end <= reached);
                self.durable.push((moment, first + known));
                if reached >= wanted {
                    break;
                }
                timeout(PATIENCE, durable.changed())
                    .await
                    .expect("in time")
                    .expect("it lives");
            }
            if random.u8(..4) == 0 {
                let few = Limit { entries: 40, ..ALL };
                let entries = journal
                    .read_after(journal.cursor(&sink), few)
                    .await
                    .expect("readable");
                let moment = disk.now();
                self.read.extend(
                    entries
                        .iter()
                        .map(|entry| (moment, entry.sequence.0, said(entry))),
                );
                if let Some(last) = entries.last() {
                    self.confirmed.push((moment, last.sequence.0));
                    journal.acknowledge(&sink, Cursor::behind(last));
                }
            }
        }
        if random.bool() {
            journal.close().await;
            self.durable.push((disk.now(), self.commits.len()));
        }
        drop((journal, durable));
        running.ended.await.expect("it says why").expect("it ended well");
    }

    /// What must hold after a power cut.
    async fn check(&self, cut: &Cut, dir: &Path) {
        let before = |moment: usize| moment <= cut.moment;
        let (journal, recovered, running) = open(dir);
        let sink = "cloud".parse().expect("a name");
        let kept = recovered.state.first().map_or(0, |(_, number)| {
            String::from_utf8_lossy(number)
                .parse::<usize>()
                .expect("a number")
                + 1
        });
        let durable = self.durable.iter().filter(|(moment, _)| before(*moment));
        let durable = durable.map(|(_, commits)| *commits).max().unwrap_or(0);
        assert!(
            kept >= durable,
            "{durable} commits were durable, {kept} are there"
        );

        let cursor = journal.cursor(&sink);
        let confirmed = self.confirmed.iter().filter(|(moment, _)| before(*moment));
        let confirmed = confirmed.map(|(_, sequence)| *sequence).max().unwrap_or(0);
        assert!(
            cursor.sequence.0 <= confirmed,
            "the cursor {cursor:?} is ahead of {confirmed}"
        );

        // One more, which proves that it goes on, and with which number.
        let position = journal.append(commit(usize::MAX, &["after".to_owned()]));
        let mut reached = journal.durable();
        timeout(PATIENCE, reached.wait_for(|durable| *durable >= position))
            .await
            .expect("in time")
            .expect("it lives");
        let entries = journal
            .read_after(Cursor::default(), ALL)
            .await
            .expect("readable");
        assert!(entries.is_sorted_by(|a, b| a.sequence < b.sequence && a.position < b.position));
        let found: BTreeMap<u64, String> = entries
            .iter()
            .map(|entry| (entry.sequence.0, said(entry)))
            .collect();
        let (after, _) = found
            .iter()
            .find(|(_, text)| *text == "after")
            .expect("just written");
        for (_, sequence, text) in self.read.iter().filter(|(moment, ..)| before(*moment)) {
            assert!(after > sequence, "{after} was assigned twice");
            match found.get(sequence) {
                Some(now) => assert_eq!(now, text, "{sequence} was another event before the cut"),
                None => assert!(
                    *sequence < recovered.first.0,
                    "{sequence} had left the gateway and is gone"
                ),
            }
        }
        // Whole commits, in order, none that nobody wrote, and all that is owed.
        let told: BTreeSet<&str> = found.values().map(String::as_str).collect();
        assert!(!told.contains("StorageDamaged"), "a power cut is no damage");
        let written = self.commits.iter().take(kept).flatten();
        let mut owed = written.clone().map(String::as_str).collect::<Vec<_>>();
        let own = found
            .values()
            .map(String::as_str)
            .filter(|text| text.contains('.'));
        let own: Vec<&str> = own.collect();
        owed.drain(..owed.len().saturating_sub(own.len()));
        assert!(own == owed, "what is read is not the last of what was written");
        assert!(
            recovered.first.0 <= cursor.sequence.0 + 1,
            "what is owed is not kept"
        );
        journal.close().await;
        drop(journal);
        timeout(PATIENCE, running.ended)
            .await
            .expect("in time")
            .expect("it says why")
            .expect("clean");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_journal_called_durable_survives_a_power_cut() {
    let mut random = random();
    let disk = Recorder::with(empty_ext4(32));
    let folder = tempfile::tempdir().expect("a folder");
    let mut story = Story::default();
    {
        let point = folder.path().join("disk");
        let _volume = Volume::mount(&disk.path(), &point, "commit=1");
        for _ in 0..4 {
            story.live(&point.join("journal"), &disk, 600, &mut random).await;
        }
    }
    let acknowledged: Vec<usize> = story.durable.iter().map(|(moment, _)| *moment).collect();
    let moments = moments(&disk, &acknowledged, 0, &mut random);
    let mut lossy = 0;
    for (number, cut) in disk.cuts(moments, random.fork()).enumerate() {
        eprintln!(
            "cut {number} at step {}, {} writes unflushed",
            cut.moment, cut.unflushed
        );
        lossy += usize::from(cut.unflushed > 0);
        let point = folder.path().join(format!("cut-{number}"));
        let _volume = Volume::of(&cut.disk, &point);
        story.check(&cut, &point.join("journal")).await;
    }
    assert!(
        lossy * 4 > cuts(),
        "only {lossy} of {} cuts could lose anything",
        cuts()
    );
}
