//! The condition keys that `[[rule]]` and `[[override]]` share, and what becomes of them: one condition with its
//! clear point computed.

use std::sync::Arc;

use toml::{Spanned, Value as Toml};

use super::{
    check::{Checker, Span},
    raw,
};
use crate::{reading::Value, rule::Test};

/// The longest text that a reading can have, in bytes.
const MAX_TEXT: usize = 64;

/// What both tables may say.
pub(super) struct Keys<'r> {
    pub above: &'r Option<Spanned<f64>>,
    pub below: &'r Option<Spanned<f64>>,
    pub outside: &'r raw::Numbers,
    pub inside: &'r raw::Numbers,
    pub equals: &'r Option<Spanned<Toml>>,
    pub not_equals: &'r Option<Spanned<Toml>>,
    pub clear: &'r Option<Spanned<f64>>,
    pub margin: &'r Option<Spanned<f64>>,
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
        }
    }
}

/// The margin that a condition has, however it was written.
pub(super) fn margin_of(condition: &Test) -> Option<f64> {
    match condition {
        Test::Above { threshold, clear } => Some(threshold - clear),
        Test::Below { threshold, clear } => Some(clear - threshold),
        Test::Outside { margin, .. } | Test::Inside { margin, .. } => Some(*margin),
        Test::Equals(_) | Test::NotEquals(_) | Test::RisesBy { .. } | Test::FallsBy { .. } => None,
    }
}

/// The threshold that a condition has.
pub(super) fn threshold_of(condition: &Test) -> Threshold {
    match condition {
        Test::Above { threshold, .. } => Threshold::Above(*threshold),
        Test::Below { threshold, .. } => Threshold::Below(*threshold),
        Test::Outside { lo, hi, .. } => Threshold::Outside(*lo, *hi),
        Test::Inside { lo, hi, .. } => Threshold::Inside(*lo, *hi),
        Test::Equals(value) => Threshold::Equals(value.clone()),
        Test::NotEquals(value) => Threshold::NotEquals(value.clone()),
        // Of these the configuration knows nothing yet.
        Test::RisesBy { by, .. } | Test::FallsBy { by, .. } => Threshold::Above(*by),
    }
}

impl Keys<'_> {
    /// The condition keys that are there, in the order of the file.
    pub fn written(&self) -> Vec<(&'static str, Span)> {
        let mut written: Vec<(&'static str, Span)> = [
            ("above", self.above.as_ref().map(Spanned::span)),
            ("below", self.below.as_ref().map(Spanned::span)),
            ("outside", self.outside.as_ref().map(Spanned::span)),
            ("inside", self.inside.as_ref().map(Spanned::span)),
            ("equals", self.equals.as_ref().map(Spanned::span)),
            ("not-equals", self.not_equals.as_ref().map(Spanned::span)),
        ]
        .into_iter()
        .filter_map(|(key, span)| Some((key, span?)))
        .collect();
        written.sort_by_key(|(_, span)| span.start);
        written
    }

    /// The one threshold, and where it stands. None if there is none (which is the caller's to judge) or it is wrong.
    pub fn threshold(&self, who: &str, checker: &mut Checker<'_>) -> Option<(Threshold, Span)> {
        let written = self.written();
        if let [(first, _), (second, span), ..] = written.as_slice() {
            let message = format!(
                "{who}: {first} and {second}; a rule has one condition: keep one, or write two rules"
            );
            checker.wrong(span.clone(), message);
            return None;
        }
        let (key, span) = written.into_iter().next()?;
        let threshold = match key {
            "above" => Threshold::Above(checker.finite(who, key, self.above.as_ref())?),
            "below" => Threshold::Below(checker.finite(who, key, self.below.as_ref())?),
            "outside" => {
                let (lo, hi) = checker.pair(who, key, self.outside.as_ref(), false)?;
                Threshold::Outside(lo, hi)
            }
            "inside" => {
                let (lo, hi) = checker.pair(who, key, self.inside.as_ref(), true)?;
                Threshold::Inside(lo, hi)
            }
            "equals" => Threshold::Equals(value(who, key, self.equals.as_ref()?, checker)?),
            _ => Threshold::NotEquals(value(who, key, self.not_equals.as_ref()?, checker)?),
        };
        Some((threshold, span))
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
        (Threshold::Equals(value), ClearPoint::Unsaid) => Some(Test::Equals(value.clone())),
        (Threshold::NotEquals(value), ClearPoint::Unsaid) => Some(Test::NotEquals(value.clone())),
    }
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
    fn margin(&self) -> f64 {
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
