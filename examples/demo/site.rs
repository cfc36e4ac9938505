//! The site: thermostats that know how often they were too hot, and a boiler on a serial line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::io::AsyncWriteExt;
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

use super::Failure;

const EVERY: Duration = Duration::from_millis(100);

/// A temperature that goes up and down around the threshold of 30, starting in the cool.
#[derive(Default)]
struct Weather {
    step: u32,
    too_hot: bool,
    raises: u64,
}

impl Weather {
    /// The next reading; `phase` keeps the devices apart.
    fn next(&mut self, phase: usize) -> f64 {
        self.step += 1;
        let speed = 5.0 + f64::from(u32::try_from(phase).unwrap_or(0));
        let value = (28.5 - 4.0 * (f64::from(self.step) / speed).cos()).clamp(0.0, 50.0);
        let value = (value * 10.0).round() / 10.0;
        if !self.too_hot && value > 30.0 {
            self.too_hot = true;
            self.raises += 1;
        } else if self.too_hot && value <= 28.0 {
            self.too_hot = false;
        }
        value
    }
}

pub(super) struct Thermostat {
    pub(super) number: usize,
    pub(super) door: SocketAddr,
    pub(super) acknowledged: Arc<AtomicU64>,
}

impl Thermostat {
    /// Publishes until `stop` and until all is acknowledged; tells how often it was too hot.
    pub(super) async fn live(self, stop: CancellationToken) -> Result<(String, u64), Failure> {
        let device = format!("thermostat-{}", self.number);
        let options = MqttOptions::new(&device, self.door.ip().to_string(), self.door.port());
        let (client, mut events) = AsyncClient::new(options, 64);
        let topic = format!("thermostats/{device}/state");
        let mut weather = Weather::default();
        let mut owed = 0_u64;
        let mut ticks = tokio::time::interval(EVERY);
        // The event loop is not cancel-safe, so it has a task of its own.
        let mut pump = tokio::task::JoinSet::new();
        let (tell, mut acks) = tokio::sync::mpsc::channel(64);
        pump.spawn(async move {
            while let Ok(event) = events.poll().await {
                if matches!(event, Event::Incoming(Packet::PubAck(_))) && tell.send(()).await.is_err() {
                    return;
                }
            }
        });
        loop {
            tokio::select! {
                _ = ticks.tick(), if !stop.is_cancelled() => {
                    let payload = format!(r#"{{"temp": {:.1}}}"#, weather.next(self.number));
                    client.publish(&topic, QoS::AtLeastOnce, false, payload).await?;
                    owed += 1;
                }
                ack = acks.recv() => {
                    ack.ok_or("the door hung up on a thermostat")?;
                    owed -= 1;
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                () = stop.cancelled(), if owed == 0 => return Ok((device, weather.raises)),
            }
        }
    }
}

/// A boiler behind a pty, which is as real as a serial line gets without a wire.
pub(super) struct Boiler {
    pub(super) port: PathBuf,
    line: SerialStream,
}

impl Boiler {
    pub(super) fn plug_in(folder: &Path) -> Result<Self, Failure> {
        // The other end is the gateway's to open: closed here, it is an adapter that nobody has opened yet.
        let (line, other_end) = SerialStream::pair()?;
        let real = other_end.name().ok_or("the pty has no name")?;
        let port = folder.join("boiler-port");
        std::os::unix::fs::symlink(real, &port)?;
        Ok(Self { port, line })
    }

    pub(super) async fn live(mut self, stop: CancellationToken) -> Result<(String, u64), Failure> {
        let mut weather = Weather::default();
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let line = format!("{{\"temp\": {:.1}}}\n", weather.next(0));
                    self.line.write_all(line.as_bytes()).await?;
                }
                () = stop.cancelled() => return Ok(("boiler".to_owned(), weather.raises)),
            }
        }
    }
}
