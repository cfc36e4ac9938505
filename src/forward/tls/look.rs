//! What a server shows of itself, believed or not: for a person who asks why there is no connection, or how long there
//! will be one. Nothing is sent behind the handshake.

use std::{
    io,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_cert::der::Decode;

use super::{Error, Files, certificates, configure, roots};
use crate::time::Timestamp;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// It counts from then on.
    pub from: Timestamp,
    /// And until then.
    pub until: Timestamp,
}

impl Certificate {
    /// None: it is none that can be read.
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let read = x509_cert::Certificate::from_der(der).ok()?.tbs_certificate;
        let time = |time: x509_cert::time::Time| {
            Timestamp(i64::try_from(time.to_unix_duration().as_micros()).unwrap_or(i64::MAX))
        };
        Some(Self {
            subject: read.subject.to_string(),
            issuer: read.issuer.to_string(),
            from: time(read.validity.not_before),
            until: time(read.validity.not_after),
        })
    }

    /// Those in a PEM file that a sink names as `key`; one that cannot be read is passed over.
    ///
    /// # Errors
    ///
    /// The file cannot be read as PEM.
    pub fn in_file(key: &'static str, path: &Path) -> Result<Vec<Self>, Error> {
        Ok(certificates(key, path)?.iter().filter_map(Self::of).collect())
    }
}

/// How a handshake went.
#[derive(Clone, Debug)]
pub struct Look {
    /// What the server showed, its own first; empty: it came to nothing before that.
    pub chain: Vec<Certificate>,
    /// Whether it came to an end, as an uplink's would.
    pub end: Result<(), Refusal>,
}

/// Why not, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub why: String,
    /// What to do.
    pub remedy: String,
}

/// Shakes hands over `stream` as an uplink with these files would; `host` is what its certificate must name. Bounded by
/// whoever waits.
///
/// # Errors
///
/// The files cannot be used, or `host` is no name.
pub async fn look<'s>(settings: impl Into<Files<'s>>, host: &str, stream: TcpStream) -> Result<Look, Error> {
    let files = settings.into();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(files.ca)?), provider)
        .build()
        .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?;
    let witness = Arc::new(Witness {
        inner,
        seen: Mutex::default(),
    });
    let mut config = ClientConfig::clone(&*configure(&files)?);
    config
        .dangerous()
        .set_certificate_verifier(Arc::<Witness>::clone(&witness));
    let name = match host.parse::<IpAddr>() {
        Ok(ip) => ServerName::from(ip),
        Err(_) => ServerName::try_from(host.to_owned())
            .map_err(|error| Error::Tls(rustls::Error::General(error.to_string())))?,
    };
    let end = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let seen = witness.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let chain: Vec<Certificate> = seen.iter().filter_map(Certificate::of).collect();
    let end = end.map(drop).map_err(|error| refusal(&error, &chain, files.ca));
    Ok(Look { chain, end })
}

/// Why, in the words of whoever has to do something about it.
fn refusal(error: &io::Error, chain: &[Certificate], ca: Option<&Path>) -> Refusal {
    let said = |why: String, remedy: &str| Refusal {
        why,
        remedy: remedy.to_owned(),
    };
    let Some(error) = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>())
    else {
        let remedy = "does TLS run on this port, and does a firewall let it through?";
        return said(format!("the handshake broke: {error}"), remedy);
    };
    let own = chain.first();
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => {
            let until = own.map_or_else(String::new, |own| format!(" on {}", own.until));
            let remedy =
                "have the server's certificate renewed; or is the clock here in the future (timedatectl)?";
            said(format!("a certificate of the server expired{until}"), remedy)
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            let from = own.map_or_else(String::new, |own| format!(" before {}", own.from));
            let remedy = "set the clock here (timedatectl): boards without a battery begin in the past";
            said(format!("the server's certificate does not count{from}"), remedy)
        }
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let issuer = chain.last().map_or("nobody", |last| last.issuer.as_str());
            let (trusted, remedy) = match ca {
                Some(_) => (
                    "the CA of `ca`",
                    "name the file of the CA that issued it in `ca`; is the whole chain sent by the server?",
                ),
                None => (
                    "any of the system's CAs",
                    "set `ca` to the file of the CA that issued it; is the whole chain sent by the server?",
                ),
            };
            said(
                format!("the server's certificate, issued by {issuer}, is not from {trusted}"),
                remedy,
            )
        }
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => said(
            format!("the server's certificate is for another name: {error}"),
            "write a name into url that the certificate has",
        ),
        rustls::Error::InvalidMessage(_) => said(
            format!("what answers there speaks no TLS: {error}"),
            "is it the right port? brokers have TLS on 8883, web servers on 443",
        ),
        rustls::Error::AlertReceived(_) => said(
            format!("the server ended the handshake: {error}"),
            "if it wants a certificate of the gateway, set cert and key; its log says why",
        ),
        other => said(other.to_string(), "the server's log may say more"),
    }
}

/// Decides as rustls does, and remembers what it was shown.
#[derive(Debug)]
struct Witness {
    inner: Arc<WebPkiServerVerifier>,
    seen: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = std::iter::once(end_entity).chain(intermediates);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = shown
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        self.inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
