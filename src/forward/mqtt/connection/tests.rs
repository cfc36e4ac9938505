//! The connection over a pipe whose other end the test holds.

use std::collections::VecDeque;

use rumqttc::v5::mqttbytes::v5::Packet;
use tokio::{
    io::{AsyncReadExt, DuplexStream, duplex},
    time::timeout,
};

use super::*;

fn plan() -> Plan {
    Plan {
        host: "localhost".to_owned(),
        port: 1883,
        version: Version::V5,
        client_id: "gw".to_owned(),
        login: None,
        tls: None,
        will: None,
    }
}

fn message(bytes: usize) -> Message {
    Message {
        content_type: "application/json",
        attributes: Vec::new(),
        payload: vec![b'x'; bytes],
    }
}

/// A connection that is up, and the broker's end of it, CONNECT read.
async fn up(connack: &[u8], room: usize) -> (Connection, DuplexStream) {
    let (ours, mut theirs) = duplex(room);
    theirs.write_all(connack).await.unwrap();
    let (connection, _) = Connection::greet(&plan(), Box::new(ours)).await.unwrap();
    let mut connect = [0; 256];
    assert!(theirs.read(&mut connect).await.unwrap() > 0);
    (connection, theirs)
}

const CONNACK: [u8; 5] = [0x20, 3, 0, 0, 0];

#[tokio::test]
async fn what_is_cancelled_half_written_goes_on_where_it_was() {
    let (mut connection, mut theirs) = up(&CONNACK, 64).await;
    let sent: Vec<u16> = (0..10)
        .map(|number| connection.publish("events", &message(100 * number), false))
        .collect();
    assert_eq!(sent, (1..=10).collect::<Vec<_>>());
    let mut received = BytesMut::new();
    let mut ids = Vec::new();
    while ids.len() < 10 {
        // Cancelled whenever the pipe is full, which is in the middle of a packet.
        tokio::select! {
            biased;
            signal = connection.next() => panic!("{signal:?}"),
            () = std::future::ready(()) => {}
        }
        theirs.read_buf(&mut received).await.unwrap();
        while let Ok(Packet::Publish(publish)) = Packet::read(&mut received, None) {
            assert_eq!(publish.payload.len(), 100 * (usize::from(publish.pkid) - 1));
            ids.push(publish.pkid);
        }
    }
    assert_eq!((ids, received.len()), (sent, 0));
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_answers_pings_keeps_the_connection_and_a_silent_one_loses_it() {
    let (mut connection, mut theirs) = up(&CONNACK, 64).await;
    let begun = Instant::now();
    let mut ping = [0; 2];
    for _ in 0..3 {
        let read = tokio::select! {
            signal = connection.next() => panic!("{signal:?}"),
            read = theirs.read_exact(&mut ping) => read,
        };
        assert_eq!((read.unwrap(), ping), (2, wire::PINGREQ));
        theirs.write_all(&[0xD0, 0]).await.unwrap();
    }
    assert_eq!(begun.elapsed().as_secs(), 90);
    let lost = Signal::Lost("the broker no longer answers pings".to_owned());
    assert_eq!(connection.next().await, lost);
    assert_eq!(begun.elapsed().as_secs(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_wants_to_hear_of_us_more_often_does_and_has_ten_seconds_to_answer() {
    let (mut connection, mut theirs) = up(&[0x20, 6, 0, 0, 3, 0x13, 0, 2], 64).await;
    let begun = Instant::now();
    assert!(matches!(connection.next().await, Signal::Lost(why) if why.contains("pings")));
    assert_eq!(begun.elapsed().as_secs(), 12);
    let mut pings = [0; 10];
    theirs.read_exact(&mut pings).await.unwrap();
    assert_eq!(pings, [0xC0, 0].repeat(5)[..]);
}

#[tokio::test]
async fn a_broker_that_only_chatters_is_left() {
    let (mut connection, mut theirs) = up(&CONNACK, 4096).await;
    theirs.write_all(&[0xD0, 0].repeat(1000)).await.unwrap();
    theirs.write_all(&[0x40, 2, 0, 7]).await.unwrap();
    let answered = Signal::Answered { pkid: 7, reason: 0 };
    assert_eq!(connection.next().await, answered, "as much is borne");
    theirs.write_all(&[0xD0, 0].repeat(1001)).await.unwrap();
    assert!(matches!(connection.next().await, Signal::Lost(why) if why.contains("nobody asked for")));
}

#[tokio::test]
async fn room_for_a_large_event_is_given_back() {
    let (mut connection, mut theirs) = up(&CONNACK, 4096).await;
    connection.publish("events", &message(1_000_000), false);
    let mut received = vec![0; 1_000_000];
    tokio::select! {
        signal = connection.next() => panic!("{signal:?}"),
        read = theirs.read_exact(&mut received) => assert_eq!(read.unwrap(), 1_000_000),
    }
    // The rest of it, and the flush behind it.
    let quiet = timeout(Duration::from_millis(10), connection.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(!connection.pipe.out.try_reclaim(KEPT + 1));
}

#[tokio::test]
async fn room_for_a_large_packet_that_nobody_asked_for_is_given_back() {
    let (mut connection, mut theirs) = up(&CONNACK, 4096).await;
    connection.publish("events", &message(1), false);
    // A publish at QoS 0 to the topic "a", of 3 + 1,000,000 bytes.
    let mut large = vec![0x30, 0xC3, 0x84, 0x3D, 0, 1, b'a'];
    large.resize(5 + 1_000_000 + 2, 0);
    large.extend_from_slice(&[0x40, 2, 0, 1]);
    let (signal, sent) = tokio::join!(connection.next(), theirs.write_all(&large));
    sent.unwrap();
    assert_eq!(signal, Signal::Answered { pkid: 1, reason: 0 });
    let quiet = timeout(Duration::from_millis(10), connection.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(!connection.pipe.input.try_reclaim(KEPT + 1));
}

#[tokio::test]
async fn a_disconnect_instead_of_connack_is_told() {
    let (ours, mut theirs) = duplex(64);
    theirs.write_all(&[0xE0, 1, 0x8B]).await.unwrap();
    let refused = Connection::greet(&plan(), Box::new(ours)).await.unwrap_err();
    assert_eq!(refused, "the broker disconnected us: server shutting down (0x8b)");
}

/// Takes nothing more, and says what it had to say before that a little later.
struct Cut(VecDeque<Option<&'static [u8]>>);

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.0.pop_front() {
            Some(Some(bytes)) => into.put_slice(bytes),
            Some(None) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            None => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Cut {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_the_broker_said_before_it_cut_us_is_heard_though_nothing_can_be_written() {
    let (mut connection, _theirs) = up(&CONNACK, 64).await;
    let said = [None, Some(&[0x40, 2, 0, 1][..]), None, Some(&[0xE0, 1, 0x95][..])];
    connection.pipe = Pipe::new(Box::new(Cut(said.into())));
    connection.publish("events", &message(10), false);
    let answered = Signal::Answered { pkid: 1, reason: 0 };
    assert_eq!(connection.next().await, answered);
    assert_eq!(connection.next().await, Signal::Poisoned(0x95));
    assert_eq!(connection.next().await, Signal::Lost("broken pipe".to_owned()));
}
