//! Identification of the process that opened a connection.
//!
//! All nodes share one loopback address as their source, so the port does not identify them. The
//! socket table of the system contains the inode of the other end, and the file descriptors of the
//! child processes, readable without root, identify its owner.

use std::net::SocketAddr;
use std::path::Path;

use super::rules::Party;
use crate::node::Pids;
use crate::sockets;

/// Returns the party that holds the other end of a connection from `peer` to `local`.
pub(super) async fn identify(peer: SocketAddr, local: Option<SocketAddr>, pids: Pids) -> Party {
    let Some(local) = local else { return Party::Client };
    // The lookup reads files, which blocks.
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
    async fn source_of_a_connection_is_its_process() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let _ours = tokio::net::TcpStream::connect(target).await.unwrap();
        let (accepted, peer) = listener.accept().await.unwrap();
        let local = accepted.local_addr().ok();
        let pids = Pids::default();
        assert_eq!(identify(peer, local, pids.clone()).await, Party::Client);
        pids.lock().push(("me".to_owned(), std::process::id()));
        assert_eq!(identify(peer, local, pids).await, Party::node("me"));
    }
}
