//! The bearer token and the signing key, from their files, and the signature itself.
//!
//! Neither is ever in a `Debug` output, an error or a log.

use std::{
    fmt::{self, Write},
    fs::{self, File},
    io::Read,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use hyper::header::HeaderValue;
use sha2::Sha256;

use super::Settings;
use crate::forward::Error;

/// The longest file that is read: more than any server takes as a header.
const MOST: u64 = 8 * 1024;

/// What a request proves who it is from with; none of a kind that the settings do not name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Secrets {
    pub(super) bearer: Option<HeaderValue>,
    pub(super) signing: Option<SigningKey>,
}

impl Secrets {
    /// Reads the files that `settings` name. Blocking, but for two small files.
    ///
    /// # Errors
    ///
    /// The first of [`Secrets::mistakes`].
    pub fn read(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            bearer: settings.bearer_file.as_deref().map(bearer).transpose()?,
            signing: settings.signing_key_file.as_deref().map(signing).transpose()?,
        })
    }

    /// Everything that keeps [`Secrets::read`] from reading; empty: it would.
    #[must_use]
    pub fn mistakes(settings: &Settings) -> Vec<Error> {
        let bearer = settings
            .bearer_file
            .as_deref()
            .and_then(|path| bearer(path).err());
        let signing = settings
            .signing_key_file
            .as_deref()
            .and_then(|path| signing(path).err());
        bearer.into_iter().chain(signing).collect()
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, Error> {
    let wrong = |reason: &str| Error::file("bearer-file", path, reason.to_owned());
    let text = text("bearer-file", path)?;
    let token = text.trim_end();
    if token.is_empty() {
        return Err(wrong("it is empty; put the token into it, alone"));
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .ok()
        .filter(|_| !token.contains(char::is_whitespace))
        .ok_or_else(|| wrong("it has more in it than a token; put the token into it, alone on one line"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn signing(path: &Path) -> Result<SigningKey, Error> {
    let text = text("signing-key-file", path)?;
    SigningKey::parse(text.trim_end()).ok_or_else(|| {
        let form = "it holds no key of Standard Webhooks; that is whsec_ and the base64 of 24 to 64 random bytes, \
                    like whsec_$(openssl rand -base64 32)";
        Error::file("signing-key-file", path, form.to_owned())
    })
}

fn text(key: &'static str, path: &Path) -> Result<String, Error> {
    let unreadable = |error| Error::Unreadable {
        key,
        path: path.to_owned(),
        error,
    };
    let wrong = |reason: &str| Err(Error::file(key, path, reason.to_owned()));
    // Asked before it is opened: that alone can wait for ever, with a pipe.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return wrong("it is no regular file; put what is secret into one, alone");
    }
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MOST + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > MOST {
        return wrong("it is longer than 8 KiB; put what is secret into it, alone");
    }
    Ok(text)
}

/// A key of Standard Webhooks, version 1 (HMAC-SHA256).
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl SigningKey {
    fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix("whsec_")?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// What `webhook-signature` says of this message: `v1,...`.
    pub(super) fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        let mut signature = "v1,".to_owned();
        let encoded = STANDARD.encode(mac.finalize().into_bytes());
        write!(signature, "{encoded}").expect("a String takes all that is written");
        signature
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn a_signature_is_what_the_standards_own_libraries_make_of_the_same_message() {
        let key = SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = key.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key_is_none() {
        let short = format!("whsec_{}", STANDARD.encode([7; 23]));
        let long = format!("whsec_{}", STANDARD.encode([7; 65]));
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_?",
            &short,
            &long,
        ] {
            assert_eq!(SigningKey::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_may_never_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "t".repeat(8192)).unwrap();
        assert!(bearer(&path).is_ok());
        std::fs::write(&path, "t".repeat(8193)).unwrap();
        for (path, why) in [
            (&*path, "longer than 8 KiB"),
            (Path::new("/dev/null"), "no regular file"),
        ] {
            let error = bearer(path).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_secret_is_in_no_debug_output() {
        let secrets = Secrets {
            bearer: Some({
                let mut value = HeaderValue::from_static("Bearer t0ken");
                value.set_sensitive(true);
                value
            }),
            signing: SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        };
        let shown = format!("{secrets:?}");
        assert!(!shown.contains("t0ken") && !shown.contains("49"), "{shown}");
    }
}
