//! Writes the events of a batch, each once.
//!
//! Three things protect own events, and none of them replaces another:
//! - the note of a write is stored before its rows are sent, and an earlier note is resumed first ([`write_own`]);
//! - the recorder removes events only after this call has returned without an error;
//! - a write that is forgotten, or cannot be repeated, is fenced, and a look-up follows ([`settle`], [`resume`]).

use std::collections::BTreeSet;

use async_trait::async_trait;
use tidewater_events::{EventBatch, Handled, HandlerError, Notes, RecordedEvent, is_shared};
use uuid::Uuid;

use crate::note::{BegunWrite, WriteNote};

/// Writes of one call. More than one is needed only if regions forget writes.
const MAX_WRITES: usize = 3;

/// Outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// The table has each event once.
    Written,
    /// The table may have some of the events, and no attempt of the write takes effect any more.
    Forgotten,
}

/// Write of an earlier call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumed<W> {
    /// It is to be sent again.
    Write(W),
    /// It cannot be sent again, and no attempt of it takes effect any more. The table may have some of
    /// the events.
    Fenced,
    /// Its table was dropped, and no attempt of it takes effect any more. Another table has its name.
    TableDropped,
}

/// Table that takes events.
#[async_trait]
pub(crate) trait EventTarget: Sync {
    /// A write that can be sent.
    type Write: Send;

    /// Returns the events that the table can never take, with the reasons. It has the columns of the others then.
    async fn misfits(&self, events: &[&RecordedEvent])
    -> Result<Vec<(Uuid, String)>, HandlerError>;

    /// Begins a write; returns it and its note. Sends no rows.
    async fn open(&self, events: &[&RecordedEvent])
    -> Result<(Self::Write, Vec<u8>), HandlerError>;

    /// Restores a write from its note and its events, or ends it. `events`: those of the note that the batch has; a release
    /// may be unable to read some of them.
    async fn resume(
        &self,
        note: &[u8],
        events: &[&RecordedEvent],
    ) -> Result<Resumed<Self::Write>, HandlerError>;

    /// Sends the rows. After an error, the outcome may be unknown.
    async fn send(&self, write: Self::Write) -> Result<Sent, HandlerError>;

    /// Returns which of these events the table has.
    async fn present(&self, events: &[&RecordedEvent]) -> Result<BTreeSet<Uuid>, HandlerError>;

    /// Writes an event that other nodes write, too.
    async fn put_shared(&self, event: &RecordedEvent) -> Result<(), HandlerError>;
}

/// Writes the events of a batch, each once over all calls with this batch.
pub(crate) async fn write_batch<T: EventTarget>(
    target: &T,
    batch: &EventBatch,
) -> Result<Handled, HandlerError> {
    let (shared, own): (Vec<&RecordedEvent>, Vec<&RecordedEvent>) =
        batch.events().iter().partition(|event| is_shared(event.id));
    let mut set_aside = Vec::new();
    write_own(target, batch.notes(), &own, &mut set_aside).await?;
    write_shared(target, &shared, &mut set_aside).await?;
    Ok(Handled { set_aside })
}

/// Writes own events: first those of an earlier call's write, then the others.
async fn write_own<T: EventTarget>(
    target: &T,
    notes: &Notes,
    events: &[&RecordedEvent],
    set_aside: &mut Vec<(Uuid, String)>,
) -> Result<(), HandlerError> {
    // Without the earlier note, a retry would write its events under another identity, and add them again.
    let WriteNote { mut settled, begun } = WriteNote::read(notes).await?;
    if let Some(begun) = begun {
        resume(target, &begun, events, &mut settled).await?;
    }
    let mut left = without(events, |id| settled.contains(id));
    for _ in 0..MAX_WRITES {
        let fitting = set_aside_misfits(target, &left, set_aside).await?;
        if fitting.is_empty() {
            return Ok(());
        }
        let (write, note) = target.open(&fitting).await?;
        let begun = BegunWrite { events: ids(&fitting), write: note };
        // Before the rows are sent: after a crash, the write may have taken effect.
        WriteNote { settled: settled.clone(), begun: Some(begun) }.store(notes).await?;
        settle(target, write, &fitting, &mut settled).await?;
        left = without(&fitting, |id| settled.contains(id));
    }
    if left.is_empty() {
        return Ok(());
    }
    let left = left.len();
    Err(HandlerError(format!("the regions have forgotten {MAX_WRITES} writes of {left} events")))
}

/// Settles the events of an earlier call's write.
async fn resume<T: EventTarget>(
    target: &T,
    begun: &BegunWrite,
    events: &[&RecordedEvent],
    settled: &mut BTreeSet<Uuid>,
) -> Result<(), HandlerError> {
    let of_write = without(events, |id| !begun.events.contains(id));
    match target.resume(&begun.write, &of_write).await? {
        Resumed::Write(write) => settle(target, write, &of_write, settled).await?,
        Resumed::Fenced => settled.extend(target.present(&of_write).await?),
        // The new table may be a clone of the earlier one, with its events.
        Resumed::TableDropped => *settled = target.present(events).await?,
    }
    Ok(())
}

/// Sends a write, and adds the events that the table has to the settled ones.
async fn settle<T: EventTarget>(
    target: &T,
    write: T::Write,
    events: &[&RecordedEvent],
    settled: &mut BTreeSet<Uuid>,
) -> Result<(), HandlerError> {
    match target.send(write).await? {
        Sent::Written => settled.extend(ids(events)),
        // The write may have taken effect before it was forgotten: events that the table has must not be sent again.
        Sent::Forgotten => settled.extend(target.present(events).await?),
    }
    Ok(())
}

async fn write_shared<T: EventTarget>(
    target: &T,
    events: &[&RecordedEvent],
    set_aside: &mut Vec<(Uuid, String)>,
) -> Result<(), HandlerError> {
    let fitting = set_aside_misfits(target, events, set_aside).await?;
    if fitting.is_empty() {
        return Ok(());
    }
    // A new leader records events again: most are there, and each write would open a producer.
    let present = target.present(&fitting).await?;
    for event in without(&fitting, |id| present.contains(id)) {
        target.put_shared(event).await?;
    }
    Ok(())
}

/// Sets misfits aside, and returns the other events.
async fn set_aside_misfits<'a, T: EventTarget>(
    target: &T,
    events: &[&'a RecordedEvent],
    set_aside: &mut Vec<(Uuid, String)>,
) -> Result<Vec<&'a RecordedEvent>, HandlerError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let misfits = target.misfits(events).await?;
    let fitting = without(events, |id| misfits.iter().any(|(misfit, _)| misfit == id));
    set_aside.extend(misfits);
    Ok(fitting)
}

fn without<'a>(
    events: &[&'a RecordedEvent],
    is_left_out: impl Fn(&Uuid) -> bool,
) -> Vec<&'a RecordedEvent> {
    events.iter().copied().filter(|event| !is_left_out(&event.id)).collect()
}

fn ids(events: &[&RecordedEvent]) -> Vec<Uuid> {
    events.iter().map(|event| event.id).collect()
}

#[cfg(test)]
mod tests;
