//! Rule sets and stories, drawn at random: small numbers, so that thresholds, stamps and deadlines meet often.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use tidegate::{
    event::Severity,
    reading::{DeviceId, Metric, Value},
    rule::{
        Aggregate, Condition, DeviceFacts, MaxRaises, Override, Part, Pattern, Period, Rule, Sliding, Test,
        Unless, Watched,
    },
};

/// The first has no clock: its readings count at their arrival. The second stamps its own.
pub const DEVICES: [&str; 2] = ["a", "b"];
pub const METRICS: [&str; 3] = ["temp", "flow", "door"];

/// A gateway's life: its rules, and what happens to it.
#[derive(Clone)]
pub struct Story {
    pub rules: Vec<RuleSpec>,
    /// `[[device]] expects`, for the first device: which metrics.
    pub expects: Vec<usize>,
    pub synchronised: bool,
    /// Nothing but readings makes time pass: whoever drives the engine is late.
    pub lazy: bool,
    /// It may be killed; then nothing that only a clean stop saves is part of it (own stamps, edits).
    pub kills: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct Step {
    /// Seconds since the last one.
    pub pass: u8,
    pub act: Act,
}

#[derive(Clone, Debug)]
pub enum Act {
    Wait,
    /// With an own stamp it is so many seconds old.
    Read {
        device: usize,
        metric: usize,
        value: Value,
        age: u8,
    },
    /// The second device's clock is so many seconds behind from now on.
    ClockBehind(u8),
    SaveWindows,
    Restart {
        clean: bool,
        gone: u8,
        boot: Boot,
    },
    /// By a restart, or while it runs.
    Edit {
        rule: usize,
        edit: Edit,
        hot: bool,
    },
    Mute {
        target: Target,
        length: u8,
    },
    Unmute {
        target: Target,
    },
    Forget {
        device: usize,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum Boot {
    Same,
    /// The machine started anew; whether its clock is synchronised then.
    New {
        synchronised: bool,
    },
}

#[derive(Clone, Debug)]
pub enum Edit {
    /// All numbers of all tests, shifted.
    Numbers(i8),
    Holds {
        hold: u8,
        clear_hold: u8,
    },
    Remove,
    Replace(RuleSpec),
}

#[derive(Clone, Copy, Debug)]
pub enum Target {
    Device(usize),
    Rule(usize),
}

#[derive(Clone, Debug)]
pub struct RuleSpec {
    /// None: of any device.
    pub device: Option<usize>,
    pub condition: ConditionSpec,
    pub hold: u8,
    pub clear_hold: u8,
    /// So many in a minute each.
    pub max_raises: Option<u8>,
    pub remind_every: Option<u8>,
    /// The part, and `unless-after`.
    pub unless: Option<(PartSpec, u8)>,
    /// Minutes of the story.
    pub during: Option<(u8, u8)>,
    /// For the second device: another shift of all numbers, another hold, another severity.
    pub over: Option<(i8, Option<u8>)>,
}

#[derive(Clone, Debug)]
pub enum ConditionSpec {
    Value(WatchedSpec),
    Silent { metric: usize, after: u8 },
    All(Vec<PartSpec>),
    Any(Vec<PartSpec>),
}

#[derive(Clone, Debug)]
pub struct PartSpec {
    pub device: Option<usize>,
    pub watched: WatchedSpec,
}

#[derive(Clone, Debug)]
pub struct WatchedSpec {
    pub metric: usize,
    pub window: Option<(Aggregate, u8, usize)>,
    pub test: TestSpec,
}

#[derive(Clone, Debug)]
pub enum TestSpec {
    Above(i8, u8),
    Below(i8, u8),
    Outside(i8, u8, u8),
    Inside(i8, u8, u8),
    Equals(Value),
    NotEquals(Value),
    /// Within the window.
    Rises(u8, u8),
    Falls(u8, u8),
}

pub fn story() -> impl Strategy<Value = Story> {
    let rules = vec(rule(), 1..4);
    let expects = vec(0..METRICS.len(), 0..2);
    let flags = (
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.2),
        any::<bool>(),
    );
    (rules, expects, flags, vec(step(), 1..50)).prop_map(
        |(rules, expects, (synchronised, lazy, kills), steps)| {
            Story {
                rules,
                expects,
                synchronised,
                lazy,
                kills,
                steps,
            }
            .fit_for_kills()
        },
    )
}

impl Story {
    fn fit_for_kills(mut self) -> Self {
        if !self.kills {
            return self;
        }
        self.rules.iter_mut().for_each(RuleSpec::make_fit_for_kills);
        for step in &mut self.steps {
            if matches!(
                step.act,
                Act::Mute { .. } | Act::Unmute { .. } | Act::Forget { .. }
            ) {
                step.act = Act::Wait;
            }
        }
        self
    }
}

impl RuleSpec {
    /// After a kill the last value may be an older one, and a device that sent nothing of note is unknown: nothing
    /// may rest on these.
    fn make_fit_for_kills(&mut self) {
        (self.unless, self.during) = (None, None);
        if let ConditionSpec::All(parts) | ConditionSpec::Any(parts) = &mut self.condition {
            for part in parts {
                part.device = None;
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let pass = prop_oneof![6 => 0_u8..6, 3 => 6_u8..25, 1 => 25_u8..120];
    (pass, act()).prop_map(|(pass, act)| Step { pass, act })
}

fn act() -> BoxedStrategy<Act> {
    let target = || {
        prop_oneof![
            (0..DEVICES.len()).prop_map(Target::Device),
            (0_usize..3).prop_map(Target::Rule)
        ]
    };
    let boot = prop_oneof![
        2 => Just(Boot::Same),
        1 => Just(Boot::New { synchronised: true }),
        1 => Just(Boot::New { synchronised: false }),
    ];
    prop_oneof![
        2 => Just(Act::Wait),
        30 => (0..DEVICES.len(), metric(), value(), prop_oneof![3 => Just(0_u8), 1 => 0_u8..5])
            .prop_map(|(device, metric, value, age)| Act::Read { device, metric, value, age }),
        1 => (0_u8..90).prop_map(Act::ClockBehind),
        2 => Just(Act::SaveWindows),
        4 => (any::<bool>(), 0_u8..40, boot).prop_map(|(clean, gone, boot)| Act::Restart { clean, gone, boot }),
        3 => (0_usize..3, edit(), any::<bool>()).prop_map(|(rule, edit, hot)| Act::Edit { rule, edit, hot }),
        1 => (target(), 1_u8..60).prop_map(|(target, length)| Act::Mute { target, length }),
        1 => target().prop_map(|target| Act::Unmute { target }),
        1 => (0..DEVICES.len()).prop_map(|device| Act::Forget { device }),
    ]
    .boxed()
}

fn edit() -> BoxedStrategy<Edit> {
    prop_oneof![
        4 => (-3_i8..4).prop_map(Edit::Numbers),
        2 => (0_u8..20, 0_u8..20).prop_map(|(hold, clear_hold)| Edit::Holds { hold, clear_hold }),
        1 => Just(Edit::Remove),
        1 => rule().prop_map(Edit::Replace),
    ]
    .boxed()
}

fn rule() -> BoxedStrategy<RuleSpec> {
    let often_zero = || prop_oneof![1 => Just(0_u8), 1 => 1_u8..20];
    (
        (option::weighted(0.3, 0..DEVICES.len()), condition()),
        (often_zero(), often_zero()),
        (option::weighted(0.3, 1_u8..4), option::weighted(0.3, 1_u8..40)),
        option::weighted(0.2, (part(), 0_u8..20)),
        option::weighted(0.2, (0_u8..6, 0_u8..6)),
        option::weighted(0.2, (-3_i8..4, option::of(0_u8..20))),
    )
        .prop_map(
            |((device, condition), (hold, clear_hold), (max_raises, remind_every), unless, during, over)| {
                RuleSpec {
                    device,
                    condition,
                    hold,
                    clear_hold,
                    max_raises,
                    remind_every,
                    unless,
                    during,
                    over,
                }
            },
        )
        .boxed()
}

fn condition() -> BoxedStrategy<ConditionSpec> {
    prop_oneof![
        6 => watched().prop_map(ConditionSpec::Value),
        2 => (metric(), 1_u8..40).prop_map(|(metric, after)| ConditionSpec::Silent { metric, after }),
        2 => vec(part(), 1..4).prop_map(ConditionSpec::All),
        2 => vec(part(), 1..4).prop_map(ConditionSpec::Any),
    ]
    .boxed()
}

fn part() -> BoxedStrategy<PartSpec> {
    (option::weighted(0.3, 0..DEVICES.len()), watched())
        .prop_map(|(device, watched)| PartSpec { device, watched })
        .boxed()
}

fn watched() -> BoxedStrategy<WatchedSpec> {
    let of = select(vec![
        Aggregate::Mean,
        Aggregate::Min,
        Aggregate::Max,
        Aggregate::Sum,
        Aggregate::Count,
        Aggregate::Delta,
    ]);
    let window = (of, 1_u8..30, 0_usize..4);
    prop_oneof![
        4 => (metric(), test()).prop_map(|(metric, test)| WatchedSpec { metric, window: None, test }),
        3 => (metric(), window, number_test())
            .prop_map(|(metric, window, test)| WatchedSpec { metric, window: Some(window), test }),
        1 => (metric(), any::<bool>(), 1_u8..30, 1_u8..5, 0_u8..3).prop_map(|(metric, rises, within, by, margin)| {
            let (of, test) = if rises {
                (Aggregate::Rise, TestSpec::Rises(by, margin))
            } else {
                (Aggregate::Fall, TestSpec::Falls(by, margin))
            };
            WatchedSpec { metric, window: Some((of, within, 0)), test }
        }),
    ]
    .boxed()
}

fn number_test() -> BoxedStrategy<TestSpec> {
    prop_oneof![
        (0_i8..6, 0_u8..3).prop_map(|(x, margin)| TestSpec::Above(x, margin)),
        (0_i8..6, 0_u8..3).prop_map(|(x, margin)| TestSpec::Below(x, margin)),
        (0_i8..4, 0_u8..4, 0_u8..2).prop_map(|(lo, width, margin)| TestSpec::Outside(lo, width, margin)),
        (0_i8..4, 0_u8..4, 0_u8..2).prop_map(|(lo, width, margin)| TestSpec::Inside(lo, width, margin)),
    ]
    .boxed()
}

fn test() -> BoxedStrategy<TestSpec> {
    prop_oneof![
        3 => number_test(),
        1 => value().prop_map(TestSpec::Equals),
        1 => value().prop_map(TestSpec::NotEquals),
    ]
    .boxed()
}

fn metric() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(0_usize), 2 => Just(1_usize), 1 => Just(2_usize)]
}

/// Sentinels (-127, 85) come as they are: what `ignore` and `valid` reject never reaches the engine.
fn value() -> BoxedStrategy<Value> {
    prop_oneof![
        12 => (-2_i8..8).prop_map(|number| Value::Number(f64::from(number))),
        1 => select(vec![-127.0, 85.0, 0.5, -0.0]).prop_map(Value::Number),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => select(vec!["ok", "fault"]).prop_map(|text| Value::Text(text.into())),
    ]
    .boxed()
}

/// Midnight of some day; stories begin at ten. Whole minutes of UTC, so that a period is easily told.
pub const WALL: i64 = 1_800_057_600 + 36_000;

fn lasting(seconds: u8) -> Duration {
    Duration::from_secs(seconds.into())
}

pub fn device(index: usize) -> DeviceId {
    DeviceId::new(DEVICES[index]).unwrap()
}

pub fn metric_of(index: usize) -> Metric {
    Metric::new(METRICS[index]).unwrap()
}

fn pattern(device: Option<usize>) -> Pattern {
    Pattern(device.map_or("*", |index| DEVICES[index]).into())
}

pub fn facts(expects: &[usize]) -> Vec<DeviceFacts> {
    let facts = DeviceFacts::of(DEVICES[0]);
    vec![DeviceFacts {
        expects: expects.iter().map(|index| metric_of(*index)).collect(),
        ..facts
    }]
}

pub fn name(index: usize) -> Arc<str> {
    format!("r{index}").into()
}

impl RuleSpec {
    pub fn rule(&self, index: usize) -> Rule {
        let name = name(index);
        let over = self.over.map(|(shift, hold)| Override {
            devices: vec![pattern(Some(1))],
            condition: Some(self.condition.shifted(shift)),
            hold: hold.map(lasting),
            clear_hold: None,
            severity: Some(Severity::Critical),
            remind_every: None,
        });
        Rule {
            event: format!("R{index}").into(),
            cleared_event: format!("R{index}Cleared").into(),
            type_prefix: "io.tidegate.rule.".into(),
            name,
            devices: vec![pattern(self.device)],
            labels_required: BTreeMap::new(),
            condition: self.condition.shifted(0),
            hold: lasting(self.hold),
            clear_hold: lasting(self.clear_hold),
            severity: Severity::Warning,
            max_raises: self.max_raises.map_or(
                MaxRaises {
                    count: 12,
                    per: Duration::from_secs(3600),
                },
                |count| MaxRaises {
                    count: count.into(),
                    per: Duration::from_secs(60),
                },
            ),
            remind_every: self.remind_every.map(lasting),
            unless: self.unless.as_ref().map(|(part, after)| Unless {
                part: part.shifted(0),
                after: lasting(*after),
            }),
            during: self
                .during
                .into_iter()
                .map(|(from, to)| Arc::new(period(from, to)))
                .collect(),
            stale_after: Duration::from_secs(40),
            summary: None,
            runbook: None,
            labels: BTreeMap::new(),
            overrides: over.into_iter().collect(),
        }
    }

    pub fn edited(&self, edit: &Edit) -> Option<Self> {
        let mut edited = self.clone();
        match edit {
            Edit::Remove => return None,
            Edit::Replace(other) => {
                // What an edited window still holds is the engine's own business.
                let starts_anew = !self.is_same_kind(other);
                let windowed = [self, other].into_iter().any(RuleSpec::looks_further);
                return Some(if starts_anew || !windowed {
                    other.clone()
                } else {
                    edited
                });
            }
            Edit::Holds { hold, clear_hold } => (edited.hold, edited.clear_hold) = (*hold, *clear_hold),
            Edit::Numbers(shift) => match &mut edited.condition {
                ConditionSpec::Value(watched) => watched.test = watched.test.shifted(*shift),
                ConditionSpec::Silent { after, .. } => *after = after.saturating_add_signed(*shift).max(1),
                ConditionSpec::All(parts) | ConditionSpec::Any(parts) => {
                    for part in parts {
                        part.watched.test = part.watched.test.shifted(*shift);
                    }
                }
            },
        }
        Some(edited)
    }
}

impl RuleSpec {
    fn is_same_kind(&self, other: &Self) -> bool {
        let (one, other) = (self.condition.shifted(0), other.condition.shifted(0));
        one.kind() == other.kind() && one.metric() == other.metric()
    }

    pub fn is_silence(&self) -> bool {
        matches!(self.condition, ConditionSpec::Silent { .. })
    }

    pub fn has_parts(&self) -> bool {
        matches!(self.condition, ConditionSpec::All(_) | ConditionSpec::Any(_)) || self.unless.is_some()
    }

    pub fn has_windows(&self) -> bool {
        let of = |parts: &[PartSpec]| parts.iter().any(|part| part.watched.window.is_some());
        let by_condition = match &self.condition {
            ConditionSpec::Value(watched) => watched.window.is_some(),
            ConditionSpec::Silent { .. } => false,
            ConditionSpec::All(parts) | ConditionSpec::Any(parts) => of(parts),
        };
        let unless = self.unless.iter().any(|(part, _)| part.watched.window.is_some());
        by_condition || unless
    }

    /// Whether it looks at more than the last value of one metric.
    fn looks_further(&self) -> bool {
        let plain = matches!(&self.condition, ConditionSpec::Value(watched) if watched.window.is_none());
        !plain || self.unless.is_some()
    }
}

fn period(from: u8, to: u8) -> Period {
    let (from, to) = (format!("10:{from:02}"), format!("10:{to:02}"));
    Period {
        name: format!("{from}..{to}").into(),
        season: None,
        days: None,
        between: Some((from.parse().unwrap(), to.parse().unwrap())),
        zone: jiff::tz::TimeZone::UTC,
    }
}

impl ConditionSpec {
    fn shifted(&self, shift: i8) -> Condition {
        let all = |parts: &[PartSpec]| parts.iter().map(|part| part.shifted(shift)).collect();
        match self {
            Self::Value(watched) => Condition::Value(watched.shifted(shift)),
            Self::Silent { metric, after } => Condition::Silent {
                metric: metric_of(*metric),
                after: lasting(after.saturating_add_signed(shift).max(1)),
            },
            Self::All(parts) => Condition::All(all(parts)),
            Self::Any(parts) => Condition::Any(all(parts)),
        }
    }
}

impl PartSpec {
    fn shifted(&self, shift: i8) -> Part {
        Part {
            device: self.device.map(device),
            watched: self.watched.shifted(shift),
        }
    }
}

impl WatchedSpec {
    fn shifted(&self, shift: i8) -> Watched {
        Watched {
            metric: metric_of(self.metric),
            window: self.window.as_ref().map(|(of, over, min)| Sliding {
                of: *of,
                over: lasting(*over),
                min: *min,
                max: 1024,
            }),
            test: self.test.shifted(shift).test(),
        }
    }
}

impl TestSpec {
    fn shifted(&self, shift: i8) -> Self {
        match self.clone() {
            Self::Above(x, margin) => Self::Above(x + shift, margin),
            Self::Below(x, margin) => Self::Below(x + shift, margin),
            Self::Outside(lo, width, margin) => Self::Outside(lo + shift, width, margin),
            Self::Inside(lo, width, margin) => Self::Inside(lo + shift, width, margin),
            Self::Rises(by, margin) => Self::Rises(by.saturating_add_signed(shift).max(1), margin),
            Self::Falls(by, margin) => Self::Falls(by.saturating_add_signed(shift).max(1), margin),
            value => value,
        }
    }

    fn test(&self) -> Test {
        let number = |x: &i8| f64::from(*x);
        let margin_of = |x: &u8| f64::from(*x);
        match self {
            Self::Above(x, margin) => Test::Above {
                threshold: number(x),
                clear: number(x) - margin_of(margin),
            },
            Self::Below(x, margin) => Test::Below {
                threshold: number(x),
                clear: number(x) + margin_of(margin),
            },
            Self::Outside(lo, width, margin) => Test::Outside {
                lo: number(lo),
                // Wide enough for a clear point between.
                hi: number(lo) + margin_of(width) + 2.0 * margin_of(margin),
                margin: margin_of(margin),
            },
            Self::Inside(lo, width, margin) => Test::Inside {
                lo: number(lo),
                hi: number(lo) + margin_of(width),
                margin: margin_of(margin),
            },
            Self::Equals(value) => Test::Equals(value.clone()),
            Self::NotEquals(value) => Test::NotEquals(value.clone()),
            Self::Rises(by, margin) => Test::RisesBy {
                by: margin_of(by),
                clear: margin_of(by) - margin_of(margin),
            },
            Self::Falls(by, margin) => Test::FallsBy {
                by: margin_of(by),
                clear: margin_of(by) - margin_of(margin),
            },
        }
    }
}

impl fmt::Debug for Story {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rules,
            expects,
            synchronised,
            lazy,
            kills,
            steps,
        } = self;
        writeln!(
            out,
            "expects {expects:?}, synchronised {synchronised}, lazy {lazy}, kills {kills}"
        )?;
        for (index, rule) in rules.iter().enumerate() {
            writeln!(out, "r{index}: {rule:?}")?;
        }
        for step in steps {
            writeln!(out, "+{} {:?}", step.pass, step.act)?;
        }
        Ok(())
    }
}
