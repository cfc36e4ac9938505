//! One blocking MQTT 3.1.1 connection: to publish what a load of many devices cannot, and to see what arrives.

use std::{
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// What no answer may keep us waiting.
const PATIENCE: Duration = Duration::from_secs(60);
/// Publishes on their way: fewer than the door lets a device have.
const WINDOW: usize = 50;

/// A connection; clean session, no keep-alive.
pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    /// # Panics
    ///
    /// If it is refused.
    #[must_use]
    pub fn connect(address: SocketAddr, id: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let reader = BufReader::with_capacity(1 << 18, stream.try_clone().expect("a descriptor"));
        let mut client = Self { stream, reader };
        let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
        text(&mut body, id);
        client.send(&packet(0x10, &body));
        assert_eq!(client.receive(), (0x20, vec![0, 0]), "CONNECT was refused");
        client
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &str) {
        self.publish_all([(topic, payload)].into_iter());
    }

    /// Publishes all at QoS 1, a window at a time; all are acknowledged when it returns.
    ///
    /// # Panics
    ///
    /// If something else is answered.
    pub fn publish_all<'m>(&mut self, messages: impl Iterator<Item = (&'m str, &'m str)>) {
        let mut messages = messages.peekable();
        while messages.peek().is_some() {
            let mut out = Vec::new();
            let mut sent: u16 = 0;
            for (topic, payload) in messages.by_ref().take(WINDOW) {
                sent += 1;
                let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
                text(&mut body, topic);
                body.extend_from_slice(&sent.to_be_bytes());
                body.extend_from_slice(payload.as_bytes());
                out.extend(packet(0x32, &body));
            }
            self.send(&out);
            for _ in 0..sent {
                assert_eq!(self.receive().0, 0x40, "not a PUBACK");
            }
        }
    }

    /// Subscribes at QoS 0.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1];
        text(&mut body, filter);
        body.push(0);
        self.send(&packet(0x82, &body));
        assert_eq!(self.receive(), (0x90, vec![0, 1, 0]), "SUBSCRIBE was refused");
    }

    /// The next message of a subscription: topic and payload.
    ///
    /// # Panics
    ///
    /// If none comes for a minute.
    pub fn message(&mut self) -> (String, Vec<u8>) {
        let (kind, mut body) = self.receive();
        assert_eq!(kind & 0xf6, 0x30, "not a PUBLISH of quality of service 0");
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let payload = body.split_off(2 + length);
        let topic = String::from_utf8(body.split_off(2)).expect("a topic is UTF-8");
        (topic, payload)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    /// First byte and body of a packet.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let mut byte = [0];
        let mut read = |reader: &mut BufReader<TcpStream>| {
            reader.read_exact(&mut byte).expect("the server says something");
            byte[0]
        };
        let kind = read(&mut self.reader);
        let (mut length, mut shift) = (0, 0);
        loop {
            let digit = read(&mut self.reader);
            length |= usize::from(digit & 0x7f) << shift;
            shift += 7;
            if digit < 0x80 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).expect("a whole packet");
        (kind, body)
    }
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).expect("seven bits");
        rest /= 128;
        packet.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(&u16::try_from(text.len()).expect("short").to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}
