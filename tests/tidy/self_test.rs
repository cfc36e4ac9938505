//! Each check, fed something bad.

use std::path::Path;

use super::*;

fn snippet(path: &str, text: &str) -> [Module; 1] {
    let path: Vec<String> = path.split("::").map(str::to_owned).collect();
    [Module {
        path,
        file: "snippet.rs".into(),
        syntax: syn::parse_str(text).expect("the snippet parses"),
    }]
}

#[track_caller]
fn edges(path: &str, text: &str) -> usize {
    forbidden_edges(&snippet(path, text), &table(IMPORTS)).len()
}

#[test]
fn an_edge_is_seen_in_whatever_way_it_is_written() {
    for text in [
        "use crate::journal::Journal;",
        "use crate::{event::Draft, journal::{self, Health}};",
        "use crate::journal as j;",
        "use super::super::journal::*;",
        "use self::super::super::journal::Journal;",
        "fn f() { crate::journal::open(); }",
        "fn f(j: &crate::journal::Journal) {}",
        "fn f() -> Vec<crate::journal::Journal> { Vec::new() }",
        "fn f(e: E) { match e { crate::journal::Error::Full => {} } }",
        "fn f() { format!(\"{}\", crate::journal::LEN); }",
        "fn f() { select! { _ = crate::{time::Clock, journal::Journal} => {} } }",
        "macro_rules! m { () => { $crate::journal::LEN } }",
        "#[derive(Deserialize)] struct S { #[serde(with = \"crate::journal::text\")] a: u8 }",
        "mod inner { use super::super::super::journal::Journal; }",
        "impl crate::journal::Reader for S {}",
    ] {
        assert!(edges("rule::engine", text) > 0, "not seen: {text}");
    }
}

#[test]
fn what_the_table_allows_passes() {
    for text in [
        "use crate::{event::{Draft, Position}, reading::Reading, time::EngineTime};",
        "use super::{state::Outcome, Rule};",
        "use std::{fmt, sync::Arc}; use journal::Journal;",
        "/// See [`crate::journal::Journal`].\npub(crate) struct S;",
        "pub(in crate::rule) fn f(&self) { self.0.len(); assert!(self.a > 1); }",
        "#[cfg(test)] mod tests { use crate::journal::Journal; }",
        "#[cfg(test)] use crate::journal::Journal;",
        "struct S; impl S { #[cfg(all(test, unix))] fn f() { crate::journal::open(); } }",
    ] {
        assert_eq!(edges("rule::engine", text), 0, "seen: {text}");
    }
}

#[test]
fn only_code_for_tests_alone_is_exempt() {
    assert_eq!(edges("rule", "#[cfg(not(test))] use crate::journal::Journal;"), 1);
    assert_eq!(
        edges("rule", "#[cfg(any(test, unix))] use crate::journal::Journal;"),
        1
    );
}

#[test]
fn a_part_of_a_module_may_be_allowed_without_the_rest() {
    assert_eq!(
        edges(
            "journal::writer",
            "use crate::rule::state::{Outcome, StateChange};"
        ),
        0
    );
    assert_eq!(edges("journal::writer", "use crate::rule::Rule;"), 1);
    assert_eq!(edges("journal::writer", "use crate::rule;"), 1);
    assert_eq!(edges("journal::writer", "use crate::rule::statement;"), 1);
}

#[test]
fn nobody_takes_a_name_from_the_root() {
    assert_eq!(edges("journal", "use crate::Position;"), 1);
    assert_eq!(edges("journal", "use crate::*;"), 1);
    assert_eq!(edges("journal", "use crate as house;"), 1);
}

#[test]
fn the_binary_is_held_to_the_table_too() {
    assert_eq!(edges("main", "use tidegate::{cli, telemetry};"), 0);
    assert_eq!(edges("main", "fn main() { tidegate::journal::open(); }"), 1);
}

#[test]
fn an_impure_name_is_seen_in_whatever_way_it_is_written() {
    for text in [
        "use tokio::sync::watch;",
        "use tokio_util::codec::Decoder;",
        "use std::{fs, fmt};",
        "use std::net::SocketAddr;",
        "use std::time::{self, Duration, Instant};",
        "use std::time; fn f() { time::SystemTime::now(); }",
        "use std as s;",
        "use std::*;",
        "fn f() { tracing::info!(\"x\"); }",
        "fn f() { assert!(std::fs::exists(\"x\").is_ok()); }",
        "fn f(c: &crate::time::Clock) {}",
        "#[tracing::instrument] fn f() {}",
        "extern crate rustix;",
    ] {
        assert!(
            !impurities(&snippet("rule::engine", text)).is_empty(),
            "not seen: {text}"
        );
    }
}

#[test]
fn purity_binds_only_pure_modules_and_only_their_own_code() {
    let text = "use tokio::sync::watch; use std::fs;";
    assert_none(&impurities(&snippet("journal::writer", text)));
    assert_none(&impurities(&snippet("source::mqtt::serve", text)));
    let text = "use std::{fmt, time::Duration}; #[cfg(test)] mod tests { use std::fs; }";
    assert_none(&impurities(&snippet("rule", text)));
}

#[test]
fn a_line_too_many_is_seen() {
    let file = Path::new("snippet.rs");
    assert!(too_long(file, &"x\n".repeat(MAX_LINES)).is_none());
    assert!(too_long(file, &"x\n".repeat(MAX_LINES + 1)).is_some());
}

#[test]
fn an_undocumented_key_is_seen() {
    let text = "#[derive(Debug, Deserialize)] #[serde(rename_all = \"kebab-case\")] struct Raw {
                    max_bytes: u8,
                    #[serde(default, rename = \"when-full\")] policy: u8,
                    r#type: u8,
                    #[serde(skip)] span: u8,
                }
                struct Other { not_a_key: u8 }";
    let keys = keys(text);
    assert_eq!(
        keys.iter().map(String::as_str).collect::<Vec<_>>(),
        ["max-bytes", "type", "when-full"]
    );
    // Without backticks, or as a part of another word, a key is not documented.
    assert_eq!(
        undocumented(&keys, "`max-bytes = 1` `prototype` when-full `[[x.type]]`"),
        ["when-full"]
    );
    assert_eq!(
        undocumented(&keys, "`max-bytes-more`, `types`"),
        ["max-bytes", "type", "when-full"]
    );
}

#[test]
fn an_unexplained_dependency_is_seen() {
    let manifest = "[dependencies]\nserde_json = \"1\"\n[dev-dependencies]\nsled = { version = \"1\" }";
    assert_eq!(
        undocumented(&dependencies(manifest), "`serde_json`: sled"),
        ["sled"]
    );
}

#[test]
fn a_test_that_a_document_names_is_found_in_its_text() {
    let named = tests_named("proved by `tests/a.rs`, `tests/b/` and `cargo test`");
    assert_eq!(named.into_iter().collect::<Vec<_>>(), ["tests/a.rs", "tests/b/"]);
}
