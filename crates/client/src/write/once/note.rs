//! Note of a once write: the identities of its pieces, encoded.

use arrow::array::{ArrayRef, RecordBatch};
use bytes::Bytes;
use prost::Message;
use tidewater_common::ids::{ProducerId, RegionId, Sequence, TableId};
use tidewater_common::quote::quoted;
use tidewater_common::rows::encode_batch;
use tidewater_proto::v1;

use super::{OncePiece, WriteIdentity};
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
    /// The rows are not those of the note.
    #[error("the rows for table {name} are not those of the note: pass the same rows", name = quoted(.0))]
    OtherRows(String),
    /// The rows do not fit the table.
    #[error(transparent)]
    Rows(#[from] ClientError),
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

/// Returns the pieces of a note. `rows`: all of its rows, in any order.
pub(super) fn restore(
    table: &TableInfo,
    note: &[u8],
    rows: &RecordBatch,
) -> Result<Vec<OncePiece>, ResumeError> {
    let note =
        v1::OnceNote::decode(note).map_err(|error| ResumeError::Damaged(error.to_string()))?;
    let noted = TableId(note.table_id);
    if noted != table.id {
        let name = table.name.clone();
        return Err(ResumeError::OtherTable { name, noted, found: table.id });
    }
    let sorted = table.codec.sorted(rows).map_err(ClientError::from)?;
    let keys = table.codec.key_columns(&sorted);
    let mut pieces = Vec::with_capacity(note.pieces.len());
    let mut at = 0_usize;
    for noted in &note.pieces {
        let identity = identity(noted)?;
        let end = at.saturating_add(noted.row_count as usize);
        let is_short = noted.row_count == 0 || end > sorted.num_rows();
        let piece =
            (!is_short).then(|| piece(table, (&sorted, keys.as_slice()), at..end, identity.origin));
        let piece = piece
            .transpose()?
            .filter(|piece| noted.first_key == piece.first_key && noted.last_key == piece.last_key);
        let Some(piece) = piece else { return Err(ResumeError::OtherRows(table.name.clone())) };
        pieces.push(OncePiece { piece, identity });
        at = end;
    }
    if at != sorted.num_rows() {
        return Err(ResumeError::OtherRows(table.name.clone()));
    }
    Ok(pieces)
}

fn identity(noted: &v1::OncePiece) -> Result<WriteIdentity, ResumeError> {
    let producer = ProducerId::from_slice(&noted.producer_id)
        .ok_or_else(|| ResumeError::Damaged("a producer id has 16 bytes".to_owned()))?;
    Ok(WriteIdentity {
        producer,
        serial: noted.serial,
        origin: RegionId(noted.origin_region_id),
        opening: Sequence(noted.opening),
    })
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
