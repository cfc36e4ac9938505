//! When rules apply: a season, days of the week, hours of the day, in one time zone. Pure: a time zone is data.
//!
//! What a wall clock on site shows decides, so a night in which it is put back has 25 hours and those it shows twice
//! count twice; hours that it skips are not missed, they are over at once. Seasons and hours may wrap; the day, and
//! the date of the season, is the one on which the hours began: Friday's `22:00` to `06:00` ends on Saturday.

use std::{str::FromStr, sync::Arc};

use jiff::{
    civil::{Date, DateTime},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::time::Timestamp;

/// `[period.NAME]`: a time is inside when season, day and hours all say so.
#[derive(Clone, Debug, PartialEq)]
pub struct Period {
    /// Its name.
    pub name: Arc<str>,
    /// First and last day, both included; none: all year. The last may lie before the first: over New Year.
    pub season: Option<(MonthDay, MonthDay)>,
    /// Monday first; none: every day.
    pub days: Option<[bool; 7]>,
    /// From, included, and to, not included; none: all day. To may lie before from: over midnight.
    pub between: Option<(TimeOfDay, TimeOfDay)>,
    /// Whose wall clock.
    pub zone: TimeZone,
}

/// A day of any year. The 29th of February is passed over in a year that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MonthDay {
    month: i8,
    day: i8,
}

/// Minutes since midnight, as the wall clock shows them; `24:00` is the end of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    minutes: u16,
}

/// The text is no such day or time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Not `10-01`.
    #[error("a day of the year is month and day, two digits each, like \"10-01\"")]
    DayForm,
    /// `02-30`.
    #[error("there is no such day in any year")]
    NoSuchDay,
    /// Not `06:00`.
    #[error("a time of day is \"00:00\" to \"24:00\", like \"06:00\"")]
    TimeForm,
}

/// A weekly pattern shows all its changes within so many days.
const WEEKLY: usize = 9;
/// A date on some day of the week may be twelve years off: who asks looks again when these are over.
const YEARLY: usize = 2 * 366;

const MINUTES_OF_A_DAY: u16 = 24 * 60;

impl Period {
    /// Whether `wall` is inside.
    #[must_use]
    pub fn contains(&self, wall: Timestamp) -> bool {
        instant(wall).is_some_and(|at| self.shows(self.zone.to_datetime(at)))
    }

    /// The first time after `wall` at which [`Period::contains`] says something else; none: not in the next two
    /// years, and what has no season never changes.
    #[must_use]
    pub fn next_change(&self, wall: Timestamp) -> Option<Timestamp> {
        let now = instant(wall)?;
        let inside = self.contains(wall);
        let days = if self.season.is_some() { YEARLY } else { WEEKLY };
        let mut day = self.zone.to_datetime(now).date();
        for _ in 0..days {
            let next = day.tomorrow().ok()?;
            let found = self
                .edges(day, next)
                .into_iter()
                .filter(|edge| *edge > now)
                .map(|edge| Timestamp(edge.as_microsecond()))
                .filter(|edge| self.contains(*edge) != inside)
                .min();
            if found.is_some() {
                return found;
            }
            day = next;
        }
        None
    }

    /// What a wall clock that shows `shown` says.
    fn shows(&self, shown: DateTime) -> bool {
        let minutes = TimeOfDay::of(shown);
        let (date, in_hours) = match self.between {
            None => (Some(shown.date()), true),
            Some((from, to)) if from <= to => (Some(shown.date()), from <= minutes && minutes < to),
            Some((from, _)) if minutes >= from => (Some(shown.date()), true),
            Some((_, to)) => (shown.date().yesterday().ok(), minutes < to),
        };
        in_hours && date.is_some_and(|date| self.has(date))
    }

    /// Whether season and day say so.
    fn has(&self, date: Date) -> bool {
        let in_season = self.season.is_none_or(|(first, last)| {
            let day = MonthDay::of(date);
            if first <= last {
                first <= day && day <= last
            } else {
                day >= first || day <= last
            }
        });
        let on_day = self.days.is_none_or(|days| {
            usize::try_from(date.weekday().to_monday_zero_offset())
                .ok()
                .and_then(|day| days.get(day).copied())
                .unwrap_or(false)
        });
        in_season && on_day
    }

    /// The instants of one day at which something could change: its start, the hours' ends, the clock's own jumps.
    fn edges(&self, day: Date, next: Date) -> Vec<jiff::Timestamp> {
        let (from, to) = self.between.unzip();
        let shown = [Some(TimeOfDay { minutes: 0 }), from, to]
            .into_iter()
            .flatten()
            .filter_map(|time| time.on(day));
        let mut edges: Vec<jiff::Timestamp> = shown.flat_map(|shown| self.instants(shown)).collect();
        // From an hour before midnight: a clock may be put back over it.
        let bounds = [day, next].map(|date| self.zone.to_timestamp(date.at(0, 0, 0, 0)).ok());
        if let [Some(start), Some(end)] = bounds {
            let jumps = self.zone.following(start - jiff::SignedDuration::from_hours(1));
            edges.extend(jumps.map(|jump| jump.timestamp()).take_while(|jump| *jump <= end));
        }
        edges
    }

    /// When the wall clock shows `shown`: twice where it was put back, never where it skips it.
    fn instants(&self, shown: DateTime) -> impl Iterator<Item = jiff::Timestamp> {
        let offsets = match self.zone.to_ambiguous_timestamp(shown).offset() {
            AmbiguousOffset::Unambiguous { offset } => [Some(offset), None],
            AmbiguousOffset::Gap { .. } => [None, None],
            AmbiguousOffset::Fold { before, after } => [Some(before), Some(after)],
        };
        offsets
            .into_iter()
            .flatten()
            .filter_map(move |offset| offset.to_timestamp(shown).ok())
    }
}

fn instant(wall: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_microsecond(wall.0).ok()
}

impl MonthDay {
    fn of(date: Date) -> Self {
        Self {
            month: date.month(),
            day: date.day(),
        }
    }
}

impl FromStr for MonthDay {
    type Err = Impossible;

    /// `10-01`.
    fn from_str(text: &str) -> Result<Self, Impossible> {
        let (month, day) = two_digits(text, '-').ok_or(Impossible::DayForm)?;
        // A leap year has every day.
        Date::new(2024, month, day)
            .map(Self::of)
            .map_err(|_| Impossible::NoSuchDay)
    }
}

impl TimeOfDay {
    fn of(shown: DateTime) -> Self {
        let minutes = i16::from(shown.hour()) * 60 + i16::from(shown.minute());
        Self {
            minutes: minutes.unsigned_abs(),
        }
    }

    fn on(self, day: Date) -> Option<DateTime> {
        if self.minutes == MINUTES_OF_A_DAY {
            return Some(day.tomorrow().ok()?.at(0, 0, 0, 0));
        }
        let hour = i8::try_from(self.minutes / 60).ok()?;
        let minute = i8::try_from(self.minutes % 60).ok()?;
        Some(day.at(hour, minute, 0, 0))
    }
}

impl FromStr for TimeOfDay {
    type Err = Impossible;

    /// `06:00`.
    fn from_str(text: &str) -> Result<Self, Impossible> {
        let (hour, minute) = two_digits(text, ':').ok_or(Impossible::TimeForm)?;
        let minutes = i16::from(hour) * 60 + i16::from(minute);
        if minute > 59 || minutes.unsigned_abs() > MINUTES_OF_A_DAY {
            return Err(Impossible::TimeForm);
        }
        Ok(Self {
            minutes: minutes.unsigned_abs(),
        })
    }
}

/// `12-34`: two digits, the mark, two digits.
fn two_digits(text: &str, mark: char) -> Option<(i8, i8)> {
    let (first, second) = text.split_once(mark)?;
    let number = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| part.parse().ok()).flatten()
    };
    Some((number(first)?, number(second)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `keys` as the configuration has them: `10-01..04-30 mon,tue 22:00..06:00`, any of the three.
    fn period(keys: &str, zone: &str) -> Period {
        let mut period = Period {
            name: "p".into(),
            season: None,
            days: None,
            between: None,
            zone: TimeZone::get(zone).expect("a zone"),
        };
        for key in keys.split_whitespace() {
            if let Some((from, to)) = key.split_once("..") {
                if key.contains(':') {
                    period.between = Some((from.parse().expect("a time"), to.parse().expect("a time")));
                } else {
                    period.season = Some((from.parse().expect("a day"), to.parse().expect("a day")));
                }
            } else {
                let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
                period.days = Some(names.map(|name| key.split(',').any(|day| day == name)));
            }
        }
        period
    }

    fn at(text: &str) -> Timestamp {
        let instant: jiff::Timestamp = text.parse().expect("a time");
        Timestamp(instant.as_microsecond())
    }

    fn inside(period: &Period, times: &[&str]) -> Vec<bool> {
        times.iter().map(|time| period.contains(at(time))).collect()
    }

    /// Every change from `start` on, as far as `count`.
    fn changes(period: &Period, start: &str, count: usize) -> Vec<String> {
        let mut now = at(start);
        let mut all = Vec::new();
        while all.len() < count
            && let Some(next) = period.next_change(now)
        {
            assert!(next > now && period.contains(next) != period.contains(now));
            assert_ne!(
                period.contains(Timestamp(next.0 - 1)),
                period.contains(next),
                "the first such time"
            );
            all.push(next.to_string().replace(":00.000Z", "Z"));
            now = next;
        }
        all
    }

    #[test]
    fn a_season_includes_both_its_days_and_may_go_over_new_year() {
        let heating = period("10-01..04-30", "UTC");
        let times = [
            "2026-09-30T23:59:59Z",
            "2026-10-01T00:00:00Z",
            "2026-12-31T12:00:00Z",
            "2027-04-30T23:59:59Z",
            "2027-05-01T00:00:00Z",
        ];
        assert_eq!(inside(&heating, &times), [false, true, true, true, false]);
        assert_eq!(
            changes(&heating, "2026-07-01T00:00:00Z", 3),
            ["2026-10-01T00:00Z", "2027-05-01T00:00Z", "2027-10-01T00:00Z"]
        );
        let summer = period("06-01..08-31", "UTC");
        assert_eq!(
            changes(&summer, "2026-07-01T00:00:00Z", 2),
            ["2026-09-01T00:00Z", "2027-06-01T00:00Z"]
        );
    }

    #[test]
    fn hours_begin_at_from_and_end_before_to() {
        let work = period("06:00..22:00", "UTC");
        let times = [
            "2026-11-21T05:59:59Z",
            "2026-11-21T06:00:00Z",
            "2026-11-21T21:59:59Z",
            "2026-11-21T22:00:00Z",
        ];
        assert_eq!(inside(&work, &times), [false, true, true, false]);
        assert_eq!(
            changes(&work, "2026-11-21T06:00:00Z", 2),
            ["2026-11-21T22:00Z", "2026-11-22T06:00Z"]
        );
        let evening = period("20:00..24:00", "UTC");
        assert_eq!(
            changes(&evening, "2026-11-21T06:00:00Z", 2),
            ["2026-11-21T20:00Z", "2026-11-22T00:00Z"]
        );
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_began() {
        // 2026-11-20 is a Friday.
        let friday_night = period("fri 22:00..06:00", "UTC");
        let times = [
            "2026-11-20T05:00:00Z",
            "2026-11-20T23:00:00Z",
            "2026-11-21T05:59:00Z",
            "2026-11-21T23:00:00Z",
        ];
        assert_eq!(inside(&friday_night, &times), [false, true, true, false]);
        assert_eq!(
            changes(&friday_night, "2026-11-19T00:00:00Z", 3),
            ["2026-11-20T22:00Z", "2026-11-21T06:00Z", "2026-11-27T22:00Z"]
        );
        let last_of_season = period("10-01..04-30 22:00..06:00", "UTC");
        assert_eq!(
            inside(
                &last_of_season,
                &[
                    "2026-10-01T03:00:00Z",
                    "2027-05-01T03:00:00Z",
                    "2027-05-01T23:00:00Z"
                ]
            ),
            [false, true, false]
        );
    }

    #[test]
    fn days_are_those_of_the_zone() {
        // Saturday 00:00 in Auckland is Friday 11:00 in UTC.
        let weekend = period("sat,sun", "Pacific/Auckland");
        assert_eq!(
            changes(&weekend, "2026-11-18T00:00:00Z", 2),
            ["2026-11-20T11:00Z", "2026-11-22T11:00Z"]
        );
    }

    #[test]
    fn a_night_in_which_the_clock_goes_forward_is_an_hour_shorter() {
        let night = period("22:00..06:00", "Europe/Berlin");
        assert_eq!(
            changes(&night, "2026-03-28T12:00:00Z", 2),
            ["2026-03-28T21:00Z", "2026-03-29T04:00Z"]
        );
        // 02:30 never comes: the hours that would begin there begin when the clock has jumped past it.
        let skipped = period("02:30..03:30", "Europe/Berlin");
        assert_eq!(
            changes(&skipped, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00Z", "2026-03-29T01:30Z"]
        );
        // Wholly inside the skipped hour: not on that day.
        let gone = period("02:15..02:45", "Europe/Berlin");
        assert_eq!(
            changes(&gone, "2026-03-28T12:00:00Z", 2),
            ["2026-03-30T00:15Z", "2026-03-30T00:45Z"]
        );
    }

    #[test]
    fn a_night_in_which_the_clock_goes_back_is_an_hour_longer_and_an_hour_shown_twice_counts_twice() {
        let night = period("22:00..06:00", "Europe/Berlin");
        assert_eq!(
            changes(&night, "2026-10-24T12:00:00Z", 2),
            ["2026-10-24T20:00Z", "2026-10-25T05:00Z"]
        );
        let twice = period("02:15..02:45", "Europe/Berlin");
        assert_eq!(
            changes(&twice, "2026-10-24T12:00:00Z", 4),
            [
                "2026-10-25T00:15Z",
                "2026-10-25T00:45Z",
                "2026-10-25T01:15Z",
                "2026-10-25T01:45Z"
            ]
        );
        // Over at 02:30, and at 03:00 the clock shows 02:00 again.
        let over_and_again = period("01:00..02:30", "Europe/Berlin");
        assert_eq!(
            changes(&over_and_again, "2026-10-24T12:00:00Z", 4),
            [
                "2026-10-24T23:00Z",
                "2026-10-25T00:30Z",
                "2026-10-25T01:00Z",
                "2026-10-25T01:30Z"
            ]
        );
    }

    #[test]
    fn a_day_that_the_clock_begins_twice_or_late_is_still_one_day() {
        // Havana puts its clock back at 01:00, to 00:00 of the same day; Beirut skips the first hour.
        let sunday = period("sun", "America/Havana");
        assert_eq!(
            changes(&sunday, "2026-10-31T12:00:00Z", 2),
            ["2026-11-01T04:00Z", "2026-11-02T05:00Z"]
        );
        let sunday = period("sun", "Asia/Beirut");
        assert_eq!(
            changes(&sunday, "2026-03-28T12:00:00Z", 2),
            ["2026-03-28T22:00Z", "2026-03-29T21:00Z"]
        );
    }

    #[test]
    fn what_never_changes_has_no_next_change() {
        assert_eq!(
            period("mon,tue,wed,thu,fri,sat,sun", "UTC").next_change(at("2026-11-21T00:00:00Z")),
            None
        );
        assert_eq!(
            period("01-01..12-31", "UTC").next_change(at("2026-11-21T00:00:00Z")),
            None
        );
    }

    #[test]
    fn the_29th_of_february_comes_every_four_years() {
        let leap = period("02-29..02-29", "UTC");
        assert_eq!(
            changes(&leap, "2026-11-21T00:00:00Z", 2),
            ["2028-02-29T00:00Z", "2028-03-01T00:00Z"]
        );
        let until = period("02-01..02-29", "UTC");
        assert_eq!(changes(&until, "2027-02-10T00:00:00Z", 1), ["2027-03-01T00:00Z"]);
    }

    #[test]
    fn every_change_that_a_minute_by_minute_look_finds_is_found() {
        for (keys, zone, start) in [
            ("22:00..06:00", "Europe/Berlin", "2026-10-23T00:00:00Z"),
            ("sat,sun 23:30..02:30", "America/New_York", "2026-10-30T00:00:00Z"),
            (
                "mon,sun 01:30..03:15",
                "Australia/Lord_Howe",
                "2026-10-02T00:00:00Z",
            ),
            ("03-29..03-29", "Asia/Beirut", "2026-03-27T00:00:00Z"),
        ] {
            let period = period(keys, zone);
            let begin = at(start);
            let minute = |index: i64| Timestamp(begin.0 + index * 60_000_000);
            let looked: Vec<Timestamp> = (1..7 * 24 * 60)
                .map(minute)
                .filter(|now| period.contains(*now) != period.contains(Timestamp(now.0 - 60_000_000)))
                .collect();
            let mut found = Vec::new();
            let mut now = begin;
            while let Some(next) = period.next_change(now).filter(|next| *next < minute(7 * 24 * 60)) {
                found.push(next);
                now = next;
            }
            assert_eq!(found, looked, "{keys} {zone}");
            assert!(!looked.is_empty(), "{keys} {zone}");
        }
    }

    #[test]
    fn what_is_no_day_or_time_is_refused() {
        for (text, wrong) in [
            ("02-30", Impossible::NoSuchDay),
            ("13-01", Impossible::NoSuchDay),
            ("00-10", Impossible::NoSuchDay),
            ("1-1", Impossible::DayForm),
            ("2026-10-01", Impossible::DayForm),
            ("+1-01", Impossible::DayForm),
        ] {
            assert_eq!(text.parse::<MonthDay>(), Err(wrong), "{text}");
        }
        assert!("02-29".parse::<MonthDay>().is_ok());
        for text in ["24:01", "06:60", "6:00", "06:00:00", "25:00", "-6:00"] {
            assert_eq!(text.parse::<TimeOfDay>(), Err(Impossible::TimeForm), "{text}");
        }
        assert!("24:00".parse::<TimeOfDay>().is_ok());
    }
}
