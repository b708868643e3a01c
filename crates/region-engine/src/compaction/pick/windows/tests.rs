//! Weeks of constant ingest.

use std::collections::BTreeMap;

use crate::compaction::pick::tests::{HOUR, compact_all, file, rules};
use crate::compaction::pick::{PickFile, PickRules};
use crate::compaction::runs::sorted_runs;

const DAY: u64 = 24 * HOUR;
const TTL: u64 = 14 * DAY;
const FLUSH_INTERVAL: u64 = HOUR / 2;
const BYTES: u64 = 40;
/// Most runs of a window: two of each level, and one of the flush.
const MAX_RUNS: usize = 9;

fn day_of(file: &PickFile<u32>) -> u64 {
    file.time_ms.unwrap().1.cast_unsigned() / DAY
}

/// A flush at this time of rows of the last interval, and of a late row.
fn flush(now_ms: u64, late_ms: u64) -> PickFile<u32> {
    let newest = now_ms - 1;
    let oldest = now_ms.saturating_sub(FLUSH_INTERVAL + late_ms);
    PickFile {
        time_ms: Some((oldest.cast_signed(), newest.cast_signed())),
        created_ms: now_ms,
        ..file(0, BYTES, 0, 900)
    }
}

#[test]
fn constant_ingest_rewrites_no_settled_window() {
    for late_ms in [0, 3 * DAY] {
        let mut files = Vec::new();
        let mut settled: BTreeMap<u64, Vec<PickFile<u32>>> = BTreeMap::new();
        let mut written = 0;
        let flushes = 42 * DAY / FLUSH_INTERVAL;
        for number in 1..=flushes {
            let now_ms = number * FLUSH_INTERVAL;
            let limit = now_ms.cast_signed() - TTL.cast_signed();
            let rules = PickRules {
                max_job_bytes: u64::MAX,
                window_ms: Some(DAY),
                expire_before_ms: Some(limit),
                ..rules()
            };
            files.push(flush(now_ms, late_ms));
            written += compact_all(&mut files, &rules, now_ms);
            assert!(files.iter().all(|file| file.time_ms.unwrap().1 >= limit));
            let mut days: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
            for (index, file) in files.iter().enumerate() {
                days.entry(day_of(file)).or_default().push(index);
            }
            assert!(days.len() as u64 <= TTL / DAY + 2, "{} days", days.len());
            for (day, members) in days {
                let runs = sorted_runs(&files, &members).len();
                assert!(runs <= MAX_RUNS, "{runs} runs of day {day}");
                // It ended two days ago.
                if (day + 3) * DAY <= now_ms {
                    assert_eq!(runs, 1, "day {day} at {now_ms}");
                    let of_day: Vec<_> =
                        members.iter().map(|index| files[*index].clone()).collect();
                    let before = settled.entry(day).or_insert_with(|| of_day.clone());
                    assert_eq!(&of_day, before, "day {day} was rewritten");
                }
            }
        }
        assert_eq!(settled.len(), 40);
        // A row is written once for each level of its day, and once at its end.
        assert!(written <= 6 * flushes * BYTES, "{written} bytes");
    }
}
