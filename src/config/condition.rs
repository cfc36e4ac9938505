//! The condition keys that `[[rule]]`, `[[override]]` and sub-conditions share, and what becomes of them: one test with
//! its clear point computed. What it looks at is `watched`'s.

use std::sync::Arc;

use toml::{Spanned, Value as Toml};

use super::check::{Checker, Span};
use crate::{reading::Value, rule::Test};

/// The longest text that a reading can have, in bytes.
const MAX_TEXT: usize = 64;

/// Every condition that is one key and a number, as a person is told them.
pub(super) const CONDITIONS: &str = "above, below, outside, inside, equals, not-equals, rises-by, falls-by";

/// What all three tables may say.
#[derive(Clone, Debug)]
pub(super) struct Keys<'r> {
    pub above: Option<&'r Spanned<f64>>,
    pub below: Option<&'r Spanned<f64>>,
    pub outside: Option<&'r Spanned<Vec<f64>>>,
    pub inside: Option<&'r Spanned<Vec<f64>>>,
    pub equals: Option<&'r Spanned<Toml>>,
    pub not_equals: Option<&'r Spanned<Toml>>,
    pub rises_by: Option<&'r Spanned<f64>>,
    pub falls_by: Option<&'r Spanned<f64>>,
    pub within: Option<&'r Spanned<String>>,
    pub clear: Option<&'r Spanned<f64>>,
    pub margin: Option<&'r Spanned<f64>>,
    /// Not of `[[override]]`.
    pub window: WindowKeys<'r>,
}

/// `of`, `over`, `window-min`, `window-max`.
#[derive(Clone, Debug, Default)]
pub(super) struct WindowKeys<'r> {
    pub of: Option<&'r Spanned<String>>,
    pub over: Option<&'r Spanned<String>>,
    pub min: Option<&'r Spanned<i64>>,
    pub max: Option<&'r Spanned<i64>>,
}

/// A threshold: what the condition's own key says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Threshold {
    Above(f64),
    Below(f64),
    Outside(f64, f64),
    Inside(f64, f64),
    Equals(Value),
    NotEquals(Value),
    RisesBy(f64),
    FallsBy(f64),
}

/// How an episode ends, as written.
#[derive(Clone, Debug)]
pub(super) enum ClearPoint {
    /// Neither key.
    Unsaid,
    /// `clear`.
    Clear(f64, Span),
    /// `margin`; the span of whoever said it.
    Margin(f64, Span),
}

impl Threshold {
    /// The key as it is written.
    pub fn key(&self) -> &'static str {
        match self {
            Self::Above(_) => "above",
            Self::Below(_) => "below",
            Self::Outside(..) => "outside",
            Self::Inside(..) => "inside",
            Self::Equals(_) => "equals",
            Self::NotEquals(_) => "not-equals",
            Self::RisesBy(_) => "rises-by",
            Self::FallsBy(_) => "falls-by",
        }
    }
}

/// The margin that a test has, however it was written.
pub(super) fn margin_of(test: &Test) -> Option<f64> {
    match test {
        Test::Above { threshold, clear } => Some(threshold - clear),
        Test::Below { threshold, clear } => Some(clear - threshold),
        Test::Outside { margin, .. } | Test::Inside { margin, .. } => Some(*margin),
        Test::RisesBy { by, clear } | Test::FallsBy { by, clear } => Some(by - clear),
        Test::Equals(_) | Test::NotEquals(_) => None,
    }
}

/// The threshold that a test has.
pub(super) fn threshold_of(test: &Test) -> Threshold {
    match test {
        Test::Above { threshold, .. } => Threshold::Above(*threshold),
        Test::Below { threshold, .. } => Threshold::Below(*threshold),
        Test::Outside { lo, hi, .. } => Threshold::Outside(*lo, *hi),
        Test::Inside { lo, hi, .. } => Threshold::Inside(*lo, *hi),
        Test::Equals(value) => Threshold::Equals(value.clone()),
        Test::NotEquals(value) => Threshold::NotEquals(value.clone()),
        Test::RisesBy { by, .. } => Threshold::RisesBy(*by),
        Test::FallsBy { by, .. } => Threshold::FallsBy(*by),
    }
}

/// The keys that are there, in the order of the file.
pub(super) fn in_order<const N: usize>(keys: [(&'static str, Option<Span>); N]) -> Vec<(&'static str, Span)> {
    let mut written: Vec<(&'static str, Span)> = keys
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
        .collect();
    written.sort_by_key(|(_, span)| span.start);
    written
}

impl Keys<'_> {
    /// The condition keys that are there.
    pub fn written(&self) -> Vec<(&'static str, Span)> {
        in_order([
            ("above", self.above.map(Spanned::span)),
            ("below", self.below.map(Spanned::span)),
            ("outside", self.outside.map(Spanned::span)),
            ("inside", self.inside.map(Spanned::span)),
            ("equals", self.equals.map(Spanned::span)),
            ("not-equals", self.not_equals.map(Spanned::span)),
            ("rises-by", self.rises_by.map(Spanned::span)),
            ("falls-by", self.falls_by.map(Spanned::span)),
        ])
    }

    /// All others: what a condition of another kind has no use for.
    pub fn further(&self) -> Vec<(&'static str, Span)> {
        in_order([
            ("within", self.within.map(Spanned::span)),
            ("clear", self.clear.map(Spanned::span)),
            ("margin", self.margin.map(Spanned::span)),
            ("of", self.window.of.map(Spanned::span)),
            ("over", self.window.over.map(Spanned::span)),
            ("window-min", self.window.min.map(Spanned::span)),
            ("window-max", self.window.max.map(Spanned::span)),
        ])
    }

    /// The threshold under `key`, one of [`Keys::written`]; none if it is wrong.
    pub fn threshold(&self, who: &str, key: &str, checker: &mut Checker<'_>) -> Option<Threshold> {
        Some(match key {
            "above" => Threshold::Above(checker.finite(who, key, self.above)?),
            "below" => Threshold::Below(checker.finite(who, key, self.below)?),
            "outside" => {
                let (lo, hi) = checker.pair(who, key, self.outside, false)?;
                Threshold::Outside(lo, hi)
            }
            "inside" => {
                let (lo, hi) = checker.pair(who, key, self.inside, true)?;
                Threshold::Inside(lo, hi)
            }
            "equals" => Threshold::Equals(value(who, key, self.equals?, checker)?),
            "rises-by" => Threshold::RisesBy(distance(who, key, "falls-by", self.rises_by, checker)?),
            "falls-by" => Threshold::FallsBy(distance(who, key, "rises-by", self.falls_by, checker)?),
            _ => Threshold::NotEquals(value(who, key, self.not_equals?, checker)?),
        })
    }

    /// The clear point as written; none if it is wrong.
    pub fn clear_point(&self, who: &str, checker: &mut Checker<'_>) -> Option<ClearPoint> {
        match (self.clear, self.margin) {
            (Some(_), Some(margin)) => {
                let message = format!("{who}: clear and margin both say when it ends; keep one");
                checker.wrong(margin.span(), message);
                None
            }
            (Some(clear), None) => Some(ClearPoint::Clear(
                checker.finite(who, "clear", Some(clear))?,
                clear.span(),
            )),
            (None, Some(written)) => {
                let margin = checker.finite(who, "margin", Some(written))?;
                if margin < 0.0 {
                    let message = format!(
                        "{who}: margin = {margin} is negative; it is a distance, write {}",
                        -margin
                    );
                    checker.wrong(written.span(), message);
                    return None;
                }
                Some(ClearPoint::Margin(margin, written.span()))
            }
            (None, None) => Some(ClearPoint::Unsaid),
        }
    }
}

/// What a rule with two is told.
pub(super) const TWO_RULES: &str = "a rule has one condition: keep one, or write two rules";

/// One condition; false, reported, if there are more. None at all is the caller's to judge.
pub(super) fn single(
    who: &str,
    written: &[(&'static str, Span)],
    remedy: &str,
    checker: &mut Checker<'_>,
) -> bool {
    if let [(first, _), (second, span), ..] = written {
        let message = format!("{who}: {first} and {second}; {remedy}");
        checker.wrong(span.clone(), message);
        return false;
    }
    true
}

/// Puts a threshold and a clear point together, if they fit.
pub(super) fn compose(
    who: &str,
    threshold: &Threshold,
    point: &ClearPoint,
    checker: &mut Checker<'_>,
) -> Option<Test> {
    match (threshold, point) {
        (Threshold::Above(threshold), ClearPoint::Clear(clear, span)) if clear > threshold => {
            let message = format!(
                "{who}: clear = {clear} is above the threshold {threshold}; for `above`, clear must be {threshold} or less"
            );
            checker.wrong(span.clone(), message);
            None
        }
        (Threshold::Below(threshold), ClearPoint::Clear(clear, span)) if clear < threshold => {
            let message = format!(
                "{who}: clear = {clear} is below the threshold {threshold}; for `below`, clear must be {threshold} or more"
            );
            checker.wrong(span.clone(), message);
            None
        }
        (Threshold::Above(_) | Threshold::Below(_), _) => one_sided(threshold, point),
        (Threshold::Outside(..) | Threshold::Inside(..), ClearPoint::Clear(_, span)) => {
            let kind = threshold.key();
            let message = format!("{who}: `{kind}` has two ends, clear is one number; write margin instead");
            checker.wrong(span.clone(), message);
            None
        }
        (
            Threshold::Equals(_) | Threshold::NotEquals(_),
            ClearPoint::Clear(_, span) | ClearPoint::Margin(_, span),
        ) => {
            let kind = threshold.key();
            let message = format!("{who}: `{kind}` ends with the opposite; drop clear and margin");
            checker.wrong(span.clone(), message);
            None
        }
        (Threshold::Outside(lo, hi), _) => {
            let margin = point.margin();
            if lo + margin > hi - margin {
                let most = (hi - lo) / 2.0;
                let message = format!(
                    "{who}: margin = {margin} leaves nothing between {lo} and {hi}, it could never end; write {most} or less"
                );
                checker.wrong(point.span(), message);
                return None;
            }
            Some(Test::Outside {
                lo: *lo,
                hi: *hi,
                margin,
            })
        }
        (Threshold::Inside(lo, hi), _) => Some(Test::Inside {
            lo: *lo,
            hi: *hi,
            margin: point.margin(),
        }),
        (Threshold::RisesBy(by) | Threshold::FallsBy(by), _) => trend(who, threshold, *by, point, checker),
        (Threshold::Equals(value), ClearPoint::Unsaid) => Some(Test::Equals(value.clone())),
        (Threshold::NotEquals(value), ClearPoint::Unsaid) => Some(Test::NotEquals(value.clone())),
    }
}

fn trend(
    who: &str,
    threshold: &Threshold,
    by: f64,
    point: &ClearPoint,
    checker: &mut Checker<'_>,
) -> Option<Test> {
    let key = threshold.key();
    if let ClearPoint::Clear(_, span) = point {
        let message = format!(
            "{who}: `{key}` ends when it is by less than {by}; to end it lower write margin instead of clear"
        );
        checker.wrong(span.clone(), message);
        return None;
    }
    let clear = by - point.margin();
    if clear <= 0.0 {
        let margin = point.margin();
        let message = format!(
            "{who}: margin = {margin} leaves nothing of {by}, it could never end; write less than {by}"
        );
        checker.wrong(point.span(), message);
        return None;
    }
    Some(match threshold {
        Threshold::FallsBy(_) => Test::FallsBy { by, clear },
        _ => Test::RisesBy { by, clear },
    })
}

fn one_sided(threshold: &Threshold, point: &ClearPoint) -> Option<Test> {
    match (threshold, point) {
        (Threshold::Above(threshold), ClearPoint::Clear(clear, _)) => Some(Test::Above {
            threshold: *threshold,
            clear: *clear,
        }),
        (Threshold::Below(threshold), ClearPoint::Clear(clear, _)) => Some(Test::Below {
            threshold: *threshold,
            clear: *clear,
        }),
        (Threshold::Above(threshold), _) => Some(Test::Above {
            threshold: *threshold,
            clear: threshold - point.margin(),
        }),
        (Threshold::Below(threshold), _) => Some(Test::Below {
            threshold: *threshold,
            clear: threshold + point.margin(),
        }),
        _ => None,
    }
}

impl ClearPoint {
    pub fn margin(&self) -> f64 {
        if let Self::Margin(margin, _) = self {
            *margin
        } else {
            0.0
        }
    }

    fn span(&self) -> Span {
        match self {
            Self::Unsaid => 0..0,
            Self::Clear(_, span) | Self::Margin(_, span) => span.clone(),
        }
    }
}

/// A rise or a fall: one that is none would hold for ever.
fn distance(
    who: &str,
    key: &str,
    opposite: &str,
    written: Option<&Spanned<f64>>,
    checker: &mut Checker<'_>,
) -> Option<f64> {
    let by = checker.finite(who, key, written)?;
    if by > 0.0 {
        return Some(by);
    }
    let remedy = if by < 0.0 {
        format!("write {}, or {opposite} for the other direction", -by)
    } else {
        "every reading would do".to_owned()
    };
    let message = format!("{who}: {key} = {by} must be more than 0, it is a distance; {remedy}");
    checker.wrong(written?.span(), message);
    None
}

fn value(who: &str, key: &str, written: &Spanned<Toml>, checker: &mut Checker<'_>) -> Option<Value> {
    match written.get_ref() {
        Toml::Boolean(value) => Some(Value::Bool(*value)),
        Toml::String(text) if text.len() <= MAX_TEXT => Some(Value::Text(Arc::from(text.as_str()))),
        Toml::String(_) => {
            let message =
                format!("{who}: {key} is longer than the {MAX_TEXT} bytes that a reading's text can have");
            checker.wrong(written.span(), message);
            None
        }
        other => {
            let number = match other {
                Toml::Float(number) => *number,
                // Readings are doubles: a whole number beyond 2^53 could never be met exactly.
                other => other.to_string().parse().unwrap_or(f64::NAN),
            };
            checker
                .finite(who, key, Some(&Spanned::new(written.span(), number)))
                .map(Value::Number)
        }
    }
}
