//! Core of a client: the router, the catalog, and calls with retries. All parts of the client share it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::Epoch;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::{self, GroupState, Reason};
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::catalog::{Catalog, PublishedCatalog, RefreshRequests, RouteInfo, TableInfo};
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction, WriteOutcome};
use crate::router::{Limits, Router, Search};

/// Longest wait for the background task to refresh the catalog.
pub(crate) const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// Condition for the retry of a call after an attempt with unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Always: the call changes no state that its caller depends on.
    Read,
    /// Always: the server recognizes a retry, or finds the change already made. But an attempt with
    /// unknown outcome may take effect later, whatever the answers to the next attempts are.
    Idempotent,
    /// Only if no attempt so far can have taken effect.
    UnlessUnknown,
}

/// State shared by the client, its writers and its scans.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) router: Arc<Router>,
    pub(crate) published: watch::Receiver<PublishedCatalog>,
    pub(crate) requests: Arc<RefreshRequests>,
}

impl Core {
    /// Returns the catalog as last received.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.published.borrow().catalog.clone()
    }

    /// Refreshes the catalog: the returned one contains every change made before the call. Returns after
    /// [`REFRESH_TIMEOUT`] without an error if the catalog could not be refreshed: the caller's own limits
    /// bound its retries.
    pub(crate) async fn refresh_catalog(&self) -> Result<Arc<Catalog>, ClientError> {
        let mut published = self.published.clone();
        let request = self.requests.add();
        let served = published.wait_for(|now| now.served >= request || now.other.is_some());
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, served).await;
        if let Some((was, is)) = self.published.borrow().other {
            return Err(ClientError::OtherCluster { was, is });
        }
        Ok(self.catalog())
    }

    /// Waits until the routes have another version than `known`.
    pub(crate) async fn changed_catalog(
        &self,
        known: &Catalog,
    ) -> Result<Arc<Catalog>, ClientError> {
        let mut published = self.published.clone();
        let version = known.version();
        let changed =
            published.wait_for(|now| now.catalog.version() != version || now.other.is_some());
        // The watcher runs as long as the client.
        let _ = changed.await;
        if let Some((was, is)) = self.published.borrow().other {
            return Err(ClientError::OtherCluster { was, is });
        }
        Ok(self.catalog())
    }

    /// Returns the table of this name. Refreshes the catalog before it reports a missing table.
    pub(crate) async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        if let Some(table) = self.catalog().table_named(name) {
            return Ok(table.clone());
        }
        let catalog = self.refresh_catalog().await?;
        catalog
            .table_named(name)
            .cloned()
            .ok_or_else(|| ClientError::TableNotFound(name.to_owned()))
    }

    /// Returns the table of this name, and the epoch that a read of it names. Refreshes the catalog before it refuses an epoch: a hold
    /// may have made a refreshable table complete at it.
    pub(crate) async fn table_as_of(
        &self,
        name: &str,
        requested: Option<Epoch>,
    ) -> Result<(Arc<TableInfo>, Option<Epoch>), ClientError> {
        let table = self.table(name).await?;
        if let Ok(as_of) = table.as_of(requested) {
            return Ok((table, as_of));
        }
        self.refresh_catalog().await?;
        let table = self.table(name).await?;
        let as_of = table.as_of(requested)?;
        Ok((table, as_of))
    }

    /// Returns the route of a region. Refreshes the catalog before it reports a missing region.
    pub(crate) async fn route(
        &self,
        region: tidewater_common::ids::RegionId,
    ) -> Result<Arc<RouteInfo>, ClientError> {
        if let Some(route) = self.catalog().route(region) {
            return Ok(route.clone());
        }
        let catalog = self.refresh_catalog().await?;
        catalog.route(region).cloned().ok_or(ClientError::RegionNotFound(region))
    }

    /// Makes one attempt, and aborts it when the catalog names another leader: a frozen node would delay
    /// the caller for much longer than the election of its successor takes.
    pub(crate) async fn attempt<T, F>(
        &self,
        catalog: &Catalog,
        search: &mut Search,
        timeout: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let group = search.group;
        let address = self.router.next_address(Some(catalog), search)?;
        let called = address.clone();
        let old_leader = catalog.leader_address(group).map(str::to_owned);
        let mut published = self.published.clone();
        let leader_changed = async {
            let now = published.wait_for(|now| {
                let leader = now.catalog.leader_address(group);
                leader.is_some()
                    && leader != old_leader.as_deref()
                    && leader != Some(called.as_str())
            });
            let successor = now.await.ok();
            successor.and_then(|now| now.catalog.leader_address(group).map(str::to_owned))
        };
        tokio::select! {
            biased;
            result = self.router.attempt_at(address, search, timeout, call) => result,
            Some(successor) = leader_changed => {
                self.router.leaders.learn(group, &successor);
                Err(FailedAttempt {
                    refusal: Refusal::new(
                        Reason::Unavailable,
                        format!("{called} did not answer, and {successor} is the leader now"),
                    ),
                    effect: Effect::Unknown,
                    silent: true,
                })
            }
        }
    }

    /// Returns the failure of a call to a group. A call that would be repeated at a group that has been retired meanwhile is
    /// refused instead: other groups serve its routes, which the caller looks up. Answers that end the call stay.
    pub(crate) fn reroute_if_retired(
        &self,
        group: GroupId,
        failure: FailedAttempt,
    ) -> FailedAttempt {
        let is_repeated = match failure.retry_action() {
            RetryAction::Repeat
            | RetryAction::RepeatIfAsked
            | RetryAction::RepeatFew
            | RetryAction::FindLeader => true,
            RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => false,
        };
        let state = self.catalog().group(group).map(v1::Group::state);
        if !is_repeated || state != Some(GroupState::Retired) {
            return failure;
        }
        let text = format!("group {group} has been retired; other groups serve its routes");
        FailedAttempt { refusal: Refusal::new(Reason::GroupNotFound, text), ..failure }
    }

    /// Calls the leader of `group` until the call succeeds, fails, or reaches the limits.
    pub(crate) async fn call<T, F>(
        &self,
        group: GroupId,
        what: &str,
        repeat: Repeat,
        longest: Duration,
        call: impl Fn(Channel, Duration) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let limits = Limits::of(&self.router.options);
        let mut search = Search::new(group);
        let mut attempts = Attempts::default();
        let mut tried = BTreeMap::new();
        let mut any_answer = false;
        loop {
            let catalog = self.catalog();
            let timeout = limits.attempt(longest);
            let result = self
                .attempt(&catalog, &mut search, timeout, |channel| call(channel, timeout))
                .await;
            let failure = match result {
                Ok(answer) => return Ok(answer),
                Err(failure) => self.reroute_if_retired(group, failure),
            };
            attempts.record(&failure);
            any_answer |= !failure.silent || failure.effect == Effect::Unknown;
            if let Some(address) = &search.last_address {
                tried.insert(address.clone(), failure.refusal.message.clone());
            }
            let wait = self.router.wait(&mut search, &failure);
            let stop = match failure.retry_action() {
                RetryAction::Repeat | RetryAction::RepeatIfAsked | RetryAction::FindLeader => {
                    limits.exhausted(attempts.made(), wait)
                }
                RetryAction::RepeatFew => {
                    attempts.too_many_faults() || limits.exhausted(attempts.made(), wait)
                }
                // Calls to a group are not routed by key: the caller looks up the group again.
                RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
            };
            let unsafe_to_repeat = repeat == Repeat::UnlessUnknown && attempts.any_unknown();
            if !stop && !unsafe_to_repeat {
                tracing::debug!(
                    what,
                    attempt = attempts.made(),
                    cause = %failure.refusal,
                    "call failed; retrying"
                );
                tokio::time::sleep(wait).await;
                continue;
            }
            let what = what.to_owned();
            let cause = Box::new(attempts.cause().unwrap_or_else(|| failure.refusal.clone()));
            let made = attempts.made();
            let elapsed = limits.elapsed();
            return Err(match (failure.retry_action(), attempts.outcome()) {
                _ if group == GroupId::META && !any_answer => {
                    ClientError::NoMetaReachable { tried: tried.into_iter().collect() }
                }
                (_, WriteOutcome::Unknown) if repeat != Repeat::Read => {
                    ClientError::OutcomeUnknown { what, attempts: made, elapsed, cause }
                }
                (
                    RetryAction::Repeat
                    | RetryAction::RepeatIfAsked
                    | RetryAction::FindLeader
                    | RetryAction::RepeatFew,
                    _,
                ) => ClientError::RetriesExhausted { what, attempts: made, elapsed, cause },
                _ => ClientError::Refused { what, refusal: cause },
            });
        }
    }
}

#[cfg(test)]
mod tests;
