//! The main job in half a minute, with real parts: the daemon, five thermostats over MQTT, one sensor over a serial
//! line (a pty), a cloud broker, and an uplink that is cut and comes back. Ends with 0 only if nothing was lost.
//!
//! `-- --keep` lets it run on until Ctrl-C, with the door's address on the screen.

#![expect(clippy::print_stdout, reason = "a demonstration talks to the terminal")]

use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tidegate::{
    config::Config,
    daemon::{Daemon, runtime},
};
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

mod cloud;
mod site;

use cloud::{Cloud, Uplink};
use site::Thermostat;

type Failure = Box<dyn Error + Send + Sync>;

const THERMOSTATS: usize = 5;
const CALM: Duration = Duration::from_secs(5);
const CUT: Duration = Duration::from_secs(7);
const DRAIN_WITHIN: Duration = Duration::from_secs(12);

fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    let told = runtime()
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(tell(keep)));
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("the demonstration failed: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Says a line of the story with the time since its beginning.
struct Story(Instant);

impl Story {
    fn say(&self, line: &str) {
        println!("{:6.1} s  {line}", self.0.elapsed().as_secs_f64());
    }
}

async fn tell(keep: bool) -> Result<(), Failure> {
    let story = Story(Instant::now());
    let folder = tempfile::tempdir()?;
    let cloud = Cloud::start().await?;
    let uplink = Uplink::to(cloud.address()).await?;
    story.say("a stand-in cloud broker listens; the uplink to it is up");
    let boiler = site::Boiler::plug_in(folder.path())?;

    let config = configuration(folder.path(), uplink.address().port(), &boiler.port)?;
    let stop = CancellationToken::new();
    let (tell_address, address) = tokio::sync::oneshot::channel();
    let mut gateway = JoinSet::new();
    gateway.spawn({
        let stop = stop.clone();
        let daemon = Daemon {
            config,
            rejected: None,
            last_good: None,
            source: None,
            socket: None,
        };
        async move {
            daemon
                .run(stop, |addresses| {
                    _ = tell_address.send(addresses.first().copied());
                })
                .await
        }
    });
    let door = match address.await {
        Ok(door) => door.ok_or("the door has no address")?,
        Err(_) => return Err(why_it_ended(&mut gateway).await),
    };
    story.say(&format!("the gateway is ready; its door is mqtt://{door}"));

    let acknowledged = Arc::new(AtomicU64::new(0));
    let site_stop = CancellationToken::new();
    let mut site = JoinSet::new();
    for number in 1..=THERMOSTATS {
        let thermostat = Thermostat {
            number,
            door,
            acknowledged: Arc::clone(&acknowledged),
        };
        site.spawn(thermostat.live(site_stop.clone()));
    }
    site.spawn(boiler.live(site_stop.clone()));
    story.say(&format!(
        "{THERMOSTATS} thermostats publish at QoS 1, one boiler talks over a serial line"
    ));

    cloud.wait_for_first_alarm(DRAIN_WITHIN).await?;
    story.say(&format!(
        "the first alarm is in the cloud: {}",
        cloud.first_alarm()
    ));
    tokio::time::sleep(CALM).await;
    story.say(&format!(
        "{} readings acknowledged, {} events in the cloud",
        acknowledged.load(Ordering::Relaxed),
        cloud.events()
    ));

    uplink.cut();
    let before = cloud.events();
    story.say("uplink lost: the cable is cut; the thermostats notice nothing");
    tokio::time::sleep(CUT).await;
    story.say(&format!(
        "{} readings acknowledged meanwhile",
        acknowledged.load(Ordering::Relaxed)
    ));

    if keep {
        uplink.mend();
        story.say(&format!(
            "uplink back; running on until Ctrl-C. Try: mosquitto_sub -p {} -t 'tidegate/#' -v",
            door.port()
        ));
        tokio::signal::ctrl_c().await?;
    }
    site_stop.cancel();
    let mut expected = BTreeMap::new();
    while let Some(lived) = site.join_next().await {
        let (device, raises) = lived??;
        expected.insert(device, raises);
    }
    let owed: u64 = expected.values().sum();
    story.say(&format!(
        "{owed} alarms were raised so far; at least {} wait for the uplink",
        owed.saturating_sub(before)
    ));

    uplink.mend();
    story.say("uplink back; the gateway's next attempt is due within some seconds");
    cloud.wait_for_more_than(before, DRAIN_WITHIN).await?;
    let back = Instant::now();
    cloud.wait_for_alarms(&expected, DRAIN_WITHIN).await?;
    story.say(&format!(
        "drained {} events in {} ms",
        cloud.events() - before,
        back.elapsed().as_millis()
    ));

    stop.cancel();
    match gateway.join_next().await {
        Some(Ok(Ok(()))) => {}
        Some(Ok(Err(error))) => return Err(error.into()),
        Some(Err(panic)) => return Err(panic.into()),
        None => return Err("the gateway was not running".into()),
    }
    let missing = cloud.missing(&expected);
    story.say(&format!(
        "the gateway stopped cleanly. In the cloud: {} events, {} duplicates, lost {}",
        cloud.events(),
        cloud.duplicates(),
        missing.len()
    ));
    for line in &missing {
        println!("          missing: {line}");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err("something was lost".into())
    }
}

async fn why_it_ended(gateway: &mut JoinSet<Result<(), tidegate::daemon::Error>>) -> Failure {
    match gateway.join_next().await {
        Some(Ok(Err(error))) => error.into(),
        Some(Err(panic)) => panic.into(),
        _ => "the gateway ended before it was ready".into(),
    }
}

fn configuration(folder: &Path, uplink_port: u16, boiler: &Path) -> Result<Config, Failure> {
    let file: PathBuf = folder.join("gateway.toml");
    let text = format!(
        r#"
[gateway]
id = "demo"
labels = {{ site = "your terminal" }}

[journal]
dir = "{journal}"
max-bytes = "16MiB"

[mqtt]
listen = ["127.0.0.1:0"]

[[mqtt.readings]]
topic = "thermostats/{{device}}/state"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[serial]]
name = "boiler"
port = "{boiler}"
baud = 9600
format = "json"
device = "boiler"

[[serial.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
clear = 28.0
max-raises = "60/h"

[[sink.mqtt]]
name = "cloud"
url = "mqtt://127.0.0.1:{uplink_port}"
"#,
        journal = folder.join("journal").display(),
        boiler = boiler.display(),
    );
    std::fs::write(&file, text)?;
    Config::load(&file).map_err(|report| report.to_string().into())
}
