//! Writes without rows, which change only what a region knows of a producer.

use std::sync::Arc;

use bytes::Bytes;
use tidewater_common::ids::{GroupId, ProducerId, RegionId, Sequence};
use tidewater_common::quote::quoted;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason, RowOp};
use tidewater_rpc::timed;

use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction};
use crate::router::{Limits, Search};
use crate::stale::{ExpectedChange, StaleWaits, UsedCatalog};
use crate::write::send::{OPENING, failure_without_effect};

/// A write without rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct EmptyWrite {
    pub(super) producer: ProducerId,
    /// Origin of the producer's stream; `None`: the region.
    pub(super) origin: Option<RegionId>,
    pub(super) serial: u64,
    /// 0 in an opening write.
    pub(super) opening: Sequence,
}

impl EmptyWrite {
    /// Returns the purpose of the write, for errors.
    pub(super) fn purpose(&self, table: &TableInfo) -> String {
        let purpose =
            if self.serial == OPENING { "opening a producer in" } else { "fencing a write to" };
        format!("{purpose} table {}", quoted(&table.name))
    }
}

/// Answer of a region to a write without rows.
#[derive(Debug)]
pub(super) struct EmptyWriteAnswer {
    /// Route of the region.
    pub(super) route: Arc<RouteInfo>,
    pub(super) decision: EmptyWriteDecision,
}

/// Decision of a region about a write without rows.
#[derive(Debug)]
pub(super) enum EmptyWriteDecision {
    /// The region has applied it, in this attempt or an earlier one, with this sequence.
    Taken(Sequence),
    /// It does not follow the last write of its stream.
    OutOfOrder(Box<Refusal>),
    /// The region does not know the stream.
    Forgotten(Box<Refusal>),
}

/// Sends a write without rows to the region of a key, until the region has decided about it.
///
/// # Errors
/// [`ClientError::TableNotFound`], [`ClientError::Refused`], [`ClientError::RetriesExhausted`],
/// [`ClientError::OtherCluster`].
pub(super) async fn send_empty(
    core: &Core,
    table: &TableInfo,
    key: &[u8],
    write: EmptyWrite,
    limits: &Limits,
) -> Result<EmptyWriteAnswer, ClientError> {
    let mut search = Search::new(GroupId::META);
    let mut stale = StaleWaits::default();
    let mut attempts = Attempts::default();
    loop {
        let catalog = core.catalog();
        let Some(current) = catalog.table(table.id) else {
            return Err(ClientError::TableNotFound(table.name.clone()));
        };
        let (failure, change) = match catalog.route_for(table.id, key).cloned() {
            None => {
                let text = format!("table {:?} has no route for some of its keys", table.name);
                let failure = failure_without_effect(Reason::RegionNotFound, text);
                (failure, ExpectedChange::for_missing_route(&catalog))
            }
            Some(route) => {
                search.set_group(route.group);
                let request = request(&catalog, current, &route, write);
                let failure = match attempt(core, &catalog, &mut search, request, limits).await {
                    Ok(sequence) => {
                        let decision = EmptyWriteDecision::Taken(sequence);
                        return Ok(EmptyWriteAnswer { route, decision });
                    }
                    Err(failure) => core.reroute_if_retired(route.group, failure),
                };
                if let Some(decision) = refused(&failure.refusal) {
                    return Ok(EmptyWriteAnswer { route, decision });
                }
                let used = UsedCatalog::new(&catalog, Some(current), Some(&route));
                let change = ExpectedChange::new(&failure.refusal, &used);
                (failure, change)
            }
        };
        attempts.record(&failure);
        let wait = core.router.wait(&mut search, &failure);
        let action = failure.retry_action();
        let is_final = is_final(action, &attempts);
        if is_final || limits.exhausted(attempts.made(), wait) {
            let what = write.purpose(table);
            return Err(failed(what, &attempts, failure.refusal, is_final, limits));
        }
        if action == RetryAction::RefreshCatalog {
            core.wait_for_change(&change, &mut stale, wait, limits.until).await?;
        } else {
            tokio::time::sleep(wait).await;
        }
    }
}

fn request(
    catalog: &Catalog,
    table: &TableInfo,
    route: &RouteInfo,
    write: EmptyWrite,
) -> v1::WriteRequest {
    v1::WriteRequest {
        group_id: route.group.get(),
        region_id: route.region.get(),
        catalog_version: catalog.version().get(),
        schema_version: table.schema.version().get(),
        producer_id: Bytes::copy_from_slice(write.producer.as_bytes()),
        serial: write.serial,
        origin_region_id: write.origin.unwrap_or(route.region).get(),
        op: RowOp::Put.into(),
        opening: write.opening.get(),
        ..v1::WriteRequest::default()
    }
}

async fn attempt(
    core: &Core,
    catalog: &Catalog,
    search: &mut Search,
    request: v1::WriteRequest,
    limits: &Limits,
) -> Result<Sequence, FailedAttempt> {
    let timeout = limits.attempt(core.router.options.attempt_timeout);
    let answer = core
        .attempt(catalog, search, timeout, |channel| {
            let mut client = core.router.data(channel);
            async move { client.write(timed(request, timeout)).await }
        })
        .await?;
    Ok(Sequence(answer.sequence))
}

/// Returns the decision of a region that refused the write for its stream.
fn refused(refusal: &Refusal) -> Option<EmptyWriteDecision> {
    let refusal = Box::new(refusal.clone());
    match refusal.reason {
        Reason::SerialOutOfOrder => Some(EmptyWriteDecision::OutOfOrder(refusal)),
        Reason::ProducerForgotten => Some(EmptyWriteDecision::Forgotten(refusal)),
        _ => None,
    }
}

fn is_final(action: RetryAction, attempts: &Attempts) -> bool {
    match action {
        RetryAction::Stop | RetryAction::NewProducer => true,
        RetryAction::RepeatFew => attempts.too_many_faults(),
        RetryAction::Repeat
        | RetryAction::RepeatIfAsked
        | RetryAction::FindLeader
        | RetryAction::RefreshCatalog => false,
    }
}

/// Returns the error of a write without rows: none can have taken effect.
fn failed(
    what: String,
    attempts: &Attempts,
    last: Refusal,
    is_final: bool,
    limits: &Limits,
) -> ClientError {
    let cause = Box::new(attempts.cause().unwrap_or(last));
    if is_final {
        return ClientError::Refused { what, refusal: cause };
    }
    let elapsed = limits.elapsed();
    ClientError::RetriesExhausted { what, attempts: attempts.made(), elapsed, cause }
}
