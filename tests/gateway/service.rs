//! What the service manager sees of the real process: the messages on its socket, the exit codes.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::UnixDatagram, sync::Notify, task::JoinSet, time::timeout};

use super::{
    PATIENCE,
    cloud::Cloud,
    parts::{Gateway, Mosquitto, Site},
};

/// The manager's end of `NOTIFY_SOCKET`.
struct Manager {
    heard: Arc<Mutex<Vec<String>>>,
    more: Arc<Notify>,
    _listening: JoinSet<()>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).expect("bound");
        let (heard, more) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let mut listening = JoinSet::new();
        let (into, tell) = (Arc::clone(&heard), Arc::clone(&more));
        // Read at once: the socket holds ten messages, and a gateway must not wait for its manager.
        listening.spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let message = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
                into.lock().expect("no panic").push(message);
                tell.notify_one();
            }
        });
        Self {
            heard,
            more,
            _listening: listening,
        }
    }

    fn lines(&self) -> Vec<String> {
        let heard = self.heard.lock().expect("no panic");
        heard
            .iter()
            .flat_map(|message| message.lines())
            .map(str::to_owned)
            .collect()
    }

    async fn hears(&self, line: &str, times: usize) {
        let heard = async {
            while self.lines().iter().filter(|heard| *heard == line).count() < times {
                self.more.notified().await;
            }
        };
        timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| panic!("{line} not heard {times} times: {:?}", self.lines()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_ready_then_signs_of_life_then_stopping() {
    let site = Site::new();
    let socket = site.folder.path().join("manager");
    let manager = Manager::at(&socket);
    let environment = [
        ("NOTIFY_SOCKET", socket.to_str().expect("a path in UTF-8")),
        // Checked four times in this: slower than the stages' own pulse of a second.
        ("WATCHDOG_USEC", "8000000"),
    ];
    let gateway = Gateway::start_in(&site, &environment).await;
    manager.hears("READY=1", 1).await;
    manager.hears("WATCHDOG=1", 3).await;
    assert!(!manager.lines().iter().any(|line| line == "STOPPING=1"));
    gateway.stop().await;
    manager.hears("STOPPING=1", 1).await;

    let lines = manager.lines();
    let first = |line: &str| lines.iter().position(|heard| heard == line);
    assert_eq!(first("READY=1"), Some(0), "ready is the first word: {lines:?}");
    assert_eq!(lines.iter().filter(|line| *line == "READY=1").count(), 1);
    assert!(first("STOPPING=1") > first("WATCHDOG=1"), "{lines:?}");
    let status = "STATUS=0 of 0 uplinks connected, 0 alarms active, ";
    assert!(lines.iter().any(|line| line.starts_with(status)), "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_when_a_reload_begins_and_that_it_is_over_even_if_the_file_is_wrong() {
    let site = Site::new();
    let socket = site.folder.path().join("manager");
    let manager = Manager::at(&socket);
    let environment = [("NOTIFY_SOCKET", socket.to_str().expect("a path in UTF-8"))];
    let gateway = Gateway::start_in(&site, &environment).await;
    manager.hears("READY=1", 1).await;
    std::fs::write(site.config(), "no TOML").expect("written");
    assert_eq!(site.ask(&["reload"]).await.0, Some(78));
    manager.hears("READY=1", 2).await;
    let lines = manager.lines();
    let ready = lines.iter().rposition(|line| line == "READY=1");
    let reloading = lines.iter().position(|line| line == "RELOADING=1");
    assert!(reloading.is_some() && reloading < ready, "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("MONOTONIC_USEC=")),
        "{lines:?}"
    );
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_leaves_no_event_of_itself_and_ends_with_what_the_manager_needs() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5");
    let started = |event: &serde_json::Value| event["type"] == "io.tidegate.gateway.GatewayStarted";
    Gateway::start(&site).await.stop().await;
    cloud.wait_for(started).await;
    let right = site.text();
    let refused = async |text: String| {
        std::fs::write(site.config(), text).expect("written");
        let out = timeout(Duration::from_secs(30), site.command().arg("--strict").output());
        let out = out.await.expect("it ends by itself").expect("it ran");
        (
            out.status.code(),
            String::from_utf8_lossy(&out.stderr).into_owned(),
        )
    };

    let (code, said) = refused(right.replace("127.0.0.1:", "192.0.2.1:")).await;
    assert_eq!(code, Some(78), "not on loopback: {said}");
    let taken = format!("listen = [\"127.0.0.1:{}\"]", broker.port);
    let door = right
        .lines()
        .find(|line| line.starts_with("listen"))
        .expect("a door")
        .to_owned();
    // The uplink to one's own door is a mistake of its own.
    let elsewhere = right.replace(
        &format!("mqtt://127.0.0.1:{}", broker.port),
        "mqtt://broker.invalid:1883",
    );
    let (code, said) = refused(elsewhere.replace(&door, &taken)).await;
    assert_eq!(code, Some(1), "a port that is taken may be free soon: {said}");
    assert!(said.contains("`[mqtt] listen` chooses the address"), "{said}");
    let tls = right
        .replace("mqtt://127", "mqtts://127")
        .replace("version = \"5\"", "ca = \"/nowhere/ca.pem\"");
    let (code, said) = refused(tls).await;
    assert_eq!(code, Some(78), "{said}");
    assert!(
        said.contains("sink \"cloud\": could not load ca from /nowhere/ca.pem: there is no such file"),
        "{said}"
    );

    std::fs::write(site.config(), right).expect("written");
    let gateway = Gateway::start(&site).await;
    cloud
        .wait_until(|events| events.iter().filter(|event| started(event)).count() >= 2)
        .await;
    gateway.stop().await;
    assert_eq!(cloud.count(started), 2, "only the starts that succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_says_where_the_gateway_stands() {
    let broker = Mosquitto::start().await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(broker.port, "5").heartbeat("1s");
    let gateway = Gateway::start(&site).await;
    let alive = |event: &serde_json::Value| event["type"] == "io.tidegate.gateway.GatewayAlive";
    cloud
        .wait_until(|events| events.iter().filter(|event| alive(event)).count() >= 3)
        .await;
    gateway.stop().await;
    let beats: Vec<_> = cloud.distinct().into_iter().filter(alive).collect();
    assert_eq!(beats[0]["severitytext"], "INFO");
    assert_eq!(beats[0]["data"]["epoch"], beats[0]["epoch"]);
    assert_eq!(beats[0]["data"]["active_episodes"], 0);
    assert!(beats[0]["data"]["backlog"].is_u64());
    // Nothing else happens: the first beat comes after GatewayStarted and ActiveAlarms, the second after the first.
    let last = |beat: &serde_json::Value| beat["data"]["last_sequence"].as_u64();
    assert_eq!((last(&beats[0]), last(&beats[1])), (Some(2), Some(3)));
    let at = |beat: &serde_json::Value| -> jiff::Timestamp {
        let time = beat["time"].as_str().expect("a time");
        time.parse().expect("RFC 3339")
    };
    let two = at(&beats[2]).duration_since(at(&beats[0]));
    assert!(two.as_millis() >= 1_990, "three beats within {two}, one a second");
}
