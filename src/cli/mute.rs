//! `tidegate mute`, `tidegate unmute` and `tidegate device forget`.

use std::{io::Write, path::Path, time::Duration};

use super::{Failure, asked, printed};
use crate::control::{Done, Request};

pub(super) fn mute(socket: &Path, target: String, length: Duration, reason: String) -> Result<(), Failure> {
    said(
        socket,
        &Request::Mute {
            target,
            for_s: length.as_secs(),
            reason,
        },
    )
}

pub(super) fn unmute(socket: &Path, target: String) -> Result<(), Failure> {
    said(socket, &Request::Unmute { target })
}

pub(super) fn forget(socket: &Path, device: String) -> Result<(), Failure> {
    said(socket, &Request::Forget { device })
}

fn said(socket: &Path, request: &Request) -> Result<(), Failure> {
    let done: Done = asked(socket, request)?;
    printed(writeln!(std::io::stdout().lock(), "{}", done.said))
}
