//! What still goes when it is asked to stop.

use super::*;

#[tokio::test]
async fn a_stop_drains_what_is_durable_and_then_ends() {
    let mut bench = Bench::new(2, 1, &[true], pace());
    bench.gets(&[(1, 1, 0)]).await;
    bench.stop.cancel();
    bench.delivered(0, 1).await;
    bench.gets(&[(1, 2, 1)]).await;
    bench.delivered(0, 2).await;
    bench.ends().await;
    assert_eq!(bench.log.acknowledged(), Sequence(2));
    assert!(!bench.status.borrow().connected);
}

#[tokio::test]
async fn a_stop_waits_for_no_sink_that_is_away() {
    let slow = Pace {
        base: PATIENCE * 10,
        cap: PATIENCE * 10,
        ..pace()
    };
    let mut bench = Bench::new(1, 1, &[false], slow);
    bench.status(|status| status.last_error.is_some()).await;
    bench.stop.cancel();
    bench.ends().await;
}

#[tokio::test]
async fn a_stop_waits_for_no_event_that_is_refused() {
    let slow = Pace {
        base: PATIENCE * 10,
        cap: PATIENCE * 10,
        ..pace()
    };
    let mut bench = Bench::new(1, 1, &[true], slow);
    bench.gets(&[(1, 1, 0)]).await;
    bench.refused(0, 1).await;
    bench.status(|status| status.refused == 1).await;
    bench.stop.cancel();
    bench.ends().await;
    assert_eq!(bench.log.acknowledged(), Sequence(0));
}

#[tokio::test]
async fn what_is_durable_by_the_stop_goes_also_behind_a_whole_batch() {
    let batch = u64::try_from(AHEAD.entries).unwrap();
    let mut bench = Bench::new(batch, 1, &[true], pace());
    // With the first one the batch was read, and the one behind it, which had nothing in it.
    bench.gets(&[(1, 1, 0)]).await;
    bench.log.append(1);
    bench.stop.cancel();
    for number in 1..=batch {
        bench.delivered(0, number).await;
        bench.gets(&[(1, number + 1, number)]).await;
    }
}
