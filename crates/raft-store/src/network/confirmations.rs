//! Which followers have lately taken this node for their leader, as their answers showed.
//!
//! A linearizable read must be preceded by proof that this node still led when the read came. Openraft
//! waits for such a proof, but takes the time of an answer to appended entries from the last request
//! that ends where they end, which may have been made, and held back, long after the entries were
//! sent: an answer that lay in a socket while this node was frozen then passes for a fresh one. So the
//! proof is kept here: each answer with the time at which the very request that it answers was sent.
//! Heartbeats alone would not do: a follower answers them once what came before is on its disk, and
//! under load that may be later than anybody waits for a heartbeat.
//!
//! Source: Ongaro, "Consensus: bridging theory and practice", 6.4 (ReadIndex).

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tidewater_common::ids::{NodeId, Term};
use tokio::sync::watch;
use tokio::time::Instant;

/// A group's followers, and the last request that each has answered.
#[derive(Debug)]
pub struct Confirmations {
    last: Mutex<BTreeMap<NodeId, Confirmed>>,
    news: watch::Sender<()>,
}

/// A follower took the sender for its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Confirmed {
    term: Term,
    /// When the request left; the answer is younger.
    sent: Instant,
}

impl Default for Confirmations {
    fn default() -> Self {
        Self { last: Mutex::default(), news: watch::Sender::new(()) }
    }
}

impl Confirmations {
    /// A follower has answered a request of that term, which left at `sent` at the earliest.
    pub(super) fn note(&self, follower: NodeId, term: Term, sent: Instant) {
        {
            let mut last = self.last.lock();
            let known = last.entry(follower).or_insert(Confirmed { term, sent });
            // Answers may overtake each other.
            if (known.term, known.sent) < (term, sent) {
                *known = Confirmed { term, sent };
            }
        }
        self.news.send_replace(());
    }

    /// Returns once, of each of these sets of voters, a majority has confirmed `own` as the leader of
    /// `term` by answers to what left at or after `since`.
    pub async fn quorum(&self, own: NodeId, term: Term, since: Instant, voters: &[Vec<NodeId>]) {
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            if confirmed(&self.last.lock(), own, term, since, voters) {
                return;
            }
            if news.changed().await.is_err() {
                // The sender is part of this.
                return std::future::pending().await;
            }
        }
    }
}

fn confirmed(
    last: &BTreeMap<NodeId, Confirmed>,
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
    fn a_majority_of_each_set_counts_by_when_its_heartbeat_was_made() {
        let since = Instant::now();
        let before = since - Duration::from_millis(1);
        let seen = |term, sent| Confirmed { term: Term(term), sent };
        let last = BTreeMap::from([
            (NodeId(2), seen(4, since)),
            (NodeId(3), seen(4, before)),
            (NodeId(4), seen(3, since)),
        ]);
        let ask = |voters: &[Vec<NodeId>]| confirmed(&last, OWN, Term(4), since, voters);
        assert!(ask(&[nodes(&[1])]), "alone it is a majority");
        assert!(ask(&[nodes(&[1, 2, 3])]));
        assert!(!ask(&[nodes(&[1, 3, 5])]), "made before");
        assert!(!ask(&[nodes(&[1, 4, 5])]), "of another term");
        assert!(!ask(&[nodes(&[1, 2, 3, 4])]), "two of four");
        assert!(!ask(&[nodes(&[1, 2, 3]), nodes(&[3, 4, 5])]), "of each set");
        assert!(!ask(&[nodes(&[2, 3, 4])]), "who is no voter does not count itself");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_waits_for_heartbeats_made_after_it_came() {
        let confirmations = Confirmations::default();
        let voters = [nodes(&[1, 2, 3])];
        let early = Instant::now();
        tokio::time::advance(Duration::from_millis(1)).await;
        let since = Instant::now();
        let read = confirmations.quorum(OWN, Term(4), since, &voters);
        tokio::pin!(read);
        assert!(futures::poll!(&mut read).is_pending());
        // The answer comes now; what it answers is old.
        confirmations.note(NodeId(2), Term(4), early);
        confirmations.note(NodeId(3), Term(3), since);
        assert!(futures::poll!(&mut read).is_pending());
        confirmations.note(NodeId(3), Term(4), since);
        assert!(futures::poll!(&mut read).is_ready());
        // An answer that was overtaken takes nothing back.
        confirmations.note(NodeId(3), Term(4), early);
        confirmations.quorum(OWN, Term(4), since, &voters).await;
    }
}
