//! Candidates by time window: a file belongs to the window of its newest row.
//!
//! Outputs are cut by key, not at the ends of windows: the rows of a time are spread over the keys. A flush may thus bring
//! rows of the window before into a window, or late rows of older ones. They stay there, so that a window is not
//! rewritten for rows in files of others, and its files expire as a whole: at most the length of a window, and the
//! time of a flush, later than their oldest rows. Reads hide expired rows until then.
//!
//! The newest window, and those that have not ended, are tiered: rows still arrive. A **closed**
//! window becomes one run, but not for every late row: only when late rows weigh a `fan_in`-th of
//! the largest run, or when no file was added for the length of a window. So a late byte costs at
//! most `fan_in` bytes of rewriting, or one rewrite per window length.

use std::collections::BTreeMap;

use super::tiered::{small_neighbours, tiered};
use super::{CompactionCandidate, CompactionReason, PickFile, PickRules, bounded, bytes};
use crate::compaction::runs::{overlapping, sorted_runs};

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

/// Supported lengths of windows, in milliseconds.
pub(crate) const LENGTHS: [u64; 7] = [HOUR, 2 * HOUR, 12 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY];

/// Returns the shortest length that a typical flush fits into, in milliseconds; `None` without
/// times.
pub(crate) fn suggest<K>(files: &[PickFile<K>]) -> Option<u64> {
    let spans = |flushed: bool| {
        let mut spans: Vec<u64> = files
            .iter()
            .filter(|file| !flushed || file.level == 0)
            .filter_map(|file| file.time_ms.map(|(min, max)| max.abs_diff(min)))
            .collect();
        spans.sort_unstable();
        spans.get(spans.len() / 2).copied()
    };
    let span = spans(true).or_else(|| spans(false))?;
    Some(LENGTHS.into_iter().find(|length| *length > span).unwrap_or(LENGTHS[LENGTHS.len() - 1]))
}

/// Returns the candidates of all windows, newest window first.
pub(super) fn windows<K: Ord>(
    files: &[PickFile<K>],
    members: &[usize],
    rules: &PickRules,
    window_ms: u64,
    now_ms: u64,
) -> Vec<CompactionCandidate> {
    let length = i64::try_from(window_ms).unwrap_or(i64::MAX);
    let now = i64::try_from(now_ms).unwrap_or(i64::MAX);
    // Files without a time share one window, which never closes.
    let mut by_window: BTreeMap<Option<i64>, Vec<usize>> = BTreeMap::new();
    for index in members {
        let window = files[*index].time_ms.map(|(_, max)| max.div_euclid(length));
        by_window.entry(window).or_default().push(*index);
    }
    let newest = by_window.keys().last().copied().flatten();
    let mut candidates = Vec::new();
    // Newest first: recent windows are read most.
    for (window, members) in by_window.into_iter().rev() {
        let ended = |window: i64| window.saturating_add(1).saturating_mul(length) <= now;
        let closed = window.is_some_and(|window| Some(window) != newest && ended(window));
        candidates.extend(if closed {
            closed_window(files, &members, rules, window_ms, now_ms)
        } else {
            tiered(files, &members, rules)
        });
    }
    candidates
}

fn closed_window<K: Ord>(
    files: &[PickFile<K>],
    members: &[usize],
    rules: &PickRules,
    window_ms: u64,
    now_ms: u64,
) -> Vec<CompactionCandidate> {
    let newest = members.iter().map(|index| files[*index].created_ms).max().unwrap_or(0);
    let quiet = now_ms.saturating_sub(newest) >= window_ms;
    let level = |chosen: &[usize]| {
        let highest = chosen.iter().map(|index| files[*index].level).max().unwrap_or(0);
        highest.saturating_add(1)
    };
    let mut candidates = Vec::new();
    let mut alone = Vec::new();
    for group in overlapping(files, members) {
        let runs = sorted_runs(files, &group);
        if runs.len() < 2 {
            alone.extend(group);
            continue;
        }
        let largest = runs.iter().map(|run| bytes(files, run)).max().unwrap_or(0);
        let late = bytes(files, &group) - largest;
        let worthwhile = late.saturating_mul(rules.fan_in as u64) >= largest;
        if !quiet && !worthwhile {
            candidates.extend(tiered(files, &group, rules));
            continue;
        }
        let chosen = bounded(files, runs, 2, rules);
        if !chosen.is_empty() {
            candidates.push(CompactionCandidate {
                level: level(&chosen),
                files: chosen,
                why: CompactionReason::Window,
            });
        }
    }
    let least = if quiet { 2 } else { rules.fan_in };
    for chosen in small_neighbours(files, members, &alone, least, rules) {
        candidates.push(CompactionCandidate {
            level: level(&chosen),
            files: chosen,
            why: CompactionReason::Small,
        });
    }
    candidates
}

#[cfg(test)]
mod tests;
