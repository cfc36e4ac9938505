//! What a gateway seldom does or does not do yet, told event by event, and what both receivers make of it.

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};

use super::{super::parts::Mosquitto, Receiver, both};

/// Both receivers behind a broker, and a gateway that says what it is told to.
struct Stage {
    receivers: [Receiver; 2],
    client: AsyncClient,
    events: EventLoop,
    sent: usize,
    _broker: Mosquitto,
    _folder: tempfile::TempDir,
}

const SOURCE: &str = "urn:tidegate:gateway:told";

impl Stage {
    async fn new() -> Self {
        let broker = Mosquitto::start().await;
        let folder = tempfile::tempdir().expect("a folder");
        let receivers = both(folder.path(), broker.port).await;
        let (client, events) = AsyncClient::new(MqttOptions::new("told", "127.0.0.1", broker.port), 16);
        Self {
            receivers,
            client,
            events,
            sent: 0,
            _broker: broker,
            _folder: folder,
        }
    }

    /// Sends, and returns when both receivers are done with it.
    async fn send(&mut self, payloads: impl IntoIterator<Item = impl ToString>) {
        for payload in payloads {
            self.sent += 1;
            self.client
                .try_publish(
                    "tidegate/told/events/x/y",
                    QoS::AtLeastOnce,
                    false,
                    payload.to_string(),
                )
                .expect("queued");
            while !matches!(
                self.events.poll().await.expect("the broker is there"),
                Event::Incoming(Packet::PubAck(_))
            ) {}
        }
        for receiver in &self.receivers {
            let done = || {
                let said = receiver.said();
                let ends = [": handled", ": duplicate"];
                let done = |line: &&str| {
                    line.starts_with("not an event: ") || ends.iter().any(|end| line.ends_with(end))
                };
                said.lines().filter(done).count() >= self.sent
            };
            receiver.until("done with what was sent", done).await;
        }
    }

    /// Both say the same: this, behind the line that names the source.
    async fn reports(&self, expected: &[&str]) {
        for receiver in &self.receivers {
            let (said, complete) = receiver.report().await;
            assert_eq!(said[0], SOURCE);
            assert_eq!(
                said[1..],
                *expected,
                "{:?}: {}",
                receiver.language,
                receiver.said()
            );
            let missing = expected.iter().any(|line| line.starts_with("missing"));
            assert_eq!(complete, !missing, "{:?}", receiver.language);
        }
    }

    fn handled(&self, count: usize) {
        for receiver in &self.receivers {
            assert_eq!(
                receiver.handled_once().len(),
                count,
                "{:?}: {}",
                receiver.language,
                receiver.said()
            );
        }
    }
}

fn event(epoch: &str, number: u64, previous: u64, kind: &str) -> Value {
    json!({
        "specversion": "1.0", "id": format!("{epoch}-{number:020}"), "source": SOURCE, "type": kind,
        "epoch": epoch, "sequence": format!("{number:020}"), "previoussequence": format!("{previous:020}"),
    })
}

fn own(epoch: &str, number: u64, name: &str, data: Value) -> Value {
    let mut event = event(epoch, number, number - 1, &format!("io.tidegate.gateway.{name}"));
    event["data"] = data;
    event
}

/// Any event that says nothing but its number.
fn plain(epoch: &str, number: u64) -> Value {
    own(epoch, number, "GatewayAlive", json!({}))
}

fn started(epoch: &str, number: u64) -> Value {
    own(epoch, number, "GatewayStarted", json!({ "epoch": epoch }))
}

fn alarm(epoch: &str, number: u64, episode: u64, transition: &str) -> Value {
    let mut event = event(epoch, number, number - 1, "com.example.TooHot");
    event["transition"] = transition.into();
    event["correlationid"] = format!("{epoch}-e{episode}").into();
    event["severitytext"] = "WARN".into();
    event["data"] = json!({
        "summary": format!("boiler: {transition}"),
        "episode": { "since": "2026-11-21T10:00:00.000Z" },
    });
    event
}

fn active(epoch: &str, number: u64, part: u64, parts: u64, ids: &[&str]) -> Value {
    let listed = |id: &&str| {
        json!({ "id": id, "rule": "too-hot", "event": "TooHot", "device": "boiler", "metric": "temperature",
                "severity": "warning", "since": "2026-11-21T10:00:00.000Z", "value": 31.0 })
    };
    let alarms: Vec<Value> = ids.iter().map(listed).collect();
    let data = json!({ "epoch": epoch, "part": part, "parts": parts, "count": 9, "alarms": alarms });
    own(epoch, number, "ActiveAlarms", data)
}

const UNCERTAIN: &str =
    "a raise or a clear may be among what is missing or lost: certain with the next ActiveAlarms";

#[tokio::test]
async fn a_gap_is_reported_until_its_events_come_late_or_are_discarded_for_this_sink() {
    let mut stage = Stage::new().await;
    // The first event of a source that was never heard before is where a receiver begins.
    stage.send([9, 10, 13, 17].map(|number| plain("a", number))).await;
    let two = [
        "epoch a: up to 17",
        "missing 11 to 12",
        "missing 14 to 16",
        UNCERTAIN,
    ];
    stage.reports(&two).await;

    stage.send([plain("a", 15), plain("a", 15), plain("a", 9)]).await;
    stage.handled(5);
    let discarded = |number, sink, ranges| {
        let data =
            json!({ "epoch": "a", "sinks": [sink], "ranges": ranges, "count": 2, "reason": "journal-full" });
        own("a", number, "EventsDiscarded", data)
    };
    stage.send([discarded(18, "archive", json!([[11, 16]]))]).await;
    let left = [
        "epoch a: up to 18",
        "missing 11 to 12",
        "missing 14 to 14",
        "missing 16 to 16",
        UNCERTAIN,
    ];
    stage.reports(&left).await;
    stage
        .send([discarded(19, "cloud", json!([[1, 11], [16, 16]]))])
        .await;
    stage
        .reports(&[
            "epoch a: up to 19",
            "missing 12 to 12",
            "missing 14 to 14",
            UNCERTAIN,
        ])
        .await;
    stage.send([plain("a", 12), plain("a", 14)]).await;
    stage.reports(&["epoch a: up to 19", UNCERTAIN]).await;
    stage.send([active("a", 20, 1, 1, &[])]).await;
    stage.reports(&["epoch a: up to 20"]).await;
    stage.handled(10);
}

#[tokio::test]
async fn what_a_filter_left_out_is_no_gap_and_what_was_lost_before_it_is_one() {
    let mut stage = Stage::new().await;
    let passed = |number, previous| event("a", number, previous, "io.tidegate.gateway.UplinkLost");
    stage.send([passed(5, 0), passed(9, 5), passed(20, 9)]).await;
    stage.reports(&["epoch a: up to 20"]).await;
    // 30 passed and did not come: 21 to 29 may have been for us too, until 30 says what was before it.
    stage.send([passed(40, 30)]).await;
    stage
        .reports(&["epoch a: up to 40", "missing 21 to 30", UNCERTAIN])
        .await;
    stage.send([passed(30, 20)]).await;
    stage.reports(&["epoch a: up to 40"]).await;
    // A replay begins a chain of its own: all zeros explains nothing.
    stage.send([passed(50, 0)]).await;
    stage
        .reports(&["epoch a: up to 50", "missing 41 to 49", UNCERTAIN])
        .await;
    // A later epoch is known from its beginning on, unless nothing of it was for us.
    stage.send([passed(45, 0), passed(50, 45)]).await;
    stage
        .send([event("b", 7, 3, "x.y"), event("c", 7, 0, "x.y"), plain("c", 8)])
        .await;
    stage.send([started("c", 9)]).await;
    stage
        .reports(&[
            "epoch a (over): up to 50",
            "missing 41 to 44",
            "epoch b (over): up to 7",
            "missing 1 to 3",
            "epoch c: up to 9",
        ])
        .await;
}

#[tokio::test]
async fn an_episode_is_open_from_its_raise_to_its_clear_whatever_comes_late() {
    let mut stage = Stage::new().await;
    stage
        .send([alarm("a", 1, 1, "raised"), alarm("a", 2, 2, "raised")])
        .await;
    stage
        .send([
            alarm("a", 3, 1, "changed"),
            alarm("a", 4, 1, "reminded"),
            alarm("a", 5, 2, "cleared"),
        ])
        .await;
    stage.reports(&["epoch a: up to 5", "open a-e1 WARN"]).await;
    for receiver in &stage.receivers {
        let state = receiver.state();
        let open = &state["sources"][SOURCE]["epochs"]["a"]["episodes"];
        assert_eq!(open.as_object().map(serde_json::Map::len), Some(1), "{open}");
        assert_eq!(open["a-e1"]["summary"], "boiler: reminded");
    }
    // The raise of e3 is late: its clear was here. Without a gap nothing of it is kept.
    stage
        .send([alarm("a", 7, 3, "cleared"), alarm("a", 6, 3, "raised")])
        .await;
    stage.reports(&["epoch a: up to 7", "open a-e1 WARN"]).await;
    stage.send([alarm("a", 8, 3, "future-transition")]).await;
    stage.reports(&["epoch a: up to 8", "open a-e1 WARN"]).await;
    for receiver in &stage.receivers {
        let state = receiver.state();
        let kept = &state["sources"][SOURCE]["epochs"]["a"]["episodes"];
        assert_eq!(kept.as_object().map(serde_json::Map::len), Some(1), "{kept}");
    }
    stage.handled(8);
}

#[tokio::test]
async fn the_alarms_that_count_are_those_of_the_epoch_in_which_the_gateway_runs() {
    let mut stage = Stage::new().await;
    // An old card's rest comes late, behind what the new one says: that it is seen first now does not make it the newer.
    stage
        .send([
            started("a", 1),
            alarm("a", 2, 1, "raised"),
            alarm("b", 9, 4, "raised"),
            alarm("a", 3, 2, "raised"),
        ])
        .await;
    let open = ["open a-e1 WARN", "open a-e2 WARN"];
    stage
        .reports(&[
            "epoch a: up to 3",
            "epoch b (over): up to 9",
            "missing 1 to 8",
            open[0],
            open[1],
        ])
        .await;
    // Nor does what is older than something that we have of it.
    stage.send([started("b", 5)]).await;
    let over = ["epoch b (over): up to 9", "missing 1 to 4", "missing 6 to 8"];
    stage
        .reports(&["epoch a: up to 3", over[0], over[1], over[2], open[0], open[1]])
        .await;
    // The old card is back, and goes on with the alarms that it knows; then the new one again.
    stage.send([started("b", 10), alarm("b", 11, 5, "raised")]).await;
    stage
        .reports(&[
            "epoch a (over): up to 3",
            "epoch b: up to 11",
            over[1],
            over[2],
            UNCERTAIN,
            "open b-e4 WARN",
            "open b-e5 WARN",
        ])
        .await;
    stage
        .send([alarm("b", 12, 4, "cleared"), active("a", 4, 1, 1, &["a-e2"])])
        .await;
    stage
        .reports(&[
            "epoch a: up to 4",
            "epoch b (over): up to 12",
            over[1],
            over[2],
            open[1],
        ])
        .await;
}

#[tokio::test]
async fn active_alarms_mends_what_a_loss_has_left_wrong() {
    let mut stage = Stage::new().await;
    stage
        .send([alarm("a", 1, 1, "raised"), alarm("a", 2, 2, "raised")])
        .await;
    // 3 is the clear of e1, 4 the raise of e3, 5 raise and 7 clear of e4: only the clear of e4 comes.
    stage.send([alarm("a", 7, 4, "cleared")]).await;
    stage.send([active("a", 8, 1, 1, &["a-e2", "a-e3"])]).await;
    let open = ["open a-e2 WARN", "open a-e3 warning"];
    stage
        .reports(&["epoch a: up to 8", "missing 3 to 6", UNCERTAIN, open[0], open[1]])
        .await;
    // What comes late is older than the list.
    stage
        .send([
            alarm("a", 5, 4, "raised"),
            alarm("a", 4, 3, "raised"),
            alarm("a", 3, 1, "cleared"),
            plain("a", 6),
        ])
        .await;
    stage.reports(&["epoch a: up to 8", open[0], open[1]]).await;
    stage.send([alarm("a", 9, 3, "cleared")]).await;
    stage.reports(&["epoch a: up to 9", open[0]]).await;
}

#[tokio::test]
async fn a_list_of_alarms_in_parts_counts_when_it_is_whole_and_late_ones_not_at_all() {
    let mut stage = Stage::new().await;
    stage
        .send([alarm("a", 1, 1, "raised"), alarm("a", 2, 2, "raised")])
        .await;
    let still = ["open a-e1 WARN", "open a-e2 WARN"];
    // Of three parts two have come, and then two of another list, the first of which is missing.
    stage
        .send([active("a", 3, 1, 3, &["a-e1"]), active("a", 4, 2, 3, &[])])
        .await;
    stage.reports(&["epoch a: up to 4", still[0], still[1]]).await;
    stage
        .send([active("a", 5, 2, 3, &[]), active("a", 6, 3, 3, &[])])
        .await;
    stage.reports(&["epoch a: up to 6", still[0], still[1]]).await;
    // Whole, with a raise between its parts, and an older one behind it.
    stage
        .send([
            active("a", 8, 1, 2, &["a-e2"]),
            alarm("a", 9, 3, "raised"),
            active("a", 10, 2, 2, &["a-e4"]),
            active("a", 7, 1, 1, &["a-e1"]),
        ])
        .await;
    stage
        .reports(&[
            "epoch a: up to 10",
            "open a-e2 WARN",
            "open a-e3 WARN",
            "open a-e4 warning",
        ])
        .await;
}

#[tokio::test]
async fn what_is_unknown_or_no_event_holds_nothing_up() {
    let mut stage = Stage::new().await;
    let mut rich = alarm("a", 1, 1, "raised");
    rich["extension"] = json!({ "of": ["tomorrow"] });
    rich["data"]["episode"]["colour"] = json!(7);
    stage.send([rich]).await;
    let mut odd = vec![
        "not JSON".to_owned(),
        "[]".to_owned(),
        "7".to_owned(),
        String::new(),
    ];
    for missing in ["id", "source", "epoch", "sequence", "type"] {
        let mut event = plain("a", 2);
        event.as_object_mut().expect("an object").remove(missing);
        odd.push(event.to_string());
    }
    for sequence in ["0", "-1", "x", ""] {
        let mut event = plain("a", 2);
        event["sequence"] = sequence.into();
        odd.push(event.to_string());
    }
    // What is before it is not behind it.
    let mut event = plain("a", 2);
    event["previoussequence"] = u64::MAX.to_string().into();
    odd.push(event.to_string());
    // What a reader of JSON may choke on: depth, half a character, a number that is none.
    for value in [
        format!("{}7{}", "[".repeat(4_000), "]".repeat(4_000)),
        r#""\ud800""#.to_owned(),
        "1e999".to_owned(),
    ] {
        odd.push(
            plain("a", 2)
                .to_string()
                .replace("\"data\":{}", &format!("\"data\":{value}")),
        );
    }
    odd.push(plain("a", 2).to_string().replace("\"id\":\"", "\"id\":\"\\ud800"));
    stage.send(&odd).await;
    stage.handled(1);
    // Whole, numbered, and not as promised within.
    stage
        .send([
            own("a", 2, "EventsDiscarded", json!({ "ranges": "all of them" })),
            own("a", 3, "ActiveAlarms", json!({})),
            own("a", 4, "OnlyInLaterVersions", json!({ "alarms": 3 })),
            plain("a", 5),
        ])
        .await;
    stage.handled(5);
    stage.reports(&["epoch a: up to 5", "open a-e1 WARN"]).await;
}
