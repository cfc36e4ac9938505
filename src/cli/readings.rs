//! `tidegate readings`: lists and exports what the recorder keeps, also while a gateway runs.

use std::{
    collections::BTreeSet,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    Failure, noted, printed,
    recorded::{Span, Time, place, warn_of},
};
use crate::{
    config,
    reading::{Reading, Value},
    recorder::{self, Record},
    rule::Pattern,
    time::{ClockQuality, Timestamp},
};

/// Which readings, and how they are written.
#[derive(Debug, clap::Args)]
pub(super) struct Readings {
    /// The configuration whose gateway recorded them.
    #[arg(long, short, value_name = "FILE", default_value = super::CONFIGURATION)]
    config: PathBuf,
    /// The directory they are in, instead of a configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    dir: Option<PathBuf>,
    /// Only of devices whose id is this; `*` stands for any characters.
    #[arg(long, value_name = "PATTERN")]
    device: Option<String>,
    /// Only of this metric.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Only from this time on: 2026-11-21T10:00:00Z, or how long ago: 2h.
    #[arg(long, value_name = "TIME")]
    from: Option<Time>,
    /// Only before this time.
    #[arg(long, value_name = "TIME")]
    to: Option<Time>,
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// With a header line.
    Csv,
    /// One JSON object a line.
    Jsonl,
}

impl Readings {
    pub fn list(self) -> Result<(), Failure> {
        let span = Span::between(self.from, self.to)?;
        let dir = place(&self.config, self.dir.clone())?;
        let mut out = BufWriter::new(io::stdout().lock());
        let mut seen = Seen::default();
        let result = self.write(&dir, span, &mut seen, &mut out).and_then(|damage| {
            out.flush()?;
            warn_of(damage);
            if !seen.wanted {
                noted(&format!("tidegate: {}", self.nothing(&dir, &seen)));
            }
            Ok(())
        });
        printed(result)
    }

    fn write(
        &self,
        dir: &Path,
        span: Span,
        seen: &mut Seen,
        out: &mut impl Write,
    ) -> io::Result<recorder::Damage> {
        let pattern = self.pattern();
        if self.format == Format::Csv {
            writeln!(out, "time,device,metric,value,unit,stamped,clockquality")?;
        }
        recorder::read(dir, |record| {
            let Record::Reading {
                reading,
                wall,
                quality,
            } = record
            else {
                return Ok(());
            };
            seen.take(&reading, wall);
            let is_wanted = span.has(wall)
                && pattern
                    .as_ref()
                    .is_none_or(|pattern| pattern.matches(reading.device.as_str()))
                && self
                    .metric
                    .as_ref()
                    .is_none_or(|metric| *metric == reading.metric.as_str());
            if !is_wanted {
                return Ok(());
            }
            seen.wanted = true;
            match self.format {
                Format::Table => table(out, &reading, wall),
                Format::Csv => csv(out, &reading, wall, quality),
                Format::Jsonl => jsonl(out, &reading, wall, quality),
            }
        })
    }

    fn pattern(&self) -> Option<Pattern> {
        self.device
            .as_ref()
            .map(|pattern| Pattern(pattern.as_str().into()))
    }

    /// Why nothing is listed: what was asked for and is not there, and what is.
    fn nothing(&self, dir: &Path, seen: &Seen) -> String {
        let Some((first, last)) = seen.span else {
            return format!("no reading is recorded in {} yet", dir.display());
        };
        if let (Some(device), Some(pattern)) = (&self.device, self.pattern())
            && !seen.devices.iter().any(|name| pattern.matches(name))
        {
            let there = rather(device, &seen.devices);
            return format!("no reading of a device {device:?} is recorded; {there}");
        }
        if let Some(metric) = &self.metric
            && !seen.metrics.contains(metric)
        {
            let there = rather(metric, &seen.metrics);
            return format!("no reading of the metric {metric:?} is recorded; {there}");
        }
        let what = match (&self.device, &self.metric) {
            (None, None) => "no reading",
            _ => "no such reading",
        };
        format!("{what} is recorded of this time; there are readings from {first} to {last}")
    }
}

/// What is recorded, wanted or not. The recorder's bound bounds the names.
#[derive(Debug, Default)]
struct Seen {
    wanted: bool,
    devices: BTreeSet<String>,
    metrics: BTreeSet<String>,
    span: Option<(Timestamp, Timestamp)>,
}

impl Seen {
    fn take(&mut self, reading: &Reading, wall: Timestamp) {
        if self.wanted {
            // Nobody will ask.
            return;
        }
        let (device, metric) = (reading.device.as_str(), reading.metric.as_str());
        if !self.devices.contains(device) {
            self.devices.insert(device.to_owned());
        }
        if !self.metrics.contains(metric) {
            self.metrics.insert(metric.to_owned());
        }
        let (first, last) = self.span.unwrap_or((wall, wall));
        self.span = Some((first.min(wall), last.max(wall)));
    }
}

/// What may have been meant.
fn rather(name: &str, known: &BTreeSet<String>) -> String {
    /// Of more names a line would be too long.
    const SHOWN: usize = 10;
    if let Some(meant) = config::closest(name, known.iter().map(String::as_str)) {
        return format!("did you mean {meant:?}?");
    }
    let names: Vec<&str> = known.iter().take(SHOWN).map(String::as_str).collect();
    let more = match known.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("there are readings of {}{more}", names.join(", "))
}

fn table(out: &mut impl Write, reading: &Reading, wall: Timestamp) -> io::Result<()> {
    let unit = reading.unit.as_deref().unwrap_or_default();
    let line = format!(
        "{wall}  {:<24}  {:<20}  {} {unit}",
        reading.device, reading.metric, reading.value
    );
    writeln!(out, "{}", line.trim_end())
}

fn csv(out: &mut impl Write, reading: &Reading, wall: Timestamp, quality: ClockQuality) -> io::Result<()> {
    let fields = [
        wall.to_string(),
        reading.device.to_string(),
        reading.metric.to_string(),
        match &reading.value {
            Value::Number(number) => number.to_string(),
            value => value.to_string(),
        },
        reading.unit.as_deref().unwrap_or_default().to_owned(),
        reading.stamped.to_string(),
        word(quality),
    ];
    writeln!(out, "{}", fields.map(|field| quoted(&field)).join(","))
}

/// As RFC 4180 has it.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

fn jsonl(out: &mut impl Write, reading: &Reading, wall: Timestamp, quality: ClockQuality) -> io::Result<()> {
    let value = match &reading.value {
        Value::Bool(flag) => json!(flag),
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(&**text),
    };
    let line = json!({
        "time": wall.to_string(),
        "device": reading.device.as_str(),
        "metric": reading.metric.as_str(),
        "value": value,
        "unit": reading.unit.as_deref(),
        "stamped": reading.stamped,
        "clockquality": word(quality),
    });
    writeln!(out, "{line}")
}

fn word(quality: ClockQuality) -> String {
    match quality {
        ClockQuality::Synchronised => "synchronised",
        ClockQuality::Corrected => "corrected",
        ClockQuality::Unknown => "unknown",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_field_with_a_comma_or_a_quote_is_one_field() {
        assert_eq!(super::quoted("plain"), "plain");
        assert_eq!(super::quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
