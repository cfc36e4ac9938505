//! Journals that the daemon wrote as a board of another architecture runs it: another order or width of a word must not
//! show in a file.

use serde_json::Value;

use super::{ALL, Card, contract};
use tidegate::{journal::Cursor, time::Clock};

/// A fixture, and whether the gateway that wrote it was stopped; else it was killed.
const FOREIGN: &[(&str, bool)] = &[
    ("from-aarch64", true),
    ("from-armv7", false),
    ("without-names", true),
];

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_journal_of_another_architecture_is_found_whole_and_tells_all_that_is_in_it() {
    for (name, stopped) in FOREIGN {
        let card = Card::of_fixture(name);
        let told = |arguments: &[&str]| {
            let (code, out, complaint) = card.tidegate(arguments);
            assert_eq!(
                (code, complaint.as_str()),
                (Some(0), ""),
                "{name} {arguments:?}: {out}"
            );
            out
        };
        assert!(
            told(&["fsck"]).ends_with(": no damage\n"),
            "{name}: {}",
            told(&["fsck"])
        );

        let events: Vec<Value> = told(&["export"]).lines().map(json).collect();
        events.iter().for_each(contract::check_earlier);
        let sequences = events.iter().map(|event| event["sequence"].as_str().unwrap());
        let expected = (1..=events.len()).map(|number| format!("{number:020}"));
        assert!(sequences.eq(expected), "{name}: {events:#?}");
        let alarms = events
            .iter()
            .filter(|event| event["subject"] == "boiler/temperature");
        let alarms: Vec<_> = alarms
            .map(|event| {
                (
                    event["transition"].as_str().unwrap(),
                    event["data"]["value"].as_f64().unwrap(),
                )
            })
            .collect();
        let said = [
            ("raised", 31.25),
            ("cleared", 27.5),
            ("raised", 32.75),
            ("cleared", 26.125),
        ];
        assert_eq!(alarms, said, "{name}");

        let listed = json(&told(&["ls", "--format", "json"]));
        let epoch = &listed["epochs"][0];
        assert_eq!(epoch["machine_id"], "0123456789abcdef0123456789abcdef");
        assert_eq!(
            (&epoch["gateway"], &epoch["closed"]),
            (&"plantroom-1".into(), &(*stopped).into())
        );
        assert_eq!(
            (&epoch["first"], &epoch["last"]),
            (&1.into(), &events.len().into())
        );
        let behind = |sink: usize| {
            (
                &listed["sinks"][sink]["name"],
                &listed["sinks"][sink]["behind_events"],
            )
        };
        assert_eq!(behind(0), (&"cloud".into(), &events.len().into()));
        assert_eq!(behind(1).0, "hooks");
        assert!(behind(1).1.as_u64() < Some(4), "{listed:#}");

        let letters = json(&told(&["dead", "ls", "--format", "json"]));
        let refused = events
            .iter()
            .find(|event| event["data"]["value"] == 31.25)
            .unwrap();
        assert_eq!(
            (&letters[0]["sink"], &letters[0]["event"]),
            (&"hooks".into(), &refused["id"])
        );
        assert_eq!(letters.as_array().map(Vec::len), Some(1), "{letters:#}");
        let shown = json(&told(&[
            "show",
            refused["id"].as_str().unwrap(),
            "--format",
            "json",
        ]));
        assert_eq!(&shown["event"], refused);
    }
}

#[tokio::test]
async fn a_board_of_this_architecture_goes_on_with_the_journal_of_another() {
    for (name, _) in FOREIGN {
        let card = Card::of_fixture(name);
        let (_, exported, _) = card.tidegate(&["export"]);
        let journal = card.open(&["cloud", "hooks"], Clock::system());
        let read = journal.read_after(Cursor::default(), ALL).await.unwrap();
        let ids = read
            .iter()
            .map(|entry| format!("{}-{}", entry.epoch, entry.sequence));
        let owed = exported
            .lines()
            .map(|line| json(line)["id"].as_str().unwrap().to_owned());
        assert!(ids.eq(owed), "{name}: what the old board owed is delivered");
        assert_eq!(journal.dead_letters().len(), 1, "{name}");
        journal.close().await;
    }
}
