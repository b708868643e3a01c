//! Waits after answers that a route or schema of a call is out of date.
//!
//! The catalog watch usually delivers the change within milliseconds. A refused caller waits for it and sends
//! nothing meanwhile. After [`ClientOptions::refresh_after`](crate::ClientOptions::refresh_after) without an event of
//! the watch, the caller requests a refresh, which it shares with all callers that wait at the same time.
//!
//! - [`UsedCatalog`]: catalog of the refused attempt.
//! - [`ExpectedChange`]: the change to wait for, decided by [`ExpectedChange::new`] (pure).
//! - [`StaleWaits`]: waits of one operation so far.

use std::sync::Arc;
use std::time::Duration;

use tidewater_common::catalog_hint::{CatalogHint, RegionPresence, ServedRegion};
use tidewater_common::ids::{CatalogVersion, Incarnation, Revision, SchemaVersion, TableId};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tokio::time::Instant;

use crate::catalog::{Catalog, PublishedCatalog, RouteInfo, TableInfo};
use crate::core::Core;
use crate::error::ClientError;

/// Longest wait before the call is repeated, even though its answer is not expected to change.
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Callers that waited for the same change continue at random times within this.
const SPREAD: Duration = Duration::from_millis(50);

/// Catalog, table and route that an attempt was based on.
#[derive(Debug, Clone)]
pub(crate) struct UsedCatalog {
    incarnation: Incarnation,
    version: CatalogVersion,
    /// Table with the schema version of the call, if the call names one.
    schema: Option<(TableId, SchemaVersion)>,
    /// `None` if the catalog has no route for the call.
    route: Option<Arc<RouteInfo>>,
}

impl UsedCatalog {
    pub(crate) fn new(
        catalog: &Catalog,
        table: Option<&TableInfo>,
        route: Option<&Arc<RouteInfo>>,
    ) -> Self {
        Self {
            incarnation: catalog.incarnation(),
            version: catalog.version(),
            schema: table.map(|table| (table.id, table.schema.version())),
            route: route.cloned(),
        }
    }
}

/// Condition on the catalog.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    /// The table has this schema version or a later one, or does not exist.
    Schema(TableId, SchemaVersion),
    /// The region has another route than this one, or none.
    OtherRoute(Arc<RouteInfo>),
    /// The routes have another version.
    OtherVersion(CatalogVersion),
    /// The catalog is at this revision or a later one.
    Revision(Revision),
}

/// Change of the catalog after which a refused call is worth repeating.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ExpectedChange {
    /// A restored cluster has another incarnation, which is a change by itself.
    incarnation: Incarnation,
    condition: Condition,
    /// Without the change, the call is refused again.
    is_certain: bool,
}

impl ExpectedChange {
    /// Decides for which change a call waits. A hint that is about another region or table, or that
    /// contradicts the reason, is ignored.
    pub(crate) fn new(refusal: &Refusal, used: &UsedCatalog) -> Self {
        let hint = refusal.catalog_hint.as_deref();
        let (condition, is_certain) = match (refusal.reason, used.schema, &used.route) {
            (Reason::SchemaVersionStale, Some((table, version)), _) => {
                let next = SchemaVersion(version.get().saturating_add(1));
                let served = presence(hint, used).and_then(served_region);
                match served.map(|served| served.schema_version) {
                    Some(in_region) if in_region > version => {
                        (Condition::Schema(table, in_region), true)
                    }
                    // The replica that answered is not ahead.
                    Some(_) => (Condition::Schema(table, next), false),
                    None => (Condition::Schema(table, next), true),
                }
            }
            (_, _, Some(route)) => {
                let other = Condition::OtherRoute(route.clone());
                match (presence(hint, used), hint) {
                    (Some(RegionPresence::Dropped), _) => (other, true),
                    (Some(RegionPresence::Served(served)), _) => {
                        let range_differs =
                            served.range.as_ref().is_some_and(|range| *range != route.range);
                        (other, range_differs || served.group != route.group)
                    }
                    (None, Some(CatalogHint::Catalog { revision, .. })) => {
                        (Condition::Revision(*revision), true)
                    }
                    // The replica may have yet to apply the opening of the region, or its return.
                    (Some(RegionPresence::Unknown | RegionPresence::Moved(_)) | None, _) => {
                        (other, false)
                    }
                }
            }
            _ => (Condition::OtherVersion(used.version), false),
        };
        Self { incarnation: used.incarnation, condition, is_certain }
    }

    /// Returns the change that a call without a route waits for.
    pub(crate) fn for_missing_route(catalog: &Catalog) -> Self {
        Self {
            incarnation: catalog.incarnation(),
            condition: Condition::OtherVersion(catalog.version()),
            is_certain: false,
        }
    }

    fn is_in(&self, catalog: &Catalog) -> bool {
        if catalog.incarnation() != self.incarnation {
            return true;
        }
        match &self.condition {
            Condition::Schema(table, version) => {
                let table = catalog.table(*table);
                table.is_none_or(|table| table.schema.version() >= *version)
            }
            Condition::OtherRoute(route) => catalog.route(route.region) != Some(route),
            Condition::OtherVersion(version) => catalog.version() != *version,
            Condition::Revision(revision) => catalog.revision() >= *revision,
        }
    }
}

/// Returns the presence of the region of the call, if the hint is about that region.
fn presence<'a>(hint: Option<&'a CatalogHint>, used: &UsedCatalog) -> Option<&'a RegionPresence> {
    let Some(CatalogHint::Region { region, presence }) = hint else { return None };
    let route = used.route.as_ref().filter(|route| route.region == *region)?;
    match presence {
        RegionPresence::Served(served) if served.table != route.table => None,
        presence => Some(presence),
    }
}

fn served_region(presence: &RegionPresence) -> Option<&ServedRegion> {
    match presence {
        RegionPresence::Served(served) => Some(served),
        RegionPresence::Unknown | RegionPresence::Dropped | RegionPresence::Moved(_) => None,
    }
}

/// Waits of one operation since the catalog last changed as expected.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct StaleWaits {
    /// Start of the time in which the catalog is not refreshed.
    since: Option<Instant>,
    /// Waits for a certain change that ended without it.
    ended: u32,
}

impl StaleWaits {
    /// Returns the longest wait before the call is repeated: `first`, then doubled each time, with a quarter of
    /// jitter.
    fn longest(self, first: Duration, bits: u64) -> Duration {
        let full = first.saturating_mul(1 << self.ended.min(8)).min(LONGEST_WAIT);
        full + jitter(full / 4, bits)
    }
}

fn jitter(most: Duration, bits: u64) -> Duration {
    let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
    Duration::from_micros(bits % micros)
}

impl Core {
    /// Waits until the catalog has changed as expected, at most until `until`; returns the catalog. A call whose
    /// answer may change without it is repeated after `backoff`.
    ///
    /// # Errors
    /// [`ClientError::OtherCluster`].
    pub(crate) async fn wait_for_change(
        &self,
        change: &ExpectedChange,
        waits: &mut StaleWaits,
        backoff: Duration,
        until: Instant,
    ) -> Result<Arc<Catalog>, ClientError> {
        let options = &self.router.options;
        let bits = options.ids.bits();
        let now = Instant::now();
        let mut since = *waits.since.get_or_insert(now);
        let mut published = self.published.clone();
        let is_over = |now: &PublishedCatalog| now.other.is_some() || change.is_in(&now.catalog);
        if is_over(&published.borrow()) {
            // Without a pause, a node that always refuses the call would be called in a loop.
            *waits = StaleWaits::default();
            tokio::time::sleep_until(until.min(now + backoff)).await;
            return self.known_catalog();
        }
        let longest =
            if change.is_certain { waits.longest(options.refresh_after, bits) } else { backoff };
        let end = until.min(now + longest);
        self.requests.count_wait();
        loop {
            let refresh_at = since + options.refresh_after;
            let changed = published.wait_for(is_over);
            if tokio::time::timeout_at(end.min(refresh_at), changed).await.is_ok() {
                *waits = StaleWaits::default();
                let spread = Instant::now() + jitter(SPREAD, bits);
                tokio::time::sleep_until(until.min(spread)).await;
                return self.known_catalog();
            }
            if refresh_at <= end {
                // Otherwise, by the watch or by a refresh of another caller, the change was yet to be made.
                if !self.requests.is_current_since(since)
                    && let Ok(refreshed) =
                        tokio::time::timeout_at(until, self.refresh_catalog()).await
                {
                    refreshed?;
                }
                since = Instant::now();
                waits.since = Some(since);
            }
            if Instant::now() >= end && !is_over(&published.borrow()) {
                waits.ended = waits.ended.saturating_add(u32::from(change.is_certain));
                return self.known_catalog();
            }
        }
    }

    /// Returns the catalog as last received.
    ///
    /// # Errors
    /// [`ClientError::OtherCluster`].
    fn known_catalog(&self) -> Result<Arc<Catalog>, ClientError> {
        let published = self.published.borrow();
        match published.other {
            Some((was, is)) => Err(ClientError::OtherCluster { was, is }),
            None => Ok(published.catalog.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
