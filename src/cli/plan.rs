//! `tidegate plan`: how long the journal bridges an outage, how long it then drains, how long the card lasts.

use std::{
    io::{self, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;

use self::estimate::{AMPLIFICATION, Bound, CYCLES, DAY, Way};
use super::{
    Failure, duration, printed,
    table::{self, age, size},
};
use crate::{
    config::{self, Config, units},
    event::cloudevents,
    journal::{self, WhenFull, inspect::Inspection},
    time::Timestamp,
};

mod estimate;

/// An event in the journal, with the state that comes with it, and on its way, as JSON: a rule's event with the
/// shortest names.
const EVENT_BYTES: u64 = 750;
const PAYLOAD_BYTES: u64 = 1_200;
/// Around a publish: its topic, its answer, TLS, TCP and IP of both.
const MQTT_OVERHEAD: u64 = 250;
/// Around a request: head, the answer's head, TLS, TCP and IP of both.
const HTTP_OVERHEAD: u64 = 900;
/// The two snapshots of a small site's state.
const SNAPSHOTS: u64 = 128 * 1024;
/// A journal that covers less says nothing about a day.
const LEAST_MEASURED: Duration = Duration::from_hours(1);
/// So many of the newest events are measured one by one.
const SAMPLE: u64 = 1_000;

/// How many events, over what uplink, on what card.
#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// The configuration file. The certificates and passwords that it names need not be there.
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/tidegate/gateway.toml"
    )]
    config: PathBuf,
    /// Events in a day, without heartbeats [default: as many as the journal has seen; 1000, if it has seen none].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000_000))]
    events_per_day: Option<u64>,
    /// What the uplink carries, in kbit/s.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    uplink_kbit: u64,
    /// How long an answer of the uplink takes: 100ms.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    round_trip: Duration,
    /// The card, if it is not the one that the journal is on here: 32GiB.
    #[arg(long, value_name = "SIZE", value_parser = card)]
    card: Option<u64>,
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For scripts.
    Json,
}

fn card(text: &str) -> Result<u64, String> {
    units::size(text)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(|| units::SIZE_FORM.to_owned())
}

/// A number, and where it is from.
struct Figure {
    value: u64,
    from: String,
}

impl Figure {
    fn new(value: u64, from: impl Into<String>) -> Self {
        Self {
            value,
            from: from.into(),
        }
    }
}

/// What a journal that is there says about a day.
struct Measured {
    events: u64,
    span: Duration,
    event_bytes: u64,
    payload_bytes: u64,
    snapshots: u64,
}

/// One sink's.
struct SinkPlan {
    name: String,
    kind: &'static str,
    per_day: u64,
    bound: Bound,
    day: Option<Duration>,
    full: Option<Duration>,
}

struct Planned {
    events: Figure,
    heartbeats: u64,
    event_bytes: Figure,
    payload_bytes: Figure,
    max_bytes: Figure,
    room: u64,
    outage: estimate::Outage,
    max_age: Option<Duration>,
    refuses: bool,
    sinks: Vec<SinkPlan>,
    link_kbit: u64,
    round_trip: Duration,
    written: u64,
    card: Option<Figure>,
}

impl Plan {
    pub fn run(self) -> Result<(), Failure> {
        let config = Config::load_away(&self.config).map_err(|report| super::wrong(&report))?;
        let (measured, why_not) = measure(&config.journal.dir);
        if let Some(why) = why_not {
            super::noted(&format!("nothing is measured: {why}"));
        }
        let planned = self.plan(&config, measured.as_ref());
        let mut out = io::stdout().lock();
        printed(match self.format {
            Format::Text => tell(&planned, &mut out),
            Format::Json => writeln!(out, "{:#}", as_json(&planned)),
        })
    }

    fn plan(&self, config: &Config, measured: Option<&Measured>) -> Planned {
        let measured_from = |what: &str, measured: &Measured| {
            let events = measured.events;
            format!(
                "{what} measured: {events} events in {}",
                age(measured.span.as_secs())
            )
        };
        let heartbeats = config
            .events
            .heartbeat
            .map_or(0, |every| DAY / every.as_secs().max(1));
        let (events, heartbeats) = match (self.events_per_day, measured) {
            (Some(given), _) => (Figure::new(given, "given"), heartbeats),
            // Heartbeats are among them.
            (None, Some(seen)) => {
                let a_day =
                    u128::from(seen.events) * u128::from(DAY) / u128::from(seen.span.as_secs().max(1));
                let a_day = u64::try_from(a_day).unwrap_or(u64::MAX).max(1);
                (Figure::new(a_day, measured_from("all events,", seen)), 0)
            }
            (None, None) => (Figure::new(1_000, "assumed: --events-per-day"), heartbeats),
        };
        let per_day = events.value.saturating_add(heartbeats);
        let event_bytes = measured.map_or_else(
            || Figure::new(EVENT_BYTES, "assumed, with the state that comes with it"),
            |seen| Figure::new(seen.event_bytes, measured_from("with their state,", seen)),
        );
        let payload_bytes = measured.map_or_else(
            || Figure::new(PAYLOAD_BYTES, "assumed, as JSON"),
            |seen| Figure::new(seen.payload_bytes, "measured, as JSON"),
        );
        let max_bytes = match (config.is_journal_sized_by_card, self.card) {
            (false, _) => Figure::new(config.journal.max_bytes, "[journal] max-bytes"),
            (true, Some(card)) => Figure::new(config::journal_size(card), "5 % of the card, 64 MiB to 1 GiB"),
            (true, None) => Figure::new(
                config.journal.max_bytes,
                "5 % of the filesystem that it is on here, 64 MiB to 1 GiB",
            ),
        };
        let snapshots = measured.map_or(SNAPSHOTS, |seen| seen.snapshots);
        let room = journal::room_for_events(max_bytes.value, snapshots);
        let outage = estimate::outage(room, event_bytes.value, per_day);
        let count = config.sinks.terms().count() as u64;
        let sinks = ways(config, payload_bytes.value)
            .into_iter()
            .map(|(name, kind, way)| {
                // All of them drain at once, over the same link.
                let link = self.uplink_kbit.saturating_mul(1_000) / count.max(1);
                let (speed, bound) = estimate::speed(way, link, self.round_trip);
                SinkPlan {
                    name,
                    kind,
                    per_day: speed,
                    bound,
                    day: estimate::drain(per_day, speed, per_day),
                    full: estimate::drain(outage.events, speed, per_day),
                }
            });
        let filesystem = || {
            let bytes = config::filesystem_bytes(&config.journal.dir)?;
            Some(Figure::new(bytes, "the filesystem that the journal is on here"))
        };
        Planned {
            sinks: sinks.collect(),
            heartbeats,
            event_bytes,
            payload_bytes,
            max_bytes,
            room,
            outage,
            max_age: config.journal.max_age,
            refuses: config.journal.when_full == WhenFull::Refuse,
            link_kbit: self.uplink_kbit,
            round_trip: self.round_trip,
            written: estimate::written_a_day(per_day),
            card: self
                .card
                .map(|card| Figure::new(card, "given"))
                .or_else(filesystem),
            events,
        }
    }
}

/// How each sink sends.
fn ways(config: &Config, payload: u64) -> Vec<(String, &'static str, Way)> {
    let mqtt = config.sinks.mqtt.iter().map(|sink| {
        let way = Way {
            wire_bytes: payload + MQTT_OVERHEAD,
            window: sink.inflight.into(),
            drain_rate: None,
        };
        (&sink.terms, "mqtt", way)
    });
    let http = config.sinks.http.iter().map(|sink| {
        let at_once = sink.events_a_request() as u64;
        let way = Way {
            wire_bytes: payload + HTTP_OVERHEAD / at_once.max(1),
            window: at_once,
            drain_rate: None,
        };
        (&sink.terms, "http", way)
    });
    let all = mqtt.chain(http).map(|(terms, kind, way)| {
        let a_day = |count: u32, per: Duration| {
            let millis = u64::try_from(per.as_millis()).unwrap_or(u64::MAX).max(1);
            u64::from(count).saturating_mul(DAY * 1_000) / millis
        };
        let drain_rate = terms.drain_rate.map(|rate| a_day(rate.count, rate.per));
        (terms.name.to_string(), kind, Way { drain_rate, ..way })
    });
    all.collect()
}

/// What the journal there says; or why it says nothing, where somebody should know.
fn measure(dir: &Path) -> (Option<Measured>, Option<String>) {
    let journal = match Inspection::look(dir) {
        Ok(journal) => journal,
        Err(journal::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return (None, None);
        }
        Err(error) => return (None, Some(error.to_string())),
    };
    match measure_in(&journal) {
        Ok(Some(measured)) if measured.span >= LEAST_MEASURED => (Some(measured), None),
        Ok(_) => (None, Some("the journal here covers less than an hour".to_owned())),
        Err(error) => (None, Some(error.to_string())),
    }
}

fn measure_in(journal: &Inspection) -> Result<Option<Measured>, journal::Error> {
    let (mut events, mut filled) = (0, 0);
    let mut since: Option<Timestamp> = None;
    for kept in &journal.epochs {
        for segment in journal.segments(kept)? {
            let Some((first, last)) = segment.events else {
                continue;
            };
            events += last.0.saturating_sub(first.0) + 1;
            filled += segment.filled;
            since = Some(since.map_or(segment.since, |since| since.min(segment.since)));
        }
    }
    let (Some(since), Some(current)) = (since, journal.epochs.last()) else {
        return Ok(None);
    };
    let (_, last) = current.events();
    let from = crate::event::Sequence(last.0.saturating_sub(SAMPLE).max(1));
    let (mut newest, mut bytes, mut sampled) = (since, 0, 0);
    journal.events(journal.before(current.epoch, from).unwrap_or_default(), |found| {
        newest = newest.max(found.entry.event.recorded.wall);
        bytes += cloudevents::render(&found.entry, found.entry.sequence).len() as u64;
        sampled += 1;
        ControlFlow::Continue(())
    })?;
    Ok((sampled > 0).then(|| Measured {
        events,
        span: Duration::from_micros(u64::try_from(newest.0 - since.0).unwrap_or(0)),
        event_bytes: filled / events.max(1),
        payload_bytes: bytes / sampled,
        snapshots: journal.snapshot_bytes(),
    }))
}

fn tell(planned: &Planned, out: &mut impl Write) -> io::Result<()> {
    let outage = &planned.outage;
    let then = if planned.refuses {
        "then devices are refused"
    } else {
        "then the oldest events go"
    };
    let mut rows = vec![[
        "journal".to_owned(),
        format!(
            "holds {} of outage ({} events), {then}",
            long(outage.lasts),
            outage.events
        ),
    ]];
    if let Some(max_age) = planned.max_age.filter(|max_age| *max_age < outage.lasts) {
        let said = format!("max-age: events older than {} go before that", long(max_age));
        rows.push([String::new(), said]);
    }
    for sink in &planned.sinks {
        let bound = match sink.bound {
            Bound::Link => "the link",
            Bound::RoundTrips => "waiting for answers",
            Bound::DrainRate => "drain-rate",
        };
        let never = || "never: as many new events come".to_owned();
        let (day, full) = (
            sink.day.map_or_else(never, long),
            sink.full.map_or_else(never, long),
        );
        rows.push([
            format!("sink {}", sink.name),
            format!(
                "takes {} a second at most (bound by {bound}); after a day of outage it has caught up in {day}, after a \
                 full journal in {full}",
                tenths(sink.per_day * 10 / DAY)
            ),
        ]);
    }
    if planned.sinks.is_empty() {
        rows.push([
            "sinks".to_owned(),
            "none: nothing is delivered, nothing drains".to_owned(),
        ]);
    }
    let life = planned
        .card
        .as_ref()
        .map(|card| estimate::card_days(card.value, planned.written));
    let lasts = match life {
        Some(days) if days > 100 * 365 => ": it outlives the board".to_owned(),
        Some(days) => format!(": worn after {} years", tenths(days * 10 / 365)),
        None => ": its size is not known, --card says it".to_owned(),
    };
    rows.push([
        "card".to_owned(),
        format!("gets {} a day from this gateway{lasts}", size(planned.written)),
    ]);
    table::write(&rows, "", out)?;
    because(planned, out)
}

/// Every number that it follows from, and where that is from.
fn because(planned: &Planned, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nbecause")?;
    let figure = |name: &str, value: String, from: &str| [name.to_owned(), value, from.to_owned()];
    let heartbeats = match planned.heartbeats {
        0 => String::new(),
        count => format!("; and {count} heartbeats"),
    };
    let [(_, a_minute), (_, a_second), _] = estimate::WEAR;
    let mut rows = vec![
        figure(
            "events a day",
            planned.events.value.to_string(),
            &format!("{}{heartbeats}", planned.events.from),
        ),
        figure(
            "an event in the journal",
            size(planned.event_bytes.value),
            &planned.event_bytes.from,
        ),
        figure(
            "the journal",
            size(planned.max_bytes.value),
            &planned.max_bytes.from,
        ),
        figure(
            "room in it",
            size(planned.room),
            "without snapshots and the spare segment",
        ),
        figure(
            "an event on its way",
            size(planned.payload_bytes.value),
            &format!(
                "{}; around it {MQTT_OVERHEAD} B over MQTT, {HTTP_OVERHEAD} B a request over HTTP (assumed)",
                planned.payload_bytes.from
            ),
        ),
        figure(
            "the link",
            format!("{} kbit/s", planned.link_kbit),
            "--uplink-kbit; the sinks share it",
        ),
        figure(
            "an answer takes",
            units::show_duration(planned.round_trip),
            "--round-trip; what is on the way meanwhile is inflight (MQTT) or batch (HTTP)",
        ),
        figure(
            "written for an event",
            size(planned.written / (planned.events.value + planned.heartbeats).max(1)),
            &format!(
                "to the device, as bench/README.md measured it on ext4 ({} at one a minute, {} at one a second)",
                size(a_minute),
                size(a_second)
            ),
        ),
    ];
    if let Some(card) = &planned.card {
        rows.push(figure("the card", size(card.value), &card.from));
        rows.push(figure(
            "its life",
            format!("{CYCLES} times its size"),
            &format!("assumed; inside it writes {AMPLIFICATION} times what it is given (small writes)"),
        ));
    }
    table::write(&rows, "  ", out)?;
    writeln!(
        out,
        "not counted: readings that change nothing, the recorder's files, what other programs write"
    )
}

/// A duration as people plan with it.
fn long(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds / DAY {
        0 => age(seconds),
        days @ 1..1_000 => format!("{} days", tenths(days * 10 + seconds % DAY * 10 / DAY)),
        days => format!("{} years", tenths(days * 10 / 365)),
    }
}

fn tenths(tenths: u64) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}

fn as_json(planned: &Planned) -> serde_json::Value {
    let figure = |figure: &Figure| json!({ "value": figure.value, "from": figure.from });
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs());
    let sinks = planned.sinks.iter().map(|sink| {
        json!({
            "name": sink.name,
            "kind": sink.kind,
            "events_per_day": sink.per_day,
            "bound": sink.bound,
            "drains_a_day_in_s": seconds(sink.day),
            "drains_the_journal_in_s": seconds(sink.full),
        })
    });
    let life = planned
        .card
        .as_ref()
        .map(|card| estimate::card_days(card.value, planned.written));
    json!({
        "outage_s": planned.outage.lasts.as_secs(),
        "outage_events": planned.outage.events,
        "sinks": sinks.collect::<Vec<_>>(),
        "written_per_day_bytes": planned.written,
        "card_days": life,
        "assumptions": {
            "events_per_day": figure(&planned.events),
            "heartbeats_per_day": planned.heartbeats,
            "event_bytes": figure(&planned.event_bytes),
            "journal_bytes": figure(&planned.max_bytes),
            "room_bytes": planned.room,
            "payload_bytes": figure(&planned.payload_bytes),
            "mqtt_overhead_bytes": MQTT_OVERHEAD,
            "http_overhead_bytes": HTTP_OVERHEAD,
            "uplink_kbit_s": planned.link_kbit,
            "round_trip_ms": u64::try_from(planned.round_trip.as_millis()).unwrap_or(u64::MAX),
            "card_bytes": planned.card.as_ref().map(figure),
            "card_cycles": CYCLES,
            "card_amplification": AMPLIFICATION,
        },
    })
}
