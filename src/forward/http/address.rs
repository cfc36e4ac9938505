//! Where requests go: a URL, taken apart once.

use std::{fmt, str::FromStr};

use hyper::Uri;

/// An `http` or `https` URL. Shown without its path and query, which may be a secret: many webhooks have one there.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// `https`.
    pub tls: bool,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// 80 or 443, if the URL names none.
    pub port: u16,
    /// As `Host` has it: with the port only if the URL names it.
    pub authority: String,
    /// Path and query.
    pub target: String,
}

/// What is wrong with a URL, as the end of a sentence that begins with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// No URL at all.
    #[error("must be like \"https://hooks.example.com/events\"")]
    Form,
    /// MQTT's, say.
    #[error("has another scheme than this sink speaks; write https:// or http://")]
    Scheme,
    /// `user:password@`.
    #[error("names a user; write an authorization header into headers, or a token's file as bearer-file")]
    User,
    /// `#...`.
    #[error("has a fragment, which no server is ever told; drop it from # on")]
    Fragment,
    /// 0, or none that fits.
    #[error("has no port from 1 to 65535 after the host's colon")]
    Port,
}

impl FromStr for Address {
    type Err = Wrong;

    fn from_str(url: &str) -> Result<Self, Wrong> {
        let (scheme, rest) = url.split_once("://").ok_or(Wrong::Form)?;
        let tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return Err(Wrong::Scheme),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (before, _) = rest.split_at(end);
        if before.contains('@') {
            return Err(Wrong::User);
        }
        if rest.contains('#') {
            return Err(Wrong::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_| Wrong::Form)?;
        let authority = uri.authority().ok_or(Wrong::Form)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(Wrong::Form);
        }
        let named = authority.as_str().len() > authority.host().len();
        let port = match authority.port_u16() {
            Some(port) if port > 0 => port,
            None if !named => 80 + 363 * u16::from(tls),
            _ => return Err(Wrong::Port),
        };
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // A query may follow the host at once, and the path is empty then.
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self {
            tls,
            host: host.to_owned(),
            port,
            authority: authority.as_str().to_owned(),
            target: format!("{slash}{target}"),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.authority)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}/(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let parts = |url: &str| {
            let address: Address = url.parse().unwrap();
            (
                address.tls,
                address.host,
                address.port,
                address.authority,
                address.target,
            )
        };
        let expect = |tls, host: &str, port, authority: &str, target: &str| {
            (
                tls,
                host.to_owned(),
                port,
                authority.to_owned(),
                target.to_owned(),
            )
        };
        assert_eq!(
            parts("https://a.b/c?d=e"),
            expect(true, "a.b", 443, "a.b", "/c?d=e")
        );
        assert_eq!(parts("http://a.b"), expect(false, "a.b", 80, "a.b", "/"));
        assert_eq!(
            parts("http://a:8080?x"),
            expect(false, "a", 8080, "a:8080", "/?x")
        );
        assert_eq!(
            parts("http://[::1]:81/"),
            expect(false, "::1", 81, "[::1]:81", "/")
        );
    }

    #[test]
    fn what_is_no_url_of_a_webhook_is_told_apart() {
        for (url, wrong) in [
            ("hooks.example.com", Wrong::Form),
            ("https://", Wrong::Form),
            ("https:///events", Wrong::Form),
            ("https://a b/", Wrong::Form),
            ("mqtt://a", Wrong::Scheme),
            ("https://joe:secret@a/", Wrong::User),
            ("https://a/#b", Wrong::Fragment),
            ("https://a:0/", Wrong::Port),
            ("https://a:/", Wrong::Port),
            ("https://a:99999/", Wrong::Port),
        ] {
            assert_eq!(url.parse::<Address>(), Err(wrong), "{url}");
        }
        assert!("https://a/mail@b".parse::<Address>().is_ok(), "no user there");
    }

    #[test]
    fn the_path_and_the_query_are_not_shown() {
        let address: Address = "https://hooks.example.com/T0/s3cret?token=s3cret"
            .parse()
            .unwrap();
        assert!(!format!("{address:?} {address}").contains("s3cret"));
    }
}
