//! Opening a port, and saying what to do if it does not open.

use std::{io, path::PathBuf};

use tokio_serial::{ErrorKind, SerialStream};

use super::Settings;

/// A port that does not open.
#[derive(Debug, thiserror::Error)]
#[error("could not open {}: {reason}", port.display())]
pub(super) struct OpenError {
    port: PathBuf,
    reason: String,
}

/// Opens the port for this process alone. Modem lines stay as the driver sets them. Needs the runtime; does
/// not block: carrier detect is not waited for.
pub(super) fn open(settings: &Settings) -> Result<SerialStream, OpenError> {
    let port = settings.port.to_string_lossy();
    let builder = tokio_serial::new(port, settings.baud)
        .data_bits(settings.data_bits)
        .parity(settings.parity)
        .stop_bits(settings.stop_bits)
        .flow_control(settings.flow_control)
        .exclusive(true);
    SerialStream::open(&builder).map_err(|error| OpenError {
        port: settings.port.clone(),
        reason: explain(&error),
    })
}

/// The reason in the words of the person who has to do something about it.
fn explain(error: &tokio_serial::Error) -> String {
    match error.kind {
        ErrorKind::Io(io::ErrorKind::NotFound) => "no such file (is the adapter plugged in?)".into(),
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            "permission denied (is the service's user in the group `dialout`?)".into()
        }
        ErrorKind::NoDevice => {
            "another program has it (a login console, ModemManager, another gateway?)".into()
        }
        ErrorKind::InvalidInput => format!("{} (does the adapter know this baud rate?)", error.description),
        // ENOTTY: an ordinary file, another kind of device.
        ErrorKind::Unknown if error.description == "Not a typewriter" => "it is no serial line".into(),
        ErrorKind::Unknown | ErrorKind::Io(_) => error.description.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(kind: ErrorKind, text: &str) -> String {
        explain(&tokio_serial::Error::new(kind, text))
    }

    #[test]
    fn a_missing_port_asks_for_the_adapter() {
        let error = OpenError {
            port: "/dev/boiler".into(),
            reason: reason(ErrorKind::Io(io::ErrorKind::NotFound), "ENOENT"),
        };
        assert_eq!(
            error.to_string(),
            "could not open /dev/boiler: no such file (is the adapter plugged in?)"
        );
    }

    #[test]
    fn what_nobody_foresaw_is_told_as_the_system_told_it() {
        assert_eq!(
            reason(ErrorKind::Unknown, "Input/output error"),
            "Input/output error"
        );
    }
}
