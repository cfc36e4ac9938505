//! What is wrong with a configuration, and where: every problem names the file, the line, the text and the remedy.
//!
//! A report is never empty. It quotes the lines it is about, but never one with a password in it: reports are logged.
//! What is long is shortened: a report stays readable whatever the file holds.

use std::{fmt, io::ErrorKind, ops::Range, path::Path, string::FromUtf8Error};

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

use super::{
    check::Checker,
    syntax::syntax,
    texts::{FileText, Texts},
};

/// The longest line that is quoted whole, in characters: two lines of a terminal.
const MAX_QUOTED: usize = 160;
/// The longest message, in characters. Its middle goes first: it begins with who and what and ends with the remedy.
const MAX_MESSAGE: usize = 500;

/// All that is wrong with a configuration: file by file, in the order of the lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    files: Vec<FileText>,
    problems: Vec<Problem>,
}

/// One thing that is wrong, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file that it is about, by its place in the list of those that were read.
    pub(super) file: usize,
    /// The bytes of the file that it is about; none: the file as a whole.
    pub(super) span: Option<Range<usize>>,
    /// From 1; none: the file as a whole.
    pub line: Option<usize>,
    /// What is wrong and what would be right, in one line.
    pub message: String,
}

impl Problem {
    pub(super) fn at(texts: &Texts, span: &Range<usize>, message: String) -> Self {
        let (file, span) = texts.place(span);
        let text = texts.files().get(file).map_or("", |file| file.text.as_str());
        Self {
            file,
            line: Some(line_of(text.as_bytes(), span.start)),
            span: Some(span),
            message: shortened(message, MAX_MESSAGE),
        }
    }

    pub(super) fn of_file(message: String) -> Self {
        Self {
            file: 0,
            span: None,
            line: None,
            message,
        }
    }

    /// `file:line: text`.
    pub(super) fn plain(&self, files: &[FileText]) -> String {
        let file = files.get(self.file).map(FileText::shown).unwrap_or_default();
        match self.line {
            Some(line) => format!("{file}:{line}: {}", self.message),
            None => format!("{file}: {}", self.message),
        }
    }
}

impl Report {
    pub(super) fn new(texts: Texts, mut problems: Vec<Problem>) -> Self {
        // By line and not by byte: within a line they stay in the order they were found.
        problems.sort_by_key(|problem| (problem.file, problem.line));
        problems.dedup();
        Self {
            files: texts.into_files(),
            problems,
        }
    }

    /// One problem, of a file whose text cannot be shown.
    fn without_text(path: &Path, problem: Problem) -> Self {
        let file = FileText {
            path: path.to_owned(),
            text: String::new(),
        };
        Self::new(Texts::new(file), vec![problem])
    }

    /// A report on a file of another kind than a configuration: where something is wrong (none: the file as a whole),
    /// and what, with the remedy.
    #[must_use]
    pub fn of(file: &str, text: &str, wrong: Vec<(Option<Range<usize>>, String)>) -> Self {
        let texts = Texts::alone(file, text);
        let problems = wrong.into_iter().map(|(span, message)| match span {
            Some(span) => Problem::at(&texts, &span, message),
            None => Problem::of_file(message),
        });
        let problems = problems.collect();
        Self::new(texts, problems)
    }

    /// A report on a text that is not TOML.
    #[must_use]
    pub fn not_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let texts = Texts::alone(file, text);
        let mut checker = Checker::new(&texts);
        syntax(text, error, &mut checker);
        let problems = checker.problems;
        Self::new(texts, problems)
    }

    /// The text of the file at `path`, which holds `what`.
    ///
    /// # Errors
    ///
    /// A [`Report`] of why it could not be read.
    pub fn read(path: &Path, what: &str) -> Result<String, Self> {
        let bytes = std::fs::read(path).map_err(|error| Self::unreadable(path, what, &error))?;
        String::from_utf8(bytes).map_err(|error| Self::not_text(path, &error))
    }

    fn unreadable(path: &Path, what: &str, error: &std::io::Error) -> Self {
        let remedy = match error.kind() {
            ErrorKind::NotFound => "there is no such file; is the path right?".to_owned(),
            ErrorKind::PermissionDenied => {
                "it may not be read; run as a user that may, or give this one the right to".to_owned()
            }
            ErrorKind::IsADirectory => "it is a directory; name the file in it".to_owned(),
            _ => format!("{error}; is it a file, on a disk that works?"),
        };
        let problem = Problem::of_file(format!("could not read {what}: {remedy}"));
        Self::without_text(path, problem)
    }

    fn not_text(path: &Path, error: &FromUtf8Error) -> Self {
        let good = error.utf8_error().valid_up_to();
        let line = line_of(error.as_bytes(), good);
        let message = "this is not text in UTF-8; save the file as UTF-8, or name another file";
        let mut problem = Problem::of_file(message.to_owned());
        problem.line = Some(line);
        // Its bytes are not quoted: a terminal would obey them.
        Self::without_text(path, problem)
    }

    /// The text of a problem's file.
    fn text_of(&self, problem: &Problem) -> &str {
        self.files.get(problem.file).map_or("", |file| file.text.as_str())
    }

    /// What is wrong, by line.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// For a person: with colours and the place pointed at for a terminal, else as `Display` has it.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        if !color {
            return self.to_string();
        }
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode())
            .with_width(100)
            .with_context_lines(0);
        let mut out = String::new();
        for problem in &self.problems {
            let line = problem
                .line
                .and_then(|line| self.text_of(problem).lines().nth(line - 1))
                .unwrap_or_default();
            let whole = !has_password(line) && line.chars().count() <= MAX_QUOTED;
            let shown = problem.span.clone().filter(|_| whole);
            let plain = problem.plain(&self.files);
            let name = self.files.get(problem.file).map(FileText::shown);
            let diagnostic = Pointed {
                message: if shown.is_none() { &plain } else { &problem.message },
                source: NamedSource::new(name.unwrap_or_default(), self.text_of(problem).to_owned()),
                span: shown,
            };
            if handler.render_report(&mut out, &diagnostic).is_err() {
                return self.to_string();
            }
        }
        out
    }
}

impl fmt::Display for Report {
    /// Per problem `file:line: text` and the quoted line.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(formatter, "{}", problem.plain(&self.files))?;
            let quoted = problem
                .line
                .and_then(|line| Some((line, self.text_of(problem).lines().nth(line - 1)?)));
            if let Some((line, quoted)) = quoted.filter(|(_, quoted)| !has_password(quoted)) {
                let quoted = shortened(quoted.trim().to_owned(), MAX_QUOTED);
                writeln!(formatter, "{line:>6} | {quoted}")?;
            }
        }
        Ok(())
    }
}

/// Whether it holds a URL with a user in it, or headers. Reports are logged: such a line is named, never shown.
pub(super) fn has_password(text: &str) -> bool {
    let in_url = text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
    in_url || text.trim_start().starts_with("headers")
}

/// The line, from 1, that the byte at `offset` stands in.
fn line_of(text: &[u8], offset: usize) -> usize {
    text.iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

/// At most `most` characters: the beginning and the end.
fn shortened(text: String, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text;
    }
    let half = most / 2;
    let (start, end) = (text.chars().take(half), text.chars().skip(length - half));
    start.chain(" ... ".chars()).chain(end).collect()
}

#[derive(Debug)]
struct Pointed<'a> {
    message: &'a str,
    source: NamedSource<String>,
    span: Option<Range<usize>>,
}

impl fmt::Display for Pointed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.message)
    }
}

impl std::error::Error for Pointed<'_> {}

impl miette::Diagnostic for Pointed<'_> {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.span.as_ref().map(|_| &self.source as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.span.clone()?;
        Some(Box::new(std::iter::once(LabeledSpan::new_with_span(
            Some("here".into()),
            span,
        ))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let texts = Texts::alone("x.toml", "a = 1\n  b = 2\n");
        let problems = vec![
            Problem::at(&texts, &(12..13), "b is wrong".into()),
            Problem::at(&texts, &(4..5), "a is wrong".into()),
        ];
        Report::new(texts, problems)
    }

    #[test]
    fn problems_stand_in_the_order_of_their_lines_and_quote_them() {
        assert_eq!(
            report().to_string(),
            "x.toml:1: a is wrong\n     1 | a = 1\nx.toml:2: b is wrong\n     2 | b = 2\n"
        );
    }

    #[test]
    fn what_is_long_keeps_its_beginning_and_its_end() {
        let text = format!("a = \"{}\"\n", "x".repeat(100_000));
        let message = format!("a = {} is wrong; shorten it", "y".repeat(100_000));
        let texts = Texts::alone("x.toml", &text);
        let problems = vec![Problem::at(&texts, &(4..100_004), message)];
        let report = Report::new(texts, problems);
        for shown in [report.to_string(), report.render(true)] {
            assert!(
                shown.chars().count() < 1000,
                "{} characters",
                shown.chars().count()
            );
            assert!(shown.contains("shorten it"), "{shown}");
        }
        assert!(report.to_string().starts_with("x.toml:1: a = yyy"));
        assert!(report.to_string().contains("     1 | a = \"xxx"));
    }

    #[test]
    fn a_terminal_gets_the_place_pointed_at() {
        let shown = report().render(true);
        assert!(shown.contains("x.toml:2:7"), "{shown}");
        assert!(shown.contains('\u{1b}'), "{shown}");
    }
}
