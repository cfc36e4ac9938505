//! A whole board, from its hardware clock to the cloud: it boots, reads an adapter, is unplugged, cut off, robbed of its
//! power in its first boot and under load, short of memory, woken in 1970, upgraded. The scenarios know only what every
//! board can do (`hil/board.rs`); which one it is, `TIDEGATE_HIL` says: `virtual`, or the path of a bench's `bench.toml`.
//! Without a board they are ignored, and say so when they are run all the same. See hil/README.md.

#![expect(clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

#[path = "hil/bench.rs"]
mod bench;
#[path = "hil/board.rs"]
mod board;
#[path = "gateway/cloud.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod cloud;
#[path = "contract/mod.rs"]
mod contract;
#[path = "gateway/device.rs"]
#[expect(dead_code, reason = "the gateway's tests use more of it")]
mod device;
#[path = "hil/disk.rs"]
mod disk;
#[path = "hil/emulated.rs"]
mod emulated;
#[path = "hil/leash.rs"]
mod leash;
#[path = "hil/load.rs"]
mod load;
#[path = "hil/rig.rs"]
mod rig;

use std::time::Duration;

use board::HardwareClock;
use load::{Load, temperature};
use rig::{Rig, on_a_new_board, on_the_board};
use serde_json::Value;
use tokio::time::Instant;

/// What no part of a scenario may take longer than: an emulated board boots in a quarter of a minute on a machine that has
/// nothing else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);

/// Power cuts of the scenario about them.
fn cuts() -> usize {
    if std::env::var_os("TIDEGATE_LONG").is_some() {
        20
    } else {
        3
    }
}

fn text<'a>(event: &'a Value, pointer: &str) -> &'a str {
    event
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_else(|| panic!("no text at {pointer} in {event}"))
}

fn is_alarm(event: &Value, device: &str, transition: &str) -> bool {
    event["data"]["device"]["id"] == device && event["transition"] == transition
}

/// What was raised for a device, once per event, in order of arrival.
fn raised(rig: &Rig, device: &str) -> Vec<Value> {
    let mut all = rig.cloud.distinct();
    all.retain(|event| is_alarm(event, device, "raised"));
    all
}

/// Each alarm of each device was acknowledged, and raised in the cloud once, in order.
fn assert_raised_once(rig: &Rig, acknowledged: &[(String, usize)]) {
    for (name, count) in acknowledged {
        let events = raised(rig, name);
        let values: Vec<f64> = events
            .iter()
            .filter_map(|event| event["data"]["value"].as_f64())
            .collect();
        let expected: Vec<f64> = (1..=*count).map(temperature).collect();
        let lost: Vec<_> = expected.iter().filter(|value| !values.contains(value)).collect();
        assert!(
            lost.is_empty(),
            "{name}: acknowledged and lost: {lost:?} of {count}"
        );
        assert_eq!(values.len(), *count, "{name}: some were raised twice");
        assert!(values == expected, "{name}: not in order: {values:?}");
    }
}

/// Raises the boiler's alarm over the adapter's line and clears it again. What was raised.
async fn boiler_alarm(rig: &mut Rig, degrees: f64) -> Value {
    let begun = rig.cloud.count(|event| is_alarm(event, "boiler", "raised"));
    let high = rig.says_until(degrees, |event| {
        is_alarm(event, "boiler", "raised") && event["data"]["value"] == degrees
    });
    let raised = high.await;
    let episode = raised["correlationid"].clone();
    let end = |event: &Value| event["transition"] == "cleared" && event["correlationid"] == episode;
    rig.says_until(20.0, end).await;
    let now = rig.cloud.count(|event| is_alarm(event, "boiler", "raised"));
    assert!(now > begun, "{raised}");
    raised
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn a_board_is_ready_after_power_on_and_what_its_adapter_reads_becomes_an_event_upstream() {
    on_the_board(async |rig| {
        let shown = "systemctl show tidegate --value -p ExecMainStartTimestampMonotonic -p ActiveEnterTimestampMonotonic";
        let moments = rig.done(shown);
        let moments: Vec<u64> = moments
            .lines()
            .map(|line| line.parse().expect("microseconds"))
            .collect();
        let memory =
            rig.done("awk '/VmRSS/ { print $2 }' /proc/$(systemctl show tidegate --value -p MainPID)/status");
        let memory: u64 = memory.parse().expect("KiB");
        let (from, to) = (
            moments.iter().min().expect("two"),
            moments.iter().max().expect("two"),
        );
        eprintln!(
            "ready {} ms after its start, {} s after the kernel's; {memory} KiB of memory",
            (to - from) / 1_000,
            to / 1_000_000
        );
        assert!(memory <= 10_000, "{memory} KiB of memory at rest");

        let raised = boiler_alarm(rig, 31.5).await;
        assert_eq!(raised["type"], "io.tidegate.rule.HighTemperature");
        assert_eq!(raised["subject"], "boiler/temperature");
        assert_eq!(raised["gateway"], "bench");
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn an_adapter_that_is_unplugged_is_told_upstream_and_read_again_when_it_is_back() {
    on_the_board(async |rig| {
        boiler_alarm(rig, 32.0).await;
        rig.board.unplug();
        let of_boiler = |event: &Value, name: &str| event["subject"] == "boiler" && event["type"] == name;
        let failed = |event: &Value| of_boiler(event, "io.tidegate.gateway.SourceFailed");
        rig.cloud.wait_for(failed).await;
        assert!(!rig.status().lines[0].open);

        rig.board.plug_in();
        boiler_alarm(rig, 32.5).await;
        let recovered = |event: &Value| of_boiler(event, "io.tidegate.gateway.SourceRecovered");
        rig.cloud.wait_for(recovered).await;
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn what_is_acknowledged_while_the_uplink_is_cut_arrives_when_it_is_back() {
    on_the_board(async |rig| {
        rig.board.cut_uplink();
        let mut device = rig.device("cut-off");
        device
            .publish_until_acknowledged(&[r#"{"temp": 33.0}"#, r#"{"temp": 20.0}"#])
            .await;
        // Whether the card's line is down is known at once; that nobody answers, when the acknowledgement is due.
        rig.stands("the uplink is lost", |status| !status.sinks[0].connected);
        assert_eq!(rig.cloud.count(|event| is_alarm(event, "cut-off", "raised")), 0);

        rig.board.mend_uplink();
        rig.cloud
            .wait_for(|event| is_alarm(event, "cut-off", "cleared"))
            .await;
        assert_eq!(raised(rig, "cut-off").len(), 1);
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn power_cuts_under_load_lose_nothing_that_was_acknowledged_and_raise_no_alarm_twice() {
    on_the_board(async |rig| {
        // One alarm that is active all the time, and is heard again after every boot.
        let mut standing = rig.device("standing");
        standing.publish_until_acknowledged(&[r#"{"temp": 40.0}"#]).await;
        let active = rig
            .cloud
            .wait_for(|event| is_alarm(event, "standing", "raised"))
            .await;
        let names = ["load-1", "load-2", "load-3", "load-4"];
        let devices = names.map(|name| (name.to_owned(), rig.device(name)));
        let mut load = Load::start(devices.into());
        let mut random = fastrand::Rng::with_seed(rig::seed());

        for cut in 1..=cuts() {
            load.more(20).await;
            // Not a wait for anything: the moment of the cut is what is drawn at random.
            let moment = Instant::now() + Duration::from_millis(random.u64(..2_000));
            tokio::time::sleep_until(moment).await;
            let begun = Instant::now();
            let (lost, started) = rig.power_cycle(HardwareClock::Right).await;
            eprintln!(
                "cut {cut}: {lost}; ready again in {} s",
                begun.elapsed().as_secs()
            );
            assert_eq!(started["data"]["unclean"], true, "{started}");
            standing.publish_until_acknowledged(&[r#"{"temp": 41.0}"#]).await;
        }
        let acknowledged = load.stop().await;
        rig.everything_delivered().await;
        assert_raised_once(rig, &acknowledged);
        let alarms: usize = acknowledged.iter().map(|(_, count)| count).sum();
        eprintln!(
            "{} cuts, {alarms} alarms acknowledged, 0 lost, 0 raised twice",
            cuts()
        );

        assert_eq!(raised(rig, "standing").len(), 1, "it was active all the time");
        standing.publish_until_acknowledged(&[r#"{"temp": 20.0}"#]).await;
        let cleared = rig
            .cloud
            .wait_for(|event| is_alarm(event, "standing", "cleared"))
            .await;
        assert_eq!(cleared["correlationid"], active["correlationid"]);
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn a_clock_that_starts_in_1970_is_told_as_unknown_and_times_are_right_once_it_is_set() {
    on_the_board(async |rig| {
        // Nobody tells it the time, and it finds no trace of an earlier one.
        rig.done("systemctl mask --now systemd-timesyncd && rm -f /var/lib/systemd/timesync/clock && sync");
        rig.power_cycle(HardwareClock::In1970).await;
        let now = tidegate::time::Clock::system().moment().wall.0 / 1_000_000;
        let there: i64 = rig.done("date +%s").parse().expect("seconds");
        assert!(there < now - 86_400, "it knows the time: {there}");

        let mut device = rig.device("timeless");
        device.publish_until_acknowledged(&[r#"{"temp": 34.0}"#]).await;
        let raised = rig
            .cloud
            .wait_for(|event| is_alarm(event, "timeless", "raised"))
            .await;
        assert_eq!(raised["clockquality"], "unknown", "{raised}");

        // What is not sent yet when somebody sets the clock gets the right time.
        rig.board.cut_uplink();
        rig.stands("the uplink is lost", |status| !status.sinks[0].connected);
        let before = tidegate::time::Clock::system().moment().wall.0;
        device.publish_until_acknowledged(&[r#"{"temp": 20.0}"#]).await;
        let after = tidegate::time::Clock::system().moment().wall.0;
        // As systemd-timesyncd does it.
        let set = format!(
            "date -s @{} && mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized",
            tidegate::time::Clock::system().moment().wall.0 / 1_000_000
        );
        rig.done(&set);
        // The gateway looks once a second; what it sent before it had seen that would still be of unknown time.
        let seen = "journalctl --boot --unit tidegate --output cat --grep 'the wall clock is synchronised'";
        let seen = rig::until(|| (rig.board.run(seen, &[]).code == 0).then_some(()));
        assert!(seen.is_some(), "the clock is not believed");
        rig.board.mend_uplink();
        let cleared = rig
            .cloud
            .wait_for(|event| is_alarm(event, "timeless", "cleared"))
            .await;
        assert_eq!(cleared["clockquality"], "corrected", "{cleared}");
        let time: jiff::Timestamp = text(&cleared, "/time").parse().expect("RFC 3339");
        // `date` takes whole seconds, and a command on a slow board takes some.
        let leeway = 5_000_000;
        let time = time.as_microsecond();
        assert!(
            (before - leeway..after + leeway).contains(&time),
            "{before} {after} {cleared}"
        );
        rig.done("systemctl unmask systemd-timesyncd");
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn an_upgrade_of_the_package_keeps_what_fills_the_journal() {
    on_the_board(async |rig| {
        rig.board.cut_uplink();
        rig.stands("the uplink is lost", |status| !status.sinks[0].connected);
        let names: Vec<_> = (1..=16).map(|number| format!("waiting-{number}")).collect();
        let devices = names.iter().map(|name| (name.clone(), rig.device(name)));
        let mut load = Load::start(devices.collect());
        let full = rig.stands("the journal is full", |status| status.journal.parked);
        let backlog = full.sinks[0].backlog;

        let version = "dpkg-query --show --showformat '${Version}' tidegate";
        let earlier = rig.done(version);
        let package = rig.board.later_package();
        rig.done_with("cat >/root/later.deb", &package);
        // It brings another gateway.toml, and nobody is there to be asked.
        rig.done("DEBIAN_FRONTEND=noninteractive dpkg --force-confold --install /root/later.deb");
        let later = rig.done(version);
        assert_ne!(earlier, later);
        let status = rig.stands("it runs", |status| status.sinks.len() == 1);
        assert!(status.sinks[0].backlog >= backlog, "{full:?} {status:?}");

        // Those that were refused have not given up.
        rig.board.mend_uplink();
        load.more(20).await;
        let acknowledged = load.stop().await;
        rig.everything_delivered().await;
        assert_raised_once(rig, &acknowledged);
        let all = rig.cloud.distinct();
        let last = all
            .iter()
            .rfind(|event| event["type"] == "io.tidegate.gateway.GatewayStarted");
        assert_eq!(
            last.expect("it started")["data"]["unclean"],
            false,
            "an upgrade stops it cleanly"
        );
        eprintln!(
            "{earlier} to {later} with {backlog} events, {} of {} bytes, to deliver: all arrived",
            full.journal.undelivered_bytes, full.journal.max_bytes
        );
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn a_gateway_that_takes_more_memory_than_its_unit_allows_is_restarted_and_loses_nothing() {
    on_the_board(async |rig| {
        let devices = ["hungry-1", "hungry-2"].map(|name| (name.to_owned(), rig.device(name)));
        let mut load = Load::start(devices.into());
        load.more(20).await;
        let restarts = "systemctl show tidegate --value -p NRestarts";
        let before = rig.done(restarts);
        // So much it has already.
        rig.done("systemctl set-property --runtime tidegate MemoryMax=1M");
        let killed = "journalctl --boot --unit tidegate --output cat --grep \"result 'oom-kill'\"";
        let killed = rig::until(|| (rig.board.run(killed, &[]).code == 0).then_some(()));
        assert!(killed.is_some(), "it lives on with less than it needs");
        rig.done("rm -r /run/systemd/system.control/tidegate.service.d && systemctl daemon-reload");
        rig.is_ready().await;
        assert_ne!(rig.done(restarts), before, "nobody restarted it");

        load.more(20).await;
        let acknowledged = load.stop().await;
        rig.everything_delivered().await;
        assert_raised_once(rig, &acknowledged);
    });
}

#[test]
#[ignore = "needs a board (TIDEGATE_HIL): hil/README.md"]
fn power_cuts_during_the_first_boot_leave_what_a_later_one_makes_whole() {
    let mut random = fastrand::Rng::with_seed(rig::seed());
    // Each a little later than the one before.
    let parts = u32::try_from(cuts()).expect("few");
    let cuts: Vec<_> = (0..parts)
        .map(|part| (f64::from(part) + random.f64()) / f64::from(parts))
        .collect();
    on_a_new_board(&cuts, async |rig| {
        // One cut more as soon as it is ready: what the first boot wrote has to be there already.
        rig.power_cycle(HardwareClock::Right).await;
        rig.stands("nothing needs a person", |status| status.healthy);
        assert_eq!(rig.done("systemctl is-system-running --wait"), "running");
        rig.done("! dmesg | grep -E 'EXT4-fs error|FAT-fs.*error'");
        // The root has grown: what is behind it on its disk is rounding.
        let behind = rig.done(
            "part=$(basename $(findmnt -no SOURCE /)); cd -P /sys/class/block/$part; \
             echo $(($(cat ../size) - $(cat start) - $(cat size)))",
        );
        let behind: u64 = behind.parse().expect("sectors");
        assert!(behind < 2_048, "{behind} sectors");
        rig.done("test $(($(df --output=size -B512 / | tail -n 1) * 10 / 9)) -ge $(cat /sys/class/block/$(basename $(findmnt -no SOURCE /))/size)");
        // What lay on the boot partition is installed, and the installer is told.
        let boot = "boot=/boot/firmware; [ -d $boot ] || boot=/boot;";
        rig.done(&format!(
            "{boot} cmp $boot/gateway.toml /etc/tidegate/gateway.toml"
        ));
        assert_eq!(
            rig.done("stat -c '%U:%G %a' /etc/tidegate/gateway.toml"),
            "root:tidegate 640"
        );
        let report = rig.done(&format!("{boot} cat $boot/tidegate-report.txt"));
        assert!(report.contains("first boot: INSTALLED"), "the report: {report:?}");
        boiler_alarm(rig, 33.5).await;
    });
}
