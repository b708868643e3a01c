//! Compaction: merges files of a region into fewer, and leaves out what no read can see.
//!
//! Words: a **choice** says which files (pure, [`pick`]); a **job** ([`CompactionJob`]) is a plain
//! value that says all there is to know: inputs with their clips, what may lie beneath them, `since`,
//! schema, options of the outputs. It can be run wherever the store can be reached, and more than
//! once. A **sub-job** is the part of a job within a key range. **Progress** is what an attempt at a
//! job has done so far.
//!
//! The life of a job: the owner chooses and plans ([`plan`](mod@plan)); the [`Compactor`] cuts it into
//! sub-jobs ([`cut`](mod@cut)), which run in parallel ([`sub_job`]); then [`commit`](mod@commit) swaps
//! inputs for outputs in one delta authored by the job, if all inputs are still live. Until then its
//! outputs are objects that no manifest names, so a job that fails or is cancelled leaves nothing
//! but garbage.

pub(crate) mod chain;
pub(crate) mod commit;
pub(crate) mod compactor;
pub(crate) mod cut;
pub(crate) mod job;
pub(crate) mod options;
pub(crate) mod pick;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod runs;
pub(crate) mod sub_job;

pub use self::compactor::Compactor;
pub use self::job::{CompactionJob, OlderRows, OutputOptions};
pub use self::options::{CompactionOptions, Strategy};
pub use self::pick::Why;
pub use self::plan::Scope;
pub use self::progress::{Attempt, Progress, ProgressSnapshot};
