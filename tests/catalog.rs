//! `tidegate catalog`: what it prints is what tools for AsyncAPI and JSON Schema take, tells every event that the
//! configuration can emit, and every example in it is right. Needs Node.js and the packages of `tests/tools`
//! (`./test` installs them).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};
use tidegate::event::gateway::FACTS;

#[path = "contract/mod.rs"]
mod contract;

/// Every form of a sink, every kind of rule, and what an installer may call things.
const SITE: &str = r#"
[gateway]
id = "plant.room_1"
source = "https://example.com/gateways/plant-room-1"
labels = { site = "hq" }

[events]
off = []
type-prefix = "com.example.site."

[mqtt]
listen = ["127.0.0.1:1883"]

[[mqtt.readings]]
topic = "t/{device}"
format = "json"

[[mqtt.readings.metric]]
name = "temperature"
at = "/temp"
unit = "Cel"

[[mqtt.readings.metric]]
name = "contact"
at = "/contact"

[[serial]]
name = "boiler"
port = "/dev/boiler-bus"
baud = 9600
format = "json"
device = "boiler"
[[serial.metric]]
name = "pressure"
at = "/bar"
unit = "bar"

[[device]]
id = "door-3"

[[device]]
id = "flat-*"
labels = { kind = "flat" }

[[rule]]
event = "HighTemperature"
metric = "temperature"
above = 30.0
clear = 28.0
hold = "30s"
runbook = "https://wiki.example.com/hot"

[[rule]]
event = "HighTemperature"
name = "flat-too-hot"
metric = "temperature"
devices = ["flat-*"]
where = { kind = "flat" }
above = 26.0
margin = 1.0
severity = "critical"

[[override]]
rule = "high-temperature"
devices = ["server-*"]
above = 24.0
severity = "info"

[[rule]]
event = "TooCold"
metric = "temperature"
below = 5
margin = 1

[[rule]]
event = "PressureOutside"
metric = "pressure"
outside = [1.0, 2.5]
margin = 0.1

[[rule]]
event = "PressureInside"
metric = "pressure"
inside = [4.0, 5.0]
hold = "1500ms"

[[rule]]
event = "DoorOpen"
cleared-event = "DoorClosed"
metric = "contact"
equals = true

[[rule]]
event = "RisingFast"
metric = "temperature"
rises-by = 5.0
within = "10m"

[[rule]]
event = "MeanTooHigh"
metric = "temperature"
of = "mean"
over = "1h"
above = 25.0
remind-every = "1d"

[[rule]]
event = "SensorSilent"
metric = "temperature"
silent-for = "10m"

[[rule]]
event = "HeatingIneffective"
all = [{ metric = "temperature", below = 18.0 }, { device = "boiler", metric = "pressure", above = 1.0 }]
hold = "20m"

[[rule]]
event = "StateUnknown"
metric = "contact"
not-equals = "closed"

[[rule]]
event = "TooWarmAtNight"
metric = "temperature"
above = 22.0
margin = 1.0
unless = { device = "boiler", metric = "pressure", below = 0.5 }
unless-after = "10m"
during = ["night"]
max-raises = "20/d"
remind-every = "6h"

[period.night]
between = ["22:00", "06:00"]

[[sink.mqtt]]
name = "cloud"
url = "mqtts://broker.example.com"
"#;

fn tidegate(arguments: &[&str], config: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.arg("catalog").arg("--config").arg(config).args(arguments);
    command.output().expect("it runs")
}

/// A webhook beside the broker.
fn hooks(mode: &str) -> String {
    format!(
        "[[sink.http]]\nname = \"hooks\"\nurl = \"https://hooks.example.com/T0/s3cret\"\nmode = \"{mode}\"\n"
    )
}

struct Site {
    folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
        }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    fn catalog(&self, config: &str, format: &str) -> String {
        let path = self.file("gateway.toml", config);
        let output = tidegate(&["--format", format], &path);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn json(&self, config: &str, format: &str) -> Value {
        serde_json::from_str(&self.catalog(config, format)).expect("JSON")
    }
}

/// What the official parser says of a document; none, with its complaints, if it does not take it.
fn parsed(site: &Site, documents: &[String]) -> Result<Vec<Value>, String> {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/node/node_modules");
    let files = documents.iter().enumerate();
    let files = files.map(|(number, text)| site.file(&format!("{number}.json"), text));
    let output = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract/asyncapi.cjs"))
        .args(files)
        .env("NODE_PATH", tools)
        .output()
        .expect("Node.js is installed (./test does it)");
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    Ok(text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect())
}

fn texts(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list").iter();
    list.map(|text| text.as_str().expect("a text").to_owned())
        .collect()
}

/// All that [`SITE`] can say: the rules' events and ends, and every one of the gateway's own.
fn expected() -> BTreeSet<String> {
    let rules = [
        "RisingFast",
        "MeanTooHigh",
        "SensorSilent",
        "HeatingIneffective",
        "HighTemperature",
        "TooCold",
        "PressureOutside",
        "PressureInside",
        "StateUnknown",
        "TooWarmAtNight",
    ];
    let mut names: BTreeSet<String> = rules
        .iter()
        .flat_map(|name| [(*name).to_owned(), format!("{name}Cleared")])
        .collect();
    names.extend(["DoorOpen".to_owned(), "DoorClosed".to_owned()]);
    names.extend(FACTS.iter().map(|fact| fact.name.to_owned()));
    names
}

#[test]
fn the_official_parser_takes_the_catalog_in_every_form_and_finds_every_event_in_it() {
    let site = Site::new();
    let forms = [
        "",
        "encoding = \"cbor\"\n",
        "mode = \"binary\"\n",
        "mode = \"binary\"\nencoding = \"cbor\"\n",
        "topic = \"tidegate/{gateway}/events\"\n",
        "topic = \"{severity}/{transition}/{metric}/{device}\"\nversion = \"3.1.1\"\n",
        &hooks("structured"),
        &hooks("binary"),
        &hooks("batched"),
    ];
    let documents = forms.map(|form| site.catalog(&format!("{SITE}{form}"), "asyncapi"));
    let found = parsed(&site, &documents).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(found.len(), forms.len());
    for found in &found {
        assert_eq!(found["version"], "3.0.0");
        assert_eq!(texts(&found["events"]), expected());
        let examples = found["examples"].as_array().expect("a list");
        assert!(
            examples.iter().all(|count| *count == 1),
            "each has an example: {examples:?}"
        );
    }
    let addresses = texts(&found[0]["addresses"]);
    for address in [
        "tidegate/plant.room_1/events/HighTemperature/{device}",
        "tidegate/plant.room_1/events/DoorClosed/{device}",
        "tidegate/plant.room_1/events/GatewayStarted/plant.room_1",
        "tidegate/plant.room_1/events/SourceFailed/{device}",
    ] {
        assert!(
            addresses.contains(address),
            "{address} is not among {addresses:#?}"
        );
    }
    assert!(texts(&found[4]["addresses"]).contains("tidegate/plant.room_1/events"));
    assert!(texts(&found[5]["addresses"]).contains("{severity}/{transition}/temperature/{device}"));
    assert!(texts(&found[5]["addresses"]).contains("warning/cleared/pressure/{device}"));
}

#[test]
fn a_sink_is_told_with_the_events_that_may_pass_its_filter() {
    let site = Site::new();
    let filter = "events = [\"HighTemperature\", \"Gateway*\"]\nmin-severity = \"error\"\n";
    let document = site.json(&format!("{SITE}{}{filter}", hooks("batched")), "asyncapi");
    let events = document["channels"]["sink.hooks.events"]["messages"]
        .as_object()
        .expect("messages");
    let events: Vec<&str> = events.keys().map(String::as_str).collect();
    // Usually a warning, but critical in a flat; and what tells of a loss is never kept back.
    let expected = [
        "EventSetAside",
        "EventsDiscarded",
        "HighTemperature",
        "HighTemperatureCleared",
    ];
    assert_eq!(events, expected);
    assert_eq!(document["channels"]["sink.hooks.events"]["address"], Value::Null);
    let server = &document["servers"]["sink.hooks"];
    assert_eq!(
        (&server["host"], &server["protocol"]),
        (&json!("hooks.example.com"), &json!("https"))
    );
}

#[test]
fn where_a_webhook_is_posted_to_is_not_told() {
    let site = Site::new();
    for format in ["asyncapi", "markdown", "json-schema"] {
        let text = site.catalog(&format!("{SITE}{}", hooks("binary")), format);
        assert!(!text.contains("s3cret"), "{text}");
        assert!(
            format == "json-schema" || text.contains("hooks.example.com"),
            "{text}"
        );
    }
}

#[test]
fn the_official_parser_would_see_a_document_that_is_wrong() {
    let site = Site::new();
    let mut document = site.json(SITE, "asyncapi");
    document["channels"]["door.DoorOpen"]["parameters"] = json!({});
    let wrong = parsed(&site, &[document.to_string()]).expect_err("it is wrong");
    assert!(wrong.contains("door.DoorOpen"), "{wrong}");
}

/// The parser does not hold examples against their schemas.
#[test]
fn every_example_in_the_asyncapi_document_is_right_by_its_messages_schemas() {
    let site = Site::new();
    let forms = [
        "",
        "encoding = \"cbor\"\n",
        "mode = \"binary\"\n",
        "mode = \"binary\"\nencoding = \"cbor\"\n",
        &hooks("structured"),
        &hooks("binary"),
        &hooks("batched"),
    ];
    for form in forms {
        let document = site.json(&format!("{SITE}{form}"), "asyncapi");
        let messages = document["components"]["messages"].as_object().expect("messages");
        // The sink's form, and the door's.
        assert_eq!(
            messages.len(),
            expected().len() * if form.is_empty() { 1 } else { 2 }
        );
        for (name, message) in messages {
            for part in ["payload", "headers"] {
                let Some(example) = message["examples"][0].get(part) else {
                    assert!(part == "headers" && message.get(part).is_none(), "{name}");
                    continue;
                };
                let pointer = format!("#/components/messages/{name}/{part}");
                let schema = json!({ "$ref": pointer, "components": document["components"] });
                let schema =
                    jsonschema::draft7::new(&schema).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert!(schema.is_valid(example), "{name}: {example:#}");
                assert!(!schema.is_valid(&json!({})), "{name}: its schema takes anything");
            }
        }
    }
}

#[test]
fn every_example_is_right_by_the_contract_and_by_the_catalogs_own_schema_and_by_cloudevents() {
    let site = Site::new();
    let schema = site.json(SITE, "json-schema");
    let whole = jsonschema::draft7::options().should_validate_formats(true);
    let whole = whole.build(&schema).unwrap_or_else(|error| panic!("{error}"));
    let official = contract::official();
    let mut seen = BTreeSet::new();
    for (name, definition) in schema["definitions"].as_object().expect("definitions") {
        let Some(example) = definition.pointer("/examples/0") else {
            continue;
        };
        seen.insert(name.clone());
        contract::check(example);
        assert!(whole.is_valid(example), "{example:#}");
        assert!(official.is_valid(example), "{example:#}");
    }
    assert_eq!(seen, expected());
}

#[test]
fn the_schema_takes_what_is_added_later_and_no_event_that_is_not_in_it() {
    let site = Site::new();
    let schema = site.json(SITE, "json-schema");
    let whole = jsonschema::draft7::new(&schema).unwrap_or_else(|error| panic!("{error}"));
    let mut event = schema["definitions"]["TooCold"]["examples"][0].clone();
    event["data"]["later"] = json!(1);
    event["later"] = json!("x");
    assert!(whole.is_valid(&event));
    event["type"] = json!("com.example.site.Other");
    assert!(!whole.is_valid(&event));
}

#[test]
fn an_example_quotes_every_number_of_its_rule() {
    let site = Site::new();
    let schema = site.json(SITE, "json-schema");
    for name in ["TooWarmAtNight", "TooWarmAtNightCleared"] {
        assert_eq!(
            schema["definitions"][name]["examples"][0]["data"]["rule"]["params"],
            json!({
                "above": 22.0, "clear": 21.0,
                "unless": { "device": "boiler", "metric": "pressure", "below": 0.5, "clear": 0.5 },
                "unless_after_s": 600, "during": ["night"], "max_raises": "20/d", "remind_every_s": 21600,
            })
        );
    }
    let meaning = schema["definitions"]["TooWarmAtNight"]["description"].as_str();
    let meaning = meaning.expect("text");
    assert!(meaning.contains("max_raises = \"20/d\""), "{meaning}");
}

#[test]
fn an_example_is_said_in_the_words_of_the_gateway() {
    let site = Site::new();
    let schema = site.json(SITE, "json-schema");
    for (name, summary) in [
        ("SensorSilent", "boiler: no temperature for 10m"),
        (
            "MeanTooHigh",
            "boiler: mean of temperature over 1h is 26 Cel, above 25",
        ),
        (
            "RisingFast",
            "boiler: rise of temperature within 10m is 5 Cel, at least 5",
        ),
        (
            "HeatingIneffective",
            "door-3: heating-ineffective: temperature is 17 Cel, below 18, and boiler pressure is 2 bar, above 1",
        ),
        ("StateUnknown", "door-3: contact is other, not closed"),
        (
            "HighTemperatureCleared",
            "door-3: temperature is back to normal: 28 Cel",
        ),
    ] {
        let data = &schema["definitions"][name]["examples"][0]["data"];
        let said = data["summary"].as_str().expect("text");
        let told = said.split_once(": ").expect("whose").1;
        assert_eq!(told, summary.split_once(": ").expect("whose").1, "{name}");
    }
}

#[test]
fn rules_that_share_an_event_share_its_entry_and_every_severity_is_told() {
    let site = Site::new();
    let schema = site.json(SITE, "json-schema");
    let hot = &schema["definitions"]["HighTemperature"];
    assert_eq!(hot["properties"]["severitynumber"]["enum"], json!([13, 9, 21]));
    let meaning = hot["description"].as_str().expect("text");
    assert!(
        meaning.contains("high-temperature") && meaning.contains("flat-too-hot"),
        "{meaning}"
    );
    assert_eq!(
        hot["properties"]["type"]["const"],
        "com.example.site.HighTemperature"
    );
}

#[test]
fn what_is_off_is_not_in_it() {
    let site = Site::new();
    let some_off = SITE.replace("off = []", "off = [\"GatewayAlive\"]");
    let schema = site.json(&some_off, "json-schema");
    assert!(schema["definitions"].get("GatewayAlive").is_none());
    assert!(schema["definitions"].get("GatewayStarted").is_some());
}

#[test]
fn people_read_each_event_with_its_topics_and_an_example() {
    let site = Site::new();
    let text = site.catalog(SITE, "markdown");
    for name in expected() {
        assert!(text.contains(&format!("\n## {name}\n")), "{name}");
    }
    for line in [
        "- Type: `com.example.site.DoorOpen`",
        "- Topic at `sink.cloud`: `tidegate/plant.room_1/events/DoorOpen/{device}`",
        "| `alarms.since` | time | When the condition became true. |",
        "| `epoch` |",
        "| `rule.params.hold_s` |",
        "| `episode.since` | When the condition became true. |",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert_eq!(text.matches("```json").count(), expected().len());
}

#[test]
fn docs_events_md_has_every_event_of_the_gateways_own_with_its_severity() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let text = std::fs::read_to_string(file).expect("readable");
    for fact in FACTS {
        let row = text
            .lines()
            .find(|line| line.starts_with("| `") && line.contains(&format!("`{}`", fact.name)));
        let row = row.unwrap_or_else(|| panic!("{} has no row", fact.name));
        assert!(row.contains(&format!("| {} |", fact.severity.as_str())), "{row}");
    }
}

#[test]
fn a_configuration_away_from_its_gateway_has_a_catalog_without_its_certificates() {
    let site = Site::new();
    let text = site.catalog(&format!("{SITE}ca = \"/nowhere/ca.pem\"\n"), "markdown");
    assert!(text.starts_with("# Events of plant.room_1\n"));
}

#[test]
fn a_wrong_configuration_has_the_report_of_check_and_no_catalog() {
    let site = Site::new();
    let path = site.file("gateway.toml", "[[rule]]\nevent = \"x\"\n");
    let output = tidegate(&[], &path);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(78), 0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("CamelCase"));
}
