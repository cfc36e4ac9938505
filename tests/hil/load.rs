//! Devices that raise an alarm and clear it, each alarm under its own number, as fast as they are acknowledged, and send
//! again whatever was not.

use tokio::{sync::watch, task::JoinSet, time::timeout};

use super::{PATIENCE, device::Device};

pub(crate) struct Load {
    stop: watch::Sender<bool>,
    /// Alarms whose raise and clear were acknowledged, of all devices.
    acknowledged: watch::Sender<usize>,
    devices: JoinSet<(String, usize)>,
}

/// The reading that raises alarm `number`.
pub(crate) fn temperature(number: usize) -> f64 {
    1_000.0 + f64::from(u32::try_from(number).expect("few alarms"))
}

impl Load {
    pub(crate) fn start(devices: Vec<(String, Device)>) -> Self {
        let (stop, acknowledged) = (watch::Sender::new(false), watch::Sender::new(0));
        let mut load = Self {
            stop,
            acknowledged,
            devices: JoinSet::new(),
        };
        for (name, mut device) in devices {
            let (stopped, tell) = (load.stop.subscribe(), load.acknowledged.clone());
            load.devices.spawn(async move {
                let mut number = 0;
                while !*stopped.borrow() {
                    number += 1;
                    let high = format!(r#"{{"temp": {}}}"#, temperature(number));
                    // The second changes nothing: its acknowledgement, too, means that the alarm is on the disk.
                    device.publish_until_acknowledged(&[&high, &high]).await;
                    device.publish_until_acknowledged(&[r#"{"temp": 20}"#]).await;
                    tell.send_modify(|alarms| *alarms += 1);
                }
                (name, number)
            });
        }
        load
    }

    /// Waits until so many alarms more were acknowledged.
    pub(crate) async fn more(&mut self, count: usize) {
        let mut acknowledged = self.acknowledged.subscribe();
        let wanted = *acknowledged.borrow() + count;
        let reached = timeout(PATIENCE, acknowledged.wait_for(|alarms| *alarms >= wanted)).await;
        reached
            .expect("the gateway acknowledges in time")
            .expect("the load runs");
    }

    /// Ends; how many alarms of each device were acknowledged.
    pub(crate) async fn stop(mut self) -> Vec<(String, usize)> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        while let Some(ended) = timeout(PATIENCE, self.devices.join_next())
            .await
            .expect("in time")
        {
            all.push(ended.expect("a device does not panic"));
        }
        all
    }
}
