//! Spools that are full.

use super::*;

#[test]
fn number_of_tables_is_limited() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    let of_table = |n: usize| RecordedEvent { table: format!("t{n}"), ..event(n, Priority::High) };
    let accepted = append(&spool, &(0..=MAX_TABLES).map(of_table).collect::<Vec<_>>());
    assert_eq!(accepted.iter().filter(|accepted| !**accepted).count(), 1);
    assert_eq!(spool.dropped().unwrap().counts, PriorityCounts::new(0, 0, 1));
}

#[test]
fn full_spool_drops_lower_priorities_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let probe = Spool::open(&directory.path().join("probe"), LIMIT).unwrap();
    append(&probe, &[event(1, Priority::High)]);
    let limit = 3 * size(&probe).bytes;
    let path = directory.path().join("spool");
    let spool = Spool::open(&path, limit).unwrap();
    append(&spool, &[event(1, Priority::Low), event(2, Priority::Normal), event(3, Priority::Low)]);
    assert_eq!(append(&spool, &[event(4, Priority::Low)]), [false]);
    assert_eq!(append(&spool, &[event(5, Priority::Normal)]), [true]);
    // The oldest event of the lowest priority was evicted.
    assert_eq!(append(&spool, &[event(6, Priority::High), event(7, Priority::High)]), [true, true]);
    assert_eq!(append(&spool, &[event(8, Priority::Normal)]), [false]);
    let counts = PriorityCounts::new(3, 2, 0);
    assert_eq!(spool.dropped(), Some(DroppedSummary { counts, since_ms: 5 }));
    drop(spool);

    let spool = Spool::open(&path, limit).unwrap();
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [5, 6, 7]);
    let summary = spool.dropped().unwrap();
    assert_eq!(summary.counts, counts);
    // Events of a batch are not evicted. The summary has some room above the limit.
    assert_eq!(append(&spool, &[event(9, Priority::High)]), [false]);
    assert!(!spool.append_summary(&summary, &event(10, Priority::High)).unwrap());
    let summary = spool.dropped().unwrap();
    assert_eq!(summary.counts, PriorityCounts::new(3, 2, 1));
    assert!(spool.append_summary(&summary, &event(11, Priority::High)).unwrap());
    assert_eq!((spool.dropped(), size(&spool).events), (None, 4));
}

#[test]
fn lower_events_stay_when_they_make_too_little_room() {
    let directory = tempfile::tempdir().unwrap();
    let probe = Spool::open(&directory.path().join("probe"), LIMIT).unwrap();
    append(&probe, &[event(1, Priority::High)]);
    let spool = Spool::open(&directory.path().join("spool"), 2 * size(&probe).bytes).unwrap();
    append(&spool, &[event(1, Priority::Low), event(2, Priority::High)]);
    let payload = format!("\"{}\"", "x".repeat(500));
    let large = RecordedEvent { payload, ..event(3, Priority::High) };
    assert_eq!(append(&spool, &[large, event(4, Priority::Normal)]), [false, true]);
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [2, 4]);
}

#[test]
fn summaries_of_a_full_spool_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), 10_000).unwrap();
    for _ in 0..1_000 {
        spool.append(&[], PriorityCounts::new(1, 0, 0), 5).unwrap();
        let summary = spool.dropped().unwrap();
        spool.append_summary(&summary, &event(1, Priority::High)).unwrap();
    }
    assert!(size(&spool).bytes <= 10_000 + SUMMARY_BYTES, "{:?}", size(&spool));
    assert!(spool.dropped().is_some());
}

/// Opens a spool with room for a number of events of normal or high priority.
fn spool_of(directory: &Path, events: u64) -> Spool {
    let probe = Spool::open(&directory.join("probe"), LIMIT).unwrap();
    append(&probe, &[event(1, Priority::High)]);
    Spool::open(&directory.join("spool"), events * size(&probe).bytes).unwrap()
}

fn audit(number: usize, priority: Priority) -> RecordedEvent {
    RecordedEvent { table: "audit".to_owned(), ..event(number, priority) }
}

fn audits(numbers: Range<usize>) -> Vec<RecordedEvent> {
    numbers.map(|number| audit(number, Priority::Normal)).collect()
}

fn claimed_audits(spool: &Spool) -> Vec<usize> {
    numbers(&spool.claim("audit", 100, usize::MAX).unwrap().unwrap())
}

#[test]
fn table_that_fills_the_spool_leaves_shares_to_others() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_of(directory.path(), 8);
    assert_eq!(append(&spool, &audits(0..8)), [true; 8]);
    assert_eq!(append(&spool, &audits(8..9)), [false]);
    // Four of eight events are an even share of two tables.
    assert_eq!(append(&spool, &events(0..6)), [true, true, true, true, false, false]);
    assert_eq!((events_of(&spool, "audit"), events_of(&spool, "events")), ((4, 0), (4, 0)));
    // Above its share, a table evicts events of its own only.
    assert_eq!(append(&spool, &audits(9..10)), [false]);
    assert_eq!(append(&spool, &[audit(9, Priority::High)]), [true]);
    assert_eq!(spool.dropped().unwrap().counts, PriorityCounts::new(0, 9, 0));
    let limit = spool.limit;
    drop(spool);

    let spool = Spool::open(&directory.path().join("spool"), limit).unwrap();
    assert_eq!(claimed_audits(&spool), [5, 6, 7, 9]);
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [0, 1, 2, 3]);
}

#[test]
fn higher_priorities_stay_for_another_table() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_of(directory.path(), 4);
    let high: Vec<_> = (0..4).map(|number| audit(number, Priority::High)).collect();
    assert_eq!(append(&spool, &high), [true; 4]);
    assert_eq!(append(&spool, &[event(4, Priority::Normal)]), [false]);
    assert_eq!(append(&spool, &[event(5, Priority::High)]), [true]);
    assert_eq!(claimed_audits(&spool), [1, 2, 3]);
}

#[test]
fn batch_of_another_table_is_not_evicted() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_of(directory.path(), 4);
    append(&spool, &audits(0..4));
    let claimed = spool.claim("audit", 3, usize::MAX).unwrap().unwrap();
    assert_eq!(append(&spool, &events(0..2)), [true, false]);
    assert_eq!((events_of(&spool, "audit"), events_of(&spool, "events")), ((0, 3), (1, 0)));
    spool.complete("audit", &claimed).unwrap();
    assert_eq!(append(&spool, &events(2..5)), [true; 3]);
}

#[test]
fn candidates_of_a_dropped_event_stay_evictable() {
    let directory = tempfile::tempdir().unwrap();
    let spool = spool_of(directory.path(), 4);
    let low = [0, 1].map(|number| event(number, Priority::Low));
    append(&spool, &low);
    append(&spool, &events(2..4));
    let payload = format!("\"{}\"", "x".repeat(500));
    let large = RecordedEvent { payload, ..event(4, Priority::Normal) };
    let added = [large, event(5, Priority::Normal), event(6, Priority::Normal)];
    assert_eq!(append(&spool, &added), [false, true, true]);
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [2, 3, 5, 6]);
}
