//! The bench as the scenarios find it: a board with power, its uplink and its adapter, and a cloud behind the uplink that
//! has kept everything since the board began. One for all scenarios, one scenario at a time: a boot is dear. A scenario
//! that fails leaves a board that nobody can vouch for: the next one begins with a new one.

use std::{
    net::{TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{LazyLock, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rumqttc::QoS;
use serde_json::Value;
use tidegate::control::status::Status;
use tokio::{
    runtime::Runtime,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    PATIENCE,
    board::{self, Board, HardwareClock, Wiring},
    cloud::Cloud,
    contract,
    device::{Device, Version},
    leash::{Folder, Leash},
    text,
};

/// Outlives every scenario, as the cloud's subscription does.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static RIG: Mutex<Option<Rig>> = Mutex::new(None);

/// What random numbers are drawn from: told, so that what fails can be tried again as far as a board repeats itself.
pub(crate) fn seed() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| {
        let told = std::env::var("TIDEGATE_SEED").ok();
        let seed = told.and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| fastrand::u64(..));
        eprintln!("TIDEGATE_SEED={seed}");
        seed
    });
    *SEED
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Looks again and again until there is something to see, or patience ends.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(seen) = look() {
            return Some(seen);
        }
        thread::sleep(Duration::from_millis(50));
    }
    None
}

/// Runs a scenario on the board; afterwards everything that the cloud ever got must be as the contract says, in order
/// and complete.
pub(crate) fn on_the_board(scenario: impl AsyncFnOnce(&mut Rig)) {
    // A scenario that failed took its board along.
    let mut kept = RIG.lock().unwrap_or_else(PoisonError::into_inner);
    RUNTIME.block_on(async {
        let mut rig = match kept.take() {
            Some(rig) => rig,
            None => Rig::begin(&[]).await,
        };
        scenario(&mut rig).await;
        rig.assert_whole().await;
        *kept = Some(rig);
    });
}

/// The same on a new board that loses its power at these parts of the time that one needs to be ready, before it is left
/// to boot.
pub(crate) fn on_a_new_board(cuts: &[f64], scenario: impl AsyncFnOnce(&mut Rig)) {
    {
        let mut kept = RIG.lock().unwrap_or_else(PoisonError::into_inner);
        RUNTIME.block_on(async {
            let earlier = match kept.take() {
                Some(rig) => rig,
                None => Rig::begin(&[]).await,
            };
            let cuts: Vec<_> = cuts.iter().map(|part| earlier.took.mul_f64(*part)).collect();
            drop(earlier);
            *kept = Some(Rig::begin(&cuts).await);
        });
    }
    on_the_board(scenario);
}

pub(crate) struct Rig {
    pub(crate) board: Box<dyn Board>,
    pub(crate) cloud: Cloud,
    pub(crate) wiring: Wiring,
    /// From power on to READY, as it began.
    took: Duration,
    _broker: Leash,
    _folder: Folder,
}

impl Drop for Rig {
    /// Asks the board what helps to see why a scenario failed, if it can still be asked.
    fn drop(&mut self) {
        if thread::panicking() {
            let ask = AssertUnwindSafe(|| self.board.run(DIAGNOSIS, &[]).text);
            eprintln!("--- board ---\n{}", catch_unwind(ask).unwrap_or_default());
        }
    }
}

const DIAGNOSIS: &str =
    "tidegate status; journalctl --no-pager -b -n 60 -o short-monotonic; ip -brief address";

impl Rig {
    /// A new board, whose power goes after each of these times before it is left to boot.
    async fn begin(cuts: &[Duration]) -> Self {
        let mut board = board::named();
        let wiring = board.wiring();
        let folder = Folder::new();
        let (address, port) = &wiring.broker_listens;
        let file = folder.path().join("mosquitto.conf");
        let lines = format!("listener {port} {address}\nallow_anonymous true\nmax_queued_messages 0\n");
        std::fs::write(&file, lines).expect("written");
        let file = file.to_str().expect("UTF-8").to_owned();
        let broker = Leash::put_on("mosquitto", &["-c".to_owned(), file], &folder.path().join("log"));
        until(|| TcpStream::connect(("127.0.0.1", *port)).ok())
            .expect("mosquitto is installed (./test does it)");
        let cloud = Cloud::subscribe(*port).await;
        board.renew(&configuration(&wiring));
        for time in cuts {
            eprintln!("power for {} ms: {}", time.as_millis(), board.flicker(*time));
        }
        let begun = Instant::now();
        board.power_on(HardwareClock::Right);
        let mut rig = Self {
            board,
            cloud,
            wiring,
            took: Duration::ZERO,
            _broker: broker,
            _folder: folder,
        };
        rig.is_ready().await;
        rig.took = begun.elapsed();
        eprintln!("begun and ready {} s after power on", rig.took.as_secs());
        rig
    }

    /// A command that must do.
    pub(crate) fn done(&mut self, command: &str) -> String {
        self.done_with(command, &[])
    }

    /// The same, with this as its input.
    pub(crate) fn done_with(&mut self, command: &str, input: &[u8]) -> String {
        let output = self.board.run(command, input);
        assert_eq!(output.code, 0, "{command}: {}", output.text);
        output.text.trim_end().to_owned()
    }

    /// How the gateway stands; it may have something to complain about.
    pub(crate) fn status(&mut self) -> Status {
        let output = self.board.run("tidegate status --format json 2>/dev/null", &[]);
        serde_json::from_str(&output.text)
            .unwrap_or_else(|error| panic!("no status: {error}: {}", output.text))
    }

    /// Waits until the gateway stands like this.
    pub(crate) fn stands(&mut self, what: &str, is_so: impl Fn(&Status) -> bool) -> Status {
        let mut last = Status::default();
        let so = until(|| {
            last = self.status();
            is_so(&last).then(|| last.clone())
        });
        so.unwrap_or_else(|| panic!("{what}: it never was so: {last:#?}"))
    }

    /// Waits until systemd has the gateway for ready and this boot's start is told upstream. What the cloud got of it.
    pub(crate) async fn is_ready(&mut self) -> Value {
        let state = "systemctl is-active tidegate";
        let active = until(|| (self.board.run(state, &[]).code == 0).then_some(()));
        assert!(active.is_some(), "not ready");
        let boot = self.done("cat /proc/sys/kernel/random/boot_id").replace('-', "");
        let started = |event: &Value| {
            event["type"] == "io.tidegate.gateway.GatewayStarted"
                && event["data"]["boot_id"]
                    .as_str()
                    .is_some_and(|id| id.replace('-', "") == boot)
        };
        self.cloud.wait_for(started).await
    }

    /// Takes the power and gives it again. What the cut took, and the start that the cloud was told of.
    pub(crate) async fn power_cycle(&mut self, clock: HardwareClock) -> (String, Value) {
        let cut = self.board.cut_power();
        self.board.power_on(clock);
        (cut, self.is_ready().await)
    }

    /// A device that the gateway has not seen before.
    pub(crate) fn device(&self, name: &str) -> Device {
        let (host, port) = &self.wiring.door;
        let mut device = Device::new(Version::V311, QoS::AtLeastOnce, *port, name);
        host.clone_into(&mut device.host);
        device
    }

    /// Says the same on the adapter's line again and again, as sensors do, until the cloud has such an event.
    pub(crate) async fn says_until(&mut self, temperature: f64, wanted: impl Fn(&Value) -> bool) -> Value {
        let line = format!("{{\"temp\": {temperature}}}\n");
        let mut ticks = interval(Duration::from_millis(500));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = std::pin::pin!(self.cloud.wait_for(wanted));
        loop {
            tokio::select! {
                event = &mut heard => return event,
                _ = ticks.tick() => self.board.say(line.as_bytes()),
            }
        }
    }

    /// Waits until all that the gateway has recorded so far is in the cloud.
    pub(crate) async fn everything_delivered(&mut self) {
        let last = self.status().journal.last;
        let last = format!("{last:020}");
        let is_there = |event: &Value| event["sequence"].as_str() >= Some(&*last);
        self.cloud.wait_for(is_there).await;
    }

    /// All that the cloud got, since the board began, is an event of the contract, in order, without a hole, and each
    /// names the one before it.
    async fn assert_whole(&mut self) {
        self.everything_delivered().await;
        self.cloud.assert_first_sends_in_order();
        self.cloud.assert_no_unexplained_gap();
        for event in self.cloud.distinct() {
            contract::check(&event);
            assert_ne!(event["type"], "io.tidegate.gateway.EventsDiscarded", "{event}");
            let number = |name: &str| -> u64 { text(&event, name).parse().expect("digits") };
            assert_eq!(number("/previoussequence") + 1, number("/sequence"), "{event}");
        }
    }
}

/// As docs/installing.md has an installer write it.
fn configuration(wiring: &Wiring) -> String {
    format!(
        r#"
[gateway]
id = "bench"

[mqtt]
listen = ["0.0.0.0:1883"]
allow-anonymous = true

[journal]
max-bytes = "8MiB"
when-full = "refuse"

[[mqtt.readings]]
topic = "thermostats/{{device}}/state"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[serial]]
name = "boiler"
port = "{port}"
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
max-raises = "100000/h"

[[sink.mqtt]]
name = "cloud"
url = "mqtt://{broker}:{broker_port}"
ack-timeout = "5s"
"#,
        port = wiring.port,
        broker = wiring.broker,
        broker_port = wiring.broker_listens.1,
    )
}
