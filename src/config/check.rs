//! Where problems and warnings are gathered, and the checks that every table shares.
//!
//! A check that fails reports and answers none; the caller goes on with a stand-in, so that one run of `check`
//! tells all. The stand-ins never leave: a file with a problem has no `Config`.

use std::{collections::HashMap, fmt::Display, ops::Range, ops::RangeInclusive, time::Duration};

use toml::Spanned;

use super::{
    error::{Problem, has_secret},
    raw,
    shape::closest,
    texts::Texts,
    units,
};

/// Where one value stands.
pub(super) type Span = Range<usize>;

/// What is wrong so far.
#[derive(Debug)]
pub(super) struct Checker<'t> {
    texts: &'t Texts,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}

impl<'t> Checker<'t> {
    pub fn new(texts: &'t Texts) -> Self {
        Self {
            texts,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub fn wrong(&mut self, span: Span, message: impl Into<String>) {
        self.problems.push(Problem::at(self.texts, &span, message.into()));
    }

    /// What is wrong with a value that may be a secret: reports are logged, so the line is named, not shown.
    pub fn wrong_unquoted(&mut self, span: Span, message: impl Into<String>) {
        let problem = Problem::at(self.texts, &span, message.into());
        self.problems.push(problem.unquoted());
    }

    pub fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.warnings.push(Problem::at(self.texts, &span, message.into()));
    }

    pub fn wrong_file(&mut self, message: &str) {
        self.problems.push(Problem::of_file(message.to_owned()));
    }

    pub fn warn_file(&mut self, message: &str) {
        self.warnings.push(Problem::of_file(message.to_owned()));
    }

    pub fn line(&self, span: &Span) -> usize {
        Problem::at(self.texts, span, String::new()).line.unwrap_or(1)
    }

    /// `line 7`, and of which file if it is another than that of `from`.
    pub fn place(&self, span: &Span, from: &Span) -> String {
        let (file, _) = self.texts.place(span);
        let line = self.line(span);
        match self.texts.files().get(file) {
            Some(other) if file != self.texts.place(from).0 => format!("line {line} of {}", other.shown()),
            _ => format!("line {line}"),
        }
    }

    /// The value as the file has it, shortened to what fits a message.
    pub fn written(&self, span: &Span) -> String {
        let whole = self.texts.at(span).replace('\n', " ");
        if has_secret(&whole) {
            return "(not shown)".to_owned();
        }
        if whole.chars().count() <= 60 {
            whole
        } else {
            whole.chars().take(57).chain("...".chars()).collect()
        }
    }

    /// The value's text; none, reported, where there is none.
    pub fn required<'v>(
        &mut self,
        who: &str,
        key: &str,
        value: &'v raw::Text,
        table: &Span,
        form: &str,
    ) -> Option<&'v Spanned<String>> {
        if value.is_none() {
            self.wrong(table.clone(), format!("{who}: {key} is missing: {form}"));
        }
        value.as_ref()
    }

    /// A duration of any length that is no slip.
    pub fn duration(&mut self, who: &str, key: &str, value: Option<&Spanned<String>>) -> Option<Duration> {
        self.duration_in(who, key, value, Duration::ZERO..=units::LONGEST)
    }

    /// A duration within bounds, both allowed.
    pub fn duration_in(
        &mut self,
        who: &str,
        key: &str,
        value: Option<&Spanned<String>>,
        bounds: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = value?;
        let text = value.get_ref();
        let right = match units::duration(text) {
            Some(duration) if bounds.contains(&duration) => return Some(duration),
            Some(_) => {
                let shown = |bound: &Duration| units::show_duration(*bound);
                format!(" must be {} to {}", shown(bounds.start()), shown(bounds.end()))
            }
            None => format!(": {}", units::DURATION_FORM),
        };
        self.wrong(value.span(), format!("{who}: {key} = {text:?}{right}"));
        None
    }

    /// A size within bounds, both allowed.
    pub fn size_in(
        &mut self,
        who: &str,
        key: &str,
        value: Option<&Spanned<String>>,
        bounds: RangeInclusive<u64>,
    ) -> Option<u64> {
        let value = value?;
        let text = value.get_ref();
        let parsed = units::size(text);
        match parsed {
            None => self.wrong(
                value.span(),
                format!("{who}: {key} = {text:?}: {}", units::SIZE_FORM),
            ),
            Some(bytes) if !bounds.contains(&bytes) => {
                let (low, high) = (units::show_size(*bounds.start()), units::show_size(*bounds.end()));
                self.wrong(
                    value.span(),
                    format!("{who}: {key} = {text:?} must be {low} to {high}"),
                );
            }
            Some(_) => return parsed,
        }
        None
    }

    /// A whole number within bounds, both allowed.
    pub fn whole_in<N: TryFrom<i64> + PartialOrd + Display>(
        &mut self,
        who: &str,
        key: &str,
        value: Option<&Spanned<i64>>,
        bounds: &RangeInclusive<N>,
    ) -> Option<N> {
        let value = value?;
        let number = N::try_from(*value.get_ref())
            .ok()
            .filter(|number| bounds.contains(number));
        if number.is_none() {
            let (low, high) = (bounds.start(), bounds.end());
            self.wrong(
                value.span(),
                format!("{who}: {key} = {} must be {low} to {high}", value.get_ref()),
            );
        }
        number
    }

    /// A number that is one: TOML also knows `nan` and `inf`.
    pub fn finite(&mut self, who: &str, key: &str, value: Option<&Spanned<f64>>) -> Option<f64> {
        let value = value?;
        let number = *value.get_ref();
        if !number.is_finite() {
            self.wrong(
                value.span(),
                format!("{who}: {key} = {number} is no number to compare with"),
            );
            return None;
        }
        Some(number)
    }

    /// `[lo, hi]`, in this order.
    pub fn pair(
        &mut self,
        who: &str,
        key: &str,
        value: Option<&Spanned<Vec<f64>>>,
        equal_allowed: bool,
    ) -> Option<(f64, f64)> {
        let value = value?;
        let &[low, high] = value.get_ref().as_slice() else {
            self.wrong(
                value.span(),
                format!("{who}: {key} must be two numbers, [lo, hi]"),
            );
            return None;
        };
        let in_order = low < high || (equal_allowed && low <= high);
        if !(low.is_finite() && high.is_finite() && in_order) {
            let must = format!("must be [lo, hi] with lo below hi; here lo is {low} and hi is {high}");
            self.wrong(value.span(), format!("{who}: {key} {must}"));
            return None;
        }
        Some((low, high))
    }

    /// One of a few words.
    pub fn word<T: Copy>(
        &mut self,
        who: &str,
        key: &str,
        value: Option<&Spanned<String>>,
        words: &Words<T>,
    ) -> Option<T> {
        let value = value?;
        let text = value.get_ref().as_str();
        if let Some((_, meaning)) = words.now.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        if words.later.contains(&text) {
            let now = listed(words.now.iter().map(|(word, _)| *word));
            self.wrong(
                value.span(),
                format!("{who}: {key} = {text:?} is not supported yet; write {now}"),
            );
            return None;
        }
        let known = || words.now.iter().map(|(word, _)| *word);
        let meant = closest(text, known())
            .map(|word| format!("; did you mean {word:?}?"))
            .unwrap_or_default();
        self.wrong(
            value.span(),
            format!("{who}: {key} = {text:?} must be {}{meant}", listed(known())),
        );
        None
    }

    /// Reports `{name}`s that nothing stands for, and braces that do not match.
    pub fn placeholders(&mut self, who: &str, key: &str, value: &Spanned<String>, known: &[&str]) -> bool {
        let mut rest = value.get_ref().as_str();
        while let Some((_, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                self.wrong(value.span(), format!("{who}: {key} has a `{{` without its `}}`"));
                return false;
            };
            if !known.contains(&name) {
                let all = known
                    .iter()
                    .map(|name| format!("{{{name}}}"))
                    .collect::<Vec<_>>()
                    .join(" ");
                let message =
                    format!("{who}: {key} has {{{name}}}, which nothing stands for; known here: {all}");
                self.wrong(value.span(), message);
                return false;
            }
            rest = behind;
        }
        true
    }
}

/// The words that a key takes, and those that it will.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words<'w, T> {
    pub now: &'w [(&'w str, T)],
    pub later: &'w [&'w str],
}

/// `"a", "b" or "c"`.
pub(super) fn listed<'w>(words: impl Iterator<Item = &'w str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// Who had a name first.
#[derive(Debug, Default)]
pub(super) struct Taken(HashMap<String, Span>);

impl Taken {
    /// Takes the name; who had it before, if somebody did.
    pub fn take(&mut self, name: &str, span: Span) -> Option<Span> {
        match self.0.entry(name.to_owned()) {
            std::collections::hash_map::Entry::Occupied(first) => Some(first.get().clone()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(span);
                None
            }
        }
    }
}
