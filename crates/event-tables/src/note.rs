//! Note about a batch: events that its table has, and the write that was begun after them.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message;
use tidewater_events::{HandlerError, Notes};
use tidewater_proto::v1;
use uuid::Uuid;

/// Key of the note. There is one, so that it changes as a whole.
const KEY: &[u8] = b"write";

/// Own events of a batch by their state. The others are not begun.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct WriteNote {
    /// Events that the table has.
    pub(crate) settled: BTreeSet<Uuid>,
    /// Write whose outcome may be unknown.
    pub(crate) begun: Option<BegunWrite>,
}

/// A write that may have been sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BegunWrite {
    /// Its events, in the order of the batch.
    pub(crate) events: Vec<Uuid>,
    /// Note of the client about it.
    pub(crate) write: Vec<u8>,
}

impl WriteNote {
    /// Reads the note of earlier calls; without one, no event is begun.
    pub(crate) async fn read(notes: &Notes) -> Result<Self, HandlerError> {
        match notes.all().await?.get(KEY) {
            Some(note) => Self::decode(note),
            None => Ok(Self::default()),
        }
    }

    /// Stores the note, durably.
    pub(crate) async fn store(&self, notes: &Notes) -> Result<(), HandlerError> {
        notes.put(KEY, &self.encode()).await
    }

    fn encode(&self) -> Vec<u8> {
        let bytes = |id: &Uuid| Bytes::copy_from_slice(id.as_bytes());
        let begun = self.begun.as_ref();
        let note = v1::EventWriteNote {
            settled: self.settled.iter().map(bytes).collect(),
            begun: begun.map(|begun| begun.events.iter().map(bytes).collect()).unwrap_or_default(),
            write: begun.map(|begun| Bytes::from(begun.write.clone())).unwrap_or_default(),
        };
        note.encode_to_vec()
    }

    fn decode(note: &[u8]) -> Result<Self, HandlerError> {
        let damaged = |error: &dyn std::fmt::Display| {
            HandlerError(format!("the note about a batch of events cannot be read: {error}"))
        };
        let note = v1::EventWriteNote::decode(note).map_err(|error| damaged(&error))?;
        let id = |bytes: &Bytes| Uuid::from_slice(bytes).map_err(|error| damaged(&error));
        let events = note.begun.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let write = note.write.to_vec();
        Ok(Self {
            settled: note.settled.iter().map(id).collect::<Result<_, _>>()?,
            begun: (!events.is_empty()).then_some(BegunWrite { events, write }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stored_notes_are_read_back() {
        let notes = Notes::in_memory();
        assert_eq!(WriteNote::read(&notes).await, Ok(WriteNote::default()));
        let ids = |ids: [u128; 2]| ids.map(Uuid::from_u128).to_vec();
        let begun = BegunWrite { events: ids([9, 3]), write: vec![1, 0, 255] };
        let settled: BTreeSet<_> = ids([1, 2]).into_iter().collect();
        for note in [
            WriteNote { settled: BTreeSet::new(), begun: Some(begun.clone()) },
            WriteNote { settled: settled.clone(), begun: Some(begun) },
            WriteNote { settled, begun: None },
        ] {
            note.store(&notes).await.unwrap();
            assert_eq!(WriteNote::read(&notes).await, Ok(note));
        }
        assert_eq!(notes.all().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn damaged_notes_are_refused() {
        for bytes in [&b"\x0a\x02ab"[..], b"\xff"] {
            let notes = Notes::in_memory();
            notes.put(KEY, bytes).await.unwrap();
            let error = WriteNote::read(&notes).await.unwrap_err();
            assert!(error.to_string().contains("cannot be read"), "{error}");
        }
    }
}
