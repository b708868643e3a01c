//! Changes in progress whose outcomes are known late.

use std::sync::atomic::{AtomicU64, Ordering};

use tidewater_common::ids::Epoch;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::leader::barriers::SentEpochs;

const TERM: Term = Term(3);
/// Epoch of the last barrier before the change.
const BEFORE: Epoch = Epoch(10);
/// Maximum wait for a proposal.
const LIMIT: Duration = Duration::from_secs(60);

/// A proposal that waits for its reply.
struct Proposal {
    command: v1::ChangeCollections,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

impl Proposal {
    fn reply(self, result: Result<(), Reason>) {
        let result = result.map_err(|reason| Refusal::new(reason, "scripted"));
        assert!(self.reply.send(result).is_ok(), "the proposal was dropped");
    }
}

/// Group whose replies the test sends.
struct FakeGroup {
    term: AtomicU64,
    proposals: mpsc::Sender<Proposal>,
}

impl ChangeGroup for FakeGroup {
    fn current_term(&self) -> Term {
        Term(self.term.load(Ordering::SeqCst))
    }

    async fn propose_change(
        &self,
        term: Term,
        command: v1::ChangeCollections,
    ) -> Result<(), Refusal> {
        assert_eq!(term, TERM);
        let (reply, replied) = oneshot::channel();
        assert!(self.proposals.send(Proposal { command, reply }).await.is_ok());
        replied.await.unwrap()
    }
}

/// A leader that has sent a barrier.
struct Leader {
    group: Arc<FakeGroup>,
    proposals: mpsc::Receiver<Proposal>,
    sent: SentEpochs,
}

impl Leader {
    fn new() -> Self {
        let (sender, proposals) = mpsc::channel(1);
        let group = Arc::new(FakeGroup { term: AtomicU64::new(TERM.get()), proposals: sender });
        let sent = SentEpochs::default();
        sent.send(TERM, BEFORE, Epoch(0));
        Self { group, proposals, sent }
    }

    /// Begins the call of a change.
    fn begin_call(&self) -> JoinHandle<Result<(), Refusal>> {
        let change = self.sent.begin_change(TERM).unwrap();
        let names = vec!["h".to_owned()];
        let command = v1::ChangeCollections {
            upper: change.epoch().get(),
            change: Some(Change::Release(v1::ReleaseReadHoldsRequest { names })),
            ..v1::ChangeCollections::default()
        };
        tokio::spawn(propose(Arc::clone(&self.group), TERM, change, command))
    }

    /// Waits for the next proposal.
    async fn proposal(&mut self) -> Proposal {
        timeout(LIMIT, self.proposals.recv()).await.unwrap().unwrap()
    }

    /// Sends a barrier when no task can continue. Returns the epoch as of which it names tables.
    async fn barrier(&self, epoch: u64) -> Epoch {
        sleep(Duration::from_millis(1)).await;
        self.sent.send(TERM, Epoch(epoch), Epoch(0))
    }

    /// Asserts that nothing more is proposed.
    async fn assert_done(&mut self) {
        sleep(10 * PAUSE).await;
        assert!(self.proposals.try_recv().is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn known_outcome_ends_a_change() {
    for result in [Ok(()), Err(Reason::HoldExists), Err(Reason::Overloaded)] {
        let mut leader = Leader::new();
        let call = leader.begin_call();
        let proposal = leader.proposal().await;
        assert_eq!(leader.barrier(20).await, BEFORE, "{result:?}");
        proposal.reply(result);
        let returned = call.await.unwrap();
        assert_eq!(returned.map_err(|refusal| refusal.reason), result);
        assert_eq!(leader.barrier(30).await, Epoch(30), "{result:?}");
        leader.assert_done().await;
    }
}

#[tokio::test(start_paused = true)]
async fn barriers_wait_for_a_change_that_has_timed_out() {
    let mut leader = Leader::new();
    let call = leader.begin_call();
    leader.proposal().await.reply(Err(Reason::DeadlineExceeded));
    assert_eq!(call.await.unwrap().unwrap_err().reason, Reason::DeadlineExceeded);
    assert_eq!(leader.barrier(20).await, BEFORE);
    let record = v1::ChangeCollections {
        upper: BEFORE.get(),
        change: Some(Change::Record(v1::RecordSinces {})),
        ..v1::ChangeCollections::default()
    };
    // A command that was not applied shows nothing, also if it was not proposed.
    for (epoch, reason) in [(30, Reason::Overloaded), (40, Reason::DeadlineExceeded)] {
        let later = leader.proposal().await;
        assert_eq!(later.command, record);
        later.reply(Err(reason));
        assert_eq!(leader.barrier(epoch).await, BEFORE, "{reason:?}");
    }
    leader.proposal().await.reply(Ok(()));
    assert_eq!(leader.barrier(50).await, Epoch(50));
    leader.assert_done().await;
}

#[tokio::test(start_paused = true)]
async fn barriers_wait_for_changes_of_absent_callers() {
    let mut leader = Leader::new();
    let call = leader.begin_call();
    let first = leader.proposal().await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    assert_eq!(leader.barrier(20).await, BEFORE);
    first.reply(Err(Reason::DeadlineExceeded));
    assert_eq!(leader.barrier(30).await, BEFORE);
    leader.proposal().await.reply(Ok(()));
    assert_eq!(leader.barrier(40).await, Epoch(40));
}

#[tokio::test(start_paused = true)]
async fn end_of_the_term_ends_a_change() {
    let mut leader = Leader::new();
    let call = leader.begin_call();
    leader.proposal().await.reply(Err(Reason::LeadershipLost));
    assert_eq!(call.await.unwrap().unwrap_err().reason, Reason::LeadershipLost);
    leader.proposal().await.reply(Err(Reason::NotLeader));
    // No other node is known to lead: this one may continue its term.
    assert_eq!(leader.barrier(20).await, BEFORE);
    leader.group.term.store(TERM.get() + 1, Ordering::SeqCst);
    sleep(PAUSE).await;
    assert_eq!(leader.barrier(30).await, Epoch(30));
    leader.assert_done().await;
}
