//! Rows that several processes have, all of which write them under the same producer.
//!
//! Each call opens the producer, looks up the key, and sends the row as the producer's only write. Let two calls apply the
//! row in one region. Under one opening, the second is a repeat, which adds nothing. Under different openings, the region
//! forgot the producer in between: the later call looked up the key after the later opening, which is after the first row
//! was applied, and found it. The look-up is of the leader, which confirms its leadership.

use std::sync::Arc;

use arrow::array::RecordBatch;
use tidewater_common::ids::{ProducerId, RegionId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::open::{Opened, open};
use super::{FIRST, pieces, send_piece};
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::error::ClientError;
use crate::outcome::Attempts;
use crate::router::Limits;
use crate::write::prepare::Piece;
use crate::write::send::WriteIdentity;

/// Origin of the writes in all regions, so that a stream stays the same when its region is split between two calls. No
/// region has this id.
const ORIGIN: RegionId = RegionId(u64::MAX >> 1);

/// Openings that one call makes. A region forgets a producer between its opening and its row only if thousands of others are
/// opened, or it was replaced by others at this time.
const MAX_OPENINGS: u32 = 4;

/// Outcome of [`Client::put_as`]: the table has the row once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutAs {
    /// The region has acknowledged the row to this call, which may have been a repeat.
    Written,
    /// An earlier call has written the row.
    Present,
}

impl Client {
    /// Writes one row in the schema of `table` that other processes write, too. The table has the row once, whatever
    /// calls repeat it or end without an answer, at the same time or much later, if all writes of its key are such calls
    /// with the same `producer`, which writes nothing else. The row must not be deleted or expire before the last call.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] for other than one row, or one that does not fit the table. [`ClientError::Failed`],
    /// [`ClientError::Refused`] and others: this call has not written the row. [`ClientError::Unknown`]: it may have.
    /// After all of them, the call may be repeated.
    pub async fn put_as(
        &self,
        table: Arc<TableInfo>,
        row: RecordBatch,
        producer: ProducerId,
    ) -> Result<PutAs, ClientError> {
        let bad = |text: String| ClientError::BadInput(format!("table {:?}: {text}", table.name));
        if row.num_rows() != 1 {
            return Err(bad(format!("{} rows are given, but 1 is expected", row.num_rows())));
        }
        let limits = Limits::of(self.options());
        let (current, pieces) = pieces(self, Arc::clone(&table), row.clone(), &limits).await?;
        let [piece] = pieces.as_slice() else {
            return Err(bad(format!("the row was cut into {} pieces", pieces.len())));
        };
        let key = RecordBatch::try_new(table.schema.key_arrow(), table.codec.key_columns(&row))
            .map_err(|error| bad(error.to_string()))?;
        let put = SharedPut { client: self, table: current, piece, key, producer, limits };
        for round in 0..MAX_OPENINGS {
            match put.attempt().await {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(error) if round == 0 => return Err(error),
                Err(error) => return Err(put.unknown(&error)),
            }
            // The region may have been replaced by others, each with an opening of its own.
            self.core.refresh_catalog().await.map_err(|error| put.unknown(&error))?;
        }
        let text = "the region forgets the producer before each of its writes".to_owned();
        Err(put.unknown(&ClientError::BadInput(text)))
    }
}

/// A call of [`Client::put_as`].
struct SharedPut<'a> {
    client: &'a Client,
    table: Arc<TableInfo>,
    piece: &'a Piece,
    /// Key of the row.
    key: RecordBatch,
    producer: ProducerId,
    limits: Limits,
}

impl SharedPut<'_> {
    /// Writes the row under one opening. `None`: the region has forgotten it.
    async fn attempt(&self) -> Result<Option<PutAs>, ClientError> {
        let Self { client, table, piece, limits, .. } = self;
        let core = &client.core;
        let producer = self.producer;
        let opened = open(core, table, &piece.first_key, (producer, Some(ORIGIN)), limits).await?;
        let opening = match opened {
            Opened::As { opening, .. } => opening,
            Opened::HasWritten(_) => return Ok(Some(PutAs::Present)),
        };
        // After the opening, never before it: see the head of the module.
        if client.get(&table.name, &self.key, None).await?.num_rows() > 0 {
            return Ok(Some(PutAs::Present));
        }
        let identity = WriteIdentity { producer, serial: FIRST, origin: ORIGIN, opening };
        let piece = Piece::clone(piece);
        let sent = send_piece(core, table, piece, identity, Attempts::default(), *limits).await;
        if !sent.forgotten.is_empty() {
            return Ok(None);
        }
        sent.report.into_result(&table.name)?;
        Ok(Some(PutAs::Written))
    }

    /// Error after the row was sent.
    fn unknown(&self, error: &ClientError) -> ClientError {
        let cause = error.refusal().cloned();
        let cause =
            cause.unwrap_or_else(|| Refusal::new(Reason::ProducerForgotten, error.to_string()));
        ClientError::Unknown {
            table: self.table.name.clone(),
            acknowledged: 0,
            failed: 0,
            unknown: 1,
            cause: Box::new(cause),
        }
    }
}
