//! Which part of a story file is a rule set: the text is split at its table headers, every line stays on its line.

/// The rule set that stands in the file itself, without the stories and the named sets; none if there is none.
///
/// What is not part of it is blank, so that a report on it names the lines of the file.
pub(super) fn own(text: &str) -> Option<String> {
    some(text, |owner| match owner {
        Owner::Rules => Keep::Whole,
        Owner::Top | Owner::Story | Owner::Set(..) => Keep::Nothing,
    })
}

/// The rule set of this name: `[[set.NAME.rule]]` becomes `[[rule]]`.
pub(super) fn named(text: &str, name: &str) -> Option<String> {
    some(text, |owner| match owner {
        Owner::Set(set) if *set == name => Keep::Without("set.", name),
        _ => Keep::Nothing,
    })
}

/// The names of all named rule sets, in the order of the file.
pub(super) fn names(text: &str) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some(Owner::Set(name)) = header(line)
            && !names.contains(&name)
        {
            names.push(name);
        }
    }
    names
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner<'t> {
    /// Before the first header.
    Top,
    Story,
    Set(&'t str),
    Rules,
}

enum Keep<'n> {
    Nothing,
    Whole,
    Without(&'static str, &'n str),
}

fn some<'t>(text: &'t str, keep: impl Fn(&Owner<'t>) -> Keep<'t>) -> Option<String> {
    let mut owner = Owner::Top;
    let mut found = false;
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        let is_header = header(line);
        owner = is_header.unwrap_or(owner);
        match keep(&owner) {
            Keep::Nothing => {}
            Keep::Without(table, name) if is_header.is_some() => {
                found = true;
                out.push_str(&line.replacen(&format!("{table}{name}."), "", 1));
            }
            Keep::Whole | Keep::Without(..) => {
                found = true;
                out.push_str(line);
            }
        }
        out.push('\n');
    }
    found.then_some(out)
}

/// Whose the lines from this one on are, if it is a table's header. A line of a list of lists is none: a header has
/// a bare key and nothing behind its bracket.
fn header(line: &str) -> Option<Owner<'_>> {
    let line = line.split('#').next()?.trim();
    let inner = line.strip_prefix('[')?.strip_suffix(']')?;
    let inner = match inner.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None => inner,
    };
    let mut keys = inner.split('.').map(str::trim);
    let first = keys.next().filter(|key| is_bare(key))?;
    Some(match (first, keys.next()) {
        ("story", _) => Owner::Story,
        ("set", Some(name)) => Owner::Set(name),
        // No table of a rule set is a plain value: [true] is a list.
        ("true" | "false", None) => return None,
        _ => Owner::Rules,
    })
}

fn is_bare(key: &str) -> bool {
    let letters = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    key.bytes().all(letters) && key.bytes().any(|b| b.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
a = 1
[[rule]]
event = \"A\"
[[set.warm.rule]]
event = \"B\"
[[story]]
steps = [
  [1, 2],
  [true],
]
[rule.labels]  # of the rule above
x = \"[story]\"
";

    #[test]
    fn every_line_stays_on_its_line() {
        let own = own(FILE).unwrap();
        let lines: Vec<&str> = own.lines().collect();
        assert_eq!(lines.len(), FILE.lines().count());
        assert_eq!((lines[1], lines[2]), ("[[rule]]", "event = \"A\""));
        assert!(lines[3..10].iter().all(|line| line.is_empty()), "{own}");
        assert_eq!(lines[11], "x = \"[story]\"");
        let warm = named(FILE, "warm").unwrap();
        assert_eq!(warm.trim(), "[[rule]]\nevent = \"B\"");
        assert_eq!(warm.lines().nth(3), Some("[[rule]]"));
    }

    #[test]
    fn a_file_without_rules_has_none() {
        assert_eq!(super::own("[[story]]\nname = \"x\"\n"), None);
        assert_eq!(named(FILE, "cold"), None);
        assert_eq!(names(FILE), ["warm"]);
    }
}
