//! What the command line asks of a running gateway, over a Unix socket, and how.
//!
//! One line of JSON asks ([`Request`]), one line of JSON answers ([`Response`]); a connection may ask several times,
//! one after the other. An answer to a command that changes something says that the change is on the disk. Whoever may
//! write to the socket may ask: its owner and its group (0660), nobody over a network.
//!
//! Bounded: a request by [`MAX_REQUEST`], an answer by [`MAX_RESPONSE`], the wait by [`PATIENCE`].

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

pub mod status;

/// Bytes of a request with its line end.
pub const MAX_REQUEST: usize = 16 * 1024;
/// Bytes of an answer: all alarms of a large site.
pub const MAX_RESPONSE: u64 = 64 * 1024 * 1024;
/// How long the command line waits for an answer; the gateway itself gives up before.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Read the configuration again and apply it. Answered with [`Reloaded`].
    Reload,
    /// Mute a device or a rule. Answered with [`Done`].
    Mute {
        /// A device's id or a rule's name; `device:` or `rule:` before it says which, where both exist.
        target: String,
        /// Seconds.
        for_s: u64,
        /// For the event, and for whoever asks why.
        reason: String,
    },
    /// End a mute. Answered with [`Done`].
    Unmute {
        /// As for [`Request::Mute`].
        target: String,
    },
    /// Forget a device: its alarms are cleared, its state is dropped. Answered with [`Done`].
    Forget {
        /// Its id.
        device: String,
    },
    /// Send a sink again what is kept from there on. Answered with [`Done`].
    Replay {
        /// A configured sink's name.
        sink: String,
        /// From where.
        from: Start,
    },
    /// Forget where a sink stood that is not configured any more. Answered with [`Done`].
    ForgetSink {
        /// Its name.
        sink: String,
    },
    /// How everything stands. Answered with [`status::Status`].
    Status,
    /// List the open episodes, and record them as `ActiveAlarms`. Answered with [`Active`].
    Active,
    /// Send what was set aside for a sink again. Answered with [`Done`] when it is on its way for certain.
    DeadResend {
        /// Its name.
        sink: String,
        /// The events' ids; none: all.
        events: Vec<String>,
    },
    /// Give up what was set aside for a sink: `EventsDiscarded` tells it. Answered with [`Done`].
    DeadDrop {
        /// Its name.
        sink: String,
        /// The events' ids; none: all.
        events: Vec<String>,
    },
}

/// Where a replay begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// At this event, or the next one that is kept.
    Event {
        /// Its epoch; none: the current one.
        epoch: Option<String>,
        /// Its number.
        sequence: u64,
    },
    /// At the first that was stored then or later, RFC 3339.
    Stored(String),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// It is done, and on the disk if it changed something.
    Done(Json),
    /// It was not done: why, and what to do.
    Failed(String),
    /// The configuration is wrong and nothing was applied: the report.
    Configuration(String),
}

/// A change was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What, in a sentence.
    pub said: String,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// The tables that differ, one line each: `[[rule]] high-temperature: changed`.
    pub changed: Vec<String>,
    /// Keys whose new value counts only after a restart: `[mqtt] listen`.
    pub needs_restart: Vec<String>,
    /// What `check` warns of, if anything differs.
    pub warnings: Vec<String>,
}

/// What is open now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Active {
    /// The open episodes, the longest open first.
    pub alarms: Vec<Alarm>,
    /// What is muted.
    pub mutes: Vec<Mute>,
    /// Whether the times can be believed.
    pub clock_synchronised: bool,
}

/// One open episode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alarm {
    /// The episode's id: the `correlationid` of its events.
    pub id: String,
    /// The rule's name.
    pub rule: String,
    /// Its event.
    pub event: String,
    /// On which device.
    pub device: String,
    /// Of which metric; none: several.
    pub metric: Option<String>,
    /// How bad.
    pub severity: String,
    /// When the condition became true, RFC 3339.
    pub since: String,
    /// When it was raised.
    pub raised_at: String,
    /// The last value.
    pub value: Option<Json>,
}

/// One mute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// `device:boiler` or `rule:too-hot`.
    pub target: String,
    /// When it ends by itself, RFC 3339.
    pub until: String,
    /// Why.
    pub reason: String,
}

/// Why there is no answer that helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error(
        "no gateway is running here: no socket at {} (is the service started? one that was started by hand with \
         STATE_DIRECTORY is found only with the same STATE_DIRECTORY here, or by --socket)",
        .0.display()
    )]
    NotRunning(PathBuf),
    /// It is there, and not for us.
    #[error(
        "not allowed to use {}: ask as root, as the gateway's user, or as a member of its group (tidegate)",
        .0.display()
    )]
    Forbidden(PathBuf),
    /// The conversation failed.
    #[error("could not {act} {}: {source}; the gateway's log may say why", path.display())]
    Io {
        /// What, as a verb.
        act: &'static str,
        /// With which socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The gateway did not do it: its own words.
    #[error("{0}")]
    Failed(String),
    /// The configuration is wrong: the report.
    #[error("{0}")]
    Configuration(String),
}

/// Asks the gateway at `socket`, and waits for its answer.
///
/// # Errors
///
/// [`Error`], whose text says what to do.
pub fn ask<Answer: DeserializeOwned>(socket: &Path, request: &Request) -> Result<Answer, Error> {
    let io = |act| {
        move |source| Error::Io {
            act,
            path: socket.to_owned(),
            source,
        }
    };
    let stream = UnixStream::connect(socket).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::NotRunning(socket.to_owned()),
        io::ErrorKind::PermissionDenied => Error::Forbidden(socket.to_owned()),
        _ => io("connect to")(error),
    })?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        .map_err(io("use"))?;
    let line = serde_json::to_string(request).map_err(|error| io("ask at")(error.into()))?;
    (&stream)
        .write_all(format!("{line}\n").as_bytes())
        .map_err(io("ask at"))?;
    let mut answer = String::new();
    BufReader::new(stream.take(MAX_RESPONSE))
        .read_line(&mut answer)
        .map_err(io("hear an answer from"))?;
    let answer: Response =
        serde_json::from_str(&answer).map_err(|error| io("understand the answer of")(error.into()))?;
    match answer {
        Response::Done(answer) => {
            serde_json::from_value(answer).map_err(|error| io("understand the answer of")(error.into()))
        }
        Response::Failed(why) => Err(Error::Failed(why)),
        Response::Configuration(report) => Err(Error::Configuration(report)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_of_plain_json() {
        let mute = Request::Mute {
            target: "boiler".to_owned(),
            for_s: 7200,
            reason: "service\nvisit".to_owned(),
        };
        let line = serde_json::to_string(&mute).unwrap();
        assert_eq!(
            line,
            r#"{"command":"mute","target":"boiler","for_s":7200,"reason":"service\nvisit"}"#
        );
        assert_eq!(serde_json::from_str::<Request>(&line).unwrap(), mute);
        assert!(serde_json::from_str::<Request>(r#"{"command":"mute","target":"x"}"#).is_err());
    }

    #[test]
    fn nobody_at_the_socket_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let said = || ask::<Done>(&path, &Request::Reload).unwrap_err().to_string();
        let expected = format!("no gateway is running here: no socket at {}", path.display());
        assert!(said().starts_with(&expected), "{}", said());
        // One that a kill left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        assert!(said().starts_with(&expected), "{}", said());
    }
}
