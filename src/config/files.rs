//! The files and directories that a configuration names, looked at as a start would. Nothing is changed.

use std::path::Path;

use super::{Config, check::Checker, raw, sinks};
use crate::forward::{Error, Tls, http::secrets::Secrets};

pub(super) fn check(file: &raw::File, config: &Config, checker: &mut Checker<'_>) {
    journal(file, &config.journal.dir, checker);
    http(file, config, checker);
    for sink in &config.sinks.mqtt {
        let Some(table) = sinks::mqtt_table(&file.sink.mqtt, sink) else {
            continue;
        };
        let raw = table.get_ref();
        let who = format!("sink \"{}\"", sink.terms.name);
        // Keys that do not go together are told as such already.
        if raw.cert.is_some() == raw.key.is_some() {
            for mistake in Tls::mistakes(sink) {
                let place = match mistake.key() {
                    Some("ca") => &raw.ca,
                    Some("cert") => &raw.cert,
                    Some("key") => &raw.key,
                    _ => &raw.url,
                };
                let span = place.as_ref().map_or_else(|| table.span(), toml::Spanned::span);
                checker.wrong(span, format!("{who}: {mistake}"));
            }
        }
        if let (Some(written), Some(path)) = (&raw.password_file, &sink.password_file)
            && let Err(error) = std::fs::read_to_string(path)
        {
            let until = "the uplink connects only when it can be read: it is read for every connection";
            checker.warn(
                written.span(),
                format!(
                    "{who}: could not read password-file {}: {error}; {until}",
                    path.display()
                ),
            );
        }
    }
}

fn http(file: &raw::File, config: &Config, checker: &mut Checker<'_>) {
    for sink in &config.sinks.http {
        let Some(table) = sinks::http_table(&file.sink.http, sink) else {
            continue;
        };
        let raw = table.get_ref();
        let who = format!("sink \"{}\"", sink.terms.name);
        for mistake in Tls::mistakes(sink).into_iter().chain(Secrets::mistakes(sink)) {
            let place = match mistake.key() {
                Some("ca") => &raw.ca,
                Some("bearer-file") => &raw.bearer_file,
                Some("signing-key-file") => &raw.signing_key_file,
                _ => &raw.url,
            };
            let span = place.as_ref().map_or_else(|| table.span(), toml::Spanned::span);
            if let Error::Unreadable { .. } = mistake {
                let until = "the sink connects only when it can be read: it is read for every connection";
                checker.warn(span, format!("{who}: {mistake}; {until}"));
            } else {
                checker.wrong(span, format!("{who}: {mistake}"));
            }
        }
    }
}

/// A directory that is not there is made at the start; a file in its place is not moved away.
fn journal(file: &raw::File, dir: &Path, checker: &mut Checker<'_>) {
    let Some(nearest) = dir.ancestors().find(|ancestor| ancestor.exists()) else {
        return;
    };
    if !nearest.is_dir() {
        let message = format!(
            "[journal]: dir: {} is a file; name a directory, which is made if it is not there",
            nearest.display()
        );
        match &file.journal.dir {
            Some(written) => checker.wrong(written.span(), message),
            None => checker.wrong_file(&message),
        }
    }
}
