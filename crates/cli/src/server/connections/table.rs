//! Open connections of the process, and the problems that follow from their number.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::peer_network::PeerNetwork;
use tidewater_common::problem::Problem;
use tidewater_proto::v1::ProblemKind;
use tokio::time::Instant;

use super::limits::{ConnectionLimits, RefusedConnection, SHORTAGE_SHOWN_FOR, admit};
use crate::server::meters;

/// Open connections, shared by the listener and all connections.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionTable {
    limits: ConnectionLimits,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    total: usize,
    of_peer: HashMap<PeerNetwork, usize>,
    shortage: Option<Shortage>,
}

/// Period in which connections are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shortage {
    cause: ShortageCause,
    since: Instant,
    last: Instant,
}

/// Reason why connections are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShortageCause {
    /// The process has no free file descriptor, or the system has no memory for another one.
    Descriptors,
    /// The process has its maximum of connections.
    Connections,
}

/// Place of an open connection; dropping it releases the place.
#[derive(Debug)]
pub(super) struct ConnectionSlot {
    table: ConnectionTable,
    peer: PeerNetwork,
}

impl ConnectionTable {
    pub(crate) fn new(limits: ConnectionLimits) -> Self {
        Self { limits, open: Arc::default() }
    }

    /// Takes a place for a connection from this address, or returns why there is none.
    pub(super) fn admit(
        &self,
        address: IpAddr,
        now: Instant,
    ) -> Result<ConnectionSlot, RefusedConnection> {
        let peer = PeerNetwork::from(address);
        let mut open = self.open.lock();
        let of_peer = open.of_peer.get(&peer).copied().unwrap_or(0);
        if let Err(refused) = admit(self.limits, open.total, of_peer) {
            if refused == RefusedConnection::Total {
                open.record_shortage(ShortageCause::Connections, now);
            }
            meters::record_refused_connection(refused);
            return Err(refused);
        }
        open.total += 1;
        open.of_peer.insert(peer, of_peer + 1);
        meters::set_connections(open.total);
        Ok(ConnectionSlot { table: self.clone(), peer })
    }

    /// Records that a connection could not be accepted; returns true at the start of a shortage.
    pub(super) fn record_shortage(&self, now: Instant) -> bool {
        self.open.lock().record_shortage(ShortageCause::Descriptors, now)
    }

    /// Returns the problem to report, with its age and its remedy.
    pub(crate) fn problem(&self, now: Instant) -> Option<Problem> {
        let mut open = self.open.lock();
        let problem = shortage_problem(&open.shortage?, self.limits, now);
        if problem.is_none() {
            open.shortage = None;
        }
        problem
    }
}

impl OpenConnections {
    fn record_shortage(&mut self, cause: ShortageCause, now: Instant) -> bool {
        let continues = |known: &Shortage| {
            known.cause == cause && now.duration_since(known.last) <= SHORTAGE_SHOWN_FOR
        };
        let known = self.shortage.filter(continues);
        let since = known.map_or(now, |known| known.since);
        self.shortage = Some(Shortage { cause, since, last: now });
        known.is_none()
    }
}

fn shortage_problem(
    shortage: &Shortage,
    limits: ConnectionLimits,
    now: Instant,
) -> Option<Problem> {
    if now.duration_since(shortage.last) > SHORTAGE_SHOWN_FOR {
        return None;
    }
    let age = now.duration_since(shortage.since).max(Duration::from_secs(1));
    let seconds = age.as_secs();
    let detail = match shortage.cause {
        ShortageCause::Descriptors => format!(
            "it accepts no connections for {seconds} s: no file descriptor is free; raise the limit \
             of open files of its process, or end idle connections"
        ),
        ShortageCause::Connections => format!(
            "it refuses connections for {seconds} s: {} are open; raise --max-connections, or end \
             idle connections",
            limits.total
        ),
    };
    Some(Problem::new(ProblemKind::ConnectionsRefused, detail).lasting(age))
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut open = self.table.open.lock();
        open.total = open.total.saturating_sub(1);
        match open.of_peer.get_mut(&self.peer) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                open.of_peer.remove(&self.peer);
            }
        }
        meters::set_connections(open.total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_connections_leave_room_for_others() {
        let table = ConnectionTable::new(ConnectionLimits { total: 3, per_peer: 2 });
        let now = Instant::now();
        let admit = |text: &str| table.admit(text.parse().unwrap(), now);
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("10.0.0.1").unwrap();
        assert_eq!(admit("10.0.0.1").unwrap_err(), RefusedConnection::Peer);
        assert_eq!(table.problem(now), None, "one peer is not the node's problem");
        let other = admit("10.0.0.2").unwrap();
        assert_eq!(admit("10.0.0.3").unwrap_err(), RefusedConnection::Total);
        assert!(table.problem(now).unwrap().detail.contains("--max-connections"));
        drop(first);
        let _third = admit("10.0.0.1").unwrap();
        drop(other);
        assert_eq!(table.open.lock().of_peer.len(), 1);
    }

    #[test]
    fn shortage_is_reported_from_its_start_until_its_end() {
        let table = ConnectionTable::new(ConnectionLimits { total: 3, per_peer: 2 });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(table.problem(start), None);
        assert!(table.record_shortage(start));
        for second in 1..=20 {
            assert!(!table.record_shortage(at(second)));
        }
        let problem = table.problem(at(25)).unwrap();
        let Problem { detail, age, .. } = &problem;
        assert!(detail.contains("for 25 s") && detail.contains("descriptor"), "{detail}");
        assert_eq!(*age, Some(Duration::from_secs(25)));
        assert_eq!(table.problem(at(31)), None);
        assert!(table.record_shortage(at(40)), "a new shortage");
        assert!(table.problem(at(41)).unwrap().detail.contains("for 1 s"));
    }
}
