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
    /// Slots that this node has reserved now, and the memory of their jobs.
    reserved: BTreeMap<NodeId, ReservedSlots>,
    /// Largest number of slots reserved at the same time since each of the last reports, the newest first.
    max_reserved: BTreeMap<NodeId, [u32; REPORTS]>,
}

/// Reservations of this node on one compactor.
#[derive(Debug, Clone, Copy, Default)]
struct ReservedSlots {
    slots: u32,
    memory_bytes: u64,
}

/// Size of a job, as far as it concerns the choice of a compactor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobSize {
    /// Bytes that it reads, which bound the bytes that it writes.
    pub bytes: u64,
    /// Bytes of memory of one sub-job.
    pub memory_bytes: u64,
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
    /// Bytes of memory for all jobs.
    memory: u64,
    /// Bytes of memory that the jobs of its last report use.
    used_memory: u64,
    /// Bytes that outputs may take on the disk of a local store; `None`: no limit.
    free_disk: Option<u64>,
}

/// Reserved slot of a compactor, until it is dropped.
#[derive(Debug)]
pub struct SlotReservation<'a> {
    fleet: &'a Fleet,
    /// The compactor.
    pub compactor: Compactor,
    memory_bytes: u64,
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
            let now = inner.reserved_on(id).slots;
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

    /// Returns the bytes of memory of the compactor that has the most for its jobs; 0: none is up.
    pub fn largest_memory(&self) -> u64 {
        let inner = self.inner.lock();
        inner.up.values().map(|compactor| compactor.memory).max().unwrap_or(0)
    }

    /// Reserves a slot for a job on a compactor that is not `excluded`; `None`: none is free.
    pub fn reserve(
        &self,
        job: JobId,
        size: JobSize,
        excluded: &BTreeSet<NodeId>,
    ) -> Option<SlotReservation<'_>> {
        let mut inner = self.inner.lock();
        let usable = inner.up.values().filter(|compactor| !excluded.contains(&compactor.node));
        let free = usable.map(|compactor| inner.candidate(compactor));
        let compactor = pick_compactor(free, job, size)?.clone();
        let reserved = inner.reserved.entry(compactor.node).or_default();
        reserved.slots += 1;
        reserved.memory_bytes = reserved.memory_bytes.saturating_add(size.memory_bytes);
        let slots = reserved.slots;
        let max_reserved = inner.max_reserved.entry(compactor.node).or_default();
        max_reserved[0] = max_reserved[0].max(slots);
        Some(SlotReservation { fleet: self, compactor, memory_bytes: size.memory_bytes })
    }
}

impl FleetState {
    fn reserved_on(&self, compactor: NodeId) -> ReservedSlots {
        self.reserved.get(&compactor).copied().unwrap_or_default()
    }

    fn free_slots(&self, compactor: &Compactor) -> u32 {
        compactor.slots.saturating_sub(self.reserved_on(compactor.node).slots)
    }

    /// Returns a compactor with its free capacity. Its last report may be older than the jobs of this
    /// node, so that these are counted where they use more.
    fn candidate<'a>(&self, compactor: &'a Compactor) -> FreeCompactor<'a> {
        let used = compactor.used_memory.max(self.reserved_on(compactor.node).memory_bytes);
        FreeCompactor {
            compactor,
            slots: self.free_slots(compactor),
            memory_bytes: compactor.memory.saturating_sub(used),
        }
    }
}

/// Compactor and its capacity that no job uses.
#[derive(Debug, Clone, Copy)]
struct FreeCompactor<'a> {
    compactor: &'a Compactor,
    slots: u32,
    memory_bytes: u64,
}

impl Drop for SlotReservation<'_> {
    fn drop(&mut self) {
        let mut inner = self.fleet.inner.lock();
        if let Some(reserved) = inner.reserved.get_mut(&self.compactor.node) {
            reserved.slots = reserved.slots.saturating_sub(1);
            reserved.memory_bytes = reserved.memory_bytes.saturating_sub(self.memory_bytes);
            if reserved.slots == 0 {
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
        memory: load.memory_bytes,
        used_memory: load.memory_used_bytes,
        free_disk: load.disk_free_bytes,
    })
}

/// Returns the compactor with the most free slots among those with room for the job in memory. If the
/// memory of all is in use, one of these: it may be free again when the job arrives. Among equals the
/// job's id decides, so that jobs spread and the choice does not depend on the node that makes it
/// (rendezvous hashing, Thaler and Ravishankar).
fn pick_compactor<'a>(
    usable: impl Iterator<Item = FreeCompactor<'a>>,
    job: JobId,
    size: JobSize,
) -> Option<&'a Compactor> {
    usable
        .filter(|free| free.slots > 0 && free.compactor.memory > free.compactor.used_memory)
        .filter(|free| free.compactor.free_disk.is_none_or(|room| room >= size.bytes))
        .max_by_key(|free| {
            let node = free.compactor.node;
            let fits = free.memory_bytes >= size.memory_bytes;
            // A larger compactor may accept the job later, a smaller one never will.
            let may_fit = free.compactor.memory >= size.memory_bytes;
            (fits, may_fit, free.slots, rendezvous_weight(job, node), node)
        })
        .map(|free| free.compactor)
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
    const SIZE: JobSize = JobSize { bytes: 10, memory_bytes: 1 };

    fn job(number: u128) -> JobId {
        JobId(Uuid::from_u128(number))
    }

    fn reserved(fleet: &Fleet, excluded: &[u64]) -> Option<u64> {
        let excluded = excluded.iter().copied().map(NodeId).collect();
        let reservation = fleet.reserve(job(1), SIZE, &excluded)?;
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
        let first = fleet.reserve(job(1), SIZE, &BTreeSet::new()).unwrap();
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
        let second = fleet.reserve(job(1), SIZE, &BTreeSet::new());
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
        let taken = fleet.reserve(job(1), SIZE, &BTreeSet::new()).unwrap();
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
            fleet.reserve(job(1), SIZE, &BTreeSet::new()).is_some()
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
    fn job_goes_to_a_compactor_with_enough_memory() {
        let with = |node, slots, memory_bytes, memory_used_bytes| {
            let mut info = info(node, slots, 0);
            info.load.iter_mut().for_each(|load| {
                (load.memory_bytes, load.memory_used_bytes) = (memory_bytes, memory_used_bytes);
            });
            info
        };
        let size = JobSize { bytes: 10, memory_bytes: 352 };
        let cases = [
            // The first has more slots, but other jobs use its memory.
            (vec![with(201, 8, 432, 81), with(202, 1, 432, 80)], Some(202)),
            (vec![with(201, 8, 432, 80), with(202, 1, 432, 0)], Some(201)),
            // No compactor has room: one that may have it later.
            (vec![with(201, 8, 351, 0), with(202, 1, 432, 300)], Some(202)),
            (vec![with(201, 8, 351, 0), with(202, 1, 351, 0)], Some(201)),
            (vec![with(201, 8, 432, 432)], None),
        ];
        for (known, expected) in cases {
            let fleet = Fleet::default();
            fleet.follow(OWN, &known);
            let reserved = fleet.reserve(job(1), size, &BTreeSet::new());
            let node = reserved.map(|reserved| reserved.compactor.node.get());
            assert_eq!(node, expected, "{known:?}");
        }
        // Own jobs count before a report has them, and not after they have ended.
        let fleet = Fleet::default();
        fleet.follow(OWN, &[with(201, 8, 432, 0), with(202, 2, 432, 0)]);
        assert_eq!(fleet.largest_memory(), 432);
        let reserve = || fleet.reserve(job(1), size, &BTreeSet::new()).unwrap();
        let first = reserve();
        let second = reserve();
        assert_eq!([first.compactor.node, second.compactor.node], [NodeId(201), NodeId(202)]);
        drop(first);
        assert_eq!(reserve().compactor.node, NodeId(201));
    }

    #[test]
    fn jobs_spread_evenly_and_stay_when_a_compactor_leaves() {
        let all: Vec<Compactor> =
            (1..=4).filter_map(|node| available_compactor(&info(node, 1, 0), OWN, 0)).collect();
        let chosen = |known: &[Compactor]| -> Vec<u64> {
            let pick = |number| {
                let free = known.iter().map(|compactor| FreeCompactor {
                    compactor,
                    slots: compactor.slots,
                    memory_bytes: compactor.memory,
                });
                pick_compactor(free, job(number), SIZE).map_or(0, |compactor| compactor.node.get())
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
