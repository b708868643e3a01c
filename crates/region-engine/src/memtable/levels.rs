//! Which runs to merge next: a pure choice by size.
//!
//! Runs of a similar number of rows make up a level, a level's runs are 16 times as large as those
//! of the one below. When a level holds [`FAN_IN`] runs they become one run of the next level. A
//! row is thus copied once per factor 16 that its memtable grows, and a read never merges more than
//! `FAN_IN - 1` runs per level, plus those that are being merged.

/// Runs of a level that are merged into one.
pub(crate) const FAN_IN: usize = 16;

/// Runs merged at once at most, when many small ones have piled up.
const MOST: usize = 256;

/// Runs below this number of rows share the lowest level.
const LOWEST: usize = 64;

fn level(rows: usize) -> u32 {
    let mut level = 0;
    let mut bound = LOWEST;
    while rows >= bound {
        level += 1;
        bound = bound.saturating_mul(FAN_IN);
    }
    level
}

/// Positions of the runs to merge, oldest first; empty when there is nothing to do. `rows` holds
/// the number of rows of each run.
///
/// The lowest full level is taken first: its runs cost reads the most and copies the least.
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
            runs.truncate(MOST);
            runs
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_level_is_merged_and_a_lower_one_first() {
        assert_eq!(pick(&[]), Vec::<usize>::new());
        assert_eq!(pick(&[1; 15]), Vec::<usize>::new());
        assert_eq!(pick(&[1; 16]), (0..16).collect::<Vec<_>>());
        // Runs of another level in between are left alone.
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
    fn a_million_single_rows_are_copied_a_few_times_each_and_never_pile_up() {
        let (mut runs, mut copied, mut most): (Vec<usize>, usize, usize) = (Vec::new(), 0, 0);
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
