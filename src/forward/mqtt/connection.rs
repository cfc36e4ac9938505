//! One MQTT connection, of either version: publishes out, answers in. docs/decisions/0009-own-uplink-connection.md says
//! why it is ours.
//!
//! The session ends with the connection and nothing is ever sent again over the next one: the journal's cursor says what
//! is. Nothing moves while nobody waits in [`Connection::next`]; what was published since the last wait goes out in one
//! piece, and answers that came in one piece cost one read.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout_at},
};

use super::{
    Version,
    wire::{self, Heard, Welcome},
};
use crate::{
    event::cloudevents::Message,
    forward::dial::{Dialled, dial},
};

/// The largest packet taken or sent: an event of many labels fits.
pub(super) const MAX_PACKET: u32 = 1024 * 1024;

/// Name look-up, TCP, TLS and CONNACK together.
const CONNECT_WITHIN: Duration = Duration::from_secs(15);

/// Seconds; short enough that a dead path is seen before a person is.
const KEEP_ALIVE: u16 = 30;

/// A broker that was asked whether it is alive has this long, or until the next time it is asked.
const PONG_WITHIN: Duration = Duration::from_secs(10);

/// Packets in a row that answer nothing: whoever sends more would keep us from everything else.
const UNASKED: u32 = 1000;

/// Read in one go: many answers.
const READ: usize = 2048;

/// What a buffer keeps when it is empty: one large packet shall not be paid for ever after.
pub(super) const KEPT: usize = 64 * 1024;

/// All that a connection needs.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub host: String,
    pub port: u16,
    pub version: Version,
    pub client_id: String,
    pub login: Option<(String, String)>,
    pub tls: Option<Arc<ClientConfig>>,
    pub will: Option<(String, Vec<u8>)>,
}

/// What happened on the connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Signal {
    /// The broker answered a publish; version 3.1.1 always says 0.
    Answered {
        /// Which.
        pkid: u16,
        /// `PUBACK`'s reason code.
        reason: u8,
    },
    /// It is over because of one of the unanswered publishes; which, the broker did not say: why (reason code).
    Poisoned(u8),
    /// It is over: why.
    Lost(String),
}

/// A connection whose broker took us. Dropped, it is cut.
#[derive(Debug)]
pub(super) struct Connection {
    version: Version,
    pipe: Pipe,
    /// The packet id of the last publish.
    pkid: u16,
    /// When it is time to ask whether the broker is alive.
    keep_alive: Interval,
    /// When it was asked, if it has not answered.
    asked: Option<Instant>,
    /// Packets since the last that answered something.
    unasked: u32,
}

impl Connection {
    /// Connects; ends by itself within a bounded time.
    ///
    /// # Errors
    ///
    /// Why not, for people.
    pub async fn open(plan: &Plan) -> Result<(Self, Welcome), String> {
        let deadline = Instant::now() + CONNECT_WITHIN;
        // Boxed: a handshake of TLS is large, and short beside what waits for it.
        let opening = timeout_at(deadline, Box::pin(Self::open_by(plan, deadline))).await;
        opening.unwrap_or_else(|_| Err("connecting took too long".to_owned()))
    }

    async fn open_by(plan: &Plan, deadline: Instant) -> Result<(Self, Welcome), String> {
        let stream: Box<dyn Stream> = match dial(&plan.host, plan.port, plan.tls.as_ref(), deadline).await? {
            Dialled::Plain(stream) => Box::new(stream),
            Dialled::Tls(stream) => stream,
        };
        Self::greet(plan, stream).await
    }

    async fn greet(plan: &Plan, stream: Box<dyn Stream>) -> Result<(Self, Welcome), String> {
        let mut pipe = Pipe::new(stream);
        wire::connect(plan, KEEP_ALIVE, &mut pipe.out);
        let welcome = loop {
            match wire::heard(&mut pipe.input, plan.version)? {
                Some(Heard::Welcome(welcome)) => break welcome,
                Some(Heard::Refused(why)) => return Err(why),
                Some(Heard::Disconnect(reason, text)) => return Err(disconnected(reason, &text)),
                Some(_) => return Err("the broker does not begin with CONNACK".to_owned()),
                None => pipe.moves().await?,
            }
        };
        let wanted = welcome.keep_alive.filter(|seconds| *seconds > 0);
        let seconds = wanted.unwrap_or(KEEP_ALIVE).min(KEEP_ALIVE);
        let period = Duration::from_secs(seconds.into());
        let mut keep_alive = interval_at(Instant::now() + period, period);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let connection = Self {
            version: plan.version,
            pipe,
            pkid: 0,
            keep_alive,
            asked: None,
            unasked: 0,
        };
        Ok((connection, welcome))
    }

    /// Takes a publish at QoS 1 on its way; answers its packet id. They go round all that there are: the window, and
    /// what the broker takes, are far smaller.
    pub fn publish(&mut self, topic: &str, message: &Message, retain: bool) -> u16 {
        self.pkid = self.pkid.checked_add(1).unwrap_or(1);
        wire::publish(
            self.version,
            self.pkid,
            topic,
            message,
            retain,
            &mut self.pipe.out,
        );
        self.pkid
    }

    /// What has been said already.
    pub fn said(&mut self) -> Option<Signal> {
        loop {
            match wire::heard(&mut self.pipe.input, self.version) {
                Ok(Some(Heard::Answered { pkid, reason })) => {
                    self.unasked = 0;
                    return Some(Signal::Answered { pkid, reason });
                }
                Ok(Some(Heard::Disconnect(reason @ (0x95 | 0x99), _))) => {
                    return Some(Signal::Poisoned(reason));
                }
                Ok(Some(Heard::Disconnect(reason, text))) => {
                    return Some(Signal::Lost(disconnected(reason, &text)));
                }
                Ok(Some(Heard::Pong)) if self.asked.take().is_some() => self.unasked = 0,
                Ok(Some(_)) if self.unasked < UNASKED => self.unasked += 1,
                Ok(Some(_)) => {
                    return Some(Signal::Lost(
                        "the broker sends only what nobody asked for".to_owned(),
                    ));
                }
                Ok(None) => return None,
                Err(why) => return Some(Signal::Lost(why)),
            }
        }
    }

    /// The next signal. Cancel-safe: what was read or written stays so.
    pub async fn next(&mut self) -> Signal {
        loop {
            if let Some(signal) = self.said() {
                return signal;
            }
            tokio::select! {
                biased;
                moved = self.pipe.moves() => {
                    if let Err(why) = moved {
                        return Signal::Lost(why);
                    }
                }
                _ = self.keep_alive.tick() => {
                    if self.asked.get_or_insert_with(Instant::now).elapsed() >= PONG_WITHIN {
                        return Signal::Lost("the broker no longer answers pings".to_owned());
                    }
                    self.pipe.out.extend_from_slice(&wire::PINGREQ);
                }
            }
        }
    }

    /// Says what is left to say, then DISCONNECT.
    pub async fn leave(mut self) -> io::Result<()> {
        let Pipe { stream, out, .. } = &mut self.pipe;
        out.extend_from_slice(&wire::DISCONNECT);
        stream.write_all_buf(out).await?;
        stream.shutdown().await
    }
}

fn disconnected(reason: u8, text: &str) -> String {
    let why = format!("the broker disconnected us: {} {text}", wire::reason(reason));
    why.trim_end().to_owned()
}

/// TCP, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A stream, and what is on its way in and out.
struct Pipe {
    stream: Box<dyn Stream>,
    input: BytesMut,
    out: BytesMut,
    /// TLS may hold back what was written.
    is_flushed: bool,
    /// Nothing more can be written: why. What the broker said before that is read all the same: an answer thrown away is
    /// a duplicate.
    broken: Option<io::Error>,
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipe")
            .field("input", &self.input.len())
            .field("out", &self.out.len())
            .finish_non_exhaustive()
    }
}

impl Pipe {
    fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            out: BytesMut::new(),
            is_flushed: true,
            broken: None,
        }
    }

    /// Writes what there is to write, and waits until something was read. `Err`: nothing more will be, why. Cancel-safe.
    async fn moves(&mut self) -> Result<(), String> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), String>> {
        if self.broken.is_none() {
            self.broken = self.poll_write(cx).err();
        }
        if self.input.is_empty() && self.input.try_reclaim(KEPT + 1) {
            self.input = BytesMut::new();
        }
        let mut chunk = [0; READ];
        let mut read = ReadBuf::new(&mut chunk);
        // Nothing can be read: a stream that could not be written to will say that it ended.
        let end = match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read)) {
            Ok(()) if !read.filled().is_empty() => {
                self.input.extend_from_slice(read.filled());
                return Poll::Ready(Ok(()));
            }
            Ok(()) => None,
            // TLS that was not closed as TLS is.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            Err(error) => Some(error),
        };
        let reason = end.or_else(|| self.broken.take());
        let closed = || "the broker closed the connection".to_owned();
        Poll::Ready(Err(reason.map_or_else(closed, |error| error.to_string())))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.out.advance(written);
                    self.is_flushed = false;
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if !self.is_flushed && Pin::new(&mut self.stream).poll_flush(cx)?.is_ready() {
            self.is_flushed = true;
            if self.out.try_reclaim(KEPT + 1) {
                self.out = BytesMut::new();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
