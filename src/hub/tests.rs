//! The hub's promises.

use super::*;

fn key(client: &str) -> Key {
    Key {
        user: None,
        client: client.into(),
    }
}

fn attached(hub: &Hub, client: &str, clean: bool) -> Attachment {
    match hub.attach(key(client), clean, false, hub.turn()) {
        Attach::Attached(attachment) => attachment,
        Attach::Occupied(_) | Attach::Superseded => panic!("{client} is occupied"),
    }
}

fn message(topic: &str, payload: &'static str, retain: bool) -> Message {
    Message {
        topic: topic.into(),
        payload: Bytes::from_static(payload.as_bytes()),
        qos: 1,
        retain,
        properties: None,
    }
}

fn grant(qos: u8) -> Grant {
    Grant {
        qos,
        ..Grant::default()
    }
}

fn payloads(mailbox: &Mailbox) -> Vec<String> {
    std::iter::from_fn(|| mailbox.take())
        .map(|arrival| String::from_utf8(arrival.message.payload.to_vec()).unwrap())
        .collect()
}

#[test]
fn overlapping_filters_make_one_delivery_with_the_best_grant() {
    let hub = Hub::new();
    let one = attached(&hub, "one", true);
    assert!(one.subscribe(
        "a/+",
        Grant {
            identifier: Some(7),
            ..grant(0)
        },
        |_| true
    ));
    assert!(one.subscribe(
        "a/#",
        Grant {
            identifier: Some(8),
            ..grant(1)
        },
        |_| true
    ));
    hub.publish(message("a/b", "x", false), None);
    let arrival = one.mailbox.take().unwrap();
    assert_eq!(arrival.qos, 1);
    assert_eq!(arrival.identifiers.len(), 2);
    assert!(one.mailbox.take().is_none());
}

#[test]
fn no_local_hears_others_but_not_itself() {
    let hub = Hub::new();
    let one = attached(&hub, "one", true);
    assert!(one.subscribe(
        "a",
        Grant {
            no_local: true,
            ..grant(1)
        },
        |_| true
    ));
    hub.publish(message("a", "mine", false), Some(one.id()));
    hub.publish(message("a", "other", false), None);
    assert_eq!(payloads(&one.mailbox), ["other"]);
}

#[test]
fn a_retained_message_meets_a_later_subscriber_until_it_is_emptied() {
    let hub = Hub::new();
    hub.publish(message("a/b", "kept", true), None);
    let one = attached(&hub, "one", true);
    assert!(one.subscribe("a/+", grant(1), |_| true));
    let arrival = one.mailbox.take().unwrap();
    assert!(arrival.retain);
    assert!(one.subscribe("a/+", grant(1), |new| new));
    assert!(one.mailbox.take().is_none(), "asked for only when new");
    hub.publish(message("a/b", "", true), None);
    let two = attached(&hub, "two", true);
    assert!(two.subscribe("#", grant(1), |_| true));
    assert!(two.mailbox.take().is_none());
}

#[test]
fn the_retained_store_is_bounded_and_says_so() {
    let hub = Hub::new();
    for number in 0..=MAX_RETAINED {
        hub.publish(message(&format!("t/{number}"), "x", true), None);
    }
    assert_eq!(hub.counters().retained_refused.load(Ordering::Relaxed), 1);
    hub.publish(message("t/0", "y", true), None);
    assert_eq!(
        hub.counters().retained_refused.load(Ordering::Relaxed),
        1,
        "a known topic is replaced"
    );
}

#[test]
fn a_retained_message_that_has_expired_leaves_its_place() {
    let hub = Hub::new();
    let now = Instant::now();
    for number in 0..MAX_RETAINED {
        let mut message = message(&format!("t/{number}"), "x", true);
        message.properties = Some(Box::new(Properties {
            expiry: Some(60),
            ..Properties::default()
        }));
        hub.publish(message, None);
    }
    hub.tick(now + Duration::from_secs(59));
    hub.publish(message("early", "x", true), None);
    assert_eq!(hub.counters().retained_refused.load(Ordering::Relaxed), 1);
    hub.tick(now + Duration::from_secs(120));
    hub.publish(message("late", "x", true), None);
    assert_eq!(hub.counters().retained_refused.load(Ordering::Relaxed), 1);
    assert_eq!(hub.state().retained.len(), 1);
    let kept: usize = hub.state().retained.values().map(|(kept, _)| kept.size()).sum();
    assert_eq!(hub.state().retained_bytes, kept);
}

#[test]
fn a_present_subscriber_that_does_not_read_overflows_once_and_nobody_waits() {
    let hub = Hub::new();
    let one = attached(&hub, "one", true);
    assert!(one.subscribe("#", grant(0), |_| true));
    for _ in 0..5000 {
        hub.publish(message("a", "x", false), None);
    }
    assert!(one.mailbox.overflowed());
    assert_eq!(hub.counters().overflowed.load(Ordering::Relaxed), 1);
}

#[test]
fn an_absent_session_keeps_what_must_be_acknowledged_up_to_a_bound() {
    let hub = Hub::new();
    let one = attached(&hub, "one", false);
    assert!(one.subscribe("#", grant(1), |_| true));
    assert!(one.leave(Kept::default(), Duration::from_mins(1), None).is_none());
    hub.publish(
        Message {
            qos: 0,
            ..message("a", "lost", false)
        },
        None,
    );
    for _ in 0..mailbox::MAX_ABSENT + 3 {
        hub.publish(message("a", "kept", false), None);
    }
    let again = attached(&hub, "one", false);
    assert!(again.present);
    assert_eq!(payloads(&again.mailbox), vec!["kept"; mailbox::MAX_ABSENT]);
    assert_eq!(hub.counters().absent_dropped.load(Ordering::Relaxed), 3);
}

#[test]
fn what_came_since_is_kept_for_an_absent_session_before_what_is_retained() {
    let hub = Hub::new();
    for number in 0..mailbox::MAX_ABSENT {
        hub.publish(message(&format!("r/{number}"), "old", true), None);
    }
    let one = attached(&hub, "one", false);
    assert!(one.subscribe("#", grant(1), |_| true));
    hub.publish(message("live", "new", false), None);
    assert!(one.leave(Kept::default(), Duration::from_mins(1), None).is_none());
    let heard = payloads(&attached(&hub, "one", false).mailbox);
    assert_eq!(heard.len(), mailbox::MAX_ABSENT);
    assert_eq!(heard.last().map(String::as_str), Some("new"));
}

#[test]
fn a_clean_start_forgets_the_session() {
    let hub = Hub::new();
    let one = attached(&hub, "one", false);
    assert!(one.subscribe("#", grant(1), |_| true));
    assert!(one.leave(Kept::default(), Duration::from_mins(1), None).is_none());
    let again = attached(&hub, "one", true);
    assert!(!again.present);
    hub.publish(message("a", "x", false), None);
    assert!(again.mailbox.take().is_none());
}

#[test]
fn of_two_that_wait_for_a_session_the_later_one_keeps_it() {
    let hub = Hub::new();
    let one = attached(&hub, "one", true);
    let (earlier, later) = (hub.turn(), hub.turn());
    for turn in [earlier, later] {
        let attach = hub.attach(key("one"), true, false, turn);
        assert!(matches!(attach, Attach::Occupied(_)));
    }
    assert!(one.leave(Kept::default(), Duration::ZERO, None).is_none());
    let Attach::Attached(two) = hub.attach(key("one"), true, false, later) else {
        panic!("nobody has it")
    };
    let attach = hub.attach(key("one"), true, false, earlier);
    assert!(matches!(attach, Attach::Superseded));
    assert!(!two.kick().is_cancelled());
}

#[test]
fn a_second_connection_kicks_the_first_and_waits_for_it() {
    let hub = Hub::new();
    let one = attached(&hub, "one", false);
    let Attach::Occupied(gone) = hub.attach(key("one"), false, false, hub.turn()) else {
        panic!("both have it")
    };
    assert!(one.kick().is_cancelled());
    assert!(!gone.is_cancelled());
    assert!(one.leave(Kept::default(), Duration::from_mins(1), None).is_none());
    assert!(gone.is_cancelled());
    assert!(attached(&hub, "one", false).present);
}

#[test]
fn the_same_client_id_of_another_user_is_another_session() {
    let hub = Hub::new();
    let _one = attached(&hub, "one", false);
    let other = Key {
        user: Some("somebody".into()),
        client: "one".into(),
    };
    assert!(matches!(
        hub.attach(other, false, false, hub.turn()),
        Attach::Attached(_)
    ));
}

#[test]
fn a_forced_attach_leaves_the_first_without_a_session() {
    let hub = Hub::new();
    let one = attached(&hub, "one", false);
    let Attach::Attached(two) = hub.attach(key("one"), false, true, hub.turn()) else {
        panic!("was not forced")
    };
    assert!(!one.subscribe("a", grant(1), |_| true));
    drop(one);
    assert!(
        two.subscribe("a", grant(1), |_| true),
        "the end of the first is not the end of the second"
    );
}

#[test]
fn a_delayed_will_is_due_only_if_its_owner_stays_away() {
    let hub = Hub::new();
    let will = || Will {
        message: message("w", "bye", false),
        delay: Duration::from_secs(5),
    };
    let minute = Duration::from_mins(1);
    assert!(
        attached(&hub, "one", false)
            .leave(Kept::default(), minute, Some(will()))
            .is_none()
    );
    assert!(hub.tick(Instant::now()).is_empty());
    assert!(
        attached(&hub, "one", false)
            .leave(Kept::default(), minute, None)
            .is_none()
    );
    assert!(
        hub.tick(Instant::now() + Duration::from_secs(6)).is_empty(),
        "it came back"
    );
    assert!(
        attached(&hub, "one", false)
            .leave(Kept::default(), minute, Some(will()))
            .is_none()
    );
    assert_eq!(hub.tick(Instant::now() + Duration::from_secs(6)).len(), 1);
    assert!(
        attached(&hub, "one", false)
            .leave(Kept::default(), Duration::ZERO, Some(will()))
            .is_some()
    );
}

#[test]
fn an_absent_session_ends_when_its_time_is_over() {
    let hub = Hub::new();
    let one = attached(&hub, "one", false);
    assert!(one.subscribe("#", grant(1), |_| true));
    assert!(one.leave(Kept::default(), Duration::from_mins(1), None).is_none());
    hub.tick(Instant::now() + Duration::from_secs(61));
    assert!(!attached(&hub, "one", false).present);
}

#[test]
fn absent_sessions_are_bounded() {
    let hub = Hub::new();
    for number in 0..=MAX_ABSENT_SESSIONS {
        let absence = Duration::from_secs(60 + number as u64);
        assert!(
            attached(&hub, &number.to_string(), false)
                .leave(Kept::default(), absence, None)
                .is_none()
        );
    }
    assert!(
        !attached(&hub, "0", false).present,
        "the one that would have ended first"
    );
    assert!(attached(&hub, "1", false).present);
}

#[test]
fn an_event_says_what_it_is() {
    let hub = Hub::new();
    let one = attached(&hub, "one", true);
    assert!(one.subscribe("tidegate/+/events/#", grant(2), |_| true));
    hub.publish_event("tidegate/g/events/Hot/d", "{}");
    let arrival = one.mailbox.take().unwrap();
    assert_eq!(arrival.qos, 1);
    assert!(
        arrival
            .message
            .properties
            .as_ref()
            .unwrap()
            .content_type
            .is_some()
    );
}
