//! A story file: its rule sets, its stories, and what is wrong with it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Act, At, Expected, Step, Story, sections, steps};
use crate::{
    config::{self, Report, RuleSet, units},
    reading::{Metric, Value},
    rule::{Condition, DeviceFacts, Rule},
    time::{ClockQuality, Timestamp},
};

/// Where a story begins if it does not say.
const START: Timestamp = Timestamp(1_795_255_200_000_000);

/// `[journal] checkpoint` as it is by default.
const CHECKPOINT: At = At(60_000_000);

pub(super) type Item<'i> = Spanned<DeValue<'i>>;

/// The stories in `text`, which reports call `path_shown`. `load` reads the rule set at a path as the file has it.
///
/// # Errors
///
/// A [`Report`] of all that is wrong with the file, or of the first rule set that is wrong.
pub fn parse(
    path_shown: &str,
    text: &str,
    load: &dyn Fn(&str) -> Result<Rules, Report>,
) -> Result<Vec<Story>, Report> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => return Err(Report::not_toml(path_shown, text, &error)),
    };
    let mut reader = Reader {
        wrong: Vec::new(),
        sets: Sets {
            path_shown,
            text,
            load,
            known: BTreeMap::new(),
            wrong: None,
        },
    };
    let stories = file(document.get_ref(), &mut reader);
    if !reader.wrong.is_empty() {
        return Err(Report::of(path_shown, text, reader.wrong));
    }
    match reader.sets.wrong {
        Some(report) => Err(report),
        None => Ok(stories),
    }
}

const FILE_KEYS: &[&str] = &["rules", "story", "set"];
const STORY_KEYS: &[&str] = &[
    "name",
    "rules",
    "only",
    "device",
    "start",
    "synchronised",
    "checkpoint",
    "steps",
];

fn file(document: &DeTable<'_>, reader: &mut Reader<'_>) -> Vec<Story> {
    let rules = document.get("rules").and_then(|item| reader.text("rules", item));
    // What is no table of ours is a table of a rule set: its own reader knows its keys. A plain value is a slip.
    for (key, item) in document {
        let name = key.get_ref().as_ref();
        if !FILE_KEYS.contains(&name)
            && item.get_ref().as_table().is_none()
            && item.get_ref().as_array().is_none()
        {
            reader.unknown(key.span(), "a story file", name, FILE_KEYS);
        }
    }
    let Some(stories) = document.get("story") else {
        reader.wrong_file("there is no [[story]]; add one with a name and its steps");
        return Vec::new();
    };
    let tables = match stories.get_ref().as_array() {
        Some(items) if items.iter().all(|item| item.get_ref().is_table()) => items,
        _ => {
            reader.wrong(stories.span(), "story must be a list of tables: write [[story]]");
            return Vec::new();
        }
    };
    let mut told: Vec<Story> = Vec::new();
    for item in tables {
        let Some(table) = item.get_ref().as_table() else {
            continue;
        };
        if let Some(story) = story(table, item.span(), rules, reader) {
            if let Some(first) = told.iter().find(|first| first.name == story.name) {
                let message = format!(
                    "story {:?} has the name of the one on line {}",
                    story.name, first.line
                );
                reader.wrong(item.span(), format!("{message}; give it another"));
            }
            told.push(story);
        }
    }
    told
}

fn story(
    table: &DeTable<'_>,
    span: Range<usize>,
    rules: Option<&str>,
    reader: &mut Reader<'_>,
) -> Option<Story> {
    let name = table.get("name").and_then(|item| reader.text("name", item));
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        reader.wrong(span, "this story has no name; say in a sentence what must be true, like name = \"a spike raises nothing\"");
        return None;
    };
    let who = format!("story {name:?}");
    for (key, _) in table {
        if !STORY_KEYS.contains(&key.get_ref().as_ref()) {
            reader.unknown(key.span(), &who, key.get_ref(), STORY_KEYS);
        }
    }
    let start = match table.get("start") {
        Some(item) => reader.wall(&format!("{who}: start"), item)?,
        None => START,
    };
    let quality = match table.get("synchronised") {
        Some(item) => reader.quality(&format!("{who}: synchronised"), item)?,
        None => ClockQuality::Synchronised,
    };
    let checkpoint = match table.get("checkpoint") {
        Some(item) => At(reader.duration(&format!("{who}: checkpoint"), item)?.max(1)),
        None => CHECKPOINT,
    };
    let device = table.get("device").and_then(|item| reader.device(item));
    let own = table.get("rules").and_then(|item| reader.text("rules", item));
    let rules = reader.sets.rules(own.or(rules), &span, &mut reader.wrong)?;
    let Some(items) = table.get("steps").and_then(|item| item.get_ref().as_array()) else {
        let form =
            r#"steps = [ { at = "0s", temperature = 31.0 }, { at = "30s", expect = "HighTemperature" } ]"#;
        reader.wrong(span, format!("{who}: it has no steps; write {form}"));
        return None;
    };
    let line = reader.line(&span);
    let mut parsed = steps::Steps::new(device, who.clone(), &rules);
    for item in items {
        parsed.take(item, reader);
    }
    let (steps, expected, metrics, names) = parsed.done();
    let mut sets = vec![&rules];
    sets.extend(steps.iter().filter_map(|step| match &step.act {
        Act::Reload(rules) => Some(rules),
        _ => None,
    }));
    for (metric, span) in metrics {
        let watched: Vec<&str> = sets.iter().flat_map(|rules| rules.metrics()).collect();
        if !watched.contains(&metric.as_str()) {
            let meant = config::closest(
                &metric,
                watched.iter().copied().chain(steps::WORDS.iter().copied()),
            );
            let remedy = meant.map_or_else(
                || format!("they watch {}", listed(&watched)),
                |meant| format!("did you mean `{meant}`?"),
            );
            reader.wrong(
                span,
                format!("no rule of this story watches the metric `{metric}`; {remedy}"),
            );
        }
    }
    let only = match table.get("only") {
        Some(item) => reader.names(&format!("{who}: only"), item, &sets)?,
        None => Vec::new(),
    };
    for (key, name, span) in names {
        if key == "expect" && !only.is_empty() {
            overlooked(&name, span.clone(), &only, &sets, reader);
        }
        misspelt(key, &name, span, &sets, &steps, reader);
    }
    Some(Story {
        name: name.to_owned(),
        line,
        rules,
        only,
        start,
        quality,
        checkpoint,
        steps,
        expected,
    })
}

/// An expected event that comes from rules alone which the story does not look at: it can never be met.
fn overlooked(
    event: &str,
    span: Range<usize>,
    only: &[String],
    sets: &[&Arc<Rules>],
    reader: &mut Reader<'_>,
) {
    let rules = sets.iter().flat_map(|set| &set.rules);
    let mut from = rules.filter(|rule| [&*rule.event, &*rule.cleared_event].contains(&event));
    let Some(first) = from.next() else { return };
    let looked_at = |rule: &Arc<Rule>| only.iter().any(|name| **name == *rule.name);
    if !looked_at(first) && !from.any(looked_at) {
        let rule = &first.name;
        let message =
            format!("expect = {event:?}: `only` leaves its rule out; add {rule:?} to it, or drop the step");
        reader.wrong(span, message);
    }
}

/// What an expected event names and nothing here has, though something has nearly that name.
fn misspelt(
    key: &str,
    name: &str,
    span: Range<usize>,
    sets: &[&Arc<Rules>],
    steps: &[Step],
    reader: &mut Reader<'_>,
) {
    let rules = || sets.iter().flat_map(|set| &set.rules);
    let known: Vec<&str> = match key {
        "expect" => rules()
            .flat_map(|rule| [&*rule.event, &*rule.cleared_event])
            .chain(["AlarmMuted", "AlarmUnmuted"])
            .collect(),
        "rule" => rules().map(|rule| &*rule.name).collect(),
        "metric" => sets.iter().flat_map(|set| set.metrics()).collect(),
        // Of a mute's event it is the device or the rule.
        _ => {
            let told = steps.iter().filter_map(|step| match &step.act {
                Act::Tell { device, .. } => Some(device.as_str()),
                _ => None,
            });
            let facts = sets.iter().flat_map(|set| &set.devices);
            told.chain(facts.map(|facts| &*facts.id.0))
                .chain(rules().flat_map(|rule| rule.devices.iter().map(|pattern| &*pattern.0)))
                .chain(rules().map(|rule| &*rule.name))
                .collect()
        }
    };
    if !known.contains(&name)
        && let Some(meant) = config::closest(name, known.into_iter().filter(|known| !known.contains('*')))
    {
        let message =
            format!("{key} = {name:?}: nothing in this story is called so; did you mean {meant:?}?");
        reader.wrong(span, message);
    }
}

/// Reads values and remembers what is wrong.
pub(super) struct Reader<'t> {
    pub wrong: Vec<(Option<Range<usize>>, String)>,
    pub sets: Sets<'t>,
}

impl Reader<'_> {
    pub fn wrong(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.wrong.push((Some(span), message.into()));
    }

    fn wrong_file(&mut self, message: &str) {
        self.wrong.push((None, message.to_owned()));
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.sets.text.get(..span.start).unwrap_or_default();
        before.matches('\n').count() + 1
    }

    pub fn unknown(&mut self, span: Range<usize>, who: &str, key: &str, known: &[&str]) {
        let remedy = match config::closest(key, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("its keys are {}", known.join(", ")),
        };
        self.wrong(span, format!("{who} has no key `{key}`; {remedy}"));
    }

    pub fn text<'v>(&mut self, who: &str, item: &'v Item<'_>) -> Option<&'v str> {
        let text = item.get_ref().as_str();
        if text.is_none() {
            self.wrong(item.span(), format!("{who} must be text in quotes"));
        }
        text
    }

    /// Names of rules: each must be one of some set.
    fn names(&mut self, who: &str, item: &Item<'_>, sets: &[&Arc<Rules>]) -> Option<Vec<String>> {
        let Some(items) = item.get_ref().as_array().filter(|items| !items.is_empty()) else {
            self.wrong(
                item.span(),
                format!("{who} must be a list of rules by name: only = [\"boiler-too-hot\"]"),
            );
            return None;
        };
        let known = || sets.iter().flat_map(|set| &set.rules).map(|rule| &*rule.name);
        let mut names = Vec::new();
        for item in items {
            let name = self.text(who, item)?;
            if !known().any(|known| known == name) {
                let remedy = match config::closest(name, known()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("the rules are {}", listed(&known().collect::<Vec<_>>())),
                };
                self.wrong(item.span(), format!("{who}: there is no rule {name:?}; {remedy}"));
            }
            names.push(name.to_owned());
        }
        Some(names)
    }

    pub fn device(&mut self, item: &Item<'_>) -> Option<crate::reading::DeviceId> {
        let text = self.text("device", item)?;
        let device = crate::reading::DeviceId::new(text);
        if let Err(error) = &device {
            self.wrong(item.span(), format!("device = {text:?}: {error}"));
        }
        device.ok()
    }

    pub fn metric(&mut self, name: &str, span: Range<usize>) -> Option<Metric> {
        let metric = Metric::new(name);
        if let Err(error) = &metric {
            self.wrong(span, format!("the metric {name:?}: {error}"));
        }
        metric.ok()
    }

    pub fn duration(&mut self, who: &str, item: &Item<'_>) -> Option<i64> {
        let text = self.text(who, item)?;
        let length = units::duration(text);
        if length.is_some_and(|length| length > units::LONGEST) {
            let longest = units::show_duration(units::LONGEST);
            self.wrong(
                item.span(),
                format!("{who} = {text:?} is too long; {longest} is the most"),
            );
            return None;
        }
        let micros = length.and_then(|length| i64::try_from(length.as_micros()).ok());
        if micros.is_none() {
            self.wrong(item.span(), format!("{who} = {text:?}: {}", units::DURATION_FORM));
        }
        micros
    }

    pub fn wall(&mut self, who: &str, item: &Item<'_>) -> Option<Timestamp> {
        let written = item.get_ref();
        let text = written
            .as_datetime()
            .map(ToString::to_string)
            .or_else(|| written.as_str().map(str::to_owned));
        let parsed = text.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if parsed.is_none() {
            let form = "\"2026-11-21T10:00:00Z\", or with an offset, \"2026-03-29T01:30:00+01:00\"";
            self.wrong(
                item.span(),
                format!("{who} must be a time in quotes, like {form}"),
            );
        }
        Some(Timestamp(parsed?.as_microsecond()))
    }

    pub fn quality(&mut self, who: &str, item: &Item<'_>) -> Option<ClockQuality> {
        match item.get_ref().as_bool() {
            Some(true) => Some(ClockQuality::Synchronised),
            Some(false) => Some(ClockQuality::Unknown),
            None => {
                self.wrong(item.span(), format!("{who} must be true or false"));
                None
            }
        }
    }

    pub fn whole(&mut self, who: &str, item: &Item<'_>, most: u32) -> Option<u32> {
        let number = number(item.get_ref()).filter(|number| number.fract() == 0.0);
        let whole = number.and_then(|number| (1..=most).find(|whole| f64::from(*whole) >= number));
        if number.is_none_or(|number| number < 1.0) || whole.is_none() {
            self.wrong(
                item.span(),
                format!("{who} must be a whole number from 1 to {most}"),
            );
            return None;
        }
        whole
    }

    /// What a device may tell.
    pub fn value(&mut self, who: &str, item: &Item<'_>) -> Option<Value> {
        let written = item.get_ref();
        if let Some(flag) = written.as_bool() {
            return Some(Value::Bool(flag));
        }
        if let Some(text) = written.as_str() {
            if text.len() <= 64 {
                return Some(Value::Text(text.into()));
            }
            self.wrong(
                item.span(),
                format!("{who} is longer than 64 bytes; the gateway rejects such a text"),
            );
            return None;
        }
        match number(written) {
            Some(number) if number.is_finite() => Some(Value::Number(number)),
            Some(_) => {
                self.wrong(
                    item.span(),
                    format!("{who} is no number; the gateway rejects it before any rule sees it"),
                );
                None
            }
            None => {
                self.wrong(
                    item.span(),
                    format!("{who} must be a number, true, false or text"),
                );
                None
            }
        }
    }
}

/// A number, as a float.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    if let Some(integer) = value.as_integer() {
        return i64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .and_then(|whole| whole.to_string().parse().ok());
    }
    value.as_float()?.as_str().parse().ok()
}

/// The rule sets of a file, each read once.
pub(super) struct Sets<'t> {
    path_shown: &'t str,
    text: &'t str,
    load: &'t dyn Fn(&str) -> Result<Rules, Report>,
    known: BTreeMap<Option<String>, Option<Arc<Rules>>>,
    wrong: Option<Report>,
}

impl Sets<'_> {
    /// The rule set of this name or at this path; the file's own if none is written. None, and remembered, if it is
    /// wrong.
    pub fn rules(
        &mut self,
        wanted: Option<&str>,
        span: &Range<usize>,
        wrong: &mut Vec<(Option<Range<usize>>, String)>,
    ) -> Option<Arc<Rules>> {
        let key = wanted.map(str::to_owned);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let read = match wanted {
            None => match sections::own(self.text) {
                Some(text) => Rules::parse(self.path_shown, &text),
                None => {
                    let message =
                        "there are no rules; write [[rule]] tables here, or rules = \"../gateway.toml\"";
                    wrong.push((None, message.to_owned()));
                    self.known.insert(key, None);
                    return None;
                }
            },
            Some(name) => match sections::named(self.text, name) {
                Some(text) => Rules::parse(self.path_shown, &text),
                None if is_path(name) => (self.load)(name),
                None => {
                    let names = sections::names(self.text);
                    let remedy = match config::closest(name, names.iter().copied()) {
                        Some(meant) => format!("did you mean {meant:?}?"),
                        None => {
                            format!("write its rules as [[set.{name}.rule]], or a path that ends in .toml")
                        }
                    };
                    let message = format!("there is no rule set {name:?} in this file; {remedy}");
                    wrong.push((Some(span.clone()), message));
                    self.known.insert(key, None);
                    return None;
                }
            },
        };
        let rules = match read {
            Ok(rules) => Some(Arc::new(rules)),
            Err(report) => {
                self.wrong.get_or_insert(report);
                None
            }
        };
        self.known.insert(key, rules.clone());
        rules
    }
}

fn is_path(name: &str) -> bool {
    name.contains(['/', '.'])
}

fn listed(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

pub(super) type Parsed = (
    Vec<Step>,
    Vec<Expected>,
    Vec<(String, Range<usize>)>,
    Vec<(&'static str, String, Range<usize>)>,
);

/// What stories are told to.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The rules.
    pub rules: Vec<Arc<Rule>>,
    /// What is known of devices.
    pub devices: Vec<DeviceFacts>,
}

impl Rules {
    /// The rule set in `text`, which reports call `path_shown`.
    ///
    /// # Errors
    ///
    /// A [`Report`] of all that is wrong with it.
    pub fn parse(path_shown: &str, text: &str) -> Result<Self, Report> {
        Ok(Self::of(RuleSet::parse(path_shown, text)?))
    }

    /// The rules that a configuration has.
    #[must_use]
    pub fn of(set: RuleSet) -> Self {
        Self {
            rules: set.rules,
            devices: set.devices,
        }
    }

    /// All metrics that some rule looks at.
    fn metrics(&self) -> Vec<&str> {
        let mut metrics = Vec::new();
        for rule in &self.rules {
            metrics.extend(rule.metric());
            if let Condition::All(parts) | Condition::Any(parts) = &rule.condition {
                metrics.extend(parts.iter().map(|part| &part.watched.metric));
            }
            metrics.extend(rule.unless.iter().map(|unless| &unless.part.watched.metric));
        }
        metrics.into_iter().map(Metric::as_str).collect()
    }
}
