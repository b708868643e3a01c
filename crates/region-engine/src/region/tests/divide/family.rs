//! Test fixture: regions that tile the key space of one table, on an owner and on a follower, with the log
//! of their writes.

use std::sync::Arc;

use tidewater_common::ids::{Epoch, RegionId, Sequence};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::WriteMode;

use super::oracle::Oracle;
use crate::compaction::{Attempt, Scope};
use crate::env::RegionEnv;
use crate::memtable::HeldRun;
use crate::region::tests::fixture::*;
use crate::region::{DivideError, Parent, SealedParent};
use crate::row_versions::RowOp;
use crate::storage::Storage;
use crate::{EngineError, Region, RegionSpec, RowOrder, RowsWrite, RunImage, ScanOptions};

/// The owner's and the follower's replica of a region.
#[derive(Clone)]
pub(super) struct Replicas {
    pub(super) owner: Arc<Region>,
    pub(super) follower: Arc<Region>,
}

/// Regions of one table, in key order.
pub(super) struct Family {
    pub(super) spec: RegionSpec,
    pub(super) regions: Vec<Replicas>,
    /// Environment of the node of the owners, and of that of the followers.
    pub(super) envs: [RegionEnv; 2],
    oracle: Oracle,
    sequence: u64,
    term: u64,
}

impl Family {
    /// Creates a family of one region.
    pub(super) async fn new(mode: WriteMode, hashed: bool) -> Self {
        let storage = Storage::memory();
        let spec = spec(mode, hashed);
        let mut family = Self {
            envs: [env(storage.clone()), env(storage)],
            oracle: Oracle::new(mode),
            regions: Vec::new(),
            sequence: 0,
            term: 1,
            spec: spec.clone(),
        };
        let [owner_env, follower_env] = family.envs.clone();
        let create = |env| Region::new(env, spec.clone(), Sequence(0), Sequence(0)).unwrap();
        let first = Replicas { owner: create(owner_env), follower: create(follower_env) };
        first.owner.take_ownership(owner(1), GROUP).await.unwrap();
        first.follower.load().await.unwrap();
        family.regions.push(first);
        family
    }

    /// Returns the spec of a child of sealed regions.
    fn child(&self, id: u64, range: KeyRange, parents: &[Parent]) -> RegionSpec {
        let parents = parents.to_vec();
        RegionSpec { region_id: RegionId(id), range, parents, ..self.spec.clone() }
    }

    fn next_id(&self) -> u64 {
        self.regions.iter().map(|region| region.owner.id().get()).max().unwrap() + 1
    }

    /// Returns the note of a row that no other row has.
    pub(super) fn note(&self, position: usize) -> String {
        format!("{}/{position}", self.sequence)
    }

    pub(super) fn last_sequence(&self) -> Sequence {
        Sequence(self.sequence)
    }

    /// Puts rows, each into the region of its key.
    pub(super) fn put(&mut self, rows: &[Row]) {
        self.sequence += 10;
        let keys: Vec<Key> = rows.iter().map(|row| row.0.clone()).collect();
        let keys = row_keys(&self.spec, &keys);
        for region in &self.regions {
            let range = &region.owner.spec().range;
            let within = keys.iter().zip(rows).filter(|(key, _)| range.contains(key));
            let within: Vec<Row> = within.map(|(_, row)| row.clone()).collect();
            if !within.is_empty() {
                region.apply(self.write(RowOp::Put, put_batch(&within, &self.spec)));
            }
        }
        self.oracle.put(self.sequence, keys.into_iter().zip(rows.iter().cloned()));
    }

    pub(super) fn delete(&mut self, keys: &[Key]) {
        self.sequence += 10;
        for region in &self.regions {
            let range = &region.owner.spec().range;
            let is_within = |key: &&Key| range.contains(&row_key(&self.spec, key));
            let within: Vec<Key> = keys.iter().filter(is_within).cloned().collect();
            if !within.is_empty() {
                region.apply(self.write(RowOp::Delete, delete_batch(&within, &self.spec)));
            }
        }
        for key in keys {
            self.oracle.delete(&row_key(&self.spec, key));
        }
    }

    pub(super) fn write(&self, op: RowOp, batch: arrow::array::RecordBatch) -> RowsWrite {
        RowsWrite { sequence: Sequence(self.sequence), epoch: Epoch(0), op, batch }
    }

    /// Replaces a region by its children, which begin at the given keys. Their manifests are still empty.
    pub(super) async fn split(&mut self, at: usize, cuts: &[Vec<u8>]) -> Replicas {
        let first_id = self.next_id();
        let parent = self.regions.remove(at);
        let range = &parent.owner.spec().range;
        let sealed = seal(&parent).await;
        let flushed = parent.owner.flushed_sequence();
        let mut starts = vec![range.start.clone()];
        starts.extend(cuts.iter().cloned());
        let mut ends: Vec<_> = cuts.iter().cloned().map(Some).collect();
        ends.push(range.end.clone());
        let children: Vec<RegionSpec> = (first_id..)
            .zip(starts.into_iter().zip(ends))
            .map(|(id, (start, end))| self.child(id, KeyRange { start, end }, &[sealed]))
            .collect();
        let before = self.memory();
        let owners = parent.owner.divide(flushed, children.clone()).unwrap();
        let followers = parent.follower.divide(flushed, children).unwrap();
        // The runs of the follower may be flushed at the sealed version.
        assert!(before[0] == self.memory()[0] && before[1] >= self.memory()[1], "{before:?}");
        for region in [&parent.owner, &parent.follower] {
            assert_eq!((region.stats().runs, region.stats().unflushed_since_ms), (0, None));
        }
        let children = owners.into_iter().zip(followers);
        let children = children.map(|(owner, follower)| Replicas { owner, follower });
        self.regions.splice(at..at, children);
        parent
    }

    /// Replaces two adjacent regions by one, if all their rows in memory can be kept there.
    pub(super) async fn merge(&mut self, at: usize) -> Result<[Replicas; 2], DivideError> {
        let parents = [self.regions[at].clone(), self.regions[at + 1].clone()];
        let mut seals = Vec::new();
        // Otherwise replicas may differ: one of them has merged runs, and with them dropped an overwritten row that
        // would count as flushed.
        for parent in &parents {
            parent.owner.flush().await.unwrap();
        }
        for parent in &parents {
            seals.push(seal(parent).await);
        }
        let start = parents[0].owner.spec().range.start.clone();
        let end = parents[1].owner.spec().range.end.clone();
        let child = self.child(self.next_id(), KeyRange { start, end }, &seals);
        let sealed = |replica: fn(&Replicas) -> &Arc<Region>| {
            parents.each_ref().map(|parent| SealedParent {
                region: replica(parent).clone(),
                flushed: parent.owner.flushed_sequence(),
            })
        };
        let owner = Region::merge(&sealed(|parent| &parent.owner), child.clone());
        let follower = Region::merge(&sealed(|parent| &parent.follower), child);
        match (owner, follower) {
            (Ok(owner), Ok(follower)) => {
                self.regions.splice(at..at + 2, [Replicas { owner, follower }]);
                Ok(parents)
            }
            (Err(error), Err(_)) => {
                for parent in &parents {
                    let range = parent.owner.spec().range.clone();
                    parent.owner.set_range(range, None).await.unwrap();
                }
                Err(error)
            }
            // The follower may not have read which rows are flushed, but was passed it.
            (owner, follower) => panic!("replicas differ: {owner:?} {follower:?}"),
        }
    }

    /// Writes the first deltas of the children of `parents`, and removes the parents.
    pub(super) async fn bear(&mut self, parents: &[Replicas]) {
        let is_child = |child: &&Replicas| {
            let mut of = child.owner.spec().parents.iter();
            of.any(|of| parents.iter().any(|parent| parent.owner.dir == of.dir))
        };
        let children = self.regions.iter().filter(is_child);
        let children: Vec<_> = children.map(|child| child.owner.dir).collect();
        for child in &self.regions {
            if !is_unborn(&child.owner) {
                continue;
            }
            child.owner.begin().await.unwrap();
            child.owner.take_ownership(owner(self.term), GROUP).await.unwrap();
            child.follower.load().await.unwrap();
        }
        for parent in parents {
            parent.owner.remove_parent(&children).await.unwrap();
            for region in [&parent.owner, &parent.follower] {
                // Also after its removal: the rows of a late write belong to the children.
                let error = region.apply(self.write(RowOp::Put, put_batch(&[], &self.spec)));
                assert!(matches!(error, Err(EngineError::Divided { .. })), "{error:?}");
                let error = scan(region, &all()).await.unwrap_err();
                assert!(matches!(error, EngineError::Divided { .. }), "{error}");
            }
        }
    }

    /// Replaces a replica by one that is restored from the images of the other, or its own, in a snapshot.
    pub(super) async fn restore(&mut self, at: usize, from_owner: bool, to_owner: bool) {
        let region = &self.regions[at];
        let source = if from_owner { &region.owner } else { &region.follower };
        let images: Vec<RunImage> = source
            .unflushed()
            .iter()
            .map(|image| RunImage::decode(&image.encode().unwrap()).unwrap())
            .collect();
        let range = &region.owner.spec().range;
        for run in images.iter().map(|image| &image.run) {
            check_keys(&self.spec, range, run);
        }
        let old = if to_owner { &region.owner } else { &region.follower };
        let spec = old.spec().clone();
        let is_unborn = is_unborn(old);
        let node = usize::from(!to_owner);
        let flushed = source.flushed_sequence();
        let new = Region::new(self.envs[node].clone(), spec, Sequence(0), flushed).unwrap();
        new.restore(images);
        old.close();
        if !is_unborn && to_owner {
            self.term += 1;
            new.take_ownership(owner(self.term), GROUP).await.unwrap();
        } else if !is_unborn {
            new.load().await.unwrap();
        }
        let region = &mut self.regions[at];
        *(if to_owner { &mut region.owner } else { &mut region.follower }) = new;
    }

    pub(super) async fn compact(&self, at: usize) {
        let region = &self.regions[at].owner;
        region.compact(Scope::Whole, Epoch(0), &Attempt::default()).await.unwrap();
    }

    /// Returns the memory charged on each node.
    pub(super) fn memory(&self) -> [u64; 2] {
        self.envs.each_ref().map(|env| env.memory.used())
    }

    /// Returns the runs of all regions of a node.
    fn runs(&self, owners: bool) -> Vec<(KeyRange, Vec<HeldRun>)> {
        let replica = |region: &Replicas| {
            if owners { region.owner.clone() } else { region.follower.clone() }
        };
        let runs = |region: &Replicas| {
            let replica = replica(region);
            (replica.spec().range.clone(), replica.contents.lock().runs.clone())
        };
        self.regions.iter().map(runs).collect()
    }

    /// Checks rows, and that the memory charged is that of the rows which are in memory.
    pub(super) async fn check(&self) {
        for (node, owners) in [true, false].into_iter().enumerate() {
            let mut stored: Vec<HeldRun> = Vec::new();
            for (range, runs) in self.runs(owners) {
                for run in runs {
                    check_keys(&self.spec, &range, &run);
                    if !stored.iter().any(|other| other.shares_rows(&run)) {
                        stored.push(run);
                    }
                }
            }
            let bytes: usize = stored.iter().map(|run| run.shared_bytes()).sum();
            assert_eq!(self.envs[node].memory.used(), bytes as u64);
        }
        for region in &self.regions {
            self.check_replica(&region.owner).await;
            self.check_replica(&region.follower).await;
        }
    }

    async fn check_replica(&self, region: &Region) {
        if is_unborn(region) {
            return;
        }
        let expected = self.expected(&region.spec().range);
        // Of the whole key space: the region shows no row outside its range.
        assert_eq!(scan(region, &all()).await.unwrap(), expected, "region {}", region.id());
        assert_eq!(region.count(&all()).await.unwrap(), expected.len() as u64);
        let any_order = ScanOptions { order: RowOrder::Any, ..all() };
        assert_eq!(region.count(&any_order).await.unwrap(), expected.len() as u64);
    }

    pub(super) fn expected(&self, range: &KeyRange) -> Vec<Row> {
        self.oracle.within(range)
    }

    /// Flushes everything, and checks what a new process reads.
    pub(super) async fn finish(&self) {
        for region in &self.regions {
            region.owner.flush().await.unwrap();
            region.follower.load().await.unwrap();
            assert_eq!(region.owner.stats().unflushed_since_ms, None);
        }
        assert_eq!(self.memory(), [0, 0]);
        self.check().await;
        for region in &self.regions {
            let env = self.envs[0].clone();
            let spec = region.owner.spec().clone();
            let reopened = Region::new(env, spec, Sequence(0), Sequence(0)).unwrap();
            reopened.load().await.unwrap();
            self.check_replica(&reopened).await;
        }
    }
}

impl Replicas {
    fn apply(&self, write: RowsWrite) {
        self.owner.apply(write.clone()).unwrap();
        self.follower.apply(write).unwrap();
    }
}

/// Returns whether the region has no manifest yet.
/// Seals a region. Its rows above the flushed sequence are in memory, from where its children take them.
async fn seal(region: &Replicas) -> Parent {
    let sealed_at = region.owner.set_range(sealed_range(), None).await.unwrap();
    let last_sequence = region.owner.flushed_sequence();
    Parent { dir: region.owner.dir, sealed_at, last_sequence }
}

fn is_unborn(region: &Region) -> bool {
    region.stats().manifest_version.get() == 0
}

/// Checks that all keys of a run are in a range.
fn check_keys(spec: &RegionSpec, range: &KeyRange, run: &crate::memtable::Run) {
    let codec = codec(spec);
    for rows in run.batches() {
        let keys = crate::memtable::run::key_columns(&rows, &spec.schema);
        let keys = codec.row_keys(&keys).unwrap();
        assert!(keys.iter().all(|key| range.contains(key)), "{range:?}");
    }
}
