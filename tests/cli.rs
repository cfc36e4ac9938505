//! Commands that need no running gateway, as the real program.

use std::{
    path::Path,
    process::{Command, Output},
};

fn tidegate(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it speaks UTF-8")
}

/// The example of docs/rules.md, letter by letter.
fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md");
    let docs = std::fs::read_to_string(path).expect("docs/rules.md is there");
    let (_, section) = docs.split_once("## Testing rules").expect("the section is there");
    let (_, code) = section.split_once("```toml\n").expect("an example");
    code.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_example_of_the_documents_is_a_story_that_passes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("boiler.toml"), example()).unwrap();
    let ran = tidegate(dir.path(), &["test", "boiler.toml"]);
    let shown = text(&ran.stdout);
    assert!(ran.status.success(), "{shown}{}", text(&ran.stderr));
    assert!(shown.starts_with("boiler.toml\n  ok      "), "{shown}");
    assert!(shown.ends_with("2 stories: 2 ok, 0 failed\n"), "{shown}");
}

#[test]
fn a_story_that_goes_otherwise_fails_with_what_came_and_what_did_not() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = example().replace("hold = \"30s\"", "hold = \"45s\"");
    std::fs::write(dir.path().join("boiler.toml"), wrong).unwrap();
    let ran = tidegate(dir.path(), &["test", "boiler.toml"]);
    let shown = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{shown}");
    assert!(
        shown.contains("  FAILED  the boiler is too hot for 30 s (boiler.toml:8)"),
        "{shown}"
    );
    assert!(shown.contains("          -    30s  BoilerTooHot"), "{shown}");
    assert!(shown.contains("          +    45s  BoilerTooHot"), "{shown}");
    assert_eq!(text(&ran.stderr), "2 stories: 1 ok, 1 failed\n");
}

#[test]
fn a_wrong_story_file_is_told_with_its_line_before_any_story() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("right.toml"), example()).unwrap();
    std::fs::write(
        dir.path().join("wrong.toml"),
        example().replace("device =", "devise ="),
    )
    .unwrap();
    let ran = tidegate(dir.path(), &["test", "right.toml", "wrong.toml", "none.toml"]);
    assert_eq!(ran.status.code(), Some(78));
    assert_eq!(text(&ran.stdout), "");
    let report = text(&ran.stderr);
    assert!(report.contains("wrong.toml:10: story"), "{report}");
    assert!(report.contains("did you mean `device`?"), "{report}");
    assert!(
        report.contains("none.toml: could not read the stories: there is no such file"),
        "{report}"
    );
}

#[test]
fn a_story_takes_its_rules_from_a_file_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let example = example();
    let (rules, stories) = example.split_once("[[story]]").unwrap();
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    std::fs::write(dir.path().join("rules.toml"), rules).unwrap();
    let stories = format!("rules = \"../rules.toml\"\n[[story]]{stories}");
    std::fs::write(dir.path().join("tests/boiler.toml"), stories).unwrap();
    let ran = tidegate(dir.path(), &["test", "tests/boiler.toml"]);
    assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
}
