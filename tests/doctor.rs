//! `tidegate doctor` before real things: a broker, certificates that are right, expired, another's, a journal that was
//! harmed, a port that is not there. Each finding is seen bad and good.

#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "gateway/parts.rs"]
#[expect(dead_code, reason = "the tests of the gateway use more of it")]
mod parts;

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use parts::{Gateway, Mosquitto, Site, free_port};
use rcgen::{CertificateParams, CertifiedKey, DnType, KeyPair, date_time_ymd};
use serde_json::Value;

/// What no part of this test may take longer than.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A folder with a configuration, and no gateway that runs.
struct Board {
    folder: tempfile::TempDir,
}

impl Board {
    fn new(tables: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("journal");
        let text = format!(
            "[gateway]\nid = \"plantroom-1\"\n[journal]\ndir = \"{}\"\nmax-bytes = \"8MiB\"\n{tables}\n",
            dir.display()
        );
        fs::write(folder.path().join("gateway.toml"), text).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn doctor(&self) -> Seen {
        let config = self.path("gateway.toml");
        Seen::of(&config, self.folder.path())
    }
}

/// What the doctor said.
struct Seen {
    code: Option<i32>,
    findings: Vec<Value>,
    told: String,
}

impl Seen {
    fn of(config: &Path, state: &Path) -> Self {
        let ran = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["doctor", "--format", "json", "--config"])
            .arg(config)
            .env("STATE_DIRECTORY", state)
            .env_remove("RUNTIME_DIRECTORY")
            .output()
            .expect("the program runs");
        let told = String::from_utf8(ran.stderr).unwrap();
        let said: Value =
            serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        Self {
            code: ran.status.code(),
            findings: said["findings"].as_array().unwrap().clone(),
            told,
        }
    }

    /// How bad it is about this, and all that is said of it.
    fn about(&self, check: &str) -> (&str, String) {
        let rank = |finding: &&Value| match finding["severity"].as_str().unwrap() {
            "ok" => 0,
            "note" => 1,
            "warning" => 2,
            _ => 3,
        };
        let about = || self.findings.iter().filter(|finding| finding["check"] == check);
        let worst = about()
            .max_by_key(rank)
            .unwrap_or_else(|| panic!("nothing about {check}: {:?}", self.findings));
        let said: Vec<String> = about().map(ToString::to_string).collect();
        (worst["severity"].as_str().unwrap(), said.join("\n"))
    }

    #[track_caller]
    fn expect(&self, check: &str, severity: &str, words: &str) {
        let (worst, said) = self.about(check);
        assert_eq!(worst, severity, "{said}");
        assert!(said.contains(words), "no {words:?} in {said}");
        if matches!(severity, "warning" | "failure") {
            assert!(said.contains("\"remedy\":\""), "what to do: {said}");
        }
    }
}

fn mqtt(url: &str, keys: &str) -> String {
    format!("[[sink.mqtt]]\nname = \"cloud\"\nurl = \"{url}\"\n{keys}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_well_is_found_well_and_loses_no_connection_to_the_look() {
    let broker = Mosquitto::start().await;
    let site = Site::new().uplink(broker.port, "5");
    let gateway = Gateway::start(&site).await;
    let connected = async || {
        let (_, status, _) = site.ask(&["status", "--format", "json"]).await;
        let status: Value = serde_json::from_str(&status).ok()?;
        (status["sinks"][0]["connected"] == true && status["sinks"][0]["confirmed"].as_u64() >= Some(1))
            .then_some(status["sinks"][0]["sent"].clone())
    };
    let sent = parts::until(PATIENCE, connected, || "the uplink is up".to_owned()).await;

    let seen = Seen::of(&site.config(), site.folder.path());
    seen.expect("gateway", "ok", "plantroom-1 runs");
    seen.expect("readings", "note", "none yet");
    seen.expect("uplink cloud", "ok", "the broker takes a connection");
    seen.expect("journal", "ok", "in use by process");
    seen.expect("rights", "ok", "");
    assert_ne!(seen.code, Some(1), "{:?}", seen.findings);
    // A broker throws out the older of two clients of one id; then all that is unconfirmed is sent again.
    assert_eq!(connected().await, Some(sent), "still the same connection");
    let (_, status, _) = site.ask(&["status"]).await;
    assert!(!status.contains("AWAY"), "{status}");
    gateway.stop().await;

    let seen = Seen::of(&site.config(), site.folder.path());
    seen.expect("gateway", "note", "none runs here");
    seen.expect("journal", "ok", "verified");
    seen.expect("door", "ok", "is free");
}

#[test]
fn it_connects_under_a_client_id_of_its_own_without_a_will() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let broker = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut packet = [0; 1024];
            // The first only looks whether somebody is there.
            let length = stream.read(&mut packet).unwrap_or(0);
            if length > 0 {
                stream.write_all(&[0x20, 3, 0, 0, 0]).unwrap();
                return packet[..length].to_vec();
            }
        }
    });
    let board = Board::new(&mqtt(&format!("mqtt://127.0.0.1:{port}"), ""));
    let seen = board.doctor();
    seen.expect("uplink cloud", "ok", "nothing was published");
    let connect = broker.join().unwrap();
    let id = b"tidegate-plantroom-1-doctor-";
    assert!(connect.windows(id.len()).any(|bytes| bytes == id), "{connect:?}");
    // After the header (2), the name (6) and the version (1) come the flags: 0x04 is a will.
    assert_eq!(connect[9] & 0x04, 0, "{connect:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_to_a_broker_is_told_when_it_fails() {
    let nobody = free_port().await;
    let seen = Board::new(&mqtt(&format!("mqtt://127.0.0.1:{nobody}"), "")).doctor();
    seen.expect("uplink cloud", "failure", "nobody listens on this port");
    assert_eq!(seen.code, Some(1), "{}", seen.told);

    let seen = Board::new(&mqtt("mqtt://broker.invalid:1883", "")).doctor();
    seen.expect("uplink cloud", "failure", "broker.invalid");

    let closed = Mosquitto::start_with("allow_anonymous false\n").await;
    let seen = Board::new(&mqtt(&format!("mqtt://127.0.0.1:{}", closed.port), "")).doctor();
    seen.expect("uplink cloud", "failure", "the broker refuses the connection");

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let seen = Board::new(&mqtt(&format!("mqtt://127.0.0.1:{port}"), "")).doctor();
    seen.expect("uplink cloud", "failure", "says nothing for 5 s");
}

/// A certificate and its key as files: of a CA if there is one, else its own.
fn issue(board: &Path, name: &str, host: &str, until: i32, by: Option<&CertifiedKey>) -> CertifiedKey {
    let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    if by.is_none() {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    }
    let key_pair = KeyPair::generate().unwrap();
    let cert = match by {
        Some(ca) => params.signed_by(&key_pair, &ca.cert, &ca.key_pair),
        None => params.self_signed(&key_pair),
    };
    let cert = cert.unwrap();
    fs::write(board.join(format!("{name}.pem")), cert.pem()).unwrap();
    fs::write(board.join(format!("{name}.key")), key_pair.serialize_pem()).unwrap();
    CertifiedKey { cert, key_pair }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_right_expired_anothers_or_for_another_name() {
    let files = tempfile::tempdir().unwrap();
    // mosquitto gives up root's rights, and reads its key after that.
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let dir = files.path();
    let ca = issue(dir, "ca", "ca", 2095, None);
    issue(dir, "other-ca", "ca", 2095, None);
    issue(dir, "right", "localhost", 2090, Some(&ca));
    issue(dir, "expired", "localhost", 2024, Some(&ca));
    issue(dir, "elsewhere", "example.com", 2090, Some(&ca));
    let look = async |server: &str, trusted: &str| {
        let dir = dir.display();
        let lines = format!("certfile {dir}/{server}.pem\nkeyfile {dir}/{server}.key\n");
        let broker = Mosquitto::start_with(&lines).await;
        let url = format!("mqtts://localhost:{}", broker.port);
        Board::new(&mqtt(&url, &format!("ca = \"{dir}/{trusted}.pem\""))).doctor()
    };
    let right = look("right", "ca").await;
    right.expect("uplink cloud", "ok", "ends in ");
    right.expect("uplink cloud", "ok", "2090-01-01");
    right.expect("uplink cloud", "ok", "the broker takes a connection");
    look("expired", "ca")
        .await
        .expect("uplink cloud", "failure", "expired on 2024-01-01");
    look("right", "other-ca")
        .await
        .expect("uplink cloud", "failure", "is not from the CA of `ca`");
    look("elsewhere", "ca")
        .await
        .expect("uplink cloud", "failure", "for another name");

    let plain = Mosquitto::start().await;
    let url = format!("mqtts://localhost:{}", plain.port);
    let seen = Board::new(&mqtt(&url, &format!("ca = \"{}/ca.pem\"", dir.display()))).doctor();
    seen.expect("uplink cloud", "failure", "TLS");
}

#[test]
fn a_client_certificate_that_has_ended_is_found_without_any_server() {
    let files = tempfile::tempdir().unwrap();
    let ca = issue(files.path(), "ca", "ca", 2095, None);
    issue(files.path(), "ended", "gateway", 2024, Some(&ca));
    issue(files.path(), "good", "gateway", 2090, Some(&ca));
    let look = |name: &str| {
        let dir = files.path().display();
        let keys = format!("ca = \"{dir}/ca.pem\"\ncert = \"{dir}/{name}.pem\"\nkey = \"{dir}/{name}.key\"");
        Board::new(&mqtt("mqtts://127.0.0.1:1", &keys)).doctor()
    };
    let (_, said) = look("ended").about("uplink cloud");
    assert!(
        said.contains("cert: the certificate of CN=ended") && said.contains("on 2024-01-01"),
        "{said}"
    );
    let (_, said) = look("good").about("uplink cloud");
    assert!(
        said.contains("ends in") && said.contains("on 2090-01-01"),
        "{said}"
    );
}

/// A web server that answers one request with `status`, and tells what it was asked.
fn web(status: &'static str) -> (u16, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut part = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => request.extend_from_slice(&part[..length]),
                }
            }
            if !request.is_empty() {
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.write_all(answer.as_bytes()).unwrap();
                return String::from_utf8(request).unwrap();
            }
        }
    });
    (port, asked)
}

#[test]
fn a_webhook_is_asked_for_its_options_and_nothing_is_delivered() {
    for (status, severity, words) in [
        ("204 No Content", "ok", "it is reached"),
        ("405 Method Not Allowed", "ok", "takes no OPTIONS"),
        ("401 Unauthorized", "warning", "does not let us in"),
        ("503 Service Unavailable", "warning", "in trouble"),
    ] {
        let (port, asked) = web(status);
        let board = Board::new(&format!(
            "[[sink.http]]\nname = \"hooks\"\nurl = \"http://127.0.0.1:{port}/s3cret\"\n"
        ));
        let seen = board.doctor();
        seen.expect("uplink hooks", severity, words);
        let asked = asked.join().unwrap();
        assert!(asked.starts_with("OPTIONS /s3cret HTTP/1.1\r\n"), "{asked}");
        assert!(
            !asked.contains("content-length: 1") && !asked.contains("webhook-signature"),
            "{asked}"
        );
        assert!(
            !seen
                .findings
                .iter()
                .any(|finding| finding.to_string().contains("s3cret")),
            "a URL may be secret"
        );
    }
}

#[test]
fn a_port_that_is_not_there_and_a_secret_that_all_may_read_are_found() {
    let tables = |port: &str, url_port: u16, keys: &str| {
        format!(
            "[[serial]]\nname = \"boiler\"\nport = \"{port}\"\nbaud = 9600\nformat = \"number\"\ndevice = \"boiler\"\n\
             [[serial.metric]]\nname = \"temperature\"\n{}",
            mqtt(&format!("mqtt://127.0.0.1:{url_port}"), keys)
        )
    };
    let secret = tempfile::tempdir().unwrap();
    fs::set_permissions(secret.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let password = secret.path().join("password");
    fs::write(&password, "s3cret").unwrap();
    let keys = format!(
        "username = \"gateway\"\npassword-file = \"{}\"",
        password.display()
    );
    let look = |port: &str, mode: u32| {
        fs::set_permissions(&password, fs::Permissions::from_mode(mode)).unwrap();
        Board::new(&tables(port, 1, &keys)).doctor()
    };
    let bad = look("/dev/nowhere/ttyUSB0", 0o644);
    bad.expect("line boiler", "failure", "no such file");
    bad.expect("rights", "warning", "everybody on this machine may read");
    let good = look("/dev/tty", 0o600);
    good.expect("line boiler", "ok", "is there");
    good.expect("rights", "ok", "others see no secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_harmed_journal_is_a_failure_and_a_whole_one_is_not() {
    let broker = Mosquitto::start().await;
    let site = Site::new().uplink(broker.port, "5");
    Gateway::start(&site).await.stop().await;
    let look = || Seen::of(&site.config(), site.folder.path());
    look().expect("journal", "ok", "verified");

    let current = site.folder.path().join("journal/current");
    let segment = fs::read_dir(current).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment
        .filter(|path| path.extension().is_some_and(|it| it == "seg"))
        .min()
        .unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    // In the first event, with others behind it.
    let name = b"GatewayStarted";
    let at = bytes
        .windows(name.len())
        .position(|found| found == name)
        .expect("it is there");
    bytes[at] ^= 0xff;
    fs::write(&segment, bytes).unwrap();
    let seen = look();
    seen.expect("journal", "failure", "newly damaged");
    assert_eq!(seen.code, Some(1));
}

#[test]
fn without_a_configuration_it_says_so_and_looks_at_the_rest() {
    let board = Board::new("[[sink.mqtt]]\nname = \"cloud\"\n");
    let seen = board.doctor();
    assert_eq!(seen.code, Some(78), "{}", seen.told);
    assert!(seen.told.contains("url"), "the report: {}", seen.told);
    seen.expect("configuration", "failure", "does not load");
    for check in ["gateway", "clock", "disk", "card", "journal"] {
        seen.about(check);
    }
}
