//! Conditions of a data node, which it reports in heartbeats for the operator.
//!
//! - `regions`: regions of its replicas; `disk_space`: disks (both pure but for reading the state);
//!   [`log_growth`](super::log_growth): Raft logs.

mod disk_space;
mod regions;

use std::time::Duration;

use tidewater_common::ids::RegionId;
use tidewater_common::problem::{Problem, ProblemHistory, limit_per_kind};
use tidewater_proto::v1::{NodeCondition, ProblemKind};
use tidewater_raft_store::DiskHealth;
use tokio::time::Instant;

pub(super) use self::disk_space::DiskSpace;
use super::log_growth;
use crate::group::replica::GroupReplica;
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
    let mut problems = Vec::new();
    if let Err(difference) = context.env.clock.check() {
        let detail = format!(
            "its clock is {difference}: it leads no groups, and neither flushes, compacts nor expires \
             anything, until the clock is synchronized (NTP)"
        );
        problems.push(Problem::new(ProblemKind::ClockDiffers, detail));
    }
    match groups.disk() {
        DiskHealth::Ok => problems.extend(disk.problems()),
        DiskHealth::Full => {
            let detail = format!(
                "its disk is full: it accepts no writes until there is room below {}",
                context.directory.path().display()
            );
            problems.push(Problem::new(ProblemKind::DiskFull, detail));
        }
        DiskHealth::Failed(error) => {
            let detail = format!("its disk has failed: {error}");
            problems.push(Problem::new(ProblemKind::DiskFailed, detail));
        }
    }
    problems.extend(log_growth::problems(&context.directory.log_store().usage(), &context.options));
    let memory = &context.env.memory;
    if memory.used() > memory.limit() {
        let (used, limit) = (memory.used(), memory.limit());
        let detail = format!("unflushed rows take {used} bytes, above the limit of {limit}");
        problems.push(Problem::new(ProblemKind::MemoryFull, detail));
    }
    for replica in groups.all() {
        problems.extend(without_leader(&replica));
        problems.extend(regions::problems(groups, &replica));
    }
    problems.extend(dated_ahead(groups));
    problems.extend(regions::quarantined(&context.compactors.registry.list(context.node)));
    problems
}

fn without_leader(replica: &GroupReplica) -> Option<Problem> {
    let group = replica.group();
    replica.leadership().leader.is_none().then(|| {
        let detail = format!("its replica of group {group} knows no leader of the group");
        Problem::new(ProblemKind::ReplicaWithoutLeader, detail).of_group(group)
    })
}

/// Describes regions with manifests from the future, written by a node whose clock was wrong.
fn dated_ahead(groups: &Groups) -> Option<Problem> {
    let led = groups.all().into_iter().filter(|replica| replica.leadership().is_leader);
    let regions: Vec<(Duration, RegionId)> = led
        .flat_map(|replica| replica.shared.regions.all())
        .map(|hosted| (hosted.region.manifest_ahead(), hosted.descriptor.region_id))
        .filter(|(ahead, _)| *ahead > DATED_AHEAD)
        .collect();
    let (ahead, region) = regions.iter().max()?;
    let detail = format!(
        "{} manifests are dated in the future by a clock that was wrong, that of region {region} by {} s: \
         their removed files are not deleted before then",
        regions.len(),
        ahead.as_secs()
    );
    Some(Problem::new(ProblemKind::ManifestDatedAhead, detail))
}
