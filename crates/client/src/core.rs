//! What all parts of a client share: the router, the catalog, and calls that are repeated until
//! they are settled.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::v1::Reason;
use tokio::sync::{Notify, watch};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::catalog::watch::Published;
use crate::catalog::{Catalog, RouteInfo, TableInfo};
use crate::error::ClientError;
use crate::outcome::{RetryAction, Attempts, FailedAttempt, WriteOutcome};
use crate::router::{Limits, Router, Search};

/// Longest wait for the background task to fetch the catalog.
const REFRESH_PATIENCE: Duration = Duration::from_secs(5);

/// Whether a call whose outcome is unknown may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Always: it changes nothing that a caller could be wrong about.
    Read,
    /// Always: the server knows a repeat when it sees one, or finds done what it asks for. But an
    /// attempt whose outcome is unknown may be done later, whatever the next ones are answered.
    Idempotent,
    /// Only when every attempt so far has definitely done nothing.
    UnlessUnknown,
}

/// Shared by the client and everything that it hands out.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) router: Router,
    pub(crate) published: watch::Receiver<Published>,
    pub(crate) refresh: Arc<Notify>,
}

impl Core {
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.published.borrow().catalog.clone()
    }

    /// Has the catalog fetched anew. Returns when that is done, or after a while without it: the
    /// caller's own limits decide how often it asks.
    pub(crate) async fn refreshed(&self) -> Result<Arc<Catalog>, ClientError> {
        let mut published = self.published.clone();
        let before = published.borrow_and_update().fetches;
        self.refresh.notify_one();
        let fetched = published.wait_for(|now| now.fetches > before || now.other.is_some());
        let _ = tokio::time::timeout(REFRESH_PATIENCE, fetched).await;
        if let Some((was, is)) = self.published.borrow().other {
            return Err(ClientError::OtherCluster { was, is });
        }
        Ok(self.catalog())
    }

    /// The table of this name; the catalog is fetched anew before it is said to be missing.
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

    /// The route to a region; the catalog is fetched anew before it is said to be missing.
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

    /// Makes one attempt, and gives it up when the catalog names another leader meanwhile: a frozen
    /// node would hold up the caller for much longer than the election of its successor takes.
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
        let address = self.router.aim(Some(catalog), search)?;
        let asked = address.clone();
        let before = catalog.leader_address(group).map(str::to_owned);
        let mut published = self.published.clone();
        let succeeded = async {
            let now = published.wait_for(|now| {
                let leader = now.catalog.leader_address(group);
                leader.is_some() && leader != before.as_deref() && leader != Some(asked.as_str())
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
                        format!("{asked} has not answered, and {successor} leads now"),
                    ),
                    effect: Effect::Unknown,
                    silent: true,
                })
            }
        }
    }

    /// Calls the leader of `group` until the call is settled or the limits are reached.
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
        let mut anyone_answered = false;
        loop {
            let catalog = self.catalog();
            let timeout = limits.attempt(longest);
            let result = self
                .attempt(&catalog, &mut search, timeout, |channel| call(channel, timeout))
                .await;
            let miss = match result {
                Ok(answer) => return Ok(answer),
                Err(miss) => miss,
            };
            attempts.record(&miss);
            anyone_answered |= !miss.silent || miss.effect == Effect::Unknown;
            if let Some(address) = &search.asked {
                tried.insert(address.clone(), miss.refusal.message.clone());
            }
            let wait = self.router.wait(&mut search, &miss);
            let done = match miss.retry_action() {
                RetryAction::Repeat | RetryAction::FindLeader => limits.exhausted(attempts.made(), wait),
                RetryAction::RepeatFew => {
                    attempts.too_many_faults() || limits.exhausted(attempts.made(), wait)
                }
                // Calls to a group are not routed by key: whoever makes them looks again.
                RetryAction::RefreshCatalog | RetryAction::NewProducer | RetryAction::Stop => true,
            };
            let in_doubt = repeat == Repeat::UnlessUnknown && attempts.any_unknown();
            if !done && !in_doubt {
                tracing::debug!(what, attempt = attempts.made(), cause = %miss.refusal, "repeating a call");
                tokio::time::sleep(wait).await;
                continue;
            }
            let (what, cause) = (what.to_owned(), Box::new(miss.refusal.clone()));
            let (made, elapsed) = (attempts.made(), limits.elapsed());
            return Err(match (miss.retry_action(), attempts.outcome()) {
                _ if group == GroupId::META && !anyone_answered => {
                    ClientError::NoMetaReachable { tried: tried.into_iter().collect() }
                }
                (_, WriteOutcome::Unknown) if repeat != Repeat::Read => {
                    ClientError::OutcomeUnknown { what, attempts: made, elapsed, cause }
                }
                (RetryAction::Repeat | RetryAction::FindLeader | RetryAction::RepeatFew, _) => {
                    ClientError::RetriesExhausted { what, attempts: made, elapsed, cause }
                }
                _ => ClientError::Refused { what, refusal: cause },
            });
        }
    }
}

#[cfg(test)]
mod tests;
