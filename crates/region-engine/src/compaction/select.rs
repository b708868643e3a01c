//! Which files of a region to merge, from its state: pure.

use std::collections::BTreeSet;

use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::{TableOptions, TableSchema, WriteMode};

use super::options::{CompactionOptions, Strategy};
use super::pick::{Choice, PickFile, PickRules, Why, pick, suggest_window, whole};
use super::plan::MOST_INPUTS;
use crate::expiry::{Expiry, to_ms};
use crate::file_meta::{FileMeta, FileRef};
use crate::manifest::ManifestState;

/// Which merges are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What the picker finds worth it.
    Due,
    /// All files into one run; of more than a job may name, the smallest.
    Whole,
}

/// What a choice depends on beside the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Circumstances<'a> {
    pub(crate) schema: &'a TableSchema,
    pub(crate) table: &'a TableOptions,
    pub(crate) options: &'a CompactionOptions,
    pub(crate) target_file_bytes: usize,
    /// Versions at or below it are merged away but for the newest.
    pub(crate) since: Epoch,
    pub(crate) now_ms: u64,
    /// Files that a job has already.
    pub(crate) busy: &'a BTreeSet<FileRef>,
    /// Least sequence of an obligation that is pending.
    pub(crate) obligation: Option<Sequence>,
}

/// What a job shall merge.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Selection {
    pub(crate) inputs: Vec<FileMeta>,
    pub(crate) level: u32,
    pub(crate) window_ms: Option<u64>,
    pub(crate) why: Why,
}

/// Files below this part of the target size are small.
pub(crate) const SMALL_PART: usize = 8;

/// What to merge now, the most useful first; no file is in two of them.
pub(crate) fn select(
    state: &ManifestState,
    scope: Scope,
    with: Circumstances<'_>,
) -> Vec<Selection> {
    let files: Vec<&FileMeta> = state.files().collect();
    let expiry = Expiry::new(with.schema, with.table, with.now_ms);
    let seen: Vec<PickFile<&[u8]>> =
        files.iter().map(|file| seen(file, expiry.as_ref(), with)).collect();
    let rules = rules(state, &seen, expiry.as_ref(), with);
    let choices = match scope {
        Scope::Due => pick(&seen, &rules, with.now_ms),
        Scope::Whole => whole(&seen, &rules).into_iter().collect(),
    };
    choices
        .into_iter()
        .map(|choice| {
            let Choice { files: chosen, level, why } = within_a_job(choice, &seen);
            let inputs = chosen.iter().map(|index| files[*index].clone()).collect();
            Selection { inputs, level, window_ms: rules.window_ms, why }
        })
        .collect()
}

/// As many files as a job may have; the others are chosen next. Where only their number counts it is the
/// smallest, otherwise those with the first keys: what is left does not lie between them.
fn within_a_job<K: Ord>(choice: Choice, files: &[PickFile<K>]) -> Choice {
    let Choice { files: mut chosen, level, why } = choice;
    if chosen.len() > MOST_INPUTS {
        match why {
            Why::Expired | Why::Asked => chosen.sort_by_key(|index| (files[*index].bytes, *index)),
            Why::Tier | Why::Small | Why::Window => {
                chosen.sort_by(|a, b| files[*a].low.cmp(&files[*b].low).then(a.cmp(b)));
            }
        }
        chosen.truncate(MOST_INPUTS);
        chosen.sort_unstable();
    }
    let highest = chosen.iter().map(|index| files[*index].level).max().unwrap_or(0);
    Choice { level: level.min(highest.saturating_add(1)), files: chosen, why }
}

fn seen<'a>(
    file: &'a FileMeta,
    expiry: Option<&Expiry>,
    with: Circumstances<'_>,
) -> PickFile<&'a [u8]> {
    let time_type = with.schema.time_column().and_then(|id| with.schema.column(id));
    let time_ms = time_type.zip(file.time).map(|(column, time)| to_ms(&column.data_type, time));
    // What a clip hides entirely counts as its first key.
    let start = file.clip.start.as_slice();
    let (low, high) = file.shown_keys().unwrap_or((start, start));
    let upsert = with.table.write_mode == WriteMode::Upsert;
    let old_versions = upsert && (file.deletes > 0 || !file.one_version_per_key);
    let expires =
        expiry.is_some_and(|expiry| time_ms.is_some_and(|(min, _)| min < expiry.before_ms));
    let clipped = !(file.clip.contains(&file.min_key) && file.clip.contains(&file.max_key));
    PickFile {
        low,
        high,
        level: file.level,
        bytes: file.size,
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
    with: Circumstances<'_>,
) -> PickRules {
    // In an upsert table all versions of a key must fall into one window: so its time is in the key.
    let windows = with.options.strategy == Strategy::Auto
        && with.schema.time_column().is_some_and(|column| {
            with.table.write_mode == WriteMode::AppendOnly
                || with.schema.primary_key().contains(&column)
        });
    let window_ms = match windows {
        true => state.window_ms.or_else(|| suggest_window(files)),
        false => None,
    };
    PickRules {
        fan_in: with.options.fan_in.max(2),
        most_runs: with.options.most_runs.max(2),
        most_job_bytes: with.options.most_job_bytes,
        small_bytes: (with.target_file_bytes / SMALL_PART) as u64,
        window_ms,
        expire_before_ms: expiry.filter(|expiry| expiry.drops_whole_files()).map(|e| e.before_ms),
        obligation: with.obligation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_gets_no_more_files_than_it_may_name() {
        let file = |index: usize| PickFile {
            low: index,
            high: index,
            level: u32::from(index == 0),
            bytes: 10_000 - index as u64,
            time_ms: None,
            created_ms: 0,
            max_sequence: Sequence(1),
            garbage: false,
            busy: false,
        };
        let files: Vec<PickFile<usize>> = (0..MOST_INPUTS + 2).map(file).collect();
        let of = |files: Vec<usize>| Choice { files, level: 2, why: Why::Asked };
        let few = of(vec![0, 5]);
        assert_eq!(within_a_job(few.clone(), &files), few);
        // The largest wait, and the level is that of what is left.
        let all = within_a_job(of((0..files.len()).collect()), &files);
        let expected = Choice { level: 1, ..of((2..files.len()).collect()) };
        assert_eq!(all, expected);
        // Nothing lies between those with the first keys.
        let small = Choice { why: Why::Small, ..of((0..files.len()).rev().collect()) };
        let expected = Choice { files: (0..MOST_INPUTS).collect(), ..small.clone() };
        assert_eq!(within_a_job(small, &files), expected);
    }
}
