//! What the log says: named once, explained in docs/operating.md and, if it has an id, in systemd's message catalog.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use tidegate::telemetry::ids::IDS;

use crate::source::{house, is_test, read, root};

/// One `warn!(...)` and the like.
#[derive(Debug, Default, PartialEq)]
struct Message {
    level: String,
    /// `name: "..."`.
    name: Option<String>,
    /// The format string.
    text: Option<String>,
    /// Every word outside of expressions in brackets: the fields are among them.
    words: BTreeSet<String>,
}

#[test]
fn every_message_from_warning_on_is_explained_in_operating_md() {
    let loud = messages().into_iter().filter(|message| message.level != "info");
    let said: BTreeSet<String> = loud.filter_map(|message| Some(head(&message.text?))).collect();
    assert!(said.len() > 20, "where did the messages go? {said:?}");
    let explained = rows(&read(&root().join("docs/operating.md")));
    let missing: Vec<_> = said.difference(&explained).collect();
    assert!(
        missing.is_empty(),
        "not in the table of docs/operating.md: {missing:#?}"
    );
    let gone: Vec<_> = explained.difference(&said).collect();
    assert!(
        gone.is_empty(),
        "in the table of docs/operating.md, but not said any more: {gone:#?}"
    );
}

#[test]
fn the_names_of_messages_are_those_that_have_ids() {
    let said: BTreeSet<String> = messages()
        .into_iter()
        .filter_map(|message| message.name)
        .collect();
    let mut known: BTreeSet<String> = IDS.iter().map(|(name, _)| (*name).to_owned()).collect();
    // No message of a running gateway: `telemetry::last_word`.
    assert!(known.remove("GatewayFailed"));
    assert_eq!(said, known, "names in src/ and in src/telemetry/ids.rs");
}

#[test]
fn the_catalog_explains_each_id_once_with_fields_that_its_message_has() {
    let mut fields: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in messages() {
        if let Some(name) = message.name {
            fields.entry(name).or_default().extend(message.words);
        }
    }
    let text = read(&root().join("packaging/tidegate.catalog"));
    let entries: Vec<(&str, &str)> = text
        .split("\n-- ")
        .skip(1)
        .map(|entry| entry.split_once('\n').expect("an id stands alone in its line"))
        .collect();
    let explained: Vec<&str> = entries.iter().map(|(id, _)| *id).collect();
    let known: Vec<&str> = IDS.iter().map(|(_, id)| *id).collect();
    assert_eq!(
        explained, known,
        "the catalog has the ids of src/telemetry/ids.rs, in their order"
    );
    assert_eq!(
        known.iter().collect::<BTreeSet<_>>().len(),
        known.len(),
        "an id is given once"
    );
    for ((name, id), (_, entry)) in IDS.iter().zip(&entries) {
        assert!(
            id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
            "{name}: {id}"
        );
        let (head, body) = entry
            .split_once("\n\n")
            .expect("a blank line between head and body");
        assert!(
            head.starts_with("Subject: ") && !body.trim().is_empty(),
            "{name}: {entry}"
        );
        for field in entry.split('@').skip(1).step_by(2) {
            let is_known = fields
                .get(*name)
                .is_some_and(|fields| fields.contains(&field.to_lowercase()));
            assert!(is_known, "{name}: its message has no field for @{field}@");
        }
    }
}

#[test]
fn systemd_takes_the_catalog() {
    let there = tempfile::tempdir().expect("a folder");
    let catalogs = there.path().join("usr/lib/systemd/catalog");
    fs::create_dir_all(&catalogs).expect("made");
    fs::copy(
        root().join("packaging/tidegate.catalog"),
        catalogs.join("tidegate.catalog"),
    )
    .expect("copied");
    let journalctl = |what: &str| {
        let mut command = Command::new("journalctl");
        command.arg("--root").arg(there.path()).arg(what);
        let out = command
            .output()
            .expect("journalctl is installed (./test does it)");
        assert!(out.status.success(), "{what}: {out:?}");
        String::from_utf8(out.stdout).expect("UTF-8")
    };
    journalctl("--update-catalog");
    let listed = journalctl("--list-catalog");
    for (name, id) in IDS {
        let line = listed.lines().find(|line| line.starts_with(id));
        let explained = line.is_some_and(|line| line.contains(" Tidegate: ") && !line.contains("n/a"));
        assert!(explained, "{name}: {line:?}");
    }
}

#[test]
fn a_message_is_seen_in_whatever_way_it_is_written() {
    let seen = |text: &str| {
        let mut found = Messages::default();
        found.visit_file(&syn::parse_str(text).expect("the snippet parses"));
        found.0
    };
    let heads = |text| -> Vec<String> {
        seen(text)
            .iter()
            .map(|found| head(found.text.as_deref().unwrap_or("")))
            .collect()
    };
    assert_eq!(heads(r#"fn f() { warn!("the disk: {why}"); }"#), ["the disk"]);
    assert_eq!(
        heads(r#"fn f() { tracing::error!(sink = %s.name("x"), "gone; why") }"#),
        ["gone"]
    );
    assert_eq!(
        heads(r#"fn f() { select! { a = b => { warn!(x = "y", ?z, "in there") } } }"#),
        ["in there"]
    );
    assert_eq!(
        heads(r#"fn f(e: E) { match e { _ => warn!("of {} things", e) } }"#),
        ["of"]
    );
    assert_eq!(
        heads(r#"#[cfg(test)] mod tests { fn f() { warn!("no") } }"#),
        [""; 0]
    );
    let named = seen(r#"fn f() { info!(name: "UplinkLost", sink, "a") }"#);
    assert_eq!(named[0].name.as_deref(), Some("UplinkLost"));
    assert!(named[0].words.contains("sink"), "{named:?}");
    let table = "| `a thing`: it | nothing |\n\n## The messages of the log\n\n| message | what to do |\n|---|---|\n| `gone`: x | `y` |\n\n## Next\n\n| `no` | |\n";
    assert_eq!(rows(table), BTreeSet::from(["gone".to_owned()]));
}

fn messages() -> Vec<Message> {
    let mut found = Messages::default();
    for module in &house().modules {
        found.visit_file(&module.syntax);
    }
    found.0
}

/// A message up to where it goes into detail.
fn head(text: &str) -> String {
    let end = text.find([':', ';', '(', '{']).unwrap_or(text.len());
    text.split_at(end).0.trim().to_owned()
}

/// What stands in backticks first in each row of the table of messages.
fn rows(document: &str) -> BTreeSet<String> {
    let section = document
        .split("\n## The messages of the log\n")
        .nth(1)
        .unwrap_or("");
    let section = section.split("\n## ").next().unwrap_or("");
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[derive(Default)]
struct Messages(Vec<Message>);

impl Messages {
    /// Those in tokens that nobody has parsed: a macro's input.
    fn look(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let TokenTree::Group(group) = token else { continue };
            let before = |back: usize| {
                at.checked_sub(back)
                    .and_then(|at| tokens.get(at))
                    .map(ToString::to_string)
            };
            match (before(2), before(1)) {
                (Some(name), Some(mark)) if mark == "!" => self.called(&name, group.stream()),
                _ => self.look(group.stream()),
            }
        }
    }

    fn called(&mut self, name: &str, tokens: TokenStream) {
        if ["warn", "error", "info"].contains(&name) {
            self.0.push(message(name, tokens));
        } else {
            self.look(tokens);
        }
    }
}

fn message(level: &str, tokens: TokenStream) -> Message {
    let mut message = Message {
        level: level.to_owned(),
        ..Message::default()
    };
    let mut before = String::new();
    let mut last = String::new();
    for token in tokens {
        match &token {
            TokenTree::Literal(literal) => {
                let text = syn::parse_str::<syn::LitStr>(&literal.to_string()).map(|literal| literal.value());
                match (text, last.as_str()) {
                    (Ok(name), ":") if before == "name" => message.name = Some(name),
                    (Ok(text), "" | ",") if message.text.is_none() => message.text = Some(text),
                    _ => {}
                }
            }
            TokenTree::Ident(ident) => _ = message.words.insert(ident.to_string()),
            _ => {}
        }
        before = std::mem::replace(&mut last, token.to_string());
    }
    message
}

impl<'ast> Visit<'ast> for Messages {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().map(|segment| segment.ident.to_string());
        self.called(&name.unwrap_or_default(), call.tokens.clone());
    }
}
