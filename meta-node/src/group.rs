//! This node's replica of group 0: proposals, linearizable reads and leadership.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{
    ClientWriteError, Fatal, ForwardToLeader, LinearizableReadError, RaftError,
};
use prost::Message;
use tidewater_catalog::{PastCeiling, Timestamp, TimestampAllocator};
use tidewater_common::clock::Clock;
use tidewater_common::feature_level::FeatureLevel;
use tidewater_common::ids::{ClusterId, NodeId, Term};
use tidewater_common::refusal::{Leader, Refusal};
use tidewater_proto::v1::{self, MetaReply, Reason, meta_command::Kind, meta_reply};
use tidewater_raft_store::{Command, Confirmations, DiskHealth, Raft, TypeConfig, linearize};
use tidewater_rpc::AddressBook;
use tokio::sync::watch;

use crate::commands::{CommandError, Rules, command_level};
use crate::leader::clocks::KnownClocks;
use crate::machine::{CatalogView, MetaMachine, StateComparison, StateDifference};

/// Deadline of a command or a read, after which its outcome is unknown.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// Pause before timestamps above the ceiling, which rises every second, are asked for again.
const CEILING_RISES_AFTER: Duration = Duration::from_millis(250);
/// A leader without an answer from a quorum for this time may have been deposed.
const QUORUM_SILENCE: Duration = Duration::from_secs(2);

/// This node's replica of group 0.
pub struct MetaGroup {
    /// Id of the cluster.
    pub cluster_id: ClusterId,
    /// Id of this node.
    pub node_id: NodeId,
    pub(crate) raft: Raft<MetaMachine>,
    pub(crate) confirmations: Arc<Confirmations>,
    pub(crate) view: CatalogView,
    pub(crate) health: watch::Receiver<DiskHealth>,
    pub(crate) addresses: Arc<AddressBook>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Difference from the agreed time beyond which a clock is wrong.
    pub(crate) max_clock_difference: Duration,
    /// The cluster's level is not raised above this one while this node is a member.
    pub(crate) max_level: Option<FeatureLevel>,
    pub(crate) comparison: Arc<StateComparison>,
    /// Held while a node joins and becomes a member, and while the level is raised: the joiner has been
    /// asked for its release at the level before.
    pub(crate) joining: tokio::sync::Mutex<()>,
    /// Timestamps of the term in which this node leads.
    pub(crate) timestamps: parking_lot::Mutex<TimestampAllocator>,
}

impl MetaGroup {
    /// Returns the time on which the cluster's clocks agree; `recent`: clocks of nodes with a recent
    /// heartbeat. `None` while too few are known.
    pub(crate) fn agreed_ms(&self, recent: &BTreeMap<NodeId, u64>) -> Option<u64> {
        let state = self.view.read();
        let known = KnownClocks::new(&state, recent, self.clock.now_ms());
        known.agreed_ms(state.header().time_ms)
    }

    /// Checks that the cluster's first command is applied: the first leader of a new cluster begins to lead
    /// before it.
    pub(crate) fn check_bootstrapped(&self) -> Result<(), Refusal> {
        if self.view.read().header().cluster_id.is_some() {
            return Ok(());
        }
        let text = "the cluster is being created";
        Err(Refusal::new(Reason::NotBootstrapped, text).retry_after(Duration::from_millis(100)))
    }

    /// Returns the difference of this replica's state from the leader's, if the last comparison found one.
    pub fn state_difference(&self) -> Option<StateDifference> {
        self.comparison.difference()
    }

    /// Digest that the leader sends with a command: with each tick.
    fn digest_of(&self, kind: &Kind) -> Option<v1::StateDigest> {
        matches!(kind, Kind::AdvanceTime(_)).then(|| self.comparison.latest()).flatten()
    }

    /// Proposes a command that is valid in any term, and waits until it is applied.
    pub async fn propose(&self, kind: Kind) -> Result<MetaReply, Refusal> {
        self.propose_in(Term(0), kind).await
    }

    /// Proposes a command that a leader service decided in `term`; apply rejects it in any other term.
    pub async fn propose_in(&self, term: Term, kind: Kind) -> Result<MetaReply, Refusal> {
        self.write(term, kind).await.map(|(reply, _)| reply)
    }

    /// Proposes a command without effect; returns its log index.
    pub(crate) async fn bench(&self, value: Bytes) -> Result<u64, Refusal> {
        self.write(Term(0), Kind::Bench(value)).await.map(|(_, index)| index)
    }

    async fn write(&self, term: Term, kind: Kind) -> Result<(MetaReply, u64), Refusal> {
        if *self.health.borrow() != DiskHealth::Ok {
            return Err(Refusal::new(
                Reason::DiskFull,
                format!("the disk of meta node {} accepts no writes", self.node_id),
            )
            .retry_after(Duration::from_secs(1)));
        }
        let level = self.view.read().header().feature_level;
        let needed = command_level(&kind);
        if needed > level {
            return Err(CommandError::FeatureLevel { needed, level }.into());
        }
        let command = v1::MetaCommand {
            feature_level: needed.get(),
            decided_term: term.get(),
            rules: Rules::at(level).0,
            leader_digest: self.digest_of(&kind),
            kind: Some(kind),
        };
        let write = self.raft.client_write(Command(command.encode_to_vec().into()));
        let written = tokio::time::timeout(DEADLINE, write)
            .await
            .map_err(|_| self.timeout_error("a command"))?
            .map_err(|error| self.write_refusal(error))?;
        let index = written.log_id.index;
        let bytes = written.data.0;
        let mut reply = MetaReply::decode(bytes).map_err(|error| {
            Refusal::new(
                Reason::Internal,
                format!("a reply of the state machine is damaged: {error}"),
            )
        })?;
        match reply.outcome.take() {
            Some(meta_reply::Outcome::Refused(refused)) => Err(refusal(refused)),
            outcome => Ok((MetaReply { outcome, ..reply }, index)),
        }
    }

    /// Returns when the view contains everything that was acknowledged before the call.
    pub async fn linearize(&self) -> Result<(), Refusal> {
        let read = linearize(&self.raft, &self.confirmations, self.node_id);
        match tokio::time::timeout(DEADLINE, read).await {
            Err(_) => Err(self.timeout_error("a read")),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(self.read_refusal(error)),
        }
    }

    /// Allocates timestamps in a row, at least one, and returns the first: greater than all that any leader has allocated.
    ///
    /// # Errors
    /// [`Reason::NotLeader`], and [`Reason::Overloaded`] if none are left below the ceiling.
    pub(crate) async fn allocate_timestamps(&self, count: u32) -> Result<Timestamp, Refusal> {
        let term = self.check_leading()?;
        // Before the confirmation: no later leader has advanced it.
        let before_ms = self.view.read().header().time_ms;
        self.linearize().await?;
        if self.check_leading()? != term {
            return Err(self.not_leader());
        }
        let after_ms = self.view.read().header().time_ms;
        let allocated = self.timestamps.lock().allocate(term, before_ms, after_ms, count);
        allocated.map_err(|past: PastCeiling| {
            Refusal::new(Reason::Overloaded, past.to_string()).retry_after(CEILING_RISES_AFTER)
        })
    }

    /// The term in which this node leads, if it does and a quorum has answered within the last 2 s.
    pub fn leading(&self) -> Option<Term> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let silent =
            metrics.last_quorum_acked.as_ref().is_none_or(|acked| acked.elapsed() > QUORUM_SILENCE);
        // A single member is its own quorum.
        let alone = metrics.membership_config.voter_ids().all(|id| id == self.node_id.get());
        (metrics.current_leader == Some(self.node_id.get()) && (alone || !silent))
            .then_some(Term(metrics.current_term))
    }

    /// Returns the term of this replica, as leader or follower.
    pub(crate) fn term(&self) -> Term {
        Term(self.raft.metrics().borrow_watched().current_term)
    }

    /// Returns the term in which this node leads, or an error.
    pub fn check_leading(&self) -> Result<Term, Refusal> {
        self.leading().ok_or_else(|| self.not_leader())
    }

    /// RPC error with a hint to the current leader.
    pub fn not_leader(&self) -> Refusal {
        let leader = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.current_leader.filter(|id| *id != self.node_id.get()).map(|id| Leader {
                node_id: NodeId(id),
                address: self.address_of(
                    NodeId(id),
                    metrics.membership_config.get_node(&id).map(|member| member.address.as_str()),
                ),
            })
        };
        self.forward(leader)
    }

    fn forward(&self, leader: Option<Leader>) -> Refusal {
        let message = match &leader {
            Some(leader) => format!("the meta group is led by node {}", leader.node_id),
            None => "the meta group currently has no leader".to_owned(),
        };
        Refusal::new(Reason::NotLeader, message)
            .retry_after(Duration::from_millis(200))
            .leader(leader)
    }

    fn address_of(&self, node: NodeId, member: Option<&str>) -> String {
        self.addresses.get(node).or_else(|| member.map(str::to_owned)).unwrap_or_default()
    }

    fn hint(&self, forward: &ForwardToLeader<TypeConfig>) -> Option<Leader> {
        let id = NodeId(forward.leader_id?);
        let member = forward.leader_node.as_ref().map(|member| member.address.as_str());
        Some(Leader { node_id: id, address: self.address_of(id, member) })
    }

    fn timeout_error(&self, what: &str) -> Refusal {
        Refusal::new(
            Reason::DeadlineExceeded,
            format!("the meta group did not complete {what} within {} s", DEADLINE.as_secs()),
        )
    }

    pub(crate) fn write_refusal(
        &self,
        error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>,
    ) -> Refusal {
        match error {
            RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                self.forward(self.hint(&forward))
            }
            RaftError::APIError(ClientWriteError::LogEntryDiscarded(forward)) => Refusal::new(
                Reason::LeadershipLost,
                "the leader of the meta group changed while the command was in progress",
            )
            .leader(self.hint(&forward)),
            RaftError::APIError(ClientWriteError::PreconditionFailed(failed)) => Refusal::new(
                Reason::MembershipStale,
                format!("the membership of the meta group has changed: {failed}"),
            ),
            RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => Refusal::new(
                membership_reason(&error),
                format!("cannot change the members of the meta group: {error}"),
            ),
            RaftError::Fatal(fatal) => self.fatal(&fatal),
        }
    }

    fn read_refusal(
        &self,
        error: RaftError<TypeConfig, LinearizableReadError<TypeConfig>>,
    ) -> Refusal {
        match error {
            RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)) => {
                self.forward(self.hint(&forward))
            }
            RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)) => self.forward(None),
            RaftError::Fatal(fatal) => self.fatal(&fatal),
        }
    }

    pub(crate) fn fatal(&self, fatal: &Fatal<TypeConfig>) -> Refusal {
        Refusal::new(
            Reason::Unavailable,
            format!("meta node {} has stopped: {fatal}", self.node_id),
        )
    }
}

fn membership_reason<C, N>(error: &openraft::errors::ChangeMembershipError<C, N>) -> Reason
where
    C: openraft::vote::RaftCommittedLeaderId,
    N: openraft::NodeId,
{
    use openraft::errors::ChangeMembershipError as E;
    match error {
        E::InProgress(_) => Reason::MembershipBusy,
        E::LearnerNotFound(_) => Reason::MemberNotFound,
        _ => Reason::InvalidArgument,
    }
}

fn refusal(refused: v1::MetaRefusal) -> Refusal {
    let reason = Reason::try_from(refused.reason).unwrap_or(Reason::Unsupported);
    let refusal = Refusal::new(reason, refused.message);
    match reason {
        // Transient conditions.
        Reason::NoDataNodes | Reason::NotBootstrapped | Reason::NotLeader | Reason::Overloaded => {
            refusal.retry_after(Duration::from_millis(500))
        }
        _ => refusal,
    }
}

impl std::fmt::Debug for MetaGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaGroup")
            .field("cluster_id", &self.cluster_id)
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}
