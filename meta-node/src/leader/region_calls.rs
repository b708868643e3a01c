//! Calls of procedures to the leaders of regions' groups, with a permit of the group.

use std::time::Duration;

use tidewater_common::ids::{GroupId, NodeId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use tokio::time::sleep;
use tracing::debug;

use super::leader_term::LeaderTerm;
use crate::commands::procedures::kind::{RegionCall, RegionClone, RegionReceipt};

/// Maximum number of calls that follow leader hints.
const MAX_HOPS: usize = 3;
/// Wait between two calls to a region that is being merged.
const MERGE_POLL: Duration = Duration::from_millis(100);
/// Distance between the source's flushed sequence and the first sequence of the clone: leaves room for
/// 2^28 log entries that the source may write until its files are adopted.
const SEQUENCE_GAP: u64 = 1 << 44;

impl LeaderTerm {
    /// Calls the leader of a region's group. `record_merge` gets the progress of a merge.
    pub(super) async fn call_region(
        &self,
        group: GroupId,
        call: RegionCall,
        record_merge: &(dyn Fn(&v1::RegionMerge) + Sync),
    ) -> Result<(), Refusal> {
        let to = &self.control;
        let needs_region = needs_region(&call);
        let called = match call {
            RegionCall::Open(ask) => {
                self.at_leader(group, |node| to.open_region(node, ask.clone())).await
            }
            RegionCall::Clone(clone) => self.clone_region(group, *clone).await,
            RegionCall::Alter(ask) => {
                self.at_leader(group, |node| to.alter_region(node, ask.clone())).await
            }
            RegionCall::Truncate(ask) => {
                self.at_leader(group, |node| to.truncate_region(node, ask.clone())).await
            }
            RegionCall::OpenArea(ask) => {
                self.at_leader(group, |node| to.open_area(node, ask.clone())).await
            }
            RegionCall::MergeStaged(ask) => self.merge_staged(group, ask, record_merge).await,
            RegionCall::CloseArea(ask) => {
                self.at_leader(group, |node| to.close_area(node, ask.clone())).await
            }
            RegionCall::Hold(ask) => {
                self.at_leader(group, |node| to.hold_region(node, ask.clone())).await
            }
            RegionCall::Split(ask) => {
                self.at_leader(group, |node| to.split_region(node, ask.clone())).await
            }
            RegionCall::Merge(ask) => {
                self.at_leader(group, |node| to.merge_regions(node, ask.clone())).await
            }
            RegionCall::Close(ask) => {
                self.at_leader(group, |node| to.close_region(node, ask.clone())).await
            }
            RegionCall::Drop(ask) => {
                self.at_leader(group, |node| to.drop_region(node, ask.clone())).await
            }
            RegionCall::Prepare(ask) => {
                self.at_leader(group, |node| to.prepare_region(node, ask.clone())).await
            }
            RegionCall::Receive(receipt) => self.receive_region(group, *receipt).await,
            RegionCall::Release(ask) => {
                self.at_leader(group, |node| to.release_region(node, ask.clone())).await
            }
            RegionCall::Activate(ask) => {
                self.at_leader(group, |node| to.activate_region(node, ask.clone())).await
            }
            RegionCall::AbandonMove(hold, forget) => {
                self.at_leader(group, |node| to.hold_region(node, hold.clone())).await?;
                let target = GroupId(forget.group_id);
                let forgotten =
                    self.at_leader(target, |node| to.release_region(node, forget.clone())).await;
                if let Err(problem) = forgotten {
                    // A group without a leader is a reason to abandon a move. The preparation alone has no effect.
                    let region = forget.region_id;
                    debug!(group = %target, region, %problem, "group did not forget a prepared region");
                }
                Ok(())
            }
        };
        match called {
            Err(refusal) if refusal.reason == Reason::RegionNotFound && !needs_region => Ok(()),
            other => other,
        }
    }

    /// Flushes the source region, opens this region above the source's sequences, and adopts the same files by
    /// reference. The clone has the rows of that flush, and possibly later ones: a snapshot of each region, not of
    /// the table.
    async fn clone_region(&self, group: GroupId, clone: RegionClone) -> Result<(), Refusal> {
        let RegionClone { source, open, copy } = clone;
        let to = &self.control;
        let flush = v1::FlushRegionRequest {
            group_id: source.group.get(),
            region_id: source.region.get(),
            by_node: true,
        };
        let flushed = self.at_leader(source.group, |node| to.flush_region(node, flush)).await?;
        let base = flushed.flushed_sequence.saturating_add(SEQUENCE_GAP);
        let open = v1::OpenRegionRequest { base, ..open };
        self.at_leader(group, |node| to.open_region(node, open.clone())).await?;
        self.at_leader(group, |node| to.copy_region(node, copy.clone())).await
    }

    /// Has a staging area merged into a region. Each call returns after a short time, so that it keeps no permit of the group.
    async fn merge_staged(
        &self,
        group: GroupId,
        ask: v1::MergeRegionRequest,
        record_merge: &(dyn Fn(&v1::RegionMerge) + Sync),
    ) -> Result<(), Refusal> {
        let to = &self.control;
        loop {
            let merged = self.at_leader(group, |node| to.merge_region(node, ask.clone())).await?;
            if merged.is_complete {
                return Ok(());
            }
            if let Some(merge) = &merged.merge {
                record_merge(merge);
            }
            sleep(MERGE_POLL).await;
        }
    }

    /// Passes the state of a region in the group that has fenced it to the group that receives it.
    async fn receive_region(&self, group: GroupId, receipt: RegionReceipt) -> Result<(), Refusal> {
        let RegionReceipt { departing, receive } = receipt;
        let to = &self.control;
        let source = GroupId(departing.group_id);
        let state =
            self.at_leader(source, |node| to.get_departing_region(node, departing.clone())).await?;
        let v1::GetDepartingRegionResponse { region, done_sequence, level } = state;
        let receive = v1::ReceiveRegionRequest { region, done_sequence, level, ..receive };
        self.at_leader(group, |node| to.receive_region(node, receive.clone())).await
    }

    /// Calls the group's leader, with a permit of the group, and follows leader hints.
    pub(super) async fn at_leader<F, T>(
        &self,
        group: GroupId,
        call: impl FnMut(NodeId) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let _permit = self.group_permits.acquire(group).await?;
        self.follow_leader(group, call).await
    }

    /// Calls the group's leader, with a permit for staging, and follows leader hints. The owner reads all files, which takes
    /// longer than other calls may wait for their permits.
    pub(super) async fn stage_at_leader<F, T>(
        &self,
        group: GroupId,
        call: impl FnMut(NodeId) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let _permit = self.staging_permits.acquire(group).await?;
        self.follow_leader(group, call).await
    }

    /// Calls the group's leader without a permit, and follows leader hints. The caller limits its calls.
    pub(super) async fn follow_leader<F, T>(
        &self,
        group: GroupId,
        mut call: impl FnMut(NodeId) -> F,
    ) -> Result<T, Refusal>
    where
        F: Future<Output = Result<T, Refusal>>,
    {
        let mut leader = self.leader_of(group)?;
        for _ in 0..MAX_HOPS {
            match call(leader).await {
                Err(refusal) if refusal.reason == Reason::NotLeader => {
                    let hint = refusal.leader.as_ref().map(|hint| hint.node_id);
                    match hint.filter(|node| node.get() != 0 && *node != leader) {
                        Some(node) => leader = node,
                        None => return Err(refusal),
                    }
                }
                other => return other,
            }
        }
        Err(Refusal::new(Reason::NotLeader, format!("the leader of group {group} is changing"))
            .retry_after(Duration::from_millis(500)))
    }

    pub(super) fn leader_of(&self, group: GroupId) -> Result<NodeId, Refusal> {
        // Heartbeats report a new leader before the catalog records it.
        let observed = self.observations.leader_of(group);
        let recorded = || self.group.view.read().group(group).and_then(|group| group.leader);
        observed.or_else(recorded).ok_or_else(|| {
            Refusal::new(Reason::NotLeader, format!("group {group} has no leader"))
                .retry_after(Duration::from_millis(500))
        })
    }
}

/// Returns whether a call fails if its group does not have the region. Otherwise nothing is left to do: the region
/// was never opened, was dropped by an earlier attempt, or is lost.
fn needs_region(call: &RegionCall) -> bool {
    match call {
        RegionCall::Drop(_) => false,
        RegionCall::Hold(ask) | RegionCall::AbandonMove(ask, _) => ask.held,
        RegionCall::Open(_)
        | RegionCall::Clone(_)
        | RegionCall::Alter(_)
        | RegionCall::Truncate(_)
        | RegionCall::OpenArea(_)
        | RegionCall::CloseArea(_)
        | RegionCall::MergeStaged(_)
        | RegionCall::Split(_)
        | RegionCall::Merge(_)
        | RegionCall::Close(_)
        | RegionCall::Prepare(_)
        | RegionCall::Receive(_)
        | RegionCall::Release(_)
        | RegionCall::Activate(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_region_completes_drops_and_abandoned_splits() {
        let hold = |held| RegionCall::Hold(v1::HoldRegionRequest { held, ..Default::default() });
        let (kept, forgotten) = Default::default();
        let abandon_move = RegionCall::AbandonMove(kept, forgotten);
        for (call, expected) in [
            (RegionCall::Drop(v1::DropRegionRequest::default()), false),
            (hold(false), false),
            (hold(true), true),
            (abandon_move, false),
            (RegionCall::Release(v1::ReleaseRegionRequest::default()), true),
            (RegionCall::Split(v1::SplitRegionRequest::default()), true),
            (RegionCall::Merge(v1::MergeRegionsRequest::default()), true),
            (RegionCall::Close(v1::CloseRegionRequest::default()), true),
            (RegionCall::Truncate(v1::TruncateRegionRequest::default()), true),
        ] {
            assert_eq!(needs_region(&call), expected, "{call:?}");
        }
    }
}
