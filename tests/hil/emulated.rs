//! The virtual board: qemu emulates one with 64-bit ARM cores, a network card for the uplink and another for the site,
//! and a USB adapter whose line ends in a socket here. It boots the image that is flashed on cards.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    PATIENCE,
    board::{Board, HardwareClock, Output, Wiring},
    disk::Disk,
    leash::{Folder, Leash},
    rig,
};

/// Where hil/virtual/prepare.sh leaves the image, the kernel and a later package.
const PREPARED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/hil");

/// This machine, as qemu's own network shows it on the uplink.
const HOST: &str = "10.0.2.2";

pub(crate) struct Emulated {
    folder: Folder,
    disk: Disk,
    door: u16,
    broker: u16,
    powered: Option<Powered>,
}

/// While there is power.
struct Powered {
    /// Power itself: without it qemu is gone at once.
    _power: Leash,
    shell: BufReader<UnixStream>,
    monitor: BufReader<UnixStream>,
    line: UnixStream,
}

impl Emulated {
    pub(crate) fn new() -> Self {
        let image = Path::new(PREPARED).join("board.img");
        assert!(
            image.exists(),
            "{} is not there: run hil/virtual/prepare.sh first",
            image.display()
        );
        let folder = Folder::new();
        let random = fastrand::Rng::with_seed(rig::seed());
        let disk = Disk::new(folder.path().join("disk.raw"), random);
        Self {
            folder,
            disk,
            door: rig::free_port(),
            broker: rig::free_port(),
            powered: None,
        }
    }

    fn powered(&mut self) -> &mut Powered {
        self.powered.as_mut().expect("the scenario gave it power")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One of qemu's sockets: it makes them before it starts the board.
    fn socket(&self, name: &str) -> UnixStream {
        let path = self.file(name);
        let stream = rig::until(|| UnixStream::connect(&path).ok());
        let stream = stream.expect("qemu starts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
        stream
    }

    /// Gives it power, and waits for nothing that it does with it.
    fn switch_on(&mut self, clock: HardwareClock) {
        assert!(self.powered.is_none(), "it has power");
        for name in ["line", "shell", "monitor"] {
            // What a killed qemu left.
            drop(fs::remove_file(self.file(name)));
        }
        let mut arguments = machine(self.folder.path(), self.door, clock);
        arguments.extend([
            "-blockdev".to_owned(),
            format!("node-name=disk,{}", self.disk.node()),
        ]);
        let power = Leash::put_on("qemu-system-aarch64", &arguments, &self.file("qemu"));
        let (shell, monitor) = (self.socket("shell"), self.socket("monitor"));
        let line = self.socket("line");
        self.powered = Some(Powered {
            _power: power,
            shell: BufReader::new(shell),
            monitor: BufReader::new(monitor),
            line,
        });
    }

    /// Asks qemu's monitor (QMP); what it refuses is a mistake here.
    fn ask(&mut self, command: &str, arguments: &Value) {
        let monitor = &mut self.powered().monitor;
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(monitor.get_mut(), "{request}").expect("qemu runs");
        loop {
            let mut line = String::new();
            monitor.read_line(&mut line).expect("qemu answers");
            let answer: Value = serde_json::from_str(&line).expect("QMP is JSON");
            if answer.get("return").is_some() {
                return;
            }
            assert!(answer.get("error").is_none(), "{command} {arguments}: {answer}");
        }
    }
}

/// What kind of machine it is, but for its disk.
fn machine(folder: &Path, door: u16, clock: HardwareClock) -> Vec<String> {
    let prepared = Path::new(PREPARED);
    let socket = |id: &str| {
        let path = folder.join(id);
        format!("socket,id={id},path={},server=on,wait=off", path.display())
    };
    let command_line = fs::read_to_string(prepared.join("cmdline"));
    let command_line = command_line.expect("hil/virtual/prepare.sh wrote it");
    let clock = match clock {
        HardwareClock::Right => "base=utc",
        HardwareClock::In1970 => "base=1970-01-01T00:00:00",
    };
    let mut arguments: Vec<String> = Vec::new();
    let mut add = |name: &str, value: &str| arguments.extend([name.to_owned(), value.to_owned()]);
    for (name, value) in [
        ("-machine", "virt"),
        ("-cpu", "cortex-a72"),
        ("-accel", "tcg,thread=multi"),
        ("-smp", "2"),
        ("-m", "512"),
        ("-display", "none"),
        ("-vga", "none"),
        ("-rtc", clock),
        ("-append", command_line.trim()),
    ] {
        add(name, value);
    }
    add("-kernel", &prepared.join("vmlinuz").display().to_string());
    add("-initrd", &prepared.join("initrd.img").display().to_string());
    add("-serial", &format!("file:{}", folder.join("console").display()));
    add("-device", "virtio-rng-pci");
    add("-device", "virtio-blk-pci,drive=disk");
    // The uplink and the site, so that the one can be cut without the other.
    add("-netdev", "user,id=uplink,net=10.0.2.0/24");
    add(
        "-device",
        "virtio-net-pci,romfile=,netdev=uplink,mac=52:54:00:00:00:01",
    );
    add(
        "-netdev",
        &format!("user,id=site,net=10.0.3.0/24,restrict=on,hostfwd=tcp:127.0.0.1:{door}-:1883"),
    );
    add(
        "-device",
        "virtio-net-pci,romfile=,netdev=site,mac=52:54:00:00:00:02",
    );
    add("-chardev", &socket("line"));
    add("-device", "qemu-xhci");
    add("-device", ADAPTER);
    add("-chardev", &socket("shell"));
    add("-device", "virtio-serial-pci");
    add("-device", "virtserialport,chardev=shell,name=tidegate.shell");
    add("-chardev", &socket("monitor"));
    add("-mon", "chardev=monitor,mode=control");
    arguments
}

/// An FTDI adapter with a number of its own, so that `61-tidegate-serial.rules` names it by that.
const ADAPTER: &str = "usb-serial,id=adapter,chardev=line,always-plugged=on,serial=BENCH1";
const PORT: &str = "/dev/tidegate/ftdi-BENCH1";

impl Board for Emulated {
    fn renew(&mut self, configuration: &str) {
        self.powered = None;
        let disk = self.file("disk.raw");
        let mut copy = Command::new("cp");
        copy.args(["--sparse=always", "--reflink=auto"])
            .arg(Path::new(PREPARED).join("board.img"))
            .arg(&disk);
        assert!(copy.status().expect("coreutils").success(), "no room for a disk?");
        // As an installer does: on the partition that a laptop shows.
        let mine = self.file("gateway.toml");
        fs::write(&mine, configuration).expect("written");
        let boot = fs::read_to_string(Path::new(PREPARED).join("boot-offset"));
        let boot = boot.expect("hil/virtual/prepare.sh wrote it");
        let mut bring = Command::new("mcopy");
        bring
            .arg("-i")
            .arg(format!("{}@@{}", disk.display(), boot.trim()))
            .arg(&mine)
            .arg("::/gateway.toml");
        assert!(
            bring
                .status()
                .expect("mtools is installed (hil/virtual/prepare.sh)")
                .success()
        );
    }

    fn power_on(&mut self, clock: HardwareClock) {
        self.switch_on(clock);
        self.ask("qmp_capabilities", &json!({}));
        // Nobody reads this before the board has booted.
        self.run("true", &[]);
    }

    fn flicker(&mut self, time: Duration) -> String {
        self.switch_on(HardwareClock::Right);
        thread::sleep(time);
        self.cut_power()
    }

    fn cut_power(&mut self) -> String {
        self.powered = None;
        let cut = self.disk.cut();
        format!(
            "{} writes since power on, {} not flushed, {} of these lost",
            cut.writes, cut.unflushed, cut.lost
        )
    }

    fn plug_in(&mut self) {
        let device: Vec<_> = ADAPTER.split(',').collect();
        let mut arguments = json!({ "driver": device[0] });
        for property in &device[1..] {
            let (name, value) = property.split_once('=').expect("a property has a value");
            arguments[name] = match value {
                "on" => json!(true),
                text => json!(text),
            };
        }
        self.ask("device_add", &arguments);
    }

    fn unplug(&mut self) {
        self.ask("device_del", &json!({ "id": "adapter" }));
    }

    fn say(&mut self, bytes: &[u8]) {
        self.powered().line.write_all(bytes).expect("qemu runs");
    }

    fn cut_uplink(&mut self) {
        self.ask("set_link", &json!({ "name": "uplink", "up": false }));
    }

    fn mend_uplink(&mut self) {
        self.ask("set_link", &json!({ "name": "uplink", "up": true }));
    }

    fn run(&mut self, command: &str, input: &[u8]) -> Output {
        let shell = &mut self.powered().shell;
        let asked = format!("{} {}\n", input.len(), BASE64_STANDARD.encode(command));
        let stream = shell.get_mut();
        stream.write_all(asked.as_bytes()).expect("qemu runs");
        stream.write_all(input).expect("qemu runs");
        let mut answer = String::new();
        let read = shell.read_line(&mut answer);
        assert!(
            read.as_ref().is_ok_and(|length| *length > 0),
            "no answer to {command:?}: {read:?}"
        );
        let (code, text) = answer.trim_end_matches('\n').split_once(' ').expect("two words");
        let text = BASE64_STANDARD.decode(text).expect("base64");
        Output {
            code: code.parse().expect("a number"),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }

    fn wiring(&self) -> Wiring {
        Wiring {
            door: ("127.0.0.1".to_owned(), self.door),
            broker_listens: ("127.0.0.1".to_owned(), self.broker),
            broker: HOST.to_owned(),
            port: PORT.to_owned(),
        }
    }

    fn later_package(&self) -> Vec<u8> {
        fs::read(Path::new(PREPARED).join("later.deb")).expect("hil/virtual/prepare.sh made it")
    }
}

impl Drop for Emulated {
    /// Says what helps to see why a scenario failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in ["qemu", "console"] {
                let said = fs::read(self.file(name)).unwrap_or_default();
                let said = String::from_utf8_lossy(&said);
                let lines: Vec<_> = said.lines().collect();
                let last = lines.len().saturating_sub(30);
                eprintln!("--- {name} ---\n{}", lines[last..].join("\n"));
            }
        }
    }
}
