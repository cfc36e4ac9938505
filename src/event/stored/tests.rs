use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    event::{Epoch, Labels},
    reading::{DeviceId, Metric, Value},
    time::{BootId, Timestamp},
};

/// As it was written before: the names of the fields, and everything in full.
#[derive(Serialize)]
struct Named<'a> {
    draft: &'a Draft,
    origin: &'a Origin,
    recorded: Moment,
}

fn named(event: &Event) -> Vec<u8> {
    encoded(&Named {
        draft: &event.draft,
        origin: &event.origin,
        recorded: event.recorded,
    })
}

fn encoded(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> Option<Event> {
    Event::decode(bytes)
}

fn labels(of: &[(&str, &str)]) -> Labels {
    of.iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// What a threshold rule says of a thermostat a week after the boot.
fn high_temperature() -> Event {
    let id = EpisodeId {
        epoch: Epoch(0x7a3c_91e5_0d42_66b8),
        number: 1704,
    };
    let at = EngineTime(604_800_123_456);
    let data = RuleData {
        summary: "thermostat-7: temperature is 34.56 Cel, above 30".to_owned(),
        device: DeviceId::new("thermostat-7").unwrap(),
        device_name: None,
        device_labels: Arc::default(),
        metric: Some(Metric::new("temperature").unwrap()),
        unit: Some("Cel".into()),
        value: Some(Value::Number(34.56)),
        rule: Arc::new(RuleFacts {
            name: "high-temperature".into(),
            kind: "above".into(),
            params: json!({"above": 30.0, "clear": 28.0}).as_object().unwrap().clone(),
            labels: Labels::new(),
            runbook: None,
        }),
        episode: EpisodeFacts {
            id,
            since: at,
            raised_at: at,
            duration_ms: 0,
            min: Some(34.56),
            max: Some(34.56),
            readings: 1,
            reminder: 0,
            flaps: 0,
            reason: None,
        },
        window: None,
        conditions: Vec::new(),
        raised_as: None,
    };
    Event {
        draft: Draft {
            kind: "io.tidegate.rule.HighTemperature".into(),
            name: "HighTemperature".into(),
            subject: "thermostat-7/temperature".into(),
            about: "thermostat-7".into(),
            severity: Severity::Warning,
            at,
            transition: Some(Transition::Raised),
            correlation: Some(id.to_string().into()),
            data: Data::Rule(Box::new(data)),
        },
        origin: Arc::new(Origin {
            gateway: "plantroom-1".into(),
            source: "urn:tidegate:gateway:plantroom-1".into(),
            labels: Labels::new(),
            version: "0.1.0".into(),
        }),
        recorded: Moment {
            boot_id: BootId(0x9b1d_eb4d_3b7d_4bad_9bdd_2b0d_7b3d_cb6d),
            boot: EngineTime(at.0 + 412),
            wall: Timestamp(1_795_255_230_004_000),
            quality: ClockQuality::Synchronised,
        },
    }
}

/// One of which nothing follows from the rest.
fn unusual() -> Event {
    let mut event = high_temperature();
    event.draft.kind = "com.example.TooHot".into();
    event.draft.name = "TooHotNoMore".into();
    event.draft.subject = "elsewhere".into();
    event.draft.about = "somebody".into();
    event.draft.transition = Some(Transition::Cleared);
    event.draft.correlation = None;
    Arc::make_mut(&mut event.origin).source = "https://example.com/gateways/1".into();
    Arc::make_mut(&mut event.origin).labels = labels(&[("site", "hq")]);
    let Data::Rule(data) = &mut event.draft.data else {
        unreachable!("it was made so")
    };
    data.device_name = Some("Living room".into());
    data.device_labels = Arc::new(labels(&[("room", "living")]));
    data.metric = None;
    data.unit = None;
    data.value = None;
    data.raised_as = Some("TooHot".into());
    data.episode.reason = Some(Reason::BackToNormal);
    data.episode.since = EngineTime(i64::MIN);
    data.window = Some(WindowFacts {
        of: "mean".into(),
        over_ms: 60_000,
        count: 12,
        span_ms: 55_000,
        approximate: true,
    });
    data.conditions = vec![ConditionFacts {
        device: DeviceId::new("pump").unwrap(),
        metric: Metric::new("running").unwrap(),
        value: Some(Value::Bool(false)),
        unit: None,
        holds: Some(true),
    }];
    let facts = Arc::make_mut(&mut data.rule);
    facts.labels = labels(&[("team", "heating")]);
    facts.runbook = Some("https://example.com/runbook".to_owned());
    facts.params = json!({"all": [{"above": 1.5}, {"equals": null}]})
        .as_object()
        .unwrap()
        .clone();
    event
}

/// One of the gateway's own.
fn own() -> Event {
    let mut event = high_temperature();
    event.draft = Draft {
        kind: "io.tidegate.gateway.GatewayAlive".into(),
        name: "GatewayAlive".into(),
        subject: "plantroom-1".into(),
        about: "plantroom-1".into(),
        severity: Severity::Info,
        transition: None,
        correlation: None,
        data: Data::Gateway(
            json!({"uptime_s": 12, "since": {"$boot_us": 7}, "none": null})
                .as_object()
                .unwrap()
                .clone(),
        ),
        ..event.draft
    };
    event
}

#[test]
fn events_are_read_as_they_were_written() {
    for event in [high_temperature(), unusual(), own()] {
        assert_eq!(decoded(&encoded(&event)), Some(event));
    }
}

#[test]
fn events_that_were_written_with_names_are_read() {
    for event in [high_temperature(), unusual(), own()] {
        assert_eq!(decoded(&named(&event)), Some(event));
    }
}

#[test]
fn an_event_within_something_else_is_read() {
    for event in [high_temperature(), unusual(), own()] {
        for stored in [encoded(&(&event, 7)), encoded(&(ciborium::Value::from(0), 7))] {
            let read = ciborium::from_reader(&*stored).ok();
            let whole = stored.len() > 3;
            assert_eq!(read, whole.then(|| (event.clone(), 7)));
        }
    }
}

#[test]
fn events_read_one_after_the_other_are_what_they_are_alone_and_share_what_is_the_same() {
    let mut reader = Reader::default();
    // More rules than are remembered, each seen again at once and once more after all others.
    let rules = 0..2 * SEEN;
    let mut events: Vec<Event> = Vec::new();
    for number in rules.clone().flat_map(|number| [number, number]).chain(rules) {
        for mut event in [high_temperature(), unusual(), own()] {
            event.draft.name = format!("Event{number}").into();
            if let Data::Rule(data) = &mut event.draft.data {
                Arc::make_mut(&mut data.rule).name = format!("rule-{number}").into();
                data.unit = Some(format!("unit-{number}").into());
            }
            let read = reader.event(&encoded(&event));
            assert_eq!(read.as_ref(), Some(&event));
            events.extend(read);
        }
    }
    let rule = |index: usize| match &events[index].draft.data {
        Data::Rule(data) => Arc::clone(&data.rule),
        Data::Gateway(_) => unreachable!("every third one is the gateway's own"),
    };
    assert!(Arc::ptr_eq(&rule(0), &rule(3)), "the same rule twice");
    assert!(Arc::ptr_eq(&events[0].origin, &events[2].origin), "one gateway");
    assert!(reader.rules.parts.len() <= SEEN, "and no more are kept");
}

#[test]
fn a_typical_alarm_takes_a_third_of_what_it_took_with_names() {
    let event = high_temperature();
    let (named, stored) = (named(&event).len(), encoded(&event).len());
    assert!(stored <= 275, "{stored} bytes, {named} with names");
}

#[test]
fn what_follows_from_the_rest_is_not_written() {
    let bytes = encoded(&high_temperature());
    let text = String::from_utf8_lossy(&bytes);
    for (word, times) in [
        ("thermostat-7", 2),
        ("HighTemperature", 1),
        ("plantroom-1", 1),
        ("io.tidegate", 0),
    ] {
        assert_eq!(text.matches(word).count(), times, "{word}");
    }
}

#[test]
fn another_form_is_not_read() {
    let mut bytes = encoded(&high_temperature());
    assert_eq!(bytes[1], FORM);
    bytes[1] = FORM + 1;
    assert_eq!(decoded(&bytes), None, "a later version wrote it");
}

/// A copy for each array of the form that has one element more. What stands in maps has names.
fn with_one_more(value: &ciborium::Value) -> Vec<ciborium::Value> {
    let ciborium::Value::Array(elements) = value else {
        return Vec::new();
    };
    let mut longer = elements.clone();
    longer.push(ciborium::Value::Null);
    let mut copies = vec![ciborium::Value::Array(longer)];
    for (index, element) in elements.iter().enumerate() {
        copies.extend(with_one_more(element).into_iter().map(|element| {
            let mut elements = elements.clone();
            elements[index] = element;
            ciborium::Value::Array(elements)
        }));
    }
    copies
}

#[test]
fn an_element_more_at_any_level_is_not_read() {
    let mut levels = 0;
    for event in [high_temperature(), unusual(), own()] {
        let value: ciborium::Value = ciborium::from_reader(&*encoded(&event)).unwrap();
        assert_eq!(decoded(&encoded(&value)), Some(event));
        for longer in with_one_more(&value) {
            assert_eq!(decoded(&encoded(&longer)), None, "{longer:?}");
            levels += 1;
        }
    }
    // Seven more where a rule tells, and eight where nothing follows from the rest and there are a window and a condition.
    assert_eq!(levels, 5 + (5 + 7) + (5 + 7 + 8));
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("plantroom-1".to_owned()),
        Just("thermostat-7".to_owned()),
        Just("HighTemperatureCleared".to_owned()),
        "[a-z/:]{1,4}"
    ]
}

fn maybe() -> impl Strategy<Value = Option<Arc<str>>> {
    proptest::option::of(text().prop_map(Into::into))
}

proptest! {
    #[test]
    fn a_changed_byte_makes_another_event_or_none(
        which in 0..3_usize, changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..4),
    ) {
        let mut bytes = encoded(&[high_temperature(), unusual(), own()][which]);
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Some(event) = decoded(&bytes) {
            let again = encoded(&event);
            // Its bytes: not every number is equal to itself.
            prop_assert_eq!(decoded(&again).map(|event| encoded(&event)), Some(again));
        }
    }

    #[test]
    fn whatever_stands_in_an_event_is_read_as_it_was_written(
        which in 0..3_usize,
        [kind, name, subject, about, gateway, source] in [text(), text(), text(), text(), text(), text()],
        [correlation, raised_as] in [maybe(), maybe()],
        transition in proptest::option::of(prop_oneof![
            Just(Transition::Raised),
            Just(Transition::Reminded),
            Just(Transition::Changed),
            Just(Transition::Cleared)
        ]),
        times in any::<[i64; 4]>(),
    ) {
        let mut event = [high_temperature(), unusual(), own()][which].clone();
        let draft = &mut event.draft;
        draft.kind = kind.into();
        draft.name = name.into();
        draft.subject = subject.into();
        draft.about = about.into();
        draft.correlation = correlation;
        draft.transition = transition;
        draft.at = EngineTime(times[0]);
        event.recorded.boot = EngineTime(times[1]);
        if let Data::Rule(data) = &mut draft.data {
            data.raised_as = raised_as;
            data.episode.since = EngineTime(times[2]);
            data.episode.raised_at = EngineTime(times[3]);
        }
        let origin = Arc::make_mut(&mut event.origin);
        origin.gateway = gateway.into();
        origin.source = source.into();
        prop_assert_eq!(decoded(&encoded(&event)), Some(event.clone()));
        prop_assert_eq!(decoded(&named(&event)), Some(event));
    }
}
