//! The load: many devices in one thread, on one epoll, with packets encoded before it begins.
//!
//! It shares the machine with the server that it measures, so it does as little as it can: no allocation, one
//! look at the clock per turn, one write per connection and turn. What it costs is told with the result.

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use rustix::time::{ClockId, clock_gettime};

/// One publish in so many raises the alarm; the next one clears it.
pub const RAISE_EVERY: u64 = 1000;
/// Bytes of a payload.
pub const PAYLOAD: usize = 60;
/// What no connection may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Devices.
    pub connections: usize,
    /// Unacknowledged publishes of each.
    pub window: usize,
    /// Not counted.
    pub warm_up: Duration,
    /// Counted.
    pub measured: Duration,
    /// One in so many raises; 1: every second one does, and the others clear.
    pub raise_every: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Acknowledged while it was counted.
    pub messages: u64,
    /// Acknowledged since the beginning.
    pub all: u64,
    /// How long was counted.
    pub elapsed: Duration,
    /// From write to PUBACK, sorted, in microseconds.
    latencies: Vec<u32>,
    /// Processor time of this thread while it was counted.
    pub own_cpu: Duration,
}

impl Outcome {
    /// Per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// In milliseconds.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let index = (self.latencies.len() as f64 * share) as usize;
        self.latencies
            .get(index.min(self.latencies.len().saturating_sub(1)))
            .map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    }
}

/// The devices, connected.
pub struct Devices {
    poll: Poll,
    all: Vec<Device>,
}

struct Device {
    stream: TcpStream,
    /// PUBLISH packets, whole but for the id: the usual one and the one that raises.
    usual: Vec<u8>,
    high: Vec<u8>,
    id_at: usize,
    sent: u64,
    /// By packet id: the ids are 1 to the window, each used again when it is acknowledged.
    sent_at: Vec<u32>,
    free: Vec<u16>,
    out: Vec<u8>,
    /// Bytes of an acknowledgement that is not whole.
    rest: Vec<u8>,
}

impl Devices {
    /// Connects them (version 3.1.1, clean) and waits for every CONNACK.
    ///
    /// # Panics
    ///
    /// If one is refused.
    #[must_use]
    pub fn connect(address: SocketAddr, count: usize, window: usize) -> Self {
        let poll = Poll::new().expect("epoll");
        let mut all: Vec<Device> = (0..count)
            .map(|number| Device::connect(address, number, window))
            .collect();
        for (index, device) in all.iter_mut().enumerate() {
            poll.registry()
                .register(
                    &mut device.stream,
                    Token(index),
                    Interest::READABLE | Interest::WRITABLE,
                )
                .expect("epoll takes a socket");
        }
        Self { poll, all }
    }

    /// Publishes as fast as the window lets it until `measured` is over, then waits for what is owed. `begin`
    /// and `end` are called when counting does.
    ///
    /// # Panics
    ///
    /// If a connection ends, or says something else than PUBACK.
    pub fn publish(&mut self, plan: &Plan, begin: impl FnOnce(), end: impl FnOnce()) -> Outcome {
        let start = Instant::now();
        let micros = |since: Instant| u32::try_from(since.elapsed().as_micros()).expect("an hour at most");
        let (from, to) = (plan.warm_up, plan.warm_up + plan.measured);
        let mut latencies = Vec::with_capacity(1 << 22);
        let (mut counted, mut all) = (0_u64, 0_u64);
        let (mut begin, mut end) = (Some(begin), Some(end));
        let (mut counting_since, mut cpu_before) = (start, Duration::ZERO);
        let (mut elapsed, mut own_cpu) = (Duration::ZERO, Duration::ZERO);
        let mut events = Events::with_capacity(self.all.len().max(64));
        let mut buffer = vec![0; 64 * 1024];
        let now = micros(start);
        for device in &mut self.all {
            device.fill(now, plan.raise_every);
            device.flush();
        }
        loop {
            self.poll.poll(&mut events, Some(PATIENCE)).expect("epoll");
            assert!(!events.is_empty(), "no acknowledgement for {PATIENCE:?}");
            let now = micros(start);
            let at = Duration::from_micros(now.into());
            if at >= from
                && let Some(begin) = begin.take()
            {
                begin();
                (counting_since, cpu_before) = (Instant::now(), thread_cpu());
            }
            if at >= to
                && let Some(end) = end.take()
            {
                (elapsed, own_cpu) = (counting_since.elapsed(), thread_cpu() - cpu_before);
                end();
            }
            let counts = begin.is_none() && end.is_some();
            for event in &events {
                let device = &mut self.all[event.token().0];
                if event.is_readable() {
                    let acknowledged = device.acknowledgements(&mut buffer, |sent_at| {
                        if counts {
                            latencies.push(now.saturating_sub(sent_at));
                        }
                    });
                    all += acknowledged;
                    counted += if counts { acknowledged } else { 0 };
                }
                if end.is_some() {
                    device.fill(now, plan.raise_every);
                }
                device.flush();
            }
            if end.is_none()
                && self
                    .all
                    .iter()
                    .all(|device| device.free.len() == device.sent_at.len() - 1)
            {
                break;
            }
        }
        latencies.sort_unstable();
        Outcome {
            messages: counted,
            all,
            elapsed,
            latencies,
            own_cpu,
        }
    }
}

impl Device {
    fn connect(address: SocketAddr, number: usize, window: usize) -> Self {
        let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let client = format!("device-{number:04}");
        let mut connect = vec![0x10, 0];
        connect.extend_from_slice(b"\0\x04MQTT\x04\x02\0\0");
        text(&mut connect, &client);
        connect[1] = u8::try_from(connect.len() - 2).expect("short");
        stream.write_all(&connect).expect("written");
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).expect("an answer to CONNECT");
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNECT was refused");
        stream.set_nonblocking(true).expect("non-blocking");
        let (usual, id_at) = publish(&client, "21.37");
        let (high, _) = publish(&client, "34.56");
        let window = u16::try_from(window).expect("a packet id");
        Self {
            stream: TcpStream::from_std(stream),
            usual,
            high,
            id_at,
            // Not all raise at once.
            sent: u64::try_from(number).expect("a number") * 37,
            sent_at: vec![0; usize::from(window) + 1],
            free: (1..=window).collect(),
            out: Vec::with_capacity(16 * 1024),
            rest: Vec::new(),
        }
    }

    /// Puts as many publishes into the output as the window has room for.
    fn fill(&mut self, now: u32, raise_every: u64) {
        while let Some(id) = self.free.pop() {
            self.sent += 1;
            let raises = if raise_every == 1 {
                self.sent.is_multiple_of(2)
            } else {
                self.sent.is_multiple_of(raise_every)
            };
            let packet = if raises { &mut self.high } else { &mut self.usual };
            packet[self.id_at..self.id_at + 2].copy_from_slice(&id.to_be_bytes());
            self.out.extend_from_slice(packet);
            self.sent_at[usize::from(id)] = now;
        }
    }

    fn flush(&mut self) {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("could not publish: {error}"),
            }
        }
    }

    /// Takes what was acknowledged; says how many, and when each was sent.
    fn acknowledgements(&mut self, buffer: &mut [u8], mut told: impl FnMut(u32)) -> u64 {
        let mut count = 0;
        loop {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let read = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => panic!("the server closed a connection"),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.rest.extend_from_slice(&buffer[..kept]);
                    return count;
                }
                Err(error) => panic!("could not read: {error}"),
            };
            let room = buffer.len() - kept;
            let mut packets = buffer[..kept + read].chunks_exact(4);
            for packet in packets.by_ref() {
                let [0x40, 2, high, low] = packet else {
                    panic!("not a PUBACK: {packet:?}")
                };
                let id = u16::from_be_bytes([*high, *low]);
                told(self.sent_at[usize::from(id)]);
                self.free.push(id);
                count += 1;
            }
            self.rest.extend_from_slice(packets.remainder());
            if read < room {
                return count;
            }
        }
    }
}

/// A PUBLISH of quality of service 1, and where its packet id stands.
fn publish(client: &str, value: &str) -> (Vec<u8>, usize) {
    let mut packet = vec![0x32, 0];
    text(&mut packet, &format!("thermostats/{client}/state"));
    let id_at = packet.len();
    packet.extend_from_slice(&[0, 0]);
    let mut payload = format!(r#"{{"temp":{value},"humidity":41.5,"battery":98,"fw":""#);
    while payload.len() < PAYLOAD - 2 {
        payload.push('1');
    }
    payload.push_str("\"}");
    assert_eq!(payload.len(), PAYLOAD, "the table says so");
    packet.extend_from_slice(payload.as_bytes());
    packet[1] = u8::try_from(packet.len() - 2).expect("short");
    assert!(packet[1] < 128, "a length of one byte");
    (packet, id_at)
}

fn text(packet: &mut Vec<u8>, text: &str) {
    packet.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
    packet.extend_from_slice(text.as_bytes());
}

fn thread_cpu() -> Duration {
    let read = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        read.tv_sec.try_into().unwrap_or(0),
        read.tv_nsec.try_into().unwrap_or(0),
    )
}
