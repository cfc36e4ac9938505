//! The loop with a filter: what is not for the sink, and the chain of what is.

use super::*;

const I: Severity = Severity::Info;
const W: Severity = Severity::Warning;

fn filtered(log: &MemoryLog, min_severity: Severity, limit: usize, connections: &[bool]) -> Bench {
    let mut terms = terms();
    terms.filter.min_severity = min_severity;
    Bench::under(terms, log.clone(), limit, connections, pace())
}

#[tokio::test]
async fn what_is_not_for_the_sink_is_passed_without_a_connection_and_takes_no_place_in_the_window() {
    let log = MemoryLog::with_events(0);
    log.append_graded(&[I, I, W, I, I, W, I]);
    let mut bench = filtered(&log, W, 2, &[false, true]);
    bench.gets(&[(2, 3, 0), (2, 6, 3)]).await;
    log.acknowledges(2).await;
    assert_eq!(log.acknowledged(), Sequence(2), "3 is a hole");
    bench.delivered(0, 3).await;
    log.acknowledges(5).await;
    bench.delivered(0, 6).await;
    log.acknowledges(7).await;
    // Nothing is on its way: what comes and is not for the sink is passed at once.
    log.append_graded(&[I, I]);
    log.acknowledges(9).await;
    bench
        .status(|status| status.delivered == Sequence(9) && status.sent == 2)
        .await;
}

#[tokio::test]
async fn a_filtered_chain_goes_on_after_a_restart_and_under_another_filter() {
    let log = MemoryLog::with_events(0);
    log.append_graded(&[W, I, I, W, I]);
    let mut bench = filtered(&log, W, 4, &[true]);
    bench.gets(&[(1, 1, 0), (1, 4, 1)]).await;
    bench.delivered(0, 1).await;
    bench.delivered(0, 4).await;
    log.acknowledges(5).await;
    bench.stop.cancel();
    bench.ends().await;

    log.append_graded(&[I, W, W]);
    let mut bench = filtered(&log, W, 4, &[true]);
    bench.gets(&[(1, 7, 4), (1, 8, 7)]).await;
    bench.delivered(0, 7).await;
    log.acknowledges(7).await;
    bench.stop.cancel();
    drop(bench);

    // 8 was not confirmed; 9 is lost before anybody could judge it.
    log.append_graded(&[I, I, I]);
    log.discard(Position(9 * 3));
    let mut bench = filtered(&log, I, 4, &[true]);
    bench.gets(&[(1, 8, 7), (1, 10, 9), (1, 11, 10)]).await;
}

#[tokio::test]
async fn an_event_that_is_sent_again_alone_names_the_same_one_before() {
    let log = MemoryLog::with_events(0);
    log.append_graded(&[W, I, W]);
    let mut bench = filtered(&log, W, 2, &[true]);
    bench.gets(&[(1, 1, 0), (1, 3, 1)]).await;
    bench.delivered(0, 1).await;
    bench.refused(0, 3).await;
    bench.gets(&[(1, 3, 1)]).await;
    bench.delivered(0, 3).await;
    log.acknowledges(3).await;
}

#[tokio::test]
async fn a_long_run_of_what_is_not_for_the_sink_keeps_no_answer_waiting() {
    let log = MemoryLog::with_events(0);
    log.append_graded(&[W]);
    log.append_graded(&vec![I; 10_000]);
    log.append_graded(&[W]);
    let mut bench = filtered(&log, W, 2, &[true]);
    bench.gets(&[(1, 1, 0), (1, 10_002, 1)]).await;
    bench.delivered(0, 10_002).await;
    bench.delivered(0, 1).await;
    log.acknowledges(10_002).await;
}

#[tokio::test]
async fn a_gap_is_reported_with_what_stands_before_it_also_without_a_connection() {
    let log = MemoryLog::with_events(0);
    log.append_graded(&[W, I, I, I, W, I, I, W]);
    log.discard(Position(4 * 3));
    log.discard(Position(7 * 3));
    let mut bench = filtered(&log, W, 4, &[false, true]);
    bench.gets(&[(2, 1, 0), (2, 5, 4), (2, 8, 7)]).await;
    assert_eq!(*log.gaps(), [(1, 3, 5), (5, 6, 8)]);
    bench.stop.cancel();
    drop(bench);

    let log = MemoryLog::with_events(0);
    log.append_graded(&[I, I, I]);
    log.discard(Position(2 * 3));
    let bench = filtered(&log, W, 4, &[false]);
    log.acknowledges(3).await;
    assert_eq!(*log.gaps(), [(0, 1, 3)]);
    bench.stop.cancel();
}
