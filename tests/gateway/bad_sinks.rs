//! Sinks on their worst days hold back no other: told by what came before what, not by a clock.

use rumqttc::QoS;
use serde_json::Value;

use super::{
    cloud::Cloud,
    contract,
    device::{Device, Version},
    endpoint::{Endpoint, Reply},
    parts::{Gateway, Mosquitto, Site},
    server::{self, Manners, Server},
    text, webhooks,
};

const ROUNDS: usize = 20;
const ALARMS: usize = 10;

/// Without repetitions, in the order of first arrival.
fn firsts(sequences: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::HashSet::new();
    let first = sequences.iter().filter(|sequence| seen.insert(**sequence));
    first.copied().collect()
}

/// How one sink stands.
fn standing<'s>(status: &'s Value, name: &str) -> &'s Value {
    let mut sinks = status["sinks"].as_array().expect("a list").iter();
    sinks.find(|sink| sink["name"] == name).expect("it is configured")
}

#[tokio::test(flavor = "multi_thread")]
async fn good_sinks_have_all_while_bad_ones_hold_their_first_request_open_or_refuse_and_these_get_all_later()
{
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let good = Endpoint::start(|_| Reply::Status(200)).await;
    // They never answer, answer much later, will not have it from us, and will not have the event.
    let silent = Endpoint::start(|_| Reply::Silence).await;
    let late = Endpoint::start(|_| Reply::Late).await;
    let closed = Endpoint::start(|_| Reply::Status(503)).await;
    let picky = Endpoint::start(|_| Reply::Status(422)).await;
    let unheard = Manners {
        reply: |_, _| server::Reply::Silence,
        ..Manners::good()
    };
    let deaf = Server::start(unheard, 1).await;
    let site = Site::new()
        .uplink(broker.port, "5")
        .tables(&webhooks::sink("good", good.port, ""))
        .tables(&webhooks::sink("silent", silent.port, "timeout = \"5m\""))
        .tables(&webhooks::sink("late", late.port, "timeout = \"5m\""))
        .tables(&webhooks::sink("closed", closed.port, ""))
        .tables(&webhooks::sink("picky", picky.port, "max-attempts = 1"))
        .tables(&format!(
            "[[sink.mqtt]]\nname = \"deaf\"\nurl = \"mqtt://127.0.0.1:{}\"\nack-timeout = \"2s\"",
            deaf.port
        ));
    let gateway = Gateway::start(&site).await;
    for open in [&silent, &late] {
        open.until(|endpoint| endpoint.asked().len() == 1).await;
    }

    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(ALARMS);
    let is_cleared = |event: &&Value| event["transition"] == "cleared";
    let mut newest = 0;
    for round in 1..=ROUNDS {
        device.publish_until_acknowledged(&flapping).await;
        cloud
            .wait_until(|seen| seen.iter().filter(is_cleared).count() >= round * ALARMS)
            .await;
        newest = cloud
            .distinct()
            .iter()
            .filter(is_cleared)
            .map(|event| text(event, "/sequence").parse().expect("digits"))
            .max()
            .expect("one came");
        good.until(|endpoint| endpoint.kept().contains(&newest)).await;
        for open in [&silent, &late] {
            assert_eq!(
                (open.asked().len(), open.kept().len()),
                (1, 0),
                "round {round}: its first request is open"
            );
        }
    }
    assert!(closed.kept().is_empty() && picky.kept().is_empty() && deaf.kept().is_empty());
    cloud.assert_first_sends_in_order();
    cloud.assert_no_unexplained_gap();
    let all: Vec<u64> = (1..=newest).collect();
    assert!(good.kept().starts_with(&all), "in order, each once");
    let (_, status, _) = site.ask(&["status", "--format", "json"]).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    for (sink, delivered) in [
        ("good", newest),
        ("silent", 0),
        ("late", 0),
        ("closed", 0),
        ("deaf", 0),
    ] {
        let had = standing(&status, sink)["delivered"].as_u64();
        let is_right = if delivered == 0 {
            had == Some(0)
        } else {
            had >= Some(delivered)
        };
        assert!(is_right, "{sink}: {status:#}");
    }

    late.answer_late();
    silent.behave(|_| Reply::Status(200));
    silent.hang_up();
    closed.behave(|_| Reply::Status(200));
    deaf.behave(Manners::good());
    picky.behave(|_| Reply::Status(200));
    picky.until(|endpoint| endpoint.kept().contains(&newest)).await;
    site.done(&["journal", "dead", "resend", "--sink", "picky", "--all"])
        .await;
    for (name, endpoint) in [("late", &late), ("silent", &silent), ("closed", &closed)] {
        endpoint.until(|endpoint| endpoint.kept().contains(&newest)).await;
        assert!(firsts(&endpoint.kept()).starts_with(&all), "{name}: in order");
    }
    picky
        .until(|endpoint| {
            let kept = endpoint.kept();
            all.iter().all(|sequence| kept.contains(sequence))
        })
        .await;
    deaf.until(|server| server.kept().starts_with(&all)).await;
    for asked in good.asked() {
        asked.events.iter().for_each(contract::check);
    }
    gateway.stop().await;
}
