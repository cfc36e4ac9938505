//! The house rules that no compiler holds: who may import whom, what is pure, how long a file is, and that
//! every configuration key, every dependency and every warning of the log is explained.
//!
//! The code is parsed, not searched: grouped imports, `super::super::`, paths in expressions, in macros and in
//! serde's attributes all count; documentation and `#[cfg(test)]` code do not. Each check has a test beside it
//! that feeds it a bad snippet, so that a check which has stopped seeing fails too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proc_macro2::TokenTree;
use syn::visit::Visit;

use crate::source::{Module, arguments, house, is_test, names, read, root, rust_files, spelled};

#[path = "tidy/log.rs"]
mod log;
#[path = "tidy/self_test.rs"]
mod self_test;
#[path = "tidy/source.rs"]
mod source;

/// Who may import whom. Each line names only lines above it, so there is no cycle. `ARCHITECTURE.md` shows the
/// same text, letter by letter. A new edge is a decision: it shows in the diff of this table.
const IMPORTS: &str = "\
time       <-
seldom     <-
reading    <- time
event      <- time reading
rule       <- time reading event
decode     <- time reading
journal    <- time event rule::state
hub        <- time event journal
source     <- time seldom reading event decode hub journal::Journal journal::Health
forward    <- time seldom event rule::Pattern journal
config     <- time reading event rule decode source journal forward
recorder   <- time reading
story      <- time reading event rule config
control    <-
firstboot  <- time config
catalog    <- time reading event rule source::mqtt forward config
daemon     <- time seldom reading event rule decode source journal forward hub config recorder control
telemetry  <-
cli        <- time reading event rule decode journal forward config control firstboot recorder story catalog daemon telemetry
main       <- cli telemetry
";

/// What decides is pure, with all that is below it: no I/O, no clock, no async, no logging.
const PURE: &[&str] = &[
    "reading",
    "event",
    "rule",
    "decode",
    "story",
    "recorder::codec",
    "source::framing",
    "source::mqtt::wire",
    "source::mqtt::session",
    "forward::window",
    "forward::filter",
    "forward::bucket",
    "forward::backoff",
    "forward::mqtt::wire",
];

/// What a pure module may not name. `tokio` stands for every crate whose name begins so.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "tracing",
    "rustix",
    "time::Clock",
];

/// Types that read a clock, whatever path they are reached by.
const CLOCKS: &[&str] = &["Instant", "SystemTime"];

/// A longer file is two files.
const MAX_LINES: usize = 800;

#[test]
fn modules_import_only_what_the_table_allows() {
    assert_none(&forbidden_edges(&house().modules, &table(IMPORTS)));
}

#[test]
fn the_table_has_a_line_for_every_module_and_no_other() {
    let lines: BTreeSet<String> = table(IMPORTS).into_keys().collect();
    assert_eq!(
        lines,
        house().tops(),
        "the table in tests/tidy.rs and the modules of src/ differ"
    );
}

#[test]
fn each_line_of_the_table_names_only_lines_above_it() {
    let mut above = BTreeSet::new();
    for line in IMPORTS.lines() {
        for (module, allowed) in table(line) {
            for edge in allowed {
                assert!(above.contains(top(&edge)), "{module} <- {edge}: not above it");
            }
            above.insert(module);
        }
    }
}

#[test]
fn architecture_md_shows_the_same_table() {
    let text = read(&root().join("ARCHITECTURE.md"));
    assert!(
        text.contains(IMPORTS),
        "ARCHITECTURE.md does not show the import table of tests/tidy.rs"
    );
}

#[test]
fn pure_modules_name_nothing_impure() {
    assert_none(&impurities(&house().modules));
}

#[test]
fn every_module_named_pure_exists() {
    let house = house();
    for pure in PURE {
        let exists = house.modules.iter().any(|module| module.path.join("::") == *pure);
        assert!(exists, "{pure} is on the list of pure modules and does not exist");
    }
}

#[test]
fn every_source_file_is_part_of_the_house() {
    let house = house();
    for file in rust_files(&root().join("src")) {
        assert!(
            house.files.contains(&file),
            "{}: no module declares it",
            file.display()
        );
    }
}

#[test]
fn no_file_is_too_long() {
    let files = ["src", "tests", "examples", "benches"]
        .iter()
        .flat_map(|dir| rust_files(&root().join(dir)));
    let long: Vec<_> = files.filter_map(|file| too_long(&file, &read(&file))).collect();
    assert_none(&long);
}

#[test]
fn every_configuration_key_is_documented() {
    let raw = rust_files(&root().join("src/config")).into_iter().filter(|file| {
        file.strip_prefix(root().join("src/config"))
            .is_ok_and(|rest| rest.to_string_lossy().starts_with("raw"))
    });
    let keys: BTreeSet<String> = raw.flat_map(|file| keys(&read(&file))).collect();
    assert!(
        !keys.is_empty(),
        "no structs that derive Deserialize in src/config/raw*.rs: where did the keys go?"
    );
    let undocumented = undocumented(&keys, &read(&root().join("docs/configuration.md")));
    assert!(
        undocumented.is_empty(),
        "not in docs/configuration.md, in backticks: {undocumented:?}"
    );
}

#[test]
fn every_dependency_has_its_reason() {
    let crates = dependencies(&read(&root().join("Cargo.toml")));
    assert!(
        !crates.is_empty(),
        "Cargo.toml names no dependencies: where did they go?"
    );
    let unexplained = undocumented(
        &crates,
        &read(&root().join("docs/decisions/0005-dependencies.md")),
    );
    assert!(
        unexplained.is_empty(),
        "not in docs/decisions/0005-dependencies.md, in backticks: {unexplained:?}"
    );
}

#[test]
fn the_tests_that_the_documents_name_exist() {
    for document in ["docs/guarantees.md", "docs/testing.md"] {
        let text = read(&root().join(document));
        let missing: Vec<_> = tests_named(&text)
            .into_iter()
            .filter(|test| !root().join(test).exists())
            .collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
}

#[test]
fn every_test_that_gets_events_holds_them_against_the_contract() {
    let mut forgetful = Vec::new();
    for file in rust_files(&root().join("tests")) {
        let text = read(&file);
        // This file names what it looks for.
        let subscribes = text.contains("tidegate/+/events/#") && text.contains("serde_json");
        let gets_events = subscribes || text.contains("Engine::restore(");
        if gets_events && !file.ends_with("tests/tidy.rs") && !text.contains("contract::") {
            let remedy =
                "gets events; hand each to contract::check or contract::check_draft (tests/contract)";
            forgetful.push(format!("{}: {remedy}", file.display()));
        }
    }
    assert_none(&forgetful);
}

// The imports.

/// The text of a table, as module -> the paths it may name.
fn table(text: &str) -> BTreeMap<String, Vec<String>> {
    text.lines()
        .map(|line| {
            let (module, allowed) = line.split_once("<-").expect("a line of the table has an arrow");
            (
                module.trim().to_owned(),
                allowed.split_whitespace().map(str::to_owned).collect(),
            )
        })
        .collect()
}

fn top(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn forbidden_edges(modules: &[Module], table: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut found = Vec::new();
    for (module, name) in names(modules) {
        // The root only declares the modules.
        let (Some(owner), Some(target)) = (module.path.first(), name.resolved()) else {
            continue;
        };
        let Some(first) = target.first() else {
            found.push(module.finding(&name, "names the root: name the module"));
            continue;
        };
        if first == owner {
            continue;
        }
        let written = target.join("::");
        let allowed = table
            .get(owner)
            .is_some_and(|edges| edges.iter().any(|edge| is_within(&written, edge)));
        if !allowed {
            let problem = if table.contains_key(first) {
                format!("{owner} may not import {written}")
            } else {
                format!("{written} is no module of the house: name the module it belongs to")
            };
            found.push(module.finding(&name, &problem));
        }
    }
    found
}

/// Whether `path` is `ancestor` or below it.
fn is_within(path: &str, ancestor: &str) -> bool {
    path.strip_prefix(ancestor)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn impurities(modules: &[Module]) -> Vec<String> {
    let mut found = Vec::new();
    for (module, name) in names(modules) {
        if !PURE.iter().any(|pure| is_within(&module.path.join("::"), pure)) {
            continue;
        }
        let written = name.resolved().unwrap_or_else(|| name.path.clone()).join("::");
        let impure = written.starts_with("tokio")
            // All of `std` under another name or a star would hide the rest.
            || matches!(written.as_str(), "std" | "std::*")
            || IMPURE.iter().any(|banned| is_within(&written, banned))
            || name.path.iter().any(|segment| CLOCKS.contains(&segment.as_str()));
        if impure {
            found.push(module.finding(
                &name,
                &format!("{} is pure and names {written}", module.path.join("::")),
            ));
        }
    }
    found
}

// The other checks.

fn too_long(file: &Path, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > MAX_LINES).then(|| {
        format!(
            "{}: {lines} lines, more than {MAX_LINES}: split it",
            file.display()
        )
    })
}

/// The keys that a file's serde structs read.
fn keys(text: &str) -> BTreeSet<String> {
    let mut collector = Keys::default();
    collector.visit_file(&syn::parse_file(text).expect("the file parses: it compiles"));
    collector.0
}

#[derive(Default)]
struct Keys(BTreeSet<String>);

impl Visit<'_> for Keys {
    fn visit_item_struct(&mut self, item: &syn::ItemStruct) {
        let derives = item
            .attrs
            .iter()
            .filter(|attribute| attribute.path().is_ident("derive"));
        let reads = derives
            .filter_map(arguments)
            .any(|tokens| tokens.to_string().contains("Deserialize"));
        if !reads || is_test(&item.attrs) {
            return;
        }
        for field in &item.fields {
            let serde = field
                .attrs
                .iter()
                .filter(|attribute| attribute.path().is_ident("serde"));
            let serde: Vec<TokenTree> = serde.filter_map(arguments).flatten().collect();
            if serde.iter().any(|token| token.to_string().starts_with("skip")) {
                continue;
            }
            // `rename = "…"`: the key is the third token.
            let renamed = serde
                .iter()
                .position(|token| token.to_string() == "rename")
                .and_then(|at| serde.get(at + 2))
                .map(|literal| literal.to_string().trim_matches('"').to_owned());
            let plain = field.ident.as_ref().map(|ident| spelled(ident).replace('_', "-"));
            self.0.extend(renamed.or(plain));
        }
    }
}

/// The paths of tests in inline code.
fn tests_named(document: &str) -> BTreeSet<&str> {
    document
        .split('`')
        .filter(|code| code.starts_with("tests/"))
        .collect()
}

/// The crates that a manifest asks for, of all kinds.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = toml::from_str(manifest).expect("cargo read it");
    ["dependencies", "dev-dependencies", "build-dependencies"]
        .iter()
        .filter_map(|kind| manifest.get(*kind)?.as_table())
        .flat_map(|crates| crates.keys().cloned())
        .collect()
}

/// The names that stand in no inline code span of `document`, as a word of their own.
fn undocumented(names: &BTreeSet<String>, document: &str) -> Vec<String> {
    let words: BTreeSet<&str> = document
        .lines()
        // Every second piece between backticks is code.
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .flat_map(|code| code.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))))
        .collect();
    names
        .iter()
        .filter(|name| !words.contains(name.as_str()))
        .cloned()
        .collect()
}

#[track_caller]
fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}
