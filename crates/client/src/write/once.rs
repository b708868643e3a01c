//! Writes that take effect once, also over restarts of the process.
//!
//! - *Once write* ([`OnceWrite`]): rows of one call, cut into pieces. Each piece has the identity of its write: producer,
//!   opening, serial and origin.
//! - *Note* ([`OnceWrite::note`]): these identities, encoded. The caller stores the note before it sends the rows. After a
//!   restart it resumes the write with the note and the same rows: regions that have applied them add nothing.
//! - *Stream* ([`OnceStream`]): producer and next serial in one region. A write takes a stream and returns it once the region
//!   has acknowledged the rows, so that a sequence of writes opens a producer once for each region.
//! - *Forgotten* ([`ForgottenRows`]): a region remembers a limited number of producers (4,096), and has applied the rows, or
//!   not, under one that it does not know any more. The caller fences the write, looks up which rows the table has, and
//!   writes the others anew.
//! - *Fence* ([`OnceWriter::fence`], `fence`): another opening of the producer in the region. From then on, no late attempt of the
//!   earlier opening takes effect.
//! - *Noted write* ([`NotedWrite`]): a write whose rows are not known any more, e.g. since the caller cannot read them. It
//!   cannot be resumed. The caller fences it, too ([`OnceWriter::fence_noted`]): a write without rows takes its serial.
//!
//! Rows that several processes have are written by [`Client::put_as`] (`put_as`).

mod empty;
mod fence;
mod note;
mod open;
mod put_as;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::future::join_all;
use parking_lot::Mutex;
use tidewater_common::ids::{ProducerId, RegionId, Sequence};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{Reason, RowOp};

pub use self::fence::{ForgottenRows, NotedWrite};
use self::note::Note;
pub use self::note::ResumeError;
use self::open::{Opened, open};
pub use self::put_as::PutAs;
use super::lane::{LaneWrite, WriterContext, cut};
use super::prepare::{Piece, PieceLimits, check};
use super::report::WriteReport;
use super::send::{OPENING, PieceOutcome, PieceSender, ProducerStreams, WriteIdentity};
use crate::catalog::TableInfo;
use crate::client::Client;
use crate::core::Core;
use crate::error::ClientError;
use crate::options::WriterOptions;
use crate::outcome::{Attempts, FailedAttempt};
use crate::router::Limits;
use crate::stale::StaleWaits;

/// Serial of a producer's first write with rows.
const FIRST: u64 = OPENING + 1;

/// Streams above which those of regions that no longer exist are dropped.
const MANY_STREAMS: usize = 256;

/// Stream without a write in progress.
#[derive(Debug, Clone, Copy)]
struct OnceStream {
    producer: ProducerId,
    next: u64,
    opening: Sequence,
}

/// Writes rows once, also over restarts of the process. One writer serves all tables.
///
/// A row is in its table once, whatever calls and processes end in between, if the note of its write is stored before
/// [`OnceWriter::send`], and a later call repeats the write from the note until its outcome is known.
#[derive(Debug)]
pub struct OnceWriter {
    client: Client,
    /// By the region in which they were opened.
    streams: Mutex<HashMap<RegionId, OnceStream>>,
}

/// Rows with the identities of their writes. Nothing has been sent by this process.
#[derive(Debug)]
#[must_use = "store its note, then send it"]
pub struct OnceWrite {
    /// The table for which the rows are encoded.
    table: Arc<TableInfo>,
    pieces: Vec<OncePiece>,
    /// An earlier call may have sent the rows.
    is_resumed: bool,
}

#[derive(Debug)]
struct OncePiece {
    piece: Piece,
    identity: WriteIdentity,
}

/// Outcome of a once write.
#[derive(Debug)]
#[must_use = "forgotten rows may be missing in the table"]
pub enum OnceOutcome {
    /// The table has each row once.
    Written(WriteReport),
    /// Regions do not know the write: the table may have any of the rows.
    Forgotten(ForgottenRows),
}

impl Client {
    /// Returns a writer of rows that take effect once over restarts of the process.
    pub fn once_writer(&self) -> OnceWriter {
        OnceWriter { client: self.clone(), streams: Mutex::default() }
    }
}

impl OnceWriter {
    /// Cuts rows in the schema of `table` by region, and opens a producer in each region that has none of this writer. No
    /// row is sent.
    ///
    /// # Errors
    /// [`ClientError::BadInput`] for rows that do not fit the table; [`ClientError::TableNotFound`],
    /// [`ClientError::NoRoute`], [`ClientError::Refused`] and [`ClientError::RetriesExhausted`]. No row takes effect.
    pub async fn open(
        &self,
        table: Arc<TableInfo>,
        rows: RecordBatch,
    ) -> Result<OnceWrite, ClientError> {
        let limits = Limits::of(self.client.options());
        let (table, pieces) = pieces(&self.client, table, rows, &limits).await?;
        let mut identified = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let identity = self.identity(&table, &piece, &limits).await?;
            identified.push(OncePiece { piece, identity });
        }
        Ok(OnceWrite { table, pieces: identified, is_resumed: false })
    }

    /// Restores a write from its note and the same rows, in the schema of `table` as it is now. Nothing is sent.
    ///
    /// # Errors
    /// [`ResumeError`]: the note is not of this table and these rows. [`ResumeError::OtherRows`] has the write, to be fenced.
    pub fn resume(
        &self,
        table: Arc<TableInfo>,
        note: &[u8],
        rows: &RecordBatch,
    ) -> Result<OnceWrite, ResumeError> {
        let Note { table: noted, pieces } = note::decode(note)?;
        if noted != table.id {
            let name = table.name.clone();
            return Err(ResumeError::OtherTable { name, noted, found: table.id });
        }
        let restored =
            check(&table, RowOp::Put, rows).and_then(|()| note::restore(&table, &pieces, rows));
        let problem = match restored {
            Ok(Some(pieces)) => return Ok(OnceWrite { table, pieces, is_resumed: true }),
            Ok(None) => "their number or their keys differ".to_owned(),
            Err(error) => error.to_string(),
        };
        let name = table.name.clone();
        Err(ResumeError::OtherRows { name, problem, write: NotedWrite::new(table, pieces) })
    }

    /// Sends the rows until each region has acknowledged them, or does not know the write.
    ///
    /// # Errors
    /// [`ClientError::Failed`] when no row takes effect under this note unless it is sent again;
    /// [`ClientError::Unknown`] and [`ClientError::Partial`] otherwise. After all of them, resume the write from its note.
    pub async fn send(&self, write: OnceWrite) -> Result<OnceOutcome, ClientError> {
        let OnceWrite { table, pieces, is_resumed } = write;
        let limits = Limits::of(self.client.options());
        let attempts = if is_resumed { earlier_attempts() } else { Attempts::default() };
        let core = &*self.client.core;
        let table_of_pieces = &table;
        let sent = join_all(pieces.into_iter().map(|OncePiece { piece, identity }| {
            let attempts = attempts.clone();
            async move {
                let sent = send_piece(core, table_of_pieces, piece, identity, attempts, limits);
                (identity, sent.await)
            }
        }))
        .await;
        let mut report = WriteReport::default();
        let mut parts = Vec::new();
        for (identity, outcome) in sent {
            if outcome.forgotten.is_empty() && outcome.report.is_whole() {
                self.keep_stream(identity);
            }
            report.add(outcome.report);
            parts.extend(outcome.forgotten.into_iter().map(|part| (identity, part)));
        }
        // Rows of an unknown piece may take effect later: the caller must not look them up yet.
        let report = report.into_result(&table.name)?;
        if parts.is_empty() {
            return Ok(OnceOutcome::Written(report));
        }
        Ok(OnceOutcome::Forgotten(ForgottenRows::new(table, parts)))
    }

    /// Returns the identity of a new write: the next of the region's stream, or the first of a new producer.
    async fn identity(
        &self,
        table: &TableInfo,
        piece: &Piece,
        limits: &Limits,
    ) -> Result<WriteIdentity, ClientError> {
        let known = self.streams.lock().remove(&piece.region);
        if let Some(OnceStream { producer, next, opening }) = known {
            return Ok(WriteIdentity { producer, serial: next, origin: piece.region, opening });
        }
        let producer = ProducerId(self.client.options().ids.next());
        let core = &self.client.core;
        match open(core, table, &piece.first_key, (producer, None), limits).await? {
            Opened::As { route, opening } => {
                Ok(WriteIdentity { producer, serial: FIRST, origin: route.region, opening })
            }
            Opened::HasWritten(refusal) => {
                let what = format!("opening the new producer {producer}");
                Err(ClientError::Refused { what, refusal })
            }
        }
    }

    /// Keeps the stream of an acknowledged write for the next one.
    fn keep_stream(&self, identity: WriteIdentity) {
        let catalog = self.client.catalog();
        let WriteIdentity { producer, serial, origin, opening } = identity;
        let Some(next) = serial.checked_add(1) else { return };
        let mut streams = self.streams.lock();
        if streams.len() >= MANY_STREAMS {
            streams.retain(|region, _| catalog.route(*region).is_some());
        }
        if catalog.route(origin).is_some() {
            streams.insert(origin, OnceStream { producer, next, opening });
        }
    }
}

impl OnceWrite {
    /// Returns the note, from which [`OnceWriter::resume`] restores the write.
    pub fn note(&self) -> Vec<u8> {
        note::encode(self.table.id, &self.pieces)
    }
}

/// Cuts rows by region, for the table as it is now, which is also returned.
async fn pieces(
    client: &Client,
    table: Arc<TableInfo>,
    rows: RecordBatch,
    limits: &Limits,
) -> Result<(Arc<TableInfo>, Vec<Piece>), ClientError> {
    check(&table, RowOp::Put, &rows)?;
    let options = WriterOptions::default();
    let piece_limits = PieceLimits { rows: options.max_write_rows, bytes: options.max_write_bytes };
    let core = Arc::clone(&client.core);
    let context = WriterContext { core, table, limits: piece_limits };
    cut(&context, LaneWrite { op: RowOp::Put, rows: vec![rows] }, limits).await
}

async fn send_piece(
    core: &Core,
    table: &Arc<TableInfo>,
    piece: Piece,
    identity: WriteIdentity,
    attempts: Attempts,
    limits: Limits,
) -> PieceOutcome {
    let mut sender = PieceSender {
        core,
        table: Arc::clone(table),
        op: RowOp::Put,
        limits,
        streams: ProducerStreams::default(),
        stale: StaleWaits::default(),
    };
    sender.send_noted(piece, identity, attempts).await
}

/// Attempts of a write that an earlier call may have sent.
fn earlier_attempts() -> Attempts {
    let refusal = Refusal::new(Reason::Unavailable, "an earlier call ended without an answer");
    let mut attempts = Attempts::default();
    attempts.record(&FailedAttempt { refusal, effect: Effect::Unknown, silent: true });
    attempts
}
