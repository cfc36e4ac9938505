//! A broker in a network namespace, at the end of one link that can be made bad and of one that is always good.

use std::{
    fmt::Write,
    process::{Command, Stdio},
};

use super::{
    broker::{sbin, spawn},
    parts::free_port,
};

/// One end in this namespace, one in the broker's.
struct Link {
    near: String,
    far: String,
    address: String,
}

/// Gone, with its links, when dropped.
pub(crate) struct FarBroker {
    namespace: String,
    bad: Link,
    good: Link,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
    _process: tokio::process::Child,
}

impl FarBroker {
    pub(crate) async fn start() -> Self {
        let pid = std::process::id();
        let namespace = format!("tidegate-{pid}");
        run("ip", &["netns", "add", &namespace]);
        // 198.18.0.0/15 is for tests of networks (RFC 2544).
        let link = |number: u32| {
            let net = (pid * 2 + number) % 32_768;
            let address = |host| {
                format!(
                    "198.{}.{}.{}",
                    18 + net / 16_384,
                    net / 64 % 256,
                    net % 64 * 4 + host
                )
            };
            let (near, far) = (format!("tg{pid}n{number}"), format!("tg{pid}f{number}"));
            run(
                "ip",
                &[
                    "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &namespace,
                ],
            );
            run(
                "ip",
                &["address", "add", &format!("{}/30", address(1)), "dev", &near],
            );
            run("ip", &["link", "set", &near, "up"]);
            run(
                "ip",
                &[
                    "-n",
                    &namespace,
                    "address",
                    "add",
                    &format!("{}/30", address(2)),
                    "dev",
                    &far,
                ],
            );
            run("ip", &["-n", &namespace, "link", "set", &far, "up"]);
            Link {
                near,
                far,
                address: address(2),
            }
        };
        let (bad, good) = (link(0), link(1));
        let folder = tempfile::tempdir().expect("a folder");
        let port = free_port().await;
        let file = folder.path().join("mosquitto.conf");
        std::fs::write(
            &file,
            format!("listener {port} 0.0.0.0\nallow_anonymous true\nmax_queued_messages 0\n"),
        )
        .expect("written");
        let mut mosquitto = tokio::process::Command::new(sbin("ip"));
        mosquitto
            .args(["netns", "exec", &namespace])
            .arg(sbin("mosquitto"))
            .arg("-c")
            .arg(&file);
        mosquitto.stderr(Stdio::null());
        Self {
            namespace,
            bad,
            good,
            port,
            _folder: folder,
            _process: spawn(mosquitto),
        }
    }

    /// The broker's address on the link that is always good.
    pub(crate) fn good(&self) -> &str {
        &self.good.address
    }

    /// The same on the other one.
    pub(crate) fn bad(&self) -> &str {
        &self.bad.address
    }

    pub(crate) fn down(&self) {
        run("ip", &["link", "set", &self.bad.near, "down"]);
    }

    pub(crate) fn up(&self) {
        run("ip", &["link", "set", &self.bad.near, "up"]);
    }

    /// Loses so many packets of a hundred, in both directions.
    pub(crate) fn loses(&self, percent: u8) {
        let mut rules = "table ip bad {}\ndelete table ip bad\n".to_owned();
        if percent > 0 {
            let (far, lose) = (&self.bad.far, format!("numgen random mod 100 < {percent} drop"));
            _ = write!(
                rules,
                "table ip bad {{\n\
                 chain in {{ type filter hook prerouting priority 0; iif {far} {lose}; }}\n\
                 chain out {{ type filter hook postrouting priority 0; oif {far} {lose}; }}\n}}\n"
            );
        }
        let nft = sbin("nft").display().to_string();
        run("ip", &["netns", "exec", &self.namespace, &nft, &rules]);
    }

    /// Lets no more than this through, in both directions.
    pub(crate) fn is_slow(&self, rate: &str) {
        let tbf = |dev| {
            [
                "qdisc", "replace", "dev", dev, "root", "tbf", "rate", rate, "burst", "16kb", "latency",
                "400ms",
            ]
        };
        run("tc", &tbf(self.bad.near.as_str()));
        run(
            "tc",
            &[&["-n", &self.namespace][..], &tbf(&self.bad.far)].concat(),
        );
    }
}

impl Drop for FarBroker {
    fn drop(&mut self) {
        // The links go with it.
        drop(
            Command::new(sbin("ip"))
                .args(["netns", "delete", &self.namespace])
                .status(),
        );
        for link in [&self.bad, &self.good] {
            drop(
                Command::new(sbin("ip"))
                    .args(["link", "delete", &link.near])
                    .stderr(Stdio::null())
                    .status(),
            );
        }
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(sbin(program)).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error} (./test installs it)"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\nThis test makes a network of its own: it needs root and network namespaces. \
         Where there are none: cargo test --locked -- --skip needs_root_for_network",
        String::from_utf8_lossy(&output.stderr)
    );
}
