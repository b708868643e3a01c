//! Lazy connections, one per address, and classification of failed calls.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::quote::quoted;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Response, Status};

use crate::options::ClientOptions;
use crate::outcome::FailedAttempt;

/// Most connections; more than a cluster has addresses, to bound the memory in case of faulty hints.
const MAX_CHANNELS: usize = 1_024;

/// Connections by address. They are opened on first use and reopened after they break.
#[derive(Debug)]
pub(crate) struct Pool {
    connect_timeout: Duration,
    channels: Mutex<HashMap<String, Channel>>,
}

impl Pool {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self { connect_timeout: options.connect_timeout, channels: Mutex::default() }
    }

    /// Returns the connection to `address` (host:port).
    ///
    /// # Errors
    /// The address is not of the form host:port.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, FailedAttempt> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address, self.connect_timeout).map_err(|error| FailedAttempt {
            refusal: Refusal::new(
                // Not the caller's input: another node may know a usable address.
                Reason::Unavailable,
                format!("invalid address {} (expected host:port): {error}", quoted(address)),
            ),
            effect: Effect::None,
            silent: true,
        })?;
        if channels.len() >= MAX_CHANNELS {
            channels.clear();
        }
        let channel = endpoint.connect_lazy();
        channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

fn endpoint(address: &str, connect_timeout: Duration) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        // Detects a frozen or disconnected peer within seconds, also during a call.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}

/// Waits for a call for at most `timeout` and classifies its failure.
pub(crate) async fn attempt<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FailedAttempt> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed_attempt_of(&status)),
        Err(_elapsed) => Err(FailedAttempt {
            refusal: Refusal::new(
                Reason::DeadlineExceeded,
                format!("no answer within {} ms", timeout.as_millis()),
            ),
            effect: Effect::Unknown,
            silent: true,
        }),
    }
}

/// Returns the meaning of a failed call: its error, its effect, and whether the node answered.
pub(crate) fn failed_attempt_of(status: &Status) -> FailedAttempt {
    let mut refusal = Refusal::from_status(status);
    if never_connected(status) {
        refusal.message = format!("cannot connect: {}", root_cause(status));
        return FailedAttempt { refusal, effect: Effect::None, silent: true };
    }
    // Nodes attach a detail to every error. An error without it is from the transport.
    let silent = status.details().is_empty() && status.source().is_some();
    if silent {
        refusal.message = format!("{}: {}", refusal.message, root_cause(status));
    }
    FailedAttempt { effect: refusal.effect(), refusal, silent }
}

/// Returns `true` if the request was not sent, because the connection could not be opened.
fn never_connected(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn root_cause(status: &Status) -> String {
    let mut cause: Option<&dyn Error> = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1;
    use tidewater_proto::v1::meta_client::MetaClient;

    use super::*;

    #[tokio::test]
    async fn calls_without_connection_have_no_effect() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let pool = Pool::new(&ClientOptions::default());
        let mut client = MetaClient::new(pool.channel(&address).unwrap());
        let failure = attempt(Duration::from_secs(5), client.get_catalog(v1::GetCatalogRequest {}))
            .await
            .unwrap_err();
        assert_eq!(failure.effect, Effect::None, "{failure:?}");
        assert!(failure.silent);
        assert!(failure.refusal.message.contains("refused"), "{}", failure.refusal.message);
    }

    #[tokio::test]
    async fn calls_with_closed_connection_have_unknown_effect() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Enough time for the request to be sent.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(socket);
            }
        });
        let pool = Pool::new(&ClientOptions::default());
        let mut client = MetaClient::new(pool.channel(&address).unwrap());
        let failure = attempt(Duration::from_secs(5), client.get_catalog(v1::GetCatalogRequest {}))
            .await
            .unwrap_err();
        assert_eq!(failure.effect, Effect::Unknown, "{failure:?}");
        assert!(failure.silent);
    }

    #[tokio::test]
    async fn pool_rejects_invalid_addresses() {
        let pool = Pool::new(&ClientOptions::default());
        assert!(pool.channel("not an address").is_err());
    }
}
