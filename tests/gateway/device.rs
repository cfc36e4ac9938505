//! A device that sends again until it was acknowledged, as devices do.

use std::time::Duration;

use rumqttc::QoS;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

#[expect(clippy::large_enum_variant, reason = "a test has four of them")]
enum Line {
    V311(rumqttc::AsyncClient, rumqttc::EventLoop),
    V5(rumqttc::v5::AsyncClient, rumqttc::v5::EventLoop),
}

pub(crate) struct Device {
    version: Version,
    qos: QoS,
    /// Where the gateway is: this machine, unless told otherwise.
    pub(crate) host: String,
    port: u16,
    name: String,
    line: Option<Line>,
    /// How often it had to connect.
    pub(crate) connections: usize,
}

impl Device {
    pub(crate) fn new(version: Version, qos: QoS, port: u16, name: &str) -> Self {
        Self {
            version,
            qos,
            host: "127.0.0.1".to_owned(),
            port,
            name: name.to_owned(),
            line: None,
            connections: 0,
        }
    }

    /// Publishes all payloads at once, and again on a new connection, until all are acknowledged on one.
    pub(crate) async fn publish_until_acknowledged(&mut self, payloads: &[&str]) {
        // The pace at which it tries; nothing waits for it.
        let mut tries = interval(Duration::from_millis(10));
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let trying = async {
            while !self.try_publish(payloads).await {
                self.line = None;
                tries.tick().await;
            }
        };
        timeout(PATIENCE, trying)
            .await
            .expect("the gateway acknowledges in time");
    }

    async fn try_publish(&mut self, payloads: &[&str]) -> bool {
        let topic = format!("thermostats/{}/state", self.name);
        let line = self.line.get_or_insert_with(|| {
            self.connections += 1;
            connect(self.version, &self.name, (&self.host, self.port))
        });
        match line {
            Line::V311(client, events) => {
                for payload in payloads {
                    client
                        .try_publish(&topic, self.qos, false, *payload)
                        .expect("the queue is large enough");
                }
                acknowledged_v311(events, payloads.len()).await
            }
            Line::V5(client, events) => {
                let qos = match self.qos {
                    QoS::AtMostOnce => rumqttc::v5::mqttbytes::QoS::AtMostOnce,
                    QoS::AtLeastOnce => rumqttc::v5::mqttbytes::QoS::AtLeastOnce,
                    QoS::ExactlyOnce => rumqttc::v5::mqttbytes::QoS::ExactlyOnce,
                };
                for payload in payloads {
                    let payload = (*payload).to_owned();
                    client
                        .try_publish(&topic, qos, false, payload)
                        .expect("the queue is large enough");
                }
                acknowledged_v5(events, payloads.len()).await
            }
        }
    }
}

fn connect(version: Version, name: &str, (host, port): (&str, u16)) -> Line {
    match version {
        Version::V311 => {
            let mut options = rumqttc::MqttOptions::new(name, host, port);
            options.set_keep_alive(Duration::from_secs(10));
            let (client, events) = rumqttc::AsyncClient::new(options, 64);
            Line::V311(client, events)
        }
        Version::V5 => {
            let mut options = rumqttc::v5::MqttOptions::new(name, host, port);
            options.set_keep_alive(Duration::from_secs(10));
            let (client, events) = rumqttc::v5::AsyncClient::new(options, 64);
            Line::V5(client, events)
        }
    }
}

async fn acknowledged_v311(events: &mut rumqttc::EventLoop, count: usize) -> bool {
    use rumqttc::{Event, Packet};
    let mut left = count;
    while left > 0 {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_) | Packet::PubRec(_))) => left -= 1,
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}

async fn acknowledged_v5(events: &mut rumqttc::v5::EventLoop, count: usize) -> bool {
    use rumqttc::v5::{
        Event,
        mqttbytes::v5::{Packet, PubAckReason, PubRecReason},
    };
    let mut left = count;
    while left > 0 {
        match events.poll().await {
            Ok(Event::Incoming(Packet::PubAck(ack))) => {
                assert!(
                    matches!(
                        ack.reason,
                        PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                    ),
                    "{ack:?}"
                );
                left -= 1;
            }
            Ok(Event::Incoming(Packet::PubRec(ack))) => {
                assert!(
                    matches!(
                        ack.reason,
                        PubRecReason::Success | PubRecReason::NoMatchingSubscribers
                    ),
                    "{ack:?}"
                );
                left -= 1;
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
    true
}
