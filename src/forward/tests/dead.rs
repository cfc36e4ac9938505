//! The loop and what a sink refuses for good.

use super::*;

fn with_room_for(most: usize, events: u64, limit: usize, connections: &[bool]) -> Bench {
    Bench::on(MemoryLog::with_room_for(most, events), limit, connections, pace())
}

/// Refused as often as it takes: three times.
async fn refuse_for_good(bench: &mut Bench, connection: usize, sequence: u64) {
    for attempt in 0..3 {
        if attempt > 0 {
            bench.gets(&[(connection + 1, sequence, sequence - 1)]).await;
        }
        bench.refused(connection, sequence).await;
    }
}

#[tokio::test]
async fn an_event_refused_for_good_is_set_aside_and_the_others_go_on() {
    let mut bench = with_room_for(10, 4, 2, &[true]);
    bench.gets(&[(1, 1, 0), (1, 2, 1)]).await;
    bench.delivered(0, 2).await;
    refuse_for_good(&mut bench, 0, 1).await;
    bench.gets(&[(1, 3, 2), (1, 4, 3)]).await;
    assert_eq!(bench.log.dead(), [1]);
    bench.log.acknowledges(2).await;
    bench.delivered(0, 3).await;
    bench.delivered(0, 4).await;
    bench.log.acknowledges(4).await;
    let status = bench.status(|status| status.set_aside == 1).await;
    assert_eq!(status.last_error, None);
    let letter = bench.log.0.dead.lock().unwrap()[0].clone();
    assert_eq!((letter.reason.as_str(), letter.attempts), ("no", 3));
}

#[tokio::test(start_paused = true)]
async fn the_cursor_passes_a_refused_event_only_when_it_is_durably_set_aside() {
    let log = MemoryLog::with_room_for(10, 2);
    log.0.waits.store(true, Relaxed);
    let mut bench = Bench::on(log, 1, &[true], pace());
    bench.gets(&[(1, 1, 0)]).await;
    refuse_for_good(&mut bench, 0, 1).await;
    // It is tried on, alone.
    bench.gets(&[(1, 1, 0)]).await;
    assert_eq!(bench.log.acknowledged(), Sequence(0));
    bench.log.append(1);
    bench.gets(&[(1, 2, 1)]).await;
    bench.log.acknowledges(1).await;
}

/// A full journal has no room for a dead letter, and none comes before the sink takes something.
#[tokio::test(start_paused = true)]
async fn an_event_that_is_taken_before_it_is_durably_set_aside_is_no_dead_letter() {
    let log = MemoryLog::with_room_for(10, 2);
    log.0.waits.store(true, Relaxed);
    let mut bench = Bench::on(log, 1, &[true], pace());
    bench.gets(&[(1, 1, 0)]).await;
    refuse_for_good(&mut bench, 0, 1).await;
    bench.gets(&[(1, 1, 0)]).await;
    bench.delivered(0, 1).await;
    bench.log.acknowledges(1).await;
    bench.gets(&[(1, 2, 1)]).await;
    bench.log.append(1);
    bench.delivered(0, 2).await;
    bench.gets(&[(1, 3, 2)]).await;
    assert!(bench.log.0.dead.lock().unwrap().is_empty());
    assert_eq!(bench.status.borrow().set_aside, 0);
}

#[tokio::test]
async fn full_dead_letters_stop_the_sink_until_there_is_room() {
    let mut bench = with_room_for(1, 3, 1, &[true]);
    bench.gets(&[(1, 1, 0)]).await;
    refuse_for_good(&mut bench, 0, 1).await;
    bench.gets(&[(1, 2, 1)]).await;
    refuse_for_good(&mut bench, 0, 2).await;
    let stopped = |status: &Status| {
        status
            .last_error
            .as_ref()
            .is_some_and(|why| why.contains("full (1"))
    };
    bench.status(stopped).await;
    assert_eq!(bench.log.acknowledged(), Sequence(1));
    bench.log.0.dead.lock().unwrap().clear();
    bench.gets(&[(1, 2, 1)]).await;
    bench.refused(0, 2).await;
    bench.gets(&[(1, 3, 2)]).await;
    assert_eq!(bench.log.dead(), [2]);
}

#[tokio::test]
async fn a_dead_letter_that_is_sent_again_goes_when_it_is_delivered_and_stays_when_it_is_refused() {
    let mut bench = with_room_for(10, 3, 1, &[true]);
    bench.gets(&[(1, 1, 0)]).await;
    refuse_for_good(&mut bench, 0, 1).await;
    bench.gets(&[(1, 2, 1)]).await;
    refuse_for_good(&mut bench, 0, 2).await;
    bench.gets(&[(1, 3, 2)]).await;
    // What waits goes first.
    bench.log.resend();
    assert!(bench.got.try_recv().is_err());
    bench.delivered(0, 3).await;
    bench.gets(&[(1, 1, 0)]).await;
    bench.log.append(1);
    bench.delivered(0, 1).await;
    bench.gets(&[(1, 4, 3)]).await;
    bench.delivered(0, 4).await;
    bench.gets(&[(1, 2, 1)]).await;
    assert_eq!(bench.log.dead(), [2]);
    bench.refused(0, 2).await;
    bench.status(|status| status.refused == 7).await;
    bench.log.append(1);
    bench.gets(&[(1, 5, 4)]).await;
    assert_eq!(bench.log.dead(), [2]);
    bench.delivered(0, 5).await;
    bench.log.acknowledges(5).await;
}

#[tokio::test]
async fn a_dead_letter_that_costs_the_connection_each_time_is_not_sent_for_ever() {
    let mut bench = with_room_for(10, 1, 1, &[true; 4]);
    bench.gets(&[(1, 1, 0)]).await;
    refuse_for_good(&mut bench, 0, 1).await;
    bench.log.acknowledges(1).await;
    bench.log.resend();
    for connection in 0..3 {
        bench.gets(&[(connection + 1, 1, 0)]).await;
        bench.answer(connection, Verdict::Lost("cut".to_owned())).await;
    }
    bench.log.append(1);
    bench.gets(&[(4, 2, 1)]).await;
    assert_eq!(bench.log.dead(), [1]);
}
