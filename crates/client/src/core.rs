//! State shared by all parts of a client: the router and the catalog, and calls with retries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::catalog::watch::PublishedCatalog;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::error::ClientError;
use crate::outcome::{Attempts, FailedAttempt, RetryAction, WriteOutcome};
use crate::router::{LeaderSearch, OperationLimits, Router};

/// Longest wait for the background task to fetch the catalog.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);

/// Condition under which a call with an unknown outcome may be retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RetryMode {
    /// Always: the call changes no state that matters to a caller.
    Read,
    /// Always: the server recognizes a retry, or finds the requested state. However, an attempt
    /// with an unknown outcome may take effect later, regardless of later responses.
    Idempotent,
    /// Only while every attempt so far had no effect.
    UnlessUnknown,
}

/// Shared by the client and the objects that it creates.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) router: Router,
    pub(crate) published: watch::Receiver<PublishedCatalog>,
    pub(crate) refresh: Arc<Notify>,
}

impl Core {
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.published.borrow().catalog.clone()
    }

    /// Has the background task fetch the catalog. Returns when it is done, or after a timeout
    /// without it: the limits of the caller bound the number of calls.
    pub(crate) async fn refreshed(&self) -> Result<Arc<Catalog>, ClientError> {
        let mut published = self.published.clone();
        let before = published.borrow_and_update().fetches;
        self.refresh.notify_one();
        let fetched = published.wait_for(|now| now.fetches > before || now.other.is_some());
        let _ = tokio::time::timeout(REFRESH_TIMEOUT, fetched).await;
        if let Some((was, is)) = self.published.borrow().other {
            return Err(ClientError::ClusterChanged { was, is });
        }
        Ok(self.catalog())
    }

    /// Returns the table with this name. Fetches the catalog before it reports a missing table.
    pub(crate) async fn table(&self, name: &str) -> Result<Arc<TableInfo>, ClientError> {
        if let Some(table) = self.catalog().table_named(name) {
            return Ok(table.clone());
        }
        let catalog = self.refreshed().await?;
        catalog
            .table_named(name)
            .cloned()
            .ok_or_else(|| ClientError::TableNotFound(name.to_owned()))
    }

    /// Returns the route of a region. Fetches the catalog before it reports a missing region.
    pub(crate) async fn route(
        &self,
        region: tidewater_common::ids::RegionId,
    ) -> Result<Arc<RouteInfo>, ClientError> {
        if let Some(route) = self.catalog().route(region) {
            return Ok(route.clone());
        }
        let catalog = self.refreshed().await?;
        catalog.route(region).cloned().ok_or(ClientError::RegionNotFound(region))
    }

    /// Makes one attempt, and cancels it when the catalog names another leader: a frozen node would
    /// delay the caller for much longer than the election of its successor takes.
    pub(crate) async fn attempt<T, F>(
        &self,
        catalog: &Catalog,
        search: &mut LeaderSearch,
        timeout: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let group = search.group;
        let address = self.router.next_address(Some(catalog), search)?;
        let called = address.clone();
        let before = catalog.leader_address(group).map(str::to_owned);
        let mut published = self.published.clone();
        let succeeded = async {
            let now = published.wait_for(|now| {
                let leader = now.catalog.leader_address(group);
                leader.is_some() && leader != before.as_deref() && leader != Some(called.as_str())
            });
            let successor = now.await.ok();
            successor.and_then(|now| now.catalog.leader_address(group).map(str::to_owned))
        };
        tokio::select! {
            biased;
            result = self.router.attempt_at(address, search, timeout, call) => result,
            Some(successor) = succeeded => {
                self.router.leaders.learn(group, &successor);
                Err(FailedAttempt {
                    refusal: Refusal::new(
                        Reason::Unavailable,
                        format!("{called} has not responded, and {successor} is the leader now"),
                    ),
                    effect: Effect::Unknown,
                    unanswered: true,
                })
            }
        }
    }

    /// Calls the leader of `group` until the call succeeds, fails, or reaches its limits.
    pub(crate) async fn call<T, F>(
        &self,
        group: GroupId,
        what: &str,
        mode: RetryMode,
        longest: Duration,
        call: impl Fn(Channel, Duration) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let limits = OperationLimits::of(&self.router.options);
        let mut search = LeaderSearch::new(group);
        let mut attempts = Attempts::default();
        let mut tried = BTreeMap::new();
        let mut any_response = false;
        loop {
            let catalog = self.catalog();
            let timeout = limits.attempt(longest);
            let result = self
                .attempt(&catalog, &mut search, timeout, |channel| call(channel, timeout))
                .await;
            let failure = match result {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            attempts.record(&failure);
            any_response |= !failure.unanswered || failure.effect == Effect::Unknown;
            if let Some(address) = &search.called {
                tried.insert(address.clone(), failure.refusal.message.clone());
            }
            let wait = self.router.wait(&mut search, &failure);
            let done = match failure.retry_action() {
                RetryAction::Retry | RetryAction::FindLeader => {
                    limits.exhausted(attempts.made(), wait)
                }
                RetryAction::RetryFew => {
                    attempts.has_too_many_faults() || limits.exhausted(attempts.made(), wait)
                }
                // Calls to a group are not routed by key: the caller looks up the route again.
                RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
            };
            let unknown = mode == RetryMode::UnlessUnknown && attempts.any_unknown();
            if !done && !unknown {
                tracing::debug!(what, attempt = attempts.made(), cause = %failure.refusal, "retrying a call");
                tokio::time::sleep(wait).await;
                continue;
            }
            let what = what.to_owned();
            let cause = Box::new(failure.refusal.clone());
            let made = attempts.made();
            let elapsed = limits.elapsed();
            return Err(match (failure.retry_action(), attempts.outcome()) {
                _ if group == GroupId::META && !any_response => {
                    ClientError::NoMetaReachable { tried: tried.into_iter().collect() }
                }
                (_, WriteOutcome::Unknown) if mode != RetryMode::Read => {
                    ClientError::OutcomeUnknown { what, attempts: made, elapsed, cause }
                }
                (RetryAction::Retry | RetryAction::FindLeader | RetryAction::RetryFew, _) => {
                    ClientError::RetriesExhausted { what, attempts: made, elapsed, cause }
                }
                _ => ClientError::Refused { what, refusal: cause },
            });
        }
    }
}

#[cfg(test)]
mod tests;
