//! Decisions about connections. Pure.

use std::io;
use std::time::Duration;

/// Most connections of a process, whatever its limit of file descriptors.
const MOST_CONNECTIONS: u64 = 10_000;
/// Bytes of the preface of HTTP/2. The first request of HTTP/1.1 is about as long.
const PREFACE_BYTES: u64 = 24;
/// Time for a new connection to send its first bytes.
const PREFACE_WITHIN: Duration = Duration::from_secs(10);
/// Time without any byte in either direction after which a connection without calls ends. On HTTP/2
/// the server sends a ping every 10 s, so only peers that do not answer are silent.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Time without a call after which a connection ends. Clients open another one with their next call.
const UNUSED_FOR: Duration = Duration::from_secs(15 * 60);
/// Time after the last failure to accept a connection during which a shortage is reported.
pub(super) const SHORTAGE_SHOWN_FOR: Duration = Duration::from_secs(10);

/// Limits of open connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnectionLimits {
    /// Connections of the process.
    pub(crate) total: usize,
    /// Connections of one peer. Half of the total, so that no single peer takes all.
    pub(crate) per_peer: usize,
}

impl ConnectionLimits {
    /// Returns the limits for a number of file descriptors: half of them are left for files and for
    /// connections to other nodes and to the object store.
    pub(crate) fn for_descriptors(descriptors: u64) -> Self {
        let total = usize::try_from((descriptors / 2).min(MOST_CONNECTIONS)).unwrap_or(1).max(2);
        Self { total, per_peer: total / 2 }
    }

    /// Returns the limits for a total that the operator has set; at least 2.
    pub(crate) fn of_total(total: usize) -> Self {
        let total = total.max(2);
        Self { total, per_peer: total / 2 }
    }
}

/// Reason why a connection is closed immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefusedConnection {
    /// The process has its maximum of connections.
    Total,
    /// The peer has its maximum of connections.
    Peer,
}

/// Decides whether another connection is accepted, by the numbers that are open.
pub(super) fn admit(
    limits: ConnectionLimits,
    open: usize,
    open_of_peer: usize,
) -> Result<(), RefusedConnection> {
    if open >= limits.total {
        return Err(RefusedConnection::Total);
    }
    if open_of_peer >= limits.per_peer {
        return Err(RefusedConnection::Peer);
    }
    Ok(())
}

/// Times of a connection, up to now.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionTimes {
    pub(super) open_for: Duration,
    pub(super) bytes_read: u64,
    /// Time since the last byte was read or written, or since the start.
    pub(super) silent_for: Duration,
    /// Time since the last call ended, or since the start; `None`: a call is in progress.
    pub(super) unused_for: Option<Duration>,
}

/// Next step for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NextStep {
    End,
    /// Decide again after this time.
    DecideIn(Duration),
}

/// Decides whether a connection ends.
pub(super) fn next_step(times: &ConnectionTimes) -> NextStep {
    if times.bytes_read < PREFACE_BYTES {
        return remaining(PREFACE_WITHIN, times.open_for);
    }
    let Some(unused_for) = times.unused_for else { return NextStep::DecideIn(SILENT_FOR) };
    match (remaining(SILENT_FOR, times.silent_for), remaining(UNUSED_FOR, unused_for)) {
        (NextStep::DecideIn(one), NextStep::DecideIn(other)) => NextStep::DecideIn(one.min(other)),
        _ => NextStep::End,
    }
}

fn remaining(limit: Duration, elapsed: Duration) -> NextStep {
    match limit.checked_sub(elapsed) {
        None | Some(Duration::ZERO) => NextStep::End,
        Some(rest) => NextStep::DecideIn(rest),
    }
}

/// Meaning of an error of accepting a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptError {
    /// The connection has failed, others have not.
    OfConnection,
    /// Descriptors or memory are missing. The error repeats immediately: wait.
    Shortage,
    /// Other errors of the listener.
    OfListener,
}

/// Returns the meaning of an error of accepting a connection.
pub(super) fn accept_error(error: &io::Error) -> AcceptError {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => AcceptError::Shortage,
        // Linux passes errors of the new connection to accept, see accept(2).
        Some(
            libc::ECONNABORTED
            | libc::ECONNRESET
            | libc::EINTR
            | libc::EPERM
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::ETIMEDOUT,
        ) => AcceptError::OfConnection,
        _ => AcceptError::OfListener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_leave_half_of_the_descriptors() {
        for (descriptors, total, per_peer) in
            [(0, 2, 1), (256, 128, 64), (1_024, 512, 256), (1 << 20, 10_000, 5_000)]
        {
            let expected = ConnectionLimits { total, per_peer };
            assert_eq!(ConnectionLimits::for_descriptors(descriptors), expected);
        }
        assert_eq!(ConnectionLimits::of_total(0), ConnectionLimits { total: 2, per_peer: 1 });
    }

    #[test]
    fn connections_are_limited_in_total_and_per_peer() {
        let limits = ConnectionLimits { total: 4, per_peer: 2 };
        for (open, of_peer, expected) in [
            (0, 0, Ok(())),
            (3, 1, Ok(())),
            (3, 2, Err(RefusedConnection::Peer)),
            (4, 0, Err(RefusedConnection::Total)),
            (5, 2, Err(RefusedConnection::Total)),
        ] {
            assert_eq!(admit(limits, open, of_peer), expected, "{open} {of_peer}");
        }
    }

    #[test]
    fn silent_and_unused_connections_end() {
        let seconds = Duration::from_secs;
        let end = NextStep::End;
        let wait = |time| NextStep::DecideIn(seconds(time));
        for (open_for, bytes_read, silent_for, unused_for, expected) in [
            (0, 0, 0, Some(0), wait(10)),
            (9, 0, 9, Some(9), wait(1)),
            (10, 0, 10, Some(10), end),
            // A byte every 9 s is no preface.
            (10, 23, 1, Some(10), end),
            (10, 24, 1, Some(10), wait(59)),
            (60, 24, 60, Some(60), end),
            (1_000, 24, 1, Some(899), wait(1)),
            (1_000, 24, 1, Some(900), end),
            (1_000, 24, 1_000, None, wait(60)),
        ] {
            let times = ConnectionTimes {
                open_for: seconds(open_for),
                bytes_read,
                silent_for: seconds(silent_for),
                unused_for: unused_for.map(seconds),
            };
            assert_eq!(next_step(&times), expected, "{times:?}");
        }
    }

    #[test]
    fn shortage_differs_from_a_failed_connection() {
        for (code, expected) in [
            (libc::EMFILE, AcceptError::Shortage),
            (libc::ENFILE, AcceptError::Shortage),
            (libc::ENOMEM, AcceptError::Shortage),
            (libc::ECONNABORTED, AcceptError::OfConnection),
            (libc::EBADF, AcceptError::OfListener),
        ] {
            assert_eq!(accept_error(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
    }
}
