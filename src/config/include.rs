//! `include`: which further files a configuration is made of, and reading them.
//!
//! Paths are relative to the file that names them; `*` stands for any run of characters of one name, as in
//! `rules/*.toml`, but not for a dot at its beginning: an editor's own files stay out. What a pattern matches is read
//! in the order of the names, each file once.

use std::{
    io::ErrorKind,
    ops::Range,
    path::{Component, Path, PathBuf},
};

use toml::de::DeTable;

use super::texts::{FileText, Texts};
use crate::rule::Pattern;

/// More are a slip, like a pattern that matches somebody's home.
const MAX_FILES: usize = 256;
/// So are more names that one pattern looks at.
const MAX_LOOKED_AT: usize = 10_000;

/// What is wrong with an `include`, and where.
pub(super) type Wrong = (Range<usize>, String);

/// `main` and all that it includes, and what those includes have inside.
pub(super) fn gather(main: FileText) -> (Texts, Vec<Wrong>) {
    let mut gathered = Gathered {
        chain: vec![identity(&main.path)],
        read: vec![identity(&main.path)],
        texts: Texts::new(main),
        wrong: Vec::new(),
    };
    gathered.follow(0);
    (gathered.texts, gathered.wrong)
}

/// The includes of a text that stands alone: there is nothing to read.
pub(super) fn refused(texts: &Texts) -> Vec<Wrong> {
    named(texts, 0)
        .into_iter()
        .map(|(_, span)| {
            let why = "include: there are no files beside this text; write the rules into it";
            (span, why.to_owned())
        })
        .collect()
}

struct Gathered {
    texts: Texts,
    /// Who includes whom, down to the file that is looked at.
    chain: Vec<PathBuf>,
    read: Vec<PathBuf>,
    wrong: Vec<Wrong>,
}

impl Gathered {
    /// Reads what the file at `index` includes, depth first.
    fn follow(&mut self, index: usize) {
        let Some(path) = self.texts.files().get(index).map(|file| file.path.clone()) else {
            return;
        };
        let beside = path.parent().unwrap_or(Path::new("")).to_owned();
        for (pattern, span) in named(&self.texts, index) {
            let shown = format!("include: {pattern:?}");
            let found = match matching(&beside, &pattern) {
                Ok(found) => found,
                Err(why) => {
                    self.wrong.push((span, format!("{shown}: {why}")));
                    continue;
                }
            };
            if found.is_empty() {
                let where_to = if beside.as_os_str().is_empty() {
                    "this directory".to_owned()
                } else {
                    beside.display().to_string()
                };
                let remedy = format!("put a file there, or drop it; paths count from {where_to}");
                self.wrong
                    .push((span, format!("{shown} matches no file; {remedy}")));
                continue;
            }
            for path in found {
                if self.read.len() > MAX_FILES {
                    let why = format!("more than {MAX_FILES} files; is the pattern right?");
                    self.wrong.push((span, format!("{shown}: {why}")));
                    break;
                }
                self.take(path, &shown, &span);
            }
        }
    }

    fn take(&mut self, path: PathBuf, shown: &str, span: &Range<usize>) {
        let who = identity(&path);
        let here = path.display();
        if self.chain.contains(&who) {
            let why = format!("{here} includes itself, by way of this; drop it from one of them");
            return self.wrong.push((span.clone(), format!("{shown}: {why}")));
        }
        if self.read.contains(&who) {
            return;
        }
        self.read.push(who.clone());
        let text = match std::fs::read(&path).map(String::from_utf8) {
            Ok(Ok(text)) => text,
            Ok(Err(_)) => {
                let why = format!("{here} is not text in UTF-8; save it as UTF-8");
                return self.wrong.push((span.clone(), format!("{shown}: {why}")));
            }
            Err(error) => {
                let why = format!("could not read {here}: {}", said(&error));
                return self.wrong.push((span.clone(), format!("{shown}: {why}")));
            }
        };
        self.texts.push(FileText { path, text });
        self.chain.push(who);
        self.follow(self.texts.files().len() - 1);
        self.chain.pop();
    }
}

/// The patterns that the file at `index` names. None where it is not TOML or of another shape: that is told when it
/// is read for good.
fn named(texts: &Texts, index: usize) -> Vec<(String, Range<usize>)> {
    let Some((start, text)) = texts.placed(index) else {
        return Vec::new();
    };
    let Ok(document) = DeTable::parse(text) else {
        return Vec::new();
    };
    let list = document
        .get_ref()
        .get("include")
        .and_then(|list| list.get_ref().as_array());
    let pattern = |item: &toml::Spanned<toml::de::DeValue<'_>>| {
        let text = item.get_ref().as_str()?;
        let span = item.span();
        Some((text.to_owned(), start + span.start..start + span.end))
    };
    list.map(|list| list.iter().filter_map(pattern).collect())
        .unwrap_or_default()
}

/// The files under `beside` that `pattern` matches, by name; or why they were not looked for to the end.
fn matching(beside: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![beside.to_owned()];
    let mut left = MAX_LOOKED_AT;
    for component in Path::new(pattern).components() {
        let name = component.as_os_str().to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !name.contains('*') {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        let mut deeper = Vec::new();
        for dir in found {
            let pattern = Pattern(name.as_ref().into());
            let looked = inside(&dir, &pattern, &mut left);
            deeper.extend(
                looked.map_err(|error| format!("could not look into {}: {}", dir.display(), said(&error)))?,
            );
            if left == 0 {
                return Err(format!(
                    "it looks at more than {MAX_LOOKED_AT} names; is the pattern right?"
                ));
            }
        }
        found = deeper;
    }
    found.retain(|path| path.is_file());
    found.sort();
    Ok(found)
}

/// Looks at so many names at most as are `left`.
fn inside(dir: &Path, pattern: &Pattern, left: &mut usize) -> std::io::Result<Vec<PathBuf>> {
    let here = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let listed = match std::fs::read_dir(here) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        listed => listed?,
    };
    let mut found = Vec::new();
    for entry in listed.take(*left) {
        *left -= 1;
        let name = entry?.file_name();
        let shown = name.to_string_lossy();
        if !shown.starts_with('.') && pattern.matches(&shown) {
            found.push(dir.join(&name));
        }
    }
    Ok(found)
}

/// The same file by another path is the same file.
fn identity(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn said(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::PermissionDenied => "it may not be read; give the gateway's user the right to".to_owned(),
        _ => format!("{error}; is it on a disk that works?"),
    }
}
