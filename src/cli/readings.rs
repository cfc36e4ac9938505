//! `tidegate readings`: lists and exports what the recorder keeps, also while a gateway runs.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::{
    Failure,
    recorded::{Span, Time, place, warn_of, written},
};
use crate::{
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
        let dir = place(&self.config, self.dir.clone())?;
        let mut out = BufWriter::new(io::stdout().lock());
        let result = self.write(&dir, &mut out).and_then(|damage| {
            out.flush()?;
            warn_of(damage);
            Ok(())
        });
        written(result)
    }

    fn write(&self, dir: &Path, out: &mut impl Write) -> io::Result<recorder::Damage> {
        let span = Span::of(self.from, self.to);
        let device = self
            .device
            .as_ref()
            .map(|pattern| Pattern(pattern.as_str().into()));
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
            let wanted = span.has(wall)
                && device
                    .as_ref()
                    .is_none_or(|device| device.matches(reading.device.as_str()))
                && self
                    .metric
                    .as_ref()
                    .is_none_or(|metric| *metric == reading.metric.as_str());
            if !wanted {
                return Ok(());
            }
            match self.format {
                Format::Table => table(out, &reading, wall),
                Format::Csv => csv(out, &reading, wall, quality),
                Format::Jsonl => jsonl(out, &reading, wall, quality),
            }
        })
    }
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
