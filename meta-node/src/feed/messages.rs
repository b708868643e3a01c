//! Encoding of the catalog as gRPC messages in shared pieces.
//!
//! A protobuf message is the concatenation of its fields: each topic's records are encoded once, and the
//! messages to all watchers are made of the same pieces, whatever topics they ask for.
//!
//! An *encoded message* is one gRPC message: a flag (0: not compressed) and the length, then the message.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{Message, encode_length_delimiter};
use tidewater_common::ids::{Incarnation, Revision};
use tidewater_proto::v1::{self, CatalogDelta, CatalogSnapshot, watch_event::Event};

use super::topics::{TOPICS, TopicSet};
use crate::catalog::MetaState;

/// Size of a piece of a snapshot, in bytes, at which the next one begins. A watcher that is slow keeps only
/// the pieces in its queue alive.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// Small records that are encoded together.
const SMALL_RECORDS: usize = 64;
/// Tags of `WatchEvent.snapshot` and `WatchEvent.delta`: field number and wire type.
const SNAPSHOT_TAG: u8 = 1 << 3 | 2;
const DELTA_TAG: u8 = 2 << 3 | 2;
/// Size of the flag and the length.
const HEADER_BYTES: usize = 5;

/// One gRPC message, in pieces.
pub(crate) type EncodedMessage = Vec<Bytes>;

/// The catalog at one revision.
#[derive(Debug)]
pub(crate) struct EncodedSnapshot {
    pub(crate) incarnation: Incarnation,
    pub(crate) revision: Revision,
    head: Bytes,
    parts: [Vec<Bytes>; TOPICS.len()],
}

impl EncodedSnapshot {
    /// Encodes a state. Takes time for every record.
    pub(crate) fn new(state: &MetaState) -> Self {
        let header = state.header();
        let head = CatalogSnapshot {
            cluster_id: header.cluster_id.map_or_else(String::new, |id| id.to_string()),
            incarnation: header.incarnation.get(),
            revision: header.revision.get(),
            catalog_version: state.catalog_version().get(),
            has_table_changes: true,
            next_route_id: state.next_route_id().get(),
            ..CatalogSnapshot::default()
        };
        let nodes = pieces(state.nodes(), SMALL_RECORDS, |nodes| {
            let mut nodes: Vec<v1::Node> = nodes.map(|node| node.as_ref().into()).collect();
            state.publish_starts(&mut nodes);
            CatalogSnapshot { nodes, ..CatalogSnapshot::default() }
        });
        let groups = pieces(state.groups(), SMALL_RECORDS, |groups| {
            let groups = groups.map(|group| group.as_ref().into()).collect();
            CatalogSnapshot { groups, ..CatalogSnapshot::default() }
        });
        let tables = pieces(state.tables(), 1, |tables| {
            let mut tables: Vec<v1::Table> = tables.map(|table| table.as_ref().into()).collect();
            state.publish_changes(&mut tables);
            CatalogSnapshot { tables, ..CatalogSnapshot::default() }
        });
        let routes = pieces(state.routes_by_start(), SMALL_RECORDS, |routes| {
            let routes = routes.map(|route| route.as_ref().into()).collect();
            CatalogSnapshot { routes, ..CatalogSnapshot::default() }
        });
        let hooks = pieces(state.hooks(), 1, |hooks| {
            let hooks = hooks.map(|hook| hook.as_ref().into()).collect();
            CatalogSnapshot { hooks, ..CatalogSnapshot::default() }
        });
        Self {
            incarnation: header.incarnation,
            revision: header.revision,
            head: head.encode_to_vec().into(),
            parts: [nodes, groups, tables, routes, hooks],
        }
    }

    /// The watch event with the records of some topics.
    pub(crate) fn event(&self, topics: TopicSet) -> EncodedMessage {
        let pieces = topics.select(&self.parts).flatten();
        event_message(SNAPSHOT_TAG, std::iter::once(&self.head).chain(pieces).cloned().collect())
    }

    /// The whole catalog as a message of its own.
    pub(crate) fn message(&self) -> EncodedMessage {
        let pieces = TopicSet::ALL.select(&self.parts).flatten();
        let pieces: Vec<Bytes> = std::iter::once(&self.head).chain(pieces).cloned().collect();
        let length = length_of(&pieces);
        std::iter::once(header(length, &[])).chain(pieces).collect()
    }
}

/// A change of the catalog.
#[derive(Debug)]
pub(crate) struct EncodedDelta {
    head: Bytes,
    parts: [Bytes; TOPICS.len()],
    /// The event with all topics: what clients watch.
    whole: Bytes,
}

impl EncodedDelta {
    /// Encodes a stored delta as `state` publishes it.
    pub(crate) fn new(stored: &CatalogDelta, state: &MetaState) -> Self {
        let delta = state.published_delta(stored);
        let empty = CatalogDelta::default;
        let head = CatalogDelta {
            revision: delta.revision,
            previous_catalog_version: delta.previous_catalog_version,
            catalog_version: delta.catalog_version,
            next_route_id: delta.next_route_id,
            ..empty()
        };
        let parts = [
            CatalogDelta {
                node_upserts: delta.node_upserts,
                node_deletes: delta.node_deletes,
                ..empty()
            },
            CatalogDelta { group_upserts: delta.group_upserts, ..empty() },
            CatalogDelta {
                table_upserts: delta.table_upserts,
                table_deletes: delta.table_deletes,
                ..empty()
            },
            CatalogDelta {
                route_upserts: delta.route_upserts,
                route_deletes: delta.route_deletes,
                ..empty()
            },
            CatalogDelta {
                hook_upserts: delta.hook_upserts,
                hook_deletes: delta.hook_deletes,
                ..empty()
            },
        ];
        let head = Bytes::from(head.encode_to_vec());
        let parts = parts.map(|part| Bytes::from(part.encode_to_vec()));
        let whole = delta_event(&head, parts.iter());
        Self { head, parts, whole }
    }

    /// The watch event with the changes of some topics, in one piece. An event without changes moves the
    /// watcher's revision.
    pub(crate) fn event(&self, topics: TopicSet) -> Bytes {
        if topics == TopicSet::ALL {
            return self.whole.clone();
        }
        delta_event(&self.head, topics.select(&self.parts))
    }

    /// Memory of the pieces, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        2 * self.whole.len()
    }
}

/// Event with the newest revision, for a watcher that has it.
pub(crate) fn current_revision(revision: Revision) -> Bytes {
    let event = v1::WatchEvent { event: Some(Event::CurrentRevision(revision.get())) };
    let message = event.encode_to_vec();
    [header(message.len(), &[]).as_ref(), &message].concat().into()
}

/// Number of bytes of an encoded message.
pub(crate) fn length_of(message: &[Bytes]) -> usize {
    message.iter().map(Bytes::len).sum()
}

fn delta_event<'a>(head: &'a Bytes, parts: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let pieces = std::iter::once(head).chain(parts).cloned().collect();
    event_message(DELTA_TAG, pieces).concat().into()
}

/// Returns the message of a watch event whose only field has these pieces.
fn event_message(tag: u8, mut pieces: Vec<Bytes>) -> EncodedMessage {
    let length = length_of(&pieces);
    let mut field = BytesMut::new();
    field.put_u8(tag);
    // The buffer grows: there is always room.
    let _ = encode_length_delimiter(length, &mut field);
    pieces.insert(0, header(field.len() + length, &field));
    pieces
}

/// Returns the flag and the length of a message of `length` bytes, and `start`, its first bytes.
fn header(length: usize, start: &[u8]) -> Bytes {
    let mut header = BytesMut::with_capacity(HEADER_BYTES + start.len());
    header.put_u8(0);
    // Messages above the limit are refused before they are sent.
    header.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    header.put_slice(start);
    header.freeze()
}

/// Encodes records in messages of `together` each, cut into pieces.
fn pieces<T>(
    records: impl Iterator<Item = T>,
    together: usize,
    message: impl Fn(&mut dyn Iterator<Item = T>) -> CatalogSnapshot,
) -> Vec<Bytes> {
    let mut records = records.peekable();
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    while records.peek().is_some() {
        let encoded = message(&mut records.by_ref().take(together)).encode_to_vec();
        if !piece.is_empty() && piece.len() + encoded.len() > PIECE_BYTES {
            pieces.push(Bytes::from(std::mem::take(&mut piece)));
        }
        piece.extend_from_slice(&encoded);
    }
    pieces.extend((!piece.is_empty()).then(|| Bytes::from(piece)));
    pieces
}

#[cfg(test)]
mod tests;
