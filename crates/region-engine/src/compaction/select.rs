//! Selection of the files of a region to compact, from its state (pure).

use std::collections::BTreeSet;

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema, WriteMode};

use super::estimate::open_bytes;
use super::options::{CompactionOptions, CompactionStrategy};
use super::pick::{
    CompactionCandidate, CompactionReason, PickFile, PickRules, pick, suggest_window, whole,
};
use super::plan::MAX_INPUTS;
use crate::expiry::{Expiry, to_ms};
use crate::file_meta::{FileMeta, FileRef};
use crate::manifest::ManifestState;

/// Scope of a compaction request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Files that the picker finds worthwhile.
    Due,
    /// All files into one run, in passes over the smallest runs if they do not fit into one job.
    Whole,
    /// As [`Whole`](Self::Whole), of the files whose rows are all at or before a sequence: a later pass.
    Through(Sequence),
}

/// Files that a pass over all files has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remainder {
    /// Number of sorted runs, the output of the pass included; more than 1.
    pub runs: usize,
    /// Greatest sequence of a row in these files.
    pub through: Sequence,
}

/// Inputs of the selection in addition to the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SelectionContext<'a> {
    pub(crate) schema: &'a TableSchema,
    pub(crate) table: &'a TableOptions,
    pub(crate) options: &'a CompactionOptions,
    pub(crate) target_file_bytes: usize,
    /// Bytes of memory of one job.
    pub(crate) memory_bytes: u64,
    /// Versions at or below this epoch are dropped, except the newest of each key.
    pub(crate) since: Epoch,
    pub(crate) now_ms: u64,
    /// Files that already belong to a job.
    pub(crate) busy: &'a BTreeSet<FileRef>,
    /// Least sequence of a pending obligation.
    pub(crate) obligation: Option<Sequence>,
}

/// Files and parameters of one compaction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CompactionSelection {
    pub(crate) inputs: Vec<FileMeta>,
    pub(crate) level: u32,
    pub(crate) window_ms: Option<u64>,
    pub(crate) why: CompactionReason,
    /// Files that are left to later passes.
    pub(crate) remainder: Option<Remainder>,
}

/// Files below this fraction of the target size are small.
pub(crate) const SMALL_PART: usize = 8;

/// Returns the compactions to run now, the most useful first; no two share a file.
pub(crate) fn select(
    state: &ManifestState,
    scope: Scope,
    with: SelectionContext<'_>,
) -> Vec<CompactionSelection> {
    // The commit would be refused, and children begin with these files.
    if state.is_sealed() {
        return Vec::new();
    }
    let files: Vec<&FileMeta> = state.files().collect();
    let expiry = Expiry::new(with.schema, with.table, with.now_ms, &state.expired);
    let pick_files: Vec<PickFile<&[u8]>> =
        files.iter().map(|file| pick_file(file, expiry.as_ref(), with)).collect();
    let rules = rules(state, &pick_files, expiry.as_ref(), with);
    let pass = |through| {
        let pass = whole(&pick_files, &rules, through)?;
        let remainder = Remainder { runs: pass.runs_left, through: pass.through };
        Some((pass.candidate, Some(remainder).filter(|left| left.runs > 1)))
    };
    let candidates = match scope {
        Scope::Due => {
            let due = pick(&pick_files, &rules, with.now_ms).into_iter();
            due.map(|candidate| (candidate, None)).collect()
        }
        Scope::Whole => Vec::from_iter(pass(Sequence(u64::MAX))),
        Scope::Through(through) => Vec::from_iter(pass(through)),
    };
    // The length of the table's option is not recorded: without the option, the recorded one holds again.
    let recorded_ms = rules.window_ms.filter(|_| with.table.compaction_window.is_none());
    candidates
        .into_iter()
        .map(|(candidate, remainder)| {
            let CompactionCandidate { files: chosen, level, why } =
                limit_to_one_job(candidate, &pick_files);
            let inputs = chosen.iter().map(|index| files[*index].clone()).collect();
            CompactionSelection { inputs, level, window_ms: recorded_ms, why, remainder }
        })
        .collect()
}

/// Limits a candidate to the files that a job may have; a later selection chooses the others. If
/// only the number of files matters, the smallest are kept, otherwise those with the lowest keys:
/// no dropped file is between them.
fn limit_to_one_job<K: Ord>(
    candidate: CompactionCandidate,
    files: &[PickFile<K>],
) -> CompactionCandidate {
    let CompactionCandidate { files: mut chosen, level, why } = candidate;
    if chosen.len() > MAX_INPUTS {
        match why {
            CompactionReason::Expired | CompactionReason::Asked => {
                chosen.sort_by_key(|index| (files[*index].bytes, *index))
            }
            CompactionReason::Tier | CompactionReason::Small | CompactionReason::Window => {
                chosen.sort_by(|a, b| files[*a].low.cmp(&files[*b].low).then(a.cmp(b)));
            }
        }
        chosen.truncate(MAX_INPUTS);
        chosen.sort_unstable();
    }
    let highest = chosen.iter().map(|index| files[*index].level).max().unwrap_or(0);
    CompactionCandidate { level: level.min(highest.saturating_add(1)), files: chosen, why }
}

fn pick_file<'a>(
    file: &'a FileMeta,
    expiry: Option<&Expiry>,
    with: SelectionContext<'_>,
) -> PickFile<&'a [u8]> {
    let time_type = with.schema.time_column().and_then(|id| with.schema.column(id));
    let time_ms = time_type.zip(file.time).map(|(column, time)| to_ms(&column.data_type, time));
    // A file that its clip hides entirely counts as the clip's first key.
    let start = file.clip.start.as_slice();
    let (low, high) = file.shown_keys().unwrap_or((start, start));
    let upsert = with.table.write_mode == WriteMode::Upsert;
    let old_versions = upsert && (file.deletes > 0 || !file.one_version_per_key);
    let expires = expiry
        .and_then(Expiry::ttl_before_ms)
        .zip(time_ms)
        .is_some_and(|(limit, (min, _))| min < limit);
    let clipped = !(file.clip.contains(&file.min_key) && file.clip.contains(&file.max_key));
    PickFile {
        low,
        high,
        level: file.level,
        bytes: file.size,
        open_bytes: open_bytes(file),
        time_ms,
        created_ms: file.file_id.0.get_timestamp().map_or(0, |time| {
            let (seconds, nanos) = time.to_unix();
            seconds.saturating_mul(1_000).saturating_add(u64::from(nanos) / 1_000_000)
        }),
        max_sequence: file.max_sequence(),
        garbage: (old_versions && file.min_epoch() <= with.since) || expires || clipped,
        busy: with.busy.contains(&file.reference()),
    }
}

fn rules(
    state: &ManifestState,
    files: &[PickFile<&[u8]>],
    expiry: Option<&Expiry>,
    with: SelectionContext<'_>,
) -> PickRules {
    PickRules {
        fan_in: with.options.fan_in.max(2),
        max_runs: with.options.max_runs.max(2),
        max_files: MAX_INPUTS,
        max_job_bytes: with.options.max_job_bytes,
        memory_bytes: with.memory_bytes,
        small_bytes: (with.target_file_bytes / SMALL_PART) as u64,
        window_ms: window_ms(state, files, with),
        expire_before_ms: expiry
            .filter(|expiry| expiry.drops_whole_files())
            .and_then(Expiry::ttl_before_ms),
        obligation: with.obligation,
    }
}

/// Returns the length of the windows of time: that of the table, otherwise the recorded one, otherwise one that typical
/// flushes fit into. `None`: the table is compacted by tiers.
fn window_ms(
    state: &ManifestState,
    files: &[PickFile<&[u8]>],
    with: SelectionContext<'_>,
) -> Option<u64> {
    // Versions of a key that were in several windows would never be compacted together.
    let is_windowed = with.options.strategy == CompactionStrategy::Auto
        && with.table.has_one_time_per_key(with.schema);
    if !is_windowed {
        return None;
    }
    with.table.compaction_window_ms().or(state.window_ms).or_else(|| suggest_window(files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_has_at_most_the_maximum_number_of_files() {
        let file = |index: usize| PickFile {
            low: index,
            high: index,
            level: u32::from(index == 0),
            bytes: 10_000 - index as u64,
            open_bytes: 1,
            time_ms: None,
            created_ms: 0,
            max_sequence: Sequence(1),
            garbage: false,
            busy: false,
        };
        let files: Vec<PickFile<usize>> = (0..MAX_INPUTS + 2).map(file).collect();
        let of = |files: Vec<usize>| CompactionCandidate {
            files,
            level: 2,
            why: CompactionReason::Asked,
        };
        let few = of(vec![0, 5]);
        assert_eq!(limit_to_one_job(few.clone(), &files), few);
        // The largest are dropped, and the level is that of the remaining files.
        let all = limit_to_one_job(of((0..files.len()).collect()), &files);
        let expected = CompactionCandidate { level: 1, ..of((2..files.len()).collect()) };
        assert_eq!(all, expected);
        // No dropped file is between those with the lowest keys.
        let small = CompactionCandidate {
            why: CompactionReason::Small,
            ..of((0..files.len()).rev().collect())
        };
        let expected = CompactionCandidate { files: (0..MAX_INPUTS).collect(), ..small.clone() };
        assert_eq!(limit_to_one_job(small, &files), expected);
    }
}
