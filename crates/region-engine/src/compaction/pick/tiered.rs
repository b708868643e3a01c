//! Candidates by level; the rules are in [`super`].

use std::collections::{BTreeMap, BTreeSet};

use super::{CompactionCandidate, CompactionReason, PickFile, PickRules, bounded, bytes};
use crate::compaction::runs::{overlapping, sorted_runs};

/// Returns candidates by level, lower levels first: they cost reads the most and copy the least.
pub(super) fn tiered<K: Ord>(
    files: &[PickFile<K>],
    members: &[usize],
    rules: &PickRules,
) -> Vec<CompactionCandidate> {
    let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for index in members {
        levels.entry(files[*index].level).or_default().push(*index);
    }
    let mut candidates = Vec::new();
    for (level, of_level) in levels {
        let mut taken = BTreeSet::new();
        for group in overlapping(files, &of_level) {
            let runs = sorted_runs(files, &group);
            if runs.len() < rules.fan_in {
                continue;
            }
            let chosen = bounded(files, runs, rules.fan_in, rules);
            if !chosen.is_empty() {
                taken.extend(chosen.iter().copied());
                candidates.push(CompactionCandidate {
                    files: chosen,
                    level: level + 1,
                    why: CompactionReason::Tier,
                });
            }
        }
        let rest: Vec<usize> =
            of_level.into_iter().filter(|index| !taken.contains(index)).collect();
        for chosen in small_neighbours(files, members, &rest, rules.fan_in, rules) {
            candidates.push(CompactionCandidate {
                files: chosen,
                level: level + 1,
                why: CompactionReason::Small,
            });
        }
    }
    candidates
}

/// Returns sequences of at least `least` small files of `candidates` in key order. A file of
/// `members` between two of them ends a sequence: the output would overlap it, while the two files
/// do not.
pub(super) fn small_neighbours<K: Ord>(
    files: &[PickFile<K>],
    members: &[usize],
    candidates: &[usize],
    least: usize,
    rules: &PickRules,
) -> Vec<Vec<usize>> {
    let by_key = |indices: &[usize]| {
        let mut order = indices.to_vec();
        order.sort_by(|a, b| files[*a].low.cmp(&files[*b].low).then(a.cmp(b)));
        order
    };
    let all = by_key(members);
    let order = by_key(candidates);
    let between = |before: usize, after: usize| {
        let start = all.partition_point(|index| files[*index].low <= files[before].high);
        all[start..]
            .iter()
            .take_while(|index| files[**index].low < files[after].low)
            .any(|index| files[*index].high < files[after].low)
    };
    let mut sequences: Vec<Vec<usize>> = Vec::new();
    let mut last: Option<usize> = None;
    for index in order {
        let small = files[index].bytes < rules.small_bytes;
        let follows = last
            .is_some_and(|before| files[before].high < files[index].low && !between(before, index));
        match sequences.last_mut() {
            Some(sequence)
                if small
                    && follows
                    && bytes(files, sequence).saturating_add(files[index].bytes)
                        <= rules.max_job_bytes =>
            {
                sequence.push(index);
            }
            _ if small => sequences.push(vec![index]),
            _ => {}
        }
        last = small.then_some(index);
    }
    sequences.retain(|sequence| sequence.len() >= least.max(2));
    for sequence in &mut sequences {
        sequence.sort_unstable();
    }
    sequences
}
