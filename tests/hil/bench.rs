//! A real board on a bench: `bench.toml` says by which commands its power, its adapter and its uplink are switched and how
//! a command is run on it. Nothing of a particular relay, hub or switch is known here.

use std::{
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use serde::Deserialize;

use super::{
    board::{Board, HardwareClock, Output, Wiring},
    rig,
};

/// hil/README.md explains each key.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Bench {
    run: Vec<String>,
    on: String,
    off: String,
    plug_in: String,
    unplug: String,
    cut_uplink: String,
    mend_uplink: String,
    line: String,
    port: String,
    door: String,
    host: String,
    broker_port: u16,
    later_package: String,
}

impl Bench {
    pub(crate) fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file);
        let text = text.unwrap_or_else(|error| panic!("could not read {}: {error}", file.display()));
        toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    }

    fn switch(command: &str) {
        let status = Command::new("sh")
            .args(["-c", command])
            .status()
            .expect("there is a shell");
        assert!(status.success(), "{command}: {status}");
    }

    /// Nothing, while the board is not there to be asked.
    fn try_to_run(&self, command: &str, input: &[u8]) -> Option<Output> {
        let (program, arguments) = self.run.split_first().expect("run names a command");
        let mut process = Command::new(program)
            .args(arguments)
            .arg(format!("exec 2>&1; {command}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("could not run {program}: {error}"));
        let mut its_input = process.stdin.take().expect("piped");
        // A command that does not read what it is given is not to blame.
        drop(its_input.write_all(input));
        drop(its_input);
        let output = process.wait_with_output().expect("waited");
        // 255: ssh itself did not come through.
        let code = output.status.code().filter(|code| *code != 255)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(Output { code, text })
    }
}

impl Board for Bench {
    fn renew(&mut self, configuration: &str) {
        self.power_on(HardwareClock::Right);
        let new = "set -e; systemctl stop tidegate; find /var/lib/tidegate -mindepth 1 -delete; \
                   boot=/boot/firmware; [ -d $boot ] || boot=/boot; \
                   rm -rf $boot/tidegate $boot/tidegate-report.txt; cat >$boot/gateway.toml; sync";
        let output = self.run(new, configuration.as_bytes());
        assert_eq!(output.code, 0, "is the package installed? {}", output.text);
        self.cut_power();
    }

    fn power_on(&mut self, _: HardwareClock) {
        Self::switch(&self.on);
        rig::until(|| self.try_to_run("true", &[])).expect("the board boots in time");
    }

    fn flicker(&mut self, time: Duration) -> String {
        Self::switch(&self.on);
        thread::sleep(time);
        self.cut_power()
    }

    fn cut_power(&mut self) -> String {
        Self::switch(&self.off);
        "switched off".to_owned()
    }

    fn plug_in(&mut self) {
        Self::switch(&self.plug_in);
    }

    fn unplug(&mut self) {
        Self::switch(&self.unplug);
    }

    fn say(&mut self, bytes: &[u8]) {
        let line = File::options().write(true).open(&self.line);
        let line = line.and_then(|mut line| line.write_all(bytes));
        line.unwrap_or_else(|error| panic!("could not write to {}: {error}", self.line));
    }

    fn cut_uplink(&mut self) {
        Self::switch(&self.cut_uplink);
    }

    fn mend_uplink(&mut self) {
        Self::switch(&self.mend_uplink);
    }

    fn run(&mut self, command: &str, input: &[u8]) -> Output {
        let output = self.try_to_run(command, input);
        output.unwrap_or_else(|| panic!("the board could not be asked: {command}"))
    }

    fn wiring(&self) -> Wiring {
        let (host, port) = self.door.split_once(':').expect("door is HOST:PORT");
        Wiring {
            door: (host.to_owned(), port.parse().expect("a port")),
            broker_listens: ("0.0.0.0".to_owned(), self.broker_port),
            broker: self.host.clone(),
            port: self.port.clone(),
        }
    }

    fn later_package(&self) -> Vec<u8> {
        std::fs::read(&self.later_package)
            .unwrap_or_else(|error| panic!("could not read {}: {error}", self.later_package))
    }
}

#[test]
fn a_bench_is_switched_and_asked_by_the_commands_of_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let there = folder.path().display();
    let shown = include_str!("../../hil/bench.toml");
    let mut table: toml::Table = toml::from_str(shown).expect("hil/bench.toml is TOML");
    table.insert("run".to_owned(), toml::Value::from(vec!["sh", "-c"]));
    for act in ["on", "off", "plug-in", "unplug", "cut-uplink", "mend-uplink"] {
        assert!(
            table
                .insert(act.to_owned(), format!("echo {act} >>{there}/acts").into())
                .is_some()
        );
    }
    table.insert("line".to_owned(), format!("{there}/line").into());
    let file = folder.path().join("bench.toml");
    std::fs::write(&file, table.to_string()).expect("written");
    std::fs::write(folder.path().join("line"), "").expect("written");

    let mut bench = Bench::read(&file);
    bench.power_on(HardwareClock::In1970);
    let output = bench.run("cat; echo beside >&2; exit 3", b"in ");
    assert_eq!((output.code, &*output.text), (3, "in beside\n"));
    bench.cut_uplink();
    bench.mend_uplink();
    bench.unplug();
    bench.plug_in();
    bench.say(b"{}\n");
    bench.cut_power();
    bench.flicker(Duration::ZERO);
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("written");
    assert_eq!(
        read("acts"),
        "on\ncut-uplink\nmend-uplink\nunplug\nplug-in\noff\non\noff\n"
    );
    assert_eq!(read("line"), "{}\n");
}
