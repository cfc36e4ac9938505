//! What is wrong with a configuration, and where: every problem names the file, the line, the text and the remedy.
//!
//! A report is never empty. It quotes the lines it is about, but never one with a secret in it: reports are printed,
//! logged and sent upstream. A password is one, and so is a webhook's URL and what stands in a table of headers.
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
    /// Its lines may be shown.
    pub(super) quoted: bool,
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
            quoted: true,
            message: shortened(message, MAX_MESSAGE),
        }
    }

    /// The same, of a value that may be a secret: its lines are named, never shown.
    pub(super) fn unquoted(self) -> Self {
        Self {
            quoted: false,
            ..self
        }
    }

    pub(super) fn of_file(message: String) -> Self {
        Self {
            file: 0,
            span: None,
            quoted: true,
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
        Self::text(path, bytes)
    }

    /// The text that `bytes` are, which are called `path`.
    pub(super) fn text(path: &Path, bytes: Vec<u8>) -> Result<String, Self> {
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

    /// The lines that a problem is about, whole; none if there are none, or if one of them may hold a secret.
    fn quotable(&self, problem: &Problem) -> Option<&str> {
        let span = problem.span.as_ref().filter(|_| problem.quoted)?;
        let text = self.text_of(problem);
        let begin = text.get(..span.start)?.rfind('\n').map_or(0, |end| end + 1);
        let last = span.end.max(span.start + 1) - 1;
        let end = text.get(last..).and_then(|rest| rest.find('\n'));
        let lines = text.get(begin..end.map_or(text.len(), |end| last + end))?;
        let mut inside = text.get(..begin)?.lines().fold(false, goes_on_in_headers);
        for line in lines.lines() {
            if has_secret(line) || (inside && !line.trim_start().starts_with('[')) {
                return None;
            }
            inside = goes_on_in_headers(inside, line);
        }
        Some(lines)
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
            let lines = self.quotable(problem);
            let whole =
                lines.is_some_and(|lines| lines.lines().all(|line| line.chars().count() <= MAX_QUOTED));
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
            let first = self.quotable(problem).and_then(|lines| lines.lines().next());
            if let (Some(line), Some(quoted)) = (problem.line, first) {
                let quoted = shortened(quoted.trim().to_owned(), MAX_QUOTED);
                writeln!(formatter, "{line:>6} | {quoted}")?;
            }
        }
        Ok(())
    }
}

/// Whether a line, or a value, may hold a secret: a URL that is more than a host and its port (a webhook's path lets
/// in whoever knows it), or headers.
pub(super) fn has_secret(line: &str) -> bool {
    let line = line.trim();
    let header = line.starts_with('[') && line.ends_with("headers]");
    // A slip in the scheme, or none, leaves the secret as it is.
    let bare = line
        .strip_prefix("url")
        .and_then(|rest| rest.trim_start().strip_prefix('='))
        .filter(|rest| !rest.contains("://"));
    let hosts = line.split("://").skip(1).chain(bare);
    (names_headers(line) && !header) || hosts.into_iter().any(|rest| !is_host(rest))
}

/// Whether what stands here up to a quote or a blank is a host, with its port or without.
fn is_host(rest: &str) -> bool {
    let rest = rest.trim_start().trim_start_matches(['"', '\'']);
    let url = rest.split(['"', '\'', ' ', '\t']).next().unwrap_or_default();
    let url = url.strip_suffix('/').unwrap_or(url);
    let (host, port) = match url.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (url, ""),
    };
    let in_host = |c: char| c.is_ascii_alphanumeric() || ".-_[]:".contains(c);
    host.chars().all(in_host) && port.chars().all(|c| c.is_ascii_digit())
}

fn names_headers(line: &str) -> bool {
    line.contains("headers") && !line.starts_with('#')
}

/// Whether what follows on `line` may stand in a table of headers, whose values may be secrets; `inside`: the line does.
fn goes_on_in_headers(inside: bool, line: &str) -> bool {
    let line = line.trim();
    let begins = names_headers(line) && !line.ends_with('}');
    begins || (inside && !line.starts_with('['))
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
    fn a_line_that_may_hold_a_secret_is_never_shown() {
        let hooks = "https://hooks.example.com/T0/s3cret";
        for text in [
            format!("url = \"{hooks}#x\"\n!\n"),
            format!("url = \"{hooks}\n"),
            format!("url = \"{}\"\n", hooks.replace("//", "/")),
            format!("url=\"{}\"\n", hooks.trim_start_matches("https://")),
            "url = \"mqtt://joe:s3cret\"\n".to_owned(),
            "url = \"mqtt://joe:s3cret@broker\"\n".to_owned(),
            format!("a = \"http://b\" # was {hooks}\n"),
            "[sink.http.headers]\n\"X-Api-Key\" = \"s3cret\n".to_owned(),
            "[sink.http.headers] \"X-Api-Key\" = \"s3cret\"\n".to_owned(),
            "headers = {\n  \"X-Api-Key\" = \"s3cret\n".to_owned(),
            "headers.X-Api-Key = \"s3cret\n".to_owned(),
        ] {
            let texts = Texts::alone("x.toml", &text);
            let secret = text.find("s3cret").expect("it is there");
            let before = text.get(..secret).expect("it begins there");
            let line = before.rfind('\n').map_or(0, |end| end + 1);
            // Pointed at itself, and as one line of several.
            for span in [secret..secret + 1, line..line + 1, 0..secret] {
                let problem = Problem::at(&texts, &span, "it is wrong; mend it".into());
                let report = Report::new(Texts::alone("x.toml", &text), vec![problem]);
                for shown in [report.to_string(), report.render(true)] {
                    assert!(!shown.contains("s3cret"), "{text}{shown}");
                }
            }
        }
    }

    #[test]
    fn a_line_with_a_host_alone_or_behind_the_headers_is_shown() {
        for text in [
            "url = \"mqtt://broker.example.com:1883\"\n",
            "url = \"https://[::1]:443/\" # here\n",
            "url = \"broker:1883\"\n",
            "[sink.http.headers]\n\"X-Api-Key\" = \"s3cret\"\n[[rule]]\nabove = x\n",
            "headers = { \"X-Api-Key\" = \"s3cret\" }\nmode = x\n",
        ] {
            let texts = Texts::alone("x.toml", text);
            let end = text.len() - 2;
            let problems = vec![Problem::at(&texts, &(end..end + 1), "it is wrong".into())];
            let shown = Report::new(texts, problems).to_string();
            let last = text.lines().last().expect("a line");
            assert!(shown.contains(last), "{shown}");
        }
    }

    #[test]
    fn a_terminal_gets_the_place_pointed_at() {
        let shown = report().render(true);
        assert!(shown.contains("x.toml:2:7"), "{shown}");
        assert!(shown.contains('\u{1b}'), "{shown}");
    }
}
