//! A region as its host sees it.
//!
//! A region is created without I/O and *loading*: it takes writes, but cannot say what it holds
//! until [`Region::load`] has read its manifest. Every replica applies the log; the owner alone
//! flushes. Calling `load` again follows the manifest: versions are swapped at once, never go back,
//! and runs whose rows all lie in files are dropped.

mod alter;
mod apply;
mod area;
mod compact;
mod copy;
mod flush;
mod index;
mod lifecycle;
mod load;
mod obligation;
mod phase;
mod planned;
mod publication;
mod read;
mod remap;
mod stats;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Incarnation, RegionId, Sequence, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

pub use self::area::{AreaStatus, Staged};
pub use self::compact::{CompactionDue, CompactionReport};
pub use self::flush::FlushReport;
pub use self::index::IndexReport;
use self::lifecycle::Announcer;
pub use self::obligation::{Cause, Obligation, Pending};
pub use self::phase::Phase;
pub use self::planned::{PlannedCompaction, Settled};
pub use self::publication::{Content, Publication};
pub use self::read::MOST_KEYS;
pub use self::stats::RegionStats;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::file_meta::FileRef;
use crate::hooks::RegionHooks;
use crate::layout::RegionDir;
use crate::manifest::{ManifestContext, ManifestState};
use crate::memory::Usage;
use crate::memtable::Run;
use crate::read::shape::TableShape;
use crate::version::Version;

/// What a region is, as its host's log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    /// The region; also the id of the route that leads to it.
    pub region_id: RegionId,
    /// The table that it is a part of.
    pub table_id: TableId,
    /// Incarnation of the cluster in which the region was created.
    pub incarnation: Incarnation,
    /// Columns and keys, as they are when the region is taken up.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Row keys that the region holds.
    pub range: KeyRange,
}

impl RegionSpec {
    /// What the region is by a state of its manifest.
    #[must_use]
    pub(crate) fn as_of(&self, state: &ManifestState) -> Self {
        let mut spec = self.clone();
        if let Some(table) = &state.table {
            spec.schema = table.schema.clone();
            spec.options = table.options.clone();
        }
        if let Some(range) = &state.range {
            spec.range = range.clone();
        }
        spec
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct Region {
    env: RegionEnv,
    spec: RegionSpec,
    dir: RegionDir,
    /// The log gives out no sequence below it.
    base: Sequence,
    manifest: ManifestContext,
    hooks: RegionHooks,
    announcer: Arc<Announcer>,
    /// Held for the whole of a flush: flushes of a region commit in order.
    flushing: tokio::sync::Mutex<()>,
    /// Held while runs are merged, and while a flush chooses its runs.
    merging: tokio::sync::Mutex<()>,
    contents: Mutex<Contents>,
    usage: Usage,
}

/// What changes as the region lives. Locked for moments only, never across an await.
#[derive(Debug)]
struct Contents {
    phase: Phase,
    /// Schema and options, as the log has them now.
    shape: Arc<TableShape>,
    version: Arc<Version>,
    /// Effects of the log that the manifest has still to record, in order.
    obligations: Vec<Pending>,
    /// In order of their first sequence, but for merged ones.
    runs: Vec<Arc<Run>>,
    /// Greatest sequence ever applied or known to be flushed.
    last_sequence: Sequence,
    /// A flush is writing the rows up to this sequence: those runs are left as they are.
    frozen: Option<u64>,
    /// When the oldest of the runs came, milliseconds since the Unix epoch.
    unflushed_since_ms: Option<u64>,
    /// Files that a compaction of this replica has in hand.
    compacting: BTreeSet<FileRef>,
}

impl Region {
    /// A region that is loading; no I/O. `base`: the first sequence that its log gives out is at
    /// or above it. `flushed`: rows at or below it are known to lie in files.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] when schema and options do not fit each other.
    pub fn new(
        env: RegionEnv,
        spec: RegionSpec,
        base: Sequence,
        flushed: Sequence,
    ) -> Result<Arc<Self>, EngineError> {
        let shape = Arc::new(TableShape::new(spec.schema.clone(), spec.options.clone())?);
        let dir = RegionDir {
            table_id: spec.table_id,
            region_id: spec.region_id,
            incarnation: spec.incarnation,
        };
        let usage = env.memory.usage();
        let manifest = ManifestContext::new(env.clone(), dir);
        let hooks = RegionHooks::new(&env.plugins, dir);
        let announcer = Arc::new(Announcer::new(hooks.clone()));
        let contents = Contents {
            phase: Phase::Loading,
            shape,
            obligations: Vec::new(),
            version: Arc::new(Version::unread(flushed)),
            runs: Vec::new(),
            last_sequence: flushed.max(Sequence(base.get().saturating_sub(1))),
            frozen: None,
            unflushed_since_ms: None,
            compacting: BTreeSet::new(),
        };
        Ok(Arc::new(Self {
            env,
            spec,
            dir,
            base,
            manifest,
            hooks,
            announcer,
            flushing: tokio::sync::Mutex::new(()),
            merging: tokio::sync::Mutex::new(()),
            contents: Mutex::new(contents),
            usage,
        }))
    }

    /// What the region was when it was taken up; its schema may have changed since.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// Its id.
    pub fn id(&self) -> RegionId {
        self.spec.region_id
    }

    /// Greatest sequence that was applied, or is known to be flushed; below the base before the
    /// first write.
    pub fn last_sequence(&self) -> Sequence {
        self.contents.lock().last_sequence
    }

    /// Every row at or below this lies in a file of the version that reads use.
    pub fn flushed_sequence(&self) -> Sequence {
        self.contents.lock().version.flushed
    }

    /// Puts the region down: drops its runs and gives their memory back. What is in the store
    /// stays. Reads that have begun go on.
    pub fn close(&self) {
        let mut contents = self.contents.lock();
        let phase = contents.phase.closed();
        self.enter(&mut contents, phase);
        contents.runs.clear();
        self.account(&contents);
        drop(contents);
        self.announcer.deliver_in_background();
    }

    fn shape(&self) -> Arc<TableShape> {
        self.contents.lock().shape.clone()
    }

    fn account(&self, contents: &Contents) {
        self.usage.set(contents.runs.iter().map(|run| run.bytes() as u64).sum());
    }
}

#[cfg(test)]
mod tests;
