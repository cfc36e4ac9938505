//! A broker as a process of the test, on data that outlives it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{
    PATIENCE,
    parts::{free_port, signal, until},
};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Mosquitto,
    RabbitMq,
    Nats,
}

pub(crate) struct Broker {
    pub(crate) port: u16,
    kind: Kind,
    folder: tempfile::TempDir,
    /// RabbitMQ asks this for other nodes. A process of ours, or it would start one that stays.
    names: Option<(u16, Child)>,
    /// For what the broker needs besides MQTT.
    ports: [u16; 2],
    process: Option<Child>,
}

impl Broker {
    pub(crate) async fn start(kind: Kind) -> Self {
        let names = match kind {
            Kind::RabbitMq => {
                let port = free_port().await;
                let mut epmd = Command::new("epmd");
                epmd.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
                Some((port, spawn(epmd)))
            }
            _ => None,
        };
        let mut broker = Self {
            port: free_port().await,
            kind,
            folder: tempfile::tempdir().expect("a folder"),
            names,
            ports: [free_port().await, free_port().await],
            process: None,
        };
        broker.start_again().await;
        broker
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    pub(crate) async fn start_again(&mut self) {
        std::fs::create_dir_all(self.data()).expect("a folder");
        let (port, data) = (self.port, self.data().display().to_string());
        let mut command = match self.kind {
            Kind::Mosquitto => {
                let text = format!(
                    "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n\
                     persistence true\npersistence_location {data}/\nuser root\n"
                );
                let mut command = Command::new(sbin("mosquitto"));
                command.arg("-c").arg(self.file("mosquitto.conf", &text));
                command
            }
            Kind::Nats => {
                let text = format!(
                    "server_name: tidegate\nlisten: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{data}\" }}\n\
                     mqtt {{ listen: \"127.0.0.1:{port}\" }}\n",
                    self.ports[0]
                );
                let mut command = Command::new(sbin("nats-server"));
                command.arg("-c").arg(self.file("nats.conf", &text));
                command
            }
            Kind::RabbitMq => {
                let text = format!(
                    "listeners.tcp.1 = 127.0.0.1:{}\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\n",
                    self.ports[0]
                );
                self.file("rabbitmq.conf", &text);
                self.file("plugins", "[rabbitmq_mqtt].");
                let mut command = self.rabbit("rabbitmq-server");
                // As under systemd: the script becomes the broker, and does not wait for it as a process of its own.
                command.env("NOTIFY_SOCKET", self.folder.path().join("nobody"));
                command
            }
        };
        let log = std::fs::File::create(self.log()).expect("created");
        command.stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("the same file"))
            .stderr(log);
        self.process = Some(spawn(command));
        let ready = match self.kind {
            Kind::Mosquitto => " running",
            Kind::Nats => "Server is ready",
            Kind::RabbitMq => "Server startup complete",
        };
        self.says(ready).await;
    }

    /// One of RabbitMQ's programs, for this node.
    fn rabbit(&self, program: &str) -> Command {
        let folder = self.folder.path();
        let (names, _) = self.names.as_ref().expect("it is RabbitMQ");
        // The programs in sbin change to the distribution's user and folders.
        let mut command = Command::new(Path::new("/usr/lib/rabbitmq/bin").join(program));
        command
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("tidegate-{}@localhost", self.port))
            .env("RABBITMQ_MNESIA_BASE", self.data())
            .env("RABBITMQ_LOG_BASE", folder)
            .env("RABBITMQ_LOGS", "-")
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", folder.join("none"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("plugins"))
            .env("RABBITMQ_DIST_PORT", self.ports[1].to_string())
            .env("ERL_EPMD_PORT", names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1");
        command
    }

    /// `rabbitmqctl`.
    pub(crate) async fn control(&self, arguments: &[&str]) {
        let mut command = self.rabbit("rabbitmqctl");
        let done = timeout(PATIENCE, command.args(arguments).kill_on_drop(true).output()).await;
        let output = done.expect("it answers in time").expect("it runs");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Waits until the broker's log since its last start has this.
    pub(crate) async fn says(&self, text: &str) {
        let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
        let why_not = || format!("{:?} said {text:?}: {}", self.kind, log());
        until(PATIENCE, async || log().contains(text).then_some(()), why_not).await;
    }

    /// kill -9. mosquitto, which writes its database every half an hour and when it ends, is asked to end.
    pub(crate) async fn end(&mut self) {
        let mut process = self.process.take().expect("it runs");
        if self.kind == Kind::Mosquitto {
            signal(&process, rustix::process::Signal::TERM);
            timeout(PATIENCE, process.wait())
                .await
                .expect("it ends in time")
                .expect("waited");
        } else {
            process.kill().await.expect("it was running");
        }
    }

    /// What it had on its disk is gone.
    pub(crate) fn forget(&self) {
        assert!(self.process.is_none(), "it was ended");
        std::fs::remove_dir_all(self.data()).expect("removed");
    }
}

pub(crate) fn spawn(mut command: Command) -> Child {
    let started = command.kill_on_drop(true).spawn();
    started.unwrap_or_else(|error| panic!("{command:?}: {error} (./test installs it)"))
}

/// Debian keeps these where a user's path does not look.
pub(crate) fn sbin(program: &str) -> PathBuf {
    let path = Path::new("/usr/sbin").join(program);
    if path.exists() {
        path
    } else {
        PathBuf::from(program)
    }
}
