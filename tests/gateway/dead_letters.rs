//! What a sink refuses for good: told, listed, sent again, given up, and bounded.

use rumqttc::QoS;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    PATIENCE,
    cloud::Cloud,
    contract,
    device::{Device, Version},
    endpoint::{Asked, Endpoint, Reply, sequence},
    own_events::is,
    parts::{Gateway, Mosquitto, Site},
    text, webhooks,
};

/// Asks for the dead letters until they are so.
async fn until(site: &Site, are: impl Fn(&Value) -> bool) -> Value {
    let config = site.config();
    let config = config.to_str().expect("UTF-8");
    let asking = async {
        loop {
            let arguments = ["journal", "dead", "ls", "--config", config, "--format", "json"];
            let letters = serde_json::from_str(&site.done(&arguments).await).expect("JSON");
            if are(&letters) {
                return letters;
            }
        }
    };
    timeout(PATIENCE, asking).await.expect("they come to that")
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_shown_sent_again_and_given_up() {
    let broker = Mosquitto::start_with("max_queued_messages 0\nmax_packet_size 4000\n").await;
    let cloud = Cloud::subscribe(broker.port).await;
    let note = "n".repeat(4_000);
    let site = Site::new()
        .uplink(broker.port, "5")
        .sink("max-attempts = 2")
        .tables("[[device]]\nid = \"verbose\"\n")
        .rule(&format!(
            "labels = {{ note = \"{note}\" }}\ndevices = [\"verbose\"]"
        ));
    let gateway = Gateway::start(&site).await;
    let config = site.config();
    let config = config.to_str().expect("UTF-8");
    let mut device = Device::new(Version::V311, QoS::AtLeastOnce, gateway.door, "verbose");
    device
        .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
        .await;
    let letters = until(&site, |letters| letters.as_array().map(Vec::len) == Some(2)).await;
    assert_eq!(letters[0]["sink"], "cloud");
    assert_eq!(letters[0]["type"], "io.tidegate.rule.HighTemperature");
    assert_eq!(letters[0]["attempts"], 2);
    let id = text(&letters, "/0/event").to_owned();
    let shown = site.done(&["journal", "show", &id, "--config", config]).await;
    assert!(shown.contains("\nrefused cloud (a dead letter)\n"), "{shown}");
    let (code, screen, _) = site.ask(&["status"]).await;
    assert_eq!(code, Some(1));
    assert!(
        screen.contains("! sink cloud: 2 events are set aside"),
        "{screen}"
    );

    let (code, _, complaint) = site.ask(&["journal", "dead", "drop", "--sink", "cloud"]).await;
    assert_eq!(
        code,
        Some(2),
        "nobody drops all by leaving something out: {complaint}"
    );
    let said = site
        .done(&["journal", "dead", "drop", "--sink", "cloud", &id])
        .await;
    assert!(said.starts_with("1 event of cloud is dropped: "), "{said}");
    cloud
        .wait_for(|event| is("EventsDiscarded")(event) && event["data"]["reason"] == "dropped")
        .await;
    until(&site, |letters| letters.as_array().map(Vec::len) == Some(1)).await;
    let said = site
        .done(&["journal", "dead", "resend", "--sink", "cloud", "--all"])
        .await;
    assert!(said.starts_with("1 event of cloud is sent again: "), "{said}");
    // It is refused once more, and stays.
    until(&site, |letters| letters[0]["attempts"] == 3).await;

    let (code, screen, _) = site.ask(&["status"]).await;
    assert_eq!(code, Some(1));
    assert!(
        !screen.contains("events discarded"),
        "what somebody dropped is not lost: {screen}"
    );
    let dead = ["journal", "dead"];
    let ls = ["ls", "--sink", "clod", "--config", config];
    let (code, _, complaint) = site.ask(&[&dead[..], &ls].concat()).await;
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("no sink \"clod\"; there are: cloud"),
        "{complaint}"
    );
    site.edit(&[("name = \"cloud\"", "name = \"other\"")]);
    site.done(&["reload"]).await;
    let resend = ["resend", "--sink", "cloud", "--all"];
    let (code, _, complaint) = site.ask(&[&dead[..], &resend].concat()).await;
    assert_eq!(code, Some(1));
    assert!(
        complaint.contains("no sink \"cloud\" is configured; there are: other"),
        "{complaint}"
    );
    let said = site.done(&["journal", "forget", "cloud"]).await;
    assert!(said.ends_with("; its dead letter was dropped\n"), "{said}");
    until(&site, |letters| {
        let letters = letters.as_array().expect("a list");
        letters.iter().all(|letter| letter["sink"] != "cloud")
    })
    .await;
    gateway.stop().await;
}

/// Refuses for good what was raised at one of these values.
fn refusing(values: &'static [f64]) -> impl Fn(&Asked) -> Reply {
    move |asked| {
        let is_one = |event: &Value| {
            let value = event["data"]["value"].as_f64();
            value.is_some_and(|value| values.contains(&value))
        };
        let refused = asked.events.iter().any(is_one);
        Reply::Status(if refused { 422 } else { 200 })
    }
}

/// What it was asked to take that has this number: each time.
fn copies(endpoint: &Endpoint, number: u64) -> Vec<Value> {
    let events = endpoint.asked().into_iter().flat_map(|asked| asked.events);
    events.filter(|event| sequence(event) == number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_aside_is_told_upstream_arrives_when_it_is_sent_again_and_never_when_it_is_dropped() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let hooks = Endpoint::start(refusing(&[31.0, 32.0])).await;
    let site =
        Site::new()
            .uplink(broker.port, "5")
            .tables(&webhooks::sink("hooks", hooks.port, "max-attempts = 2"));
    let log = site.folder.path().join("log");
    let file = std::fs::File::create(&log).expect("created");
    let gateway = Gateway::start_logging(&site, file.into()).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let raised = |value: f64| {
        move |event: &Value| event["transition"] == "raised" && event["data"]["value"].as_f64() == Some(value)
    };

    device
        .publish_until_acknowledged(&[r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#])
        .await;
    let first = cloud.wait_for(raised(31.0)).await;
    let told = cloud.wait_for(is("EventSetAside")).await;
    assert_eq!(
        (&told["severitytext"], &told["subject"]),
        (&"ERROR".into(), &"hooks".into())
    );
    let data = &told["data"];
    let number = sequence(&first);
    assert_eq!(
        (&data["epoch"], &data["sink"], &data["ranges"], &data["count"]),
        (
            &first["epoch"],
            &"hooks".into(),
            &json!([[number, number]]),
            &1.into()
        )
    );
    assert!(text(data, "/reason").contains("422"), "{told}");
    let to_hooks = sequence(&told);
    hooks.until(|hooks| hooks.kept().contains(&to_hooks)).await;
    let said = std::fs::read_to_string(&log).expect("a log");
    let line = said.lines().find(|line| line.contains("an event was set aside"));
    let id = text(&first, "/id");
    assert!(
        line.is_some_and(|line| line.contains(id) && line.contains("hooks")),
        "{id}: {said}"
    );

    device
        .publish_until_acknowledged(&[r#"{"temp": 32.0}"#, r#"{"temp": 27.0}"#])
        .await;
    let second = cloud.wait_for(raised(32.0)).await;
    let ids = |letters: &Value| -> Vec<String> {
        let letters = letters.as_array().expect("a list").iter();
        letters.map(|letter| text(letter, "/event").to_owned()).collect()
    };
    let both = [id.to_owned(), text(&second, "/id").to_owned()];
    until(&site, |letters| ids(letters) == both).await;
    gateway.stop().await;
    let gateway = Gateway::start(&site).await;
    until(&site, |letters| ids(letters) == both).await;

    hooks.behave(|_| Reply::Status(200));
    site.done(&["journal", "dead", "resend", "--sink", "hooks", id])
        .await;
    hooks.until(|hooks| hooks.kept().contains(&number)).await;
    assert!(copies(&hooks, number).len() >= 3, "refused twice, then taken");
    for copy in copies(&hooks, number) {
        assert_eq!(
            (&copy["id"], &copy["previoussequence"], &copy["data"]),
            (&first["id"], &first["previoussequence"], &first["data"])
        );
    }
    until(&site, |letters| ids(letters) == both[1..]).await;
    site.done(&["journal", "dead", "drop", "--sink", "hooks", &both[1]])
        .await;
    let dropped = sequence(&second);
    let discarded = cloud.wait_for(is("EventsDiscarded")).await;
    assert_eq!(
        discarded["data"],
        json!({
            "epoch": first["epoch"], "sinks": ["hooks"], "ranges": [[dropped, dropped]], "count": 1, "reason": "dropped"
        })
    );

    device.publish_until_acknowledged(&[r#"{"temp": 33.0}"#]).await;
    let newest = sequence(&cloud.wait_for(raised(33.0)).await);
    hooks.until(|hooks| hooks.kept().contains(&newest)).await;
    let kept = hooks.kept();
    let missing: Vec<u64> = (1..=newest).filter(|number| !kept.contains(number)).collect();
    assert_eq!(missing, [dropped], "and EventsDiscarded, which names it, came");
    until(&site, |letters| letters == &json!([])).await;
    assert!(!site.ask(&["status"]).await.1.contains("set aside"));
    for asked in hooks.asked() {
        asked.events.iter().for_each(contract::check);
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_whose_dead_letters_are_full_stops_and_says_so_and_loses_nothing() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let hooks = Endpoint::start(|_| Reply::Status(422)).await;
    let mut site = Site::new()
        .uplink(broker.port, "5")
        .rule(&format!("labels = {{ note = \"{}\" }}", "n".repeat(4_000)))
        .tables(&webhooks::sink("hooks", hooks.port, "max-attempts = 1"));
    // 256 KiB of dead letters.
    site.max_bytes = "8MiB";
    let gateway = Gateway::start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");
    let flapping = [r#"{"temp": 31.0}"#, r#"{"temp": 27.0}"#].repeat(10);
    for _ in 0..5 {
        device.publish_until_acknowledged(&flapping).await;
    }
    let cleared = |seen: &[Value]| {
        seen.iter()
            .filter(|event| event["transition"] == "cleared")
            .count()
    };
    cloud.wait_until(|seen| cleared(seen) == 50).await;
    let asking = async {
        loop {
            let (code, screen, _) = site.ask(&["status"]).await;
            if screen.contains("its dead letters are full") {
                assert_eq!(code, Some(1));
                return screen;
            }
        }
    };
    let screen = timeout(PATIENCE, asking).await.expect("256 KiB are soon full");
    let trouble = screen
        .lines()
        .find(|line| line.starts_with("! sink hooks: stopped at an event that it refuses (attempt "));
    let trouble = trouble.unwrap_or_else(|| panic!("{screen}"));
    assert!(
        trouble.contains("422") && trouble.contains("`tidegate journal dead` lists, resends and drops them"),
        "{trouble}"
    );
    assert!(screen.contains("\nhooks  STOPPED "), "{screen}");
    assert!(screen.contains("\ncloud  connected "), "{screen}");
    let letters = until(&site, |_| true).await;
    let count = letters.as_array().expect("a list").len();
    assert!((20..100).contains(&count), "{count} of some 5 KiB");
    let told = format!("its dead letters are full ({count}, ");
    assert!(trouble.contains(&told), "{trouble}");

    // It stands there, and asks for nothing but this event; the other sink goes on.
    device.publish_until_acknowledged(&flapping).await;
    cloud.wait_until(|seen| cleared(seen) == 60).await;
    let newest = cloud.distinct().iter().map(sequence).max().expect("many came");
    let stopped = hooks.asked().last().map(Asked::sequences).expect("it was asked");
    let asked = hooks.asked().len();
    hooks.until(|hooks| hooks.asked().len() > asked).await;
    assert_eq!(hooks.asked().last().map(Asked::sequences), Some(stopped));

    // What refused it takes it: all that is behind, and all that is set aside.
    hooks.behave(|_| Reply::Status(200));
    hooks.until(|hooks| hooks.kept().contains(&newest)).await;
    site.done(&["journal", "dead", "resend", "--sink", "hooks", "--all"])
        .await;
    until(&site, |letters| letters == &json!([])).await;
    let kept = hooks.kept();
    let missing: Vec<u64> = (1..=newest).filter(|number| !kept.contains(number)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert_eq!(cloud.count(is("EventsDiscarded")), 0);
    assert!(cloud.count(is("EventSetAside")) > 0);
    assert_eq!(cloud.count(is("UplinkLost")), 0, "it answered all the time");
    gateway.stop().await;
}
