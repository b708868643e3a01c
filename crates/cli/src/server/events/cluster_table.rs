//! Handler of a node's events, which connects to the cluster when it has the first ones: a node records events before
//! its cluster can be reached.

use std::time::Duration;

use async_trait::async_trait;
use tidewater_client::{Client, ClientError, ClientOptions};
use tidewater_event_tables::TableEventHandler;
use tidewater_events::{EventBatch, EventHandler, EventHandlerOptions, Handled, HandlerError};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// Time for which one call waits for the cluster. Shorter than the timeout of a call, and longer than the start of a
/// cluster, which is no failure.
const CONNECT_WAIT: Duration = Duration::from_secs(40);

/// Pause between two attempts to connect.
const CONNECT_PAUSE: Duration = Duration::from_millis(500);

/// Deadline of an operation of the client. The recorder repeats the call.
const DEADLINE: Duration = Duration::from_secs(15);

/// Writes events to tables of the cluster that these meta nodes belong to.
#[derive(Debug)]
pub(crate) struct ClusterTableHandler {
    client: ClientOptions,
    options: EventHandlerOptions,
    connected: OnceCell<TableEventHandler>,
}

impl ClusterTableHandler {
    /// Creates a handler. `meta`: addresses of meta nodes; `options`: those of the tables that it creates.
    pub(crate) fn new(meta: Vec<String>, options: EventHandlerOptions) -> Self {
        let client = ClientOptions { meta, deadline: DEADLINE, ..ClientOptions::default() };
        Self { client, options, connected: OnceCell::new() }
    }

    async fn connected(&self) -> Result<&TableEventHandler, HandlerError> {
        let connect = || async {
            let client = connect(&self.client, CONNECT_WAIT).await;
            let client = client.map_err(|error| HandlerError(error.to_string()))?;
            Ok(TableEventHandler::new(client, self.options.clone()))
        };
        self.connected.get_or_try_init(connect).await
    }
}

#[async_trait]
impl EventHandler for ClusterTableHandler {
    async fn handle(&self, batch: &EventBatch) -> Result<Handled, HandlerError> {
        self.connected().await?.handle(batch).await
    }

    fn options(&self, _event_type: &str) -> EventHandlerOptions {
        self.options.clone()
    }
}

/// Connects to the cluster; returns the error of the last attempt after a time.
async fn connect(options: &ClientOptions, wait: Duration) -> Result<Client, ClientError> {
    let until = Instant::now() + wait;
    loop {
        match Client::connect(options.clone()).await {
            Ok(client) => return Ok(client),
            Err(error) if Instant::now() + CONNECT_PAUSE >= until => return Err(error),
            Err(_) => sleep(CONNECT_PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connection_is_refused_after_its_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let meta = vec![listener.local_addr().unwrap().to_string()];
        drop(listener);
        let connect_deadline = Duration::from_millis(10);
        let options = ClientOptions { meta, connect_deadline, ..ClientOptions::default() };
        let refused = connect(&options, Duration::from_millis(700)).await.unwrap_err();
        assert!(matches!(refused, ClientError::NoMetaReachable { .. }), "{refused}");
    }
}
