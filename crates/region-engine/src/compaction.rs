//! Compaction: rewrites files of a region into fewer files, without the rows that no read can see.
//!
//! Terms:
//!
//! - A **candidate** is a set of files to compact ([`pick`], pure).
//! - A **plan** ([`CompactionPlan`]) is a plain value that names the input files and describes the
//!   outputs.
//! - A **job** ([`CompactionJob`]) is a plan resolved against the manifest: inputs with their
//!   clips, older rows outside of them, schema. Plans and jobs can run wherever the store is
//!   reachable, and more than once.
//! - A **sub-job** is the part of a job within a key range.
//! - **Progress** counts the work of one attempt at a job.
//!
//! Life of a job: the owner selects and plans ([`select`](mod@select)); the executing node resolves
//! the plan ([`plan`](mod@plan)); the [`Compactor`] cuts the job into sub-jobs ([`cut`](mod@cut)),
//! which run in parallel ([`sub_job`]), notifies the hooks, and [commits](mod@commit): one delta
//! authored by the job replaces the inputs by the outputs, if all inputs are still live. Until then
//! its outputs are unreferenced objects, so a job that fails or is cancelled leaves only garbage.
//!
//! All files of a region may be too many for one job: a request to compact them takes several
//! **passes** ([`CompactionPasses`]), each of which merges the smallest runs that fit into one job.
//!
//! A job starts only after its [`admission`]: slots, memory, room on the disk of a local store.
//! [`LocalSlots`] are those of a process that compacts its own regions.
//!
//! A program that knows only the region's location in the store opens it with
//! [`open_compaction_region`] and executes plans like the owner.

pub mod admission;
pub(crate) mod chain;
pub(crate) mod commit;
pub(crate) mod compactor;
pub(crate) mod cut;
pub(crate) mod estimate;
pub(crate) mod job;
pub(crate) mod options;
pub(crate) mod passes;
pub(crate) mod pick;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod region;
pub(crate) mod runs;
pub(crate) mod select;
pub(crate) mod slots;
pub(crate) mod sub_job;
pub(crate) mod wire;

pub use self::compactor::{CommittedCompaction, Compactor};
pub use self::estimate::TWO_RUNS_BYTES;
pub use self::job::{CompactionJob, OlderRows, OutputOptions};
pub use self::options::{CompactionLimits, CompactionOptions, CompactionStrategy};
pub use self::passes::CompactionPasses;
pub use self::pick::CompactionReason;
pub use self::plan::{CompactionPlan, MAX_INPUTS, PlanError};
pub use self::progress::{Attempt, CompactionProgress, ProgressSnapshot};
pub use self::region::{
    CompactionRegion, OpenCompactionRegionRequest, OpenError, open_compaction_region,
};
pub use self::select::{Remainder, Scope};
pub use self::slots::{LocalSlot, LocalSlots};
pub use self::wire::{WireError, job_id};
