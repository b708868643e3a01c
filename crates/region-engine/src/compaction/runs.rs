//! Sorted runs of files: pure, over any key and any range with both ends inclusive.
//!
//! A **run** is a list of files in key order without overlap. A read opens at most one file of a
//! run at a time; the number of runs is the cost of a read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A range of keys, both ends inclusive.
pub(crate) trait Ranged {
    /// Type of the keys.
    type Key: Ord;
    /// The first key.
    fn low(&self) -> &Self::Key;
    /// The last key.
    fn high(&self) -> &Self::Key;
}

/// Puts files into the minimum number of sorted runs: the maximum number of files that overlap in
/// one key. Each file joins the run with the lowest end, so equal inputs give equal runs.
pub(crate) fn sorted_runs<F: Ranged>(files: &[F], members: &[usize]) -> Vec<Vec<usize>> {
    let mut order = members.to_vec();
    order.sort_by(|a, b| files[*a].low().cmp(files[*b].low()).then(a.cmp(b)));
    let mut runs: Vec<Vec<usize>> = Vec::new();
    // The ends of all runs, lowest first.
    let mut ends: BinaryHeap<Reverse<(&F::Key, usize)>> = BinaryHeap::new();
    for index in order {
        let file = &files[index];
        let free = ends.peek().filter(|Reverse((end, _))| *end < file.low());
        let run = match free {
            Some(Reverse((_, run))) => {
                let run = *run;
                ends.pop();
                runs[run].push(index);
                run
            }
            None => {
                runs.push(vec![index]);
                runs.len() - 1
            }
        };
        ends.push(Reverse((file.high(), run)));
    }
    runs
}

/// Returns groups of files that overlap, directly or through others, in key order.
pub(crate) fn overlapping<F: Ranged>(files: &[F], members: &[usize]) -> Vec<Vec<usize>> {
    let mut order = members.to_vec();
    order.sort_by(|a, b| files[*a].low().cmp(files[*b].low()).then(a.cmp(b)));
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut reach: Option<&F::Key> = None;
    for index in order {
        let file = &files[index];
        match (groups.last_mut(), reach) {
            (Some(group), Some(end)) if file.low() <= end => {
                group.push(index);
                reach = Some(end.max(file.high()));
            }
            _ => {
                groups.push(vec![index]);
                reach = Some(file.high());
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Span(u32, u32);

    impl Ranged for Span {
        type Key = u32;
        fn low(&self) -> &u32 {
            &self.0
        }
        fn high(&self) -> &u32 {
            &self.1
        }
    }

    fn check(spans: &[(u32, u32)], runs: &[&[usize]], groups: &[&[usize]]) {
        let files: Vec<Span> = spans.iter().map(|(low, high)| Span(*low, *high)).collect();
        let all: Vec<usize> = (0..files.len()).collect();
        assert_eq!(sorted_runs(&files, &all), runs, "{spans:?}");
        assert_eq!(overlapping(&files, &all), groups, "{spans:?}");
    }

    #[test]
    fn run_count_is_the_maximum_overlap() {
        check(&[], &[], &[]);
        // 0: --
        // 1:    --
        check(&[(1, 2), (4, 5)], &[&[0, 1]], &[&[0], &[1]]);
        // Both ends are inclusive: they share key 3.
        // 0: --
        // 1:  --
        check(&[(1, 3), (3, 5)], &[&[0], &[1]], &[&[0, 1]]);
        // 0:    ---
        // 1: ----
        // 2:       ---
        check(&[(4, 6), (1, 4), (7, 9)], &[&[1, 2], &[0]], &[&[1, 0], &[2]]);
        // 0: ----------
        // 1:  --
        // 2:     --
        // 3:        --
        check(&[(1, 10), (2, 3), (5, 6), (8, 9)], &[&[0], &[1, 2, 3]], &[&[0, 1, 2, 3]]);
        // 0: --
        // 1: --
        // 2: --
        // 3:    --
        check(&[(1, 2), (1, 2), (1, 2), (4, 5)], &[&[0, 3], &[1], &[2]], &[&[0, 1, 2], &[3]]);
    }
}
