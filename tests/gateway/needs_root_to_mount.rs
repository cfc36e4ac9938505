//! What the real process says, read back with `journalctl` from a real journald: one of the test's own, in namespaces
//! of its own, so that neither sees anything of this machine's.

use std::{path::Path, process::Output};

use serde_json::Value;
use tidegate::telemetry::ids::IDS;
use tokio::process::{Child, Command};

use super::{
    PATIENCE,
    parts::{Site, free_port, until},
};

/// Starts journald, then runs the gateway with its output connected to it and `JOURNAL_STREAM` saying so, as a
/// service's.
const SCRIPT: &str = r#"
set -e
mkdir -p /run/systemd /run/log
mount -t tmpfs tidegate-test /run/systemd
mount --bind "$KEPT" /run/log
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToWall=no\n' >/run/systemd/journald.conf.d/test.conf
/lib/systemd/systemd-journald &
until [ -S /run/systemd/journal/stdout ] && [ -S /run/systemd/journal/socket ]; do sleep 0.1; done
code=0
systemd-cat sh -c 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"' sh "$@" || code=$?
journalctl --sync
exit $code
"#;

/// Neither the mounts nor journald outlive it.
fn with_journald(kept: &Path, gateway: &Command) -> Child {
    let gateway = gateway.as_std();
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .args(["sh", "-c", SCRIPT, "sh"])
        .arg(gateway.get_program())
        .args(gateway.get_args())
        .envs(
            gateway
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("KEPT", kept)
        .kill_on_drop(true);
    command.spawn().expect("util-linux is installed (./test does it)")
}

/// The entries that match, oldest first.
async fn entries(kept: &Path, filter: &[&str]) -> Vec<Value> {
    let mut journalctl = Command::new("journalctl");
    journalctl
        .arg("--directory")
        .arg(kept.join("journal"))
        .args(["--output=json", "--all", "--quiet"])
        .args(filter);
    let Output { stdout, .. } = journalctl
        .output()
        .await
        .expect("systemd is installed (./test does it)");
    let text = String::from_utf8(stdout).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

async fn message(kept: &Path, name: &str) -> Value {
    let (_, id) = IDS
        .iter()
        .find(|(known, _)| *known == name)
        .expect("it has an id");
    let filter = format!("MESSAGE_ID={id}");
    let look = async || entries(kept, &[&filter]).await.into_iter().next();
    until(PATIENCE, look, || format!("no message {name} in the journal")).await
}

#[track_caller]
fn assert_fields(entry: &Value, fields: &[(&str, &str)]) {
    for (name, text) in fields {
        assert_eq!(entry[name], *text, "{name}: {entry:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_journal_has_each_message_with_its_fields_its_priority_and_its_id() {
    let kept = tempfile::tempdir().expect("a folder");
    let port = Path::new("/dev/no-such-adapter");
    let site = Site::new().uplink(free_port().await, "5").serial(port);
    site.write(free_port().await);
    let _running = with_journald(kept.path(), &site.command());

    let started = message(kept.path(), "GatewayStarted").await;
    assert_fields(
        &started,
        &[("PRIORITY", "6"), ("GATEWAY", "plantroom-1"), ("RULES", "1")],
    );
    assert_fields(
        &started,
        &[("SYSLOG_IDENTIFIER", "tidegate"), ("_TRANSPORT", "journal")],
    );
    let lost = message(kept.path(), "UplinkLost").await;
    assert_fields(
        &lost,
        &[("PRIORITY", "4"), ("GATEWAY", "plantroom-1"), ("SINK", "cloud")],
    );
    let reason = lost["REASON"].as_str().expect("why");
    let line = lost["MESSAGE"].as_str().expect("a line");
    assert!(
        line.starts_with("uplink lost sink=cloud ") && line.contains(reason),
        "{line}"
    );
    let failed = message(kept.path(), "SourceFailed").await;
    assert_fields(
        &failed,
        &[
            ("PRIORITY", "4"),
            ("LINE", "boiler"),
            ("PORT", "/dev/no-such-adapter"),
        ],
    );
    for entry in entries(kept.path(), &["_TRANSPORT=journal", "SYSLOG_IDENTIFIER=tidegate"]).await {
        assert_eq!(entry["GATEWAY"], "plantroom-1", "{entry:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_gateway_from_starting_is_an_error_in_the_journal_and_said_once() {
    let kept = tempfile::tempdir().expect("a folder");
    let site = Site::new();
    std::fs::write(site.config(), "nonsense = 1\n").expect("written");
    let mut refused = with_journald(kept.path(), &site.command());

    let rejected = message(kept.path(), "ConfigurationRejected").await;
    assert_fields(&rejected, &[("PRIORITY", "3")]);
    let report = rejected["MESSAGE"].as_str().expect("the report");
    assert!(report.contains("nonsense"), "{report}");
    let ended = tokio::time::timeout(PATIENCE, refused.wait()).await;
    assert_eq!(ended.expect("it ends in time").expect("waited").code(), Some(78));
    let said = entries(kept.path(), &["SYSLOG_IDENTIFIER=tidegate"]).await;
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(entries(kept.path(), &["_TRANSPORT=stdout"]).await.is_empty());
}
