//! Rate of registrations of new nodes: of all callers, and of each caller's network, so that one machine
//! neither fills the catalog nor keeps the nodes of other machines from registering.

use std::collections::HashMap;
use std::time::Duration;

use tidewater_common::peer_network::PeerNetwork;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

/// New nodes that may register at once, and new nodes per second after that.
const ALL: Allowance = Allowance { burst: 256.0, per_second: 4.0 };
/// Part of one network: half of what all may register for long.
const OF_PEER: Allowance = Allowance { burst: 256.0, per_second: 2.0 };
/// Total of one network, and one more per minute.
const TOTAL_OF_PEER: Allowance = Allowance { burst: 1_024.0, per_second: 1.0 / 60.0 };
/// Networks whose registrations are remembered.
const MAX_PEERS: usize = 1_024;
/// Time after which a refused node registers again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The same beyond the total of its network.
const RETRY_AFTER_TOTAL: Duration = Duration::from_secs(60);

/// Size of a bucket of tokens, and its refill.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    burst: f64,
    per_second: f64,
}

/// A bucket of tokens; full at first.
#[derive(Debug, Clone, Copy)]
struct TokenBucket {
    tokens: f64,
    at: Instant,
}

impl TokenBucket {
    fn new(allowance: Allowance, now: Instant) -> Self {
        Self { tokens: allowance.burst, at: now }
    }

    /// Adds the tokens since the last call. Returns whether there is one.
    fn refill(&mut self, allowance: Allowance, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * allowance.per_second).min(allowance.burst);
        self.at = now;
        self.tokens >= 1.0
    }
}

#[derive(Debug, Clone, Copy)]
struct PeerBuckets {
    rate: TokenBucket,
    total: TokenBucket,
}

/// Registrations of new nodes in the recent past.
#[derive(Debug)]
pub(super) struct RegistrationRate {
    all: TokenBucket,
    peers: HashMap<PeerNetwork, PeerBuckets>,
}

impl RegistrationRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { all: TokenBucket::new(ALL, now), peers: HashMap::new() }
    }

    /// Counts the registration of a new node, unless there are too many. `from`: the caller, if known.
    pub(super) fn take(&mut self, from: Option<PeerNetwork>, now: Instant) -> Result<(), Refusal> {
        let refuse = |text: &str, retry_after| {
            Err(Refusal::new(Reason::Overloaded, text).retry_after(retry_after))
        };
        if !self.all.refill(ALL, now) {
            let text = "too many new nodes register at once: this one is registered a little later";
            return refuse(text, RETRY_AFTER);
        }
        if let Some(from) = from {
            let peer = self.peer(from, now);
            if !peer.total.refill(TOTAL_OF_PEER, now) {
                let text = "too many new nodes have registered from this address: one more is accepted per \
                            minute. Restart nodes with their data directories, so that they keep their ids";
                return refuse(text, RETRY_AFTER_TOTAL);
            }
            if !peer.rate.refill(OF_PEER, now) {
                let text = "too many new nodes register from this address at once: this one is registered a \
                            little later";
                return refuse(text, RETRY_AFTER);
            }
            peer.total.tokens -= 1.0;
            peer.rate.tokens -= 1.0;
        }
        self.all.tokens -= 1.0;
        Ok(())
    }

    /// Returns the buckets of a network. With too many networks, the one that has registered least is
    /// forgotten.
    fn peer(&mut self, from: PeerNetwork, now: Instant) -> &mut PeerBuckets {
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&from) {
            let left = |peer: &PeerBuckets| {
                let mut total = peer.total;
                total.refill(TOTAL_OF_PEER, now);
                total.tokens
            };
            let least =
                self.peers.iter().max_by(|one, other| left(one.1).total_cmp(&left(other.1)));
            if let Some(least) = least.map(|(peer, _)| *peer) {
                self.peers.remove(&least);
            }
        }
        self.peers.entry(from).or_insert_with(|| PeerBuckets {
            rate: TokenBucket::new(OF_PEER, now),
            total: TokenBucket::new(TOTAL_OF_PEER, now),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerNetwork = PeerNetwork::V4([10, 0, 0, 1]);
    const OTHER: PeerNetwork = PeerNetwork::V4([10, 0, 0, 2]);

    /// Returns how many of the registrations are accepted.
    fn accepted(
        rate: &mut RegistrationRate,
        from: Option<PeerNetwork>,
        attempts: usize,
        at: Instant,
    ) -> usize {
        (0..attempts).filter(|_| rate.take(from, at).is_ok()).count()
    }

    #[test]
    fn rate_of_new_nodes_is_limited() {
        let start = Instant::now();
        let mut rate = RegistrationRate::new(start);
        assert_eq!(accepted(&mut rate, None, 3_000, start), 256);
        let second = Duration::from_secs(1);
        assert_eq!(accepted(&mut rate, None, 1, start + second), 1);
        assert_eq!(accepted(&mut rate, None, 100, start + 2 * second), 7);
    }

    #[test]
    fn one_address_leaves_registrations_to_others() {
        let start = Instant::now();
        let mut rate = RegistrationRate::new(start);
        assert_eq!(accepted(&mut rate, Some(ONE), 3_000, start), 256);
        for second in 1..=60 {
            let at = start + Duration::from_secs(second);
            assert_eq!(accepted(&mut rate, Some(ONE), 100, at), 2, "second {second}");
            assert_eq!(accepted(&mut rate, Some(OTHER), 2, at), 2, "second {second}");
        }
    }

    #[test]
    fn total_of_one_address_is_limited() {
        let start = Instant::now();
        let mut rate = RegistrationRate::new(start);
        let mut total = 0;
        let hour = 3_600;
        for second in 0..hour {
            total += accepted(&mut rate, Some(ONE), 10, start + Duration::from_secs(second));
        }
        // 1,024 and one a minute.
        assert_eq!(total, 1_024 + 59);
        let refused = rate.take(Some(ONE), start + Duration::from_secs(hour - 1)).unwrap_err();
        assert_eq!(refused.retry_after, Some(RETRY_AFTER_TOTAL));
        let at = start + Duration::from_secs(hour);
        assert_eq!(accepted(&mut rate, Some(OTHER), 10, at), 10);
    }

    #[test]
    fn remembered_addresses_are_bounded() {
        let start = Instant::now();
        let mut rate = RegistrationRate::new(start);
        accepted(&mut rate, Some(ONE), 200, start);
        for number in 0..2_000_u16 {
            let at = start + Duration::from_secs(u64::from(number));
            accepted(&mut rate, Some(PeerNetwork::V6([number, 0, 0, 0])), 1, at);
        }
        assert_eq!(rate.peers.len(), MAX_PEERS);
        assert!(rate.peers.contains_key(&ONE), "the address with most registrations is remembered");
    }
}
