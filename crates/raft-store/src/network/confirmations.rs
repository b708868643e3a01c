//! Proof of leadership for linearizable reads, from the responses of followers.
//!
//! A linearizable read must be preceded by proof that this node was still the leader when the read
//! arrived. Openraft waits for such a proof, but it dates the response to an append by the last
//! request that ends at the same entry. That request may have been created, and held back, long
//! after the entries were sent: a response that waited in a socket while this node was frozen then
//! passes for a fresh one. This module therefore keeps its own proof: each response with the time at
//! which exactly its request was sent. Heartbeats alone are not enough: a follower answers them once
//! the preceding entries are on its disk, and under load that may exceed the timeout of a heartbeat.
//!
//! Source: Ongaro, "Consensus: bridging theory and practice", 6.4 (ReadIndex).

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidewater_common::ids::{NodeId, Term};
use tokio::sync::watch;
use tokio::time::Instant;

/// Followers of a group, and the last request that each has confirmed.
#[derive(Debug)]
pub struct Confirmations {
    last: Mutex<BTreeMap<NodeId, Confirmation>>,
    changed: watch::Sender<()>,
}

/// A follower's confirmation of the sender as its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Confirmation {
    term: Term,
    /// Time at which the request was sent; the response is younger.
    sent: Instant,
}

impl Default for Confirmations {
    fn default() -> Self {
        Self { last: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Confirmations {
    /// Records a follower's response to a request of this term, sent at `sent` at the earliest.
    pub(super) fn record(&self, follower: NodeId, term: Term, sent: Instant) {
        {
            let mut last = self.last.lock();
            let known = last.entry(follower).or_insert(Confirmation { term, sent });
            // Responses may arrive out of order.
            if (known.term, known.sent) < (term, sent) {
                *known = Confirmation { term, sent };
            }
        }
        self.changed.send_replace(());
    }

    /// Returns once a majority of each of these voter sets has confirmed `own` as the leader of
    /// `term`, by responses to requests sent at or after `since`.
    pub async fn quorum(&self, own: NodeId, term: Term, since: Instant, voters: &[Vec<NodeId>]) {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if confirmed(&self.last.lock(), own, term, since, voters) {
                return;
            }
            if changed.changed().await.is_err() {
                // Unreachable: `self` owns the sender.
                return std::future::pending().await;
            }
        }
    }
}

fn confirmed(
    last: &BTreeMap<NodeId, Confirmation>,
    own: NodeId,
    term: Term,
    since: Instant,
    voters: &[Vec<NodeId>],
) -> bool {
    let confirms = |node: &&NodeId| {
        **node == own || last.get(*node).is_some_and(|seen| seen.term == term && seen.sent >= since)
    };
    voters.iter().all(|set| set.iter().filter(confirms).count() > set.len() / 2)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const OWN: NodeId = NodeId(1);

    fn nodes(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn majority_of_each_set_must_confirm_after_the_read() {
        let since = Instant::now();
        let before = since - Duration::from_millis(1);
        let seen = |term, sent| Confirmation { term: Term(term), sent };
        let last = BTreeMap::from([
            (NodeId(2), seen(4, since)),
            (NodeId(3), seen(4, before)),
            (NodeId(4), seen(3, since)),
        ]);
        let ask = |voters: &[Vec<NodeId>]| confirmed(&last, OWN, Term(4), since, voters);
        assert!(ask(&[nodes(&[1])]), "a single node is a majority");
        assert!(ask(&[nodes(&[1, 2, 3])]));
        assert!(!ask(&[nodes(&[1, 3, 5])]), "sent before the read");
        assert!(!ask(&[nodes(&[1, 4, 5])]), "of another term");
        assert!(!ask(&[nodes(&[1, 2, 3, 4])]), "two of four");
        assert!(!ask(&[nodes(&[1, 2, 3]), nodes(&[3, 4, 5])]), "of each set");
        assert!(!ask(&[nodes(&[2, 3, 4])]), "a node that is no voter does not count itself");
    }

    #[tokio::test(start_paused = true)]
    async fn reader_waits_for_heartbeats_sent_after_it_arrived() {
        let confirmations = Confirmations::default();
        let voters = [nodes(&[1, 2, 3])];
        let early = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        let since = Instant::now();
        let read = confirmations.quorum(OWN, Term(4), since, &voters);
        tokio::pin!(read);
        assert!(futures::poll!(&mut read).is_pending());
        // New responses to old requests.
        confirmations.record(NodeId(2), Term(4), early);
        confirmations.record(NodeId(3), Term(3), since);
        assert!(futures::poll!(&mut read).is_pending());
        confirmations.record(NodeId(3), Term(4), since);
        assert!(futures::poll!(&mut read).is_ready());
        // A late response to an older request changes nothing.
        confirmations.record(NodeId(3), Term(4), early);
        confirmations.quorum(OWN, Term(4), since, &voters).await;
    }
}
