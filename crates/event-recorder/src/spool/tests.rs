mod opening;
mod room;

use std::ops::Range;

use tidewater_events::Priority;
use tidewater_events::testing::TestEvent;
use uuid::Uuid;

use super::keys::EventSequence;
use super::*;

const LIMIT: u64 = 1 << 20;

fn event(number: usize, priority: Priority) -> RecordedEvent {
    let event = TestEvent { priority, ..TestEvent::numbered(number) };
    RecordedEvent::new(&event, Uuid::from_u128(number as u128), 0, 10_000).unwrap()
}

fn events(numbers: Range<usize>) -> Vec<RecordedEvent> {
    numbers.map(|number| event(number, Priority::Normal)).collect()
}

fn append(spool: &Spool, events: &[RecordedEvent]) -> Vec<bool> {
    spool.append(events, PriorityCounts::default(), 5).unwrap().accepted
}

fn claim(spool: &Spool, most: usize) -> Option<ClaimedBatch> {
    spool.claim("events", most, usize::MAX).unwrap()
}

fn size(spool: &Spool) -> EventTotal {
    spool.sizes().borrow().total
}

/// Numbers of the events of a table that wait, and that are in its batch.
fn events_of(spool: &Spool, table: &str) -> (u64, u64) {
    let events = spool.sizes().borrow().tables.get(table).copied().unwrap_or_default();
    (events.waiting.events, events.in_batch.events)
}

fn numbers(claimed: &ClaimedBatch) -> Vec<usize> {
    claimed.events.iter().map(|event| event.payload.parse().unwrap()).collect()
}

#[test]
fn batch_keeps_its_events_over_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..5));
    let claimed = claim(&spool, 2).unwrap();
    assert_eq!(numbers(&claimed), [0, 1]);
    spool.put_note("events", claimed.claim, b"a", b"first").unwrap();
    spool.put_note("events", claimed.claim, b"a", b"second").unwrap();
    drop(spool);

    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    assert_eq!(size(&spool).events, 5);
    assert_eq!(events_of(&spool, "events"), (3, 2));
    append(&spool, &events(5..6));
    let again = claim(&spool, 100).unwrap();
    assert_eq!((again.first, again.last), (claimed.first, claimed.last));
    assert_eq!(again.events, claimed.events);
    assert_eq!(
        spool.notes("events", again.claim).unwrap(),
        BTreeMap::from([(b"a".to_vec(), b"second".to_vec())])
    );
    spool.complete("events", &again).unwrap();
    assert_eq!(spool.notes("events", again.claim), Err(SpoolError::BatchEnded));
    drop(spool);

    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    let rest = claim(&spool, 100).unwrap();
    assert_eq!(numbers(&rest), [2, 3, 4, 5]);
    spool.complete("events", &rest).unwrap();
    assert_eq!(claim(&spool, 100), None);
    assert_eq!(size(&spool), EventTotal::default());
}

#[test]
fn released_batch_is_claimed_again() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..4));
    let claimed = claim(&spool, 4).unwrap();
    assert!(spool.release("events", &claimed).unwrap());
    assert_eq!(events_of(&spool, "events"), (4, 0));
    let half = claim(&spool, 2).unwrap();
    assert_eq!(numbers(&half), [0, 1]);
    spool.complete("events", &half).unwrap();
    assert_eq!(numbers(&claim(&spool, 4).unwrap()), [2, 3]);
}

#[test]
fn batches_are_limited_by_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..4));
    let one = spool.claim("events", 100, 1).unwrap().unwrap();
    assert_eq!(numbers(&one), [0]);
}

#[test]
fn tables_have_queues_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    let other = RecordedEvent { table: "audit".to_owned(), ..event(7, Priority::Normal) };
    append(&spool, &[event(0, Priority::Normal), other, event(1, Priority::Normal)]);
    let claimed = claim(&spool, 100).unwrap();
    assert_eq!(numbers(&claimed), [0, 1]);
    let audit = spool.claim("audit", 100, usize::MAX).unwrap().unwrap();
    spool.put_note("audit", audit.claim, b"n", b"1").unwrap();
    spool.complete("events", &claimed).unwrap();
    assert_eq!(numbers(&audit), [7]);
    assert_eq!(spool.notes("audit", audit.claim).unwrap().len(), 1);
    assert_eq!((events_of(&spool, "audit"), events_of(&spool, "events")), ((0, 1), (0, 0)));
}

#[test]
fn notes_end_with_their_claim() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..4));
    let first = claim(&spool, 2).unwrap();
    spool.put_note("events", first.claim, b"a", b"1").unwrap();
    assert!(!spool.release("events", &first).unwrap(), "it has a note");
    spool.complete("events", &first).unwrap();
    let second = claim(&spool, 2).unwrap();
    // A call that was aborted writes its note late.
    let late = spool.put_note("events", first.claim, b"a", b"2");
    assert_eq!(late, Err(SpoolError::BatchEnded));
    spool.complete("events", &first).unwrap();
    assert!(spool.notes("events", second.claim).unwrap().is_empty());
    assert_eq!(events_of(&spool, "events"), (0, 2));
}

#[test]
fn note_of_an_earlier_claim_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..2));
    let aborted = claim(&spool, 2).unwrap();
    spool.put_note("events", aborted.claim, b"a", b"1").unwrap();
    let again = claim(&spool, 2).unwrap();
    assert_eq!(again.events, aborted.events);
    let late = spool.put_note("events", aborted.claim, b"a", b"2");
    assert_eq!(late, Err(SpoolError::BatchEnded));
    assert_eq!(spool.notes("events", aborted.claim), Err(SpoolError::BatchEnded));
    let notes = spool.notes("events", again.claim).unwrap();
    assert_eq!(notes, BTreeMap::from([(b"a".to_vec(), b"1".to_vec())]));
    // Nor does the earlier claim end the batch.
    spool.complete("events", &aborted).unwrap();
    assert_eq!(events_of(&spool, "events"), (0, 2));
    spool.complete("events", &again).unwrap();
    assert_eq!(size(&spool), EventTotal::default());
}

#[test]
fn database_is_reopened_after_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..3));
    let claimed = claim(&spool, 2).unwrap();
    spool.database.close();
    append(&spool, &events(3..4));
    assert_eq!(events_of(&spool, "events"), (2, 2));
    spool.database.close();
    spool.complete("events", &claimed).unwrap();
    spool.database.close();
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [2, 3]);
}

// The disk reports an error for a removal that it has carried out.
#[test]
fn repeated_removal_leaves_later_events() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..2));
    let claimed = claim(&spool, 2).unwrap();
    spool
        .database
        .write(Durability::Synced, |database, batch| {
            for place in &claimed.places {
                let key = keys::event(TableNumber(1), place.sequence);
                batch.delete_cf(database.family(keys::EVENTS)?, key);
            }
            batch.delete_cf(database.family(keys::BATCHES)?, keys::table(TableNumber(1)));
            Ok(())
        })
        .unwrap();
    spool.database.close();
    append(&spool, &events(2..5));
    let before = size(&spool);
    spool.complete("events", &claimed).unwrap();
    assert_eq!((size(&spool), events_of(&spool, "events")), (before, (3, 0)));
    assert_eq!(numbers(&claim(&spool, 100).unwrap()), [2, 3, 4]);
}

#[test]
fn tables_without_events_are_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let spool = Spool::open(directory.path(), LIMIT).unwrap();
        for n in 0..MAX_TABLES {
            let table = format!("t{round}_{n}");
            let event = RecordedEvent { table: table.clone(), ..event(n, Priority::High) };
            assert_eq!(append(&spool, &[event]), [true]);
            let claimed = spool.claim(&table, 1, 1).unwrap().unwrap();
            spool.complete(&table, &claimed).unwrap();
        }
    }
}

#[test]
fn unreadable_event_leaves_its_batch_to_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..3));
    spool
        .database
        .write(Durability::Synced, |database, batch| {
            let key = keys::event(TableNumber(1), EventSequence(2));
            batch.put_cf(database.family(keys::EVENTS)?, key, b"\xff");
            Ok(())
        })
        .unwrap();
    let claimed = claim(&spool, 100).unwrap();
    assert_eq!((numbers(&claimed), claimed.unreadable.len()), (vec![0, 2], 1));
    spool.complete("events", &claimed).unwrap();
    assert_eq!(claim(&spool, 100), None);
}
