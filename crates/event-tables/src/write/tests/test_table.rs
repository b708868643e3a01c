//! Append-only table in memory.

use std::collections::{BTreeMap, VecDeque};

use parking_lot::Mutex;

use super::*;

/// Fault of a write when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
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
pub(super) struct State {
    /// Events of the table, in order.
    pub(super) rows: Vec<u64>,
    /// Known writes; `true`: applied.
    writes: BTreeMap<u64, bool>,
    pub(super) opened: u64,
    faults: VecDeque<Fault>,
    pub(super) misfits: Vec<u64>,
    /// Counts the tables of this name.
    pub(super) table: u8,
    pub(super) lookups: u64,
    /// The rows of a begun write are not known any more.
    pub(super) lost_rows: bool,
}

/// Append-only table that knows its writes until it forgets them.
#[derive(Debug, Default)]
pub(super) struct TestTable(pub(super) Mutex<State>);

pub(super) struct TestWrite {
    pub(super) number: u64,
    pub(super) events: Vec<u64>,
}

pub(super) fn number(id: &Uuid) -> u64 {
    id.as_u64_pair().1
}

fn numbers(events: &[&RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| number(&event.id)).collect()
}

impl State {
    pub(super) fn apply(&mut self, write: &TestWrite) -> Sent {
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
    ) -> Result<Resumed<TestWrite>, HandlerError> {
        let mut state = self.0.lock();
        let number = u64::from(note[1]);
        if note[0] != state.table {
            return Ok(Resumed::TableDropped);
        }
        if state.lost_rows {
            // Later attempts are of a write that the table does not know.
            state.writes.remove(&number);
            return Ok(Resumed::Fenced);
        }
        Ok(Resumed::Write(TestWrite { number, events: numbers(events) }))
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

impl TestTable {
    pub(super) fn with_faults(faults: &[Fault]) -> Self {
        let faults = faults.iter().copied().collect();
        Self(Mutex::new(State { faults, ..State::default() }))
    }

    /// Passes a batch until it is complete.
    pub(super) async fn write(&self, batch: &EventBatch) -> Handled {
        for _ in 0..10 {
            if let Ok(handled) = write_batch(self, batch).await {
                return handled;
            }
        }
        panic!("the batch is not complete: {self:?}");
    }

    pub(super) fn rows(&self) -> Vec<u64> {
        let mut rows = self.0.lock().rows.clone();
        rows.sort_unstable();
        rows
    }
}
