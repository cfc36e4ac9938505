//! A reload: the new file is checked first, and then applied to what runs. What differs is told by table.
//!
//! Nothing is applied of a configuration that is wrong. Of one that is right everything is applied, except what
//! [`Plan::needs_restart`] names: those keys keep the value that they had at the start.

use std::{collections::BTreeMap, fmt::Display, path::Path};

use tokio::sync::oneshot;

use super::uplinks::Loaded;
use crate::{
    config::{Config, Gateway, Report},
    control::Reloaded,
    event::{Position, SinkName},
};

/// What changes the stages that run: done by the task that waits for the stop, one after the other.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the configuration again. What it changed is on the disk when the position is.
    Reload(oneshot::Sender<Result<(Reloaded, Position), Refused>>),
    /// Send this sink again what stands behind there; the answer says whether that is on the disk.
    Replay(SinkName, Position, oneshot::Sender<Result<bool, String>>),
    /// Forget the cursor of a sink that is not configured.
    Forget(SinkName, oneshot::Sender<Result<bool, String>>),
}

/// Why a configuration was not applied: the report.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

/// What a reload will do.
#[derive(Debug)]
pub(super) struct Plan {
    /// The new configuration, with the old value of what needs a restart.
    pub(super) config: Config,
    /// Its sinks, their files read.
    pub(super) sinks: Vec<Loaded>,
    /// What is applied, a line each.
    pub(super) changed: Vec<String>,
    /// Keys whose new value counts only after a restart.
    pub(super) needs_restart: Vec<String>,
}

impl Plan {
    /// Reads and checks the configuration at `path`; changes nothing. Blocking.
    pub(super) fn make(path: &Path, old: &Config) -> Result<Self, Refused> {
        let new = Config::load(path).map_err(|report: Report| Refused(report.to_string()))?;
        let (config, needs_restart) = applicable(old, new);
        let changed = differences(old, &config);
        let sinks = Loaded::load_all(&config.sinks);
        Ok(Self {
            // `load` has looked at the files: they were taken away just now.
            sinks: sinks.map_err(|error| Refused(format!("{}: {error}\n", path.display())))?,
            config,
            changed,
            needs_restart,
        })
    }
}

/// The new configuration as far as it can be applied to what runs, and which keys it cannot.
fn applicable(old: &Config, new: Config) -> (Config, Vec<String>) {
    let mut needs_restart = Vec::new();
    let mut keep = |differs: bool, key: &str| {
        if differs {
            needs_restart.push(key.to_owned());
        }
        differs
    };
    let mut config = new;
    // The sinks' topics and client ids are made of the gateway's id.
    if keep(config.gateway.id != old.gateway.id, "[gateway] id") {
        config.sinks.clone_from(&old.sinks);
    }
    keep(
        config.gateway.source != old.gateway.source && config.gateway.id == old.gateway.id,
        "[gateway] source",
    );
    config.gateway = Gateway {
        labels: config.gateway.labels,
        timezone: config.gateway.timezone,
        ..old.gateway.clone()
    };
    let (journal, running) = (&config.journal, &old.journal);
    keep(journal.dir != running.dir, "[journal] dir");
    keep(journal.max_bytes != running.max_bytes, "[journal] max-bytes");
    keep(journal.max_age != running.max_age, "[journal] max-age");
    keep(journal.when_full != running.when_full, "[journal] when-full");
    keep(
        journal.state_delay != running.state_delay,
        "[journal] state-delay",
    );
    config.journal = old.journal.clone();
    keep(config.recorder != old.recorder, "[recorder]");
    config.recorder = old.recorder;
    match (&mut config.mqtt, &old.mqtt) {
        (Some(door), Some(running)) => {
            if keep(door.listen != running.listen, "[mqtt] listen") {
                door.listen.clone_from(&running.listen);
            }
        }
        (None, None) => {}
        (door, running) => {
            keep(true, "[mqtt]");
            door.clone_from(running);
        }
    }
    (config, needs_restart)
}

/// What differs between two configurations, by table. Two that only look different (comments, order of tables) differ
/// in nothing.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    // A table that is added to Config must be thought of here.
    let Config {
        gateway,
        journal,
        is_journal_sized_by_card: _,
        checkpoint,
        events,
        mqtt,
        max_devices,
        max_metrics,
        forget_after,
        serial,
        devices,
        rules,
        sinks,
        recorder,
        warnings: _,
        files: _,
        sha256: _,
    } = old;
    let mut table = |differs: bool, name: &str| {
        if differs {
            changed.push(name.to_owned());
        }
    };
    table(*gateway != new.gateway, "[gateway]");
    table(
        *journal != new.journal || *checkpoint != new.checkpoint,
        "[journal]",
    );
    table(*events != new.events, "[events]");
    table(*recorder != new.recorder, "[recorder]");
    let bounds =
        (*max_devices, *max_metrics, *forget_after) != (new.max_devices, new.max_metrics, new.forget_after);
    match (mqtt, &new.mqtt) {
        (Some(old), Some(new)) => {
            let door = crate::source::mqtt::Settings {
                readings: old.readings.clone(),
                renamed: old.renamed.clone(),
                ..new.clone()
            };
            table(bounds || door != *old, "[mqtt]");
            table(old.readings != new.readings, "[[mqtt.readings]]");
        }
        (None, None) => table(bounds, "[mqtt]"),
        _ => table(true, "[mqtt]"),
    }
    let lines = |line: &crate::source::serial::Settings| {
        // What follows from [[device]] is told there.
        let mut line = line.clone();
        line.renamed.clear();
        (line.name.clone(), line)
    };
    named("[[serial]]", serial, &new.serial, lines, &mut changed);
    let device = |device: &crate::rule::DeviceFacts| (device.id.0.clone(), device.clone());
    named("[[device]]", devices, &new.devices, device, &mut changed);
    let rule = |rule: &std::sync::Arc<crate::rule::Rule>| (rule.name.clone(), rule.clone());
    named("[[rule]]", rules, &new.rules, rule, &mut changed);
    let sink = |sink: &crate::forward::mqtt::Settings| (sink.terms.name.clone(), sink.clone());
    named("[[sink.mqtt]]", &sinks.mqtt, &new.sinks.mqtt, sink, &mut changed);
    let sink = |sink: &crate::forward::http::Settings| (sink.terms.name.clone(), sink.clone());
    named("[[sink.http]]", &sinks.http, &new.sinks.http, sink, &mut changed);
    changed
}

/// What was added, removed or changed among tables that have names.
fn named<T, K: Ord + Display, V: PartialEq>(
    table: &str,
    old: &[T],
    new: &[T],
    by_name: impl Fn(&T) -> (K, V),
    changed: &mut Vec<String>,
) {
    let mut gone: BTreeMap<K, V> = old.iter().map(&by_name).collect();
    let mut said: Vec<(K, &str)> = Vec::new();
    for (name, value) in new.iter().map(&by_name) {
        match gone.remove(&name) {
            Some(was) if was == value => {}
            Some(_) => said.push((name, "changed")),
            None => said.push((name, "added")),
        }
    }
    said.extend(gone.into_keys().map(|name| (name, "removed")));
    changed.extend(said.iter().map(|(name, what)| format!("{table} {name}: {what}")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    const OLD: &str = r#"
[gateway]
id = "gw"
[mqtt]
listen = ["127.0.0.1:1883"]
[[mqtt.readings]]
topic = "t/{device}"
format = "json"
[[device]]
id = "a"
[[rule]]
event = "TooHot"
metric = "temperature"
above = 30.0
clear = 28.0
[[rule]]
event = "TooCold"
metric = "temperature"
below = 3.0
clear = 5.0
"#;

    fn config(text: &str) -> Config {
        Config::parse("test.toml", text, &Machine::read()).unwrap_or_else(|report| panic!("{report}"))
    }

    #[test]
    fn what_differs_is_told_by_table_and_name() {
        let new = OLD
            .replace("above = 30.0", "above = 31.0")
            .replace("TooCold", "Freezing")
            .replace("id = \"a\"", "id = \"a\"\nname = \"A\"")
            .replace("t/{device}", "u/{device}");
        assert_eq!(
            differences(&config(OLD), &config(&new)),
            [
                "[[mqtt.readings]]",
                "[[device]] a: changed",
                "[[rule]] too-hot: changed",
                "[[rule]] freezing: added",
                "[[rule]] too-cold: removed",
            ]
        );
        let commented = format!("# hello\n{OLD}");
        assert!(differences(&config(OLD), &config(&commented)).is_empty());
    }

    #[test]
    fn what_needs_a_restart_keeps_its_value_and_the_rest_is_applied() {
        let new = OLD
            .replace("127.0.0.1:1883", "127.0.0.1:2883")
            .replace("id = \"gw\"", "id = \"other\"\nlabels = { site = \"hq\" }")
            .replace("above = 30.0", "above = 31.0");
        let old = config(OLD);
        let new = new + "[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtt://127.0.0.1:1\"\n";
        let (applied, needs_restart) = applicable(&old, config(&new));
        assert_eq!(
            differences(&old, &applied),
            ["[gateway]", "[[rule]] too-hot: changed"],
            "what waits for a restart has not changed; the sink waits for the id"
        );
        assert_eq!(needs_restart, ["[gateway] id", "[mqtt] listen"]);
        assert_eq!(applied.mqtt.unwrap().listen, old.mqtt.unwrap().listen);
        assert_eq!(&*applied.gateway.id, "gw");
        assert_eq!(applied.gateway.labels["site"], "hq");
        assert_eq!(applied.rules[0].condition, config(&new).rules[0].condition);
    }
}
