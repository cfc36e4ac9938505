//! A complete receiver of Tidegate's events: copy it and put your own work into [`Consumer::handle`].
//!
//! ```text
//! consumer run DIRECTORY HOST PORT [SINK]    receive, for ever
//! consumer report DIRECTORY                  what is missing, and which alarms are open; exit code 1 if any is missing
//! ```
//!
//! SINK is the name of the `[[sink.mqtt]]` that fills this broker; "cloud" if not given. What it promises: each event is
//! in DIRECTORY/handled.jsonl exactly once, whatever is killed and whenever; what is not there is named by `report`
//! until it comes, or until the gateway says that it will not. docs/subscribing.md says why each step is as it is.
//! The same in Python is in consumer.py beside this file; both keep the same files.

#![expect(clippy::print_stdout, reason = "it talks to the terminal")]
#![expect(
    clippy::disallowed_methods,
    reason = "a receiver is no part of the gateway: it has a clock of its own"
)]

mod state;

use std::{
    error::Error,
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use rumqttc::v5::{
    AsyncClient, Event as Mqtt, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{Packet, SubscribeReasonCode},
    },
};
use serde_json::Value as Json;
use state::{Event, State};

const TOPIC: &str = "tidegate/+/events/#";
/// So long the broker keeps what comes while we are away; what it drops is seen as a gap.
const SESSION_SECONDS: u32 = 7 * 24 * 3600;
/// As many events shall come before the first is acknowledged; brokers have been seen to send more.
const RECEIVE_MAXIMUM: u16 = 20;
/// As many acknowledgements may wait to be sent: no broker has more unanswered, for there are no more packet ids.
const REQUESTS: usize = u16::MAX as usize;
/// The largest event that a gateway sends, with room for its topic.
const MAX_PACKET: u32 = 2 * 1024 * 1024;

type Failure = Box<dyn Error>;

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments.as_slice() {
        ["report", directory] => report(Path::new(directory)),
        ["run", directory, host, port] => run(directory, host, port, "cloud"),
        ["run", directory, host, port, sink] => run(directory, host, port, sink),
        _ => Err("usage: consumer run DIRECTORY HOST PORT [SINK] | consumer report DIRECTORY".into()),
    }
}

fn run(directory: &str, host: &str, port: &str, sink: &str) -> Result<ExitCode, Failure> {
    let mut consumer = Consumer::open(Path::new(directory), sink)?;
    // The broker keeps the session under this name: one for each directory, for they belong together.
    let name = Path::new(directory).file_name().unwrap_or_default().display();
    let mut options = MqttOptions::new(format!("consumer-{name}"), host, port.parse()?);
    options
        // What came while we were away is sent now.
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_SECONDS))
        .set_receive_maximum(Some(RECEIVE_MAXIMUM))
        .set_max_packet_size(Some(MAX_PACKET))
        // The library must not acknowledge before we are done.
        .set_manual_acks(true);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        loop {
            let ended = connection(&mut consumer, options.clone()).await;
            println!("not connected: {}", ended?);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Receives on one connection until it ends; returns why it did. An error is our own: it could not be stored.
///
/// Each connection has a client of its own: no acknowledgement can go to a connection that is not its event's.
async fn connection(consumer: &mut Consumer, options: MqttOptions) -> Result<String, Failure> {
    let (client, mut events) = AsyncClient::new(options, REQUESTS);
    loop {
        match events.poll().await {
            Ok(Mqtt::Incoming(Packet::ConnAck(answer))) => {
                let session = if answer.session_present { "the" } else { "a new" };
                println!("connected: {:?}, {session} session", answer.code);
                client.try_subscribe(TOPIC, QoS::AtLeastOnce)?;
            }
            Ok(Mqtt::Incoming(Packet::SubAck(answer))) => {
                println!("subscribed: {:?}", answer.return_codes);
                // Connected and without the right to read: that would be silence for ever.
                if !matches!(answer.return_codes[..], [SubscribeReasonCode::Success(_)]) {
                    return Err(format!("the broker refuses {TOPIC}").into());
                }
            }
            Ok(Mqtt::Incoming(Packet::Publish(publish))) => {
                consumer.receive(&publish.payload)?;
                client.try_ack(&publish)?;
            }
            Ok(_) => {}
            Err(error) => return Ok(error.to_string()),
        }
    }
}

struct Consumer {
    directory: PathBuf,
    sink: String,
    state: State,
    handled: File,
}

impl Consumer {
    fn open(directory: &Path, sink: &str) -> Result<Self, Failure> {
        std::fs::create_dir_all(directory)?;
        let state = State::load(directory)?;
        // What was handled after the state was last stored was not acknowledged either: it comes again. Taking it
        // back makes handling and mark one step. With a database: one transaction for both, and no such lines.
        let path = directory.join("handled.jsonl");
        let mut handled = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        handled.set_len(state.handled_bytes)?;
        handled.seek(SeekFrom::End(0))?;
        Ok(Self {
            directory: directory.to_owned(),
            sink: sink.to_owned(),
            state,
            handled,
        })
    }

    /// Returns only when the event is handled and the mark is on the disk: then it may be acknowledged.
    fn receive(&mut self, payload: &[u8]) -> Result<(), Failure> {
        let event = match Event::read(payload) {
            Ok(event) => event,
            Err(error) => {
                // Never let what nobody can read hold up what comes behind it: say so, and let it pass.
                println!(
                    "not an event: {error} in {:.200?}",
                    String::from_utf8_lossy(payload)
                );
                return Ok(());
            }
        };
        let source = self.state.sources.entry(event.source.clone()).or_default();
        let new = source.arrived(&event);
        if new {
            if let Err(error) = source.understand(&event, &self.sink) {
                println!("{}: handled, but not understood: {error}", event.id);
            }
            self.handle(&event.whole)?;
        }
        self.state.store(&self.directory)?;
        let outcome = if new { "handled" } else { "duplicate" };
        println!("{} {}: {outcome}", event.id, event.what());
        Ok(())
    }

    /// Your work. It must be done, or be certain to be done, when this returns.
    fn handle(&mut self, event: &Json) -> Result<(), Failure> {
        writeln!(self.handled, "{event}")?;
        self.handled.sync_data()?;
        self.state.handled_bytes = self.handled.stream_position()?;
        Ok(())
    }
}

fn report(directory: &Path) -> Result<ExitCode, Failure> {
    let mut missing = false;
    for (name, source) in &State::load(directory)?.sources {
        println!("{name}: last heard {}", source.heard);
        for (identity, epoch) in &source.epochs {
            let over = if *identity == source.current {
                ""
            } else {
                " (over)"
            };
            println!("  epoch {identity}{over}: up to {}", epoch.highest);
            for (first, last, since) in &epoch.gaps {
                missing = true;
                println!("    missing {first} to {last} since {since}");
            }
        }
        if source.alarms_are_uncertain() {
            println!(
                "  a raise or a clear may be among what is missing or lost: certain with the next ActiveAlarms"
            );
        }
        let current = source.epochs.get(&source.current).into_iter();
        for (identity, episode) in current
            .flat_map(|epoch| &epoch.episodes)
            .filter(|(_, episode)| episode.open)
        {
            let (severity, since, summary) = (&episode.severity, &episode.since, &episode.summary);
            println!("  open {identity} {severity} since {since}: {summary}");
        }
    }
    Ok(if missing {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
