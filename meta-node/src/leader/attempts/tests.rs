use tidewater_common::ids::TableId;
use tidewater_common::refusal::Refusal;

use super::*;

const T: TableId = TableId(1);
/// Random bits of the shortest waits, which are half of those without jitter.
const NO_JITTER: u64 = 0;

type TableAttempts = Attempts<TableId, u64>;

fn phase(number: u64) -> u64 {
    number
}

fn ids(numbers: &[u32]) -> Vec<TableId> {
    numbers.iter().copied().map(TableId).collect()
}

fn at(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

#[test]
fn failing_table_is_retried_with_growing_waits() {
    let start = Instant::now();
    let mut attempts = TableAttempts::default();
    let mut now = start;
    let mut waits = Vec::new();
    for _ in 0..8 {
        assert_eq!(attempts.begin_due(vec![(T, phase(0))], now), [T]);
        assert_eq!(attempts.begin_due(vec![(T, phase(0))], now), [], "in progress");
        attempts.end(T, Some(Reason::NotLeader), now, NO_JITTER);
        let begun = now;
        while attempts.begin_due(vec![(T, phase(0))], now).is_empty() {
            now += Duration::from_millis(50);
        }
        waits.push((now - begun).as_millis());
        attempts.procedures.get_mut(&T).unwrap().in_progress = false;
    }
    assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 5_000, 5_000, 5_000]);
}

#[test]
fn jitter_spreads_the_attempts() {
    let now = Instant::now();
    let due = |bits| {
        let mut attempts = TableAttempts::default();
        attempts.begin_due(vec![(T, phase(0))], now);
        attempts.end(T, Some(Reason::NotLeader), now, bits);
        attempts.procedures[&T].due
    };
    assert_ne!(due(0), due(100_000));
    assert!(due(0) >= at(now, 250) && due(u64::MAX) <= at(now, 500));
}

#[test]
fn completed_regions_are_not_repeated_in_their_phase() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    attempts.begin_due(vec![(T, phase(0))], now);
    attempts.record_completed(T, phase(0), RegionId(7), now);
    // A late answer of an earlier phase.
    attempts.record_completed(T, phase(9), RegionId(8), now);
    attempts.end(T, Some(Reason::NotLeader), now, NO_JITTER);
    let completed = |attempts: &TableAttempts, number, region| {
        attempts.is_completed(T, phase(number), RegionId(region))
    };
    assert!(completed(&attempts, 0, 7) && !completed(&attempts, 0, 8));
    assert!(!completed(&attempts, 1, 7), "another change");
    // The next phase is due at once, and begins with all regions.
    assert_eq!(attempts.begin_due(vec![(T, phase(1))], now), [T]);
    assert!(!completed(&attempts, 1, 7) && !completed(&attempts, 0, 7));
    attempts.end(T, None, now, NO_JITTER);
    attempts.begin_due(Vec::new(), now);
    assert!(attempts.procedures.is_empty());
}

#[test]
fn phase_without_work_is_not_repeated_at_once() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    attempts.begin_due(vec![(T, phase(0))], now);
    attempts.end(T, None, now, NO_JITTER);
    assert_eq!(attempts.begin_due(vec![(T, phase(0))], at(now, 499)), []);
    assert_eq!(attempts.begin_due(vec![(T, phase(1))], at(now, 499)), [T], "the next phase");
    attempts.end(T, None, now, NO_JITTER);
    assert_eq!(attempts.begin_due(vec![(T, phase(1))], at(now, 500)), [T]);
}

#[test]
fn progress_restarts_the_backoff() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    let mut failures = Vec::new();
    for completed in [None, None, None, Some(RegionId(7)), None] {
        attempts.begin_due(vec![(T, phase(0))], now + BACKOFF.longest * 10);
        if let Some(region) = completed {
            attempts.record_completed(T, phase(0), region, now);
        }
        attempts.end(T, Some(Reason::DeadlineExceeded), now, NO_JITTER);
        failures.push(attempts.procedures[&T].failures);
    }
    assert_eq!(failures, [1, 2, 3, 1, 2]);
}

#[test]
fn only_changes_of_a_tables_condition_are_logged() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    let mut end = |failed| {
        let tables = &mut attempts.procedures;
        tables.entry(T).or_insert_with(|| PhaseAttempts::new(phase(0), now));
        attempts.end(T, failed, now, NO_JITTER)
    };
    let failing = Some(AttemptNotice::Failing);
    assert_eq!(end(Some(Reason::NotLeader)), failing);
    assert_eq!(end(Some(Reason::NotLeader)), None);
    assert_eq!(end(Some(Reason::DeadlineExceeded)), failing);
    assert_eq!(end(Some(Reason::DeadlineExceeded)), None);
    assert_eq!(end(None), Some(AttemptNotice::Recovered));
    assert_eq!(end(None), None);
}

#[test]
fn failure_within_an_attempt_is_logged_once() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    assert_eq!(attempts.note(T, Some(Reason::NotLeader)), None, "no attempt");
    attempts.begin_due(vec![(T, phase(0))], now);
    let failing = Some(AttemptNotice::Failing);
    assert_eq!(attempts.note(T, Some(Reason::NotLeader)), failing);
    assert_eq!(attempts.note(T, Some(Reason::NotLeader)), None);
    assert_eq!(attempts.end(T, Some(Reason::NotLeader), now, NO_JITTER), None);
    assert_eq!(attempts.note(T, None), Some(AttemptNotice::Recovered));
}

#[test]
fn completed_region_fails_no_more() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    attempts.begin_due(vec![(T, phase(0))], now);
    let refusal = Refusal::new(Reason::NotLeader, "no leader");
    attempts.failing(T, phase(0)).unwrap().fail(RegionId(7), refusal.clone(), false, now);
    assert!(attempts.failing(T, phase(1)).is_none(), "another phase");
    assert_eq!(attempts.failing(T, phase(0)).unwrap().failure(), Some(&refusal));
    attempts.record_completed(T, phase(0), RegionId(7), now);
    assert_eq!(attempts.failing(T, phase(0)).unwrap().failure(), None);
}

#[test]
fn new_tables_begin_before_failing_ones() {
    let now = Instant::now();
    let mut attempts = TableAttempts::default();
    let all = |numbers: std::ops::RangeInclusive<u32>| -> Vec<(TableId, u64)> {
        numbers.map(|number| (TableId(number), phase(0))).collect()
    };
    let limit = u32::try_from(MAX_BEGUN).unwrap();
    // More tables than begin in a round fail.
    let first = attempts.begin_due(all(1..=limit + 3), now);
    assert_eq!(first.len(), MAX_BEGUN);
    for table in first {
        attempts.end(table, Some(Reason::NotLeader), now, NO_JITTER);
    }
    let later = at(now, 1_000);
    let begun = attempts.begin_due(all(1..=limit + 4), later);
    assert_eq!(begun[..4], ids(&[limit + 1, limit + 2, limit + 3, limit + 4]));
    assert_eq!(begun.len(), MAX_BEGUN);
    // Tables without a procedure are forgotten once their attempt has ended.
    attempts.begin_due(Vec::new(), later);
    assert_eq!(attempts.procedures.len(), MAX_BEGUN);
}
