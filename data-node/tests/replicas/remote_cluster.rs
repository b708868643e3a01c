//! A node with two fake compactors, for tests of remote compactions.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidewater_common::backoff::Backoff;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::leadership::compactions::placement::CompactionPolicy;
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_events::EventRecorderRef;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::{
    CancelCompactionRequest, CompactionInfo, CompactionReport, ListCompactionsRequest, Reason,
};
use tidewater_region_engine::compaction::CompactionOptions;
use tonic::Request;

use crate::cluster::{Node, NodeConfig, until, write};
use crate::fake_compactor::{FakeCompactor, FakeReply};
use crate::single::{node_config, start_with_region};

/// Interval of automatic compaction, in tests that use it.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time that spans many of these intervals.
pub(crate) const MANY_INTERVALS: Duration = Duration::from_millis(600);

/// Options without automatic compaction, and with short limits of attempts.
pub(crate) fn options(jobs: JobPolicy) -> GroupOptions {
    let jobs = JobPolicy {
        progress_timeout: Duration::from_millis(400),
        backoff: Backoff { first: Duration::from_millis(10), longest: Duration::from_millis(20) },
        slot_timeout: Duration::from_millis(300),
        ..jobs
    };
    let every = Duration::from_secs(3_600);
    let compactions = CompactionPolicy { interval: every, jobs, ..CompactionPolicy::default() };
    GroupOptions { compactions, ..GroupOptions::default() }
}

pub(crate) fn no_fallback() -> GroupOptions {
    options(JobPolicy { fallback_to_local: false, ..JobPolicy::default() })
}

/// Enables automatic compaction.
pub(crate) fn with_automatic_compaction(mut options: GroupOptions) -> GroupOptions {
    options.compactions.interval = CHECK_INTERVAL;
    options
}

/// Allows 4 s for a cancellation to take effect before an attempt is replaced.
pub(crate) fn with_long_patience(mut options: GroupOptions) -> GroupOptions {
    options.compactions.jobs.progress_timeout = Duration::from_secs(4);
    options
}

pub(crate) fn always_overloaded() -> impl Iterator<Item = FakeReply> {
    (0..10_000).map(|_| FakeReply::RefusePlan(Reason::Overloaded))
}

/// Disables the time limits of attempts and waits.
pub(crate) fn without_time_limits(mut options: GroupOptions) -> GroupOptions {
    let hour = Duration::from_secs(3_600);
    options.compactions.jobs.progress_timeout = hour;
    options.compactions.jobs.slot_timeout = hour;
    options
}

/// A node that leads a region of three files, and two fake compactors.
pub(crate) struct RemoteCompactionCluster {
    _folder: tempfile::TempDir,
    pub(crate) config: NodeConfig,
    pub(crate) node: Node,
    pub(crate) first: Arc<FakeCompactor>,
    pub(crate) second: Arc<FakeCompactor>,
}

impl RemoteCompactionCluster {
    pub(crate) async fn start(options: GroupOptions) -> Self {
        Self::start_with(options, CompactionOptions::default()).await
    }

    pub(crate) async fn start_with(options: GroupOptions, compaction: CompactionOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { compaction, ..node_config(&folder, options).await };
        Self::start_node(folder, config).await
    }

    /// Starts a cluster whose node records its events.
    pub(crate) async fn start_recording(options: GroupOptions, recorder: EventRecorderRef) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = NodeConfig { recorder, ..node_config(&folder, options).await };
        Self::start_node(folder, config).await
    }

    async fn start_node(folder: tempfile::TempDir, config: NodeConfig) -> Self {
        let node = start_with_region(&config).await;
        node.write(write(1, 1, &[])).await.unwrap();
        flush_rows(&node, 2..5).await;
        let first = FakeCompactor::start(201, &config.storage).await;
        let second = FakeCompactor::start(202, &config.storage).await;
        let cluster = Self { _folder: folder, config, node, first, second };
        // The first compactor has more slots, so it is tried first.
        cluster.announce(&[(&cluster.first, 2), (&cluster.second, 1)]);
        cluster
    }

    pub(crate) fn announce(&self, compactors: &[(&Arc<FakeCompactor>, u32)]) {
        let known: Vec<_> =
            compactors.iter().map(|(compactor, slots)| compactor.info(*slots)).collect();
        self.node.groups.context().compactors.fleet.follow(NodeId(1), &known);
    }

    pub(crate) async fn compact(&self) -> Result<CompactionReport, Refusal> {
        Ok(self.node.compact().await?.0.report.unwrap())
    }

    /// Starts a compaction; returns it as soon as the first compactor has the job.
    pub(crate) async fn compact_until_first_has_it(
        &self,
    ) -> BoxFuture<'_, Result<CompactionReport, Refusal>> {
        let mut compacting = self.compact().boxed();
        until("the first compactor has the job", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            self.first.attempts() == [1]
        })
        .await;
        compacting
    }

    /// Checks the number of files and the rows that were written.
    pub(crate) async fn check_files(&self, files: u32) {
        assert_eq!(self.node.info().await.unwrap().files, files);
        assert_eq!(self.node.scan().await.unwrap(), [1, 1, 1, 2, 3, 4]);
    }
}

pub(crate) async fn flush_rows(node: &Node, serials: std::ops::Range<u64>) {
    for serial in serials {
        node.write(write(1, serial, &[1, serial as i64])).await.unwrap();
        node.flush().await.unwrap();
    }
}

pub(crate) async fn jobs(node: &Node) -> Vec<CompactionInfo> {
    let reply = node.admin.list_compactions(Request::new(ListCompactionsRequest {})).await;
    reply.unwrap().into_inner().compactions
}

pub(crate) async fn cancel(node: &Node, job_id: &str) -> Result<(), Refusal> {
    let request = CancelCompactionRequest { job_id: job_id.to_owned() };
    node.admin.cancel_compaction(Request::new(request)).await?;
    Ok(())
}
