//! Connection to a node that reports the number of bytes the node has not read. A scenario can wait
//! until its calls have arrived at a frozen process.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::{HarnessError, Result, sockets};

/// Relay of one connection to a node; closes the connection when dropped.
#[derive(Debug)]
pub struct Inbox {
    address: SocketAddr,
    node: SocketAddr,
    relay_address: SocketAddr,
    relay: AbortHandle,
}

impl Inbox {
    /// Connects to a node.
    ///
    /// # Errors
    /// If the node does not listen.
    pub async fn open(node: SocketAddr) -> Result<Self> {
        let what = || format!("open a relay to {node}");
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(HarnessError::io(what()))?;
        let address = listener.local_addr().map_err(HarnessError::io(what()))?;
        let mut outbound = TcpStream::connect(node).await.map_err(HarnessError::io(what()))?;
        let relay_address = outbound.local_addr().map_err(HarnessError::io(what()))?;
        let relay = tokio::spawn(async move {
            if let Ok((mut inbound, _)) = listener.accept().await {
                // The caller sees the end of the relay on its own connection.
                let _ = copy_bidirectional(&mut inbound, &mut outbound).await;
            }
        });
        Ok(Self { address, node, relay_address, relay: relay.abort_handle() })
    }

    /// Address for the single caller.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of bytes that have arrived at the node and are unread.
    ///
    /// # Errors
    /// If the connection is closed.
    pub fn unread(&self) -> Result<u64> {
        let socket = sockets::find(self.node, self.relay_address);
        let socket = socket.ok_or_else(|| {
            let relay = self.relay_address;
            HarnessError::violated(format!("no connection from {relay} to {}", self.node))
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

    async fn wait_for_unread(inbox: &Inbox, bytes: u64) -> Result<()> {
        wait::until("the bytes are unread", Duration::from_secs(20), || async {
            match inbox.unread().map_err(|error| error.to_string())? {
                now if now == bytes => Ok(()),
                now => Err(format!("{now} bytes")),
            }
        })
        .await
    }

    #[tokio::test]
    async fn inbox_counts_sent_bytes_until_read() -> Result<()> {
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inbox = Inbox::open(node.local_addr().unwrap()).await?;
        let (mut accepted, _) = node.accept().await.unwrap();
        let mut caller = TcpStream::connect(inbox.address()).await.unwrap();
        wait_for_unread(&inbox, 0).await?;
        caller.write_all(&[7; 1_000]).await.unwrap();
        wait_for_unread(&inbox, 1_000).await?;
        accepted.read_exact(&mut [0; 1_000]).await.unwrap();
        wait_for_unread(&inbox, 0).await
    }
}
