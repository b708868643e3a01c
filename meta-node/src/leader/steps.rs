//! Execution of placement steps: commands to the catalog and calls to data nodes.

use std::time::Duration;

use bytes::Bytes;
use futures::future::try_join_all;
use prost::Message;
use tidewater_common::ids::{GroupId, LogIndex, NodeId, Term};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{
    self, ProcedureKind, Reason, change_membership_request::Change, meta_command::Kind,
};
use tokio::time::Instant;
use uuid::Builder;

use super::leader_term::LeaderTerm;
use super::placement_step::PlacementStep;

/// Delay between attempts to start the replicas of a group that has not reported a leader.
const STARTED_PAUSE: Duration = Duration::from_millis(150);

/// Pause after the stop of a replica: an interval of heartbeats.
const STOPPED_PAUSE: Duration = Duration::from_secs(1);

/// Pause after a transfer of a leadership: several heartbeats.
const TRANSFERRED_PAUSE: Duration = Duration::from_secs(2);

impl LeaderTerm {
    /// Performs a step. A failed step is planned again from later observations.
    pub(super) async fn perform_step(&self, step: PlacementStep) -> Result<(), Refusal> {
        match step {
            PlacementStep::Create { first_members, home_groups } => {
                let first_members = first_members.iter().map(|id| id.get()).collect::<Vec<_>>();
                tracing::info!(?first_members, home_groups, "creating a data group");
                let home_groups = u32::try_from(home_groups).unwrap_or(u32::MAX);
                self.command(Kind::CreateGroup(v1::CreateGroup { first_members, home_groups }))
                    .await
            }
            PlacementStep::SetRetiring { group, retiring } => {
                tracing::info!(%group, retiring, "changing whether a data group retires");
                let command = v1::SetGroupRetiring { group_id: group.get(), retiring };
                self.command(Kind::SetGroupRetiring(command)).await
            }
            PlacementStep::Retire { group } => {
                tracing::info!(%group, "retiring a data group without routes");
                self.command(Kind::RetireGroup(v1::RetireGroup { group_id: group.get() })).await
            }
            PlacementStep::MoveRoute { route, to } => {
                tracing::info!(%route, %to, "moving a route to another group");
                self.begin_procedure(ProcedureKind::Move, |request_id| {
                    let request = v1::MoveRouteRequest {
                        request_id,
                        route_id: route.get(),
                        target_group_id: to.get(),
                        expected_version: 0,
                    };
                    request.encode_to_vec()
                })
                .await
            }
            PlacementStep::SplitRoute { route, key } => {
                tracing::info!(%route, "splitting a hot route");
                self.begin_procedure(ProcedureKind::Split, |request_id| {
                    let request = v1::SplitRouteRequest {
                        request_id,
                        route_id: route.get(),
                        split_key: key,
                        expected_version: 0,
                        for_load: true,
                    };
                    request.encode_to_vec()
                })
                .await
            }
            PlacementStep::MergeRoutes { left, right } => {
                tracing::info!(%left, %right, "merging cold routes");
                self.begin_procedure(ProcedureKind::Merge, |request_id| {
                    let request = v1::MergeRoutesRequest {
                        request_id,
                        route_id: left.get(),
                        neighbour_id: right.get(),
                        expected_version: 0,
                    };
                    request.encode_to_vec()
                })
                .await
            }
            PlacementStep::Start { group } => {
                self.start(group).await?;
                // The group has no other step until its leader's first heartbeat.
                tokio::time::sleep(STARTED_PAUSE).await;
                Ok(())
            }
            PlacementStep::Activate { group } => {
                tracing::info!(%group, "data group activated");
                self.command(Kind::ActivateGroup(v1::ActivateGroup { group_id: group.get() })).await
            }
            PlacementStep::Abandon { group } => {
                tracing::warn!(%group, "data group has elected no leader; abandoning it");
                self.command(Kind::AbandonGroup(v1::AbandonGroup { group_id: group.get() })).await
            }
            PlacementStep::Add { group, leader, node, on } => {
                tracing::info!(%group, %node, "adding a replica as learner");
                self.start_replica(group, node, false).await?;
                let change = Change::AddLearner(self.member(node)?);
                self.change(group, leader, on, change).await
            }
            PlacementStep::Promote { group, leader, node, on } => {
                tracing::info!(%group, %node, "promoting a replica to voter");
                self.change(group, leader, on, Change::Promote(node.get())).await
            }
            PlacementStep::Remove { group, leader, node, on } => {
                tracing::info!(%group, %node, "removing a replica");
                self.change(group, leader, on, Change::Remove(node.get())).await
            }
            PlacementStep::Transfer { group, leader, to } => {
                tracing::info!(%group, from = %leader, %to, "transferring the leadership of a group");
                let transfer = v1::TransferLeaderRequest {
                    header: None,
                    group_id: group.get(),
                    to_node: to.get(),
                };
                self.control.transfer_leader(leader, transfer).await?;
                // The next step of the balance needs the report of the new leader.
                tokio::time::sleep(TRANSFERRED_PAUSE).await;
                Ok(())
            }
            PlacementStep::Stop { group, node, on } => {
                tracing::info!(%group, %node, "stopping a replica on a node that is not a member");
                self.control.stop_replica(node, group.get(), on).await?;
                // The node reports the replica until its next heartbeat.
                tokio::time::sleep(STOPPED_PAUSE).await;
                Ok(())
            }
        }
    }

    /// Begins a procedure as an operator would, with a new request id. It is driven like any other.
    pub(super) async fn begin_procedure(
        &self,
        kind: ProcedureKind,
        arguments: impl FnOnce(String) -> Vec<u8>,
    ) -> Result<(), Refusal> {
        let bits = || u128::from(self.timing.jitter.bits());
        let id = Builder::from_random_bytes((bits() << 64 | bits()).to_be_bytes()).into_uuid();
        let begin = v1::BeginProcedure {
            id: Bytes::copy_from_slice(id.as_bytes()),
            kind: kind as u32,
            arguments: arguments(id.to_string()).into(),
        };
        self.command(Kind::BeginProcedure(begin)).await
    }

    /// Starts the other replicas first. The home starts last and initializes the group, so that it is
    /// elected immediately.
    async fn start(&self, group: GroupId) -> Result<(), Refusal> {
        let members = self.first_members(group)?;
        let Some((home, others)) = members.split_first() else { return Ok(()) };
        try_join_all(others.iter().map(|node| self.start_replica(group, *node, false))).await?;
        self.start_replica(group, *home, true).await
    }

    async fn start_replica(
        &self,
        group: GroupId,
        node: NodeId,
        initialize: bool,
    ) -> Result<(), Refusal> {
        let members = self.first_members(group)?;
        let first_members =
            members.into_iter().map(|id| self.member(id)).collect::<Result<_, _>>()?;
        let request = v1::StartGroupRequest {
            header: None,
            group_id: group.get(),
            first_members,
            initialize,
        };
        self.control.start_group(node, request).await
    }

    async fn change(
        &self,
        group: GroupId,
        leader: NodeId,
        on: (Term, LogIndex),
        change: Change,
    ) -> Result<(), Refusal> {
        let request = v1::ChangeMembershipRequest {
            header: None,
            group_id: group.get(),
            membership_term: on.0.get(),
            membership_index: on.1.get(),
            change: Some(change),
        };
        let changed = self.control.change_membership(leader, request).await?;
        let at = (Term(changed.membership_term), LogIndex(changed.membership_index));
        self.observations.record_membership(group, at, Instant::now());
        Ok(())
    }

    fn first_members(&self, group: GroupId) -> Result<Vec<NodeId>, Refusal> {
        let state = self.group.view.read();
        let group = state.group(group).ok_or_else(|| {
            Refusal::new(Reason::GroupNotFound, format!("group {group} does not exist"))
        })?;
        Ok(group.first_members.clone())
    }

    fn member(&self, node: NodeId) -> Result<v1::GroupMember, Refusal> {
        let state = self.group.view.read();
        let found = state.node(node).ok_or_else(|| {
            Refusal::new(Reason::NodeNotFound, format!("node {node} does not exist"))
        })?;
        Ok(v1::GroupMember { node_id: node.get(), address: found.address.clone() })
    }
}
