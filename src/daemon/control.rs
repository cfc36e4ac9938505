//! The control socket's gateway side: who may ask, how much, and what is done about it.
//!
//! Every command is dispatched in [`Desk::answer`]. One that changes something is answered when the change is on the
//! disk. Nobody who asks holds the gateway up: connections, their requests and their waits are bounded, and the engine
//! is asked through a bounded channel, between two batches of readings.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tracing::{info, warn};

use super::{
    evaluate::Asked,
    reload::{Order, Refused},
    standing::Seldom,
    status::Views,
};
use crate::{
    control::{Active, Alarm, Done, MAX_REQUEST, Mute, Request, Response, Start},
    event::{Entry, Epoch, EpochError, Position, Sequence, SinkName},
    journal::{
        Journal,
        inspect::{self, Inspection},
    },
    reading::{DeviceId, Value},
    rule::engine::{ActiveEpisode, MuteTarget},
    time::{Clock, ClockQuality, EngineTime, Timestamp},
};

mod dead;

/// Connections at once: people and scripts on the gateway itself.
const MAX_CONNECTIONS: usize = 16;
/// A connection that asks nothing for so long is closed; an answer must be read within it.
const IDLE: Duration = Duration::from_secs(10);
/// How long the engine, a reload and the disk are waited for, each: together less than the command line waits.
const WORK: Duration = Duration::from_secs(15);
/// The longest mute: longer, and nobody remembers.
const MAX_MUTE: Duration = Duration::from_hours(24 * 366);
/// The longest reason, in characters.
const MAX_REASON: usize = 256;
/// After a failed accept.
const PAUSE: Duration = Duration::from_millis(100);

/// The socket, listening. Dropped, it takes its file away.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket, in the place of one that a gateway left behind.
    ///
    /// # Errors
    ///
    /// Another gateway answers there, something stands there that is no socket, or the system makes none there.
    pub(super) async fn make(path: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "what stands there is no socket, and stays",
                ));
            }
            _ => {}
        }
        // One that is too busy to take us answers too.
        if !matches!(timeout(PAUSE, UnixStream::connect(path)).await, Ok(Err(_))) {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another gateway answers there",
            ));
        }
        // Nobody finds the socket before its mode is right. The name is ours alone: nothing else is taken away.
        let new = path.with_file_name(format!(".tidegate-control.{}", std::process::id()));
        match std::fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&new)?;
        std::fs::set_permissions(&new, Permissions::from_mode(0o660))?;
        std::fs::rename(&new, path)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Answers whoever asks; never ends by itself.
    pub(super) async fn serve(self, desk: Desk) {
        let mut connections = JoinSet::new();
        let mut deaf = crate::seldom::Seldom::once_a_minute();
        loop {
            // Both are cancel-safe.
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) if connections.len() < MAX_CONNECTIONS => {
                        connections.spawn(converse(stream, desk.clone()));
                    }
                    Ok((mut stream, _)) => {
                        let busy = Response::Failed("too many ask at once; try again".to_owned());
                        _ = timeout(PAUSE, tell(&mut stream, &busy)).await;
                    }
                    Err(error) => {
                        if let Some(unsaid) = deaf.due(Instant::now()) {
                            warn!(reason = %error, unsaid, "could not accept at the control socket");
                        }
                        sleep(PAUSE).await;
                    }
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already: somebody took it away, which is all we want.
        _ = std::fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, desk: Desk) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(MAX_REQUEST as u64);
        match timeout(IDLE, bounded.read_until(b'\n', &mut line)).await {
            Ok(Ok(1..)) => {}
            Ok(_) | Err(_) => return,
        }
        let whole = line.ends_with(b"\n");
        let response = if whole {
            match serde_json::from_slice(&line) {
                Ok(request) => desk.answer(request).await,
                Err(error) => Response::Failed(format!(
                    "not a request that this gateway knows: {error} (is the command line of another version?)"
                )),
            }
        } else {
            Response::Failed(format!("a request is one line of at most {MAX_REQUEST} bytes"))
        };
        let told = timeout(IDLE, tell(&mut writer, &response)).await;
        if !whole || !matches!(told, Ok(Ok(()))) {
            return;
        }
    }
}

async fn tell(writer: &mut (impl AsyncWriteExt + Unpin), response: &Response) -> io::Result<()> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// What the commands need.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) engine: mpsc::Sender<Asked>,
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) journal: Journal,
    pub(super) views: Views,
    pub(super) clock: Clock,
    pub(super) epoch: Epoch,
    /// How often what is active was recorded because somebody asked.
    pub(super) listed: Arc<Seldom>,
}

/// What was asked for before the first event that is kept, as the end of a sentence.
fn gone(start: inspect::Start, first: &Entry) -> String {
    let inspect::Start::Event(epoch, from) = start else {
        return String::new();
    };
    let from = from.0.max(1);
    match epoch {
        Some(epoch) if epoch != first.epoch => format!("; {epoch} is not kept from {from} on"),
        _ if from + 1 < first.sequence.0 => {
            format!("; {from} to {} are no longer kept", first.sequence.0 - 1)
        }
        _ if from < first.sequence.0 => format!("; {from} is no longer kept"),
        _ => String::new(),
    }
}

/// Why a command was not done.
type Why = String;

impl Desk {
    /// All commands.
    pub(super) async fn answer(&self, request: Request) -> Response {
        let done = match request {
            Request::Reload => return self.reload().await,
            Request::Mute {
                target,
                for_s,
                reason,
            } => self.mute(&target, for_s, reason).await,
            Request::Unmute { target } => self.unmute(&target).await,
            Request::Forget { device } => self.forget(&device).await,
            Request::Replay { sink, from } => self.replay(&sink, from).await,
            Request::ForgetSink { sink } => self.forget_sink(&sink).await,
            Request::Status => {
                let open = self.ask(Asked::Episodes).await.ok();
                return said(Ok(self.views.status(open.as_ref())));
            }
            Request::Active => return said(self.active().await),
            Request::DeadResend { sink, events } => self.resend(&sink, &events).await,
            Request::DeadDrop { sink, events } => self.drop_letters(&sink, &events).await,
        };
        said(done.map(|said| Done { said }))
    }

    async fn reload(&self) -> Response {
        let (answer, answered) = oneshot::channel();
        if self.orders.try_send(Order::Reload(answer)).is_err() {
            return Response::Failed(UNDER_WAY.to_owned());
        }
        match timeout(WORK, answered).await {
            Ok(Ok(Ok((reloaded, position)))) => said(self.on_disk(position).await.map(|()| reloaded)),
            Ok(Ok(Err(Refused(report)))) => Response::Configuration(report),
            Ok(Err(_)) => Response::Failed(STOPPING.to_owned()),
            Err(_) => Response::Failed("the reload takes long; the log tells when it is done".to_owned()),
        }
    }

    async fn mute(&self, target: &str, for_s: u64, reason: String) -> Result<String, Why> {
        let length = Duration::from_secs(for_s);
        if length.is_zero() || length > MAX_MUTE {
            return Err(format!(
                "a mute lasts 1 s to {} days",
                MAX_MUTE.as_secs() / 86_400
            ));
        }
        if reason.trim().is_empty() || reason.chars().count() > MAX_REASON {
            return Err(format!(
                "a reason has 1 to {MAX_REASON} characters: say why, for who reads the event"
            ));
        }
        self.is_open()?;
        let target = self.resolve(target).await?;
        let ask = |answer| Asked::Mute(target.clone(), length, reason.clone(), answer);
        self.on_disk(self.ask(ask).await?).await?;
        let until = self.clock.moment().wall_of(self.clock.now().after(length));
        let (device, rule) = parts(&target);
        info!(device, rule, %until, reason, "muted");
        Ok(format!("{} is muted until {until}", shown(&target)))
    }

    async fn unmute(&self, target: &str) -> Result<String, Why> {
        self.is_open()?;
        let open = self.ask(Asked::Episodes).await?;
        let muted = |target: &MuteTarget| open.mutes.iter().any(|mute| mute.target == *target);
        let candidates = candidates(target).map_err(|why| format!("{target:?}: {why}"))?;
        let Some(target) = candidates.into_iter().find(muted) else {
            return Err(format!(
                "{target} is not muted; `tidegate events --active` lists what is"
            ));
        };
        let ask = |answer| Asked::Unmute(target.clone(), answer);
        self.on_disk(self.ask(ask).await?).await?;
        let (device, rule) = parts(&target);
        info!(device, rule, "no longer muted");
        Ok(format!("{} is no longer muted", shown(&target)))
    }

    async fn forget(&self, device: &str) -> Result<String, Why> {
        self.is_open()?;
        let unknown = || format!("no device {device:?} is known here: nothing of it was kept");
        let id = DeviceId::new(device).map_err(|_| unknown())?;
        let forgotten = self.ask(|answer| Asked::Forget(id.clone(), answer)).await?;
        self.on_disk(forgotten.ok_or_else(unknown)?).await?;
        info!(device, "forgotten");
        Ok(format!(
            "{device} is forgotten: its alarms are cleared, its state is gone"
        ))
    }

    async fn replay(&self, sink: &str, from: Start) -> Result<String, Why> {
        let name = self.is_configured(sink)?;
        let start = inspect::Start::try_from(from)?;
        let dir = self.views.settings.dir.clone();
        let looking = tokio::task::spawn_blocking(move || Inspection::look(&dir)?.first(start));
        let first = match looking.await {
            Ok(Ok(Some(first))) => first.entry,
            Ok(Ok(None)) => {
                return Err(
                    "nothing that is kept was stored from there on; `tidegate journal ls` lists what is"
                        .to_owned(),
                );
            }
            Ok(Err(error)) => return Err(error.to_string()),
            Err(error) => return Err(error.to_string()),
        };
        let position = Position(first.position.0.saturating_sub(1));
        let ordered = |answer| Order::Replay(name.clone(), position, answer);
        self.order(ordered).await?;
        let from = format!("{}-{}", first.epoch, first.sequence);
        let stored = first.event.recorded.wall;
        info!(sink, from, "the sink is sent again what it had");
        Ok(format!(
            "{sink} is sent again all from {from} on, which was stored {stored}; its chain of previoussequence starts \
             anew, with zeros{}",
            gone(start, &first)
        ))
    }

    /// The sink, if something is delivered to it.
    fn is_configured(&self, sink: &str) -> Result<SinkName, Why> {
        let uplinks = self.views.uplinks.borrow();
        let names: Vec<&SinkName> = uplinks.iter().map(|uplink| &uplink.name).collect();
        if let Some(name) = names.iter().find(|name| name.as_str() == sink) {
            return Ok((*name).clone());
        }
        let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
        Err(format!(
            "no sink {sink:?} is configured; there are: {}",
            names.join(", ")
        ))
    }

    async fn forget_sink(&self, sink: &str) -> Result<String, Why> {
        let name: SinkName = sink.parse().map_err(|error| format!("{sink:?}: {error}"))?;
        let letters = self.journal.dead_letters();
        let letters = letters.iter().filter(|letter| letter.sink == name).count();
        self.order(|answer| Order::Forget(name, answer)).await?;
        info!(sink, letters, "where the sink stood is forgotten");
        let dropped = match letters {
            0 => String::new(),
            1 => "; its dead letter was dropped".to_owned(),
            more => format!("; its {more} dead letters were dropped"),
        };
        Ok(format!(
            "{sink} is forgotten: if it is configured again it begins as a new one{dropped}"
        ))
    }

    /// Has the stages changed, and waits until that is on the disk.
    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<bool, String>>) -> Order,
    ) -> Result<(), Why> {
        let (answer, answered) = oneshot::channel();
        if self.orders.try_send(order(answer)).is_err() {
            return Err(UNDER_WAY.to_owned());
        }
        match timeout(WORK, answered).await {
            Ok(Ok(Ok(true))) => Ok(()),
            Ok(Ok(Ok(false))) => Err(NOT_ON_DISK.to_owned()),
            Ok(Ok(Err(why))) => Err(why),
            Ok(Err(_)) => Err(STOPPING.to_owned()),
            Err(_) => Err("it takes long; the log may say why".to_owned()),
        }
    }

    async fn active(&self) -> Result<Active, Why> {
        let may_record = !self.journal.health().borrow().parked && self.listed.may(self.clock.now());
        let open = if may_record {
            let (open, recorded) = self.ask(|answer| Asked::List(self.epoch, answer)).await?;
            if let Some(position) = recorded {
                self.on_disk(position).await?;
            }
            open
        } else {
            self.ask(Asked::Episodes).await?
        };
        let moment = self.clock.moment();
        let wall = |at: EngineTime| moment.wall_of(at).to_string();
        let mut alarms: Vec<Alarm> = open.episodes.iter().map(|it| alarm(it, &wall)).collect();
        alarms.sort_by(|one, other| one.raised_at.cmp(&other.raised_at));
        let mutes = open.mutes.into_iter().map(|mute| Mute {
            target: shown(&mute.target),
            until: wall(mute.until),
            reason: mute.reason,
        });
        Ok(Active {
            alarms,
            mutes: mutes.collect(),
            clock_synchronised: moment.quality == ClockQuality::Synchronised,
        })
    }

    /// A device or a rule: which of them there is.
    async fn resolve(&self, name: &str) -> Result<MuteTarget, Why> {
        let candidates = candidates(name).map_err(|why| format!("{name:?}: {why}"))?;
        let mut known = self.ask(|answer| Asked::Known(candidates, answer)).await?;
        match (known.pop(), known.is_empty()) {
            (Some(only), true) => Ok(only),
            (Some(_), false) => Err(format!(
                "{name} is a device and a rule: write device:{name} or rule:{name}"
            )),
            (None, _) => Err(
                match self.ask(|answer| Asked::RuleOf(name.to_owned(), answer)).await? {
                    Some(rule) => format!("{name} is the event of rule:{rule}; mute that"),
                    None => format!(
                        "there is no rule {name:?}, and no device of this name was seen or has a [[device]]: look at its spelling"
                    ),
                },
            ),
        }
    }

    /// Asks the engine.
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Asked) -> Result<T, Why> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.engine.send(ask(answer)).await.ok()?;
            answered.await.ok()
        };
        match timeout(WORK, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(STOPPING.to_owned()),
            Err(_) => Err("the engine does not answer; the log may say why".to_owned()),
        }
    }

    /// What cannot be recorded is not decided either.
    fn is_open(&self) -> Result<(), Why> {
        if self.journal.health().borrow().parked {
            return Err(
                "the journal is full, so nothing can be recorded: let the uplink deliver, free the disk, or raise \
                 [journal] max-bytes"
                    .to_owned(),
            );
        }
        Ok(())
    }

    async fn on_disk(&self, position: Position) -> Result<(), Why> {
        let mut durable = self.journal.durable();
        let written = durable.wait_for(|durable| *durable >= position);
        match timeout(WORK, written).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NOT_ON_DISK.to_owned()),
        }
    }
}

const NOT_ON_DISK: &str = "it is done, but not on the disk yet (is the journal full?): the log may say why";
const UNDER_WAY: &str = "another reload or replay is under way; try again";
const STOPPING: &str = "the gateway is stopping; ask again when it runs";

impl TryFrom<Start> for inspect::Start {
    type Error = Why;

    fn try_from(start: Start) -> Result<Self, Why> {
        Ok(match start {
            Start::Event { epoch, sequence } => {
                let epoch = epoch.map(|epoch| epoch.parse()).transpose();
                Self::Event(
                    epoch.map_err(|error: EpochError| error.to_string())?,
                    Sequence(sequence),
                )
            }
            Start::Stored(time) => {
                let time: jiff::Timestamp = time.parse().map_err(|_| format!("{time:?} is no time"))?;
                Self::Stored(Timestamp(time.as_microsecond()))
            }
        })
    }
}

fn said<T: serde::Serialize>(answer: Result<T, Why>) -> Response {
    match answer.map(serde_json::to_value) {
        Ok(Ok(json)) => Response::Done(json),
        Ok(Err(error)) => Response::Failed(error.to_string()),
        Err(why) => Response::Failed(why),
    }
}

/// What a name may stand for.
fn candidates(name: &str) -> Result<Vec<MuteTarget>, crate::reading::NameError> {
    if let Some(device) = name.strip_prefix("device:") {
        return Ok(vec![MuteTarget::Device(DeviceId::new(device)?)]);
    }
    let rule = name.strip_prefix("rule:");
    let mut all = vec![MuteTarget::Rule(rule.unwrap_or(name).into())];
    if rule.is_none() {
        all.extend(DeviceId::new(name).ok().map(MuteTarget::Device));
    }
    Ok(all)
}

/// As it can be typed.
/// The device or the rule.
fn parts(target: &MuteTarget) -> (Option<&str>, Option<&str>) {
    match target {
        MuteTarget::Device(device) => (Some(device.as_str()), None),
        MuteTarget::Rule(rule) => (None, Some(rule)),
    }
}

fn shown(target: &MuteTarget) -> String {
    match target {
        MuteTarget::Device(device) => format!("device:{device}"),
        MuteTarget::Rule(rule) => format!("rule:{rule}"),
    }
}

fn alarm(episode: &ActiveEpisode, wall: &impl Fn(EngineTime) -> String) -> Alarm {
    Alarm {
        id: episode.id.to_string(),
        rule: episode.rule.to_string(),
        event: episode.event.to_string(),
        device: episode.device.to_string(),
        metric: episode.metric.as_ref().map(ToString::to_string),
        severity: episode.severity.as_str().to_owned(),
        since: wall(episode.since),
        raised_at: wall(episode.raised_at),
        value: episode.value.as_ref().map(|value| match value {
            Value::Bool(bool) => (*bool).into(),
            Value::Number(number) => (*number).into(),
            Value::Text(text) => text.as_ref().into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_stand_for_a_rule_or_a_device_unless_it_says_which() {
        let shown = |name| -> Vec<String> { candidates(name).unwrap().iter().map(super::shown).collect() };
        assert_eq!(shown("boiler"), ["rule:boiler", "device:boiler"]);
        assert_eq!(shown("rule:boiler"), ["rule:boiler"]);
        assert_eq!(shown("device:boiler"), ["device:boiler"]);
        assert_eq!(shown("device:rule:x"), ["device:rule:x"]);
        assert!(candidates("device:a/b").is_err());
    }

    #[tokio::test]
    async fn a_socket_takes_the_place_of_a_stale_one_and_never_of_one_that_answers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let socket = Socket::make(&path).await.expect("a stale one is replaced");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        let second = Socket::make(&path).await.expect_err("somebody answers");
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        let left = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 0, "it leaves nothing behind");
    }

    #[tokio::test]
    async fn a_file_where_the_socket_should_be_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (
            folder.path().join("gateway.toml"),
            folder.path().join("gateway.new"),
        );
        for file in [&path, &other] {
            std::fs::write(file, "precious").unwrap();
        }
        let error = Socket::make(&path).await.expect_err("it is no socket");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let socket = Socket::make(&folder.path().join("gateway.sock")).await;
        drop(socket.expect("a place of its own"));
        for file in [&path, &other] {
            assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
        }
    }
}
