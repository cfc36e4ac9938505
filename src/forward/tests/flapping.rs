//! What the log is told of a sink that comes and goes.

use std::io;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, what: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(what))
            .map(str::to_owned)
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_comes_and_goes_is_told_ten_times_a_minute_and_its_status_is_right_each_time() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut bench = Bench::new(0, 1, &[true; 30], pace());
    let mut come_and_go = async |connection: usize| {
        let number = connection as u64 + 1;
        bench.log.append(1);
        bench.gets(&[(connection + 1, number, number - 1)]).await;
        bench.delivered(connection, number).await;
        bench.status(|status| status.connected).await;
        bench.answer(connection, Verdict::Lost("cut".to_owned())).await;
        bench.status(|status| !status.connected).await;
    };
    for connection in 0..25 {
        come_and_go(connection).await;
    }
    assert_eq!(lines.with("uplink lost").len(), 10);
    assert_eq!(
        lines.with("uplink restored").len(),
        10,
        "{:#?}",
        lines.with("uplink")
    );
    tokio::time::advance(Duration::from_mins(1)).await;
    come_and_go(25).await;
    let lost = lines.with("uplink lost");
    assert_eq!(lost.len(), 11);
    assert!(
        lost[10].contains("reason=\"cut\"") && lost[10].contains("unsaid=15"),
        "{}",
        lost[10]
    );
}
