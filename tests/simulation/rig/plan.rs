//! What a seed says: who is there, how bad things are, and when the gateway dies of what.

use std::time::Duration;

use tidegate::{event::Severity, forward::filter::Filter, journal::WhenFull, rule::Pattern};

use super::{
    device::{self, Habits},
    reference::Law,
    sink::Nature,
};

#[derive(Debug)]
pub struct Plan {
    pub when_full: WhenFull,
    pub max_bytes: u64,
    pub state_delay: Duration,
    pub checkpoint: Duration,
    /// Somebody vouches for the wall clock, in every boot.
    pub synchronised: bool,
    /// What a turn of the journal takes at most.
    pub disk: Duration,
    /// How much an event carries along.
    pub runbook: usize,
    pub devices: Vec<Habits>,
    pub sinks: Vec<Nature>,
    /// The rules, by name.
    pub laws: [(&'static str, Law); 2],
    pub days: Vec<Day>,
    /// Which board the card is in.
    pub board: u8,
    /// The sinks that are not configured, in this life.
    pub absent: Vec<usize>,
}

/// A while, and how it ends.
#[derive(Debug)]
pub struct Day {
    pub length: Duration,
    /// So many steps of any task more, so that it may end in the middle of something.
    pub steps: u16,
    pub end: End,
    pub down: Duration,
    /// The openings that come to nothing: after so many changes of the disk the power goes again.
    pub cut_starts: Vec<u64>,
    /// Before the next start somebody does that.
    pub hands: Hands,
}

/// What people do to a gateway that is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    Nothing,
    /// The card goes into another board: a new epoch.
    Swap,
    /// A sink's table goes, until the next start.
    Remove(usize),
    /// A sink gets all that is kept once more, as soon as the gateway runs.
    Replay(usize),
}

#[derive(Clone, Copy, Debug)]
pub enum End {
    /// Asked to; for so long, then it is killed.
    Stop(Duration),
    /// What it has written is still seen.
    Kill,
    /// What was not synced is lost, whole, torn or in any order.
    PowerCut,
    /// The journal stands still after so many changes of the disk; then it dies, or the power goes.
    Midway(u64, bool),
    /// After so many syncs they fail; and then the power may go.
    FailingSync(u64, bool),
    /// No room for so long; nothing ends.
    FullDisk(Duration),
    /// A kill, and before what it left is synced the power goes.
    KillThenPowerCut,
}

fn one_of<T: Copy>(random: &mut fastrand::Rng, choices: &[T]) -> T {
    choices[random.usize(..choices.len())]
}

fn up_to(random: &mut fastrand::Rng, millis: &[u64]) -> Duration {
    let most = one_of(random, millis);
    Duration::from_millis(random.u64(..=most))
}

impl Plan {
    pub fn draw(random: &mut fastrand::Rng) -> Self {
        let tight = random.u8(..5) == 0;
        let days = random.usize(1..=6);
        let hold = one_of(random, &[500, 2_000, 5_000]);
        let clear_hold = one_of(random, &[0, 0, 1_000, 3_000]);
        // The simulated clock goes by milliseconds: no reading comes at the very time of a deadline, where it would be
        // chance which of them is first.
        let wait = |millis| match millis {
            0 => Duration::ZERO,
            millis => Duration::from_micros(millis * 1000 + 500),
        };
        let law = |hold, clear_hold| Law {
            hold: wait(hold),
            clear_hold: wait(clear_hold),
        };
        Self {
            when_full: one_of(random, &[WhenFull::DropOldest, WhenFull::Refuse]),
            max_bytes: if tight { 768 << 10 } else { 4 << 20 },
            state_delay: one_of(random, &[0, 5, 50, 250]).pipe(Duration::from_millis),
            checkpoint: Duration::from_secs(one_of(random, &[5, 60])),
            synchronised: random.u8(..4) > 0,
            disk: one_of(random, &[1, 10, 100, 1_000]).pipe(Duration::from_millis),
            runbook: if tight {
                4_000
            } else {
                one_of(random, &[0, 0, 500])
            },
            devices: (0..random.usize(1..=4)).map(|_| Self::habits(random)).collect(),
            sinks: (0..random.usize(1..=3)).map(|_| Self::nature(random)).collect(),
            laws: [("hot", law(0, 0)), ("long", law(hold, clear_hold))],
            days: (0..days).map(|_| Day::draw(random)).collect(),
            board: 0,
            absent: Vec::new(),
        }
    }

    fn habits(random: &mut fastrand::Rng) -> Habits {
        Habits {
            window: one_of(random, &[Some(1), Some(1), Some(3), None]),
            pause: Duration::from_millis(one_of(random, &[1_000, 3_000, 8_000])),
            cuts: one_of(random, &[0, 20, 100]),
        }
    }

    fn nature(random: &mut fastrand::Rng) -> Nature {
        let bad = random.bool();
        let chance = |random: &mut fastrand::Rng, of| if bad { random.u16(..=of) } else { 0 };
        Nature {
            window: one_of(random, &[1, 2, 8, 32]),
            away: u8::try_from(chance(random, 90)).unwrap(),
            cuts: chance(random, 300),
            refuses: chance(random, 60),
            delay: Duration::from_millis(one_of(random, &[0, 10, 300, 3_000])),
            reorders: random.bool(),
            silent: chance(random, 40),
            filter: Self::filter(random),
        }
    }

    fn filter(random: &mut fastrand::Rng) -> Filter {
        let all = Filter::default();
        match random.u8(..6) {
            0 => Filter {
                min_severity: Severity::Warning,
                ..all
            },
            1 => Filter {
                min_severity: Severity::Warning,
                devices: vec![Pattern(device::name(0).into())],
                ..all
            },
            2 => Filter {
                events: vec![Pattern("long".into())],
                ..all
            },
            _ => all,
        }
    }
}

impl Day {
    fn draw(random: &mut fastrand::Rng) -> Self {
        let changes = random.u64(0..30);
        let end = match random.u8(..16) {
            0 | 1 => End::Stop(one_of(random, &[0, 50, 60_000]).pipe(Duration::from_millis)),
            2 => End::Kill,
            3 | 4 => End::PowerCut,
            5 => End::KillThenPowerCut,
            6..=11 => End::Midway(changes, random.u8(..3) > 0),
            12 | 13 => End::FailingSync(changes / 3, random.bool()),
            _ => End::FullDisk(up_to(random, &[20_000])),
        };
        let cut_starts = if random.u8(..4) == 0 {
            random.usize(1..3)
        } else {
            0
        };
        Self {
            length: up_to(random, &[200, 3_000, 20_000]),
            steps: random.u16(..60),
            end,
            down: up_to(random, &[0, 1_000, 20_000]),
            cut_starts: (0..cut_starts).map(|_| random.u64(..30)).collect(),
            hands: Hands::draw(random),
        }
    }
}

impl Hands {
    fn draw(random: &mut fastrand::Rng) -> Self {
        match random.u8(..12) {
            0 => Self::Swap,
            1 => Self::Remove(random.usize(..3)),
            2 => Self::Replay(random.usize(..3)),
            _ => Self::Nothing,
        }
    }
}

trait Pipe: Sized {
    fn pipe<T>(self, into: impl FnOnce(Self) -> T) -> T {
        into(self)
    }
}

impl<T> Pipe for T {}
