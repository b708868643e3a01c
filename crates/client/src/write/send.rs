//! Sending of one piece until it is settled.

use std::collections::HashMap;

use bytes::Bytes;
use tidewater_common::ids::{ProducerId, RegionId, Sequence};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, RowOp};
use tokio::time::Instant;

use super::prepare::{Piece, resplit};
use super::report::WriteReport;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::outcome::{Attempts, FailedAttempt, RetryAction, WriteOutcome};
use crate::router::{LeaderSearch, OperationLimits, timed};

/// Serial of a producer's empty opening write.
const OPENING: u64 = 1;

/// A lane's producer for one region, with at most one write in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProducerStream {
    producer: ProducerId,
    /// [`OPENING`] until the opening write is acknowledged.
    next: u64,
    /// Sequence returned by the opening write: later writes name it as their opening.
    opening: Sequence,
}

impl ProducerStream {
    /// Creates a stream without an opening write.
    fn unopened(producer: ProducerId) -> Self {
        Self { producer, next: OPENING, opening: Sequence(0) }
    }
}

/// Producer streams by the region of their first write.
pub(crate) type ProducerStreams = HashMap<RegionId, ProducerStream>;

/// Identity of a write, equal in all its attempts.
#[derive(Debug, Clone, Copy)]
struct WriteIdentity {
    producer: ProducerId,
    serial: u64,
    origin: RegionId,
    /// Never changes: under a later opening, the server would treat a retry as a new write.
    opening: Sequence,
}

/// A piece, or a split of one, that is not settled yet.
#[derive(Debug)]
struct PendingPiece {
    piece: Piece,
    /// Set when the rows are first sent.
    identity: Option<WriteIdentity>,
    attempts: Attempts,
}

/// Next step for a piece.
enum NextStep {
    Acknowledged,
    Retry,
    Split(Vec<Piece>),
    Stop,
}

/// Sends the pieces of one region, one after the other.
pub(crate) struct PieceSender<'a> {
    pub(crate) core: &'a Core,
    pub(crate) table: &'a TableInfo,
    pub(crate) op: RowOp,
    pub(crate) limits: OperationLimits,
    pub(crate) streams: ProducerStreams,
}

impl PieceSender<'_> {
    /// Sends a piece until each of its rows is settled.
    pub(crate) async fn send_until_settled(&mut self, piece: Piece) -> WriteReport {
        let mut report = WriteReport::default();
        // Grows only when a route was split, by the number of its children.
        let mut queue = vec![PendingPiece { piece, identity: None, attempts: Attempts::default() }];
        while let Some(mut pending) = queue.pop() {
            let mut search = LeaderSearch::new(tidewater_common::ids::GroupId::META);
            let next = loop {
                match self.attempt(&mut pending, &mut search).await {
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
                // In reverse key order, so that the first piece is sent next.
                NextStep::Split(pieces) => {
                    queue.extend(pieces.into_iter().rev().map(|piece| PendingPiece {
                        piece,
                        identity: pending.identity,
                        attempts: pending.attempts.clone(),
                    }))
                }
                NextStep::Stop | NextStep::Retry => {
                    if let Some(identity) = pending.identity {
                        // Its serial is used up: later writes must not look like retries of it.
                        self.streams.remove(&identity.origin);
                    }
                    match pending.attempts.outcome() {
                        WriteOutcome::Failed => report.failed += rows,
                        WriteOutcome::Unknown => report.unknown += rows,
                    }
                    report.add_cause(
                        pending.attempts.last().cloned().unwrap_or_else(deadline_exceeded),
                    );
                }
            }
        }
        report
    }

    /// Makes one attempt, of the opening write first if the stream has none.
    async fn attempt(&mut self, pending: &mut PendingPiece, search: &mut LeaderSearch) -> NextStep {
        if Instant::now() >= self.limits.until {
            return NextStep::Stop;
        }
        let catalog = self.core.catalog();
        let Some(route) = catalog.route_for(self.table.id, &pending.piece.first_key).cloned()
        else {
            return self.no_route(pending, search).await;
        };
        if !route.range.contains(&pending.piece.last_key) {
            return self.split(pending, &catalog);
        }
        if !pending.attempts.any_unknown()
            && pending.identity.is_some_and(|identity| identity.origin != route.region)
        {
            // No attempt had an effect: start over as a write to the current region.
            self.drop_identity(pending);
        }
        search.retarget(route.group);
        let ids = &self.core.router.options.ids;
        let stream = *self
            .streams
            .entry(route.region)
            .or_insert_with(|| ProducerStream::unopened(ProducerId(ids.next())));
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
                    // The opening write has no rows, so none can have taken effect.
                    failure.effect = Effect::None;
                    if failure.retry_action() == RetryAction::NewProducer {
                        self.streams.remove(&route.region);
                    }
                }
                self.handle_failure(pending, search, failure).await
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
            schema_version: self.table.schema.version().get(),
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

    /// Decides the next step after a failed attempt, and waits before a retry.
    async fn handle_failure(
        &mut self,
        pending: &mut PendingPiece,
        search: &mut LeaderSearch,
        failure: FailedAttempt,
    ) -> NextStep {
        pending.attempts.record(&failure);
        let wait = self.core.router.wait(search, &failure);
        let action = failure.retry_action();
        if action == RetryAction::Stop || self.limits.exhausted(pending.attempts.made(), wait) {
            return NextStep::Stop;
        }
        match action {
            RetryAction::Retry | RetryAction::FindLeader | RetryAction::Stop => {}
            RetryAction::RetryFew if pending.attempts.has_too_many_faults() => {
                return NextStep::Stop;
            }
            RetryAction::RetryFew => {}
            RetryAction::NewProducer if pending.attempts.any_unknown() => {
                return NextStep::Stop;
            }
            RetryAction::NewProducer => {
                tracing::debug!(table = self.table.name, "continuing with a new producer");
                self.drop_identity(pending);
            }
            RetryAction::RefreshCatalog => {
                tokio::time::sleep(wait).await;
                return self.refresh(pending, failure.refusal.reason).await;
            }
        }
        tokio::time::sleep(wait).await;
        NextStep::Retry
    }

    async fn refresh(&mut self, pending: &mut PendingPiece, reason: Reason) -> NextStep {
        let Ok(catalog) = self.core.refreshed().await else { return NextStep::Stop };
        let Some(table) = catalog.table(self.table.id) else {
            pending.attempts.record(&failure_without_effect(
                Reason::TableNotFound,
                format!("table {:?} was dropped", self.table.name),
            ));
            return NextStep::Stop;
        };
        // The rows are encoded for a schema that is no longer current.
        let outdated = table.schema.version() != self.table.schema.version();
        if reason == Reason::SchemaVersionStale && outdated {
            return NextStep::Stop;
        }
        NextStep::Retry
    }

    async fn no_route(
        &mut self,
        pending: &mut PendingPiece,
        search: &mut LeaderSearch,
    ) -> NextStep {
        let failure = failure_without_effect(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", self.table.name),
        );
        self.handle_failure(pending, search, failure).await
    }

    fn split(&mut self, pending: &mut PendingPiece, catalog: &Catalog) -> NextStep {
        if !pending.attempts.any_unknown() {
            self.drop_identity(pending);
        }
        match resplit(self.table, catalog, self.op, &pending.piece.rows) {
            Ok(pieces) => NextStep::Split(pieces),
            Err(error) => {
                pending
                    .attempts
                    .record(&failure_without_effect(Reason::RegionNotFound, error.to_string()));
                NextStep::Stop
            }
        }
    }

    /// Ends the current write of the piece, after attempts without effect.
    fn drop_identity(&mut self, pending: &mut PendingPiece) {
        if let Some(identity) = pending.identity.take() {
            self.streams.remove(&identity.origin);
        }
    }
}

fn failure_without_effect(reason: Reason, message: String) -> FailedAttempt {
    FailedAttempt {
        refusal: Refusal::new(reason, message),
        effect: Effect::None,
        unanswered: false,
    }
}

fn deadline_exceeded() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "the deadline passed before the write was sent")
}
