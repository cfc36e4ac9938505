//! One uplink, step by step as a connection is made: name, connection, TLS, and what the other side says to us. The
//! first step that fails is told, and the rest is not tried.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{super::table::age, Finding, PATIENCE};
use crate::{
    forward::{
        http,
        mqtt::{self, Tls},
        tls::{self, Certificate, Files, Look},
    },
    time::{Clock, Timestamp},
};

/// A certificate that ends within this is to be looked at: those of 90 days are renewed before it.
const SOON: Duration = Duration::from_hours(14 * 24);

pub(super) async fn mqtt(sink: &mqtt::Settings) -> Vec<Finding> {
    let mut steps = Steps::of(&sink.terms.name.to_string(), Files::from(sink));
    let host = sink.host.trim_start_matches('[').trim_end_matches(']');
    if !steps.come_to(host, sink.port).await {
        return steps.findings;
    }
    let tls = match Tls::load(sink) {
        Ok(tls) => tls,
        Err(error) => return steps.failed(error.to_string(), "tidegate check says where it stands"),
    };
    let login = sink.username.as_ref().map_or_else(
        || "without a user name".to_owned(),
        |name| format!("as user {name}"),
    );
    match timeout(PATIENCE, mqtt::probe(sink, tls)).await {
        Ok(Ok(())) => steps.ok(format!(
            "the broker takes a connection {login} (tried under a client id of its own; nothing was published)"
        )),
        Ok(Err(why)) => {
            return steps.failed(
                why,
                "does the broker know this user, or only the gateway's own client id? its log says more",
            );
        }
        Err(_) => {
            return steps.failed(
                format!("it takes the connection and says nothing for {} s", PATIENCE.as_secs()),
                "does MQTT run on this port? TLS has its own: mqtts://, 8883",
            );
        }
    }
    steps.findings
}

pub(super) async fn http(sink: &http::Settings) -> Vec<Finding> {
    let mut steps = Steps::of(&sink.terms.name.to_string(), Files::from(sink));
    if !steps.come_to(&sink.address.host, sink.address.port).await {
        return steps.findings;
    }
    let tls = match Tls::load(sink) {
        Ok(tls) => tls,
        Err(error) => return steps.failed(error.to_string(), "tidegate check says where it stands"),
    };
    match timeout(PATIENCE, http::probe(sink, &tls, Clock::system())).await {
        Ok(Ok(status)) => steps.answered(status.as_u16()),
        Ok(Err(why)) => {
            return steps.failed(why, "does a web server run on this port? its log says more");
        }
        Err(_) => {
            return steps.failed(
                format!("no answer to OPTIONS within {} s", PATIENCE.as_secs()),
                "is the server overloaded? its log says more",
            );
        }
    }
    steps.findings
}

struct Steps<'s> {
    check: String,
    files: Files<'s>,
    findings: Vec<Finding>,
}

impl<'s> Steps<'s> {
    fn of(name: &str, files: Files<'s>) -> Self {
        Self {
            check: format!("uplink {name}"),
            files,
            findings: Vec::new(),
        }
    }

    fn ok(&mut self, found: String) {
        self.findings.push(Finding::ok(&self.check, found));
    }

    fn warning(&mut self, found: String, remedy: &str) {
        self.findings.push(Finding::warning(&self.check, found, remedy));
    }

    fn failed(mut self, found: String, remedy: &str) -> Vec<Finding> {
        self.fail(found, remedy);
        self.findings
    }

    fn fail(&mut self, found: String, remedy: &str) -> bool {
        self.findings.push(Finding::failure(&self.check, found, remedy));
        false
    }

    /// Name, connection and TLS; whether all of them are right.
    async fn come_to(&mut self, host: &str, port: u16) -> bool {
        self.own_certificate();
        let addresses = match timeout(PATIENCE, lookup_host((host, port))).await {
            Ok(Ok(found)) => found.collect::<Vec<SocketAddr>>(),
            Ok(Err(error)) => {
                let remedy = "is the name in url right? does this board have a name server (resolvectl status, \
                              /etc/resolv.conf), and a network?";
                return self.fail(format!("{host} has no address: {error}"), remedy);
            }
            Err(_) => {
                let remedy = "does this board reach its name server (resolvectl status, /etc/resolv.conf)?";
                return self.fail(
                    format!(
                        "{host}: no answer of the name server within {} s",
                        PATIENCE.as_secs()
                    ),
                    remedy,
                );
            }
        };
        let stream = match connect(&addresses).await {
            Ok(stream) => stream,
            Err((address, error)) => {
                let remedy = match error.kind() {
                    io::ErrorKind::ConnectionRefused => {
                        "nobody listens on this port there: is the server up, is the port in url right?"
                    }
                    io::ErrorKind::TimedOut => "does a firewall drop it? is the server up?",
                    _ => "has this board a network, and a way out of it (ip route)?",
                };
                return self.fail(
                    format!("could not connect to {host} ({address}): {error}"),
                    remedy,
                );
            }
        };
        let peer = stream
            .peer_addr()
            .map_or_else(|_| host.to_owned(), |peer| peer.to_string());
        self.ok(format!("{host} is {peer}, and takes connections"));
        if !self.files.tls {
            return true;
        }
        match timeout(PATIENCE, tls::look(self.files, host, stream)).await {
            Ok(Ok(look)) => self.shown(&look),
            Ok(Err(error)) => self.fail(error.to_string(), "tidegate check says where it stands"),
            Err(_) => {
                let said = format!("no TLS handshake within {} s", PATIENCE.as_secs());
                self.fail(
                    said,
                    "does TLS run on this port? brokers have it on 8883, web servers on 443",
                )
            }
        }
    }

    /// What the server shows of itself; whether an uplink would go on.
    fn shown(&mut self, look: &Look) -> bool {
        if let Err(refusal) = &look.end {
            return self.fail(format!("TLS: {}", refusal.why), &refusal.remedy);
        }
        let now = Clock::system().moment().wall;
        // The first that ends is when it ends.
        if let Some(first) = look.chain.iter().min_by_key(|certificate| certificate.until) {
            let own = look.chain.first().map_or("", |own| own.issuer.as_str());
            let said = format!("TLS: {}, issued by {own}", ends(first, now));
            if first.until.0 - now.0 < micros(SOON) {
                self.warning(
                    said,
                    "have the server's certificate renewed; is that automatic, and did it run?",
                );
            } else {
                self.ok(said);
            }
        }
        true
    }

    /// The gateway's own, and the CA's, which it trusts by file.
    fn own_certificate(&mut self) {
        let now = Clock::system().moment().wall;
        let files: [(&'static str, Option<&Path>); 2] = [("cert", self.files.cert), ("ca", self.files.ca)];
        for (key, path) in files {
            // What cannot be read is told by the configuration.
            let found = path
                .and_then(|path| Certificate::in_file(key, path).ok())
                .unwrap_or_default();
            let Some(first) = found.iter().min_by_key(|certificate| certificate.until) else {
                continue;
            };
            let said = format!("{key}: {}", ends(first, now));
            if first.until <= now {
                self.fail(said, "put a new one there and restart the gateway");
            } else if first.until.0 - now.0 < micros(SOON) {
                self.warning(
                    said,
                    "have a new one issued, put it there and restart the gateway",
                );
            } else if key == "cert" {
                self.ok(said);
            }
        }
    }

    /// What an answer to OPTIONS means for a POST.
    fn answered(&mut self, status: u16) {
        let said = format!("answers OPTIONS with {status}");
        match status {
            200..300 => self.ok(format!("{said}: it is reached (nothing was delivered)")),
            405 | 501 => self.ok(format!(
                "{said}: it is reached, and takes no OPTIONS, which says nothing against a POST (nothing was delivered)"
            )),
            300..=399 => self.warning(
                format!("{said}: it points elsewhere, and redirects are not followed"),
                "write the address that it points to into url",
            ),
            401 | 403 | 407 => self.warning(
                format!("{said}: it does not let us in, or only not with OPTIONS"),
                "is bearer-file (or the authorization in headers) right? tidegate status says whether deliveries fail, too",
            ),
            404 | 410 => self.warning(
                format!("{said}: there is nothing at this path, or only not for OPTIONS"),
                "is the path in url right?",
            ),
            500.. => self.warning(
                format!("{said}: the server is in trouble"),
                "its log says more; events wait until it takes them",
            ),
            _ => self.warning(
                format!("{said}: it is reached, and does not like the request"),
                "if tidegate status shows that deliveries fail, too, the server's log says why",
            ),
        }
    }
}

/// To the first that takes it; else the last one's error. All of them together have the time of one look.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, (String, io::Error)> {
    let mut last = ("no address".to_owned(), io::ErrorKind::NotFound.into());
    let share = PATIENCE / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    for address in addresses {
        let error = match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(_) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", share.as_secs()),
            ),
        };
        last = (address.to_string(), error);
    }
    Err(last)
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn ends(certificate: &Certificate, now: Timestamp) -> String {
    let left = certificate.until.0 - now.0;
    let seconds = left.unsigned_abs() / 1_000_000;
    let subject = &certificate.subject;
    if left <= 0 {
        format!(
            "the certificate of {subject} ended {} ago, on {}",
            age(seconds),
            certificate.until
        )
    } else {
        format!(
            "the certificate of {subject} ends in {}, on {}",
            age(seconds),
            certificate.until
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Severity;

    fn steps() -> Steps<'static> {
        let files = Files {
            tls: true,
            ca: None,
            cert: None,
            key: None,
        };
        Steps::of("hooks", files)
    }

    #[test]
    fn an_answer_to_options_means_what_it_means_for_a_delivery() {
        for (status, severity) in [
            (200, Severity::Ok),
            (204, Severity::Ok),
            (405, Severity::Ok),
            (501, Severity::Ok),
            (301, Severity::Warning),
            (401, Severity::Warning),
            (404, Severity::Warning),
            (429, Severity::Warning),
            (500, Severity::Warning),
        ] {
            let mut steps = steps();
            steps.answered(status);
            let found = steps.findings.first().expect("a finding");
            assert_eq!(found.severity, severity, "{status}: {found:?}");
        }
    }

    #[test]
    fn a_certificate_that_ends_soon_is_to_be_looked_at() {
        let now = Clock::system().moment().wall;
        let ends_in = |days: i64| Look {
            chain: vec![Certificate {
                subject: "CN=broker".to_owned(),
                issuer: "CN=ca".to_owned(),
                from: Timestamp(0),
                until: Timestamp(now.0 + days * 86_400_000_000),
            }],
            end: Ok(()),
        };
        for (days, severity) in [(80, Severity::Ok), (13, Severity::Warning)] {
            let mut steps = steps();
            assert!(steps.shown(&ends_in(days)));
            assert_eq!(
                steps.findings.first().expect("a finding").severity,
                severity,
                "{days}"
            );
        }
    }
}
