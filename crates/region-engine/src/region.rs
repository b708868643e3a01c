//! One replica of a region: its memtable, its files and its role.
//!
//! - *Phase*: state of the replica, see [`Phase`]. [`Region::new`] does no I/O and starts in
//!   `Loading`: the region accepts writes, but serves no reads until [`Region::load`] has read the
//!   manifest.
//! - *Owner*: the replica whose fence is in the manifest. Every replica applies the log; only the
//!   owner flushes.
//! - *Run*: sorted rows in memory, from a write (or a merge of runs) until a flush has written all of
//!   them to files.
//! - *Version*: the set of files at one manifest version. A read pins the version that is current
//!   when it begins. Calling `load` again follows the manifest: a newer version is installed
//!   atomically, never an older one, and runs whose rows are all in files are dropped.
//! - *Parent*: a region with whose files another one begins: its half of them after a split, those of both
//!   parents after a merge. Until the region's own manifest exists, its version is that of its parents.
//! - *Obligation*: an effect of the log that the owner has yet to record in the manifest, see
//!   [`Obligation`].

mod alter;
mod apply;
mod birth;
mod compact;
mod copy;
mod divide;
mod epoch_changes;
mod first_delta;
mod flush;
mod get;
mod index;
mod kept_versions;
mod lifecycle;
mod load;
mod obligation;
mod phase;
mod planned;
mod publication;
mod read;
mod remap;
mod remove;
mod staged_changes;
mod staging_area;
mod stats;

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, Incarnation, RegionId, Sequence, TableId};
use tidewater_common::keys::KeyRange;
use tidewater_common::schema::{TableOptions, TableSchema};

pub use self::birth::{Parent, ParentProblem};
pub use self::compact::CompactionDue;
pub use self::divide::{DivideError, SealedParent};
pub use self::epoch_changes::{EpochChangeOptions, EpochChanges};
use self::first_delta::Beginning;
pub use self::flush::FlushReport;
pub use self::get::{MAX_GET_KEYS, PointReadOptions, PointRows};
pub use self::index::IndexReport;
use self::lifecycle::LifecycleNotifier;
pub use self::obligation::{Cause, Obligation, PendingObligation, Publication, PublicationContent};
pub use self::phase::Phase;
pub use self::planned::{CompactionOutcome, CompactionReport, PlannedCompaction};
pub use self::staged_changes::{
    ChangeChunk, ChangeCounts, ChangeError, ChangeOptions, ChangeStream,
};
pub use self::staging_area::{StagedFiles, StagingAreaStatus};
pub use self::stats::RegionStats;
use crate::EngineError;
use crate::env::RegionEnv;
use crate::file_meta::FileRef;
use crate::hooks::RegionHooks;
use crate::layout::RegionDir;
use crate::manifest::{ManifestContext, ManifestState};
use crate::memtable::HeldRun;
use crate::read::shape::TableShape;
use crate::version::Version;

/// Identity, schema and key range of a region, as the host's log defines them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpec {
    /// Id of the region; also the id of its route.
    pub region_id: RegionId,
    /// Id of the table that contains the region.
    pub table_id: TableId,
    /// Incarnation of the cluster in which the region was created.
    pub incarnation: Incarnation,
    /// Columns and keys at the time when the region is opened.
    pub schema: TableSchema,
    /// Write mode, distribution, time to live.
    pub options: TableOptions,
    /// Row keys that belong to the region.
    pub range: KeyRange,
    /// Regions with whose files the region begins; empty for a region that begins empty.
    pub parents: Vec<Parent>,
}

impl RegionSpec {
    /// Returns this spec with the schema, options and range of a manifest state, without parents: the
    /// manifest shows what the region begins with.
    #[must_use]
    pub(crate) fn as_of(&self, state: &ManifestState) -> Self {
        let mut spec = Self { parents: Vec::new(), ..self.clone() };
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

/// One replica of a region.
#[derive(Debug)]
pub struct Region {
    env: RegionEnv,
    spec: RegionSpec,
    dir: RegionDir,
    /// Lower bound of the sequences that the log assigns.
    base: Sequence,
    manifest: ManifestContext,
    hooks: RegionHooks,
    notifier: Arc<LifecycleNotifier>,
    /// Held during a whole flush: flushes of a region commit in order.
    flushing: tokio::sync::Mutex<()>,
    /// Held while runs are merged, and while a flush chooses its runs.
    merging: tokio::sync::Mutex<()>,
    contents: Mutex<Contents>,
    /// The parents' files, until the region is born, if this replica has read the seals.
    beginning: Mutex<Option<Beginning>>,
}

/// Mutable state of a region. Its lock is held briefly and never across an await.
#[derive(Debug)]
struct Contents {
    phase: Phase,
    /// Schema and options, as of the last applied log entry.
    shape: Arc<TableShape>,
    version: Arc<Version>,
    /// Effects of the log that are not recorded in the manifest yet, in log order.
    obligations: Vec<PendingObligation>,
    /// In order of their first sequence, except for merged runs and those of merged regions.
    runs: Vec<HeldRun>,
    /// Greatest sequence that was ever applied or is known to be flushed.
    last_sequence: Sequence,
    /// Greatest sequence that a flush in progress writes: runs up to it are not merged.
    frozen: Option<u64>,
    /// Arrival time of the oldest run, milliseconds since the Unix epoch.
    unflushed_since_ms: Option<u64>,
    /// Input files of compactions that this replica has planned.
    compacting: BTreeSet<FileRef>,
    /// True if the log has replaced the region by its children, which hold the runs since then.
    divided: bool,
    /// Versions that no read as of this epoch or later returns may be dropped, as the log has decided.
    since: Epoch,
}

impl Region {
    /// Creates a region in phase `Loading`, without I/O. `base`: lower bound of the sequences that
    /// the log assigns. `flushed`: rows at or below it are known to be in files.
    ///
    /// # Errors
    /// [`EngineError::BadRows`] if schema and options do not match.
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
        let manifest = ManifestContext::new(env.clone(), dir);
        let hooks = RegionHooks::new(&env, dir);
        let notifier = Arc::new(LifecycleNotifier::new(hooks.clone()));
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
            divided: false,
            since: Epoch(0),
        };
        Ok(Arc::new(Self {
            env,
            spec,
            dir,
            base,
            manifest,
            hooks,
            notifier,
            flushing: tokio::sync::Mutex::new(()),
            merging: tokio::sync::Mutex::new(()),
            contents: Mutex::new(contents),
            beginning: Mutex::default(),
        }))
    }

    /// The spec with which the region was opened; its schema may have changed since.
    pub fn spec(&self) -> &RegionSpec {
        &self.spec
    }

    /// Id of the region.
    pub fn id(&self) -> RegionId {
        self.spec.region_id
    }

    /// Greatest sequence that was applied, or is known to be flushed; below the base before the
    /// first write.
    pub fn last_sequence(&self) -> Sequence {
        self.contents.lock().last_sequence
    }

    /// Flushed sequence: every row at or below it is in a file of the version that reads use.
    pub fn flushed_sequence(&self) -> Sequence {
        self.contents.lock().version.flushed
    }

    /// Permits to drop versions that no read as of this epoch or later returns: reads below it fail from now on. Every
    /// replica calls it at the same entry of the log. An earlier epoch than before changes nothing.
    pub fn advance_since(&self, since: Epoch) {
        let mut contents = self.contents.lock();
        contents.since = contents.since.max(since);
    }

    /// Oldest epoch that can be read.
    pub fn since(&self) -> Epoch {
        self.contents.lock().readable_since()
    }

    /// Closes the region: drops its runs and releases their memory. Stored objects stay. Reads in
    /// progress continue.
    pub fn close(&self) {
        let mut contents = self.contents.lock();
        let phase = contents.phase.on_closed();
        self.set_phase(&mut contents, phase);
        contents.runs.clear();
        drop(contents);
        self.notifier.deliver_in_background();
    }

    fn shape(&self) -> Arc<TableShape> {
        self.contents.lock().shape.clone()
    }
}

impl Contents {
    /// Returns the oldest epoch that can be read: neither merges in memory nor files lack versions of it.
    fn readable_since(&self) -> Epoch {
        self.since.max(self.version.since)
    }

    /// Returns an error if the region takes no more entries of the log.
    fn check_open(&self, region: RegionId) -> Result<(), EngineError> {
        // First: callers skip writes to regions that are closed or removed, but those to a divided region
        // belong to its children.
        self.check_not_divided(region)?;
        match self.phase {
            Phase::Closed => Err(EngineError::Closed { region }),
            Phase::Removed => Err(EngineError::Removed { region }),
            _ => Ok(()),
        }
    }

    /// Returns an error if the children of the region hold its rows.
    fn check_not_divided(&self, region: RegionId) -> Result<(), EngineError> {
        if self.divided { Err(EngineError::Divided { region }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
