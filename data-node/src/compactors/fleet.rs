//! The compactors that are up, as the meta service tells with each heartbeat, and the choice of one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use tidewater_common::ids::{JobId, NodeId};
use tidewater_proto::v1::CompactorInfo;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Fleet {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    seen: BTreeMap<NodeId, Compactor>,
    /// Jobs that this node has there now.
    ours: BTreeMap<NodeId, u32>,
    /// The most that it had there at once since each of the last reports, the newest first.
    most: BTreeMap<NodeId, [u32; REPORTS]>,
}

/// So many reports later the last one does not show any more what has ended.
const REPORTS: usize = 3;

/// A compactor that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compactor {
    /// Its id.
    pub node: NodeId,
    /// Where it is reached: host:port.
    pub address: String,
    /// Jobs of this node that it has place for, those that it has included.
    room: u32,
    /// Bytes of memory that no job has.
    free_memory: u64,
    /// Bytes that outputs may take on the disk of a local store; `None`: no limit.
    free_disk: Option<u64>,
}

/// A place for a job on a compactor, until it is dropped.
#[derive(Debug)]
pub struct Reserved<'a> {
    fleet: &'a Fleet,
    /// The compactor.
    pub compactor: Compactor,
}

impl Fleet {
    /// Takes over what the meta service tells this node.
    pub fn follow(&self, node: NodeId, compactors: &[CompactorInfo]) {
        let mut inner = self.inner.lock();
        let mut most = BTreeMap::new();
        inner.seen.clear();
        for info in compactors {
            let id = NodeId(info.node_id);
            let before = inner.most.get(&id).copied().unwrap_or_default();
            let known = before.into_iter().max().unwrap_or_default();
            if let Some(one) = compactor(info, node, known) {
                inner.seen.insert(id, one);
            }
            let now = inner.ours.get(&id).copied().unwrap_or_default();
            most.insert(id, [now, before[0], before[1]]);
        }
        inner.most = most;
    }

    /// Whether no compactor is up.
    pub fn is_empty(&self) -> bool {
        self.inner.lock().seen.is_empty()
    }

    /// Whether a compactor is up that is none of these.
    pub fn has_others(&self, nodes: &BTreeSet<NodeId>) -> bool {
        self.inner.lock().seen.keys().any(|node| !nodes.contains(node))
    }

    /// Jobs that compactors may still take.
    pub fn free_slots(&self) -> usize {
        let inner = self.inner.lock();
        inner.seen.values().map(|one| inner.free(one) as usize).sum()
    }

    /// The compactor for a job that reads so many bytes, if one has room. `without`: not one of these.
    pub fn reserve(
        &self,
        job: JobId,
        bytes: u64,
        without: &BTreeSet<NodeId>,
    ) -> Option<Reserved<'_>> {
        let mut inner = self.inner.lock();
        let known = inner.seen.values().filter(|one| !without.contains(&one.node));
        let compactor = pick(known.map(|one| (inner.free(one), one)), job, bytes)?.clone();
        let ours = inner.ours.entry(compactor.node).or_default();
        *ours += 1;
        let ours = *ours;
        let most = inner.most.entry(compactor.node).or_default();
        most[0] = most[0].max(ours);
        Some(Reserved { fleet: self, compactor })
    }
}

impl Inner {
    fn free(&self, compactor: &Compactor) -> u32 {
        compactor.room.saturating_sub(self.ours.get(&compactor.node).copied().unwrap_or(0))
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut inner = self.fleet.inner.lock();
        if let Some(ours) = inner.ours.get_mut(&self.compactor.node) {
            *ours = ours.saturating_sub(1);
            if *ours == 0 {
                inner.ours.remove(&self.compactor.node);
            }
        }
    }
}

/// What a report means to a node. Of its own jobs it knows better: a report is a second or two old. But
/// those that it has given up, or that it had before it was started again, it does not know: they are as
/// those of others. `known`: how many the report may show that it knows.
fn compactor(info: &CompactorInfo, node: NodeId, known: u32) -> Option<Compactor> {
    let load = info.load.as_ref()?;
    if load.draining {
        return None;
    }
    let ours = load.jobs_of.get(&node.get()).copied().unwrap_or(0).min(known);
    Some(Compactor {
        node: NodeId(info.node_id),
        address: info.address.clone(),
        room: load.slots.saturating_sub(load.jobs.saturating_sub(ours)),
        free_memory: load.memory_bytes.saturating_sub(load.memory_used_bytes),
        free_disk: load.disk_free_bytes,
    })
}

/// The one with the most free slots; of several, that which the job's id favours, so that equal
/// choices spread and do not depend on who makes them (rendezvous hashing, Thaler and Ravishankar).
fn pick<'a>(
    known: impl Iterator<Item = (u32, &'a Compactor)>,
    job: JobId,
    bytes: u64,
) -> Option<&'a Compactor> {
    known
        .filter(|(free, one)| *free > 0 && one.free_memory > 0)
        .filter(|(_, one)| one.free_disk.is_none_or(|free| free >= bytes))
        .max_by_key(|(free, one)| (*free, weight(job, one.node), one.node))
        .map(|(_, one)| one)
}

fn weight(job: JobId, node: NodeId) -> u64 {
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

    fn reserved(fleet: &Fleet, without: &[u64]) -> Option<u64> {
        let without = without.iter().copied().map(NodeId).collect();
        let reserved = fleet.reserve(job(1), 10, &without)?;
        let node = reserved.compactor.node.get();
        std::mem::forget(reserved);
        Some(node)
    }

    #[test]
    fn the_most_free_slots_win_and_places_are_given_back() {
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
    fn of_its_own_jobs_a_node_knows_better_than_a_report() {
        let fleet = Fleet::default();
        fleet.follow(OWN, &[info(201, 2, 0)]);
        assert_eq!(reserved(&fleet, &[]), Some(201));
        let second = fleet.reserve(job(1), 10, &BTreeSet::new());
        fleet.follow(OWN, &[info(201, 2, 0)]);
        assert_eq!(fleet.free_slots(), 0, "the report is from before");
        let mut later = info(201, 8, 5);
        later.load.iter_mut().for_each(|load| load.jobs_of = [(101, 2), (102, 3)].into());
        fleet.follow(OWN, &[later]);
        assert_eq!(fleet.free_slots(), 3, "three are of others");
        drop(second);
        assert_eq!(fleet.free_slots(), 4, "the report does not know that it has ended");
    }

    #[test]
    fn jobs_that_were_given_up_take_their_slots_as_those_of_others() {
        let fleet = Fleet::default();
        let mut busy = info(201, 4, 2);
        busy.load.iter_mut().for_each(|load| load.jobs_of = [(101, 2)].into());
        fleet.follow(OWN, std::slice::from_ref(&busy));
        assert_eq!(fleet.free_slots(), 2, "of a node that was started again");
        let taken = fleet.reserve(job(1), 10, &BTreeSet::new()).unwrap();
        busy.load.iter_mut().for_each(|load| (load.jobs, load.jobs_of) = (3, [(101, 3)].into()));
        fleet.follow(OWN, std::slice::from_ref(&busy));
        assert_eq!(fleet.free_slots(), 1);
        // Given up here, and running on there. Some reports may be from before it ended.
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
    fn what_has_no_room_is_passed_over() {
        let fleet = Fleet::default();
        let with = |change: fn(&mut CompactorLoad)| {
            let mut one = info(201, 2, 0);
            one.load.iter_mut().for_each(change);
            fleet.follow(OWN, &[one]);
            let found = fleet.reserve(job(1), 10, &BTreeSet::new());
            found.is_some()
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
    fn jobs_spread_over_equals_and_stay_when_one_goes() {
        let all: Vec<Compactor> =
            (1..=4).filter_map(|node| compactor(&info(node, 1, 0), OWN, 0)).collect();
        let chosen = |known: &[Compactor]| -> Vec<u64> {
            let of = |number| {
                let free = known.iter().map(|one| (one.room, one));
                pick(free, job(number), 1).map_or(0, |one| one.node.get())
            };
            (0..400).map(of).collect()
        };
        let before = chosen(&all);
        for node in 1..=4 {
            let share = before.iter().filter(|chosen| **chosen == node).count();
            assert!((60..140).contains(&share), "{node}: {share}");
        }
        let after = chosen(&all[..3]);
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        assert!(moved.clone().all(|(before, _)| *before == 4), "only those of the one that went");
    }
}
