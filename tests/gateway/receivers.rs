//! The receivers of examples/consumer, in Python and in Rust, as processes: what they handled, and what they report.

mod document;
mod hard_days;
mod stories;

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
    sync::OnceLock,
    time::Duration,
};

use serde_json::Value;
use tokio::process::{Child, Command};

use super::{parts::until, text};

/// Longer than any wait here: a receiver flushes three times for each event.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    Python,
    Rust,
}

pub(crate) struct Receiver {
    pub(crate) language: Language,
    port: u16,
    directory: PathBuf,
    process: Child,
}

/// One of each, on the same broker, subscribed.
pub(crate) async fn both(folder: &Path, port: u16) -> [Receiver; 2] {
    let start = |language| Receiver::start(language, folder, port);
    [start(Language::Python).await, start(Language::Rust).await]
}

impl Receiver {
    async fn start(language: Language, folder: &Path, port: u16) -> Self {
        let directory = folder.join(format!("{language:?}"));
        std::fs::create_dir_all(&directory).expect("a folder");
        let receiver = Self {
            language,
            port,
            process: launch(language, &directory, port),
            directory,
        };
        receiver
            .until("it subscribes", || receiver.said().contains("subscribed: "))
            .await;
        receiver
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("it was running");
    }

    pub(crate) fn start_again(&mut self) {
        self.process = launch(self.language, &self.directory, self.port);
    }

    /// The lines it has printed, of all its lives.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.directory.join("said")).unwrap_or_default()
    }

    /// What it has done its work for, in order. The last line may be half written, and is not counted then.
    pub(crate) fn handled(&self) -> Vec<Value> {
        let all = std::fs::read_to_string(self.directory.join("handled.jsonl")).unwrap_or_default();
        let whole = all.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| serde_json::from_str(line).expect("a line is an event"))
            .collect()
    }

    /// The ids of what it handled, none of them twice.
    pub(crate) fn handled_once(&self) -> HashSet<String> {
        let mut ids = HashSet::new();
        for event in self.handled() {
            let id = text(&event, "/id").to_owned();
            assert!(
                ids.insert(id.clone()),
                "{:?} handled {id} twice: {}",
                self.language,
                self.said()
            );
        }
        ids
    }

    /// Whether its mark is where its work is.
    pub(crate) fn has_stored(&self) -> bool {
        let handled = self.directory.join("handled.jsonl").metadata();
        // It stores its mark for the first time only when it has handled something.
        let stored = self.directory.join("state.json").exists();
        handled.is_ok_and(|handled| stored && self.state()["handled_bytes"] == handled.len())
    }

    pub(crate) fn state(&self) -> Value {
        let text = std::fs::read(self.directory.join("state.json")).expect("it has stored its state");
        serde_json::from_slice(&text).expect("always whole")
    }

    /// What `report` says, and whether nothing is missing.
    pub(crate) async fn report_in_full(&self) -> (String, bool) {
        let output = program(self.language)
            .arg("report")
            .arg(&self.directory)
            .output()
            .await
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        (text, output.status.success())
    }

    /// The same line by line, without the times.
    pub(crate) async fn report(&self) -> (Vec<String>, bool) {
        let (text, complete) = self.report_in_full().await;
        let timeless = |line: &str| {
            let cut = line.split(" since ").next().unwrap_or(line).trim();
            cut.split(": last heard").next().unwrap_or(cut).to_owned()
        };
        (text.lines().map(timeless).collect(), complete)
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let why_not = || format!("{:?}: {what}: {}", self.language, self.said());
        until(PATIENCE, async || done().then_some(()), why_not).await;
    }
}

fn launch(language: Language, directory: &Path, port: u16) -> Child {
    let said: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.join("said"))
        .expect("a file");
    program(language)
        .arg("run")
        .arg(directory)
        .args(["127.0.0.1", &port.to_string()])
        .stderr(said.try_clone().expect("a second handle"))
        .stdout(Stdio::from(said))
        .kill_on_drop(true)
        .spawn()
        .expect("it starts (./test installs what it needs)")
}

fn program(language: Language) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    match language {
        Language::Python => {
            let mut python = Command::new(root.join("target/tools/python/bin/python3"));
            python.arg(root.join("examples/consumer/consumer.py"));
            python
        }
        Language::Rust => Command::new(built()),
    }
}

/// The example as it is now: `cargo test` builds it, a run of this test alone does not.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_tidegate"));
        let program = beside.with_file_name("examples").join("consumer");
        let changed = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/consumer");
        if ["main.rs", "state.rs"]
            .iter()
            .any(|file| changed(&program) < changed(&source.join(file)))
        {
            build(program.parent().and_then(Path::parent));
        }
        program
    })
}

fn build(profile: Option<&Path>) {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--example", "consumer"]);
    if profile.is_some_and(|folder| folder.ends_with("release")) {
        cargo.arg("--release");
    }
    // What this test's own cargo has set would have everything built anew.
    for (name, _) in std::env::vars_os() {
        let own = ["CARGO_PKG_", "CARGO_BIN_", "CARGO_MANIFEST_", "CARGO_CRATE_"];
        if own.iter().any(|own| name.to_string_lossy().starts_with(own)) {
            cargo.env_remove(name);
        }
    }
    let status = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the example does not build");
}
