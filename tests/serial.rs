//! A serial line against a pseudo terminal: the real driver layer, unplugged and plugged in again.

#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tidegate::{
    decode::{Decoder, Format, MetricPlan},
    reading::{DeviceId, Metric, Value},
    source::{
        Delivery, Stamps,
        serial::{Counters, Link, Poll, Serial, Settings},
    },
    time::Clock,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_serial::{SerialPort, SerialStream};
use tokio_util::sync::CancellationToken;

/// Longer than any of these takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// An adapter's other end, and the path that leads to it while it is plugged in.
struct Adapter {
    wire: BufReader<SerialStream>,
    path: PathBuf,
}

impl Adapter {
    fn plug_in(path: &Path) -> Self {
        let (wire, inside) = SerialStream::pair().expect("a pty");
        let name = inside.name().expect("the pty has a path");
        std::os::unix::fs::symlink(name, path).expect("the link is free");
        Self {
            wire: BufReader::new(wire),
            path: path.to_owned(),
        }
    }

    fn unplug(self) {
        std::fs::remove_file(&self.path).expect("the link is there");
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.wire.write_all(bytes).await.expect("the wire takes bytes");
    }

    async fn heard(&mut self) -> String {
        let mut line = String::new();
        timeout(DEADLINE, self.wire.read_line(&mut line))
            .await
            .expect("in time")
            .expect("the wire is read");
        line
    }
}

/// A running line and the engine's end of it.
struct Line {
    port: PathBuf,
    counters: Arc<Counters>,
    settings: watch::Sender<Settings>,
    intake: mpsc::Receiver<Delivery>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Line {
    fn start(intake_len: usize, change: impl FnOnce(&mut Settings)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = directory.path().join("adapter");
        let mut settings = Settings {
            name: "boiler".into(),
            port: port.clone(),
            baud: 9600,
            data_bits: tokio_serial::DataBits::Eight,
            parity: tokio_serial::Parity::None,
            stop_bits: tokio_serial::StopBits::One,
            flow_control: tokio_serial::FlowControl::None,
            max_frame: 32,
            decoder: numbers(),
            device: DeviceId::new("boiler").ok(),
            renamed: HashMap::new(),
            polls: Vec::new(),
        };
        change(&mut settings);
        let counters = Arc::new(Counters::default());
        let stamps = Arc::new(Stamps::new(Clock::system(), Duration::from_secs(600)));
        let (sender, intake) = mpsc::channel(intake_len);
        let stop = CancellationToken::new();
        let (settings, changes) = watch::channel(settings);
        let serial = Serial::new(changes, sender, stamps, Arc::clone(&counters));
        let mut tasks = JoinSet::new();
        tasks.spawn(serial.run(stop.clone()));
        Self {
            port,
            counters,
            settings,
            intake,
            stop,
            tasks,
            _directory: directory,
        }
    }

    async fn until(&self, wanted: impl Fn(&Link) -> bool) -> Link {
        let mut link = self.counters.link.subscribe();
        let found = timeout(DEADLINE, link.wait_for(wanted))
            .await
            .expect("the link changes in time");
        found.expect("the counters are here").clone()
    }

    async fn up(&self) {
        self.until(|link| *link == Link::Up).await;
    }

    async fn lost(&self) -> String {
        match self.until(|link| matches!(link, Link::Lost(_))).await {
            Link::Lost(reason) => reason,
            other => panic!("not lost: {other:?}"),
        }
    }

    /// The next reading: whose it is, of what, and how much.
    async fn reading(&mut self) -> (String, String, f64) {
        let delivery = timeout(DEADLINE, self.intake.recv())
            .await
            .expect("in time")
            .expect("the line runs");
        let [reading] = delivery.readings.as_slice() else {
            panic!("one reading: {delivery:?}")
        };
        let Value::Number(number) = reading.value else {
            panic!("a number: {reading:?}")
        };
        (reading.device.to_string(), reading.metric.to_string(), number)
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.tasks.join_next())
            .await
            .expect("it stops in time");
        ended.expect("it ran").expect("it did not panic");
    }
}

fn numbers() -> Decoder {
    Decoder {
        format: Format::Number,
        time: None,
        device_at: None,
        metrics: vec![MetricPlan {
            name: Metric::new("temperature").expect("a name"),
            at: None,
            unit: None,
            scale: 1.0,
            offset: 0.0,
            ignore: Vec::new(),
            valid: None,
        }],
    }
}

fn of(device: &str, number: f64) -> (String, String, f64) {
    (device.to_owned(), "temperature".to_owned(), number)
}

#[tokio::test]
async fn new_settings_apply_to_the_open_port_and_only_other_parameters_open_it_anew() {
    let mut line = Line::start(16, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"1.5\n").await;
    assert_eq!(line.reading().await, of("boiler", 1.5));
    let mut link = line.counters.link.subscribe();
    line.settings.send_modify(|settings| {
        settings.device = DeviceId::new("kettle").ok();
        for metric in &mut settings.decoder.metrics {
            metric.scale = 2.0;
        }
    });
    adapter.send(b"2.0\n").await;
    assert_eq!(line.reading().await, of("kettle", 4.0));
    assert!(
        !link.has_changed().expect("the line runs"),
        "the port stayed open"
    );

    line.settings.send_modify(|settings| settings.baud = 19_200);
    timeout(DEADLINE, link.changed())
        .await
        .expect("it is opened anew in time")
        .expect("the line runs");
    assert_eq!(*link.borrow(), Link::Up);
    line.stop().await;
}

#[tokio::test]
async fn lines_become_readings_of_the_line_s_device() {
    let mut line = Line::start(16, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"21.5\r\n2").await;
    adapter.send(b"2.5\n").await;
    assert_eq!(line.reading().await, of("boiler", 21.5));
    assert_eq!(line.reading().await, of("boiler", 22.5));
    assert_eq!(line.counters.frames.load(Relaxed), 2);
    line.stop().await;
}

#[tokio::test]
async fn an_unplugged_adapter_is_told_and_read_again_when_it_is_back() {
    let mut line = Line::start(16, |_| {});
    let adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.unplug();
    let reason = line.lost().await;
    assert!(reason.contains("was the adapter unplugged?"), "{reason}");
    line.until(|link| matches!(link, Link::Lost(reason) if reason.contains("no such file")))
        .await;

    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"19\n").await;
    assert_eq!(line.reading().await, of("boiler", 19.0));
    assert_eq!(line.counters.reopens.load(Relaxed), 1);
    line.stop().await;
}

#[tokio::test]
async fn a_port_that_was_never_there_says_what_to_do() {
    let line = Line::start(16, |_| {});
    let reason = line.lost().await;
    let expected = format!(
        "could not open {}: no such file (is the adapter plugged in?)",
        line.port.display()
    );
    assert_eq!(reason, expected);
    line.stop().await;
}

#[tokio::test]
async fn a_file_that_is_no_serial_line_says_so() {
    let line = Line::start(16, |settings| settings.port = "/dev/null".into());
    let reason = line.lost().await;
    assert!(reason.ends_with("it is no serial line"), "{reason}");
    line.stop().await;
}

#[tokio::test]
async fn half_a_line_before_a_loss_is_not_joined_to_what_comes_after() {
    let mut line = Line::start(16, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"1\n4").await;
    assert_eq!(line.reading().await, of("boiler", 1.0));
    adapter.unplug();
    line.lost().await;
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"2\n").await;
    assert_eq!(line.reading().await, of("boiler", 2.0));
    line.stop().await;
}

#[tokio::test]
async fn the_end_of_a_frame_whose_beginning_was_missed_is_no_reading() {
    let mut line = Line::start(16, |_| {});
    let directory = tempfile::tempdir().expect("a directory");
    // The bytes are there before the port is.
    let mut adapter = Adapter::plug_in(&directory.path().join("elsewhere"));
    adapter.send(b"3.5\n103.5\n").await;
    std::os::unix::fs::symlink(&adapter.path, &line.port).expect("the link is free");
    assert_eq!(line.reading().await, of("boiler", 103.5));
    assert_eq!(line.counters.dropped_bytes.load(Relaxed), 3);
    line.stop().await;
}

#[tokio::test]
async fn an_oversized_frame_and_noise_are_counted_and_the_next_frame_is_read() {
    let mut line = Line::start(16, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(&[b'7'; 100]).await;
    adapter.send(b"\n\0\xff\xfe\n23\n").await;
    assert_eq!(line.reading().await, of("boiler", 23.0));
    assert_eq!(line.counters.oversized.load(Relaxed), 1);
    assert_eq!(line.counters.dropped_bytes.load(Relaxed), 100);
    assert_eq!(line.counters.rejected.load(Relaxed), 1);
    line.stop().await;
}

#[tokio::test]
async fn a_poll_is_asked_and_its_answer_is_its_device_s() {
    let poll = |device: &str| Poll {
        send: format!("READ {device}\r\n").into_bytes(),
        every: Duration::from_millis(50),
        device: DeviceId::new(device).ok(),
        timeout: DEADLINE,
    };
    let mut line = Line::start(16, |settings| {
        settings.polls = vec![poll("one"), poll("two")];
        settings.renamed = HashMap::from([("two".into(), DeviceId::new("flat-2").expect("a name"))]);
    });
    let mut adapter = Adapter::plug_in(&line.port);
    for _ in 0..2 {
        assert_eq!(adapter.heard().await, "READ one\r\n");
        adapter.send(b"1\r\n").await;
        assert_eq!(line.reading().await, of("one", 1.0));
        assert_eq!(adapter.heard().await, "READ two\r\n");
        // A two-wire line hears itself.
        adapter.send(b"READ two\r\n2\r\n").await;
        assert_eq!(line.reading().await, of("flat-2", 2.0));
    }
    line.stop().await;
}

#[tokio::test]
async fn a_poll_without_an_answer_is_counted_and_asked_again() {
    let mut line = Line::start(16, |settings| {
        settings.polls = vec![Poll {
            send: b"?\n".to_vec(),
            every: Duration::from_millis(20),
            device: None,
            timeout: Duration::from_millis(20),
        }];
    });
    let mut adapter = Adapter::plug_in(&line.port);
    assert_eq!(adapter.heard().await, "?\n");
    assert_eq!(adapter.heard().await, "?\n");
    assert!(line.counters.unanswered.load(Relaxed) >= 1);
    adapter.send(b"5\n").await;
    assert_eq!(line.reading().await, of("boiler", 5.0));
    line.stop().await;
}

#[tokio::test]
async fn a_prompt_without_a_newline_does_not_spoil_the_next_answer() {
    let mut line = Line::start(16, |settings| {
        settings.polls = vec![Poll {
            send: b"?\n".to_vec(),
            every: Duration::from_millis(200),
            device: None,
            timeout: DEADLINE,
        }];
    });
    let mut adapter = Adapter::plug_in(&line.port);
    for number in [1.0, 2.0, 3.0] {
        assert_eq!(adapter.heard().await, "?\n");
        adapter.send(format!("{number}\r\n>").as_bytes()).await;
        assert_eq!(line.reading().await, of("boiler", number));
    }
    line.stop().await;
}

#[tokio::test]
async fn a_full_intake_drops_frames_and_counts_them() {
    let mut line = Line::start(1, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    adapter.send(b"1\n2\n3\n").await;
    let dropped = async {
        while line.counters.dropped_frames.load(Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, dropped)
        .await
        .expect("the frames are dropped in time");
    assert_eq!(line.reading().await, of("boiler", 1.0));
    adapter.send(b"4\n").await;
    assert_eq!(line.reading().await, of("boiler", 4.0));
    assert_eq!(line.counters.dropped_bytes.load(Relaxed), 2);
    line.stop().await;
}

#[tokio::test]
async fn a_line_ends_when_the_engine_has_gone() {
    let mut line = Line::start(1, |_| {});
    let mut adapter = Adapter::plug_in(&line.port);
    line.up().await;
    line.intake.close();
    adapter.send(b"1\n").await;
    let ended = timeout(DEADLINE, line.tasks.join_next())
        .await
        .expect("it ends in time");
    ended.expect("it ran").expect("it did not panic");
}
