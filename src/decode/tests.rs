use proptest::prelude::*;

use super::*;

fn decoder(format: Format, metrics: Vec<MetricPlan>) -> Decoder {
    Decoder {
        format,
        time: None,
        device_at: None,
        metrics,
    }
}

fn plan(name: &str, at: &str) -> MetricPlan {
    let at = (!at.is_empty()).then(|| at.to_owned());
    MetricPlan {
        name: Metric::new(name).unwrap(),
        at,
        unit: None,
        scale: 1.0,
        offset: 0.0,
        ignore: Vec::new(),
        valid: None,
    }
}

/// `name=value` pairs, for short assertions.
fn told(plan: &Decoder, payload: &str) -> String {
    let decoded = plan.decode(payload.as_bytes()).unwrap();
    let mut words: Vec<String> = decoded
        .values
        .iter()
        .map(|(metric, value, _)| {
            let name = metric.as_ref().map_or("-", Metric::as_str);
            match value {
                Value::Number(number) => format!("{name}={number}"),
                Value::Bool(on) => format!("{name}={on}"),
                Value::Text(text) => format!("{name}='{text}'"),
            }
        })
        .collect();
    if decoded.rejected > 0 {
        words.push(format!("{} rejected", decoded.rejected));
    }
    words.join(" ")
}

#[test]
fn without_metrics_every_number_boolean_and_short_text_is_taken() {
    let all = decoder(Format::Json, Vec::new());
    let payload = r#"{"temp":21.5,"on":true,"mode":"auto","none":null,"sensor":{"hum":40,"at":[1,2]}}"#;
    assert_eq!(
        told(&all, payload),
        "mode='auto' on=true sensor.at.0=1 sensor.at.1=2 sensor.hum=40 temp=21.5"
    );
    assert_eq!(told(&all, "21.5"), "-=21.5");
    assert_eq!(told(&all, "true"), "-=true");
    let long = format!(r#"{{"text":"{}","a/b":1,"":2}}"#, "x".repeat(65));
    assert_eq!(told(&all, &long), "3 rejected");
}

#[test]
fn device_and_time_are_no_metrics() {
    let mut named = decoder(Format::Json, Vec::new());
    named.device_at = Some("/id".to_owned());
    named.time = Some("/t".to_owned());
    let decoded = named
        .decode(br#"{"id":"boiler","t":1700000000,"temp":1}"#)
        .unwrap();
    assert_eq!(decoded.device.as_deref(), Some("boiler"));
    assert_eq!(decoded.values.len(), 1);
    let expected = OwnTime::Utc(Timestamp(1_700_000_000_000_000));
    assert_eq!(decoded.time, Some(expected));
}

#[test]
fn time_is_rfc_3339_or_unix_seconds_or_milliseconds() {
    let mut timed = decoder(Format::Json, Vec::new());
    timed.time = Some("/t".to_owned());
    let time = |text: &str| {
        timed
            .decode(format!(r#"{{"t":{text}}}"#).as_bytes())
            .unwrap()
            .time
    };
    let right = Some(OwnTime::Utc(Timestamp(1_700_000_000_500_000)));
    assert_eq!(time("1700000000.5"), right);
    assert_eq!(time("1700000000500"), right);
    assert_eq!(time("\"1700000000.5\""), right);
    assert_eq!(time("\"2023-11-14T22:13:20.5Z\""), right);
    assert_eq!(time("\"2023-11-14T23:13:20.5+01:00\""), right);
    let local = Some(OwnTime::Local(jiff::civil::datetime(
        2023,
        11,
        14,
        23,
        13,
        20,
        500_000_000,
    )));
    assert_eq!(time("\"2023-11-14T23:13:20.5\""), local);
    assert_eq!(time("\" 2023-11-14 23:13:20.5 \""), local);
    for wrong in [
        "-1",
        "1e300",
        "\"soon\"",
        "\"2023-11-14\"",
        "\"2023-11-14T23:13:20[Europe/Berlin]\"",
        "\"2023-11-14T24:13:20\"",
        "true",
        "null",
        "[]",
    ] {
        assert_eq!(time(wrong), None, "{wrong}");
    }
}

#[test]
fn a_numeric_string_is_a_number_and_null_no_reading() {
    let one = decoder(Format::Json, vec![plan("t", "/a/0/b~1c")]);
    assert_eq!(told(&one, r#"{"a":[{"b/c":" 21.5 "}]}"#), "t=21.5");
    assert_eq!(told(&one, r#"{"a":[{"b/c":null}]}"#), "");
    assert_eq!(told(&one, "{}"), "");
    assert_eq!(told(&one, r#"{"a":[{"b/c":{}}]}"#), "1 rejected");
    assert_eq!(told(&one, r#"{"a":[{"b/c":"NaN"}]}"#), "1 rejected");
    assert_eq!(told(&one, r#"{"a":[{"b/c":"-inf"}]}"#), "1 rejected");
}

#[test]
fn ignore_compares_the_raw_value_and_valid_the_converted_one() {
    let mut tenths = plan("t", "/t");
    tenths.scale = 0.5;
    tenths.offset = 1.0;
    tenths.ignore = vec![85.0];
    tenths.valid = Some((0.0, 50.0));
    let decoder = decoder(Format::Json, vec![tenths]);
    assert_eq!(told(&decoder, r#"{"t":84}"#), "t=43");
    assert_eq!(told(&decoder, r#"{"t":85}"#), "1 rejected");
    assert_eq!(told(&decoder, r#"{"t":98}"#), "t=50");
    assert_eq!(told(&decoder, r#"{"t":99}"#), "1 rejected");
    assert_eq!(told(&decoder, r#"{"t":true}"#), "t=true");
    assert_eq!(told(&decoder, r#"{"t":"open"}"#), "t='open'");
}

#[test]
fn a_number_that_overflows_in_conversion_never_passes() {
    let mut huge = plan("t", "");
    huge.scale = 1e300;
    assert_eq!(told(&decoder(Format::Number, vec![huge]), "1e300"), "1 rejected");
}

#[test]
fn number_takes_one_number_and_nothing_else() {
    let one = decoder(Format::Number, vec![plan("t", "")]);
    assert_eq!(told(&one, " -3.5\r\n"), "t=-3.5");
    assert_eq!(told(&one, "nan"), "1 rejected");
    assert_eq!(told(&decoder(Format::Number, Vec::new()), "7"), "-=7");
    assert_eq!(one.decode(b"3 4"), Err(DecodeError::NotANumber));
    assert_eq!(one.decode(b" "), Err(DecodeError::Empty));
    assert_eq!(one.decode(&[0xff]), Err(DecodeError::NotUtf8));
}

#[test]
fn csv_columns_count_from_one() {
    let columns = decoder(Format::Csv, vec![plan("a", "1"), plan("c", "3"), plan("d", "4")]);
    assert_eq!(told(&columns, "1.5, x , on,\n"), "a=1.5 c='on'");
    assert_eq!(told(&columns, "1,2"), "a=1 2 rejected");
    assert_eq!(columns.decode(b"1,\"2\",3"), Err(DecodeError::Quoted));
    assert_eq!(columns.decode(b"1,2\n3,4"), Err(DecodeError::SeveralLines));
    assert_eq!(
        told(&decoder(Format::Csv, vec![plan("z", "0"), plan("y", "x")]), "1"),
        "2 rejected"
    );
}

#[test]
fn key_value_takes_pairs_however_they_are_written() {
    let all = decoder(Format::KeyValue, Vec::new());
    assert_eq!(
        told(&all, "t=21.5 hum: 40,on=true;mode = auto"),
        "t=21.5 hum=40 on=true mode='auto'"
    );
    assert_eq!(told(&all, "a= b=2 noise at=12:30"), "b=2 at='12:30' 1 rejected");
    let mut named = decoder(Format::KeyValue, vec![plan("temperature", "t")]);
    named.device_at = Some("id".to_owned());
    let decoded = named.decode(b"id=boiler t=4 x=1").unwrap();
    assert_eq!(decoded.device.as_deref(), Some("boiler"));
    assert_eq!(decoded.values.len(), 1);
    assert_eq!(named.decode(b"hello world"), Err(DecodeError::NoPairs));
}

#[test]
fn deep_nesting_is_an_error_not_an_overflow() {
    let deep = "[".repeat(100_000);
    let result = decoder(Format::Json, Vec::new()).decode(deep.as_bytes());
    assert!(matches!(result, Err(DecodeError::NotJson(_))), "{result:?}");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_every_number_is_finite(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        text in "[\\[\\]{}:,;= \"a0-9.eE+\\-\\n\u{e9}]{0,80}",
    ) {
        for format in [Format::Json, Format::Number, Format::Csv, Format::KeyValue] {
            for metrics in [Vec::new(), vec![plan("m", ""), plan("n", "1"), plan("o", "/a")]] {
                let mut decoder = decoder(format, metrics);
                decoder.device_at = Some("a".to_owned());
                decoder.time = Some("/a".to_owned());
                for payload in [&bytes[..], text.as_bytes()] {
                    for (_, value, _) in decoder.decode(payload).unwrap_or_default().values {
                        prop_assert!(!matches!(value, Value::Number(number) if !number.is_finite()));
                    }
                }
            }
        }
    }
}
