//! What a valid rule is. Pure: no clock, no I/O, no async, no logging. The meaning is docs/rules.md.

use std::{fmt, sync::Arc, time::Duration};

use serde_json::{Map, Value as Json};

use crate::{
    event::{Labels, Severity},
    reading::{DeviceId, Metric},
};

pub use self::{
    condition::{Aggregate, Condition, Part, Sliding, Test, Verdict, Watched},
    period::Period,
};

pub mod condition;
pub mod engine;
pub mod period;
pub mod state;
pub mod summary;

/// One watch over every matching device.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Unique; episodes survive an edit if it stays.
    pub name: Arc<str>,
    /// The event's name, CamelCase: `HighTemperature`.
    pub event: Arc<str>,
    /// The name of its end: `HighTemperatureCleared`.
    pub cleared_event: Arc<str>,
    /// What stands before the event's name in its type: `io.tidegate.rule.`.
    pub type_prefix: Arc<str>,
    /// Patterns of device ids (`*` any run of characters); at least one must match.
    pub devices: Vec<Pattern>,
    /// Labels the device must have.
    pub labels_required: Labels,
    /// When it holds and when it ends.
    pub condition: Condition,
    /// How long the condition must hold before it is raised; zero: at once.
    pub hold: Duration,
    /// How long the clear condition must hold before it ends; zero: at once.
    pub clear_hold: Duration,
    /// Of all its events.
    pub severity: Severity,
    /// Raises per device and hour beyond which an episode stays active until quiet.
    pub max_raises: MaxRaises,
    /// How often an open episode says that it goes on; none: never.
    pub remind_every: Option<Duration>,
    /// While this holds it does not raise.
    pub unless: Option<Unless>,
    /// When it counts: inside any of them; none: always.
    pub during: Vec<Arc<Period>>,
    /// A sub-condition or `unless` whose metric was not heard of for so long is unknown.
    pub stale_after: Duration,
    /// With `{device}`, `{metric}`, `{value}`, `{unit}`, `{threshold}`; none: the default text.
    pub summary: Option<String>,
    /// Copied into the event.
    pub runbook: Option<String>,
    /// Copied into the event.
    pub labels: Labels,
    /// Other numbers for some devices; the last that matches decides, per key.
    pub overrides: Vec<Override>,
}

/// What a rule's [params](Rule::params) say of when it speaks, and not of how a value is judged.
const MANNERS: [&str; 5] = [
    "remind_every_s",
    "max_raises",
    "unless",
    "unless_after_s",
    "during",
];

/// What of a rule's params decides how it judges a value: where that is the same, an open episode is an edited rule's
/// without a word.
pub(crate) fn judged_by(params: &Map<String, Json>) -> Map<String, Json> {
    let mut params = params.clone();
    params.retain(|key, _| !MANNERS.contains(&key.as_str()));
    params
}

/// At most `count` raises in `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRaises {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

impl Default for MaxRaises {
    /// `12/h`.
    fn default() -> Self {
        Self {
            count: 12,
            per: Duration::from_hours(1),
        }
    }
}

impl fmt::Display for MaxRaises {
    /// As the configuration writes it: `12/h`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            3_600 => "h",
            86_400 => "d",
            seconds => return write!(formatter, "{}/{seconds}s", self.count),
        };
        write!(formatter, "{}/{unit}", self.count)
    }
}

/// What keeps a rule from raising: a defrost, a maintenance switch.
#[derive(Clone, Debug, PartialEq)]
pub struct Unless {
    /// What must hold.
    pub part: Part,
    /// How much longer than it holds.
    pub after: Duration,
}

/// The same rule, other numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// For which devices.
    pub devices: Vec<Pattern>,
    /// The condition, complete: the configuration has merged the keys (the kind never differs).
    pub condition: Option<Condition>,
    /// Another hold.
    pub hold: Option<Duration>,
    /// Another clear-hold.
    pub clear_hold: Option<Duration>,
    /// Another severity.
    pub severity: Option<Severity>,
    /// Another interval of reminders.
    pub remind_every: Option<Duration>,
}

/// A pattern of device ids: `*` stands for any run of characters, all else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub Arc<str>);

/// What the configuration knows of a device: its name, labels and the names it has on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceFacts {
    /// The id or a pattern of ids; the first that matches decides name, all that match give labels.
    pub id: Pattern,
    /// A display name.
    pub name: Option<Arc<str>>,
    /// Its labels.
    pub labels: Labels,
    /// Names it has on the wire.
    pub from: Vec<DeviceId>,
    /// What it should send: `silent-for` watches these from the gateway's start.
    pub expects: Vec<Metric>,
}

impl DeviceFacts {
    /// A device of which nothing but its id is known.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self {
            id: Pattern(id.into()),
            name: None,
            labels: Labels::new(),
            from: Vec::new(),
            expects: Vec::new(),
        }
    }
}

impl Rule {
    /// The one metric it is about; none for `all` and `any`.
    #[must_use]
    pub fn metric(&self) -> Option<&Metric> {
        self.condition.metric()
    }

    /// Its numbers as its events quote them, under `snake_case` names; of some devices an override has given the first
    /// four. What is as it would be if nobody had written it is left out.
    #[must_use]
    pub fn params(
        &self,
        condition: &Condition,
        hold: Duration,
        clear_hold: Duration,
        remind_every: Option<Duration>,
    ) -> Map<String, Json> {
        let mut params = condition.params();
        let unless_after = self.unless.as_ref().map(|unless| unless.after);
        let lengths = [
            ("hold_s", Some(hold)),
            ("clear_hold_s", Some(clear_hold)),
            ("remind_every_s", remind_every),
            ("unless_after_s", unless_after),
        ];
        for (key, length) in lengths {
            if let Some(length) = length.filter(|length| !length.is_zero()) {
                params.insert(key.to_owned(), condition::seconds(length));
            }
        }
        if self.max_raises != MaxRaises::default() {
            params.insert("max_raises".to_owned(), self.max_raises.to_string().into());
        }
        if let Some(unless) = &self.unless {
            params.insert("unless".to_owned(), unless.part.params().into());
        }
        if !self.during.is_empty() {
            let periods: Vec<&str> = self.during.iter().map(|period| &*period.name).collect();
            params.insert("during".to_owned(), periods.into());
        }
        params
    }

    /// Whether it watches a device of this name and with these labels.
    #[must_use]
    pub fn watches(&self, device: &str, labels: &Labels) -> bool {
        self.devices.iter().any(|pattern| pattern.matches(device))
            && self
                .labels_required
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Pattern {
    /// Whether `name` matches, all of it. Takes at most (length of the pattern) * (length of the name) steps.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(last) = parts.next_back() else {
            return rest.is_empty();
        };
        // The earliest place for each part leaves the most room for those that follow.
        for part in parts {
            match rest.split_once(part) {
                Some((_, after)) => rest = after,
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}
