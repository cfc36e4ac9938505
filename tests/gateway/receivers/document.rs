//! The example of docs/subscribing.md, run as it is written there, but for ports and folders.

use std::path::Path;

use tokio::process::Command;

use super::{
    super::parts::{Gateway, Mosquitto, Site},
    both,
};

/// The fenced blocks of this language, in order.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).expect("it is there");
    let opening = format!("```{language}\n");
    text.split(&opening)
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

/// A line without what is different in each run: ids and times. The numbers of episodes and the rest stay.
fn lasting(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let name = word.trim_end_matches(':');
        let dated = name.starts_with("20") && name.ends_with('Z');
        let (head, tail) = name.split_once('-').unwrap_or((name, ""));
        match (head.len(), tail.bytes().all(|byte| byte.is_ascii_digit())) {
            _ if dated => "TIME".to_owned(),
            _ if name.starts_with("urn:tidegate:gateway:") => "SOURCE".to_owned(),
            (13, true) => "ID".to_owned(),
            (13, false) => format!("EPOCH-{tail}"),
            _ => name.to_owned(),
        }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    // How many events of the gateway's own there are is not what the example is about.
    line.split(" up to ").next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_example_of_the_document_is_what_comes_out() {
    let broker = Mosquitto::start().await;
    let site = Site::new();
    let receivers = both(site.folder.path(), broker.port).await;
    let door = super::super::parts::free_port().await;
    let ports = |text: &str| {
        text.replace("127.0.0.1:1884", &format!("127.0.0.1:{}", broker.port))
            .replace("-p 1883", &format!("-p {door}"))
            .replace("[mqtt] ", &format!("[mqtt]\nlisten = [\"127.0.0.1:{door}\"] "))
    };
    let config = ports(&blocks("README.md", "toml")[0]);
    std::fs::write(site.config(), config).expect("written");
    let gateway = Gateway::start_at(&site, door).await;

    for command in blocks("docs/subscribing.md", "sh")[0].lines() {
        let done = Command::new("sh").arg("-c").arg(ports(command)).status().await;
        assert!(done.expect("sh runs").success(), "{command}");
    }

    let shown = blocks("docs/subscribing.md", "text");
    let lines = |text: &str| text.lines().map(lasting).collect::<Vec<_>>();
    for receiver in &receivers {
        let alarms = || {
            let said = receiver.said();
            let alarms = said
                .lines()
                .filter(|line| line.contains("raised:") || line.contains("cleared:"));
            alarms.map(lasting).collect::<Vec<_>>()
        };
        let all = || alarms().len() >= lines(&shown[0]).len();
        receiver.until("all alarms are here", all).await;
        assert_eq!(alarms(), lines(&shown[0]), "{:?}", receiver.language);
        let said = receiver.report_in_full().await.0;
        assert_eq!(lines(&said), lines(&shown[1]), "{:?}", receiver.language);
    }
    gateway.stop().await;
}
