//! Servers under load: the real programs, each in a folder of its own on loopback.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// What no start may take longer than.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    /// From the start of the process until it was ready.
    pub ready: Duration,
}

impl Server {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    ///
    /// # Panics
    ///
    /// If the process cannot be waited for.
    pub fn kill(mut self) {
        self.end();
    }

    /// It does nothing until [`Server::go_on`].
    pub fn hold(&self) {
        self.signal(Signal::STOP);
    }

    /// After [`Server::hold`].
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("the server lives");
    }

    fn end(&mut self) {
        _ = self.child.kill();
        self.child.wait().expect("a child can be waited for");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Which daemon: `--tidegate PATH`, else the release build beside this package, brought up to date first.
///
/// # Panics
///
/// If it does not build.
#[must_use]
pub fn tidegate_binary() -> PathBuf {
    let given: String = crate::option("--tidegate", String::new());
    if !given.is_empty() {
        return given.into();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("bench/ lies in the repository");
    let built = Command::new("cargo")
        .args(["build", "--release", "--locked", "--bin", "tidegate"])
        .current_dir(root)
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "cargo build --release of the product failed"
    );
    root.join("target/release/tidegate")
}

/// The daemon with this configuration; `LISTEN` and `DIR` in it become an address and the folder's journal.
///
/// # Panics
///
/// If it does not become ready.
#[must_use]
pub fn tidegate(binary: &Path, configuration: &str, folder: &Path) -> Server {
    let address = free();
    let text = configuration
        .replace("LISTEN", &address.to_string())
        .replace("DIR", &folder.join("journal").display().to_string());
    let file = folder.join("gateway.toml");
    fs::write(&file, text).expect("the folder can be written");
    // As systemd does: the daemon says itself when it is ready.
    let socket = folder.join("notify");
    _ = fs::remove_file(&socket);
    let manager = UnixDatagram::bind(&socket).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    let log = fs::File::create(folder.join("log")).expect("a log");
    let begun = Instant::now();
    let child = Command::new(binary)
        .args(["run", "--strict", "--config"])
        .arg(&file)
        .env("NOTIFY_SOCKET", &socket)
        .env("STATE_DIRECTORY", folder)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .spawn()
        .unwrap_or_else(|error| panic!("could not start {}: {error}", binary.display()));
    let mut server = Server {
        child,
        address,
        ready: Duration::ZERO,
    };
    let mut message = [0; 4096];
    loop {
        let said = manager
            .recv(&mut message)
            .map(|length| String::from_utf8_lossy(&message[..length]).into_owned());
        match said {
            Ok(text) if text.lines().any(|line| line == "READY=1") => break,
            Ok(_) => {}
            Err(error) => {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                panic!("tidegate did not become ready: {error}\n{log}");
            }
        }
    }
    server.ready = begun.elapsed();
    server
}

/// mosquitto as the door's peer: persistence off.
///
/// # Panics
///
/// If it does not listen.
#[must_use]
pub fn mosquitto(folder: &Path) -> Server {
    broker(folder, free(), "persistence false\n")
}

/// mosquitto at this address with these lines of configuration, nothing logged, Nagle's algorithm off as in the
/// daemon.
///
/// # Panics
///
/// If it does not listen.
#[must_use]
pub fn broker(folder: &Path, address: SocketAddr, lines: &str) -> Server {
    let file = folder.join("mosquitto.conf");
    // Started by root it would become somebody who may not write here.
    let text = format!(
        "listener {} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nlog_type none\nuser root\n{lines}",
        address.port()
    );
    fs::write(&file, text).expect("the folder can be written");
    let begun = Instant::now();
    let child = Command::new(mosquitto_binary())
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed (apt-get install mosquitto)");
    let mut server = Server {
        child,
        address,
        ready: Duration::ZERO,
    };
    while TcpStream::connect(address).is_err() {
        assert!(begun.elapsed() < PATIENCE, "mosquitto does not listen");
        assert!(matches!(server.child.try_wait(), Ok(None)), "mosquitto has ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    server.ready = begun.elapsed();
    server
}

fn mosquitto_binary() -> &'static str {
    // Debian keeps it where a user's path does not look.
    let usual = "/usr/sbin/mosquitto";
    if Path::new(usual).exists() {
        usual
    } else {
        "mosquitto"
    }
}

/// An address of this machine that nobody listens at.
///
/// # Panics
///
/// If there is none.
#[must_use]
pub fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
