//! One attempt of a call, made at the likely leader of the group.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::v1::{self, NodeRole, Reason};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::catalog::Catalog;
use crate::leaders::{Leaders, choose};
use crate::options::ClientOptions;
use crate::outcome::{FailedAttempt, RetryAction};
use crate::pool::{ChannelPool, attempt};

/// Number of redirects that are followed without a wait.
const QUICK_REDIRECTS: u32 = 2;

/// Number of redirects after an error that named no leader.
const REDIRECTS_WITHOUT_LEADER: u32 = QUICK_REDIRECTS + 1;

/// Minimum timeout of an attempt, even if the operation then exceeds its deadline by as much.
const MIN_ATTEMPT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections and known leaders.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) options: ClientOptions,
    pub(crate) pool: ChannelPool,
    pub(crate) leaders: Leaders,
}

/// LeaderSearch for a group's leader over several attempts of one operation.
#[derive(Debug)]
pub(crate) struct LeaderSearch {
    pub(crate) group: GroupId,
    failed: Option<String>,
    turn: u32,
    redirects: u32,
    waits: u32,
    /// The address of the last attempt.
    pub(crate) called: Option<String>,
}

impl LeaderSearch {
    pub(crate) fn new(group: GroupId) -> Self {
        Self { group, failed: None, turn: 0, redirects: 0, waits: 0, called: None }
    }

    /// Starts over for another group.
    pub(crate) fn retarget(&mut self, group: GroupId) {
        if self.group != group {
            *self = Self { waits: self.waits, ..Self::new(group) };
        }
    }
}

impl Router {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self { pool: ChannelPool::new(&options), leaders: Leaders::default(), options }
    }

    /// Makes one attempt. On a failure it advances the search: wait for [`Router::wait`] before the
    /// next attempt.
    pub(crate) async fn attempt<T, F>(
        &self,
        catalog: Option<&Catalog>,
        search: &mut LeaderSearch,
        timeout: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let address = self.next_address(catalog, search)?;
        self.attempt_at(address, search, timeout, call).await
    }

    /// Returns the address of the next attempt.
    ///
    /// # Errors
    /// No node is known.
    pub(crate) fn next_address(
        &self,
        catalog: Option<&Catalog>,
        search: &LeaderSearch,
    ) -> Result<String, FailedAttempt> {
        self.choose(catalog, search).ok_or_else(|| FailedAttempt {
            refusal: Refusal::new(
                Reason::Unavailable,
                format!("no node is known that serves group {}", search.group),
            ),
            effect: Effect::None,
            unanswered: true,
        })
    }

    /// Makes one attempt at this address.
    pub(crate) async fn attempt_at<T, F>(
        &self,
        address: String,
        search: &mut LeaderSearch,
        timeout: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        search.called = Some(address.clone());
        let result = match self.pool.channel(&address) {
            Ok(channel) => attempt(timeout, call(channel)).await,
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) => {
                self.leaders.learn(search.group, &address);
                search.failed = None;
            }
            Err(failure) => self.learn_from(failure, search, address),
        }
        result
    }

    fn choose(&self, catalog: Option<&Catalog>, search: &LeaderSearch) -> Option<String> {
        let hint = self.leaders.hint(search.group);
        let mut replicas: Vec<&str> = Vec::new();
        let meta: Vec<_>;
        if search.group == GroupId::META {
            meta = catalog.map(|known| known.addresses(NodeRole::Meta)).unwrap_or_default();
            replicas.extend(self.options.meta.iter().map(String::as_str));
            let learned = meta.iter().map(|(_, address)| address.as_str());
            replicas.extend(learned.filter(|known| !self.options.meta.iter().any(|m| m == known)));
        } else if let Some(catalog) = catalog {
            replicas = catalog.replica_addresses(search.group);
        }
        let leader = catalog.and_then(|known| known.leader_address(search.group));
        choose(hint.as_deref(), leader, &replicas, search.failed.as_deref(), search.turn)
    }

    fn learn_from(&self, failure: &FailedAttempt, search: &mut LeaderSearch, address: String) {
        if failure.retry_action() != RetryAction::FindLeader {
            return;
        }
        self.leaders.forget(search.group, &address);
        let named = failure.refusal.leader.as_ref().map(|leader| leader.address.as_str());
        match named.filter(|named| !named.is_empty() && *named != address) {
            Some(named) => {
                self.leaders.learn(search.group, named);
                search.redirects = search.redirects.saturating_add(1);
            }
            None => search.redirects = REDIRECTS_WITHOUT_LEADER,
        }
        search.failed = Some(address);
        search.turn = search.turn.wrapping_add(1);
    }

    /// Returns the wait after `failure`: zero after a redirect, unless redirects form a cycle.
    pub(crate) fn wait(&self, search: &mut LeaderSearch, failure: &FailedAttempt) -> Duration {
        let redirected = failure.retry_action() == RetryAction::FindLeader
            && (1..=QUICK_REDIRECTS).contains(&search.redirects);
        if redirected {
            return Duration::ZERO;
        }
        search.redirects = 0;
        search.waits = search.waits.saturating_add(1);
        let backoff = self.options.backoff;
        backoff.wait(search.waits, failure.refusal.retry_after, self.options.ids.bits())
    }

    pub(crate) fn meta(&self, channel: Channel) -> v1::meta_client::MetaClient<Channel> {
        v1::meta_client::MetaClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn admin(&self, channel: Channel) -> v1::admin_client::AdminClient<Channel> {
        v1::admin_client::AdminClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn hook_admin(
        &self,
        channel: Channel,
    ) -> v1::hook_admin_client::HookAdminClient<Channel> {
        v1::hook_admin_client::HookAdminClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn data(&self, channel: Channel) -> v1::data_client::DataClient<Channel> {
        v1::data_client::DataClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn region_admin(
        &self,
        channel: Channel,
    ) -> v1::region_admin_client::RegionAdminClient<Channel> {
        v1::region_admin_client::RegionAdminClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn compaction(&self, channel: Channel) -> CompactionClient<Channel> {
        CompactionClient::new(channel).max_decoding_message_size(self.options.max_message_bytes)
    }
}

/// Creates a request that carries the caller's timeout to the server.
pub(crate) fn timed<T>(message: T, timeout: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Limits of one operation: a deadline and a number of attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OperationLimits {
    pub(crate) started: Instant,
    pub(crate) until: Instant,
    pub(crate) attempts: u32,
}

impl OperationLimits {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        let started = Instant::now();
        Self { started, until: started + options.deadline, attempts: options.max_attempts }
    }

    /// Returns the timeout of the next attempt. It is never so short that the outcome would most
    /// likely be unknown.
    pub(crate) fn attempt(&self, longest: Duration) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(MIN_ATTEMPT_TIMEOUT).min(longest)
    }

    /// Returns whether the limits do not allow another attempt after a wait.
    pub(crate) fn exhausted(&self, made: u32, wait: Duration) -> bool {
        made >= self.attempts || Instant::now() + wait >= self.until
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
