//! A payload to values: no panic, and no value that is not finite, too long or outside its range.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::{
    decode::{Decoder, Format, MAX_TEXT, MetricPlan},
    reading::{Metric, Value},
};

fuzz_target!(|input: &[u8]| {
    let [choice, payload @ ..] = input else { return };
    let (format, at) = match choice % 4 {
        0 => (Format::Json, "/a/0/b"),
        1 => (Format::Number, ""),
        2 => (Format::Csv, "2"),
        _ => (Format::KeyValue, "a"),
    };
    let valid = (-40.0, 85.0);
    let planned = choice & 4 != 0;
    let plan = MetricPlan {
        name: Metric::new("temperature").expect("a name"),
        at: (!at.is_empty()).then(|| at.to_owned()),
        unit: None,
        scale: 0.1,
        offset: -3.0,
        ignore: vec![85.0, -127.0],
        valid: Some(valid),
    };
    let decoder = Decoder {
        format,
        time: (choice & 8 != 0).then(|| "/time".to_owned()),
        device_at: (choice & 16 != 0).then(|| "/device".to_owned()),
        metrics: if planned { vec![plan] } else { Vec::new() },
    };
    let Ok(decoded) = decoder.decode(payload) else {
        return;
    };
    for (_, value, _) in decoded.values {
        match value {
            Value::Number(number) => {
                assert!(number.is_finite());
                assert!(!planned || (valid.0..=valid.1).contains(&number));
            }
            Value::Text(text) => assert!(text.len() <= MAX_TEXT),
            Value::Bool(_) => {}
        }
    }
});
