//! Compactors that are up, as reported by the meta service with each heartbeat, and the choice of one
//! for a job.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use tidewater_common::ids::{JobId, NodeId};
use tidewater_proto::v1::CompactorInfo;

/// Compactors that are up, and the slots that this node has reserved on them.
#[derive(Debug, Default)]
pub struct Fleet {
    inner: Mutex<FleetState>,
}

#[derive(Debug, Default)]
struct FleetState {
    up: BTreeMap<NodeId, Compactor>,
    /// Slots that this node has reserved now.
    reserved: BTreeMap<NodeId, u32>,
    /// Largest number of slots reserved at the same time since each of the last reports, the newest first.
    max_reserved: BTreeMap<NodeId, [u32; REPORTS]>,
}

/// Number of reports after which a job that ended is no longer counted in the latest one.
const REPORTS: usize = 3;

/// Compactor that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compactor {
    /// Its id.
    pub node: NodeId,
    /// Its address: host:port.
    pub address: String,
    /// Slots that this node may use, reserved ones included.
    slots: u32,
    /// Bytes of memory that no job uses.
    free_memory: u64,
    /// Bytes that outputs may take on the disk of a local store; `None`: no limit.
    free_disk: Option<u64>,
}

/// Reserved slot of a compactor, until it is dropped.
#[derive(Debug)]
pub struct SlotReservation<'a> {
    fleet: &'a Fleet,
    /// The compactor.
    pub compactor: Compactor,
}

impl Fleet {
    /// Replaces the compactors by those that the meta service reports to this node.
    pub fn follow(&self, node: NodeId, compactors: &[CompactorInfo]) {
        let mut inner = self.inner.lock();
        let mut max_reserved = BTreeMap::new();
        inner.up.clear();
        for info in compactors {
            let id = NodeId(info.node_id);
            let before = inner.max_reserved.get(&id).copied().unwrap_or_default();
            let known = before.into_iter().max().unwrap_or_default();
            if let Some(compactor) = available_compactor(info, node, known) {
                inner.up.insert(id, compactor);
            }
            let now = inner.reserved.get(&id).copied().unwrap_or_default();
            max_reserved.insert(id, [now, before[0], before[1]]);
        }
        inner.max_reserved = max_reserved;
    }

    /// Returns whether no compactor is up.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().up.is_empty()
    }

    /// Returns whether a compactor other than these is up.
    pub fn has_others(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.inner.lock().up.keys().any(|node| !nodes.contains(node))
    }

    /// Returns the number of jobs that compactors may still accept.
    pub fn free_slots(&self) -> usize {
        let inner = self.inner.lock();
        inner.up.values().map(|compactor| inner.free_slots(compactor) as usize).sum()
    }

    /// Reserves a slot for a job that reads `bytes`, on a compactor that is not `excluded`; `None`:
    /// none is free.
    pub fn reserve(
        &self,
        job: JobId,
        bytes: u64,
        excluded: &BTreeSet<NodeId>,
    ) -> Option<SlotReservation<'_>> {
        let mut inner = self.inner.lock();
        let usable = inner.up.values().filter(|compactor| !excluded.contains(&compactor.node));
        let free = usable.map(|compactor| (inner.free_slots(compactor), compactor));
        let compactor = pick_compactor(free, job, bytes)?.clone();
        let reserved = inner.reserved.entry(compactor.node).or_default();
        *reserved += 1;
        let reserved = *reserved;
        let max_reserved = inner.max_reserved.entry(compactor.node).or_default();
        max_reserved[0] = max_reserved[0].max(reserved);
        Some(SlotReservation { fleet: self, compactor })
    }
}

impl FleetState {
    fn free_slots(&self, compactor: &Compactor) -> u32 {
        let reserved = self.reserved.get(&compactor.node).copied().unwrap_or(0);
        compactor.slots.saturating_sub(reserved)
    }
}

impl Drop for SlotReservation<'_> {
    fn drop(&mut self) {
        let mut inner = self.fleet.inner.lock();
        if let Some(reserved) = inner.reserved.get_mut(&self.compactor.node) {
            *reserved = reserved.saturating_sub(1);
            if *reserved == 0 {
                inner.reserved.remove(&self.compactor.node);
            }
        }
    }
}

/// Returns the compactor of a report, unless it is draining. A report is a second or two old, so `node`
/// counts its own jobs itself: its jobs in the report do not reduce the slots. Jobs that it has
/// aborted, or that it started before a restart, count like those of other nodes. `known`: the largest
/// number of jobs in the report that `node` counts.
fn available_compactor(info: &CompactorInfo, node: NodeId, known: u32) -> Option<Compactor> {
    let load = info.load.as_ref()?;
    if load.draining {
        return None;
    }
    let own_jobs = load.jobs_of.get(&node.get()).copied().unwrap_or(0).min(known);
    Some(Compactor {
        node: NodeId(info.node_id),
        address: info.address.clone(),
        slots: load.slots.saturating_sub(load.jobs.saturating_sub(own_jobs)),
        free_memory: load.memory_bytes.saturating_sub(load.memory_used_bytes),
        free_disk: load.disk_free_bytes,
    })
}

/// Returns the compactor with the most free slots. Among equals the job's id decides, so that jobs
/// spread and the choice does not depend on the node that makes it (rendezvous hashing, Thaler and
/// Ravishankar).
fn pick_compactor<'a>(
    usable: impl Iterator<Item = (u32, &'a Compactor)>,
    job: JobId,
    bytes: u64,
) -> Option<&'a Compactor> {
    usable
        .filter(|(slots, compactor)| *slots > 0 && compactor.free_memory > 0)
        .filter(|(_, compactor)| compactor.free_disk.is_none_or(|free| free >= bytes))
        .max_by_key(|(slots, compactor)| {
            (*slots, rendezvous_weight(job, compactor.node), compactor.node)
        })
        .map(|(_, compactor)| compactor)
}

fn rendezvous_weight(job: JobId, node: NodeId) -> u64 {
    let mut hasher = DefaultHasher::new();
    (job.0, node.get()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::CompactorLoad;
    use uuid::Uuid;

    use super::*;

    fn info(node_id: u64, slots: u32, jobs: u32) -> CompactorInfo {
        let load = CompactorLoad { slots, jobs, memory_bytes: 100, ..Default::default() };
        CompactorInfo { node_id, address: format!("a:{node_id}"), load: Some(load) }
    }

    const OWN: NodeId = NodeId(101);

    fn job(number: u128) -> JobId {
        JobId(Uuid::from_u128(number))
    }

    fn reserved(fleet: &Fleet, excluded: &[u64]) -> Option<u64> {
        let excluded = excluded.iter().copied().map(NodeId).collect();
        let reservation = fleet.reserve(job(1), 10, &excluded)?;
        let node = reservation.compactor.node.get();
        std::mem::forget(reservation);
        Some(node)
    }

    #[test]
    fn job_goes_to_the_compactor_with_most_free_slots() {
        let fleet = Fleet::default();
        assert!(fleet.is_empty() && reserved(&fleet, &[]).is_none());
        fleet.follow(OWN, &[info(201, 2, 1), info(202, 3, 1)]);
        assert_eq!(fleet.free_slots(), 3);
        let others = |nodes: &[u64]| fleet.has_others(&nodes.iter().copied().map(NodeId).collect());
        assert!(others(&[]) && others(&[201]) && !others(&[201, 202]));
        let first = fleet.reserve(job(1), 10, &BTreeSet::new()).unwrap();
        assert_eq!(first.compactor.node, NodeId(202));
        assert_eq!(fleet.free_slots(), 2);
        assert_eq!(reserved(&fleet, &[202]), Some(201));
        assert_eq!(reserved(&fleet, &[202]), None, "full");
        drop(first);
        assert_eq!(fleet.free_slots(), 2);
    }

    #[test]
    fn own_jobs_are_counted_by_reservations_not_by_reports() {
        let fleet = Fleet::default();
        fleet.follow(OWN, &[info(201, 2, 0)]);
        assert_eq!(reserved(&fleet, &[]), Some(201));
        let second = fleet.reserve(job(1), 10, &BTreeSet::new());
        fleet.follow(OWN, &[info(201, 2, 0)]);
        assert_eq!(fleet.free_slots(), 0, "the report is older than the reservation");
        let mut later = info(201, 8, 5);
        later.load.iter_mut().for_each(|load| load.jobs_of = [(101, 2), (102, 3)].into());
        fleet.follow(OWN, &[later]);
        assert_eq!(fleet.free_slots(), 3, "three belong to other nodes");
        drop(second);
        assert_eq!(fleet.free_slots(), 4, "the report is older than the job's end");
    }

    #[test]
    fn aborted_jobs_occupy_slots_like_those_of_others() {
        let fleet = Fleet::default();
        let mut busy = info(201, 4, 2);
        busy.load.iter_mut().for_each(|load| load.jobs_of = [(101, 2)].into());
        fleet.follow(OWN, std::slice::from_ref(&busy));
        assert_eq!(fleet.free_slots(), 2, "jobs from before the restart");
        let taken = fleet.reserve(job(1), 10, &BTreeSet::new()).unwrap();
        busy.load.iter_mut().for_each(|load| (load.jobs, load.jobs_of) = (3, [(101, 3)].into()));
        fleet.follow(OWN, std::slice::from_ref(&busy));
        assert_eq!(fleet.free_slots(), 1);
        // Aborted by this node, and still running there. Some reports may be older than its end.
        drop(taken);
        let mut free = Vec::new();
        for _ in 0..4 {
            fleet.follow(OWN, std::slice::from_ref(&busy));
            free.push(fleet.free_slots());
        }
        assert_eq!(free, [2, 2, 2, 1]);
        fleet.follow(OWN, &[info(201, 4, 0)]);
        assert_eq!(fleet.free_slots(), 4);
    }

    #[test]
    fn compactor_without_capacity_is_skipped() {
        let fleet = Fleet::default();
        let with = |change: fn(&mut CompactorLoad)| {
            let mut info = info(201, 2, 0);
            info.load.iter_mut().for_each(change);
            fleet.follow(OWN, &[info]);
            fleet.reserve(job(1), 10, &BTreeSet::new()).is_some()
        };
        assert!(with(|_| {}));
        assert!(!with(|load| load.draining = true));
        assert!(!with(|load| load.jobs = 2));
        assert!(!with(|load| load.memory_used_bytes = 100));
        assert!(!with(|load| load.disk_free_bytes = Some(9)));
        assert!(with(|load| load.disk_free_bytes = Some(10)));
        fleet.follow(OWN, &[CompactorInfo { load: None, ..info(201, 2, 0) }]);
        assert!(fleet.is_empty());
    }

    #[test]
    fn jobs_spread_evenly_and_stay_when_a_compactor_leaves() {
        let all: Vec<Compactor> =
            (1..=4).filter_map(|node| available_compactor(&info(node, 1, 0), OWN, 0)).collect();
        let chosen = |known: &[Compactor]| -> Vec<u64> {
            let pick = |number| {
                let free = known.iter().map(|compactor| (compactor.slots, compactor));
                pick_compactor(free, job(number), 1).map_or(0, |compactor| compactor.node.get())
            };
            (0..400).map(pick).collect()
        };
        let before = chosen(&all);
        for node in 1..=4 {
            let share = before.iter().filter(|chosen| **chosen == node).count();
            assert!((60..140).contains(&share), "{node}: {share}");
        }
        let after = chosen(&all[..3]);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(
            moved.clone().all(|(before, _)| *before == 4),
            "only jobs of the compactor that left"
        );
    }
}
