//! `tidegate test FILE...`: tells stories to the rules and says where they went otherwise.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use super::Failure;
use crate::{
    config::{Report, RuleSet},
    story::{self, Rules, Story},
};

pub(super) fn test(paths: &[PathBuf]) -> Result<(), Failure> {
    // All are read before the first is told: what is wrong with a file stands alone, not between results.
    let (mut files, mut wrong) = (Vec::new(), String::new());
    for path in paths {
        match read(path) {
            Ok(stories) => files.push((path, stories)),
            Err(report) => wrong.push_str(&report.render(std::io::stderr().is_terminal())),
        }
    }
    if !wrong.is_empty() {
        return Err(Failure::Configuration(wrong));
    }
    let mut out = std::io::stdout().lock();
    let mut counts = Counts::default();
    for (path, stories) in &files {
        tell(path, stories, &mut counts, &mut out).map_err(|error| {
            Failure::Failed(format!("tidegate: could not write to the terminal: {error}"))
        })?;
    }
    let Counts { told, failed } = counts;
    let summary = format!(
        "{}: {} ok, {failed} failed",
        super::counted(told, "story", "stories"),
        told - failed
    );
    if failed > 0 {
        return Err(Failure::Failed(summary));
    }
    writeln!(out, "{summary}")
        .map_err(|error| Failure::Failed(format!("tidegate: could not write to the terminal: {error}")))
}

#[derive(Default)]
struct Counts {
    told: usize,
    failed: usize,
}

fn tell(path: &Path, stories: &[Story], counts: &mut Counts, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", path.display())?;
    for story in stories {
        let verdict = story.judge(&story.tell());
        counts.told += 1;
        if verdict.is_ok() {
            writeln!(out, "  ok      {}", story.name)?;
            continue;
        }
        counts.failed += 1;
        writeln!(
            out,
            "  FAILED  {} ({}:{})",
            story.name,
            path.display(),
            story.line
        )?;
        for line in &verdict.lines {
            writeln!(out, "          {line}")?;
        }
    }
    writeln!(out)
}

/// A story file; the paths in it are relative to it.
fn read(path: &Path) -> Result<Vec<Story>, Report> {
    let text = Report::read(path, "the stories")?;
    let load = |written: &str| rules(&path.parent().unwrap_or(Path::new("")).join(written));
    story::parse(&path.display().to_string(), &text, &load)
}

/// The rules of a file: a rule set, or a configuration.
pub(super) fn rules(path: &Path) -> Result<Rules, Report> {
    RuleSet::load(path).map(Rules::of)
}
