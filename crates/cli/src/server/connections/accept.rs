//! Accepts the sockets of the port.

use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use futures::stream::unfold;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::limits::{AcceptError, accept_error};
use super::stream::LimitedStream;
use super::table::ConnectionTable;

/// Time between attempts while the process has no free file descriptor: the error returns
/// immediately, so that a loop without it takes a core.
const SHORTAGE_WAIT: Duration = Duration::from_millis(250);

/// Returns the connections of the port, without end. A connection above the limits is closed.
pub(crate) fn connections(
    listener: TcpListener,
    table: ConnectionTable,
) -> impl Stream<Item = Result<LimitedStream, Infallible>> {
    unfold((listener, table), |(listener, table)| async move {
        let stream = next(&listener, &table).await;
        Some((Ok(stream), (listener, table)))
    })
}

async fn next(listener: &TcpListener, table: &ConnectionTable) -> LimitedStream {
    loop {
        let error = match listener.accept().await {
            Ok((socket, peer)) => {
                // A socket above the limits is dropped here, which closes it.
                let Ok(slot) = table.admit(peer.ip(), Instant::now()) else { continue };
                if socket.set_nodelay(true).is_err() {
                    continue;
                }
                return LimitedStream::new(socket, peer, slot);
            }
            Err(error) => error,
        };
        match accept_error(&error) {
            AcceptError::OfConnection => {}
            AcceptError::Shortage => {
                if table.record_shortage(Instant::now()) {
                    tracing::warn!(%error, "no connection can be accepted; waiting");
                }
                sleep(SHORTAGE_WAIT).await;
            }
            AcceptError::OfListener => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(SHORTAGE_WAIT).await;
            }
        }
    }
}
