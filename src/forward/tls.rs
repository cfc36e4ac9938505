//! TLS of an uplink: whom we trust and who we are. The ring provider, chosen here and nowhere by default.

use std::{io, path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::Error;

mod look;

pub use look::{Certificate, Look, Refusal, look};

/// The files that an uplink's TLS is made of.
#[derive(Clone, Copy, Debug)]
pub struct Files<'s> {
    /// Whether there is TLS at all.
    pub tls: bool,
    /// PEM: instead of the system's roots.
    pub ca: Option<&'s Path>,
    /// PEM: our certificate.
    pub cert: Option<&'s Path>,
    /// PEM: its key.
    pub key: Option<&'s Path>,
}

/// What an uplink takes from its certificate files, loaded: none without TLS. Read once, so it is loaded before
/// anything is opened.
#[derive(Clone, Debug)]
pub struct Tls(pub(super) Option<Arc<ClientConfig>>);

impl Tls {
    /// Loads the certificates that a sink's settings name. Blocking.
    ///
    /// # Errors
    ///
    /// A certificate or key that cannot be used, named.
    pub fn load<'s>(settings: impl Into<Files<'s>>) -> Result<Self, Error> {
        let files = settings.into();
        if files.tls {
            configure(&files).map(|config| Self(Some(config)))
        } else {
            Ok(Self(None))
        }
    }

    /// Everything that keeps [`Tls::load`] from loading; empty: it would.
    #[must_use]
    pub fn mistakes<'s>(settings: impl Into<Files<'s>>) -> Vec<Error> {
        let files = settings.into();
        let ca = files.ca.map(|path| certificates("ca", path).err());
        let cert = files.cert.map(|path| certificates("cert", path).err());
        let key = files.key.map(|path| private_key(path).err());
        let each: Vec<Error> = [ca, cert, key].into_iter().flatten().flatten().collect();
        if each.is_empty() {
            Self::load(files).err().into_iter().collect()
        } else {
            each
        }
    }
}

fn configure(files: &Files<'_>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(roots(files.ca)?);
    let config = match (files.cert, files.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates("cert", cert)?, private_key(key)?)
            .map_err(|error| Error::file("cert", cert, pair_reason(&error)))?,
        _ => return Err(Error::HalfIdentity),
    };
    Ok(Arc::new(config))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca {
        for certificate in certificates("ca", path)? {
            roots.add(certificate).map_err(|error| {
                let reason = format!("{error}; ask for the CA's certificate once more");
                Error::file("ca", path, reason)
            })?;
        }
        return Ok(roots);
    }
    // One unreadable file among the system's many is no reason to trust none of them.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        Err(Error::NoRoots)
    } else {
        Ok(roots)
    }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let wrong = |error: pem::Error| Error::file(key, path, reason(&error, "CERTIFICATE"));
    let found = CertificateDer::pem_file_iter(path)
        .map_err(wrong)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong)?;
    if found.is_empty() {
        return Err(wrong(pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| Error::file("key", path, reason(&error, "PRIVATE KEY")))
}

/// What is wrong with a PEM file, and what to do.
fn reason(error: &pem::Error, wanted: &str) -> String {
    let begin = format!("-----BEGIN {wanted}-----");
    match error {
        pem::Error::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => "there is no such file; put it there, or name another".to_owned(),
            io::ErrorKind::PermissionDenied => {
                "it may not be read; let the user that runs tidegate read it".to_owned()
            }
            io::ErrorKind::IsADirectory => "it is a directory; name the file in it".to_owned(),
            _ => format!("{error}; name a file that can be read"),
        },
        pem::Error::NoItemsFound => format!("there is no {begin} in it; name a PEM file that has one"),
        _ => format!("it is not whole PEM; from {begin} to its END line it must be as it was issued"),
    }
}

fn pair_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key is another certificate's; name the two that were issued together".to_owned()
        }
        other => format!("{other}; name the certificate and the key that were issued together"),
    }
}
