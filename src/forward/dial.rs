//! A stream to a host: name look-up, TCP and TLS, the same for every sink.

use std::{future::Future, io, net::SocketAddr, sync::Arc};

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// A connection that is up.
#[derive(Debug)]
pub(super) enum Dialled {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS agreed on.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects to the first of the host's addresses that can be; a host that is an IPv6 address is bare. `Err` says why not.
/// Whoever waits holds the deadline, by which the addresses share the time.
pub(super) async fn dial(
    host: &str,
    port: u16,
    tls: Option<&Arc<ClientConfig>>,
    deadline: Instant,
) -> Result<Dialled, String> {
    let said = |error: io::Error| error.to_string();
    let addresses: Vec<SocketAddr> = lookup_host((host, port)).await.map_err(said)?.collect();
    let stream = first_of(&addresses, deadline, TcpStream::connect)
        .await
        .map_err(said)?;
    // What is written is whole: waiting for more only delays it.
    stream.set_nodelay(true).map_err(said)?;
    let Some(tls) = tls else {
        return Ok(Dialled::Plain(stream));
    };
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| format!("{host} is no name that a certificate can have"))?;
    let agreed = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await;
    let stream = agreed.map_err(|error| format!("could not agree on TLS: {error}"))?;
    Ok(Dialled::Tls(Box::new(stream)))
}

/// Connects to the first of a name's addresses that can be: none takes more than its share of the time, so that one
/// that never answers does not hide those behind it. The last has all that is left.
async fn first_of<Stream, Connecting: Future<Output = io::Result<Stream>>>(
    addresses: &[SocketAddr],
    deadline: Instant,
    connect: impl Fn(SocketAddr) -> Connecting,
) -> io::Result<Stream> {
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let (last, others) = addresses.split_last().ok_or_else(none)?;
    for (tried, address) in others.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        if let Ok(Ok(stream)) = timeout(share, connect(*address)).await {
            return Ok(stream);
        }
    }
    connect(*last).await
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout_at;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_that_never_answers_leaves_time_for_those_behind_it() {
        let [silent, closed, good] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let connect = |address| async move {
            if address == silent {
                std::future::pending::<()>().await;
            }
            if address == closed {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(address)
        };
        let deadline = || Instant::now() + std::time::Duration::from_secs(10);
        let in_time = |addresses: Vec<SocketAddr>| async move {
            let deadline = deadline();
            let found = timeout_at(deadline, first_of(&addresses, deadline, connect)).await;
            found.map(Result::ok)
        };
        assert_eq!(in_time(vec![silent, silent, closed, good]).await, Ok(Some(good)));
        assert_eq!(in_time(vec![closed]).await, Ok(None));
        assert_eq!(in_time(vec![]).await, Ok(None));
        assert!(in_time(vec![good, silent]).await.is_ok());
        assert!(in_time(vec![closed, silent]).await.is_err());
    }
}
