//! `tidegate reload`.

use std::{io::Write, path::Path};

use super::{Failure, asked, printed};
use crate::control::{Reloaded, Request};

pub(super) fn reload(socket: &Path) -> Result<(), Failure> {
    let reloaded: Reloaded = asked(socket, &Request::Reload)?;
    let mut out = std::io::stdout().lock();
    printed((|| {
        for warning in &reloaded.warnings {
            writeln!(out, "warning: {warning}")?;
        }
        match (reloaded.changed.is_empty(), reloaded.needs_restart.is_empty()) {
            (true, true) => writeln!(out, "the configuration is as it was")?,
            (true, false) => writeln!(out, "nothing has changed that can be applied")?,
            (false, _) => writeln!(out, "the configuration is applied; changed:")?,
        }
        for change in &reloaded.changed {
            writeln!(out, "  {change}")?;
        }
        if !reloaded.needs_restart.is_empty() {
            let keys = reloaded.needs_restart.join(", ");
            writeln!(out, "needs a restart, and is as it was until then: {keys}")?;
        }
        Ok(())
    })())
}
