//! Note of a once write: the identities of its pieces, encoded.

use std::fmt::Display;

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{ProducerId, RegionId, Sequence, TableId};
use tidewater_common::quote::quoted;
use tidewater_common::rows::encode_batch;
use tidewater_proto::v1;

use super::fence::NotedWrite;
use super::{FIRST, OncePiece, WriteIdentity};
use crate::catalog::TableInfo;
use crate::error::ClientError;
use crate::write::prepare::Piece;

/// Note with which a write cannot be resumed. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// The note is damaged.
    #[error("the note of a write cannot be read: {0}")]
    Damaged(String),
    /// The note is of another table: the one with this name was dropped since, with all rows of the write.
    #[error("the note is of table id {noted}, and table {shown} has id {found}", shown = quoted(.name))]
    OtherTable {
        /// Name of the table.
        name: String,
        /// Id in the note.
        noted: TableId,
        /// Id of the table.
        found: TableId,
    },
    /// The rows are not those of the note, or do not fit the table.
    #[error("the rows for table {shown} are not those of the note: {problem}", shown = quoted(.name))]
    OtherRows {
        /// Name of the table.
        name: String,
        /// Difference between the rows and the note.
        problem: String,
        /// The write, which an earlier call may have sent.
        write: NotedWrite,
    },
}

/// Note of a once write, decoded.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) table: TableId,
    /// In key order; at least one.
    pub(super) pieces: Vec<NotedPiece>,
}

/// Rows of a note that are one write.
#[derive(Debug)]
pub(super) struct NotedPiece {
    pub(super) identity: WriteIdentity,
    pub(super) rows: u32,
    pub(super) first_key: Bytes,
    pub(super) last_key: Bytes,
}

pub(super) fn encode(table: TableId, pieces: &[OncePiece]) -> Vec<u8> {
    let pieces = pieces.iter().map(|OncePiece { piece, identity }| v1::OncePiece {
        producer_id: Bytes::copy_from_slice(identity.producer.as_bytes()),
        serial: identity.serial,
        origin_region_id: identity.origin.get(),
        opening: identity.opening.get(),
        row_count: piece.count,
        first_key: Bytes::copy_from_slice(&piece.first_key),
        last_key: Bytes::copy_from_slice(&piece.last_key),
    });
    v1::OnceNote { table_id: table.get(), pieces: pieces.collect() }.encode_to_vec()
}

/// Decodes a note.
///
/// # Errors
/// [`ResumeError::Damaged`].
pub(super) fn decode(note: &[u8]) -> Result<Note, ResumeError> {
    let note = v1::OnceNote::decode(note).map_err(|error| damaged(&error))?;
    if note.pieces.is_empty() {
        return Err(damaged(&"it has no pieces"));
    }
    let pieces = note.pieces.into_iter().map(noted_piece).collect::<Result<Vec<_>, _>>()?;
    Ok(Note { table: TableId(note.table_id), pieces })
}

fn damaged(problem: &dyn Display) -> ResumeError {
    ResumeError::Damaged(problem.to_string())
}

fn noted_piece(stored: v1::OncePiece) -> Result<NotedPiece, ResumeError> {
    let producer = ProducerId::from_slice(&stored.producer_id)
        .ok_or_else(|| damaged(&"a producer id has 16 bytes"))?;
    if stored.serial < FIRST {
        return Err(damaged(&format!("serial {} is not of a write with rows", stored.serial)));
    }
    let identity = WriteIdentity {
        producer,
        serial: stored.serial,
        origin: RegionId(stored.origin_region_id),
        opening: Sequence(stored.opening),
    };
    Ok(NotedPiece {
        identity,
        rows: stored.row_count,
        first_key: stored.first_key,
        last_key: stored.last_key,
    })
}

/// Returns the pieces of a note with their rows; `None`: the rows are not those of the note. `rows`: all of them, in any
/// order.
pub(super) fn restore(
    table: &TableInfo,
    noted: &[NotedPiece],
    rows: &RecordBatch,
) -> Result<Option<Vec<OncePiece>>, ClientError> {
    let sorted = table.codec.sorted(rows)?;
    let keys = table.codec.key_columns(&sorted);
    let mut pieces = Vec::with_capacity(noted.len());
    let mut at = 0_usize;
    for NotedPiece { identity, rows, first_key, last_key } in noted {
        let end = at.saturating_add(*rows as usize);
        if *rows == 0 || end > sorted.num_rows() {
            return Ok(None);
        }
        let piece = piece(table, (&sorted, keys.as_slice()), at..end, identity.origin)?;
        if *first_key != piece.first_key || *last_key != piece.last_key {
            return Ok(None);
        }
        pieces.push(OncePiece { piece, identity: *identity });
        at = end;
    }
    Ok((at == sorted.num_rows()).then_some(pieces))
}

fn piece(
    table: &TableInfo,
    (sorted, keys): (&RecordBatch, &[ArrayRef]),
    rows: std::ops::Range<usize>,
    region: RegionId,
) -> Result<Piece, ClientError> {
    let count = rows.len();
    let encoded = encode_batch(&sorted.slice(rows.start, count))
        .map_err(|error| ClientError::BadInput(format!("table {:?}: {error}", table.name)))?;
    Ok(Piece {
        region,
        rows: encoded,
        count: u32::try_from(count)
            .map_err(|_| ClientError::BadInput("more than 2^32 rows in a write".into()))?,
        first_key: table.codec.row_key(keys, rows.start)?,
        last_key: table.codec.row_key(keys, rows.end - 1)?,
    })
}
