//! TCP connection table of the system.

use std::net::SocketAddr;

/// One end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Socket {
    /// Inode of the socket, which identifies the process that holds it.
    pub(crate) inode: String,
    /// Bytes that have arrived and are unread.
    pub(crate) unread: u64,
}

/// Returns the socket bound to `local_end` and connected to `remote_end`. Reads a file.
pub(crate) fn find(local_end: SocketAddr, remote_end: SocketAddr) -> Option<Socket> {
    find_in(&std::fs::read_to_string("/proc/net/tcp").ok()?, local_end, remote_end)
}

fn find_in(table: &str, local_end: SocketAddr, remote_end: SocketAddr) -> Option<Socket> {
    let local_end = in_hex(local_end)?;
    let remote_end = in_hex(remote_end)?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, local, remote, _, queues, _, _, _, _, inode, ..] = fields.as_slice() else {
            return None;
        };
        let (_, unread) = queues.split_once(':')?;
        (local == local_end && remote == remote_end).then_some(Socket {
            inode: inode.to_owned(),
            unread: u64::from_str_radix(unread, 16).ok()?,
        })
    })
}

/// Formats an address as in the table, which prints the IP address as one little-endian number.
fn in_hex(address: SocketAddr) -> Option<String> {
    let SocketAddr::V4(address) = address else { return None };
    let [a, b, c, d] = address.ip().octets();
    Some(format!("{d:02X}{c:02X}{b:02X}{a:02X}:{:04X}", address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:C350 0203047F:1F90 01 00000007:000000A0 02:000004D2 00000000     0        0 4711 2 0 20 4 30 10 -1
";

    #[test]
    fn socket_is_found_by_both_ends() {
        let local = "127.0.0.1:50000".parse().unwrap();
        let remote = "127.4.3.2:8080".parse().unwrap();
        let found = Socket { inode: "4711".to_owned(), unread: 160 };
        assert_eq!(find_in(TABLE, local, remote), Some(found));
        assert_eq!(find_in(TABLE, remote, local), None);
    }
}
