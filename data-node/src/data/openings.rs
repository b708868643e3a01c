//! Limit of the producers that one peer opens in a region.
//!
//! A region remembers a bounded number of producers and forgets the least recently used. Without this limit
//! a peer that opens thousands of producers makes a region forget those of other peers.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tidewater_common::ids::RegionId;
use tidewater_common::peer_network::PeerNetwork;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

/// Producers that a peer may open at once, in each region.
const BURST: f64 = 512.0;
/// Producers per second after that.
const PER_SECOND: f64 = 32.0;
/// Peers and regions that are remembered.
const MAX_BUCKETS: usize = 4_096;

/// Openings that each peer has left in each region.
#[derive(Debug, Default)]
pub(super) struct OpeningLimits {
    buckets: Mutex<HashMap<(PeerNetwork, RegionId), OpeningBucket>>,
}

/// Openings that are left, and when they were counted.
#[derive(Debug, Clone, Copy)]
struct OpeningBucket {
    left: f64,
    at: Instant,
}

impl OpeningBucket {
    fn left(&self, now: Instant) -> f64 {
        let refilled = now.saturating_duration_since(self.at).as_secs_f64() * PER_SECOND;
        (self.left + refilled).min(BURST)
    }
}

impl OpeningLimits {
    /// Counts an opening by a peer; calls within the process have no address and no limit.
    ///
    /// # Errors
    /// `Overloaded` with the time until the peer may open another producer.
    pub(super) fn count(
        &self,
        peer: Option<SocketAddr>,
        region: RegionId,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(address) = peer.map(|peer| peer.ip().to_canonical()) else { return Ok(()) };
        let peer = PeerNetwork::from(address);
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS && !buckets.contains_key(&(peer, region)) {
            buckets.retain(|_, bucket| bucket.left(now) < BURST);
            // More peers than any cluster has: none of them has a limit of its own.
            if buckets.len() >= MAX_BUCKETS {
                buckets.clear();
            }
        }
        let bucket =
            buckets.entry((peer, region)).or_insert(OpeningBucket { left: BURST, at: now });
        *bucket = OpeningBucket { left: bucket.left(now), at: now };
        if bucket.left < 1.0 {
            let wait = Duration::from_secs_f64((1.0 - bucket.left) / PER_SECOND);
            let text = format!(
                "{address} has opened too many producers in region {region}: reuse a writer for many \
                 writes"
            );
            return Err(Refusal::new(Reason::Overloaded, text).retry_after(wait));
        }
        bucket.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const REGION: RegionId = RegionId(7);

    fn peer(number: u32) -> Option<SocketAddr> {
        Some((IpAddr::V4(number.into()), 4_711).into())
    }

    /// Openings that are accepted, of `count`.
    fn accepted(limits: &OpeningLimits, peer: Option<SocketAddr>, now: Instant, count: u32) -> u32 {
        (0..count).map(|_| u32::from(limits.count(peer, REGION, now).is_ok())).sum()
    }

    #[test]
    fn openings_of_a_peer_are_limited_by_rate() {
        let limits = OpeningLimits::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(accepted(&limits, peer(1), start, 5_000), 512);
        let refused = limits.count(peer(1), REGION, start).unwrap_err();
        assert_eq!(refused.reason, Reason::Overloaded);
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_millis(32)));
        assert_eq!(accepted(&limits, peer(2), start, 100), 100, "another peer");
        assert!(limits.count(peer(1), RegionId(8), start).is_ok(), "another region");
        assert_eq!(accepted(&limits, None, start, 1_000), 1_000, "calls within the process");
        assert_eq!(accepted(&limits, peer(1), after(2), 5_000), 64);
        assert_eq!(accepted(&limits, peer(1), after(600), 5_000), 512);
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_limit() {
        let limits = OpeningLimits::default();
        let start = Instant::now();
        let peer = |text: &str| Some(SocketAddr::new(text.parse().unwrap(), 4_711));
        assert_eq!(accepted(&limits, peer("2001:db8:1:2::1"), start, 1_000), 512);
        assert_eq!(accepted(&limits, peer("2001:db8:1:2:ffff::9"), start, 1_000), 0);
        assert_eq!(accepted(&limits, peer("2001:db8:1:3::1"), start, 1_000), 512);
    }

    #[test]
    fn remembered_peers_are_bounded() {
        let limits = OpeningLimits::default();
        let start = Instant::now();
        for number in 0..MAX_BUCKETS as u32 + 50 {
            limits.count(peer(number), REGION, start).unwrap();
        }
        assert!(limits.buckets.lock().len() <= MAX_BUCKETS);
    }
}
