//! A device that raises an alarm and clears it, each under its own number, at a pace.

use std::{collections::BTreeSet, time::Duration};

use rumqttc::QoS;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    PATIENCE,
    cloud::Cloud,
    device::{Device, Version},
};

/// Between two alarms: these are tests of brokers, which also have to keep up.
const PACE: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, PartialEq)]
enum Order {
    GoOn,
    Pause,
    Stop,
}

pub(crate) struct Load {
    order: watch::Sender<Order>,
    /// Alarms whose end was acknowledged, and whether the device waits.
    done: watch::Receiver<(usize, bool)>,
    device: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(door: u16) -> Self {
        let (order, mut orders) = watch::channel(Order::GoOn);
        let (tell, done) = watch::channel((0, false));
        let mut device = JoinSet::new();
        device.spawn(async move {
            let mut device = Device::new(Version::V311, QoS::AtLeastOnce, door, "load");
            let mut pace = interval(PACE);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for number in 1.. {
                pace.tick().await;
                if *orders.borrow() == Order::Pause {
                    tell.send_modify(|(_, waits)| *waits = true);
                }
                let go_on = orders
                    .wait_for(|order| *order != Order::Pause)
                    .await
                    .map(|order| *order);
                if !go_on.is_ok_and(|order| order == Order::GoOn) {
                    return;
                }
                device
                    .publish_until_acknowledged(&[&format!(r#"{{"temp": {}}}"#, 1_000 + number)])
                    .await;
                device.publish_until_acknowledged(&[r#"{"temp": 20}"#]).await;
                tell.send_replace((number, false));
            }
        });
        Self { order, done, device }
    }

    async fn wait(&mut self, what: impl FnMut(&(usize, bool)) -> bool) -> usize {
        let reached = timeout(PATIENCE, self.done.wait_for(what)).await;
        reached
            .expect("the gateway acknowledges in time")
            .expect("the device lives")
            .0
    }

    /// Waits until so many alarms more were acknowledged; how many there are then.
    pub(crate) async fn more(&mut self, count: usize) -> usize {
        let wanted = self.done.borrow().0 + count;
        self.wait(|(done, _)| *done >= wanted).await
    }

    /// Until [`Load::go_on`]; how many alarms there are.
    pub(crate) async fn pause(&mut self) -> usize {
        self.order.send_replace(Order::Pause);
        self.wait(|(_, waits)| *waits).await
    }

    pub(crate) fn go_on(&self) {
        self.order.send_replace(Order::GoOn);
    }

    /// How many alarms it was in all.
    pub(crate) async fn stop(mut self) -> usize {
        self.order.send_replace(Order::Stop);
        let ended = timeout(PATIENCE, self.device.join_next()).await;
        ended.expect("in time").expect("one device").expect("no panic");
        self.done.borrow().0
    }
}

/// Waits until the cloud has the end of each alarm up to this one.
pub(crate) async fn arrives(cloud: &Cloud, alarms: usize) {
    let mut there = BTreeSet::new();
    let mut scanned = 0;
    cloud
        .wait_until(|seen| {
            let new = seen.get(scanned..).unwrap_or_default();
            there.extend(
                new.iter()
                    .filter(|event| is_of_load(event, "cleared"))
                    .map(|event| number(&event["data"]["episode"]["max"])),
            );
            scanned = seen.len();
            there.range(1..=alarms).count() == alarms
        })
        .await;
}

/// The numbers of the alarms that were raised, in the order of their first arrival.
pub(crate) fn raised(cloud: &Cloud) -> Vec<usize> {
    let distinct = cloud.distinct();
    let raised = distinct.iter().filter(|event| is_of_load(event, "raised"));
    raised.map(|event| number(&event["data"]["value"])).collect()
}

fn is_of_load(event: &Value, transition: &str) -> bool {
    event["transition"] == transition && event["data"]["device"]["id"] == "load"
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it was sent as a small whole number"
)]
fn number(value: &Value) -> usize {
    value.as_f64().expect("a number") as usize - 1_000
}
