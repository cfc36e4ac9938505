//! `include`: one configuration out of several files.

use std::{fs, path::Path};

use tidegate::config::{Config, RuleSet};

use super::Installed;

const GATEWAY: &str = "[gateway]\nid = \"a\"\n[journal]\ndir = \"$STATE_DIRECTORY/journal\"\n[mqtt]\nlisten = [\"127.0.0.1:0\"]\n\
                       [[mqtt.readings]]\ntopic = \"t/{device}/s\"\nformat = \"json\"\n[[mqtt.readings.metric]]\nname = \"temperature\"\n";

/// A configuration in several files; the first is `gateway.toml`.
fn installed(files: &[(&str, &str)]) -> Installed {
    let site = Installed::new("");
    for (name, text) in files {
        let path = site.folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    site
}

fn high(name: &str) -> String {
    format!("[[rule]]\nevent = \"{name}\"\nmetric = \"temperature\"\nabove = 30\nclear = 28\n")
}

#[test]
fn a_file_whose_name_is_no_utf_8_is_included_too() {
    use std::os::unix::ffi::OsStrExt;
    let main = format!("include = [\"rules/*.toml\"]\n{GATEWAY}");
    let site = installed(&[("gateway.toml", &main), ("rules/one.toml", &high("One"))]);
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.toml");
    fs::write(site.folder.path().join("rules").join(name), high("Two")).expect("written");
    let config =
        Config::load(&site.folder.path().join("gateway.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(names(&config), ["two", "one"]);
}

fn refused(files: &[(&str, &str)]) -> String {
    let (code, said, wrong) = installed(files).tidegate(&["check"]);
    assert_eq!((code, said.as_str()), (Some(78), ""), "{wrong}");
    wrong
}

fn names(config: &Config) -> Vec<&str> {
    config.rules.iter().map(|rule| &*rule.name).collect()
}

#[test]
fn what_is_included_is_part_of_the_configuration_and_of_its_sum() {
    let main = format!(
        "include = [\"rules/*.toml\", \"devices.toml\"]\n{GATEWAY}{}",
        high("Main")
    );
    let one = format!("include = [\"deeper/*\"]\n{}", high("One"));
    let site = installed(&[
        ("gateway.toml", &main),
        ("rules/two.toml", &high("Two")),
        ("rules/one.toml", &one),
        ("rules/.one.toml", "an editor's"),
        ("rules/notes.txt", "nobody's"),
        ("rules/deeper/three", &format!("\u{feff}{}", high("Three"))),
        (
            "devices.toml",
            "[[device]]\nid = \"x\"\nexpects = [\"temperature\"]\n[period.work]\ndays = [\"mon\"]\n\
             [[override]]\nrule = \"two\"\ndevices = [\"x\"]\nabove = 40\n",
        ),
    ]);
    let path = site.folder.path().join("gateway.toml");
    let config = Config::load(&path).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(names(&config), ["main", "one", "three", "two"]);
    assert_eq!(config.rules[3].overrides.len(), 1);
    assert_eq!(config.devices[0].expects[0].as_str(), "temperature");
    let read: Vec<_> = config
        .files
        .iter()
        .map(|file| file.path.strip_prefix(site.folder.path()).expect("below it"))
        .collect();
    let wanted = [
        "gateway.toml",
        "rules/one.toml",
        "rules/deeper/three",
        "rules/two.toml",
        "devices.toml",
    ];
    assert_eq!(read, wanted.map(Path::new));
    fs::write(site.folder.path().join("rules/two.toml"), high("Too")).expect("written");
    let wrong = Config::load(&path)
        .expect_err("the override has lost its rule")
        .to_string();
    assert!(
        wrong.contains("devices.toml:7: override of \"two\": no rule has this name"),
        "{wrong}"
    );
    fs::write(
        site.folder.path().join("rules/two.toml"),
        high("Two") + "# edited\n",
    )
    .expect("written");
    let edited = Config::load(&path).unwrap_or_else(|report| panic!("{report}"));
    assert_ne!(edited.sha256, config.sha256);
}

#[test]
fn a_report_names_the_file_and_the_line_that_are_meant() {
    let main = format!("include = [\"rules/*.toml\"]\n{GATEWAY}{}", high("Main"));
    let wrong = refused(&[
        ("gateway.toml", &main),
        ("rules/a.toml", &format!("\n{}", high("Main"))),
        (
            "rules/b.toml",
            "[[device]]\nid = \"x\"\n[[device]]\nid = \"x\"\n[[rule]]\nevent = \"Cold\"\nmetric = \"tempreature\"\nbelow = 3\nclear = 2\n",
        ),
    ]);
    assert_eq!(
        wrong,
        "{dir}/rules/a.toml:3: rule \"Main\": the name \"main\" is already taken on line 14 of {dir}/gateway.toml; add a name of its own: name = \"...\"\n     3 | event = \"Main\"\n\
         {dir}/rules/b.toml:4: device \"x\": the id is already on line 2; put both tables into one\n     4 | id = \"x\"\n\
         {dir}/rules/b.toml:7: rule \"Cold\": no source yields the metric \"tempreature\"; did you mean \"temperature\"?\n     7 | metric = \"tempreature\"\n\
         {dir}/rules/b.toml:9: rule \"Cold\": clear = 2 is below the threshold 3; for `below`, clear must be 3 or more\n     9 | clear = 2\n"
    );
}

#[test]
fn what_an_included_file_may_not_have_and_what_is_not_toml_is_told_of_each_file() {
    let main = format!("include = [\"a.toml\", \"b.toml\", \"c.toml\"]\n{GATEWAY}");
    let wrong = refused(&[
        ("gateway.toml", &main),
        (
            "a.toml",
            "[gateway]\nid = \"b\"\n[mqtt]\nlisten = []\n[perod.x]\n",
        ),
        ("b.toml", "[[rule]]\nevent = Hot\n"),
        ("c.toml", "[[rule]]\nevnt = \"Hot\"\n"),
    ]);
    let lines: Vec<&str> = wrong.lines().filter(|line| line.contains(".toml:")).collect();
    assert_eq!(
        lines,
        [
            "{dir}/a.toml:1: an included file has no key `gateway`; it belongs into the file that includes this one",
            "{dir}/a.toml:3: an included file has no key `mqtt`; it belongs into the file that includes this one",
            "{dir}/a.toml:5: an included file has no key `perod`; did you mean `period`?",
            "{dir}/b.toml:2: not TOML: string values must be quoted, expected literal string; text stands between two quotes on one line, like name = \"boiler\"",
            "{dir}/c.toml:2: [[rule]] has no key `evnt`; did you mean `event`?",
        ]
    );
}

#[test]
fn an_include_that_names_nothing_or_itself_or_no_text_is_told_where_it_stands() {
    let main = format!(
        "include = [\n  \"rules/*.toml\",\n  \"a.toml\",\n  \"b.toml\",\n  \"no.toml\",\n]\n{GATEWAY}"
    );
    let site = installed(&[
        ("gateway.toml", &main),
        ("a.toml", "include = [\"./gateway.toml\"]\n"),
        ("no.toml/x", ""),
    ]);
    fs::write(site.folder.path().join("b.toml"), b"\xff").expect("written");
    let (code, _, wrong) = site.tidegate(&["check"]);
    assert_eq!(code, Some(78));
    assert_eq!(
        wrong,
        "{dir}/gateway.toml:2: include: \"rules/*.toml\" matches no file; put a file there, or drop it; paths count from {dir}\n     2 | \"rules/*.toml\",\n\
         {dir}/gateway.toml:4: include: \"b.toml\": {dir}/b.toml is not text in UTF-8; save it as UTF-8\n     4 | \"b.toml\",\n\
         {dir}/gateway.toml:5: include: \"no.toml\" matches no file; put a file there, or drop it; paths count from {dir}\n     5 | \"no.toml\",\n\
         {dir}/a.toml:1: include: \"./gateway.toml\": {dir}/./gateway.toml includes itself, by way of this; drop it from one of them\n     1 | include = [\"./gateway.toml\"]\n"
    );
}

#[test]
fn a_file_that_two_patterns_match_is_read_once() {
    let main = format!("include = [\"rules/*\", \"rules/a.toml\"]\n{GATEWAY}");
    let site = installed(&[
        ("gateway.toml", &main),
        ("rules/a.toml", &high("A")),
        ("rules/b.toml", &format!("include = [\"a.toml\"]\n{}", high("B"))),
    ]);
    let config =
        Config::load(&site.folder.path().join("gateway.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(names(&config), ["a", "b"]);
}

#[test]
fn two_files_may_not_have_a_period_of_one_name() {
    let main = format!("include = [\"a.toml\"]\n{GATEWAY}[period.work]\ndays = [\"mon\"]\n");
    let wrong = refused(&[
        ("gateway.toml", &main),
        ("a.toml", "# theirs\n[period.work]\ndays = [\"tue\"]\n"),
    ]);
    assert_eq!(
        wrong,
        "{dir}/a.toml:2: period \"work\": the name is already on line 13 of {dir}/gateway.toml; write another\n     2 | [period.work]\n"
    );
}

#[test]
fn a_warning_names_its_file_too() {
    let site = installed(&[
        ("gateway.toml", &format!("include = [\"a.toml\"]\n{GATEWAY}")),
        (
            "a.toml",
            "\n[[rule]]\nevent = \"Hot\"\nmetric = \"temperature\"\nabove = 3\n",
        ),
    ]);
    let (code, said, _) = site.tidegate(&["check"]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("warning: {dir}/a.toml:2: rule \"Hot\": it has neither"),
        "{said}"
    );
}

#[test]
fn a_configuration_of_several_files_is_put_together_again_without_its_directory() {
    let site = installed(&[
        ("gateway.toml", &format!("include = [\"rules/*\"]\n{GATEWAY}")),
        ("rules/a.toml", &high("A")),
        ("rules/b.toml", &high("B")),
    ]);
    let config =
        Config::load(&site.folder.path().join("gateway.toml")).unwrap_or_else(|report| panic!("{report}"));
    fs::remove_dir_all(site.folder.path().join("rules")).expect("removed");
    let again = Config::of_files(config.files.to_vec()).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((again.rules, &again.sha256), (config.rules, &config.sha256));
}

#[test]
fn a_rule_set_stands_alone_and_reports_like_a_configuration() {
    let text = format!(
        "[gateway]\ntimezone = \"Europe/Berlin\"\n[[device]]\nid = \"x\"\n[period.night]\nbetween = [\"22:00\", \"06:00\"]\n{}during = [\"night\"]\n",
        high("Hot")
    );
    let set = RuleSet::parse("new.toml", &text).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!((set.rules.len(), set.devices.len()), (1, 1));
    assert_eq!(set.timezone.iana_name(), Some("Europe/Berlin"));
    assert_eq!(set.rules[0].during[0].zone, set.timezone);
    assert_eq!(&*set.rules[0].type_prefix, "io.tidegate.rule.");
    assert_eq!(set.warnings, Vec::<String>::new());
    let wrong = |text: &str| RuleSet::parse("new.toml", text).expect_err("wrong").to_string();
    let whole = format!(
        "{GATEWAY}{}",
        high("Hot").replace("metric = \"t", "metric = \"at")
    );
    assert!(
        wrong(&whole).contains(": no source yields the metric \"atemperature\""),
        "a whole configuration is one too"
    );
    assert!(
        wrong(&high("Hot").replace("28", "33"))
            .starts_with("new.toml:5: rule \"Hot\": clear = 33 is above the threshold 30;")
    );
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("new.toml"), "include = [\"more.toml\"]\n").expect("written");
    fs::write(folder.path().join("more.toml"), high("Hot")).expect("written");
    let set = RuleSet::load(&folder.path().join("new.toml")).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(set.rules.len(), 1);
}

#[test]
fn a_pattern_that_matches_too_much_is_told_once() {
    let main = format!("include = [\"rules/*\"]\n{GATEWAY}");
    let names: Vec<String> = (0..300).map(|number| format!("rules/{number}.toml")).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    files.push(("gateway.toml", &main));
    assert_eq!(
        refused(&files),
        "{dir}/gateway.toml:1: include: \"rules/*\": more than 256 files; is the pattern right?\n     1 | include = [\"rules/*\"]\n"
    );
    let names: Vec<String> = (0..10_001).map(|number| format!("rules/{number}")).collect();
    let mut files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    let main = format!("include = [\"rules/*.toml\"]\n{GATEWAY}");
    files.push(("gateway.toml", &main));
    assert_eq!(
        refused(&files),
        "{dir}/gateway.toml:1: include: \"rules/*.toml\": it looks at more than 10000 names; is the pattern right?\n     1 | include = [\"rules/*.toml\"]\n"
    );
}
