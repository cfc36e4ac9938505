//! What the log is told of devices that send what is no reading, and of clients that speak for others.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::*;

/// What was logged on this thread while it is held.
struct Log {
    written: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

struct Line(Arc<Mutex<Vec<u8>>>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn listen() -> Self {
        let written = Arc::new(Mutex::new(Vec::new()));
        let line = Arc::clone(&written);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || Line(Arc::clone(&line)))
            .finish();
        Self {
            written,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The warnings.
    fn lines(&self) -> Vec<String> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&written)
            .lines()
            .filter(|line| line.contains("WARN"))
            .map(str::to_owned)
            .collect()
    }
}

/// A rig whose table is JSON with a time, and one that names no device.
async fn rig() -> Rig {
    let mut settings = settings("127.0.0.1:0".parse().unwrap());
    settings.readings[0].decoder.format = Format::Json;
    settings.readings[0].decoder.time = Some("/at".to_owned());
    settings.readings[0].decoder.metrics[0].at = Some("/temp".to_owned());
    let mut nameless = settings.readings[0].clone();
    nameless.topic = vec![Level::Literal("n".into())];
    settings.readings.push(nameless);
    Rig::open_with(settings, INTAKE_LEN).await
}

fn publish(topic: &str, payload: &str) -> Vec<u8> {
    let body = [
        &[0, u8::try_from(topic.len()).unwrap()],
        topic.as_bytes(),
        payload.as_bytes(),
    ]
    .concat();
    [&[0x30, u8::try_from(body.len()).unwrap()][..], &body].concat()
}

/// Sends it and waits until it was looked at.
async fn say(device: &mut TcpStream, bytes: &[u8]) {
    device.write_all(&[bytes, b"\xC0\0"].concat()).await.unwrap();
    assert_eq!(packet(device).await, [0xD0, 0]);
}

#[tokio::test]
async fn a_payload_that_cannot_be_read_is_said_once_a_device_and_then_counted() {
    let log = Log::listen();
    let rig = rig().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    for payload in ["{", "{\"temp\"", "31.0}", "{"] {
        say(&mut device, &publish("t/boiler/m", payload)).await;
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["device=\"boiler\"", "topic=\"t/boiler/m\"", "not JSON", "format"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    say(&mut device, &publish("t/boiler/m", " ")).await;
    say(&mut device, &publish("t/pump/m", "{")).await;
    say(&mut device, &publish("n", "{\"temp\": 1}")).await;
    let lines = log.lines();
    assert_eq!(lines.len(), 4, "another reason, another device, none: {lines:#?}");
    assert!(
        lines[1].contains("device=\"boiler\"") && lines[1].contains("empty"),
        "{}",
        lines[1]
    );
    assert!(lines[2].contains("device=\"pump\""), "{}", lines[2]);
    assert!(
        lines[3].contains("topic=\"n\"") && lines[3].contains("device"),
        "{}",
        lines[3]
    );
    assert_eq!(rig.counters.undecodable.load(Ordering::Relaxed), 7);
    rig.stop().await;
}

#[tokio::test]
async fn a_time_that_cannot_be_read_is_said_once_and_counted_and_the_reading_taken() {
    let log = Log::listen();
    let mut rig = rig().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    for _ in 0..2 {
        say(&mut device, &publish("t/d/m", r#"{"temp": 31.0, "at": "noon"}"#)).await;
        let delivery = rig.delivery().await;
        assert!(!delivery.readings[0].stamped, "its arrival counts");
        delivery.ticket.answer(Answer::AfterDurable(Position(0)));
    }
    let lines = log.lines();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["device=\"d\"", "topic=\"t/d/m\"", "time"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert_eq!(rig.counters.untimed.load(Ordering::Relaxed), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_thousand_strangers_with_bad_payloads_do_not_fill_the_log() {
    let log = Log::listen();
    let rig = rig().await;
    let mut device = rig.raw(CONNECT_OLD).await;
    packet(&mut device).await;
    for number in 0..1000 {
        say(&mut device, &publish(&format!("t/{number}/m"), "?")).await;
    }
    assert!((1..=20).contains(&log.lines().len()), "{:#?}", log.lines());
    assert_eq!(rig.counters.undecodable.load(Ordering::Relaxed), 1000);
    rig.stop().await;
}

#[tokio::test]
async fn whoever_speaks_for_the_gateway_or_a_server_is_refused_and_the_log_says_why() {
    for (topic, said) in [
        ("tidegate", "the gateway's own"),
        ("tidegate/g/status", "the gateway's own"),
        ("$SYS/broker/uptime", "begins with $"),
    ] {
        let log = Log::listen();
        let rig = rig().await;
        let mut old = rig.raw(CONNECT_OLD).await;
        packet(&mut old).await;
        old.write_all(&publish(topic, "x")).await.unwrap();
        assert!(
            packet(&mut old).await.is_empty(),
            "{topic}: 3.1.1 knows no refusal"
        );
        let mut new = rig.raw(CONNECT_NEW).await;
        packet(&mut new).await;
        let mut asking = publish(topic, "");
        asking[0] = 0x32;
        asking[1] += 3;
        asking.extend_from_slice(&[0, 9, 0]);
        new.write_all(&asking).await.unwrap();
        assert_eq!(packet(&mut new).await, [0x40, 3, 0, 9, 0x87], "{topic}");
        let lines = log.lines();
        let named = format!("topic=\"{topic}\"");
        let refusals = lines
            .iter()
            .filter(|line| line.contains(&named) && line.contains(said));
        assert_eq!(refusals.count(), 1, "{topic}: {lines:#?}");
        rig.stop().await;
    }
}
