//! Readings as bytes and back. Pure. About 8 bytes for a reading of a known series.
//!
//! ```text
//! frame    length of the payload u32, crc32c of it u32, payload
//! payload  flags u8 (1: series are numbered anew; 2: a gateway began here), clock quality u8,
//!          boot id u128, boot clock i64, wall clock i64 (when it was written), then records
//! record   varint 0: the next series: device, metric, unit (each a length and its bytes; no unit: 0)
//!          varint (series + 1) * 2 + stamped: zigzag varint of the time since the record before, value
//! value    0 false, 1 true, 2 text, 3 f64, 4 to 7: zigzag varint of the value times 1, 10, 100, 1000
//! ```
//! Fixed numbers are little-endian. A series is numbered from 0 as they come; a frame alone is not readable without those
//! before it, back to one that numbers anew.

use std::{collections::HashMap, sync::Arc};

use crate::{
    reading::{DeviceId, Metric, Reading, Value},
    time::{BootId, ClockQuality, EngineTime, Moment, Timestamp},
};

/// The bytes of a frame before its payload.
pub(super) const HEADER: usize = 8;
/// A payload that is longer was not written by us.
const MAX_PAYLOAD: usize = 1 << 22;
const ANEW: u8 = 1;
const BEGAN: u8 = 2;
/// Device, metric and unit.
type Series = (DeviceId, Metric, Option<Arc<str>>);

/// Turns readings into frames.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    series: HashMap<Series, (u64, EngineTime)>,
    records: Vec<u8>,
    previous: i64,
    /// The flags of the next frame.
    flags: u8,
    count: u64,
}

impl Encoder {
    /// One for a gateway that has just begun.
    pub fn new() -> Self {
        Self {
            flags: ANEW | BEGAN,
            ..Self::default()
        }
    }

    /// Numbers the series anew: for another file, where nothing of this one is known.
    pub fn anew(&mut self) {
        self.series.clear();
        self.flags |= ANEW;
    }

    /// Takes a reading that was evaluated at `now`.
    pub fn push(&mut self, reading: &Reading, now: EngineTime) {
        let key = (
            reading.device.clone(),
            reading.metric.clone(),
            reading.unit.clone(),
        );
        let next = self.series.len() as u64;
        let (number, last) = self.series.entry(key).or_insert((next, EngineTime(i64::MIN)));
        if *number == next {
            varint(&mut self.records, 0);
            text(&mut self.records, reading.device.as_str());
            text(&mut self.records, reading.metric.as_str());
            text(&mut self.records, reading.unit.as_deref().unwrap_or_default());
        }
        // Evaluated although it is older than the last one: the device's clock went back, and it counted at its arrival.
        let at = if reading.stamped && reading.at < *last {
            now
        } else {
            reading.at
        };
        *last = at.max(*last);
        varint(&mut self.records, (*number + 1) * 2 + u64::from(reading.stamped));
        varint(&mut self.records, zigzag(at.0.wrapping_sub(self.previous)));
        self.previous = at.0;
        value(&mut self.records, &reading.value);
        self.count += 1;
    }

    /// Bytes that wait for a frame.
    pub fn waiting(&self) -> usize {
        self.records.len()
    }

    /// What waits as a frame, and how many readings it has; none if nothing does.
    pub fn frame(&mut self, moment: &Moment) -> Option<(Vec<u8>, u64)> {
        if self.count == 0 {
            return None;
        }
        let quality = match moment.quality {
            ClockQuality::Unknown => 0,
            ClockQuality::Corrected => 1,
            ClockQuality::Synchronised => 2,
        };
        let mut payload = vec![self.flags, quality];
        payload.extend_from_slice(&moment.boot_id.0.to_le_bytes());
        payload.extend_from_slice(&moment.boot.0.to_le_bytes());
        payload.extend_from_slice(&moment.wall.0.to_le_bytes());
        payload.append(&mut self.records);
        let length = u32::try_from(payload.len()).expect("a batch is far smaller: see BATCH");
        let mut frame = Vec::with_capacity(HEADER + payload.len());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(&crc32c::crc32c(&payload).to_le_bytes());
        frame.append(&mut payload);
        self.flags = 0;
        self.previous = 0;
        Some((frame, std::mem::take(&mut self.count)))
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Frame {
    /// When it was written.
    pub moment: Moment,
    /// Whether a gateway began with it.
    pub began: bool,
    /// On the boot clock of `moment`.
    pub readings: Vec<Reading>,
}

/// The payload of the frame that `bytes` begin with, if it is whole and right.
pub(super) fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
    let payload = bytes.get(HEADER..)?.get(..length)?;
    (length <= MAX_PAYLOAD && crc32c::crc32c(payload) == crc).then_some(payload)
}

/// When a frame was written.
pub(super) fn moment(payload: &[u8]) -> Option<Moment> {
    Some(Moment {
        quality: match payload.get(1)? {
            0 => ClockQuality::Unknown,
            1 => ClockQuality::Corrected,
            2 => ClockQuality::Synchronised,
            _ => return None,
        },
        boot_id: BootId(u128::from_le_bytes(payload.get(2..18)?.try_into().ok()?)),
        boot: EngineTime(i64::from_le_bytes(payload.get(18..26)?.try_into().ok()?)),
        wall: Timestamp(i64::from_le_bytes(payload.get(26..34)?.try_into().ok()?)),
    })
}

/// Turns payloads back into readings.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    series: Vec<Series>,
}

impl Decoder {
    /// None if it is something else; no bytes make it panic.
    pub fn frame(&mut self, payload: &[u8]) -> Option<Frame> {
        let moment = moment(payload)?;
        let flags = *payload.first()?;
        if flags & ANEW != 0 {
            self.series.clear();
        }
        let mut rest = Rest(payload.get(34..)?);
        let mut readings = Vec::new();
        let mut at = 0_i64;
        while !rest.0.is_empty() {
            let head = rest.varint()?;
            if head == 0 {
                let device = DeviceId::new(rest.text()?).ok()?;
                let metric = Metric::new(rest.text()?).ok()?;
                let unit = Some(rest.text()?).filter(|unit| !unit.is_empty()).map(Into::into);
                self.series.push((device, metric, unit));
                continue;
            }
            let number = usize::try_from((head / 2).checked_sub(1)?).ok()?;
            let (device, metric, unit) = self.series.get(number)?.clone();
            at = at.wrapping_add(unzigzag(rest.varint()?));
            readings.push(Reading {
                device,
                metric,
                unit,
                value: rest.value()?,
                at: EngineTime(at),
                stamped: head & 1 == 1,
            });
        }
        Some(Frame {
            moment,
            began: flags & BEGAN != 0,
            readings,
        })
    }
}

fn varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push((number & 0x7f) as u8);
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

fn text(into: &mut Vec<u8>, text: &str) {
    varint(into, text.len() as u64);
    into.extend_from_slice(text.as_bytes());
}

/// The decimal places that a short form has.
const SCALES: [(u8, f64); 4] = [(4, 1.0), (5, 10.0), (6, 100.0), (7, 1000.0)];
/// Beyond it not every whole number is a float's.
const WHOLE: f64 = 9_007_199_254_740_992.0;

fn value(into: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Bool(flag) => into.push(u8::from(*flag)),
        Value::Text(written) => {
            into.push(2);
            text(into, written);
        }
        Value::Number(number) => {
            for (tag, scale) in SCALES {
                let scaled = (number * scale).round();
                if scaled.abs() < WHOLE && (scaled / scale).to_bits() == number.to_bits() {
                    into.push(tag);
                    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
                    varint(into, zigzag(scaled as i64));
                    return;
                }
            }
            into.push(3);
            into.extend_from_slice(&number.to_le_bytes());
        }
    }
}

struct Rest<'b>(&'b [u8]);

impl<'b> Rest<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn text(&mut self) -> Option<&'b str> {
        let length = usize::try_from(self.varint()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn value(&mut self) -> Option<Value> {
        Some(match self.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            2 => Value::Text(self.text()?.into()),
            3 => {
                let number = f64::from_le_bytes(self.take(8)?.try_into().ok()?);
                number.is_finite().then_some(Value::Number(number))?
            }
            tag => {
                let (_, scale) = SCALES.into_iter().find(|(known, _)| *known == tag)?;
                #[expect(clippy::cast_precision_loss, reason = "it was a whole number below 2^53")]
                let scaled = unzigzag(self.varint()?) as f64;
                Value::Number(scaled / scale)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moment_at(boot: i64) -> Moment {
        Moment {
            boot_id: BootId(u128::MAX / 3),
            boot: EngineTime(boot),
            wall: Timestamp(1_795_255_200_000_000 + boot),
            quality: ClockQuality::Synchronised,
        }
    }

    fn reading(device: &str, value: Value, at: i64, stamped: bool) -> Reading {
        Reading {
            device: DeviceId::new(device).unwrap(),
            metric: Metric::new("temperature").unwrap(),
            value,
            unit: (device.len().is_multiple_of(2)).then(|| "Cel".into()),
            at: EngineTime(at),
            stamped,
        }
    }

    fn values() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<f64>()
                .prop_filter("a reading is finite", |number| number.is_finite())
                .prop_map(Value::Number),
            (-100_000_i32..100_000).prop_map(|cents| Value::Number(f64::from(cents) / 100.0)),
            "[a-zé]{0,20}".prop_map(|text| Value::Text(text.as_str().into())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            told in proptest::collection::vec(("[a-c]{1,2}", values(), any::<i64>()), 1..50),
            frames in 1_usize..5,
        ) {
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::default());
            let told: Vec<Reading> = told
                .into_iter()
                .map(|(device, value, at)| reading(&device, value, at, false))
                .collect();
            let mut read = Vec::new();
            for chunk in told.chunks(told.len().div_ceil(frames)) {
                for reading in chunk { encoder.push(reading, EngineTime(0)); }
                let (frame, count) = encoder.frame(&moment_at(5)).unwrap();
                prop_assert_eq!(count, chunk.len() as u64);
                let frame = decoder.frame(payload(&frame).unwrap()).unwrap();
                prop_assert_eq!(frame.moment, moment_at(5));
                prop_assert_eq!(frame.began, read.is_empty());
                read.extend(frame.readings);
            }
            prop_assert_eq!(read, told);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            payload(&bytes);
            Decoder::default().frame(&bytes);
        }

        #[test]
        fn a_flipped_bit_is_seen(bit in 0_usize..400) {
            let mut encoder = Encoder::new();
            encoder.push(&reading("t-1", Value::Number(21.5), 7, true), EngineTime(7));
            let (mut frame, _) = encoder.frame(&moment_at(9)).unwrap();
            let bit = bit % (frame.len() * 8);
            frame[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(payload(&frame), None);
        }
    }

    #[test]
    fn a_reading_of_a_known_series_takes_about_eight_bytes() {
        let mut encoder = Encoder::new();
        for second in 0..1000 {
            let value = Value::Number(20.0 + f64::from(second % 97) / 10.0);
            encoder.push(
                &reading("t-1", value, i64::from(second) * 1_000_000, false),
                EngineTime(0),
            );
        }
        let (frame, _) = encoder.frame(&moment_at(0)).unwrap();
        assert!(frame.len() < 9 * 1000, "{} bytes", frame.len());
    }

    #[test]
    fn a_device_whose_clock_went_back_counts_at_its_arrival() {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::default());
        let told = |at| reading("t-1", Value::Bool(true), at, true);
        encoder.push(&told(1000), EngineTime(1000));
        encoder.push(&told(500), EngineTime(1031));
        let (frame, _) = encoder.frame(&moment_at(0)).unwrap();
        let read = decoder.frame(payload(&frame).unwrap()).unwrap().readings;
        let at: Vec<i64> = read.iter().map(|reading| reading.at.0).collect();
        assert_eq!(at, [1000, 1031]);
    }

    #[test]
    fn a_frame_of_unknown_series_is_refused_until_they_are_numbered_anew() {
        let mut encoder = Encoder::new();
        encoder.push(&reading("t-1", Value::Bool(true), 1, false), EngineTime(0));
        encoder.frame(&moment_at(0)).unwrap();
        encoder.push(&reading("t-1", Value::Bool(false), 2, false), EngineTime(0));
        let (second, _) = encoder.frame(&moment_at(0)).unwrap();
        assert_eq!(Decoder::default().frame(payload(&second).unwrap()), None);
        encoder.anew();
        encoder.push(&reading("t-1", Value::Bool(false), 3, false), EngineTime(0));
        let (third, _) = encoder.frame(&moment_at(0)).unwrap();
        assert!(Decoder::default().frame(payload(&third).unwrap()).is_some());
    }
}
