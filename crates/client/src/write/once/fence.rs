//! Fences of once writes: of those that regions do not know, and of those that cannot be resumed.

use std::sync::Arc;

use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;

use super::OnceWriter;
use super::empty::{EmptyWrite, EmptyWriteAnswer, EmptyWriteDecision, send_empty};
use super::note::NotedPiece;
use super::open::{Opened, open};
use crate::catalog::{RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::router::Limits;
use crate::write::send::{ForgottenPart, WriteIdentity};

/// Rows of a once write that regions do not know.
#[derive(Debug)]
#[must_use = "fence them, then look them up"]
pub struct ForgottenRows {
    table: Arc<TableInfo>,
    parts: Vec<(WriteIdentity, ForgottenPart)>,
}

impl ForgottenRows {
    pub(super) fn new(table: Arc<TableInfo>, parts: Vec<(WriteIdentity, ForgottenPart)>) -> Self {
        Self { table, parts }
    }
}

/// A once write whose note is known, and whose rows are not.
#[derive(Debug)]
#[must_use = "fence it, then look up its rows"]
pub struct NotedWrite {
    table: Arc<TableInfo>,
    pieces: Vec<NotedPiece>,
}

impl NotedWrite {
    pub(super) fn new(table: Arc<TableInfo>, pieces: Vec<NotedPiece>) -> Self {
        Self { table, pieces }
    }
}

impl OnceWriter {
    /// Opens the producers of forgotten rows again. Afterwards no attempt of the earlier write takes effect: a read finds
    /// the rows that it has applied, and the others are to be written anew.
    ///
    /// # Errors
    /// [`ClientError::Unknown`] if a region knows the write after all, and the errors of the call. Resume the write.
    pub async fn fence(&self, forgotten: &ForgottenRows) -> Result<(), ClientError> {
        let core = &*self.client.core;
        let table = &*forgotten.table;
        let limits = Limits::of(self.client.options());
        for (identity, part) in &forgotten.parts {
            // A region that knows later writes of a stream refuses earlier ones already.
            if part.reason != Reason::ProducerForgotten {
                continue;
            }
            let mut next = Some(part.first_key.clone());
            while let Some(key) = next {
                let route = reopen(core, table, &key, (*identity, part.rows), &limits).await?;
                next = next_key(&route, &part.last_key);
            }
        }
        Ok(())
    }

    /// Ends a write that cannot be resumed. Afterwards no attempt of it takes effect: a read finds the rows that it has
    /// applied, and the others are to be written anew. A later call for the same note changes nothing.
    ///
    /// # Errors
    /// [`ClientError`]: the fence is incomplete; call again.
    pub async fn fence_noted(&self, write: &NotedWrite) -> Result<(), ClientError> {
        let core = &*self.client.core;
        // By a route from before a split, the answer of one child would pass for that of all.
        core.refresh_catalog().await?;
        let limits = Limits::of(self.client.options());
        for piece in &write.pieces {
            self.drop_stream(piece.identity);
            let mut next = Some(piece.first_key.to_vec());
            while let Some(key) = next {
                let route = fence_region(core, &write.table, &key, piece, &limits).await?;
                next = next_key(&route, &piece.last_key);
            }
        }
        Ok(())
    }

    /// Forgets the stream of a write: the fence uses its next serial.
    fn drop_stream(&self, identity: WriteIdentity) {
        let mut streams = self.streams.lock();
        let known = streams.get(&identity.origin);
        if known.is_some_and(|stream| stream.producer == identity.producer) {
            streams.remove(&identity.origin);
        }
    }
}

/// Returns the first key of the next region that has keys up to `last`.
fn next_key(route: &RouteInfo, last: &[u8]) -> Option<Vec<u8>> {
    route.range.end.clone().filter(|end| end.as_slice() <= last)
}

/// Makes the region of a key refuse all attempts of a noted write; returns its route.
///
/// The region takes the write without rows, unless it has taken it with its rows, and then the next write of the stream,
/// also without rows. An attempt with rows does not follow that one.
async fn fence_region(
    core: &Core,
    table: &TableInfo,
    key: &[u8],
    piece: &NotedPiece,
    limits: &Limits,
) -> Result<Arc<RouteInfo>, ClientError> {
    let WriteIdentity { producer, serial, origin, opening } = piece.identity;
    let same = EmptyWrite { producer, origin: Some(origin), serial, opening };
    let later = EmptyWrite { serial: serial.saturating_add(1), ..same };
    let mut answer = send_empty(core, table, key, same, limits).await?;
    if matches!(answer.decision, EmptyWriteDecision::Taken(_)) {
        answer = send_empty(core, table, key, later, limits).await?;
    }
    let EmptyWriteAnswer { route, decision } = answer;
    match decision {
        // Out of order: an earlier fence of the write.
        EmptyWriteDecision::Taken(_) | EmptyWriteDecision::OutOfOrder(_) => Ok(route),
        EmptyWriteDecision::Forgotten(_) => {
            reopen(core, table, key, (piece.identity, piece.rows.into()), limits).await
        }
    }
}

/// Opens the producer of a write again in the region of a key, which has forgotten it; returns the route of the region.
/// `write`: its identity, and the number of its rows.
async fn reopen(
    core: &Core,
    table: &TableInfo,
    key: &[u8],
    write: (WriteIdentity, u64),
    limits: &Limits,
) -> Result<Arc<RouteInfo>, ClientError> {
    let (identity, rows) = write;
    let is_known = |cause: Box<Refusal>| ClientError::Unknown {
        table: table.name.clone(),
        acknowledged: 0,
        failed: 0,
        unknown: rows,
        cause,
    };
    let stream = (identity.producer, Some(identity.origin));
    match open(core, table, key, stream, limits).await? {
        Opened::As { opening, .. } if opening == identity.opening => {
            let text = "the region knows the write again: repeat it";
            Err(is_known(Box::new(Refusal::new(Reason::RouteBusy, text))))
        }
        Opened::As { route, .. } => Ok(route),
        Opened::HasWritten(refusal) => Err(is_known(refusal)),
    }
}
