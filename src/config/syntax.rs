//! What is not TOML, told so that it can be mended.

use super::check::{Checker, Span};
use super::error::Problem;

/// Adds the parser's error of `text`, a file behind its blanks, with the remedy that it does not name.
pub(super) fn syntax(text: &str, error: &toml::de::Error, checker: &mut Checker<'_>) {
    let said = error.message().trim().replace('\n', "; ");
    let Some(span) = error.span() else {
        let problem = Problem::of_file(format!("not TOML: {said}; {}", remedy(&said)));
        return checker.problems.push(problem);
    };
    if said == "duplicate key" {
        let first = first_of(text, &span).map_or_else(String::new, |line| format!(", first on line {line}"));
        let name = text.get(span.clone()).unwrap_or("the key").trim();
        checker.wrong(
            span,
            format!("`{name}` stands here a second time{first}; keep one of them"),
        );
    } else {
        checker.wrong(span, format!("not TOML: {said}; {}", remedy(&said)));
    }
}

fn remedy(said: &str) -> &'static str {
    if said.contains("string") {
        return "text stands between two quotes on one line, like name = \"boiler\"";
    }
    if said.contains("table") || said.contains("`]`") {
        return "a table begins with its name in brackets on a line of its own, like [journal] or [[rule]]";
    }
    "a line is `key = value`, with text in quotes, or a table's name in brackets; what follows a # is not read"
}

/// The line, from 1, on which the key at `second` stands before, as far as the text shows it: in the same table, or
/// as the same header.
fn first_of(text: &str, second: &Span) -> Option<usize> {
    let before = text.get(..second.start)?;
    let key = text.get(second.clone())?.trim();
    let here = before.matches('\n').count();
    let header = |line: &str| line.split('#').next().map(str::trim).map(str::to_owned);
    let mut earlier: Vec<&str> = text.lines().take(here + 1).collect();
    let this = earlier.pop()?;
    if this.trim_start().starts_with('[') {
        let found = earlier.iter().position(|line| header(line) == header(this));
        return found.map(|index| index + 1);
    }
    for (index, line) in earlier.iter().enumerate().rev() {
        if line.trim_start().starts_with('[') {
            return None;
        }
        if line.split_once('=').is_some_and(|(name, _)| name.trim() == key) {
            return Some(index + 1);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::texts::Texts;

    fn told(text: &str) -> String {
        let error = toml::de::DeTable::parse(text).expect_err("this is not TOML");
        let texts = Texts::alone("x.toml", text);
        let mut checker = Checker::new(&texts);
        syntax(text, &error, &mut checker);
        checker.problems[0].plain(texts.files())
    }

    #[test]
    fn the_first_of_two_keys_is_named_only_where_it_is_certain() {
        let twice = "[a]\nx = 1\n[b]\ny = 2\nx = 1\n\nx = 2\n";
        assert_eq!(
            told(twice),
            "x.toml:7: `x` stands here a second time, first on line 5; keep one of them"
        );
        assert_eq!(
            told("[a] # one\nx = 1\n[b]\n[a]\n"),
            "x.toml:4: `a` stands here a second time, first on line 1; keep one of them"
        );
        assert_eq!(
            told("a = { x = 1, x = 2 }\n"),
            "x.toml:1: `x` stands here a second time; keep one of them"
        );
    }

    #[test]
    fn each_says_what_would_be_right() {
        for text in [
            "[a\n",
            "x = \"a\n",
            "x = \n",
            "x\n",
            "x = 1 y = 2\n",
            "= 1\n",
            "x = a\n",
        ] {
            let told = told(text);
            assert!(
                told.starts_with("x.toml:1: not TOML: ") && told.contains("; "),
                "{told}"
            );
        }
    }
}
