//! Sending of a piece until its rows are settled.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::ids::{ProducerId, RegionId, Sequence};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, RowOp};
use tidewater_rpc::timed;
use tokio::time::Instant;

use super::current_schema::altered;
use super::prepare::{Piece, PieceLimits, recut};
use super::report::WriteReport;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::outcome::{Attempts, FailedAttempt, RetryAction, WriteOutcome};
use crate::router::{Limits, Search};
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};

/// Serial of a producer's opening write, which has no rows.
pub(super) const OPENING: u64 = 1;

/// Writes of one producer to one region; at most one of them is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerStream {
    producer: ProducerId,
    /// Serial of the next write; [`OPENING`] until the opening write is acknowledged.
    next: u64,
    /// Sequence that acknowledged the opening write. Later writes name this opening of the producer.
    opening: Sequence,
}

impl ProducerStream {
    /// Returns a stream that is not yet opened.
    fn new(producer: ProducerId) -> Self {
        Self { producer, next: OPENING, opening: Sequence(0) }
    }
}

/// Streams by the region of their first write.
pub(crate) type ProducerStreams = HashMap<RegionId, ProducerStream>;

/// Identity of a write: equal in all of its attempts, so that the data node recognizes a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WriteIdentity {
    pub(super) producer: ProducerId,
    pub(super) serial: u64,
    pub(super) origin: RegionId,
    /// Never changed: under a later opening, the data node would apply a retry as a new write.
    pub(super) opening: Sequence,
}

/// Piece that is not settled, with its attempts. Pieces that are cut from it inherit its identity and
/// attempts.
#[derive(Debug)]
struct PendingPiece {
    piece: Piece,
    /// The table for whose schema the rows are encoded.
    table: Arc<TableInfo>,
    /// Set before the first attempt that sends rows.
    identity: Option<WriteIdentity>,
    /// The identity is noted: another process may repeat the write with it.
    is_noted: bool,
    attempts: Attempts,
}

impl PendingPiece {
    /// Returns whether the rows may only be sent with the identity that they have.
    fn keeps_identity(&self) -> bool {
        self.is_noted || self.attempts.any_unknown()
    }

    /// Returns the reason if the last attempt ended since the region does not know the noted write stream, or knows later
    /// writes of it.
    fn forgotten(&self) -> Option<Reason> {
        let reason = self.attempts.cause().filter(|_| self.is_noted)?.reason;
        matches!(reason, Reason::ProducerForgotten | Reason::SerialOutOfOrder).then_some(reason)
    }
}

/// Outcome of a piece.
#[derive(Debug, Default)]
pub(super) struct PieceOutcome {
    /// Rows that are settled.
    pub(super) report: WriteReport,
    /// Other rows: those of a noted write that regions do not know.
    pub(super) forgotten: Vec<ForgottenPart>,
}

/// Rows of a noted write that one region does not know.
#[derive(Debug)]
pub(super) struct ForgottenPart {
    pub(super) rows: u64,
    pub(super) first_key: Vec<u8>,
    pub(super) last_key: Vec<u8>,
    /// [`Reason::ProducerForgotten`] or [`Reason::SerialOutOfOrder`].
    pub(super) reason: Reason,
}

/// Next step for a pending piece.
enum NextStep {
    /// Count the rows as acknowledged.
    Acknowledged,
    /// Make another attempt.
    Retry,
    /// Send these pieces instead, encoded for the table of the pending piece.
    Cut(Vec<Piece>),
    /// Stop; the outcome follows from the attempts.
    Stop,
}

/// Sends the pieces of one region sequentially.
pub(crate) struct PieceSender<'a> {
    pub(crate) core: &'a Core,
    /// The table for which the pieces were prepared.
    pub(crate) table: Arc<TableInfo>,
    pub(crate) op: RowOp,
    pub(crate) limits: Limits,
    pub(crate) streams: ProducerStreams,
    pub(crate) stale: StaleWaits,
}

impl PieceSender<'_> {
    /// Sends a piece until each of its rows is settled.
    pub(crate) async fn send_until_settled(&mut self, piece: Piece) -> WriteReport {
        let first = PendingPiece {
            piece,
            table: Arc::clone(&self.table),
            identity: None,
            is_noted: false,
            attempts: Attempts::default(),
        };
        self.settle(first).await.report
    }

    /// Sends a piece with a noted identity until each of its rows is settled or forgotten. `attempts`: earlier ones, also
    /// those of another process.
    pub(super) async fn send_noted(
        &mut self,
        piece: Piece,
        identity: WriteIdentity,
        attempts: Attempts,
    ) -> PieceOutcome {
        let table = Arc::clone(&self.table);
        let identity = Some(identity);
        self.settle(PendingPiece { piece, table, identity, is_noted: true, attempts }).await
    }

    async fn settle(&mut self, first: PendingPiece) -> PieceOutcome {
        let PieceOutcome { mut report, mut forgotten } = PieceOutcome::default();
        // Grows only when a route was split, and then by the number of its children.
        let mut stack = vec![first];
        while let Some(mut pending) = stack.pop() {
            let mut search = Search::new(tidewater_common::ids::GroupId::META);
            let next = loop {
                match self.step(&mut pending, &mut search).await {
                    NextStep::Retry => {}
                    next => break next,
                }
            };
            let rows = u64::from(pending.piece.count);
            match next {
                NextStep::Acknowledged => {
                    report.acknowledged += rows;
                    report.repeated += if pending.attempts.any_unknown() { rows } else { 0 };
                }
                // Reversed, so that the pieces are sent in key order.
                NextStep::Cut(pieces) => {
                    stack.extend(pieces.into_iter().rev().map(|piece| PendingPiece {
                        piece,
                        table: Arc::clone(&pending.table),
                        identity: pending.identity,
                        is_noted: pending.is_noted,
                        attempts: pending.attempts.clone(),
                    }))
                }
                NextStep::Stop | NextStep::Retry => {
                    if let Some(identity) = pending.identity {
                        // Its serial is used: the data node must not take a later write for a retry of it.
                        self.streams.remove(&identity.origin);
                    }
                    if let Some(reason) = pending.forgotten() {
                        let Piece { first_key, last_key, .. } = pending.piece;
                        forgotten.push(ForgottenPart { rows, first_key, last_key, reason });
                        continue;
                    }
                    match pending.attempts.outcome() {
                        WriteOutcome::Failed => report.failed += rows,
                        WriteOutcome::Unknown => report.unknown += rows,
                    }
                    report.add_cause(pending.attempts.cause().unwrap_or_else(no_time_left));
                }
            }
        }
        PieceOutcome { report, forgotten }
    }

    /// Makes one attempt: of the opening write if the stream is not yet opened, else of the piece.
    async fn step(&mut self, pending: &mut PendingPiece, search: &mut Search) -> NextStep {
        if Instant::now() >= self.limits.until {
            return NextStep::Stop;
        }
        let catalog = self.core.catalog();
        let Some(route) = catalog.route_for(self.table.id, &pending.piece.first_key).cloned()
        else {
            return self.handle_missing_route(pending, search, &catalog).await;
        };
        if !route.range.contains(&pending.piece.last_key) {
            let table = Arc::clone(&pending.table);
            return self.cut(pending, table, &catalog);
        }
        if !pending.keeps_identity()
            && pending.identity.is_some_and(|identity| identity.origin != route.region)
        {
            // No attempt took effect: the piece may be sent as a new write to its current region.
            self.drop_identity(pending);
        }
        search.set_group(route.group);
        let ids = &self.core.router.options.ids;
        let stream = *self
            .streams
            .entry(route.region)
            .or_insert_with(|| ProducerStream::new(ProducerId(ids.next())));
        let opening = pending.identity.is_none() && stream.next == OPENING;
        let identity = pending.identity.unwrap_or(WriteIdentity {
            producer: stream.producer,
            serial: stream.next,
            origin: route.region,
            opening: stream.opening,
        });
        if !opening {
            pending.identity = Some(identity);
        }
        let request = self.request(pending, &route, identity, opening, catalog.version().get());
        let timeout = self.limits.attempt(self.core.router.options.attempt_timeout);
        let router = &self.core.router;
        let result = self
            .core
            .attempt(&catalog, search, timeout, |channel| {
                let mut client = router.data(channel);
                async move { client.write(timed(request, timeout)).await }
            })
            .await;
        match result {
            Ok(answer) => self.record_acknowledged(identity, Sequence(answer.sequence)),
            Err(mut failure) => {
                if opening {
                    // An opening write has no rows, so none can have taken effect.
                    failure.effect = Effect::None;
                    if failure.retry_action() == RetryAction::NewProducer {
                        self.streams.remove(&route.region);
                    }
                }
                let used = UsedCatalog::new(&catalog, Some(&pending.table), Some(&route));
                let change = ExpectedChange::new(&failure.refusal, &used);
                self.handle_failure(pending, search, failure, &change).await
            }
        }
    }

    fn request(
        &self,
        pending: &PendingPiece,
        route: &RouteInfo,
        identity: WriteIdentity,
        opening: bool,
        catalog_version: u64,
    ) -> v1::WriteRequest {
        v1::WriteRequest {
            group_id: route.group.get(),
            region_id: route.region.get(),
            catalog_version,
            schema_version: pending.table.schema.version().get(),
            producer_id: Bytes::copy_from_slice(identity.producer.as_bytes()),
            serial: identity.serial,
            origin_region_id: identity.origin.get(),
            op: self.op.into(),
            row_count: if opening { 0 } else { pending.piece.count },
            rows: if opening { Bytes::new() } else { pending.piece.rows.clone() },
            opening: identity.opening.get(),
        }
    }

    fn record_acknowledged(&mut self, identity: WriteIdentity, sequence: Sequence) -> NextStep {
        let opening = identity.serial == OPENING;
        if let Some(stream) = self.streams.get_mut(&identity.origin)
            && stream.producer == identity.producer
            && stream.next == identity.serial
        {
            stream.next += 1;
            if opening {
                stream.opening = sequence;
            }
        }
        if opening { NextStep::Retry } else { NextStep::Acknowledged }
    }

    /// Decides the next step after an attempt that failed; waits before a retry, and for `change` if the
    /// catalog of the attempt is out of date.
    async fn handle_failure(
        &mut self,
        pending: &mut PendingPiece,
        search: &mut Search,
        failure: FailedAttempt,
        change: &ExpectedChange,
    ) -> NextStep {
        pending.attempts.record(&failure);
        let wait = self.core.router.wait(search, &failure);
        let action = failure.retry_action();
        if action == RetryAction::Stop || self.limits.exhausted(pending.attempts.made(), wait) {
            return NextStep::Stop;
        }
        match action {
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::FindLeader
            | RetryAction::Stop => {}
            RetryAction::RepeatFew if pending.attempts.too_many_faults() => return NextStep::Stop,
            RetryAction::RepeatFew => {}
            RetryAction::NewProducer if pending.keeps_identity() => return NextStep::Stop,
            RetryAction::NewProducer => {
                tracing::debug!(
                    table = self.table.name,
                    "producer is unknown to the region; continuing with a new one"
                );
                self.drop_identity(pending);
            }
            RetryAction::RefreshCatalog => {
                let until = self.limits.until;
                let core = self.core;
                let changed = core.wait_for_change(change, &mut self.stale, wait, until).await;
                let Ok(catalog) = changed else { return NextStep::Stop };
                return self.check_table(pending, &catalog, failure.refusal.reason);
            }
        }
        tokio::time::sleep(wait).await;
        NextStep::Retry
    }

    /// Decides how a piece that was refused for this reason is sent by a later catalog.
    fn check_table(
        &mut self,
        pending: &mut PendingPiece,
        catalog: &Catalog,
        reason: Reason,
    ) -> NextStep {
        if catalog.table(self.table.id).is_none() {
            pending.attempts.record(&failure_without_effect(
                Reason::TableNotFound,
                format!("table {:?} was dropped", self.table.name),
            ));
            return NextStep::Stop;
        }
        if reason != Reason::SchemaVersionStale {
            return NextStep::Retry;
        }
        match altered(&pending.table, catalog) {
            // The region was altered before the catalog.
            None => NextStep::Retry,
            // A write that may have taken effect is repeated with the same rows, or not at all. A noted one may be
            // encoded again: its identity and its keys stay, from which the region knows what it has applied.
            Some(_) if pending.attempts.any_unknown() && !pending.is_noted => NextStep::Stop,
            Some(table) => self.cut(pending, table, catalog),
        }
    }

    async fn handle_missing_route(
        &mut self,
        pending: &mut PendingPiece,
        search: &mut Search,
        catalog: &Catalog,
    ) -> NextStep {
        let failure = failure_without_effect(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", self.table.name),
        );
        let change = ExpectedChange::for_missing_route(catalog);
        self.handle_failure(pending, search, failure, &change).await
    }

    /// Cuts a piece along the current routes, and encodes its rows for `table`.
    fn cut(
        &mut self,
        pending: &mut PendingPiece,
        table: Arc<TableInfo>,
        catalog: &Catalog,
    ) -> NextStep {
        if !pending.keeps_identity() {
            self.drop_identity(pending);
        }
        let rows = &pending.piece.rows;
        match recut(&pending.table, &table, catalog, self.op, rows, PieceLimits::NONE) {
            Ok(pieces) => {
                pending.table = table;
                NextStep::Cut(pieces)
            }
            Err(error) => {
                pending
                    .attempts
                    .record(&failure_without_effect(Reason::RegionNotFound, error.to_string()));
                NextStep::Stop
            }
        }
    }

    /// Drops the identity of a piece without an attempt that may have taken effect. Its next attempt is a
    /// new write.
    fn drop_identity(&mut self, pending: &mut PendingPiece) {
        if let Some(identity) = pending.identity.take() {
            self.streams.remove(&identity.origin);
        }
    }
}

pub(super) fn failure_without_effect(reason: Reason, message: String) -> FailedAttempt {
    FailedAttempt { refusal: Refusal::new(reason, message), effect: Effect::None, silent: false }
}

fn no_time_left() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the deadline passed before the rows were sent")
}
