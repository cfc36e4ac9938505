//! The real daemon on a board without a clock: libfaketime tells it that it is 1970, again at every start, and a
//! library in front of the C library answers `adjtimex` as the kernel would. Nothing in the product knows of either.

use std::path::{Path, PathBuf};

use tidegate::time::{Clock, EARLIEST};

use super::*;

/// What a time daemon does to the kernel: `adjtimex` says so as long as the file is there.
const KERNEL: &str = r#"
#include <stdlib.h>
#include <sys/timex.h>
#include <unistd.h>
int adjtimex(struct timex *buf) {
    int synchronised = access(getenv("TEST_SYNCHRONISED"), F_OK) == 0;
    buf->maxerror = synchronised ? 1000 : 16000000;
    return synchronised ? TIME_OK : TIME_ERROR;
}
"#;

pub(crate) struct Board {
    wall: PathBuf,
    synchronised: PathBuf,
    preload: String,
}

impl Board {
    async fn in_1970(folder: &Path) -> Self {
        let (source, kernel) = (folder.join("kernel.c"), folder.join("kernel.so"));
        std::fs::write(&source, KERNEL).expect("written");
        let mut cc = tokio::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(&kernel).arg(&source);
        let built = cc.status().await.expect("cc is installed (./test does it)");
        assert!(built.success());
        let wall = folder.join("wall");
        std::fs::write(&wall, "@1970-01-01 00:01:00").expect("written");
        let preload = format!("{} {}", faketime().display(), kernel.display());
        Self {
            wall,
            synchronised: folder.join("synchronised"),
            preload,
        }
    }

    /// One whose clock is right.
    pub(crate) async fn synchronised(folder: &Path) -> Self {
        let board = Self::in_1970(folder).await;
        board.synchronise();
        board
    }

    /// To this offset from the true time.
    pub(crate) fn sets(&self, offset: &str) {
        std::fs::write(&self.wall, offset).expect("written");
    }

    pub(crate) async fn start(&self, site: &Site) -> Gateway {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let environment = [
            ("LD_PRELOAD", self.preload.clone()),
            ("FAKETIME_TIMESTAMP_FILE", path(&self.wall)),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // The clock of the timers is real, as a board's is.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("TZ", "UTC".to_owned()),
            ("TEST_SYNCHRONISED", path(&self.synchronised)),
        ];
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        Gateway::start_in(site, &environment).await
    }

    /// Somebody sets the clock, wrong; the kernel vouches for nothing that was set by hand.
    fn set_by_hand(&self) {
        std::fs::remove_file(&self.synchronised).expect("it was synchronised");
        self.sets("-1d");
    }

    /// A time daemon sets the clock, then says so.
    fn synchronise(&self) {
        self.sets("+0");
        std::fs::write(&self.synchronised, "").expect("written");
    }
}

fn faketime() -> PathBuf {
    let library = |dir: PathBuf| dir.join("faketime/libfaketimeMT.so.1");
    let dirs = std::fs::read_dir("/usr/lib").expect("there is one");
    let dirs = dirs.filter_map(|dir| Some(dir.ok()?.path()));
    let found = dirs.map(library).find(|library| library.exists());
    found.expect("faketime is installed (./test does it)")
}

fn micros(event: &Value, pointer: &str) -> i64 {
    let time: jiff::Timestamp = text(event, pointer).parse().expect("RFC 3339");
    time.as_microsecond()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_1970_alarms_come_on_time_with_estimates_and_once_the_clock_is_set_with_the_times_as_they_were() {
    let broker = Mosquitto::start().await;
    let cable = Cable::to(broker.port).await;
    let cloud = Cloud::subscribe(broker.port).await;
    let site = Site::new().uplink(cable.port, "5").rule("hold = \"1s\"");
    let board = Board::in_1970(site.folder.path()).await;
    let mut gateway = board.start(&site).await;
    let mut device = Device::new(Version::V5, QoS::AtLeastOnce, gateway.door, "thermostat-7");

    device.publish_until_acknowledged(&[r#"{"temp": 31.0}"#]).await;
    let raised = cloud.wait_for(|event| event["transition"] == "raised").await;
    let held = raised["data"]["episode"]["duration_ms"]
        .as_u64()
        .expect("a number");
    assert!((1_000..1_200).contains(&held), "held for {held} ms");
    assert_eq!(raised["clockquality"], "unknown");
    assert!(micros(&raised, "/data/episode/since") >= EARLIEST.0, "{raised}");

    // Killed, and 1970 again: no time goes back.
    gateway.kill().await;
    gateway = board.start(&site).await;
    device.publish_until_acknowledged(&[r#"{"temp": 27.0}"#]).await;
    let cleared = cloud.wait_for(|event| event["transition"] == "cleared").await;
    assert_eq!(cleared["clockquality"], "unknown");
    for time in ["/time", "/recordedtime"] {
        assert!(
            micros(&cleared, time) >= micros(&raised, time),
            "{raised} {cleared}"
        );
    }

    // What cannot be sent yet is stored, and the next run finds the right time.
    cable.cut();
    let local = Cloud::subscribe(gateway.door).await;
    let before = Clock::system().moment().wall.0;
    device.publish_until_acknowledged(&[r#"{"temp": 32.0}"#]).await;
    let estimated = local.wait_for(|event| event["transition"] == "raised").await;
    assert_eq!(estimated["clockquality"], "unknown");
    let after = Clock::system().moment().wall.0;
    gateway.kill().await;
    gateway = board.start(&site).await;
    let local = Cloud::subscribe(gateway.door).await;
    board.synchronise();
    let told = local
        .wait_for(|event| event["type"] == "io.tidegate.gateway.ClockSynchronised")
        .await;
    assert_eq!(told["clockquality"], "synchronised");
    let moved = told["data"]["moved_s"].as_f64().expect("a number");
    assert!(moved > 1.0, "{told}");

    cable.mend();
    let corrected = cloud.wait_for(|event| event["id"] == estimated["id"]).await;
    assert_eq!(corrected["clockquality"], "corrected");
    let second = 1_000_000;
    for time in [
        "/data/episode/since",
        "/data/episode/raised_at",
        "/time",
        "/recordedtime",
    ] {
        let time = micros(&corrected, time);
        assert!(
            (before - second..after + second).contains(&time),
            "{before} {corrected} {after}"
        );
    }
    assert_eq!(
        micros(&corrected, "/time") - micros(&corrected, "/data/episode/since"),
        second
    );

    board.set_by_hand();
    let lost = |event: &Value| event["type"] == "io.tidegate.gateway.ClockLost";
    let lost = cloud.wait_for(lost).await;
    assert_eq!(lost["correlationid"], told["correlationid"]);
    assert_eq!(lost["clockquality"], "corrected");
    // It was right a moment before: nothing that is said now is a day early.
    assert!(micros(&lost, "/data/since") >= micros(&told, "/time"), "{lost}");
    assert!(micros(&lost, "/time") >= micros(&lost, "/data/since"), "{lost}");
    board.synchronise();
    let again = |event: &Value| {
        event["type"] == "io.tidegate.gateway.ClockSynchronised" && event["sequence"] != told["sequence"]
    };
    let again = cloud.wait_for(again).await;
    assert_eq!(again["correlationid"], lost["correlationid"]);
    let moved = again["data"]["moved_s"].as_f64().expect("a number");
    assert!(moved.abs() < 1.0, "the boot clock went on: {again}");
    gateway.stop().await;
}
