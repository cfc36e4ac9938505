//! Honest and hostile bytes against the promises. The seeds are fixed, and a failure prints its own.
//!
//! All that is fed is decoded a second time beside the session, so that what it sends can be checked against
//! what it was asked: each publish answered once and in order, nothing acknowledged or handed on before the
//! disk has it, and nothing acknowledged after the end. What it keeps stays within its bounds.

use bytes::{BufMut, Bytes};

use super::{
    tests::{BOUNDS, connect_bytes, packet, text},
    *,
};

/// Packets of one seed: what a failure takes to find again.
const OF_ONE_SEED: usize = 10_000;

/// A publish that wants an acknowledgement.
struct Asked {
    id: u16,
    qos: u8,
    topic: String,
    payload: Bytes,
    /// The same id came before: it may be a duplicate.
    again: bool,
    /// The session asked what it means, or went on to the next.
    passed: bool,
    token: Option<u64>,
}

/// What was said of a publish.
#[derive(Clone, Copy, Debug)]
enum Said {
    After(u64),
    Failed,
    Never,
}

/// A session and what is known of it from outside.
struct Watched {
    session: Session,
    input: BytesMut,
    beside: BytesMut,
    version: Option<Version>,
    readable: bool,
    accepted: bool,
    over: bool,
    durable: u64,
    seen: HashSet<u16>,
    /// Not acknowledged.
    asked: VecDeque<Asked>,
    /// Not handed on.
    unrouted: VecDeque<(u64, Arc<Message>)>,
    unanswered: Vec<(u64, u8)>,
    said: HashMap<u64, Said>,
}

impl Watched {
    fn new() -> Self {
        Self {
            session: Session::new(BOUNDS),
            input: BytesMut::new(),
            beside: BytesMut::new(),
            version: None,
            readable: true,
            accepted: false,
            over: false,
            durable: 0,
            seen: HashSet::new(),
            asked: VecDeque::new(),
            unrouted: VecDeque::new(),
            unanswered: Vec::new(),
            said: HashMap::new(),
        }
    }

    fn feed(&mut self, random: &mut fastrand::Rng, bytes: &[u8]) {
        self.beside.extend_from_slice(bytes);
        self.note_what_is_asked();
        self.input.extend_from_slice(bytes);
        self.drive(random);
    }

    fn note_what_is_asked(&mut self) {
        while self.readable {
            match wire::decode(&mut self.beside, self.version, BOUNDS.max_packet) {
                Ok(None) => return,
                Err(_) => self.readable = false,
                Ok(Some(Packet::Connect(connect))) => {
                    self.readable = self.version.is_none();
                    self.version = Some(connect.version);
                }
                Ok(Some(Packet::Publish(publish))) if publish.qos > 0 => self.asked.push_back(Asked {
                    id: publish.id,
                    qos: publish.qos,
                    again: !self.seen.insert(publish.id),
                    passed: false,
                    token: None,
                    payload: publish.payload,
                    topic: publish.topic,
                }),
                Ok(Some(_)) => {}
            }
        }
    }

    /// Performs what a driver would, in a random way, and checks all that comes of it.
    fn drive(&mut self, random: &mut fastrand::Rng) {
        for turn in 0.. {
            assert!(turn < 10_000, "it does not come to an end");
            let mut nothing = BytesMut::new();
            let input = if self.over { &mut nothing } else { &mut self.input };
            let Some(step) = self.session.step(input) else {
                break;
            };
            self.perform(random, step);
            self.check_output();
        }
        self.check_output();
        self.check_bounds();
    }

    fn perform(&mut self, random: &mut fastrand::Rng, step: Step) {
        match step {
            Step::Connect(connect) => {
                assert!(connect.receive_maximum > 0);
                if random.u8(..16) == 0 {
                    self.session.refuse(reason::NOT_AUTHORISED);
                } else {
                    self.accepted = true;
                    self.session.accept(Accepted::default());
                }
            }
            Step::Publish { token, message } => {
                assert!(!self.over && self.accepted);
                assert!(topics::is_topic(&message.topic) && topics::reserved(&message.topic).is_none());
                if message.qos > 0 {
                    self.note_token(token, &message);
                }
                self.unanswered.push((token, message.qos));
                self.unrouted.push_back((token, message));
            }
            Step::Route(message) => self.check_routed(&message),
            Step::Subscribe { id, filters, .. } => {
                assert!(id > 0);
                let codes: Vec<u8> = filters
                    .iter()
                    .map(|(filter, code)| code.unwrap_or(filter.qos))
                    .collect();
                self.session.subscribed(id, &codes);
            }
            Step::Unsubscribe { id, filters } => self.session.unsubscribed(id, &vec![0; filters.len()]),
            Step::Close(_) => self.over = true,
            Step::Refused { topic, .. } => assert!(topics::reserved(&topic).is_some()),
            Step::Count(_) => {}
        }
    }

    /// Which of the publishes the session asks about; those before it that it did not ask about were
    /// duplicates, or not the client's to publish.
    fn note_token(&mut self, token: u64, message: &Message) {
        for asked in self.asked.iter_mut().filter(|asked| !asked.passed) {
            asked.passed = true;
            if asked.qos == message.qos && asked.payload == message.payload {
                asked.token = Some(token);
                return;
            }
            assert!(asked.needs_no_evaluation(), "{} was passed over", asked.id);
        }
        panic!("a publish that nobody sent: {message:?}");
    }

    fn check_routed(&mut self, message: &Arc<Message>) {
        while let Some((token, asked)) = self.unrouted.pop_front() {
            if !Arc::ptr_eq(&asked, message) {
                continue;
            }
            let qos = message.qos;
            assert!(qos == 0 || !self.over, "handed on and never acknowledged");
            match self.said.get(&token) {
                Some(Said::After(position)) => {
                    assert!(*position <= self.durable, "handed on before the disk");
                }
                Some(Said::Failed) => assert!(qos == 0 || self.version == Some(Version::V311)),
                other => panic!("handed on after {other:?}"),
            }
            return;
        }
        panic!("handed on twice, or out of order: {message:?}");
    }

    fn check_output(&mut self) {
        let mut sent = self.session.output().split();
        while let [first, length, ..] = *sent {
            assert!(length < 128, "no packet here is longer");
            let one = sent.split_to(2 + usize::from(length));
            if let (0x40 | 0x50, [_, _, high, low, rest @ ..]) = (first, &*one) {
                let why = rest.first().copied().unwrap_or_default();
                self.check_acknowledged(first, u16::from_be_bytes([*high, *low]), why);
            }
        }
    }

    fn check_acknowledged(&mut self, first: u8, id: u16, why: u8) {
        let asked = self.asked.pop_front().expect("acknowledged and never asked");
        let expected = if asked.qos == 1 { 0x40 } else { 0x50 };
        assert_eq!((first, id), (expected, asked.id), "out of order");
        let Some(token) = asked.token else {
            assert!(asked.needs_no_evaluation(), "{id} was acknowledged unseen");
            return;
        };
        match self.said.get(&token) {
            Some(Said::After(position)) => {
                assert_eq!(why, reason::SUCCESS);
                assert!(*position <= self.durable, "acknowledged before the disk");
            }
            Some(Said::Failed) => assert_eq!(why >= 0x80, self.version == Some(Version::V5)),
            other => panic!("acknowledged after {other:?}"),
        }
    }

    fn check_bounds(&self) {
        let window = usize::from(BOUNDS.max_inflight);
        let longest = if self.version == Some(Version::V311) {
            window
        } else {
            2 * window
        };
        let session = &self.session;
        assert!(session.gate.len() <= longest);
        assert!(session.gate.acknowledgements() <= window);
        assert!(session.gate.bytes() <= MAX_GATED_BYTES + BOUNDS.max_packet);
        assert!(session.outgoing.len() <= window);
        assert!(session.received.len() <= MAX_UNRELEASED);
        assert!(session.aliases.len() <= TOPIC_ALIASES.into());
        assert!(session.steps.is_empty());
    }

    fn answer(&mut self, random: &mut fastrand::Rng, well: bool) {
        if self.unanswered.is_empty() {
            return;
        }
        let (token, qos) = self.unanswered.swap_remove(random.usize(..self.unanswered.len()));
        let position = self.durable + random.u64(..20);
        let version_5 = self.version == Some(Version::V5);
        let said = match random.u8(..32) {
            _ if well => Said::After(position),
            0 => Said::Never,
            1..=4 => Said::Failed,
            _ => Said::After(position),
        };
        self.said.insert(token, said);
        match said {
            Said::After(position) => self
                .session
                .answer(token, Answer::AfterDurable(Position(position))),
            Said::Never => self.session.answer(token, Answer::Dropped),
            Said::Failed => match random.u8(..3) {
                0 => self.session.answer(token, Answer::OverLimit),
                1 if version_5 || qos == 0 => self.session.turn_away(token, reason::QUOTA),
                _ => self.session.fail(token, reason::PAYLOAD_FORMAT),
            },
        }
        self.drive(random);
    }

    fn move_durable(&mut self, random: &mut fastrand::Rng, by: u64) {
        self.durable += by;
        self.session.durable(Position(self.durable));
        self.drive(random);
    }

    fn deliver(&mut self, random: &mut fastrand::Rng) {
        if self.session.can_deliver() {
            let qos = random.u8(..3);
            let message = Message {
                topic: "out".into(),
                payload: Bytes::from_static(b"x"),
                qos,
                retain: false,
                properties: None,
            };
            let arrival = Arrival {
                message: Arc::new(message),
                qos,
                retain: false,
                identifiers: Vec::new(),
                until: None,
            };
            self.session.deliver(arrival, None);
            self.drive(random);
        }
    }

    /// Answers all; what is still asked on a connection that goes on has no excuse. Then the end.
    fn finish(mut self, random: &mut fastrand::Rng) {
        if random.bool() {
            self.settle(random);
            let goes_on = self.accepted && !self.over;
            assert!(
                !goes_on || self.asked.is_empty(),
                "{} never answered",
                self.asked.len()
            );
        }
        self.over = true;
        self.session.gone();
        self.settle(random);
        assert!(!self.session.owes(), "something outlives its answer");
        let kept = self.session.keep();
        for asked in self.asked.iter().filter(|asked| asked.qos == 2 && !asked.again) {
            assert!(
                !kept.received.contains(&asked.id),
                "{} was not answered",
                asked.id
            );
        }
    }

    fn settle(&mut self, random: &mut fastrand::Rng) {
        for turn in 0.. {
            assert!(turn < 10_000, "it never settles");
            self.answer(random, true);
            // No answer is further ahead. It makes room, so more may be asked.
            self.move_durable(random, 20);
            if self.unanswered.is_empty() {
                break;
            }
        }
    }
}

impl Asked {
    fn needs_no_evaluation(&self) -> bool {
        let duplicate = self.qos == 2 && self.again;
        // Behind an alias may stand any topic.
        duplicate || self.topic.is_empty() || topics::reserved(&self.topic).is_some()
    }
}

fn connect(random: &mut fastrand::Rng, version: Version) -> BytesMut {
    let properties: &[u8] = match random.u8(..8) {
        0 => &[33, 0, 0],
        1 => &[33, 0, 2, 34, 0, 0],
        2 => &[39, 0, 0, 0, 20],
        3 => &[17, 255, 255, 255, 255],
        _ => &[],
    };
    connect_bytes(version, 2, properties)
}

fn any_packet(random: &mut fastrand::Rng, version: Version, number: usize) -> BytesMut {
    let id = random.u16(0..8);
    match random.u8(..32) {
        0..=19 => publish(random, version, id.max(1), number),
        20 | 21 => {
            let mut body = BytesMut::new();
            body.put_u16(id);
            if version == Version::V5 {
                body.put_slice(&[2, 11, random.u8(..)]);
            }
            text(
                &mut body,
                random.choice(["a/+", "#", "$share/g/t", "a/#/b"]).unwrap(),
            );
            body.put_u8(random.u8(..4));
            packet(0x82, &body)
        }
        22..=24 => packet(0xC0, &[]),
        25 if random.u8(..8) == 0 => packet(0xE0, &[]),
        26 if random.u8(..8) == 0 => connect(random, version),
        _ => {
            let first = *random.choice(&[0x40, 0x50, 0x62, 0x62, 0x62, 0x70]).unwrap();
            packet(first, &id.max(1).to_be_bytes())
        }
    }
}

fn publish(random: &mut fastrand::Rng, version: Version, id: u16, number: usize) -> BytesMut {
    let qos = random.u8(..3);
    let mut body = BytesMut::new();
    let topics = ["a", "é/x", "日本", "a", "b", "c", "tidegate/x", "$SYS/x", ""];
    let topic = if version == Version::V5 {
        *random.choice(&topics).unwrap()
    } else {
        *random.choice(&topics[..6]).unwrap()
    };
    text(&mut body, topic);
    if qos > 0 {
        body.put_u16(id);
    }
    if version == Version::V5 {
        match random.u8(..4) {
            0 => body.put_slice(&[3, 35, 0, random.u8(1..18)]),
            _ => body.put_u8(0),
        }
    }
    // Tells it from all others.
    body.put_slice(number.to_string().as_bytes());
    let dup = if qos > 0 { random.u8(..2) << 3 } else { 0 };
    packet(0x30 | qos << 1 | dup, &body)
}

fn mutate(random: &mut fastrand::Rng, bytes: &mut BytesMut) {
    for _ in 0..random.u8(0..3) {
        let at = random.usize(0..bytes.len().max(1));
        match random.u8(0..4) {
            0 => bytes
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte = random.u8(..)),
            1 => bytes
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte ^= 1 << random.u8(..8)),
            2 => bytes.truncate(at.max(1)),
            _ => bytes.put_u8(random.u8(..)),
        }
    }
}

/// One connection; returns how many packets it was sent.
fn connection(random: &mut fastrand::Rng) -> usize {
    let version = if random.bool() { Version::V5 } else { Version::V311 };
    let hostile = random.bool();
    let mut watched = Watched::new();
    let mut first = connect(random, version);
    if random.u8(..8) == 0 {
        mutate(random, &mut first);
    }
    watched.feed(random, &first);
    let mut sent = 0;
    for number in 0..random.usize(1..if hostile { 8 } else { 100 }) {
        sent += 1;
        let mut bytes = any_packet(random, version, number);
        if hostile {
            mutate(random, &mut bytes);
        }
        while !bytes.is_empty() {
            let piece = bytes.split_to(random.usize(1..=bytes.len()));
            watched.feed(random, &piece);
        }
        for _ in 0..random.u8(..3) {
            watched.answer(random, false);
        }
        if random.bool() {
            let by = random.u64(..30);
            watched.move_durable(random, by);
        }
        if random.u8(..4) == 0 {
            watched.deliver(random);
        }
        if watched.over {
            break;
        }
    }
    watched.finish(random);
    sent
}

#[test]
fn whatever_is_sent_each_publish_is_answered_once_in_order_and_after_the_disk() {
    let packets = if std::env::var_os("TIDEGATE_LONG").is_some() {
        5_000_000
    } else {
        200_000
    };
    for seed in 0..packets / OF_ONE_SEED {
        // Shown only if it fails.
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(u64::try_from(seed).unwrap());
        let mut sent = 0;
        while sent < OF_ONE_SEED {
            sent += connection(&mut random);
        }
    }
}
