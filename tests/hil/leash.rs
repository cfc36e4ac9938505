//! Processes that do not outlive the test: a static is never dropped, and a test may be killed.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

/// Kills its command when nobody holds its input any more: then the test has let go, or is gone.
const KEEPER: &str = r#""$@" </dev/null >&2 & kept=$!; read -r _; kill -KILL $kept; wait $kept"#;

/// A process on a leash. Dropped, or with the test's process gone for whatever reason, it is killed.
pub(crate) struct Leash {
    keeper: Child,
    held: Option<ChildStdin>,
}

impl Leash {
    /// Everything that it says goes to `log`.
    pub(crate) fn put_on(program: &str, arguments: &[String], log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log);
        let log = log.unwrap_or_else(|error| panic!("could not write the log of {program}: {error}"));
        let arguments = arguments.iter().map(String::as_str);
        let words: Vec<_> = [KEEPER, "keeper", program].into_iter().chain(arguments).collect();
        Self::keep(&words, log.into())
    }

    fn keep(words: &[&str], said: Stdio) -> Self {
        let mut shell = Command::new("sh");
        shell.arg("-c").args(words).stdin(Stdio::piped()).stderr(said);
        let mut keeper = shell.spawn().expect("there is a shell");
        let held = keeper.stdin.take();
        Self { keeper, held }
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.held.take());
        // Killed with SIGKILL: it does not take long, and says nothing of interest.
        drop(self.keeper.wait());
    }
}

/// A folder that goes when it is dropped or the test's process ends.
pub(crate) struct Folder {
    path: PathBuf,
    _cleaner: Leash,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let path = tempfile::tempdir().expect("a folder").keep();
        let cleaner = Leash::keep(
            &[r#"read -r _; rm -rf "$0""#, path.to_str().expect("UTF-8")],
            Stdio::inherit(),
        );
        Self {
            path,
            _cleaner: cleaner,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
