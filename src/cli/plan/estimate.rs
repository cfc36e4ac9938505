//! What a journal, an uplink and a card come to, from a few numbers. Pure: whole numbers in, whole numbers out.

use std::time::Duration;

pub(super) const DAY: u64 = 86_400;

/// What the card was seen to be written for one event, by how many there are in a day: bench/README.md, "What an
/// event costs the card", of 2026-11-22 (`bench/src/bin/wear.rs`; bytes that reach the device, the filesystem's own
/// included, each event forwarded), on ext4 as it is mounted by default.
pub(super) const WEAR: [(u64, u64); 3] = [(DAY / 60, 24_576), (DAY, 7_014), (DAY * 1_000, 1_103)];

/// How often a cell of a card may be written: a consumer's card, whose sheet says nothing.
pub(super) const CYCLES: u64 = 500;
/// What the card writes inside for a byte that it is given, where writes are small.
pub(super) const AMPLIFICATION: u64 = 10;

/// From an event's journal bytes to how long an outage may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outage {
    /// Events that the journal holds.
    pub events: u64,
    /// How long that is.
    pub lasts: Duration,
}

/// `room` bytes of events of this size, so many a day.
pub(super) fn outage(room: u64, event_bytes: u64, per_day: u64) -> Outage {
    let events = room / event_bytes.max(1);
    let seconds = u128::from(events) * u128::from(DAY) / u128::from(per_day.max(1));
    Outage {
        events,
        lasts: Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)),
    }
}

/// What bounds how fast a sink drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Bound {
    /// The uplink's bits.
    Link,
    /// Waiting for answers, with so many events on the way.
    RoundTrips,
    /// `drain-rate`.
    DrainRate,
}

/// How one sink sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Bytes of an event on the wire, with all that is around it.
    pub wire_bytes: u64,
    /// Events on the way before one is answered.
    pub window: u64,
    /// Events a day, if it is configured.
    pub drain_rate: Option<u64>,
}

/// How many events a day a sink can be given, and what the bound is.
pub(super) fn speed(way: Way, link_bits_s: u64, round_trip: Duration) -> (u64, Bound) {
    let link = (link_bits_s / 8).saturating_mul(DAY) / way.wire_bytes.max(1);
    let trips_a_day = u128::from(DAY) * 1_000_000 / round_trip.as_micros().max(1);
    let trips = u64::try_from(trips_a_day.saturating_mul(way.window.into())).unwrap_or(u64::MAX);
    let drain = way.drain_rate.map(|rate| (rate, Bound::DrainRate));
    let bounds = [Some((link, Bound::Link)), Some((trips, Bound::RoundTrips)), drain];
    let slowest = bounds.into_iter().flatten().min_by_key(|(rate, _)| *rate);
    slowest.unwrap_or((link, Bound::Link))
}

/// How long a backlog takes while new events come; none: it never ends.
pub(super) fn drain(backlog: u64, speed: u64, per_day: u64) -> Option<Duration> {
    let net = speed.checked_sub(per_day).filter(|net| *net > 0)?;
    let seconds = u128::from(backlog) * u128::from(DAY) / u128::from(net);
    Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(u64::MAX)))
}

/// Bytes that reach the device in a day: between two paces that were measured, on the straight line between them.
pub(super) fn written_a_day(per_day: u64) -> u64 {
    let total = |(rate, bytes): (u64, u64)| u128::from(rate) * u128::from(bytes);
    let [slow, middle, fast] = WEAR;
    let per_day = u128::from(per_day);
    let between = |from: (u64, u64), to: (u64, u64)| {
        let (run, rise) = (u128::from(to.0 - from.0), total(to) - total(from));
        total(from) + (per_day - u128::from(from.0)) * rise / run
    };
    let bytes = if per_day <= u128::from(slow.0) {
        per_day * u128::from(slow.1)
    } else if per_day <= u128::from(middle.0) {
        between(slow, middle)
    } else {
        between(middle, fast)
    };
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Days until a card of this size has been written [`CYCLES`] times.
pub(super) fn card_days(card_bytes: u64, written_a_day: u64) -> u64 {
    let endurance = u128::from(card_bytes) * u128::from(CYCLES) / u128::from(AMPLIFICATION);
    u64::try_from(endurance / u128::from(written_a_day.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_lasts_until_the_room_is_full() {
        let found = outage(200 << 20, 1024, 20_480);
        assert_eq!(found.events, 204_800);
        assert_eq!(found.lasts, Duration::from_secs(10 * DAY));
        assert_eq!(outage(1 << 20, 0, 0).events, 1 << 20, "nothing divides by zero");
    }

    #[test]
    fn the_slowest_of_link_round_trips_and_drain_rate_is_the_speed() {
        let way = Way {
            wire_bytes: 1_000,
            window: 16,
            drain_rate: None,
        };
        let trip = Duration::from_millis(100);
        assert_eq!(speed(way, 80_000, trip), (10 * DAY, Bound::Link));
        assert_eq!(speed(way, 8_000_000, trip), (160 * DAY, Bound::RoundTrips));
        let limited = Way {
            drain_rate: Some(5 * DAY),
            ..way
        };
        assert_eq!(speed(limited, 80_000, trip), (5 * DAY, Bound::DrainRate));
    }

    #[test]
    fn a_backlog_drains_with_what_new_events_leave() {
        assert_eq!(drain(86_400, 2 * DAY, DAY), Some(Duration::from_secs(DAY)));
        assert_eq!(drain(1, DAY, DAY), None, "it never catches up");
        assert_eq!(drain(1, DAY, 2 * DAY), None);
    }

    #[test]
    fn the_wear_meets_what_was_measured_and_never_falls_in_between() {
        for (rate, bytes) in WEAR {
            assert_eq!(written_a_day(rate), rate * bytes);
        }
        let rates = [0, 1, 100, 1_439, 1_441, 50_000, 86_401, 10_000_000, 100_000_000];
        let totals = rates.map(written_a_day);
        assert!(totals.is_sorted(), "{totals:?}");
        assert_eq!(totals.first(), Some(&0));
    }

    #[test]
    fn a_card_lasts_by_its_size() {
        let written = 1_000_000_000;
        assert_eq!(card_days(32_000_000_000, written), 1_600);
        assert_eq!(card_days(64_000_000_000, written), 3_200);
        assert!(card_days(1, 0) < 1_000);
    }
}
