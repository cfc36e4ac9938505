//! The gateway's own events: what it says of itself (docs/events.md, "Event types").

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{
    event::{
        Data, Draft, Epoch, Position,
        gateway::{
            self, ActiveAlarms, At, ConfigurationRejected, GatewayAlive, GatewayStarted, GatewayStopped,
            OpenAlarm, Recorded,
        },
    },
    journal::{Journal, Recovered},
    reading::Value,
    rule::{engine::ActiveEpisode, state::Outcome},
    time::{BootId, Clock, EngineTime},
};

/// The longest report in `ConfigurationRejected`, in bytes: it must fit the smallest packet a broker may take, and the
/// log has the whole.
const MAX_REPORT: usize = 4096;

/// The most that the alarms of one `ActiveAlarms` take, in bytes, for the same reason; the rest is in the next part.
const MAX_ALARMS: usize = 16 * 1024;

/// Records the gateway's own events, except those that `[events] off` names.
#[derive(Clone, Debug)]
pub struct Announcer {
    journal: Journal,
    clock: Clock,
    gateway: Arc<str>,
    off: Arc<RwLock<HashSet<String>>>,
}

impl Announcer {
    /// For one gateway.
    #[must_use]
    pub fn new(journal: Journal, clock: Clock, gateway: Arc<str>, off: &[String]) -> Self {
        Self {
            journal,
            clock,
            gateway,
            off: Arc::new(RwLock::new(off.iter().cloned().collect())),
        }
    }

    /// `GatewayStarted`.
    pub fn started(&self, recovered: &Recovered, boot_id: BootId, config_sha256: &str) {
        self.record(&GatewayStarted {
            epoch: recovered.epoch.to_string(),
            first_sequence: recovered.first.0,
            last_sequence: recovered.last.0,
            boot_id: format!("{:032x}", boot_id.0),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unclean: !recovered.clean,
            found: recovered.findings.clone(),
            configuration_sha256: config_sha256.to_owned(),
        });
    }

    /// `GatewayStopped`; returns where it stands, unless it is off.
    pub fn stopped(&self) -> Option<Position> {
        self.record(&GatewayStopped {
            reason: "asked to stop".to_owned(),
        })
    }

    /// `GatewayAlive`.
    pub fn alive(&self, epoch: Epoch, active_episodes: usize, backlog: u64) {
        let last = self.journal.health().borrow().last.0;
        self.record(&GatewayAlive {
            epoch: epoch.to_string(),
            last_sequence: last,
            active_episodes: active_episodes as u64,
            backlog,
        });
    }

    /// `ConfigurationRejected`; `used` says what is used instead.
    pub fn configuration_rejected(&self, report: &str, used: &str) {
        self.record(&ConfigurationRejected {
            report: bounded(report),
            used: used.to_owned(),
        });
    }

    /// `ActiveAlarms`: all open episodes, in as many events as they need.
    pub fn active_alarms(&self, epoch: Epoch, episodes: &[ActiveEpisode]) -> Option<Position> {
        let mut parts: Vec<Vec<OpenAlarm>> = vec![Vec::new()];
        let mut room = MAX_ALARMS;
        for alarm in episodes.iter().map(open_alarm) {
            let bytes = serde_json::to_string(&alarm).map_or(MAX_ALARMS, |text| text.len());
            if bytes > room {
                parts.push(Vec::new());
                room = MAX_ALARMS;
            }
            room = room.saturating_sub(bytes);
            if let Some(part) = parts.last_mut() {
                part.push(alarm);
            }
        }
        let whole = parts.len() as u64;
        let mut last = None;
        for (part, alarms) in (1..).zip(parts) {
            last = self.record(&ActiveAlarms {
                epoch: epoch.to_string(),
                part,
                parts: whole,
                count: episodes.len() as u64,
                alarms,
            });
        }
        last
    }

    /// Records what is not off, about the gateway.
    pub fn record<F: Recorded>(&self, fact: &F) -> Option<Position> {
        self.record_about(fact, &self.gateway, self.clock.now(), None)
    }

    /// Where it is recorded.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The engine speaks for the gateway, too: of mutes.
    pub fn drop_what_is_off(&self, outcome: &mut Outcome) {
        outcome.retain(|draft| !matches!(draft.data, Data::Gateway(_)) || !self.is_off(&draft.name));
    }

    /// Who speaks.
    pub fn gateway(&self) -> Arc<str> {
        Arc::clone(&self.gateway)
    }

    /// Records what is not off, about a device, a source or a sink.
    pub fn record_about<F: Recorded>(
        &self,
        fact: &F,
        subject: &str,
        at: EngineTime,
        correlation: Option<Arc<str>>,
    ) -> Option<Position> {
        if self.is_off(F::FACT.name) {
            return None;
        }
        let draft = gateway::draft(fact, subject, at);
        Some(self.journal.record(Draft { correlation, ..draft }))
    }

    /// What is not off, about the gateway, for whoever commits it together with something else.
    pub fn draft<F: Recorded>(&self, fact: &F, correlation: Option<Arc<str>>) -> Option<Draft> {
        if self.is_off(F::FACT.name) {
            return None;
        }
        let draft = gateway::draft(fact, &self.gateway, self.clock.now());
        Some(Draft { correlation, ..draft })
    }

    /// Whether `[events] off` names it.
    pub fn is_off(&self, name: &str) -> bool {
        self.off
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(name)
    }

    /// From now on these are off.
    pub fn set_off(&self, off: &[String]) {
        *self.off.write().unwrap_or_else(PoisonError::into_inner) = off.iter().cloned().collect();
    }
}

/// The lines, as far as [`MAX_REPORT`] goes, and how many are left out.
pub(super) fn bounded_lines(lines: &[String]) -> Vec<String> {
    let mut room = MAX_REPORT;
    let fits = |line: &&String| {
        let fits = line.len() <= room;
        room = room.saturating_sub(line.len());
        fits
    };
    let mut kept: Vec<String> = lines.iter().take_while(fits).cloned().collect();
    let left = lines.len() - kept.len();
    if left > 0 {
        kept.push(format!("{left} more"));
    }
    kept
}

fn open_alarm(episode: &ActiveEpisode) -> OpenAlarm {
    let mut alarm = OpenAlarm {
        id: episode.id.to_string(),
        rule: episode.rule.to_string(),
        event: episode.event.to_string(),
        device: episode.device.to_string(),
        metric: episode.metric.as_ref().map(ToString::to_string),
        severity: episode.severity.as_str().to_owned(),
        since: At(episode.since),
        raised_at: At(episode.raised_at),
        value: None,
        value_bool: None,
        value_text: None,
    };
    match &episode.value {
        Some(Value::Number(number)) => alarm.value = Some(*number),
        Some(Value::Bool(bool)) => alarm.value_bool = Some(*bool),
        Some(Value::Text(text)) => alarm.value_text = Some(text.to_string()),
        None => {}
    }
    alarm
}

/// The report's whole lines, as far as [`MAX_REPORT`] goes, and how many are left out.
fn bounded(report: &str) -> String {
    if report.len() <= MAX_REPORT {
        return report.to_owned();
    }
    let end = report.floor_char_boundary(MAX_REPORT);
    let kept = report.split_at(end).0;
    let kept = kept.rsplit_once('\n').map_or(kept, |(whole, _)| whole);
    let left = report.lines().count() - kept.lines().count();
    format!("{kept}\n({left} more lines: `tidegate check` shows them)\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_report_is_cut_after_a_whole_line_and_says_so() {
        assert_eq!(bounded("x.toml:1: wrong\n"), "x.toml:1: wrong\n");
        let line = "gateway.toml:1: é is wrong; write e\n";
        let long = bounded(&line.repeat(1000));
        assert!(long.len() <= MAX_REPORT + 64, "{} bytes", long.len());
        assert!(long.starts_with(&line.repeat(100)), "{long}");
        let kept = long.lines().count() - 1;
        let said = format!("\n({} more lines: `tidegate check` shows them)\n", 1000 - kept);
        assert!(long.ends_with(&said), "{long}");
        assert!(bounded(&"é".repeat(MAX_REPORT)).len() <= MAX_REPORT + 64);
    }
}
