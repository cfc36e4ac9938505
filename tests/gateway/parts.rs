//! The parts around the gateway: a broker, a cable that can be cut, a site with its configuration, the process.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, Command},
    sync::Notify,
    task::JoinSet,
    time::{MissedTickBehavior, timeout},
};

use super::PATIENCE;

pub(crate) async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("an address").port()
}

pub(crate) fn signal(process: &Child, signal: rustix::process::Signal) {
    let pid = process.id().expect("running").cast_signed();
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("it is ours");
}

/// Looks again and again until there is something to see: nobody tells when a file grows or a process is done.
pub(crate) async fn until<T>(
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
    why_not: impl FnOnce() -> String,
) -> T {
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let looking = async {
        loop {
            looks.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    };
    let seen = timeout(patience, looking).await;
    seen.unwrap_or_else(|_| panic!("not in {patience:?}: {}", why_not()))
}

/// Waits until somebody listens there, or the process has ended.
async fn open(port: u16, child: &mut Child) {
    let trying = async {
        loop {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return;
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!("ended before it listened: {status}");
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, trying).await.expect("it listens in time");
}

/// Waits until somebody answers at the control socket: a killed gateway leaves a file behind.
async fn answers(socket: &Path, child: &mut Child) {
    let trying = async {
        while UnixStream::connect(socket).await.is_err() {
            if let Ok(Some(status)) = child.try_wait() {
                panic!("ended before it could be asked: {status}");
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, trying).await.expect("it answers in time");
}

pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    _process: Child,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    pub(crate) async fn start() -> Self {
        Self::start_with_queues_of(0).await
    }

    /// One that keeps no more than this for a client that is away; 0: everything.
    pub(crate) async fn start_with_queues_of(most: usize) -> Self {
        Self::start_with(&format!("max_queued_messages {most}\n")).await
    }

    /// With more lines in its configuration.
    pub(crate) async fn start_with(lines: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port().await;
        let file = folder.path().join("mosquitto.conf");
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{lines}");
        std::fs::write(&file, text).expect("written");
        let program = [
            "/usr/sbin/mosquitto",
            "/usr/local/sbin/mosquitto",
            "/opt/homebrew/sbin/mosquitto",
        ]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("mosquitto");
        let mut process = Command::new(program)
            .arg("-c")
            .arg(&file)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("mosquitto is installed (./test does it)");
        open(port, &mut process).await;
        Self {
            port,
            _process: process,
            _folder: folder,
        }
    }
}

/// A TCP relay that can be cut and mended, and that can lose its answers.
pub(crate) struct Cable {
    pub(crate) port: u16,
    up: Arc<AtomicBool>,
    cut: Arc<Notify>,
    deafen: Arc<Notify>,
    _relay: JoinSet<()>,
}

impl Cable {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let near_port = listener.local_addr().expect("an address").port();
        let (up, cut) = (Arc::new(AtomicBool::new(true)), Arc::new(Notify::new()));
        let deafen = Arc::new(Notify::new());
        let mut relay = JoinSet::new();
        relay.spawn({
            let (up, cut, deafen) = (Arc::clone(&up), Arc::clone(&cut), Arc::clone(&deafen));
            async move {
                let mut streams = JoinSet::new();
                while let Ok((mut near, _)) = listener.accept().await {
                    if !up.load(Ordering::SeqCst) {
                        continue;
                    }
                    let (cut, deafen) = (Arc::clone(&cut), Arc::clone(&deafen));
                    streams.spawn(async move {
                        let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await else {
                            return;
                        };
                        let ((mut asks, mut hears), (mut answers, mut takes)) = (near.split(), far.split());
                        let there = tokio::io::copy(&mut asks, &mut takes);
                        let back = async {
                            tokio::select! {
                                _ = tokio::io::copy(&mut answers, &mut hears) => {}
                                () = deafen.notified() => std::future::pending().await,
                            }
                        };
                        tokio::select! {
                            _ = there => {}
                            () = back => {}
                            () = cut.notified() => {}
                        }
                    });
                }
            }
        });
        Self {
            port: near_port,
            up,
            cut,
            deafen,
            _relay: relay,
        }
    }

    /// Until it is cut, no answer comes back on the connections that are open now.
    pub(crate) fn deafen(&self) {
        self.deafen.notify_waiters();
    }

    pub(crate) fn cut(&self) {
        self.up.store(false, Ordering::SeqCst);
        self.cut.notify_waiters();
    }

    pub(crate) fn mend(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

/// A folder with a configuration and a journal.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    /// How large the journal may get.
    pub(crate) max_bytes: &'static str,
    /// More keys of it.
    pub(crate) journal: &'static str,
    rule: String,
    tables: String,
    door: std::sync::OnceLock<u16>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            folder,
            max_bytes: "32MiB",
            journal: "",
            rule: String::new(),
            tables: String::new(),
            door: std::sync::OnceLock::new(),
        }
    }

    pub(crate) fn uplink(mut self, port: u16, version: &str) -> Self {
        _ = write!(
            self.tables,
            "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtt://127.0.0.1:{port}\"\nversion = \"{version}\"\n"
        );
        self
    }

    /// More keys of the sink, right behind [`Site::uplink`].
    pub(crate) fn sink(mut self, keys: &str) -> Self {
        self.tables += keys;
        self.tables.push('\n');
        self
    }

    /// More keys of the one rule.
    pub(crate) fn rule(mut self, keys: &str) -> Self {
        self.rule += keys;
        self.rule.push('\n');
        self
    }

    pub(crate) fn heartbeat(mut self, every: &str) -> Self {
        _ = writeln!(self.tables, "[events]\nheartbeat = \"{every}\"");
        self
    }

    /// More tables.
    pub(crate) fn tables(mut self, text: &str) -> Self {
        self.tables += text;
        self.tables.push('\n');
        self
    }

    pub(crate) fn recorder(mut self, max_bytes: &str) -> Self {
        _ = writeln!(self.tables, "[recorder]\nmax-bytes = \"{max_bytes}\"");
        self
    }

    pub(crate) fn serial(mut self, port: &Path) -> Self {
        _ = write!(
            self.tables,
            "[[serial]]\nname = \"boiler\"\nport = \"{}\"\nbaud = 9600\nformat = \"json\"\ndevice = \"boiler\"\n\
             [[serial.metric]]\nname = \"temperature\"\nat = \"/temp\"\nunit = \"Cel\"\n",
            port.display()
        );
        self
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    pub(crate) fn text(&self) -> String {
        let door = self.door.get().expect("the gateway was started");
        format!(
            r#"
[gateway]
id = "plantroom-1"
labels = {{ site = "hq" }}

[journal]
dir = "{dir}/journal"
max-bytes = "{max_bytes}"
{journal}

[mqtt]
listen = ["127.0.0.1:{door}"]

[[mqtt.readings]]
topic = "thermostats/{{device}}/state"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[device]]
id = "thermostat-7"
name = "Living room"
labels = {{ room = "living" }}

[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
clear = 28.0
max-raises = "100000/h"
{rule}
{tables}"#,
            dir = self.folder.path().display(),
            max_bytes = self.max_bytes,
            journal = self.journal,
            rule = self.rule,
            tables = self.tables,
        )
    }

    /// Writes the configuration with its door there, for whoever starts the gateway by other means.
    pub(crate) fn write(&self, door: u16) {
        self.door.set(door).expect("set once");
        std::fs::write(self.config(), self.text()).expect("written");
    }

    /// Writes the configuration with these texts replaced, each of which must be in it.
    pub(crate) fn edit(&self, edits: &[(&str, &str)]) {
        let text = edits.iter().fold(self.text(), |text, (old, new)| {
            assert!(text.contains(old), "no {old:?} in {text}");
            text.replace(old, new)
        });
        std::fs::write(self.config(), text).expect("written");
    }

    /// What a person types beside the running gateway: its exit code, its output and its complaints.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(arguments).env("STATE_DIRECTORY", self.folder.path());
        let output = timeout(PATIENCE, command.output()).await;
        let output = output.expect("it answers in time").expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// The same, and it must be done.
    pub(crate) async fn done(&self, arguments: &[&str]) -> String {
        let (code, out, err) = self.ask(arguments).await;
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        out
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("run").arg("--config").arg(self.config());
        command
            .env("STATE_DIRECTORY", self.folder.path())
            .env("TIDEGATE_LOG", "info");
        command.kill_on_drop(true);
        command
    }
}

/// The real process.
pub(crate) struct Gateway {
    pub(crate) door: u16,
    pub(crate) process: Child,
}

impl Gateway {
    pub(crate) async fn start(site: &Site) -> Self {
        Self::launch(site, site.command()).await
    }

    /// With a configuration that the test has written, and this door in it.
    pub(crate) async fn start_at(site: &Site, door: u16) -> Self {
        site.door.set(door).expect("set once");
        Self::start(site).await
    }

    /// With more in its environment.
    pub(crate) async fn start_in(site: &Site, environment: &[(&str, &str)]) -> Self {
        let mut command = site.command();
        command.envs(environment.iter().copied());
        Self::launch(site, command).await
    }

    /// With its log to somewhere else.
    pub(crate) async fn start_logging(site: &Site, log: Stdio) -> Self {
        let mut command = site.command();
        command.stderr(log);
        Self::launch(site, command).await
    }

    async fn launch(site: &Site, mut command: Command) -> Self {
        if site.door.get().is_none() {
            site.door.set(free_port().await).expect("set once");
            std::fs::write(site.config(), site.text()).expect("written");
        }
        let door = *site.door.get().expect("set above");
        let mut process = command.spawn().expect("it starts");
        open(door, &mut process).await;
        answers(&site.folder.path().join("control.sock"), &mut process).await;
        Self { door, process }
    }

    /// Memory in KiB: `VmRSS:` now, `VmHWM:` the most it ever had.
    pub(crate) fn memory(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().expect("running"));
        let status = std::fs::read_to_string(path).expect("Linux tells it");
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.expect("a number of KiB")
    }

    pub(crate) async fn kill(&mut self) {
        self.process.kill().await.expect("it was running");
    }

    pub(crate) async fn restart(&mut self, site: &Site) {
        *self = Self::start(site).await;
    }

    pub(crate) fn signal(&self, what: rustix::process::Signal) {
        signal(&self.process, what);
    }

    /// SIGTERM; it must end with 0 within its grace period.
    pub(crate) async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = timeout(Duration::from_secs(15), self.process.wait())
            .await
            .expect("it ends in time")
            .expect("waited");
        assert!(status.success(), "a clean stop ends with 0, not {status}");
    }
}

/// A serial adapter: a pty at a stable path, as udev would name it. A process of its own holds the far end,
/// so that no gateway inherits it.
pub(crate) struct Adapter {
    socat: Child,
    port: PathBuf,
}

impl Adapter {
    pub(crate) fn plug_in(port: &Path) -> Self {
        let socat = Command::new("socat")
            .arg("-u")
            .arg("STDIN")
            .arg(format!("PTY,raw,echo=0,link={}", port.display()))
            .stdin(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("socat is installed (./test does it)");
        Self {
            socat,
            port: port.to_owned(),
        }
    }

    pub(crate) async fn unplug(mut self) {
        self.socat.kill().await.expect("it was running");
        std::fs::remove_file(&self.port).expect("udev takes the name away");
    }

    /// Says the same again and again, as sensors do, until `heard`.
    pub(crate) async fn send_until<T>(&mut self, bytes: &[u8], heard: impl Future<Output = T>) -> T {
        let line = self.socat.stdin.as_mut().expect("piped");
        let mut heard = std::pin::pin!(heard);
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                event = &mut heard => return event,
                _ = ticks.tick() => line.write_all(bytes).await.expect("the line takes bytes"),
            }
        }
    }
}
