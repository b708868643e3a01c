//! Which process opened a connection.
//!
//! All nodes share one loopback address as their source, so the port alone says nothing. The
//! system's socket table gives the inode of the other end, and the file descriptors of our own
//! children (readable without root) say whose it is.

use std::net::SocketAddr;
use std::path::Path;

use super::rules::Party;
use crate::node::Pids;
use crate::sockets;

/// Who holds the other end of a connection from `peer` to `local`.
pub(super) async fn of_connection(
    peer: SocketAddr,
    local: Option<SocketAddr>,
    pids: Pids,
) -> Party {
    let Some(local) = local else { return Party::Client };
    // Reads files: not on the runtime.
    tokio::task::spawn_blocking(move || look_up(peer, local, &pids)).await.unwrap_or(Party::Client)
}

fn look_up(peer: SocketAddr, local: SocketAddr, pids: &Pids) -> Party {
    let Some(found) = sockets::find(peer, local) else { return Party::Client };
    let socket = format!("socket:[{}]", found.inode);
    let nodes = pids.lock().clone();
    nodes
        .into_iter()
        .find(|(_, pid)| holds(*pid, &socket))
        .map_or(Party::Client, |(name, _)| Party::Node(name))
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| target == Path::new(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_of_a_known_process_is_told_from_others() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let _ours = tokio::net::TcpStream::connect(target).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let local = accepted.local_addr().ok();
        let pids = Pids::default();
        assert_eq!(of_connection(peer, local, pids.clone()).await, Party::Client);
        pids.lock().push(("me".to_owned(), std::process::id()));
        assert_eq!(of_connection(peer, local, pids).await, Party::node("me"));
    }
}
