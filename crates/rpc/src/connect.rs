//! How connections are opened and kept alive: one policy for each kind of peer.

use std::net::IpAddr;
use std::time::Duration;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tonic::transport::{Channel, Endpoint};

/// Largest message between nodes in either direction, in bytes. A log entry must stay well below it.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// Interval of the probes of idle connections by the operating system.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Detection of peers that are frozen or disconnected without having closed the connection. Such a
/// connection is closed after interval and timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAlive {
    /// Interval between pings.
    pub interval: Duration,
    /// Time to wait for the reply to a ping.
    pub timeout: Duration,
    /// Pings are also sent while no call is in progress.
    pub while_idle: bool,
}

/// Flow control windows: bytes in flight in one direction before the receiver has read any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    /// Of one call.
    pub stream_bytes: u32,
    /// Of all calls of a connection.
    pub connection_bytes: u32,
}

/// How a connection is opened and kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectPolicy {
    /// Limit for opening the TCP connection.
    pub connect_timeout: Duration,
    /// Detection of silent peers.
    pub keep_alive: KeepAlive,
    /// Flow control; `None`: the transport's defaults.
    pub windows: Option<Windows>,
    /// Local address of the connection; `None`: chosen by the operating system.
    pub source: Option<IpAddr>,
}

impl ConnectPolicy {
    /// Single calls with small messages between nodes: control of groups, compactions, flush requests.
    pub const CONTROL: Self = Self {
        connect_timeout: Duration::from_secs(2),
        keep_alive: KeepAlive {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            while_idle: false,
        },
        windows: None,
        source: None,
    };

    /// Calls of data and compactor nodes to the meta group. A catalog watch notices a frozen meta node within
    /// 10 s. Not sooner: a leader that is busy with the snapshots of many watches must not lose them all.
    pub const META: Self = Self {
        keep_alive: KeepAlive {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            while_idle: false,
        },
        ..Self::CONTROL
    };

    /// Calls of clients: rows in both directions.
    pub const CLIENT: Self = Self {
        keep_alive: KeepAlive {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(5),
            while_idle: false,
        },
        windows: Some(Windows { stream_bytes: 4 << 20, connection_bytes: 16 << 20 }),
        ..Self::CONTROL
    };

    /// Messages between the replicas of Raft groups. A leader notices a dead follower within 3 s, and the
    /// windows have space for several appends of up to 4 MiB each.
    pub const RAFT: Self = Self {
        connect_timeout: Duration::from_secs(1),
        keep_alive: KeepAlive {
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(2),
            while_idle: true,
        },
        windows: Some(Windows { stream_bytes: 16 << 20, connection_bytes: 64 << 20 }),
        source: None,
    };

    /// Returns a channel to `address` (host:port). It connects at its first call, resolves the host name
    /// each time it connects, and reconnects after the connection breaks.
    ///
    /// # Errors
    /// [`Reason::InvalidArgument`]: the address is not of the form host:port.
    pub fn channel(&self, address: &str) -> Result<Channel, Refusal> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| {
            let message = format!("invalid address {address:?} (expected host:port): {error}");
            Refusal::new(Reason::InvalidArgument, message)
        })?;
        let endpoint = endpoint
            .connect_timeout(self.connect_timeout)
            .local_address(self.source)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(TCP_KEEP_ALIVE))
            .http2_keep_alive_interval(self.keep_alive.interval)
            .keep_alive_timeout(self.keep_alive.timeout)
            .keep_alive_while_idle(self.keep_alive.while_idle);
        let endpoint = match self.windows {
            Some(windows) => endpoint
                .initial_stream_window_size(windows.stream_bytes)
                .initial_connection_window_size(windows.connection_bytes),
            None => endpoint,
        };
        Ok(endpoint.connect_lazy())
    }
}
