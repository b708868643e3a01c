//! Selects the runs to merge next, by size (pure).
//!
//! Runs of a similar number of rows form a level. The runs of a level are 16 times as large as
//! those of the level below. When a level has [`FAN_IN`] runs, they become one run of the next
//! level. A row is thus copied once per factor 16 that its memtable grows, and a read never merges
//! more than `FAN_IN - 1` runs per level, plus those that are being merged.

/// Number of runs of a level that are merged into one.
pub(crate) const FAN_IN: usize = 16;

/// Maximum number of runs of one merge, when many small ones have accumulated.
const MAX_RUNS: usize = 256;

/// Runs with fewer rows share the lowest level.
const LOWEST_LEVEL_ROWS: usize = 64;

fn level(rows: usize) -> u32 {
    let mut level = 0;
    let mut bound = LOWEST_LEVEL_ROWS;
    while rows >= bound {
        level += 1;
        bound = bound.saturating_mul(FAN_IN);
    }
    level
}

/// Returns the positions of the runs to merge, oldest first; empty when no level is full. `rows`
/// holds the number of rows of each run.
///
/// The lowest full level is first: its runs cost reads the most and copying the least.
pub(crate) fn pick(rows: &[usize]) -> Vec<usize> {
    let mut levels: Vec<Vec<usize>> = Vec::new();
    for (index, rows) in rows.iter().enumerate() {
        let level = level(*rows) as usize;
        if levels.len() <= level {
            levels.resize(level + 1, Vec::new());
        }
        levels[level].push(index);
    }
    levels
        .into_iter()
        .find(|runs| runs.len() >= FAN_IN)
        .map(|mut runs| {
            runs.truncate(MAX_RUNS);
            runs
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_full_level_is_merged_first() {
        assert_eq!(pick(&[]), Vec::<usize>::new());
        assert_eq!(pick(&[1; 15]), Vec::<usize>::new());
        assert_eq!(pick(&[1; 16]), (0..16).collect::<Vec<_>>());
        // Runs of another level in between are not merged.
        let mut mixed = vec![8_192; 8];
        mixed.extend([1; 8]);
        assert_eq!(pick(&mixed), Vec::<usize>::new());
        mixed.extend([8_192; 8]);
        assert_eq!(pick(&mixed), (0..8).chain(16..24).collect::<Vec<_>>());
        let mut both = vec![8_192; 16];
        both.extend([1; 16]);
        assert_eq!(pick(&both), (16..32).collect::<Vec<_>>());
    }

    #[test]
    fn level_merges_bound_copies_and_number_of_runs() {
        let mut runs: Vec<usize> = Vec::new();
        let mut copied = 0;
        let mut most = 0;
        let total = 1_000_000;
        for _ in 0..total {
            runs.push(1);
            most = most.max(runs.len());
            loop {
                let picked = pick(&runs);
                if picked.is_empty() {
                    break;
                }
                let merged: usize = picked.iter().map(|index| runs[*index]).sum();
                copied += merged;
                let mut index = 0;
                runs.retain(|_| {
                    index += 1;
                    !picked.contains(&(index - 1))
                });
                runs.push(merged);
            }
        }
        assert!(copied <= 6 * total, "{copied}");
        assert!(most <= 6 * FAN_IN, "{most}");
    }
}
