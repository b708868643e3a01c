//! Cases are drawings: one line per file, with its level, its size and the keys that it covers.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

pub(super) const HOUR: u64 = 3_600_000;
const MIB: u64 = 1 << 20;
const MAX_FILES: usize = 4_096;
/// Any row.
const ALL: Sequence = Sequence(u64::MAX);

pub(super) fn rules() -> PickRules {
    PickRules {
        fan_in: 3,
        max_runs: 8,
        max_files: MAX_FILES,
        max_job_bytes: 1_000,
        memory_bytes: u64::MAX,
        small_bytes: 20,
        window_ms: None,
        expire_before_ms: None,
        obligation: None,
    }
}

pub(super) fn file(level: u32, bytes: u64, low: u32, high: u32) -> PickFile<u32> {
    PickFile {
        low,
        high,
        level,
        bytes,
        open_bytes: MIB,
        time_ms: None,
        created_ms: 0,
        max_sequence: Sequence(1),
        garbage: false,
        busy: false,
    }
}

/// "level bytes |  ---  "
fn draw(lines: &[&str]) -> Vec<PickFile<u32>> {
    lines
        .iter()
        .map(|line| {
            let (numbers, drawing) = line.split_once('|').unwrap();
            let mut numbers = numbers.split_whitespace().map(|word| word.parse::<u64>().unwrap());
            let level = numbers.next().unwrap();
            let bytes = numbers.next().unwrap();
            let low = drawing.find('-').unwrap();
            let high = drawing.rfind('-').unwrap();
            file(level as u32, bytes, low as u32, high as u32)
        })
        .collect()
}

fn candidate(files: &[usize], level: u32, why: CompactionReason) -> CompactionCandidate {
    CompactionCandidate { files: files.to_vec(), level, why }
}

fn check(lines: &[&str], expected: &[CompactionCandidate]) {
    assert_eq!(pick(&draw(lines), &rules(), 0), expected, "{lines:#?}");
}

#[test]
fn level_with_too_many_runs_is_compacted_within_overlaps() {
    check(&[], &[]);
    check(&["0 90 |----", "0 90 |----"], &[]);
    check(
        &["0 90 |----", "0 90 |----", "0 90 |----"],
        &[candidate(&[0, 1, 2], 1, CompactionReason::Tier)],
    );
    // Three files, but no key is in more than two of them.
    check(
        &[
            "0 90 |-----     ",
            "0 90 |   -----  ",
            "0 90 |       ---", //
        ],
        &[],
    );
    // Files without overlap are not chosen, on any level.
    check(
        &[
            "0 90 |----      ",
            "0 90 | ----     ",
            "0 90 |  ---     ",
            "0 90 |       ---",
            "1 90 |----------",
            "1 90 |----------",
        ],
        &[candidate(&[0, 1, 2], 1, CompactionReason::Tier)],
    );
    // Two separate groups, and a lower level before a higher one.
    check(
        &[
            "2 90 |-----     ",
            "2 90 |-----     ",
            "2 90 |-----     ",
            "0 90 |       ---",
            "0 90 |       ---",
            "0 90 |       ---",
        ],
        &[
            candidate(&[3, 4, 5], 1, CompactionReason::Tier),
            candidate(&[0, 1, 2], 3, CompactionReason::Tier),
        ],
    );
}

#[test]
fn consecutive_small_files_are_compacted_together() {
    check(
        &["0 9 |--       ", "0 9 |   --    ", "0 9 |      ---"],
        &[candidate(&[0, 1, 2], 1, CompactionReason::Small)],
    );
    // A large file in between ends the sequence.
    check(&["0 9 |--       ", "0 9 |   --    ", "0 90|      --", "0 9 |         --"], &[]);
    // So does a file in a gap: the output would overlap it.
    check(
        &["0 9 |--          ", "0 9 |   --       ", "1 9 |     --     ", "0 9 |        ----"],
        &[],
    );
    // A file that already overlaps them does not.
    check(
        &["0 9 |--          ", "0 9 |   --       ", "1 9 |----------- ", "0 9 |        ----"],
        &[candidate(&[0, 1, 3], 1, CompactionReason::Small)],
    );
}

#[test]
fn job_size_and_run_count_are_limited() {
    // The smallest runs first; runs that do not fit are left.
    let files = draw(&["0 500|---", "0 400|---", "0 300|---", "0 200|---", "0 900|---"]);
    assert_eq!(pick(&files, &rules(), 0), [candidate(&[1, 2, 3], 1, CompactionReason::Tier)]);
    // Fewer than `fan_in` fit: compacting two would cost more than it gains.
    let files = draw(&["0 600|---", "0 600|---", "0 600|---"]);
    assert_eq!(pick(&files, &rules(), 0), []);
    let many = vec![file(0, 90, 1, 5); 10];
    assert_eq!(
        pick(&many, &rules(), 0),
        [candidate(&[0, 1, 2, 3, 4, 5, 6, 7], 1, CompactionReason::Tier)]
    );
}

/// Memory of a job of this many runs of files that take 1 MiB each.
fn memory_of(runs: u64) -> u64 {
    sub_job_bytes(&[file(0, 1, 1, 1)], &[0], |_| runs * MIB)
}

#[test]
fn memory_limits_the_runs_of_a_job() {
    let overlapping = vec![file(0, 90, 1, 5); 6];
    let picked = |memory_bytes, files: &[PickFile<u32>]| {
        let picked = pick(files, &PickRules { memory_bytes, ..rules() }, 0);
        picked.iter().map(|candidate| candidate.files.len()).collect::<Vec<_>>()
    };
    for (runs, expected) in [(9, 6), (6, 6), (5, 5), (3, 3), (2, 2), (1, 2), (0, 2)] {
        assert_eq!(picked(memory_of(runs), &overlapping), [expected], "{runs} runs");
        assert_eq!(picked(memory_of(runs), &overlapping[..2]), [0; 0], "fewer than the fan-in");
    }
    assert_eq!(picked(memory_of(6) - 1, &overlapping), [5]);
    // A larger file counts with its own memory.
    let mut wide = overlapping;
    wide[2].open_bytes = 4 * MIB;
    assert_eq!(picked(memory_of(6), &wide), [3]);
}

#[test]
fn whole_region_is_merged_in_passes() {
    let files: Vec<PickFile<u32>> = (0..137).map(|bytes| file(0, 200 - bytes, 1, 9)).collect();
    for (max_runs, memory_bytes, expected) in [
        // 16 runs at most: 137 - 1 = 9 * 15 + 1.
        (16, u64::MAX, vec![2, 16, 16, 16, 16, 16, 16, 16, 16, 16]),
        (200, u64::MAX, vec![137]),
        (200, memory_of(100), vec![38, 100]),
        (16, memory_of(69), vec![2, 16, 16, 16, 16, 16, 16, 16, 16, 16]),
        (200, memory_of(69), vec![69, 69]),
        (200, 0, vec![2; 136]),
    ] {
        let rules = PickRules { max_runs, memory_bytes, ..rules() };
        let mut left = files.clone();
        let mut passes = Vec::new();
        while let Some(pass) = whole(&left, &rules, ALL) {
            let chosen: BTreeSet<usize> = pass.candidate.files.iter().copied().collect();
            let size = |index: &usize| left[*index].bytes;
            let rest = (0..left.len()).filter(|index| !chosen.contains(index));
            assert!(
                chosen.iter().map(size).max()
                    <= rest.map(|index| size(&index)).min().or(Some(u64::MAX))
            );
            let bytes = chosen.iter().map(size).sum();
            passes.push(chosen.len());
            let level = pass.candidate.level;
            let kept = left.iter().enumerate().filter(|(index, _)| !chosen.contains(index));
            left = kept.map(|(_, file)| file.clone()).chain([file(level, bytes, 1, 9)]).collect();
            assert_eq!(left.len(), pass.runs_left);
        }
        assert_eq!(passes, expected);
    }
}

#[test]
fn pass_leaves_later_files_alone() {
    let mut files = draw(&["0 90|---", "0 90|---", "0 90|---"]);
    for (file, sequence) in files.iter_mut().zip([5, 9, 7]) {
        file.max_sequence = Sequence(sequence);
    }
    let pass = |through| whole(&files, &rules(), Sequence(through));
    let all = pass(u64::MAX).unwrap();
    assert_eq!((all.candidate.files, all.through, all.runs_left), (vec![0, 1, 2], Sequence(9), 1));
    let early = pass(8).unwrap();
    assert_eq!((early.candidate.files, early.through), (vec![0, 2], Sequence(7)));
    assert_eq!(pass(6), None, "one run");
    assert_eq!(pass(4), None);
}

#[test]
fn pass_has_at_most_the_maximum_number_of_files() {
    // Two runs of many files each, and a small third one.
    let half = MAX_FILES as u32 / 2;
    let run = |width: u32| (0..half).map(move |index| file(1, 50, index * 4, index * 4 + width));
    let files: Vec<PickFile<u32>> = run(2).chain(run(3)).chain([file(0, 1, 0, half * 4)]).collect();
    let pass = whole(&files, &PickRules { max_runs: 16, ..rules() }, ALL).unwrap();
    assert_eq!((pass.candidate.files.len(), pass.runs_left), (half as usize + 1, 2));
}

#[test]
fn busy_files_and_files_past_an_obligation_are_skipped() {
    let mut files = draw(&["0 90 |---", "0 90 |---", "0 90 |---"]);
    files[1].busy = true;
    assert_eq!(pick(&files, &rules(), 0), []);
    files[1].busy = false;
    files[1].max_sequence = Sequence(7);
    let pending = |sequence| PickRules { obligation: Some(Sequence(sequence)), ..rules() };
    assert_eq!(pick(&files, &pending(7), 0), []);
    assert_eq!(pick(&files, &pending(8), 0), [candidate(&[0, 1, 2], 1, CompactionReason::Tier)]);
    let pass = whole(&files, &pending(7), ALL).unwrap();
    assert_eq!(pass.candidate, candidate(&[0, 2], 1, CompactionReason::Asked));
}

#[test]
fn whole_region_is_chosen_only_if_something_changes() {
    let requested =
        |files: &[PickFile<u32>]| whole(files, &rules(), ALL).map(|pass| pass.candidate);
    assert_eq!(requested(&[]), None);
    assert_eq!(requested(&draw(&["0 90|---"])), None);
    assert_eq!(requested(&draw(&["1 90|---   ", "1 90|   ---"])), None);
    assert_eq!(
        requested(&draw(&["1 9|---   ", "1 9|   ---"])),
        Some(candidate(&[0, 1], 1, CompactionReason::Asked))
    );
    assert_eq!(
        requested(&draw(&["2 90|----", "0 90| ---"])),
        Some(candidate(&[0, 1], 2, CompactionReason::Asked))
    );
    let mut one = draw(&["0 90|---"]);
    one[0].garbage = true;
    assert_eq!(requested(&one), Some(candidate(&[0], 1, CompactionReason::Asked)));
}

#[test]
fn expired_files_are_chosen_first_and_separately() {
    let mut files = draw(&["0 90|---", "1 90|---", "0 90|---", "0 90|---"]);
    for (file, max) in files.iter_mut().zip([10, 99, 100, 101]) {
        file.time_ms = Some((0, max));
    }
    let rules = PickRules { expire_before_ms: Some(100), ..rules() };
    assert_eq!(pick(&files, &rules, 0), [candidate(&[0, 1], 0, CompactionReason::Expired)]);
}

/// Returns overlapping files from: hour of the newest row, level, bytes, hour of writing.
fn timed(files: &[(i64, u32, u64, u64)]) -> Vec<PickFile<u32>> {
    files
        .iter()
        .map(|(hour, level, bytes, created)| PickFile {
            time_ms: Some((hour * HOUR as i64 - 5, hour * HOUR as i64 + 5)),
            created_ms: created * HOUR,
            ..file(*level, *bytes, 1, 9)
        })
        .collect()
}

#[test]
fn closed_windows_become_one_run_newest_is_tiered() {
    let by_window = PickRules { window_ms: Some(HOUR), ..rules() };
    let picked =
        |files: &[(i64, u32, u64, u64)], now: u64| pick(&timed(files), &by_window, now * HOUR);
    // Hour 7 is the newest with rows: two runs are few enough there; hour 3 has ended.
    let files = [(3, 0, 90, 3), (7, 0, 90, 7), (3, 0, 90, 4), (7, 0, 90, 7)];
    assert_eq!(picked(&files, 9), [candidate(&[0, 2], 1, CompactionReason::Window)]);
    // An hour that has not ended is not closed, even if a later one has rows.
    assert_eq!(picked(&[(8, 0, 90, 8), (8, 0, 90, 8), (9, 0, 90, 8)], 8), []);
    // A late row does not trigger a rewrite of the whole window, ..
    let late = [(3, 1, 900, 3), (3, 0, 9, 8), (9, 0, 9, 9)];
    assert_eq!(picked(&late, 8), []);
    // .. until no row arrived for an hour, ..
    assert_eq!(picked(&late, 9), [candidate(&[0, 1], 2, CompactionReason::Window)]);
    // .. or many rows have arrived. A few at a time are tiered.
    let more = [(3, 1, 600, 3), (3, 0, 200, 8), (9, 0, 9, 9)];
    assert_eq!(picked(&more, 8), [candidate(&[0, 1], 2, CompactionReason::Window)]);
    let little = [(3, 1, 900, 3), (3, 0, 9, 8), (3, 0, 9, 8), (3, 0, 9, 8), (9, 0, 9, 9)];
    assert_eq!(picked(&little, 8), [candidate(&[1, 2, 3], 1, CompactionReason::Tier)]);
    // Its small files are compacted together regardless of other files in the window, at their own
    // level.
    let mut small = timed(&[(3, 3, 900, 3), (3, 0, 9, 8), (3, 0, 9, 8), (9, 0, 9, 9)]);
    for (file, key) in small.iter_mut().zip(0..) {
        (file.low, file.high) = (key, key);
    }
    assert_eq!(
        pick(&small, &by_window, 9 * HOUR),
        [candidate(&[1, 2], 1, CompactionReason::Small)]
    );
}

#[test]
fn suggested_window_exceeds_the_span_of_a_flush() {
    let spanning = |hours: u64, level| PickFile {
        time_ms: Some((0, (hours * HOUR) as i64)),
        ..file(level, 9, 1, 2)
    };
    assert_eq!(suggest_window::<u32>(&[]), None);
    assert_eq!(suggest_window(&[file(0, 9, 1, 2)]), None);
    assert_eq!(suggest_window(&[spanning(0, 0), spanning(900, 1)]), Some(HOUR));
    assert_eq!(suggest_window(&[spanning(5, 0)]), Some(12 * HOUR));
    assert_eq!(suggest_window(&[spanning(24, 3)]), Some(7 * 24 * HOUR));
    assert_eq!(suggest_window(&[spanning(100_000, 0)]), Some(365 * 24 * HOUR));
}

/// Compacts until no candidate is left; returns the bytes written.
pub(super) fn compact_all(files: &mut Vec<PickFile<u32>>, rules: &PickRules, now_ms: u64) -> u64 {
    let mut written = 0;
    for _ in 0..1_000 {
        let candidates = pick(files, rules, now_ms);
        for candidate in &candidates {
            let highest = candidate.files.iter().map(|index| files[*index].level).max().unwrap();
            assert!(candidate.level <= highest + 1, "{candidate:?} of {files:?}");
        }
        let Some(candidate) = candidates.into_iter().next() else { return written };
        let inputs: Vec<PickFile<u32>> =
            candidate.files.iter().rev().map(|index| files.remove(*index)).collect();
        if candidate.why == CompactionReason::Expired {
            continue;
        }
        let bytes: u64 = inputs.iter().map(|file| file.bytes).sum();
        let low = inputs.iter().map(|file| file.low).min().unwrap();
        let high = inputs.iter().map(|file| file.high).max().unwrap();
        let time_ms = inputs
            .iter()
            .filter_map(|file| file.time_ms)
            .reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        written += bytes;
        // Cut at 100 bytes, as the keys allow.
        let parts = bytes.div_ceil(100).clamp(1, u64::from(high - low + 1)) as u32;
        let width = (high - low + 1) / parts;
        for part in 0..parts {
            let end = if part + 1 == parts { high } else { low + (part + 1) * width - 1 };
            files.push(PickFile {
                time_ms,
                created_ms: now_ms,
                ..file(candidate.level, bytes / u64::from(parts), low + part * width, end)
            });
        }
    }
    panic!("compaction does not terminate: {files:?}");
}

proptest! {
    /// For any flushes, a byte is rewritten about once per level, and a read opens few runs.
    #[test]
    fn write_amplification_and_runs_are_bounded(
        flushes in prop::collection::vec((0_u32..900, 0_u32..300, 1_u64..60, 0_i64..4), 1..120),
        windows in any::<bool>(),
    ) {
        let rules = PickRules {
            max_job_bytes: u64::MAX,
            max_runs: 64,
            window_ms: windows.then_some(24 * HOUR),
            ..rules()
        };
        let mut files = Vec::new();
        let mut written = 0;
        let mut flushed = 0;
        let mut levels = 1;
        for (hour, (low, width, bytes, late)) in flushes.iter().enumerate() {
            let hour = hour as i64;
            let time = (hour - late * 24).max(0) * HOUR as i64;
            files.push(PickFile {
                time_ms: Some((time, time)),
                created_ms: hour as u64 * HOUR,
                ..file(0, *bytes, *low, low + width)
            });
            flushed += bytes;
            written += compact_all(&mut files, &rules, hour as u64 * HOUR);
            levels = levels.max(files.iter().map(|file| file.level).max().unwrap_or(0));
        }
        let all: Vec<usize> = (0..files.len()).collect();
        let runs = sorted_runs(&files, &all).len();
        if windows {
            // Late rows may cause a window to be rewritten, with at least a third of its size at a
            // time.
            prop_assert!(written <= 16 * flushed, "{written} of {flushed}");
            prop_assert!(runs <= 6 * 12, "{runs}");
        } else {
            prop_assert!(levels <= 6, "{levels}");
            prop_assert!(written <= u64::from(levels) * flushed, "{written} of {flushed}");
            prop_assert!(runs <= 2 * (levels as usize + 1), "{runs} on {levels} levels");
        }
    }
}
