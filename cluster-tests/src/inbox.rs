//! A connection to a node, of which is known what the node has not read yet: so a scenario can wait
//! until its calls lie before a frozen process, instead of hoping that they do.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::{HarnessError, Result, sockets};

/// Passes one connection on to a node; cut when dropped.
#[derive(Debug)]
pub struct Inbox {
    address: SocketAddr,
    node: SocketAddr,
    ours: SocketAddr,
    relay: AbortHandle,
}

impl Inbox {
    /// Connects to a node.
    ///
    /// # Errors
    /// When the node does not listen.
    pub async fn of(node: SocketAddr) -> Result<Self> {
        let what = || format!("make a way to {node}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(HarnessError::io(what()))?;
        let address = listener.local_addr().map_err(HarnessError::io(what()))?;
        let mut outbound = TcpStream::connect(node).await.map_err(HarnessError::io(what()))?;
        let ours = outbound.local_addr().map_err(HarnessError::io(what()))?;
        let relay = tokio::spawn(async move {
            if let Ok((mut inbound, _)) = listener.accept().await {
                // However it ends, the caller sees it at his own connection.
                let _ = copy_bidirectional(&mut inbound, &mut outbound).await;
            }
        });
        Ok(Self { address, node, ours, relay: relay.abort_handle() })
    }

    /// Where the one caller connects.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes that have arrived at the node and were not read.
    ///
    /// # Errors
    /// When the connection does not stand any more.
    pub fn unread(&self) -> Result<u64> {
        let socket = sockets::find(self.node, self.ours);
        let socket = socket.ok_or_else(|| {
            HarnessError::violated(format!("no connection of {} to {}", self.ours, self.node))
        })?;
        Ok(socket.unread)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::wait;

    async fn unread(inbox: &Inbox, bytes: u64) -> Result<()> {
        wait::until("so much is unread", Duration::from_secs(20), || async {
            match inbox.unread().map_err(|error| error.to_string())? {
                now if now == bytes => Ok(()),
                now => Err(format!("{now} bytes")),
            }
        })
        .await
    }

    #[tokio::test]
    async fn what_was_sent_is_unread_until_it_is_read() -> Result<()> {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inbox = Inbox::of(node.local_addr().unwrap()).await?;
        let (mut accepted, _) = node.accept().await.unwrap();
        let mut caller = TcpStream::connect(inbox.address()).await.unwrap();
        unread(&inbox, 0).await?;
        caller.write_all(&[7; 1_000]).await.unwrap();
        unread(&inbox, 1_000).await?;
        accepted.read_exact(&mut [0; 1_000]).await.unwrap();
        unread(&inbox, 0).await
    }
}
