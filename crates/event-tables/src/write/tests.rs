use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;
use tidewater_events::{DEFAULT_TABLE, NoteMap, NoteStore};

use super::*;
use crate::testing::event;

/// Fault of a write when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The answer is lost.
    LostAnswer,
    /// The request is lost.
    LostRequest,
    /// The region forgets all writes before it has this one.
    Forgets,
    /// The region applies it, forgets all writes, and receives it again.
    AppliesAndForgets,
}

#[derive(Debug, Default)]
struct State {
    /// Events of the table, in order.
    rows: Vec<u64>,
    /// Known writes; `true`: applied.
    writes: BTreeMap<u64, bool>,
    opened: u64,
    faults: VecDeque<Fault>,
    misfits: Vec<u64>,
    /// Counts the tables of this name.
    table: u8,
    lookups: u64,
}

/// Append-only table that knows its writes until it forgets them.
#[derive(Debug, Default)]
struct TestTable(Mutex<State>);

struct TestWrite {
    number: u64,
    events: Vec<u64>,
}

fn number(id: &Uuid) -> u64 {
    id.as_u64_pair().1
}

fn numbers(events: &[&RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| number(&event.id)).collect()
}

impl State {
    fn apply(&mut self, write: &TestWrite) -> Sent {
        match self.writes.get_mut(&write.number) {
            None => Sent::Forgotten,
            Some(is_applied) => {
                if !*is_applied {
                    self.rows.extend(&write.events);
                }
                *is_applied = true;
                Sent::Written
            }
        }
    }
}

fn lost() -> HandlerError {
    HandlerError("connection reset".to_owned())
}

#[async_trait]
impl EventTarget for TestTable {
    type Write = TestWrite;

    async fn misfits(
        &self,
        events: &[&RecordedEvent],
    ) -> Result<Vec<(Uuid, String)>, HandlerError> {
        let state = self.0.lock();
        let misfits = events.iter().filter(|event| state.misfits.contains(&number(&event.id)));
        Ok(misfits.map(|event| (event.id, "it does not fit".to_owned())).collect())
    }

    async fn open(&self, events: &[&RecordedEvent]) -> Result<(TestWrite, Vec<u8>), HandlerError> {
        let mut state = self.0.lock();
        state.opened += 1;
        let write = TestWrite { number: state.opened, events: numbers(events) };
        state.writes.insert(write.number, false);
        let note = vec![state.table, u8::try_from(write.number).unwrap()];
        Ok((write, note))
    }

    async fn resume(
        &self,
        note: &[u8],
        events: &[&RecordedEvent],
    ) -> Result<Option<TestWrite>, HandlerError> {
        let is_same = note[0] == self.0.lock().table;
        let write = TestWrite { number: note[1].into(), events: numbers(events) };
        Ok(is_same.then_some(write))
    }

    async fn send(&self, write: TestWrite) -> Result<Sent, HandlerError> {
        let mut state = self.0.lock();
        match state.faults.pop_front() {
            Some(Fault::LostRequest) => return Err(lost()),
            Some(Fault::LostAnswer) => {
                state.apply(&write);
                return Err(lost());
            }
            Some(Fault::AppliesAndForgets) => {
                state.apply(&write);
                state.writes.clear();
            }
            Some(Fault::Forgets) => state.writes.clear(),
            None => {}
        }
        Ok(state.apply(&write))
    }

    async fn present(&self, events: &[&RecordedEvent]) -> Result<BTreeSet<Uuid>, HandlerError> {
        let mut state = self.0.lock();
        state.lookups += 1;
        let found = events.iter().filter(|event| state.rows.contains(&number(&event.id)));
        Ok(found.map(|event| event.id).collect())
    }

    async fn put_shared(&self, event: &RecordedEvent) -> Result<(), HandlerError> {
        let mut state = self.0.lock();
        let number = number(&event.id);
        if !state.rows.contains(&number) {
            state.rows.push(number);
        }
        Ok(())
    }
}

fn batch(numbers: &[u64]) -> EventBatch {
    let events = numbers.iter().map(|number| event(*number, "a", vec![])).collect();
    EventBatch::new(DEFAULT_TABLE, events, Notes::in_memory())
}

impl TestTable {
    fn with_faults(faults: &[Fault]) -> Self {
        let faults = faults.iter().copied().collect();
        Self(Mutex::new(State { faults, ..State::default() }))
    }

    /// Passes a batch until it is complete.
    async fn write(&self, batch: &EventBatch) -> Handled {
        for _ in 0..10 {
            if let Ok(handled) = write_batch(self, batch).await {
                return handled;
            }
        }
        panic!("the batch is not complete: {self:?}");
    }

    fn rows(&self) -> Vec<u64> {
        let mut rows = self.0.lock().rows.clone();
        rows.sort_unstable();
        rows
    }
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
