//! Which process opened a connection.
//!
//! All nodes share one loopback address as their source, so the port alone says nothing. The
//! system's socket table gives the inode of the other end, and the file descriptors of our own
//! children (readable without root) say whose it is.

use std::net::SocketAddr;
use std::path::Path;

use super::rules::Party;
use crate::node::Pids;

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
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let Some(inode) = inode(&table, peer, local) else { return Party::Client };
    let socket = format!("socket:[{inode}]");
    let nodes = pids.lock().clone();
    nodes
        .into_iter()
        .find(|(_, pid)| holds(*pid, &socket))
        .map_or(Party::Client, |(name, _)| Party::Node(name))
}

/// The inode of the socket bound to `local_end` and connected to `remote_end`.
fn inode(table: &str, local_end: SocketAddr, remote_end: SocketAddr) -> Option<&str> {
    let (local_end, remote_end) = (in_hex(local_end)?, in_hex(remote_end)?);
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        if local == local_end && remote == remote_end { fields.nth(6) } else { None }
    })
}

/// The system writes the address as one little-endian number.
fn in_hex(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let [a, b, c, d] = address.ip().octets();
    Some(format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", address.port()))
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

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:C350 0203047F:1F90 01 00000000:00000000 02:000004D2 00000000     0        0 4711 2 0 20 4 30 10 -1
";

    #[test]
    fn the_socket_table_gives_the_inode_of_the_other_end() {
        let peer = "127.0.0.1:50000".parse().unwrap();
        let local = "127.4.3.2:8080".parse().unwrap();
        assert_eq!(inode(TABLE, peer, local), Some("4711"));
        assert_eq!(inode(TABLE, local, peer), None);
    }

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
