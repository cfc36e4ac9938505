//! The catalog for people.

use std::fmt::{Error, Write};

use serde_json::Value as Json;

use super::{Catalog, Content, Described, Level, words};
use crate::event::{
    cloudevents::topic,
    gateway::{Field, Shape},
    schema,
};

/// One section an event.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "memory takes all that is written")]
pub fn markdown(catalog: &Catalog) -> String {
    let mut text = String::new();
    write_all(&mut text, catalog).expect("memory takes all that is written");
    text
}

fn write_all(out: &mut String, catalog: &Catalog) -> Result<(), Error> {
    writeln!(out, "# Events of {}\n", catalog.gateway)?;
    writeln!(
        out,
        "CloudEvents 1.0, by tidegate {}. docs/events.md says what each attribute and field means, `tidegate catalog \
         --format json-schema` what is allowed. Receivers ignore what they do not know.\n",
        catalog.version
    )?;
    for outlet in &catalog.outlets {
        writeln!(out, "- `{}` ({}): {}", outlet.key, outlet.host, outlet.about)?;
    }
    writeln!(out, "\n| event | severity | device |\n|---|---|---|")?;
    for event in &catalog.events {
        writeln!(
            out,
            "| [{0}](#{1}) | {2} | {3} |",
            event.name,
            event.name.to_lowercase(),
            words(&event.severities),
            cell(event.device.described()),
        )?;
    }
    for event in &catalog.events {
        section(out, catalog, event)?;
    }
    writeln!(
        out,
        "\n## Attributes\n\nOf every event.\n\n| attribute | says |\n|---|---|"
    )?;
    members(out, "", &schema::attributes())?;
    if catalog
        .events
        .iter()
        .any(|event| matches!(event.data, Content::Rule))
    {
        writeln!(out, "\n## Data of rules' events\n\n| `data` | says |\n|---|---|")?;
        members(out, "", &schema::rule_data())?;
    }
    Ok(())
}

fn section(out: &mut String, catalog: &Catalog, event: &Described) -> Result<(), Error> {
    writeln!(out, "\n## {}\n\n{}\n", event.name, event.meaning)?;
    writeln!(out, "- Type: `{}`", event.kind)?;
    writeln!(out, "- Severity: {}", words(&event.severities))?;
    if !event.transitions.is_empty() {
        let transitions: Vec<_> = event.transitions.iter().copied().map(topic::transition).collect();
        writeln!(out, "- Transition: {}", transitions.join(", "))?;
    }
    for outlet in catalog
        .outlets
        .iter()
        .filter(|outlet| outlet.events.contains(&event.name))
    {
        match outlet.topic(catalog, event) {
            Some(topic) => writeln!(out, "- Topic at `{}`: `{topic}`", outlet.key)?,
            None => writeln!(out, "- Posted to `{}`", outlet.key)?,
        }
    }
    if let Level::Varies(what) = &event.device {
        writeln!(out, "- `{{device}}`: {what}")?;
    }
    if let Content::Gateway(fact) = event.data {
        writeln!(out, "\n| `data` | is | says |\n|---|---|---|")?;
        rows(out, "", fact.fields)?;
    }
    let example = serde_json::to_string_pretty(&event.rendered()).map_err(|_| Error)?;
    writeln!(out, "\n```json\n{example}\n```")
}

fn rows(out: &mut String, prefix: &str, fields: &[Field]) -> Result<(), Error> {
    for field in fields {
        let name = format!("{prefix}{}", field.name);
        writeln!(
            out,
            "| `{name}` | {} | {} |",
            kind(field.shape),
            cell(field.about.trim())
        )?;
        let members = match field.shape {
            Shape::Object(members) | Shape::List(&Shape::Object(members)) => members,
            _ => &[],
        };
        rows(out, &format!("{name}."), members)?;
    }
    Ok(())
}

/// What a schema says of each member, and of theirs.
fn members(out: &mut String, prefix: &str, schema: &Json) -> Result<(), Error> {
    for (name, member) in schema
        .get("properties")
        .and_then(Json::as_object)
        .into_iter()
        .flatten()
    {
        let name = format!("{prefix}{name}");
        let about = member
            .get("description")
            .and_then(Json::as_str)
            .unwrap_or_default();
        writeln!(out, "| `{name}` | {} |", cell(about))?;
        for inside in [Some(member), member.get("items")].into_iter().flatten() {
            members(out, &format!("{name}."), inside)?;
        }
    }
    Ok(())
}

fn kind(shape: Shape) -> String {
    match shape {
        Shape::Text => "text".to_owned(),
        Shape::Whole => "whole number".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Flag => "true or false".to_owned(),
        Shape::Time => "time".to_owned(),
        Shape::List(each) => format!("list of {}", kind(*each)),
        Shape::Maybe(one) => format!("{} or null", kind(*one)),
        Shape::Object(_) => "object".to_owned(),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
