//! `tidegate test FILE...`: tells stories to the rules and says where they went otherwise.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
};

use super::{Failure, printed};
use crate::{
    config::{Report, RuleSet},
    story::{self, Rules, Story, Verdict},
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
    let (mut told, mut failed) = (0, 0);
    let mut written = Ok(());
    for (path, stories) in &files {
        let verdicts: Vec<_> = stories.iter().map(|story| story.judge(&story.tell())).collect();
        told += verdicts.len();
        failed += verdicts.iter().filter(|verdict| !verdict.is_ok()).count();
        // The verdict stands, also if nobody reads it any more.
        written = written.and_then(|()| tell(path, stories, &verdicts, &mut out));
    }
    let summary = format!(
        "{}: {} ok, {failed} failed",
        super::counted(told, "story", "stories"),
        told - failed
    );
    if failed > 0 {
        return Err(Failure::Failed(summary));
    }
    printed(written.and_then(|()| writeln!(out, "{summary}")))
}

fn tell(path: &Path, stories: &[Story], verdicts: &[Verdict], out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "{}", path.display())?;
    for (story, verdict) in stories.iter().zip(verdicts) {
        if verdict.is_ok() {
            writeln!(out, "  ok      {}", story.name)?;
            continue;
        }
        let place = format!("{}:{}", path.display(), story.line);
        writeln!(out, "  FAILED  {} ({place})", story.name)?;
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
