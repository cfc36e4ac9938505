//! What a receiver keeps, and what each event does to it. Nothing here talks to anybody.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

type Failure = Box<dyn std::error::Error>;

/// What every event has, and the whole for the rest: fields that we do not know are no error, now or later.
#[derive(Deserialize)]
pub struct Event {
    pub id: String,
    pub source: String,
    epoch: String,
    sequence: String,
    #[serde(default)]
    previoussequence: String,
    #[serde(rename = "type")]
    kind: String,
    transition: Option<String>,
    correlationid: Option<String>,
    #[serde(skip)]
    pub whole: Json,
    #[serde(skip)]
    number: u64,
    #[serde(skip)]
    previous: u64,
}

impl Event {
    pub fn read(payload: &[u8]) -> Result<Self, Failure> {
        let whole: Json = serde_json::from_slice(payload)?;
        let event = Self::deserialize(&whole)?;
        let number = event.sequence.parse()?;
        let previous = match event.previoussequence.as_str() {
            "" => 0,
            digits => digits.parse()?,
        };
        if number == 0 || previous >= number {
            return Err("sequences begin at 1, and grow".into());
        }
        Ok(Self {
            whole,
            number,
            previous,
            ..event
        })
    }

    /// For a line that people read.
    pub fn what(&self) -> &str {
        let name = self.kind.rsplit('.').next().unwrap_or_default();
        self.transition.as_deref().unwrap_or(name)
    }

    fn is(&self, name: &str) -> bool {
        self.kind.strip_prefix("io.tidegate.gateway.") == Some(name)
    }

    fn text(&self, pointer: &str) -> String {
        let text = self.whole.pointer(pointer).and_then(Json::as_str);
        text.unwrap_or_default().to_owned()
    }
}

#[derive(Default, Serialize, Deserialize)]
pub struct State {
    pub handled_bytes: u64,
    pub sources: BTreeMap<String, Source>,
}

#[derive(Default, Serialize, Deserialize)]
pub struct Source {
    /// The epoch in which the gateway said last that it runs.
    pub current: String,
    pub epochs: BTreeMap<String, Epoch>,
    pub heard: String,
}

/// Completeness. The mark (all up to here is handled or explained) stands right before the first gap; without gaps it
/// is `highest`.
#[derive(Default, Serialize, Deserialize)]
pub struct Epoch {
    pub highest: u64,
    /// From, to, and since when, in order.
    pub gaps: Vec<(u64, u64, String)>,
    /// The highest number that the gateway gave up and that we had been waiting for.
    lost: u64,
    /// The last `ActiveAlarms` that came whole.
    alarms_as_of: u64,
    /// One of which some parts are still to come.
    listing: Option<Listing>,
    /// Those that are open, by correlationid; and for as long as something before it is missing also what was cleared,
    /// so that a raise which comes late does not open it again. Those of the current epoch count; the others' are
    /// kept, for their card may be put back.
    pub episodes: BTreeMap<String, Episode>,
}

#[derive(Serialize, Deserialize)]
struct Listing {
    first: u64,
    parts: u64,
    ids: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub struct Episode {
    /// Of the event that told this.
    sequence: u64,
    pub open: bool,
    pub severity: String,
    pub since: String,
    pub summary: String,
}

/// Of `data` in `EventsDiscarded`.
#[derive(Deserialize)]
struct Discarded {
    epoch: String,
    sinks: Vec<String>,
    ranges: Vec<(u64, u64)>,
}

/// Of `data` in `ActiveAlarms`.
#[derive(Deserialize)]
struct ActiveAlarms {
    part: u64,
    parts: u64,
    alarms: Vec<Alarm>,
}

#[derive(Deserialize)]
struct Alarm {
    id: String,
    severity: String,
    since: String,
    device: String,
    event: String,
}

impl Epoch {
    /// All numbers up to this one exist: those that we have not heard of are a gap.
    fn expect(&mut self, number: u64) {
        if number > self.highest {
            self.gaps.push((self.highest + 1, number, now()));
            self.highest = number;
        }
    }

    /// Takes first to last out of the gaps; returns the highest number that was in one, 0 if none was.
    fn close(&mut self, first: u64, last: u64) -> u64 {
        let mut highest = 0;
        for (start, end, since) in std::mem::take(&mut self.gaps) {
            if end < first || last < start {
                self.gaps.push((start, end, since));
                continue;
            }
            highest = highest.max(end.min(last));
            if start < first {
                self.gaps.push((start, first - 1, since.clone()));
            }
            if last < end {
                self.gaps.push((last + 1, end, since));
            }
        }
        highest
    }
}

impl Source {
    /// Notes that an event is here; returns whether it is new. All else is a duplicate.
    pub fn arrived(&mut self, event: &Event) -> bool {
        self.heard = now();
        let (number, previous) = (event.number, event.previous);
        if !self.epochs.contains_key(&event.epoch) {
            // We begin with the first event of a source that we hear, but know a later epoch of it from its number 1
            // on: unless nothing of it was for us until now (previous is 0).
            let begin = if self.epochs.is_empty() || previous == 0 {
                number - 1
            } else {
                0
            };
            if self.current.is_empty() {
                self.current.clone_from(&event.epoch);
            }
            let epoch = Epoch {
                highest: begin,
                ..Epoch::default()
            };
            self.epochs.insert(event.epoch.clone(), epoch);
        }
        let Some(epoch) = self.epochs.get_mut(&event.epoch) else {
            return false;
        };
        epoch.expect(number);
        let new = epoch.close(number, number) > 0;
        // What lies between did not pass our sink's filter. All zeros says nothing: a chain begins there.
        if previous > 0 {
            epoch.close(previous + 1, number - 1);
        }
        new
    }

    /// What a new event says about other events, and about alarms.
    pub fn understand(&mut self, event: &Event, sink: &str) -> Result<(), Failure> {
        let data = event.whole.get("data").unwrap_or(&Json::Null);
        if event.is("EventsDiscarded") {
            // These will not come to the sinks it names. Its epoch may be an older one.
            let discarded = Discarded::deserialize(data)?;
            if let Some(epoch) = self.epochs.get_mut(&discarded.epoch)
                && discarded.sinks.iter().any(|named| named == sink)
            {
                for (first, last) in discarded.ranges {
                    epoch.expect(last);
                    epoch.lost = epoch.lost.max(epoch.close(first, last));
                }
            }
        }
        let Some(epoch) = self.epochs.get_mut(&event.epoch) else {
            return Ok(());
        };
        // The gateway runs in this epoch, unless it says so of a time that is over: then we know of later ones.
        if (event.is("GatewayStarted") || event.is("ActiveAlarms")) && event.number == epoch.highest {
            self.current.clone_from(&event.epoch);
        }
        epoch.follow(event, data)
    }

    /// Whether a raise or a clear may be among what is missing or was lost since the last `ActiveAlarms`.
    pub fn alarms_are_uncertain(&self) -> bool {
        let epoch = self.epochs.get(&self.current);
        epoch.is_some_and(|epoch| !epoch.gaps.is_empty() || epoch.lost > epoch.alarms_as_of)
    }
}

impl Epoch {
    fn follow(&mut self, event: &Event, data: &Json) -> Result<(), Failure> {
        if event.is("ActiveAlarms") {
            self.all_active(event.number, ActiveAlarms::deserialize(data)?);
        } else if let (Some("raised" | "reminded" | "changed" | "cleared"), Some(id)) =
            (event.transition.as_deref(), &event.correlationid)
        {
            // Out of date: a later event of this episode was here, or a later list that did not have it.
            let told = self
                .episodes
                .get(id)
                .map_or(self.alarms_as_of, |told| told.sequence);
            if event.number > told {
                let episode = Episode {
                    sequence: event.number,
                    open: event.transition.as_deref() != Some("cleared"),
                    severity: event.text("/severitytext"),
                    since: event.text("/data/episode/since"),
                    summary: event.text("/data/summary"),
                };
                self.episodes.insert(id.clone(), episode);
            }
        }
        let mark = self.gaps.first().map_or(self.highest, |(first, ..)| first - 1);
        self.episodes
            .retain(|_, episode| episode.open || episode.sequence > mark);
        Ok(())
    }

    /// Exactly these were open then. It mends what a lost raise or a lost clear has left wrong.
    fn all_active(&mut self, number: u64, data: ActiveAlarms) {
        if data.part == 1 {
            self.listing = Some(Listing {
                first: number,
                parts: 0,
                ids: Vec::new(),
            });
        }
        // None again if a part is missing, or a later list was here: then this one says nothing.
        let Some(mut listing) = self.listing.take() else {
            return;
        };
        if listing.parts + 1 != data.part || number < self.alarms_as_of {
            return;
        }
        listing.parts += 1;
        for alarm in data.alarms {
            listing.ids.push(alarm.id.clone());
            self.episodes.entry(alarm.id).or_insert_with(|| Episode {
                sequence: listing.first,
                open: true,
                severity: alarm.severity,
                since: alarm.since,
                summary: format!("{}: {}", alarm.device, alarm.event),
            });
        }
        if listing.parts == data.parts {
            self.episodes
                .retain(|id, episode| episode.sequence > listing.first || listing.ids.contains(id));
            self.alarms_as_of = listing.first;
        } else {
            self.listing = Some(listing);
        }
    }
}

impl State {
    pub fn load(directory: &Path) -> Result<Self, Failure> {
        match fs::read(directory.join("state.json")) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// The old state or the new one, never a half: also after a power cut.
    pub fn store(&self, directory: &Path) -> Result<(), Failure> {
        let mut file = File::create(directory.join("state.new"))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(directory.join("state.new"), directory.join("state.json"))?;
        File::open(directory)?.sync_all()?;
        Ok(())
    }
}

fn now() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}
