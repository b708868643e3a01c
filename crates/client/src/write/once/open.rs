//! Opening of a producer in a region.

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

/// State of a producer in a region after its opening write.
#[derive(Debug)]
pub(super) enum Opened {
    /// It has not written rows under this opening.
    As {
        /// Route of the region.
        route: Arc<RouteInfo>,
        /// New, or that of an earlier opening write.
        opening: Sequence,
    },
    /// It has: the region refused the opening write.
    HasWritten(Box<Refusal>),
}

/// Opens a producer in the region of a key. `stream`: the producer and the origin of its writes; `None`: the region.
///
/// # Errors
/// [`ClientError::TableNotFound`], [`ClientError::Refused`], [`ClientError::RetriesExhausted`],
/// [`ClientError::OtherCluster`].
pub(super) async fn open(
    core: &Core,
    table: &TableInfo,
    key: &[u8],
    stream: (ProducerId, Option<RegionId>),
    limits: &Limits,
) -> Result<Opened, ClientError> {
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
                let request = request(&catalog, current, &route, stream);
                let failure = match attempt(core, &catalog, &mut search, request, limits).await {
                    Ok(opening) => return Ok(Opened::As { route, opening }),
                    Err(failure) => core.reroute_if_retired(route.group, failure),
                };
                if failure.refusal.reason == Reason::SerialOutOfOrder {
                    return Ok(Opened::HasWritten(Box::new(failure.refusal)));
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
            return Err(failed(table, &attempts, failure.refusal, is_final, limits));
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
    (producer, origin): (ProducerId, Option<RegionId>),
) -> v1::WriteRequest {
    v1::WriteRequest {
        group_id: route.group.get(),
        region_id: route.region.get(),
        catalog_version: catalog.version().get(),
        schema_version: table.schema.version().get(),
        producer_id: Bytes::copy_from_slice(producer.as_bytes()),
        serial: OPENING,
        origin_region_id: origin.unwrap_or(route.region).get(),
        op: RowOp::Put.into(),
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

/// Returns the error of an opening write. It has no rows, so that none has taken effect.
fn failed(
    table: &TableInfo,
    attempts: &Attempts,
    last: Refusal,
    is_final: bool,
    limits: &Limits,
) -> ClientError {
    let what = format!("opening a producer in table {}", quoted(&table.name));
    let cause = Box::new(attempts.cause().unwrap_or(last));
    if is_final {
        return ClientError::Refused { what, refusal: cause };
    }
    let elapsed = limits.elapsed();
    ClientError::RetriesExhausted { what, attempts: attempts.made(), elapsed, cause }
}
