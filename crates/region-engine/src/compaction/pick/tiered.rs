//! Levels: see the head of [`super`].

use std::collections::{BTreeMap, BTreeSet};

use super::{CompactionCandidate, CompactionReason, PickFile, PickRules, bounded, bytes};
use crate::compaction::runs::{overlapping, sorted_runs};

/// Lower levels first: they cost reads the most and copies the least.
pub(super) fn tiered<K: Ord>(
    files: &[PickFile<K>],
    members: &[usize],
    rules: &PickRules,
) -> Vec<CompactionCandidate> {
    let mut levels: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for index in members {
        levels.entry(files[*index].level).or_default().push(*index);
    }
    let mut choices = Vec::new();
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
                choices.push(CompactionCandidate {
                    files: chosen,
                    level: level + 1,
                    why: CompactionReason::Tier,
                });
            }
        }
        let rest: Vec<usize> =
            of_level.into_iter().filter(|index| !taken.contains(index)).collect();
        for chosen in small_neighbours(files, members, &rest, rules.fan_in, rules) {
            choices.push(CompactionCandidate {
                files: chosen,
                level: level + 1,
                why: CompactionReason::Small,
            });
        }
    }
    choices
}

/// Stretches of at least `least` small files of `candidates` that follow each other in key order.
/// A file of `members` that lies between two of them ends a stretch: the merged file would overlap
/// it, which the two do not.
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
    let (all, order) = (by_key(members), by_key(candidates));
    let between = |before: usize, after: usize| {
        let start = all.partition_point(|index| files[*index].low <= files[before].high);
        all[start..]
            .iter()
            .take_while(|index| files[**index].low < files[after].low)
            .any(|index| files[*index].high < files[after].low)
    };
    let mut stretches: Vec<Vec<usize>> = Vec::new();
    let mut last: Option<usize> = None;
    for index in order {
        let small = files[index].bytes < rules.small_bytes;
        let follows = last
            .is_some_and(|before| files[before].high < files[index].low && !between(before, index));
        match stretches.last_mut() {
            Some(stretch)
                if small
                    && follows
                    && bytes(files, stretch).saturating_add(files[index].bytes)
                        <= rules.max_job_bytes =>
            {
                stretch.push(index);
            }
            _ if small => stretches.push(vec![index]),
            _ => {}
        }
        last = small.then_some(index);
    }
    stretches.retain(|stretch| stretch.len() >= least.max(2));
    for stretch in &mut stretches {
        stretch.sort_unstable();
    }
    stretches
}
