//! Note about a batch: events that its table has, and the write that was begun after them.

use std::collections::BTreeSet;
use std::fmt::Display;

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
        let notes = notes.all().await?;
        match notes.get(KEY) {
            Some(note) => Self::decode(note),
            None if notes.is_empty() => Ok(Self::default()),
            None => Err(unreadable(&"it has another key")),
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
        let note = v1::EventWriteNote::decode(note).map_err(|error| unreadable(&error))?;
        let id = |bytes: &Bytes| Uuid::from_slice(bytes).map_err(|error| unreadable(&error));
        let settled = note.settled.iter().map(id).collect::<Result<BTreeSet<_>, _>>()?;
        let events = note.begun.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let write = note.write.to_vec();
        let is_empty = settled.is_empty() && events.is_empty();
        if is_empty || events.is_empty() != write.is_empty() {
            // Fields that this release does not know are skipped.
            return Err(unreadable(&"a part of it is missing"));
        }
        let begun = (!events.is_empty()).then_some(BegunWrite { events, write });
        Ok(Self { settled, begun })
    }
}

/// Error about a note that cannot be read. The write that it names may have taken effect: its events cannot be written under
/// another one, and only an operator can decide to lose them.
pub(crate) fn unreadable(problem: &dyn Display) -> HandlerError {
    HandlerError(format!(
        "the note about a batch of events cannot be read: {problem}; start the release that wrote the event spool until the \
         spool is empty, or move the spool away (its events are lost)"
    ))
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

    /// Stores bytes under a key, and reads them as a note.
    async fn read(key: &[u8], note: &[u8]) -> String {
        let notes = Notes::in_memory();
        notes.put(key, note).await.unwrap();
        WriteNote::read(&notes).await.unwrap_err().to_string()
    }

    #[tokio::test]
    async fn damaged_notes_are_refused_with_the_remedy() {
        for bytes in [&b"\x0a\x02ab"[..], b"\xff"] {
            let text = read(KEY, bytes).await;
            assert!(text.contains("cannot be read"), "{text}");
            assert!(text.contains("start the release that wrote the event spool"), "{text}");
        }
    }

    #[tokio::test]
    async fn notes_of_other_releases_are_refused() {
        let id = Bytes::copy_from_slice(Uuid::from_u128(1).as_bytes());
        let events = v1::EventWriteNote { begun: vec![id], ..v1::EventWriteNote::default() };
        let write = Bytes::from_static(b"1");
        let write = v1::EventWriteNote { write, ..v1::EventWriteNote::default() };
        // Field 9 is unknown.
        for note in [events.encode_to_vec(), write.encode_to_vec(), b"\x48\x01".to_vec()] {
            let text = read(KEY, &note).await;
            assert!(text.contains("a part of it is missing"), "{text}");
        }
        let text = read(b"writes", b"1").await;
        assert!(text.contains("another key"), "{text}");
    }
}
