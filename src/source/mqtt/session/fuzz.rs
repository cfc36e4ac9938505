//! Hostile bytes: seeded mutations of good packets in random pieces. A failure prints its seed.

use bytes::BufMut;

use super::{
    tests::{BOUNDS, connect_bytes, packet, publish_bytes, text},
    *,
};

const PACKETS: usize = 20_000;

fn good(random: &mut fastrand::Rng, version: Version) -> BytesMut {
    let id = random.u16(0..6);
    match random.u8(0..10) {
        0..=3 => publish_bytes(
            version,
            random.u8(0..3),
            id,
            random.choice(["a", "é/x", "日本", "tidegate/x"]).unwrap(),
        ),
        4 => {
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
        5 => packet(0xC0, &[]),
        6 => packet(0xE0, &[]),
        7 => {
            let aliased = [0, 0, 3, 35, 0, random.u8(..20)];
            packet(0x30, &aliased)
        }
        8 => connect_bytes(version, random.u8(..), &[34, 0, 0, 33, 0, random.u8(..2)]),
        _ => {
            let first = *random.choice(&[0x40, 0x50, 0x62, 0x70]).unwrap();
            packet(first, &id.to_be_bytes())
        }
    }
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

/// Performs what a driver would, in a random way.
fn drive(
    random: &mut fastrand::Rng,
    session: &mut Session,
    input: &mut BytesMut,
    tokens: &mut Vec<u64>,
) -> bool {
    let mut open = true;
    while let Some(step) = session.step(input) {
        match step {
            Step::Connect(connect) => {
                assert!(connect.receive_maximum > 0);
                if random.u8(..8) == 0 {
                    session.refuse(reason::NOT_AUTHORISED);
                } else {
                    session.accept(Accepted::default());
                }
            }
            Step::Publish { token, message } => {
                assert!(topics::is_topic(&message.topic) && topics::reserved(&message.topic).is_none());
                tokens.push(token);
            }
            Step::Subscribe { id, filters, .. } => {
                assert!(id > 0);
                let codes: Vec<u8> = filters
                    .iter()
                    .map(|(filter, code)| code.unwrap_or(filter.qos))
                    .collect();
                session.subscribed(id, &codes);
            }
            Step::Unsubscribe { id, filters } => session.unsubscribed(id, &vec![0; filters.len()]),
            Step::Close(_) => open = false,
            Step::Route(_) | Step::Count(_) | Step::Refused { .. } => {}
        }
    }
    if !tokens.is_empty() && random.bool() {
        let token = tokens.swap_remove(random.usize(..tokens.len()));
        let answers = [
            Answer::AfterDurable(Position(random.u64(..100))),
            Answer::OverLimit,
            Answer::Dropped,
        ];
        session.answer(token, *random.choice(&answers).unwrap());
        session.durable(Position(random.u64(..100)));
    }
    while session.step(&mut BytesMut::new()).is_some() {}
    open
}

#[test]
fn no_bytes_panic_and_the_output_stays_bounded() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut packets = 0;
    while packets < PACKETS {
        let version = if random.bool() { Version::V5 } else { Version::V311 };
        let mut session = Session::new(BOUNDS);
        let mut input = connect_bytes(version, 2, &[]);
        let mut tokens = Vec::new();
        for _ in 0..random.u8(1..8) {
            let mut bytes = good(&mut random, version);
            mutate(&mut random, &mut bytes);
            packets += 1;
            while !bytes.is_empty() {
                let piece = bytes.split_to(random.usize(1..=bytes.len()));
                input.extend_from_slice(&piece);
                drive(&mut random, &mut session, &mut input, &mut tokens);
            }
            assert!(session.output().len() <= MAX_UNSENT + 4096);
            if random.bool() {
                session.output().clear();
            }
        }
        drop(session.keep());
    }
}
