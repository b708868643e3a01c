mod test_table;

use tidewater_events::{DEFAULT_TABLE, NoteMap, NoteStore};

use self::test_table::{Fault, TestTable, TestWrite, number};
use super::*;
use crate::testing::event;

fn batch(numbers: &[u64]) -> EventBatch {
    let events = numbers.iter().map(|number| event(*number, "a", vec![])).collect();
    EventBatch::new(DEFAULT_TABLE, events, Notes::in_memory())
}

#[tokio::test]
async fn each_event_is_written_once_despite_faults() {
    use Fault::{AppliesAndForgets, Forgets, LostAnswer, LostRequest};
    let faults: &[&[Fault]] = &[
        &[],
        &[LostRequest],
        &[LostAnswer],
        &[LostAnswer, LostAnswer],
        &[Forgets],
        &[AppliesAndForgets],
        &[LostAnswer, Forgets],
        &[LostRequest, Forgets, LostAnswer, Forgets],
        &[LostAnswer, AppliesAndForgets, LostRequest],
        &[Forgets, Forgets, LostAnswer],
        &[Forgets; 5],
    ];
    for faults in faults {
        let table = TestTable::with_faults(faults);
        let batch = batch(&[1, 2, 3]);
        assert_eq!(table.write(&batch).await, Handled::default(), "{faults:?}");
        // The recorder was killed before it has removed the batch.
        assert_eq!(table.write(&batch).await, Handled::default(), "{faults:?}");
        assert_eq!(table.rows(), [1, 2, 3], "{faults:?}");
    }
}

#[tokio::test]
async fn batch_costs_one_write_and_no_lookup() {
    let table = TestTable::default();
    table.write(&batch(&[1, 2, 3])).await;
    table.write(&batch(&[4])).await;
    let state = table.0.lock();
    assert_eq!((state.opened, state.lookups), (2, 0));
}

#[tokio::test]
async fn events_that_a_forgotten_write_lacks_are_written() {
    let table = TestTable::with_faults(&[Fault::Forgets]);
    table.0.lock().rows = vec![2];
    table.write(&batch(&[1, 2, 3])).await;
    assert_eq!(table.rows(), [1, 2, 3]);
}

#[tokio::test]
async fn misfits_do_not_hold_up_others() {
    let table = TestTable::default();
    table.0.lock().misfits = vec![2];
    let handled = table.write(&batch(&[1, 2, 3])).await;
    assert_eq!(handled.set_aside, [(Uuid::from_u128(2), "it does not fit".to_owned())]);
    assert_eq!(table.rows(), [1, 3]);
}

#[tokio::test]
async fn misfit_that_fits_later_is_written_once() {
    let table = TestTable::with_faults(&[Fault::LostAnswer, Fault::LostRequest]);
    table.0.lock().misfits = vec![2];
    let batch = batch(&[1, 2, 3]);
    write_batch(&table, &batch).await.unwrap_err();
    // Others of the same write may become misfits: the write is repeated as it was noted.
    table.0.lock().misfits = vec![1];
    assert_eq!(table.write(&batch).await, Handled::default());
    assert_eq!(table.rows(), [1, 2, 3]);
}

#[tokio::test]
async fn batch_is_written_anew_to_a_recreated_table() {
    let table = TestTable::with_faults(&[Fault::LostAnswer]);
    let batch = batch(&[1, 2]);
    write_batch(&table, &batch).await.unwrap_err();
    {
        let mut state = table.0.lock();
        state.table += 1;
        state.rows.clear();
    }
    table.write(&batch).await;
    assert_eq!(table.rows(), [1, 2]);
}

#[tokio::test]
async fn begun_write_without_rows_is_fenced() {
    for fault in [Fault::LostAnswer, Fault::LostRequest] {
        let table = TestTable::with_faults(&[fault]);
        let batch = batch(&[1, 2, 3]);
        write_batch(&table, &batch).await.unwrap_err();
        table.0.lock().lost_rows = true;
        assert_eq!(table.write(&batch).await, Handled::default(), "{fault:?}");
        let late = TestWrite { number: 1, events: vec![1, 2, 3] };
        assert_eq!(table.0.lock().apply(&late), Sent::Forgotten);
        assert_eq!(table.rows(), [1, 2, 3], "{fault:?}");
    }
}

#[tokio::test]
async fn fenced_write_leaves_settled_events_alone() {
    // The first write has event 2 only, is forgotten, and events 1 and 3 are begun anew.
    let table = TestTable::with_faults(&[Fault::Forgets, Fault::LostRequest]);
    table.0.lock().rows = vec![2];
    let batch = batch(&[1, 2, 3]);
    write_batch(&table, &batch).await.unwrap_err();
    {
        let mut state = table.0.lock();
        state.lost_rows = true;
        // Event 2 has expired meanwhile.
        state.rows.clear();
    }
    table.write(&batch).await;
    assert_eq!(table.rows(), [1, 3]);
}

#[tokio::test]
async fn shared_events_are_put_one_by_one() {
    let table = TestTable::default();
    let mut shared = event(7, "a", vec![]);
    shared.id = uuid::Builder::from_custom_bytes(7_u128.to_be_bytes()).into_uuid();
    let id = number(&shared.id);
    table.0.lock().rows = vec![id];
    let events = vec![event(1, "a", vec![]), shared];
    let batch = EventBatch::new(DEFAULT_TABLE, events, Notes::in_memory());
    table.write(&batch).await;
    assert_eq!(table.rows(), [1, id]);
    assert_eq!(table.0.lock().opened, 1);
}

/// Store without room.
#[derive(Debug)]
struct FullNotes;

#[async_trait]
impl NoteStore for FullNotes {
    async fn all(&self) -> Result<NoteMap, HandlerError> {
        Ok(NoteMap::new())
    }

    async fn put(&self, _key: &[u8], _note: &[u8]) -> Result<(), HandlerError> {
        Err(HandlerError("the disk is full".to_owned()))
    }
}

#[tokio::test]
async fn rows_are_not_sent_without_their_note() {
    let table = TestTable::default();
    let events = vec![event(1, "a", vec![])];
    let batch = EventBatch::new(DEFAULT_TABLE, events, Notes::new(FullNotes));
    let error = write_batch(&table, &batch).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
    assert!(table.rows().is_empty());
}
