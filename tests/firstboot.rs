//! What an installer puts on a card's boot partition, as the service takes it: the real program, a directory as the
//! partition.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

/// The card: the boot partition and what of the system matters.
struct Card {
    dir: tempfile::TempDir,
}

const CONFIG: &str = "\
[gateway]
id = \"pump-house\"
[mqtt]
listen = [\"127.0.0.1:1883\"]
[[mqtt.readings]]
topic = \"t/{device}\"
format = \"json\"
[[mqtt.readings.metric]]
name = \"temperature\"
at = \"/t\"
[[rule]]
event = \"TooHot\"
metric = \"temperature\"
above = 30.0
clear = 28.0
";

/// The configuration as packaged.
const BEFORE: &str = "[gateway]\nid = \"as-packaged\"\n";

impl Card {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["boot", "boot/tidegate", "etc"] {
            fs::create_dir(dir.path().join(name)).expect("it can be made");
        }
        let card = Self { dir };
        fs::write(card.path("etc/gateway.toml"), BEFORE).expect("it can be written");
        card
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path("boot").join(name), bytes).expect("it can be written");
    }

    /// A configuration with an uplink that names files where they will be.
    fn with_uplink(&self) -> String {
        let etc = self.path("etc").display().to_string();
        format!(
            "{CONFIG}[[sink.mqtt]]\nname = \"cloud\"\nurl = \"mqtts://cloud.example.com\"\nusername = \"gw\"\n\
             password-file = \"{etc}/cloud.password\"\nca = \"{etc}/ca.pem\"\n"
        )
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command
            .arg("firstboot")
            .arg("--boot")
            .arg(self.path("boot"))
            .arg("--config")
            .arg(self.path("etc/gateway.toml"))
            .env("STATE_DIRECTORY", self.path("state"))
            .current_dir("/");
        command
    }

    fn boots(&self) -> Output {
        self.command().output().expect("the program runs")
    }

    /// A boot that succeeds.
    fn boots_well(&self) -> String {
        let ran = self.boots();
        assert!(ran.status.success(), "{}{}", text(&ran.stdout), text(&ran.stderr));
        text(&ran.stdout)
    }

    /// A boot that ends with `code`.
    fn boots_to(&self, code: i32) -> String {
        let ran = self.boots();
        assert_eq!(
            ran.status.code(),
            Some(code),
            "{}{}",
            text(&ran.stdout),
            text(&ran.stderr)
        );
        text(&ran.stderr)
    }

    fn installed(&self) -> String {
        fs::read_to_string(self.path("etc/gateway.toml")).expect("a configuration is always there")
    }

    /// The report, read as a laptop shows it.
    fn report(&self) -> String {
        let report = fs::read_to_string(self.path("boot/tidegate-report.txt")).expect("a report");
        assert!(report.ends_with("\r\n"), "{report}");
        assert_eq!(
            report.matches('\n').count(),
            report.matches("\r\n").count(),
            "{report}"
        );
        report.replace("\r\n", "\n")
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).expect("it is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("it can be listed").file_name())
            .map(|name| name.into_string().expect("plain names"))
            .collect();
        names.sort();
        names
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it speaks UTF-8")
}

fn certificate() -> String {
    let made = rcgen::generate_simple_self_signed(vec!["ca.example.com".to_owned()]).expect("it can be made");
    made.cert.pem()
}

#[test]
fn what_lies_on_the_boot_partition_becomes_the_configuration_with_its_files() {
    let card = Card::new();
    // As root it is another group than one's own, as the package has it.
    chown(card.path("etc"), None, Some(4242)).ok();
    // As an editor on Windows saves it.
    let main = format!("\u{feff}{}", card.with_uplink().replace('\n', "\r\n"));
    card.put("gateway.toml", &main);
    card.put("tidegate/ca.pem", certificate());
    card.put("tidegate/cloud.password", "a secret");
    card.put("tidegate/._ca.pem", "macOS was here");
    let said = card.boots_well();

    assert_eq!(card.installed(), main);
    assert_eq!(card.names("etc"), ["ca.pem", "cloud.password", "gateway.toml"]);
    let group = fs::metadata(card.path("etc")).unwrap().gid();
    for name in card.names("etc") {
        let file = fs::metadata(card.path("etc").join(&name)).unwrap();
        assert_eq!(
            (file.permissions().mode() & 0o777, file.gid()),
            (0o640, group),
            "{name}"
        );
    }
    let report = card.report();
    assert_eq!(said, report);
    let version = env!("CARGO_PKG_VERSION");
    let title = format!("Tidegate {version}, first boot: INSTALLED\n");
    assert!(report.starts_with(&title), "{report}");
    assert!(report.contains("\nGateway id: pump-house\n"), "{report}");
    assert!(report.contains("\nRules: 1, sources: 1, sinks: 1\n"), "{report}");
    assert!(report.contains("  tidegate/ca.pem is now "), "{report}");
    assert!(report.contains("delete them here"), "{report}");
    assert!(
        !report.contains("Warnings") && !report.contains("a secret"),
        "{report}"
    );
    // They may be the only copy.
    assert_eq!(
        card.names("boot"),
        ["gateway.toml", "tidegate", "tidegate-report.txt"]
    );
    assert_eq!(fs::read_to_string(card.path("boot/gateway.toml")).unwrap(), main);
}

#[test]
fn a_gateway_without_an_id_is_told_the_one_that_was_made() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG.replace("id = \"pump-house\"\n", ""));
    card.boots_well();
    let report = card.report();
    let (_, line) = report.split_once("\nGateway id: tg-").expect("an id was made");
    let (id, why) = line.split_once(' ').expect("and it is said why");
    assert_eq!(id.len(), 8, "{report}");
    assert!(why.starts_with("(made of this machine's number"), "{report}");
}

#[test]
fn warnings_stand_in_the_report_by_the_files_line() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG.replace("clear = 28.0\n", ""));
    card.boots_well();
    let report = card.report();
    assert!(report.contains("\nWarnings:\n  gateway.toml"), "{report}");
}

#[test]
fn a_wrong_configuration_changes_nothing_and_the_report_has_the_line_and_the_remedy() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG.replace("metric =", "metrik ="));
    card.put("tidegate/ca.pem", certificate());
    let said = card.boots_to(78);
    assert_eq!(card.installed(), BEFORE);
    assert_eq!(card.names("etc"), ["gateway.toml"]);
    let report = card.report();
    assert_eq!(said.trim_end(), report.trim_end());
    assert!(report.contains("first boot: REFUSED\n"), "{report}");
    assert!(report.contains("\ngateway.toml:13: "), "{report}");
    assert!(report.contains("did you mean `metric`?"), "{report}");
    assert!(
        report.contains("\n    13 | metrik = \"temperature\"\n"),
        "{report}"
    );

    // It stays refused, and is taken once it is mended.
    card.boots_to(78);
    card.put("gateway.toml", CONFIG);
    card.boots_well();
    assert_eq!(card.installed(), CONFIG);
    assert!(card.report().contains("INSTALLED"));
}

#[test]
fn what_was_installed_before_is_taken_again_when_what_came_between_was_refused() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG);
    card.boots_well();
    card.put("gateway.toml", CONFIG.replace("metric =", "metrik ="));
    card.boots_to(78);
    assert!(card.report().contains("REFUSED"));
    card.put("gateway.toml", CONFIG);
    card.boots_well();
    assert!(card.report().contains("INSTALLED"));
}

#[test]
fn nothing_is_replaced_before_all_files_are_written() {
    let card = Card::new();
    card.put("gateway.toml", card.with_uplink());
    card.put("tidegate/ca.pem", certificate());
    card.put("tidegate/cloud.password", "old");
    card.boots_well();
    let before = card.names("etc");

    card.put("tidegate/ca.pem", certificate());
    card.put("tidegate/cloud.password", "new");
    card.put("tidegate/secrets", "there is a directory of this name");
    let ca = fs::read(card.path("etc/ca.pem")).unwrap();
    fs::create_dir(card.path("etc/secrets")).unwrap();
    card.boots_to(1);
    let report = card.report();
    assert!(report.contains("first boot: FAILED\n"), "{report}");
    assert!(
        report.contains("give the file in the folder another name"),
        "{report}"
    );
    let unchanged =
        |name: &str, bytes: &[u8]| assert_eq!(fs::read(card.path("etc").join(name)).unwrap(), bytes);
    unchanged("ca.pem", &ca);
    unchanged("cloud.password", b"old");
    fs::remove_dir(card.path("etc/secrets")).unwrap();
    assert_eq!(card.names("etc"), before, "nothing is left of the try");

    // The last of them cannot be written.
    fs::remove_file(card.path("boot/tidegate/secrets")).unwrap();
    fs::create_dir(card.path("etc/.gateway.toml.new")).unwrap();
    card.boots_to(1);
    unchanged("ca.pem", &ca);
    unchanged("cloud.password", b"old");
    fs::remove_dir(card.path("etc/.gateway.toml.new")).unwrap();
    assert_eq!(card.names("etc"), before, "nothing is left of the try");

    // What was there before the tries counts as changed: it may have been replaced in part.
    card.put("tidegate/ca.pem", &ca);
    card.put("tidegate/cloud.password", "old");
    assert!(card.boots_well().contains("INSTALLED"));
}

#[test]
fn what_was_installed_is_left_alone_until_the_files_change() {
    let card = Card::new();
    card.put("gateway.toml", card.with_uplink());
    card.put("tidegate/ca.pem", certificate());
    card.put("tidegate/cloud.password", "old");
    card.boots_well();

    fs::write(card.path("etc/gateway.toml"), "edited on the gateway").unwrap();
    fs::remove_file(card.path("boot/tidegate-report.txt")).unwrap();
    assert_eq!(card.boots_well(), "");
    assert_eq!(card.installed(), "edited on the gateway");
    assert_eq!(card.names("boot"), ["gateway.toml", "tidegate"]);

    card.put("tidegate/cloud.password", "new");
    card.boots_well();
    assert_eq!(card.installed(), card.with_uplink());
    assert_eq!(
        fs::read_to_string(card.path("etc/cloud.password")).unwrap(),
        "new"
    );

    fs::remove_file(card.path("boot/tidegate-report.txt")).unwrap();
    card.put("gateway.toml", format!("{}# changed\n", card.with_uplink()));
    card.boots_well();
    assert!(card.installed().ends_with("# changed\n"));
    assert!(card.report().contains("INSTALLED"));
}

#[test]
fn a_boot_partition_that_nobody_put_anything_on_is_passed_over() {
    let card = Card::new();
    fs::remove_dir(card.path("boot/tidegate")).unwrap();
    card.put("config.txt", "the board's own");
    assert_eq!(card.boots_well(), "");
    assert_eq!(card.names("boot"), ["config.txt"]);
    assert_eq!(card.installed(), BEFORE);
}

#[test]
fn a_folder_without_a_configuration_is_told_until_there_was_one() {
    let card = Card::new();
    card.put("tidegate/ca.pem", certificate());
    card.boots_well();
    let report = card.report();
    assert!(report.contains("first boot: NOTHING FOUND\n"), "{report}");
    assert!(report.contains("put it beside that folder"), "{report}");
    assert_eq!(card.installed(), BEFORE);
    assert_eq!(card.names("etc"), ["gateway.toml"]);

    // Deleted when it was installed, as the report says; of the folder something stayed.
    card.put("gateway.toml", CONFIG);
    card.boots_well();
    fs::remove_file(card.path("boot/gateway.toml")).unwrap();
    fs::remove_file(card.path("boot/tidegate-report.txt")).unwrap();
    assert_eq!(card.boots_well(), "");
    assert_eq!(card.names("boot"), ["tidegate"]);
}

#[test]
fn ssh_keys_are_the_images_to_take_and_not_the_gateways() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG);
    card.put("tidegate/authorized_keys", "ssh-ed25519 AAAA first");
    card.boots_well();
    assert_eq!(card.names("etc"), ["gateway.toml"]);
    assert!(!card.report().contains("authorized_keys"));
    card.put("tidegate/authorized_keys", "ssh-ed25519 AAAA second");
    assert_eq!(card.boots_well(), "", "another key is no other configuration");
}

#[test]
fn the_image_takes_ssh_keys_as_an_installer_saves_them_and_once() {
    let card = Card::new();
    let keys = card.path("root/.ssh/authorized_keys");
    let take = || {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/packaging/image/root/usr/local/sbin/take-keys"
        );
        let ran = Command::new("sh")
            .arg(script)
            .arg(card.path("boot/tidegate/authorized_keys"))
            .arg(&keys)
            .output()
            .expect("there is a shell");
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        fs::read_to_string(&keys).expect("keys")
    };
    card.put(
        "tidegate/authorized_keys",
        "\u{feff}ssh-ed25519 AAAA one\r\nssh-ed25519 BBBB two\r\n",
    );
    assert_eq!(take(), "ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(card.path("root/.ssh")), mode(keys.clone())), (0o700, 0o600));

    fs::write(&keys, "changed on the board").unwrap();
    assert_eq!(take(), "changed on the board");
    card.put("tidegate/authorized_keys", "ssh-ed25519 CCCC three\n");
    assert_eq!(take(), "ssh-ed25519 CCCC three\n");
}

#[test]
fn a_certificate_that_is_missing_or_wrong_is_told_as_the_installer_has_it() {
    let card = Card::new();
    card.put("gateway.toml", card.with_uplink());
    card.put("tidegate/cloud.password", "a secret");
    card.boots_to(78);
    let report = card.report();
    assert!(
        report.contains("ca.pem: there is no such file; put it there"),
        "{report}"
    );

    card.put("tidegate/ca.pem", "no certificate");
    card.boots_to(78);
    let report = card.report();
    assert!(report.contains(" tidegate/ca.pem: "), "{report}");
    assert!(report.contains("-----BEGIN CERTIFICATE-----"), "{report}");
    assert_eq!(card.names("etc"), ["gateway.toml"]);
    assert_eq!(card.installed(), BEFORE);

    // What is on the gateway already counts.
    fs::remove_file(card.path("boot/tidegate/ca.pem")).unwrap();
    fs::write(card.path("etc/ca.pem"), certificate()).unwrap();
    card.boots_well();
    assert_eq!(card.installed(), card.with_uplink());
}

#[test]
fn slips_of_an_installer_are_told_with_their_remedy() {
    let told = |put: &dyn Fn(&Card)| {
        let card = Card::new();
        put(&card);
        card.boots_to(78);
        assert_eq!(card.installed(), BEFORE);
        assert_eq!(card.names("etc"), ["gateway.toml"]);
        card.report()
    };
    let hidden = told(&|card| card.put("gateway.toml.txt", CONFIG));
    assert!(
        hidden.contains("gateway.toml.txt: it must be called gateway.toml")
            && hidden.contains("Windows hides"),
        "{hidden}"
    );
    let other = told(&|card| {
        card.put("Gateway.toml", CONFIG);
        card.put("gateway (1).toml", CONFIG);
        card.put("tidegate/gateway.toml", CONFIG);
    });
    for wrong in [
        "\nGateway.toml: it must be called gateway.toml; rename it",
        "\ngateway (1).toml: it must be called gateway.toml; rename it",
        "\ntidegate/gateway.toml: it must lie beside the folder tidegate, not in it; move it there\n",
    ] {
        assert!(other.contains(wrong), "{other}");
    }
    let inside = told(&|card| {
        card.put("gateway.toml", CONFIG);
        card.put("tidegate/gateway.toml", CONFIG);
    });
    assert!(inside.contains("must lie beside the folder tidegate"), "{inside}");
    let folder = told(&|card| {
        card.put("gateway.toml", CONFIG);
        fs::create_dir(card.path("boot/tidegate/certs")).unwrap();
    });
    assert!(
        folder.contains("tidegate/certs: it is a folder; put its files into"),
        "{folder}"
    );
    let utf16: Vec<u8> = format!("\u{feff}{CONFIG}")
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let utf16 = told(&|card| card.put("gateway.toml", &utf16));
    assert!(
        utf16.contains("gateway.toml:1: this is not text in UTF-8; save the file as UTF-8"),
        "{utf16}"
    );
    let long = told(&|card| card.put("gateway.toml", vec![b'#'; (1 << 20) + 1]));
    assert!(long.contains("gateway.toml: it is longer than 1 MiB"), "{long}");
}

#[test]
fn killed_in_between_it_is_done_at_the_next_boot() {
    let card = Card::new();
    // So many that a kill at the first finds the last not done.
    let files: Vec<String> = (10..70).map(|number| format!("file-{number}")).collect();
    let of_round = |round: u32| format!("{round} {}", "x".repeat(20_000));
    let (mut between, mut behind) = (0, 0);
    for round in 0..8 {
        let before = card.installed();
        let new = format!("{CONFIG}# {}\n", of_round(round));
        card.put("gateway.toml", &new);
        for file in &files {
            card.put(&format!("tidegate/{file}"), of_round(round));
        }
        let mut child = card
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program runs");
        // The first file written or the last replaced: the kill comes when it is there, if the program is not quicker.
        let (sign, text) = if round % 2 == 0 {
            ("etc/.file-10.new", of_round(round))
        } else {
            ("etc/gateway.toml", new.clone())
        };
        let is_there = || fs::read_to_string(card.path(sign)).is_ok_and(|read| read == text);
        while !is_there() && child.try_wait().unwrap().is_none() {}
        child.kill().unwrap();
        let was_killed = child.wait().unwrap().code().is_none();

        let after = card.installed();
        assert!(after == before || after == new, "torn in round {round}");
        let is_new = |file: &String| {
            fs::read_to_string(card.path("etc").join(file)).is_ok_and(|text| text == of_round(round))
        };
        assert!(
            after != new || files.iter().all(is_new),
            "the last came too soon in round {round}"
        );
        let left = card.names("etc").contains(&".file-10.new".to_owned());
        assert!(
            !left || !files.iter().any(is_new),
            "replaced too soon in round {round}"
        );
        between += u32::from(was_killed && left);
        behind += u32::from(was_killed && after == new);
        card.boots_well();
        assert!(card.installed() == new, "it was not done again in round {round}");
        assert!(files.iter().all(is_new), "round {round}");
        assert!(card.report().contains("INSTALLED"));
        assert_eq!(
            card.names("etc").len(),
            files.len() + 1,
            "nothing is left of a kill"
        );
        assert_eq!(card.names("state"), ["firstboot"]);
        assert_eq!(card.boots_well(), "", "it was done");
    }
    println!("killed between the files: {between}, behind the last: {behind}");
    assert!(between > 0, "it was never in the middle");
}

#[test]
fn what_could_not_be_remembered_is_done_again() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG);
    fs::create_dir_all(card.path("state/.firstboot.new")).unwrap();
    let ran = card.boots();
    assert!(ran.status.success());
    assert!(
        text(&ran.stderr).contains("will be installed again"),
        "{}",
        text(&ran.stderr)
    );
    fs::remove_dir(card.path("state/.firstboot.new")).unwrap();
    assert!(card.boots_well().contains("INSTALLED"));
    assert_eq!(card.boots_well(), "");
}

#[test]
fn a_system_that_does_not_take_it_is_told_and_tried_again() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG);
    fs::remove_dir_all(card.path("etc")).unwrap();
    card.boots_to(1);
    let report = card.report();
    assert!(report.contains("first boot: FAILED\n"), "{report}");
    assert!(report.contains("is the package installed?"), "{report}");
    fs::create_dir(card.path("etc")).unwrap();
    card.boots_well();
    assert_eq!(card.installed(), CONFIG);
}

#[test]
fn a_boot_partition_that_cannot_be_written_is_taken_from_all_the_same_and_the_journal_told() {
    let card = Card::new();
    card.put("gateway.toml", CONFIG);
    let boot = card.path("boot").display().to_string();
    let program = card.command();
    let mut command = Command::new("unshare");
    command
        .args(["--map-root-user", "--mount", "sh", "-c"])
        .arg(format!(
            "mount --bind '{boot}' '{boot}' && mount -o remount,bind,ro '{boot}' && exec \"$0\" \"$@\""
        ))
        .arg(program.get_program())
        .args(program.get_args())
        .env("STATE_DIRECTORY", card.path("state"));
    let ran = command
        .output()
        .expect("unshare is of util-linux, which every system has");
    let said = text(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(
        said.contains("tidegate-report.txt: Read-only file system"),
        "{said}"
    );
    assert!(said.contains("only in the system's journal"), "{said}");
    assert!(text(&ran.stdout).contains("INSTALLED"));
    assert_eq!(card.installed(), CONFIG);
    assert_eq!(card.boots_well(), "", "it was done");
}
