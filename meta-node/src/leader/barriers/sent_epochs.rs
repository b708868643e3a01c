//! Epochs of the barriers that this leader has sent, and changes of collections in progress (pure).
//!
//! A change of a collection is decided as of the last barrier that was sent. Until it is applied, or has failed, barriers name
//! no later oldest readable epoch: a hold that is being acquired would otherwise be below the one of its table.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, Term};

/// Epochs of the barriers of a term.
#[derive(Debug, Default)]
struct SentBarriers {
    term: Term,
    /// A barrier was sent in the term.
    is_sent: bool,
    /// Epoch of the last barrier, of this or an earlier term.
    last: Epoch,
    /// Oldest readable epoch that it names for tables without their own.
    since: Epoch,
    /// Changes in progress, by number, with their epochs.
    changes: BTreeMap<u64, Epoch>,
    next: u64,
}

/// Epochs of the barriers that this node has sent as leader. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentEpochs {
    sent: Arc<Mutex<SentBarriers>>,
}

/// Change of a collection in progress. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct ChangeInProgress {
    sent: Arc<Mutex<SentBarriers>>,
    term: Term,
    number: u64,
    epoch: Epoch,
}

impl SentEpochs {
    /// Records a barrier that is about to be sent. Returns the epoch as of which oldest readable epochs are computed, from a
    /// state that is read after this call; epoch 0 in a term that is over.
    pub(crate) fn send(&self, term: Term, epoch: Epoch, since: Epoch) -> Epoch {
        let mut sent = self.sent.lock();
        if term < sent.term {
            return Epoch(0);
        }
        if term > sent.term {
            // The scheduler of the term before may have sent a barrier of an epoch that was allocated in this one.
            let last = sent.last;
            *sent = SentBarriers { term, last, ..SentBarriers::default() };
        }
        sent.last = sent.last.max(epoch);
        // Before the first agreement of the clocks there is no epoch.
        sent.is_sent |= epoch > Epoch(0);
        sent.since = sent.since.max(since);
        sent.changes.values().copied().min().unwrap_or(epoch).min(epoch)
    }

    /// Returns the last barrier: the oldest readable epoch that it names for tables without their own, and its epoch.
    /// `None`: none was sent in this term yet.
    pub(crate) fn last(&self, term: Term) -> Option<(Epoch, Epoch)> {
        let sent = self.sent.lock();
        let is_sent = sent.term == term && sent.is_sent;
        is_sent.then_some((sent.since, sent.last))
    }

    /// Begins a change of collections; `None`: no barrier was sent in this term yet.
    pub(crate) fn begin_change(&self, term: Term) -> Option<ChangeInProgress> {
        let mut sent = self.sent.lock();
        if sent.term != term || !sent.is_sent {
            return None;
        }
        let (number, epoch) = (sent.next, sent.last);
        sent.next += 1;
        sent.changes.insert(number, epoch);
        Some(ChangeInProgress { sent: Arc::clone(&self.sent), term, number, epoch })
    }
}

impl ChangeInProgress {
    /// Returns the epoch of the last barrier that was sent before the change.
    pub(crate) fn epoch(&self) -> Epoch {
        self.epoch
    }
}

impl Drop for ChangeInProgress {
    fn drop(&mut self) {
        let mut sent = self.sent.lock();
        if sent.term == self.term {
            sent.changes.remove(&self.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERM: Term = Term(3);

    #[test]
    fn change_in_progress_limits_the_epoch_of_barriers() {
        let sent = SentEpochs::default();
        assert!(sent.begin_change(TERM).is_none());
        assert_eq!(sent.send(TERM, Epoch(10), Epoch(0)), Epoch(10));
        let first = sent.begin_change(TERM).unwrap();
        assert_eq!(sent.send(TERM, Epoch(20), Epoch(0)), Epoch(10));
        let second = sent.begin_change(TERM).unwrap();
        assert_eq!((first.epoch(), second.epoch()), (Epoch(10), Epoch(20)));
        drop(first);
        assert_eq!(sent.send(TERM, Epoch(30), Epoch(0)), Epoch(20));
        drop(second);
        assert_eq!(sent.send(TERM, Epoch(40), Epoch(0)), Epoch(40));
    }

    #[test]
    fn terms_have_their_own_epochs() {
        let sent = SentEpochs::default();
        sent.send(TERM, Epoch(10), Epoch(0));
        let earlier = sent.begin_change(TERM).unwrap();
        let later = Term(4);
        assert!(sent.begin_change(later).is_none());
        assert_eq!(sent.last(later), None);
        // Allocated before the last one of the term before.
        assert_eq!(sent.send(later, Epoch(9), Epoch(0)), Epoch(9));
        assert_eq!(sent.begin_change(later).unwrap().epoch(), Epoch(10));
        assert_eq!(sent.send(later, Epoch(20), Epoch(4)), Epoch(20));
        assert_eq!(sent.last(later), Some((Epoch(4), Epoch(20))));
        // The scheduler of the term before may still run.
        assert_eq!(sent.send(TERM, Epoch(15), Epoch(0)), Epoch(0));
        assert!(sent.begin_change(TERM).is_none());
        let of_later = sent.begin_change(later).unwrap();
        drop(earlier);
        assert_eq!(sent.send(later, Epoch(30), Epoch(0)), Epoch(20));
        drop(of_later);
    }
}
