//! Conditions of a data node, which it reports in heartbeats for the operator.
//!
//! - `regions`: regions of its replicas; `disk_space`: disks (both pure but for reading the state);
//!   [`log_growth`](super::log_growth): Raft logs.

mod disk_space;
mod regions;

use std::path::Path;
use std::time::Duration;

use tidewater_common::clock::ClockDifference;
use tidewater_common::ids::{GroupId, NodeId, RegionId};
use tidewater_common::problem::{Problem, ProblemHistory, limit_per_kind};
use tidewater_proto::v1::{NodeCondition, ProblemKind};
use tidewater_raft_store::DiskHealth;
use tokio::time::Instant;

pub(super) use self::disk_space::DiskSpace;
use super::log_growth;
use crate::groups::Groups;

/// Time ahead of the cluster's time from which a manifest's date is a problem.
const DATED_AHEAD: Duration = Duration::from_secs(600);
/// Maximum number of conditions of one kind in a heartbeat.
const MAX_PER_KIND: usize = 6;
/// Maximum number of conditions in a heartbeat.
const MAX_CONDITIONS: usize = 64;

/// Conditions of the node since its start.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    history: ProblemHistory,
}

impl Conditions {
    /// Returns the current conditions for a heartbeat, with their ages. `of_process`: the problems of the
    /// process.
    pub(super) fn report(
        &mut self,
        groups: &Groups,
        disk: &DiskSpace,
        of_process: Vec<Problem>,
    ) -> Vec<NodeCondition> {
        let mut current = of_process;
        current.extend(of_node(groups, disk));
        let lasting = self.history.record(current, Instant::now().into_std(), 0);
        let lasting = lasting.into_iter().map(Problem::from).collect();
        let limited = limit_per_kind(lasting, MAX_PER_KIND);
        limited.iter().take(MAX_CONDITIONS).map(NodeCondition::from).collect()
    }
}

/// Returns the conditions of the node and its replicas.
fn of_node(groups: &Groups, disk: &DiskSpace) -> Vec<Problem> {
    let context = groups.context();
    let memory = &context.env.memory;
    let mut problems = Vec::new();
    problems.extend(wrong_clock(context.env.clock.check().err()));
    match groups.disk() {
        DiskHealth::Ok => problems.extend(disk.problems()),
        unusable => problems.extend(unusable_disk(&unusable, context.directory.path())),
    }
    problems.extend(log_growth::problems(&context.directory.log_store().usage(), &context.options));
    problems.extend(full_memory(memory.used(), memory.limit()));
    for replica in groups.all() {
        problems.extend(without_leader(replica.group(), replica.leadership().leader));
        problems.extend(regions::problems(groups, &replica));
    }
    problems.extend(dated_ahead(&manifests_ahead(groups)));
    problems.extend(regions::quarantined(&context.compactors.registry.list(context.node)));
    problems
}

fn wrong_clock(difference: Option<ClockDifference>) -> Option<Problem> {
    let detail = format!(
        "its clock is {}: it leads no groups, and neither flushes, compacts nor expires anything, until the \
         clock is synchronized (NTP)",
        difference?
    );
    Some(Problem::new(ProblemKind::ClockDiffers, detail))
}

fn unusable_disk(health: &DiskHealth, directory: &Path) -> Option<Problem> {
    match health {
        DiskHealth::Ok => None,
        DiskHealth::Full => {
            let detail = format!(
                "its disk is full: it accepts no writes until there is room below {}",
                directory.display()
            );
            Some(Problem::new(ProblemKind::DiskFull, detail))
        }
        DiskHealth::Failed(error) => {
            let detail = format!("its disk has failed: {error}");
            Some(Problem::new(ProblemKind::DiskFailed, detail))
        }
    }
}

fn full_memory(used: u64, limit: u64) -> Option<Problem> {
    (used > limit).then(|| {
        let detail = format!("unflushed rows take {used} bytes, above the limit of {limit}");
        Problem::new(ProblemKind::MemoryFull, detail)
    })
}

fn without_leader(group: GroupId, leader: Option<NodeId>) -> Option<Problem> {
    leader.is_none().then(|| {
        let detail = format!("its replica of group {group} knows no leader of the group");
        Problem::new(ProblemKind::ReplicaWithoutLeader, detail).of_group(group)
    })
}

/// Returns how far the manifests of the regions that this node owns are dated in the future.
fn manifests_ahead(groups: &Groups) -> Vec<(Duration, RegionId)> {
    let led = groups.all().into_iter().filter(|replica| replica.leadership().is_leader);
    let hosted = led.flat_map(|replica| replica.shared.regions.all());
    hosted.map(|hosted| (hosted.region.manifest_ahead(), hosted.descriptor.region_id)).collect()
}

/// Describes regions with manifests from the future, written by a node whose clock was wrong.
fn dated_ahead(manifests: &[(Duration, RegionId)]) -> Option<Problem> {
    let ahead: Vec<_> = manifests.iter().filter(|(ahead, _)| *ahead > DATED_AHEAD).collect();
    let (greatest, region) = ahead.iter().max()?;
    let detail = format!(
        "{} manifests are dated in the future by a clock that was wrong, that of region {region} by {} s: \
         their removed files are not deleted before then",
        ahead.len(),
        greatest.as_secs()
    );
    Some(Problem::new(ProblemKind::ManifestDatedAhead, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(problem: Option<Problem>) -> Option<(ProblemKind, String)> {
        problem.map(|problem| (problem.kind, problem.detail))
    }

    #[test]
    fn wrong_clock_is_a_problem() {
        assert_eq!(wrong_clock(None), None);
        let difference =
            ClockDifference { difference_ms: 3_600_000, bound_ms: 600_000, since_ms: 1 };
        let (kind, detail) = found(wrong_clock(Some(difference))).unwrap();
        assert_eq!(kind, ProblemKind::ClockDiffers);
        assert!(detail.starts_with("its clock is 3600 s ahead"), "{detail}");
    }

    #[test]
    fn unusable_disk_is_a_problem() {
        let directory = Path::new("/d");
        assert_eq!(unusable_disk(&DiskHealth::Ok, directory), None);
        let (kind, detail) = found(unusable_disk(&DiskHealth::Full, directory)).unwrap();
        assert_eq!(kind, ProblemKind::DiskFull);
        assert!(detail.ends_with("room below /d"), "{detail}");
        let failed = DiskHealth::Failed("I/O error".into());
        let expected = (ProblemKind::DiskFailed, "its disk has failed: I/O error".to_owned());
        assert_eq!(found(unusable_disk(&failed, directory)), Some(expected));
    }

    #[test]
    fn rows_above_the_memory_limit_are_a_problem() {
        assert_eq!(full_memory(100, 100), None);
        let text = "unflushed rows take 101 bytes, above the limit of 100".to_owned();
        assert_eq!(found(full_memory(101, 100)), Some((ProblemKind::MemoryFull, text)));
    }

    #[test]
    fn replica_without_leader_is_a_problem() {
        let group = GroupId(5);
        assert_eq!(without_leader(group, Some(NodeId(101))), None);
        let problem = without_leader(group, None).unwrap();
        assert_eq!(problem.kind, ProblemKind::ReplicaWithoutLeader);
        assert_eq!(problem.subject.group, Some(group));
    }

    #[test]
    fn manifests_dated_in_the_future_are_a_problem() {
        let ahead = |seconds, region| (Duration::from_secs(seconds), RegionId(region));
        assert_eq!(dated_ahead(&[]), None);
        assert_eq!(dated_ahead(&[ahead(600, 7)]), None);
        let manifests = [ahead(0, 6), ahead(601, 7), ahead(900, 8), ahead(600, 9)];
        let (kind, detail) = found(dated_ahead(&manifests)).unwrap();
        assert_eq!(kind, ProblemKind::ManifestDatedAhead);
        let text = "2 manifests are dated in the future by a clock that was wrong, that of region 8 by 900 s";
        assert!(detail.starts_with(text), "{detail}");
    }
}
