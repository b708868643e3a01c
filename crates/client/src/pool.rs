//! One lazy connection per address, and the classification of failed calls.

use std::collections::HashMap;
use std::error::Error;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tonic::transport::{Channel, Endpoint};
use tonic::{ConnectError, Response, Status};

use crate::options::ClientOptions;
use crate::outcome::FailedAttempt;

/// Maximum number of channels: more than any cluster has, a bound against faulty hints.
const MAX_CHANNELS: usize = 1_024;

/// Connections by address. They connect at their first use and reconnect automatically.
#[derive(Debug)]
pub(crate) struct ChannelPool {
    connect_timeout: Duration,
    channels: Mutex<HashMap<String, Channel>>,
}

impl ChannelPool {
    pub(crate) fn new(options: &ClientOptions) -> Self {
        Self { connect_timeout: options.connect_timeout, channels: Mutex::default() }
    }

    /// Returns the connection to `address` (host:port).
    ///
    /// # Errors
    /// The address is not host:port.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, FailedAttempt> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(address) {
            return Ok(channel.clone());
        }
        let endpoint = endpoint(address, self.connect_timeout).map_err(|error| FailedAttempt {
            refusal: Refusal::new(
                Reason::InvalidArgument,
                format!("{address:?} is not an address of the form host:port: {error}"),
            ),
            effect: Effect::None,
            unanswered: true,
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
        // Detects a frozen or isolated peer within seconds, also while a call waits.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20))
}

/// Runs a call with a timeout, and converts its failure.
pub(crate) async fn attempt<T>(
    timeout: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, FailedAttempt> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(failed_attempt(&status)),
        Err(_elapsed) => Err(FailedAttempt {
            refusal: Refusal::new(
                Reason::DeadlineExceeded,
                format!("no answer within {} ms", timeout.as_millis()),
            ),
            effect: Effect::Unknown,
            unanswered: true,
        }),
    }
}

/// Converts the status of a failed call.
pub(crate) fn failed_attempt(status: &Status) -> FailedAttempt {
    let mut refusal = Refusal::from_status(status);
    if never_connected(status) {
        refusal.message = format!("cannot connect: {}", root_cause(status));
        return FailedAttempt { refusal, effect: Effect::None, unanswered: true };
    }
    // Our servers attach details to every error. An error without them comes from the transport.
    let silent = status.details().is_empty() && status.source().is_some();
    if silent {
        refusal.message = format!("{}: {}", refusal.message, root_cause(status));
    }
    FailedAttempt { effect: refusal.effect(), refusal, silent }
}

/// Returns whether the request was never sent, because there was no connection.
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
    async fn failed_connection_has_no_effect() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let pool = ChannelPool::new(&ClientOptions::default());
        let mut client = MetaClient::new(pool.channel(&address).unwrap());
        let failure = attempt(Duration::from_secs(5), client.get_catalog(v1::GetCatalogRequest {}))
            .await
            .unwrap_err();
        assert_eq!(failure.effect, Effect::None, "{failure:?}");
        assert!(failure.unanswered);
        assert!(failure.refusal.message.contains("refused"), "{}", failure.refusal.message);
    }

    #[tokio::test]
    async fn broken_connection_has_unknown_effect() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Long enough for the request to be sent.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(socket);
            }
        });
        let pool = ChannelPool::new(&ClientOptions::default());
        let mut client = MetaClient::new(pool.channel(&address).unwrap());
        let failure = attempt(Duration::from_secs(5), client.get_catalog(v1::GetCatalogRequest {}))
            .await
            .unwrap_err();
        assert_eq!(failure.effect, Effect::Unknown, "{failure:?}");
        assert!(failure.unanswered);
    }

    #[tokio::test]
    async fn invalid_address_is_refused() {
        let pool = ChannelPool::new(&ClientOptions::default());
        assert!(pool.channel("not an address").is_err());
    }
}
