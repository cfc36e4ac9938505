//! A subscriber that keeps everything it was sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{PATIENCE, contract, text};

pub(crate) struct Cloud {
    seen: Arc<Mutex<Vec<Value>>>,
    news: Arc<Notify>,
    /// How many subscriptions were granted.
    subscribed: watch::Receiver<usize>,
    _pump: JoinSet<()>,
}

impl Cloud {
    pub(crate) async fn subscribe(port: u16) -> Self {
        Self::subscribe_to(port, "tidegate/+/events/#").await
    }

    pub(crate) async fn subscribe_to(port: u16, filter: &str) -> Self {
        let options = MqttOptions::new(format!("cloud-{filter}"), "127.0.0.1", port);
        Self::with(options, filter).await
    }

    /// One that the broker keeps what comes for while either of them is away, and that always comes back.
    pub(crate) async fn lasting(host: &str, port: u16) -> Self {
        let mut options = MqttOptions::new("cloud", host, port);
        options.set_clean_session(false);
        Self::with(options, "tidegate/+/events/#").await
    }

    async fn with(mut options: MqttOptions, filter: &str) -> Self {
        options.set_max_packet_size(1 << 20, 1 << 20);
        let lasts = !options.clean_session();
        let filter = filter.to_owned();
        let (client, mut events) = AsyncClient::new(options, 16);
        let (seen, news) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Notify::new()));
        let (tell, mut subscribed) = watch::channel(0);
        let mut pump = JoinSet::new();
        pump.spawn({
            let (seen, news) = (Arc::clone(&seen), Arc::clone(&news));
            // The pace at which it tries to connect; nothing waits for it.
            let mut tries = interval(Duration::from_millis(50));
            tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
            async move {
                loop {
                    let event = match events.poll().await {
                        Ok(event) => event,
                        // The broker may be reached but not ready yet; later, its end is the test's.
                        Err(_) if lasts || *tell.borrow() == 0 => {
                            tries.tick().await;
                            continue;
                        }
                        Err(_) => return,
                    };
                    match event {
                        Event::Incoming(Packet::ConnAck(answer)) if !answer.session_present => {
                            client.try_subscribe(&filter, QoS::AtLeastOnce).expect("room");
                        }
                        Event::Incoming(Packet::SubAck(_)) => tell.send_modify(|count| *count += 1),
                        Event::Incoming(Packet::Publish(publish)) => {
                            let event = serde_json::from_slice(&publish.payload).expect("an event is JSON");
                            seen.lock().expect("not poisoned").push(event);
                            news.notify_one();
                        }
                        _ => {}
                    }
                }
            }
        });
        timeout(PATIENCE, subscribed.wait_for(|count| *count > 0))
            .await
            .expect("in time")
            .expect("the broker answers a subscription");
        Self {
            seen,
            news,
            subscribed,
            _pump: pump,
        }
    }

    /// How often it had to subscribe because the broker knew it no longer.
    pub(crate) fn subscriptions(&self) -> usize {
        *self.subscribed.borrow()
    }

    /// Waits until it has subscribed once more.
    pub(crate) async fn subscribes_again(&self, before: usize) {
        let mut subscribed = self.subscribed.clone();
        let again = timeout(PATIENCE, subscribed.wait_for(|count| *count > before)).await;
        again.expect("in time").expect("it lives");
    }

    /// How often an event came that had come before.
    pub(crate) fn duplicates(&self) -> usize {
        let distinct = self.distinct().len();
        self.seen.lock().expect("not poisoned").len() - distinct
    }

    pub(crate) async fn wait_until(&self, mut done: impl FnMut(&[Value]) -> bool) {
        let waiting = async {
            while !done(&self.seen.lock().expect("not poisoned")) {
                self.news.notified().await;
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            let seen = self.seen.lock().expect("not poisoned");
            panic!(
                "it did not come; seen {}, the last: {:#?}",
                seen.len(),
                seen.last()
            );
        }
    }

    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        self.wait_until(|seen| seen.iter().any(&wanted)).await;
        self.seen
            .lock()
            .expect("not poisoned")
            .iter()
            .find(|event| wanted(event))
            .cloned()
            .expect("just seen")
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        self.seen
            .lock()
            .expect("not poisoned")
            .iter()
            .filter(|event| wanted(event))
            .count()
    }

    /// One copy of each event, in the order of first arrival. A redelivery must be the same event.
    pub(crate) fn distinct(&self) -> Vec<Value> {
        let mut first: HashMap<String, Value> = HashMap::new();
        let mut order = Vec::new();
        for event in self.seen.lock().expect("not poisoned").iter() {
            let id = text(event, "/id").to_owned();
            match first.get(&id) {
                Some(earlier) => assert_eq!(earlier, event, "a redelivery is the same event"),
                None => {
                    first.insert(id, event.clone());
                    order.push(event.clone());
                }
            }
        }
        order
    }

    pub(crate) fn assert_first_sends_in_order(&self) {
        let mut last: HashMap<String, String> = HashMap::new();
        for event in self.distinct() {
            let (epoch, sequence) = (
                text(&event, "/epoch").to_owned(),
                text(&event, "/sequence").to_owned(),
            );
            if let Some(before) = last.insert(epoch, sequence.clone()) {
                assert!(before < sequence, "{sequence} came after {before}");
            }
        }
    }

    /// Every sequence from 1 to the highest seen is here, or an `EventsDiscarded` names it.
    pub(crate) fn assert_no_unexplained_gap(&self) {
        let mut here: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for event in self.distinct() {
            let numbers = here.entry(text(&event, "/epoch").to_owned()).or_default();
            numbers.insert(text(&event, "/sequence").parse().expect("digits"));
            if event["type"] == "io.tidegate.gateway.EventsDiscarded" {
                for range in event["data"]["ranges"].as_array().expect("ranges") {
                    let (from, to) = (range[0].as_u64().expect("from"), range[1].as_u64().expect("to"));
                    here.entry(text(&event, "/data/epoch").to_owned())
                        .or_default()
                        .extend(from..=to);
                }
            }
        }
        assert_eq!(here.len(), 1, "one journal, one epoch");
        for numbers in here.values() {
            let highest = numbers.last().copied().unwrap_or(0);
            let missing: Vec<u64> = (1..=highest).filter(|number| !numbers.contains(number)).collect();
            assert!(
                missing.is_empty(),
                "missing and unexplained: {missing:?} of {highest}"
            );
        }
    }
}

impl Drop for Cloud {
    /// Whatever came, asked for or not, is an event of the contract.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.seen
                .lock()
                .expect("not poisoned")
                .iter()
                .for_each(contract::check);
        }
    }
}
