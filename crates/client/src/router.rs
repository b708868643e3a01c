//! Router: sends one attempt of a call to the presumed leader of a group.

use std::time::Duration;

use tidewater_common::ids::GroupId;
use tidewater_common::refusal::{Effect, Refusal};
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::v1::{self, NodeRole, Reason};
use tidewater_rpc::{Channels, ConnectPolicy, attempt};
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::catalog::Catalog;
use crate::leaders::{Leaders, choose};
use crate::options::ClientOptions;
use crate::outcome::{FailedAttempt, RetryAction};

/// Consecutive redirects that are followed without a wait.
const QUICK_REDIRECTS: u32 = 2;

/// Value of [`Search::redirects`] after an answer without a leader.
const NO_REDIRECT: u32 = QUICK_REDIRECTS + 1;

/// Shortest timeout of an attempt, even if the operation exceeds its deadline by as much.
const SHORTEST_ATTEMPT: Duration = Duration::from_secs(1);

/// Connections and hints about leaders.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) options: ClientOptions,
    channels: Channels,
    pub(crate) leaders: Leaders,
}

/// Search for the leader of a group, over several attempts of one operation.
#[derive(Debug)]
pub(crate) struct Search {
    pub(crate) group: GroupId,
    /// Address of the last attempt, if it could not answer.
    failed: Option<String>,
    /// Index of the next replica, modulo their number.
    turn: u32,
    /// Redirects since the last wait.
    redirects: u32,
    waits: u32,
    /// Address of the last attempt.
    pub(crate) last_address: Option<String>,
}

impl Search {
    pub(crate) fn new(group: GroupId) -> Self {
        Self { group, failed: None, turn: 0, redirects: 0, waits: 0, last_address: None }
    }

    /// Restarts the search if the group is another one.
    pub(crate) fn set_group(&mut self, group: GroupId) {
        if self.group != group {
            *self = Self { waits: self.waits, ..Self::new(group) };
        }
    }
}

impl Router {
    pub(crate) fn new(options: ClientOptions) -> Self {
        let policy =
            ConnectPolicy { connect_timeout: options.connect_timeout, ..ConnectPolicy::CLIENT };
        Self { channels: Channels::new(policy), leaders: Leaders::default(), options }
    }

    /// Returns the connection to `address` (host:port). It is opened on first use.
    ///
    /// # Errors
    /// The address is not of the form host:port.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, FailedAttempt> {
        self.channels.to(address).map_err(FailedAttempt::not_sent)
    }

    /// Makes one attempt. A failure advances the search: wait for [`Router::wait`] before the next
    /// attempt.
    pub(crate) async fn attempt<T, F>(
        &self,
        catalog: Option<&Catalog>,
        search: &mut Search,
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
    /// No node of the group is known.
    pub(crate) fn next_address(
        &self,
        catalog: Option<&Catalog>,
        search: &Search,
    ) -> Result<String, FailedAttempt> {
        self.choose(catalog, search).ok_or_else(|| FailedAttempt {
            refusal: Refusal::new(
                Reason::Unavailable,
                format!("no node of group {} is known", search.group),
            ),
            effect: Effect::None,
            silent: true,
        })
    }

    /// Makes one attempt at a given node.
    pub(crate) async fn attempt_at<T, F>(
        &self,
        address: String,
        search: &mut Search,
        timeout: Duration,
        call: impl FnOnce(Channel) -> F,
    ) -> Result<T, FailedAttempt>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        search.last_address = Some(address.clone());
        let result = match self.channel(&address) {
            Ok(channel) => attempt(&address, timeout, call(channel)).await,
            Err(failure) => Err(failure),
        };
        match &result {
            Ok(_) => {
                self.leaders.learn(search.group, &address);
                search.failed = None;
            }
            Err(failure) => self.record_failure(failure, search, address),
        }
        result
    }

    fn choose(&self, catalog: Option<&Catalog>, search: &Search) -> Option<String> {
        let hint = self.leaders.hint(search.group);
        let mut replicas: Vec<&str> = Vec::new();
        let meta: Vec<_>;
        if search.group == GroupId::META {
            meta = catalog.map(|known| known.addresses(NodeRole::Meta)).unwrap_or_default();
            replicas.extend(self.options.meta.iter().map(String::as_str));
            let learned = meta.iter().map(|(_, address)| address.as_str());
            replicas.extend(
                learned.filter(|address| !self.options.meta.iter().any(|given| given == address)),
            );
        } else if let Some(catalog) = catalog {
            replicas = catalog.replica_addresses(search.group);
        }
        let leader = catalog.and_then(|known| known.leader_address(search.group));
        choose(hint.as_deref(), leader, &replicas, search.failed.as_deref(), search.turn)
    }

    fn record_failure(&self, failure: &FailedAttempt, search: &mut Search, address: String) {
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
            None => search.redirects = NO_REDIRECT,
        }
        search.failed = Some(address);
        search.turn = search.turn.wrapping_add(1);
    }

    /// Returns the wait after a failed attempt: zero after a redirect, unless too many redirects in a row
    /// suggest a cycle.
    pub(crate) fn wait(&self, search: &mut Search, failure: &FailedAttempt) -> Duration {
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

    pub(crate) fn refreshes(
        &self,
        channel: Channel,
    ) -> v1::refresh_admin_client::RefreshAdminClient<Channel> {
        v1::refresh_admin_client::RefreshAdminClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn storage(
        &self,
        channel: Channel,
    ) -> v1::storage_admin_client::StorageAdminClient<Channel> {
        v1::storage_admin_client::StorageAdminClient::new(channel)
            .max_decoding_message_size(self.options.max_message_bytes)
            .max_encoding_message_size(self.options.max_message_bytes)
    }

    pub(crate) fn procedures(
        &self,
        channel: Channel,
    ) -> v1::procedures_client::ProceduresClient<Channel> {
        v1::procedures_client::ProceduresClient::new(channel)
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

/// Limits of one operation: deadline and number of attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) started: Instant,
    pub(crate) until: Instant,
    pub(crate) attempts: u32,
}

impl Limits {
    pub(crate) fn of(options: &ClientOptions) -> Self {
        let started = Instant::now();
        Self { started, until: started + options.deadline, attempts: options.max_attempts }
    }

    /// Returns the timeout of the next attempt: at most `longest`, and at least [`SHORTEST_ATTEMPT`], since
    /// a shorter one could only end with an unknown outcome.
    pub(crate) fn attempt(&self, longest: Duration) -> Duration {
        self.until.saturating_duration_since(Instant::now()).max(SHORTEST_ATTEMPT).min(longest)
    }

    /// Returns `true` if the limits permit no further attempt after a wait.
    pub(crate) fn exhausted(&self, made: u32, wait: Duration) -> bool {
        made >= self.attempts || Instant::now() + wait >= self.until
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
