//! Listen and advertised addresses, and the check for addresses exposed without TLS.

use std::net::SocketAddr;

use clap::Args;
use socket2::SockRef;

use crate::exit::{Exit, Failure};

/// Connections that may wait to be accepted, unless the operating system has a lower limit. After the death of a
/// meta leader, all nodes and clients connect to its successor at once: those that find no place try again
/// after a second, and then ever later.
const BACKLOG: i32 = 4_096;

/// Options of the port of every role.
#[derive(Debug, Clone, Args)]
pub(crate) struct Exposure {
    /// Address that other nodes and clients connect to, HOST:PORT [default: the listen address]
    #[arg(long, env = "TIDEWATER_ADVERTISE", value_name = "ADDR")]
    pub(crate) advertise: Option<String>,

    /// Allow listening without TLS on an address that other machines can reach
    #[arg(long, env = "TIDEWATER_INSECURE")]
    pub(crate) insecure: bool,

    /// Maximum number of connections, half of which one address may open [default: half of the limit
    /// of open files, at most 10000]
    #[arg(long, env = "TIDEWATER_MAX_CONNECTIONS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) max_connections: Option<u32>,
}

/// Listen options of a role.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listen {
    /// Address to listen on; port 0 selects a free port
    #[arg(long, env = "TIDEWATER_LISTEN", value_name = "ADDR")]
    pub(crate) listen: SocketAddr,

    #[command(flatten)]
    pub(crate) exposure: Exposure,
}

/// Rejects an address that other machines can reach without TLS, unless `insecure` allows it.
pub(crate) fn check_exposure(listen: SocketAddr, insecure: bool) -> Result<(), Failure> {
    if listen.ip().is_loopback() || insecure {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "{listen} is reachable from other machines, and this release does not support TLS: listen \
         on 127.0.0.1, or add --insecure if the network is trusted"
    )))
}

/// Returns the address to advertise, HOST:PORT.
pub(crate) fn advertised(bound: SocketAddr, advertise: Option<&str>) -> Result<String, Failure> {
    match advertise {
        Some(address) => {
            let valid = address.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if valid {
                return Ok(address.to_owned());
            }
            Err(Failure::usage(format!(
                "--advertise {address}: must be HOST:PORT with a port from 1"
            )))
        }
        None if bound.ip().is_unspecified() => Err(Failure::usage(format!(
            "{bound} is a wildcard address, which other nodes cannot connect to: add --advertise \
             HOST:PORT"
        ))),
        None => Ok(bound.to_string()),
    }
}

/// Binds the port.
pub(crate) fn bind(listen: SocketAddr) -> Result<std::net::TcpListener, Failure> {
    let listener = std::net::TcpListener::bind(listen).map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                ": another process uses the address; stop it, or choose another one with --listen"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                ": no network interface of this machine has this address"
            }
            std::io::ErrorKind::PermissionDenied => ": ports below 1024 require privileges",
            _ => "",
        };
        let exit = match error.kind() {
            std::io::ErrorKind::AddrInUse => Exit::Conflict,
            _ => Exit::Other,
        };
        Failure::new(exit, format!("cannot listen on {listen}: {error}{advice}"))
    })?;
    // The standard library listens with a backlog of 128. A second call changes it.
    SockRef::from(&listener)
        .listen(BACKLOG)
        .and_then(|()| listener.set_nonblocking(true))
        .map_err(|error| Failure::other(format!("cannot listen on {listen}: {error}")))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_loopback_address_requires_insecure_flag() {
        let check = |text: &str, insecure| check_exposure(text.parse().unwrap(), insecure);
        assert!(check("127.0.0.1:7400", false).is_ok());
        assert!(check("[::1]:7400", false).is_ok());
        assert!(check("0.0.0.0:7400", true).is_ok());
        for text in ["0.0.0.0:7400", "[::]:7400", "10.0.0.1:7400"] {
            let failure = check(text, false).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(failure.message.contains("--insecure"), "{failure}");
        }
    }

    #[test]
    fn advertised_address_must_be_connectable() {
        let bound: SocketAddr = "127.0.0.1:7411".parse().unwrap();
        assert_eq!(advertised(bound, None).unwrap(), "127.0.0.1:7411");
        assert_eq!(advertised(bound, Some("db-1:7411")).unwrap(), "db-1:7411");
        assert_eq!(advertised(bound, Some("[::1]:7411")).unwrap(), "[::1]:7411");
        for wrong in ["db-1", ":7411", "db-1:0", "db-1:x", ""] {
            assert!(advertised(bound, Some(wrong)).is_err(), "{wrong}");
        }
        assert!(advertised("0.0.0.0:7411".parse().unwrap(), None).is_err());
    }

    /// As after a failover, when the new leader has yet to accept the connections of all nodes.
    #[test]
    fn connections_wait_until_they_are_accepted() {
        let system = std::fs::read_to_string("/proc/sys/net/core/somaxconn");
        let system = system.ok().and_then(|limit| limit.trim().parse().ok()).unwrap_or(0);
        let waiting = 500_usize.min(system);
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let limit = std::time::Duration::from_millis(900);
        let connect = |_| std::net::TcpStream::connect_timeout(&address, limit);
        let connected: Vec<_> = (0..waiting).map_while(|number| connect(number).ok()).collect();
        assert_eq!(connected.len(), waiting);
    }

    #[test]
    fn address_in_use_is_a_conflict() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let failure = bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains("--listen"), "{failure}");
    }
}
