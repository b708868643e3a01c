//! Compaction: merges files of a region into fewer, and leaves out what no read can see.
//!
//! Words: a **choice** says which files (pure, [`pick`]); a **plan** ([`CompactionPlan`]) is a plain
//! value that names them and says what to make of them; a **job** ([`CompactionJob`]) is a plan together
//! with what the manifest says: inputs with their clips, what may lie beneath them, schema. Either can be
//! carried out wherever the store can be reached, and more than once. A **sub-job** is the part of a job
//! within a key range. **Progress** is what an attempt at a job has done so far.
//!
//! The life of a job: the owner selects and plans ([`select`](mod@select)); whoever carries the plan out
//! resolves it ([`plan`](mod@plan)); the [`Compactor`] cuts the job into sub-jobs ([`cut`](mod@cut)), which
//! run in parallel ([`sub_job`]), tells the hooks, and [commits](mod@commit): inputs are swapped for
//! outputs in one delta authored by the job, if all inputs are still live. Until then its outputs are
//! objects that no manifest names, so a job that fails or is cancelled leaves nothing but garbage.
//!
//! A program that has nothing of the region but its place in the store opens it with
//! [`open_compaction_region`] and carries out plans like its owner.

pub(crate) mod chain;
pub(crate) mod commit;
pub(crate) mod compactor;
pub(crate) mod cut;
pub(crate) mod job;
pub(crate) mod options;
pub(crate) mod pick;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod region;
pub(crate) mod runs;
pub(crate) mod select;
pub(crate) mod sub_job;
pub(crate) mod wire;

pub use self::compactor::{CommittedCompaction, CompactionLimits, Compactor};
pub use self::job::{CompactionJob, OlderRows, OutputOptions};
pub use self::options::{CompactionOptions, CompactionStrategy};
pub use self::pick::CompactionReason;
pub use self::plan::{CompactionPlan, MAX_INPUTS, PlanError};
pub use self::progress::{Attempt, CompactionProgress, ProgressSnapshot};
pub use self::region::{
    CompactionRegion, OpenCompactionRegionRequest, OpenError, open_compaction_region,
};
pub use self::select::Scope;
pub use self::wire::{WireError, job_id};
