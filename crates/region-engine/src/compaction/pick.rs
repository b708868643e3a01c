//! Choice of the files to compact: pure, from the files, the rules and the time.
//!
//! **Tiers.** A flush writes level 0. When `fan_in` files of one level overlap in some key, all
//! files of that level that overlap them, directly or through others, become one sorted run of the
//! next level. Thus a row is rewritten at most once per level, and a file of level n represents at
//! least `fan_in` to the power of n flushes: write amplification is logarithmic in the number of
//! flushes, and a read opens fewer than `fan_in` runs per level. Consecutive small files without
//! overlap, as with increasing keys, are compacted by the same rule: `fan_in` of them make one of
//! the next level.
//!
//! **Time windows**, for tables with a time column: see [`windows`].
//!
//! Files whose rows have all expired are removed without being read.

mod tiered;
mod windows;

use tidewater_common::ids::Sequence;

pub(crate) use self::windows::{LENGTHS as WINDOWS_MS, suggest as suggest_window};
use super::estimate::sub_job_bytes;
use super::runs::{Ranged, sorted_runs};

/// The picker's view of a file; generic over the key, so that a file in a test is a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickFile<K> {
    /// First key that the file shows.
    pub(crate) low: K,
    /// Last key that the file shows.
    pub(crate) high: K,
    /// Level; 0: from a flush.
    pub(crate) level: u32,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// Bytes of memory while it is merged.
    pub(crate) open_bytes: u64,
    /// Least and greatest time of a row, in milliseconds; `None` without a time column.
    pub(crate) time_ms: Option<(i64, i64)>,
    /// Creation time, milliseconds since the Unix epoch.
    pub(crate) created_ms: u64,
    /// Greatest sequence of a row.
    pub(crate) max_sequence: Sequence,
    /// A compaction of the whole region would remove something from it: deletes, old versions,
    /// expired rows.
    pub(crate) garbage: bool,
    /// A job already has this file.
    pub(crate) busy: bool,
}

impl<K: Ord> Ranged for PickFile<K> {
    type Key = K;
    fn low(&self) -> &K {
        &self.low
    }
    fn high(&self) -> &K {
        &self.high
    }
}

/// Rules of the picker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PickRules {
    /// Runs of a level that are compacted into one; at least 2.
    pub(crate) fan_in: usize,
    /// Maximum runs of one job: the merge holds a row group of each.
    pub(crate) max_runs: usize,
    /// Maximum files of one job.
    pub(crate) max_files: usize,
    /// Maximum bytes of a job's inputs: runs that are larger together stay separate.
    pub(crate) max_job_bytes: u64,
    /// Bytes of memory of one job. Two runs are chosen in any case: whether a node accepts them is
    /// decided by its admission.
    pub(crate) memory_bytes: u64,
    /// Files below this size are small.
    pub(crate) small_bytes: u64,
    /// `Some`: by time windows of this length in milliseconds.
    pub(crate) window_ms: Option<u64>,
    /// `Some`: files whose rows are all older than this time may be removed as a whole.
    pub(crate) expire_before_ms: Option<i64>,
    /// Least sequence of a pending obligation: no compaction crosses it.
    pub(crate) obligation: Option<Sequence>,
}

/// Reasons for which files are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionReason {
    /// A level holds too many runs.
    Tier,
    /// Small files are consecutive.
    Small,
    /// A closed time window holds several runs.
    Window,
    /// All rows have expired.
    Expired,
    /// A request asks for one run.
    Asked,
}

impl CompactionReason {
    const ALL: [Self; 5] = [Self::Tier, Self::Small, Self::Window, Self::Expired, Self::Asked];

    /// Returns the name for operators and for the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tier => "tier",
            Self::Small => "small",
            Self::Window => "window",
            Self::Expired => "expired",
            Self::Asked => "asked",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|why| why.as_str() == name)
    }
}

/// Files to compact into one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompactionCandidate {
    /// Positions among the given files, ascending.
    pub(crate) files: Vec<usize>,
    /// Level of the outputs.
    pub(crate) level: u32,
    /// Reason of the choice.
    pub(crate) why: CompactionReason,
}

/// Returns the candidates, the most useful first; they share no file.
pub(crate) fn pick<K: Ord>(
    files: &[PickFile<K>],
    rules: &PickRules,
    now_ms: u64,
) -> Vec<CompactionCandidate> {
    let free = free(files, rules);
    let (expired, rest): (Vec<usize>, Vec<usize>) =
        free.into_iter().partition(|index| expired(&files[*index], rules));
    let mut candidates = Vec::new();
    if !expired.is_empty() {
        candidates.push(CompactionCandidate {
            files: expired,
            level: 0,
            why: CompactionReason::Expired,
        });
    }
    candidates.extend(match rules.window_ms {
        Some(window_ms) => windows::windows(files, &rest, rules, window_ms.max(1), now_ms),
        None => tiered::tiered(files, &rest, rules),
    });
    candidates
}

/// One pass of a compaction of all files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WholePass {
    /// Files of the pass.
    pub(crate) candidate: CompactionCandidate,
    /// Runs after the pass, its output included.
    pub(crate) runs_left: usize,
    /// Greatest sequence of a row in the files of all passes.
    pub(crate) through: Sequence,
}

/// Returns a pass over all files with rows up to the sequence `through`, or over the smallest of their
/// runs that fit into one job; `None` when the files are already one run without removable rows.
///
/// To merge the smallest runs first copies the least bytes. The first pass is shorter, so that all later
/// ones are full (Huffman, 1952, for trees with more than two branches).
pub(crate) fn whole<K: Ord>(
    files: &[PickFile<K>],
    rules: &PickRules,
    through: Sequence,
) -> Option<WholePass> {
    let mut free = free(files, rules);
    free.retain(|index| files[*index].max_sequence <= through);
    let mut runs = sorted_runs(files, &free);
    let small = |index: &usize| files[*index].bytes < rules.small_bytes;
    let scattered = runs.iter().any(|run| run.windows(2).any(|pair| pair.iter().all(small)));
    let garbage = free.iter().any(|index| files[*index].garbage);
    if runs.len() < 2 && !scattered && !garbage {
        return None;
    }
    runs.sort_by_key(|run| (bytes(files, run), run.first().copied()));
    let through = free.iter().map(|index| files[*index].max_sequence).max().unwrap_or_default();
    let total = runs.len();
    runs.truncate(pass_runs(total, fitting_runs(files, &runs, rules)));
    let runs_left = total - runs.len() + 1;
    let mut chosen = runs.concat();
    chosen.sort_unstable();
    let level = chosen.iter().map(|index| files[*index].level).max().unwrap_or(0).max(1);
    let candidate = CompactionCandidate { files: chosen, level, why: CompactionReason::Asked };
    Some(WholePass { candidate, runs_left, through })
}

/// Returns the runs of a pass over `total` runs when a job may have `most`, at least two: as many as
/// make all later passes full.
fn pass_runs(total: usize, most: usize) -> usize {
    let most = most.max(2);
    match total.saturating_sub(1) % (most - 1) {
        _ if total <= most => total,
        0 => most,
        rest => rest + 1,
    }
}

/// Returns how many of the runs, from the first, one job may have: by their number, by the number of
/// their files, and by memory. At least two.
fn fitting_runs<K: Ord>(files: &[PickFile<K>], runs: &[Vec<usize>], rules: &PickRules) -> usize {
    let mut chosen: Vec<usize> = Vec::new();
    let fits = |run: &&Vec<usize>| {
        chosen.extend(run.iter());
        let memory = sub_job_bytes(files, &chosen, |index| files[index].open_bytes);
        chosen.len() <= rules.max_files && memory <= rules.memory_bytes
    };
    runs.iter().take(rules.max_runs).take_while(fits).count().max(2)
}

/// Returns the files that no job has and that are before all pending obligations.
fn free<K>(files: &[PickFile<K>], rules: &PickRules) -> Vec<usize> {
    (0..files.len())
        .filter(|index| {
            let file = &files[*index];
            let held = rules.obligation.is_some_and(|least| file.max_sequence >= least);
            !file.busy && !held
        })
        .collect()
}

fn expired<K>(file: &PickFile<K>, rules: &PickRules) -> bool {
    matches!((file.time_ms, rules.expire_before_ms), (Some((_, max)), Some(cutoff)) if max < cutoff)
}

fn bytes<K>(files: &[PickFile<K>], members: &[usize]) -> u64 {
    members.iter().map(|index| files[*index].bytes).fold(0, u64::saturating_add)
}

/// Returns the smallest runs that fit into one job; empty when fewer than `least` have its size. With
/// little memory it may be fewer: they would otherwise never be compacted.
fn bounded<K: Ord>(
    files: &[PickFile<K>],
    mut runs: Vec<Vec<usize>>,
    least: usize,
    rules: &PickRules,
) -> Vec<usize> {
    runs.sort_by_key(|run| (bytes(files, run), run.first().copied()));
    let mut left = rules.max_job_bytes;
    let mut count = 0;
    for run in runs.iter().take(rules.max_runs.max(least)) {
        let Some(rest) = left.checked_sub(bytes(files, run)) else { break };
        left = rest;
        count += 1;
    }
    if count < least {
        return Vec::new();
    }
    runs.truncate(count);
    runs.truncate(fitting_runs(files, &runs, rules));
    let mut chosen = runs.concat();
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests;
