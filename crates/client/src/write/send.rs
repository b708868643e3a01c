//! Sending one piece until it is settled.

use std::collections::HashMap;

use bytes::Bytes;
use tidewater_common::ids::{ProducerId, RegionId, Sequence};
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, Reason, RowOp};
use tokio::time::Instant;

use super::prepare::{Piece, recut};
use super::report::WriteReport;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::outcome::{Advice, Attempts, Miss, Verdict};
use crate::router::{Limits, Search, timed};

/// The serial of a producer's empty opening write.
const OPENING: u64 = 1;

/// One producer's writes to one region: at most one of them is in flight.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    producer: ProducerId,
    /// [`OPENING`] until the opening write is acknowledged.
    next: u64,
    /// What the opening write was answered: which opening of the producer later writes go with.
    opening: Sequence,
}

impl Stream {
    /// A stream that is still to be opened.
    fn of(producer: ProducerId) -> Self {
        Self { producer, next: OPENING, opening: Sequence(0) }
    }
}

/// Streams by the region first addressed.
pub(crate) type Streams = HashMap<RegionId, Stream>;

/// What makes a write the same write, however often it is sent.
#[derive(Debug, Clone, Copy)]
struct Identity {
    producer: ProducerId,
    serial: u64,
    origin: RegionId,
    /// Never another one: under a later opening, a repeat would be taken for a new write.
    opening: Sequence,
}

/// A piece, or what was cut from one, on its way.
#[derive(Debug)]
struct Part {
    piece: Piece,
    /// Set when rows were first sent.
    identity: Option<Identity>,
    attempts: Attempts,
}

/// What to do with a part next.
enum Next {
    Acknowledged,
    Again,
    Cut(Vec<Piece>),
    GiveUp,
}

/// Sends the pieces of one region, one after the other.
pub(crate) struct Sender<'a> {
    pub(crate) core: &'a Core,
    pub(crate) table: &'a TableInfo,
    pub(crate) op: RowOp,
    pub(crate) limits: Limits,
    pub(crate) streams: Streams,
}

impl Sender<'_> {
    /// Sends a piece until each of its rows is settled.
    pub(crate) async fn settle(&mut self, piece: Piece) -> WriteReport {
        let mut report = WriteReport::default();
        // Grows only when a route was split, and then by the number of its children.
        let mut parts = vec![Part { piece, identity: None, attempts: Attempts::default() }];
        while let Some(mut part) = parts.pop() {
            let mut search = Search::new(tidewater_common::ids::GroupId::META);
            let next = loop {
                match self.step(&mut part, &mut search).await {
                    Next::Again => {}
                    next => break next,
                }
            };
            let rows = u64::from(part.piece.count);
            match next {
                Next::Acknowledged => {
                    report.acknowledged += rows;
                    report.repeated += if part.attempts.any_unknown() { rows } else { 0 };
                }
                // In key order, so that the part sent next is the first.
                Next::Cut(pieces) => parts.extend(pieces.into_iter().rev().map(|piece| Part {
                    piece,
                    identity: part.identity,
                    attempts: part.attempts.clone(),
                })),
                Next::GiveUp | Next::Again => {
                    if let Some(identity) = part.identity {
                        // Its serial is spent: what follows must not be taken for a repeat of it.
                        self.streams.remove(&identity.origin);
                    }
                    match part.attempts.verdict() {
                        Verdict::Failed => report.failed += rows,
                        Verdict::Unknown => report.unknown += rows,
                    }
                    report.add_cause(part.attempts.last().cloned().unwrap_or_else(no_time));
                }
            }
        }
        report
    }

    /// Makes one attempt, of the opening write if that is still to be made.
    async fn step(&mut self, part: &mut Part, search: &mut Search) -> Next {
        if Instant::now() >= self.limits.until {
            return Next::GiveUp;
        }
        let catalog = self.core.catalog();
        let Some(route) = catalog.route_for(self.table.id, &part.piece.first_key).cloned() else {
            return self.no_route(part, search).await;
        };
        if !route.range.contains(&part.piece.last_key) {
            return self.cut(part, &catalog);
        }
        if !part.attempts.any_unknown()
            && part.identity.is_some_and(|identity| identity.origin != route.region)
        {
            // No attempt has done anything: it may begin anew as a write to the region of now.
            self.drop_identity(part);
        }
        search.turn_to(route.group);
        let ids = &self.core.router.options.ids;
        let stream =
            *self.streams.entry(route.region).or_insert_with(|| Stream::of(ProducerId(ids.next())));
        let opening = part.identity.is_none() && stream.next == OPENING;
        let identity = part.identity.unwrap_or(Identity {
            producer: stream.producer,
            serial: stream.next,
            origin: route.region,
            opening: stream.opening,
        });
        if !opening {
            part.identity = Some(identity);
        }
        let request = self.request(part, &route, identity, opening, catalog.version().get());
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
            Ok(answer) => self.acknowledged(identity, Sequence(answer.sequence)),
            Err(mut miss) => {
                if opening {
                    // There were no rows in it, so none can have taken effect.
                    miss.effect = Effect::None;
                    if miss.advice() == Advice::NewProducer {
                        self.streams.remove(&route.region);
                    }
                }
                self.missed(part, search, miss).await
            }
        }
    }

    fn request(
        &self,
        part: &Part,
        route: &RouteInfo,
        identity: Identity,
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
            row_count: if opening { 0 } else { part.piece.count },
            rows: if opening { Bytes::new() } else { part.piece.rows.clone() },
            opening: identity.opening.get(),
        }
    }

    fn acknowledged(&mut self, identity: Identity, sequence: Sequence) -> Next {
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
        if opening { Next::Again } else { Next::Acknowledged }
    }

    /// Decides what follows on an attempt without success, and waits if it is to be repeated.
    async fn missed(&mut self, part: &mut Part, search: &mut Search, miss: Miss) -> Next {
        part.attempts.note(&miss);
        let wait = self.core.router.wait(search, &miss);
        let advice = miss.advice();
        if advice == Advice::GiveUp || self.limits.exhausted(part.attempts.made(), wait) {
            return Next::GiveUp;
        }
        match advice {
            Advice::Repeat | Advice::FindLeader | Advice::GiveUp => {}
            Advice::RepeatFew if part.attempts.too_many_faults() => return Next::GiveUp,
            Advice::RepeatFew => {}
            Advice::NewProducer if part.attempts.any_unknown() => return Next::GiveUp,
            Advice::NewProducer => {
                tracing::debug!(table = self.table.name, "going on with a new producer");
                self.drop_identity(part);
            }
            Advice::RefreshCatalog => {
                tokio::time::sleep(wait).await;
                return self.refresh(part, miss.refusal.reason).await;
            }
        }
        tokio::time::sleep(wait).await;
        Next::Again
    }

    async fn refresh(&mut self, part: &mut Part, reason: Reason) -> Next {
        let Ok(catalog) = self.core.refreshed().await else { return Next::GiveUp };
        let Some(table) = catalog.table(self.table.id) else {
            part.attempts.note(&definite(
                Reason::TableNotFound,
                format!("table {:?} was dropped", self.table.name),
            ));
            return Next::GiveUp;
        };
        // The rows were encoded for a schema that is no more.
        let outdated = table.schema.version() != self.table.schema.version();
        if reason == Reason::SchemaVersionStale && outdated {
            return Next::GiveUp;
        }
        Next::Again
    }

    async fn no_route(&mut self, part: &mut Part, search: &mut Search) -> Next {
        let miss = definite(
            Reason::RegionNotFound,
            format!("table {:?} has no route for some of its keys", self.table.name),
        );
        self.missed(part, search, miss).await
    }

    fn cut(&mut self, part: &mut Part, catalog: &Catalog) -> Next {
        if !part.attempts.any_unknown() {
            self.drop_identity(part);
        }
        match recut(self.table, catalog, self.op, &part.piece.rows) {
            Ok(pieces) => Next::Cut(pieces),
            Err(error) => {
                part.attempts.note(&definite(Reason::RegionNotFound, error.to_string()));
                Next::GiveUp
            }
        }
    }

    /// Ends the write that the part was, since no attempt of it has done anything.
    fn drop_identity(&mut self, part: &mut Part) {
        if let Some(identity) = part.identity.take() {
            self.streams.remove(&identity.origin);
        }
    }
}

fn definite(reason: Reason, message: String) -> Miss {
    Miss { refusal: Refusal::new(reason, message), effect: Effect::None, silent: false }
}

fn no_time() -> Refusal {
    Refusal::new(Reason::DeadlineExceeded, "no time was left to send it")
}
