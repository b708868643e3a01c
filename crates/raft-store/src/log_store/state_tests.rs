use super::*;
use crate::testing::{entries, indexes};
use crate::types::log_id;

const GROUP: GroupId = GroupId(1);

fn log(held: std::ops::Range<u64>) -> InMemoryLog {
    let mut log = InMemoryLog::empty(usize::MAX);
    log.append(&entries(1, held));
    log
}

fn planned(plan: ReadPlan) -> (Option<(u64, u64)>, Vec<u64>) {
    match plan {
        ReadPlan::InMemory(entries) => (None, indexes(&entries)),
        ReadPlan::Stored { start, end, then } => (Some((start, end)), indexes(&then)),
    }
}

#[test]
fn appended_entries_must_follow_last_or_purged_entries() {
    let mut log = InMemoryLog::empty(0);
    assert!(log.check_follows(GROUP, &entries(1, 7..9)).is_ok(), "the first index is free");
    log.append(&entries(1, 7..9));
    assert!(log.check_follows(GROUP, &entries(1, 9..11)).is_ok());
    let error = log.check_follows(GROUP, &entries(1, 10..11)).unwrap_err();
    assert_eq!(error, StoreError::NotConsecutive { group: GROUP, found: 10, last: 8 });
    log.purge(log_id(2, 20));
    assert!(log.check_follows(GROUP, &entries(2, 21..22)).is_ok());
    assert!(log.check_follows(GROUP, &entries(1, 9..10)).is_err());
}

#[test]
fn log_may_begin_at_any_index() {
    let mut log = log(7..9);
    assert_eq!((log.first_index(), log.next_index()), (7, 9));
    assert_eq!(planned(log.plan_read(0, 99, usize::MAX)), (None, vec![7, 8]));
    log.truncate_after(GROUP, None).unwrap();
    log.append(&entries(2, 0..1));
    assert_eq!((log.first_index(), log.next_index()), (0, 1));
    log.purge(log_id(2, 0));
    log.append(&entries(2, 1..2));
    assert_eq!((log.first_index(), log.next_index()), (1, 2));
}

#[test]
fn truncation_keeps_the_named_and_purged_entries() {
    // (purged, keep, removed, last)
    let cases = [
        (None, Some(3), Some((4, 10)), Some(3)),
        (None, None, Some((0, 10)), None),
        (None, Some(9), None, Some(9)),
        (None, Some(12), None, Some(9)),
        (Some(4), Some(6), Some((7, 10)), Some(6)),
        (Some(4), Some(4), Some((5, 10)), None),
        (Some(4), None, Some((5, 10)), None),
    ];
    for (purged, keep, removed, last) in cases {
        let mut log = log(0..10);
        if let Some(purged) = purged {
            log.purge(log_id(1, purged));
        }
        assert_eq!(log.truncate_after(GROUP, keep.map(|index| log_id(1, index))), Ok(removed));
        assert_eq!(log.last.map(|id| id.index), last, "{purged:?} {keep:?}");
        assert_eq!(log.next_index(), last.or(purged).map_or(0, |index| index + 1));
    }
}

#[test]
fn purge_point_only_moves_forward() {
    let mut log = log(0..20_000);
    log.purge(log_id(1, 4_000));
    assert_eq!((log.first_index(), log.next_index()), (4_001, 20_000));
    log.purge(log_id(1, 19_999));
    assert_eq!((log.last, log.next_index()), (None, 20_000));
    log.append(&entries(2, 20_000..20_003));
    log.purge(log_id(2, 20_000));
    log.purge(log_id(1, 5));
    assert_eq!(log.purged, Some(log_id(2, 20_000)));
    assert_eq!((log.first_index(), log.next_index()), (20_001, 20_003));
}

#[test]
fn reads_combine_memory_and_database() {
    let mut log = log(0..10);
    let all = usize::MAX;
    assert_eq!(planned(log.plan_read(2, 5, all)), (None, vec![2, 3, 4]));
    assert_eq!(planned(log.plan_read(8, 99, all)), (None, vec![8, 9]));
    assert_eq!(planned(log.plan_read(10, 99, all)), (None, vec![]));
    // Entries 0 to 5 are evicted from memory.
    log.tail = crate::log_store::tail::LogTail::new(usize::MAX, 6);
    for entry in entries(1, 6..10) {
        log.tail.push(entry);
    }
    assert_eq!(planned(log.plan_read(2, 5, all)), (Some((2, 5)), vec![]));
    assert_eq!(planned(log.plan_read(2, 8, all)), (Some((2, 6)), vec![6, 7]));
    assert_eq!(planned(log.plan_read(2, 8, 1_000)), (Some((2, 6)), vec![]), "bounded");
    assert_eq!(planned(log.plan_read(6, 8, all)), (None, vec![6, 7]));
    log.purge(log_id(1, 3));
    assert_eq!(planned(log.plan_read(0, 5, all)), (Some((4, 5)), vec![]));
    assert_eq!(planned(log.plan_read(0, 4, all)), (None, vec![]));
}

#[test]
fn truncation_of_committed_entries_is_refused() {
    // (committed, keep, refused)
    let cases = [
        (None, None, false),
        (Some(4), Some(4), false),
        (Some(4), Some(7), false),
        (Some(4), Some(3), true),
        (Some(4), None, true),
        (Some(9), Some(8), true),
        // Nothing to remove.
        (Some(9), Some(9), false),
        (Some(20), Some(12), false),
    ];
    for (committed, keep, refused) in cases {
        let mut log = log(0..10);
        log.committed = committed.map(|index| log_id(1, index));
        let result = log.truncate_after(GROUP, keep.map(|index| log_id(1, index)));
        let from = keep.map_or(0, |index| index + 1);
        let error = StoreError::TruncatesCommitted {
            group: GROUP,
            from,
            committed: committed.unwrap_or(0),
        };
        assert_eq!(result == Err(error), refused, "{committed:?} {keep:?} {result:?}");
        if refused {
            assert_eq!((log.last, log.next_index()), (Some(log_id(1, 9)), 10));
        }
    }
}

#[test]
fn append_is_compared_with_its_last_committed_entry() {
    use CommittedComparison::{Agrees, Contradicts, Unknown};
    let committed = log_id(3, 6);
    let contradicts = |term, index| Contradicts { found: log_id(term, index), local: committed };
    // (term of the vote, first index, terms of the entries, result)
    let cases: [(u64, u64, &[u64], CommittedComparison); 9] = [
        (4, 7, &[4, 4], Agrees),
        (4, 6, &[3, 4], Agrees),
        (4, 5, &[3], Unknown(log_id(3, 5))),
        (4, 4, &[2, 2, 3, 4], Agrees),
        (4, 4, &[2, 2, 2, 4], contradicts(2, 6)),
        (4, 6, &[4], contradicts(4, 6)),
        (4, 4, &[4], contradicts(4, 4)),
        (4, 1, &[1], Agrees),
        (2, 6, &[2], Agrees),
    ];
    for (term, first, terms, expected) in cases {
        let mut log = log(0..10);
        log.purge(log_id(1, 2));
        log.vote = Some(Vote::new_committed(3, 1));
        log.committed = Some(committed);
        let ids = (first..).zip(terms).map(|(index, term)| log_id(*term, index));
        let ids: Vec<_> = ids.collect();
        let compared = log.compare_committed(&Vote::new_committed(term, 1), ids.into_iter());
        assert_eq!(compared, expected, "{term} {first} {terms:?}");
    }
    let vote = Vote::new_committed(1, 1);
    let fresh = InMemoryLog::empty(0).compare_committed(&vote, [log_id(1, 0)].into_iter());
    assert_eq!(fresh, Agrees);
}
