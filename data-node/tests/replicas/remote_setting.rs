//! A node with two compactors, for tests of compactions on them.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tidewater_common::ids::NodeId;
use tidewater_common::refusal::Refusal;
use tidewater_data_node::leadership::compactions::placement::CompactionPolicy;
use tidewater_data_node::leadership::compactions::retry_policy::JobPolicy;
use tidewater_data_node::options::GroupOptions;
use tidewater_proto::v1::region_admin_server::RegionAdmin;
use tidewater_proto::v1::{
    CancelCompactionRequest, CompactionInfo, CompactionReport, ListCompactionsRequest, Reason,
};
use tonic::Request;

use crate::cluster::{Node, Place, until, write};
use crate::fake_compactor::{Act, FakeCompactor};
use crate::single::{place, start_with_region};

/// How often pickers are asked, where that is not left to whoever asks.
pub(crate) const EVERY: Duration = Duration::from_millis(50);
/// Within this they are asked many times.
pub(crate) const A_WHILE: Duration = Duration::from_millis(600);

/// Nothing by itself; attempts are given up soon.
pub(crate) fn options(jobs: JobPolicy) -> GroupOptions {
    let jobs = JobPolicy {
        progress_timeout: Duration::from_millis(400),
        backoff: (Duration::from_millis(10), Duration::from_millis(20)),
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

/// Pickers are asked.
pub(crate) fn by_itself(mut options: GroupOptions) -> GroupOptions {
    options.compactions.interval = EVERY;
    options
}

/// Cancels have so long to come before a job is given up.
pub(crate) fn patient(mut options: GroupOptions) -> GroupOptions {
    options.compactions.jobs.progress_timeout = Duration::from_secs(4);
    options
}

pub(crate) fn full() -> impl Iterator<Item = Act> {
    (0..10_000).map(|_| Act::RefusePlan(Reason::Overloaded))
}

/// Nothing is given up, however long it takes.
pub(crate) fn for_ever(mut options: GroupOptions) -> GroupOptions {
    let hour = Duration::from_secs(3_600);
    options.compactions.jobs.progress_timeout = hour;
    options.compactions.jobs.slot_timeout = hour;
    options
}

/// A node with a region of three files, and two compactors.
pub(crate) struct Setting {
    _folder: tempfile::TempDir,
    pub(crate) place: Place,
    pub(crate) node: Node,
    pub(crate) one: Arc<FakeCompactor>,
    pub(crate) two: Arc<FakeCompactor>,
}

impl Setting {
    pub(crate) async fn start(options: GroupOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = place(&folder, options).await;
        let node = start_with_region(&place).await;
        node.write(write(1, 1, &[])).await.unwrap();
        flush_rows(&node, 2..5).await;
        let one = FakeCompactor::start(201, &place.storage).await;
        let two = FakeCompactor::start(202, &place.storage).await;
        let setting = Self { _folder: folder, place, node, one, two };
        // The first has more room, so it is asked first.
        setting.up(&[(&setting.one, 2), (&setting.two, 1)]);
        setting
    }

    pub(crate) fn up(&self, compactors: &[(&Arc<FakeCompactor>, u32)]) {
        let known: Vec<_> = compactors.iter().map(|(one, slots)| one.info(*slots)).collect();
        self.node.groups.parts().compactors.fleet.follow(NodeId(1), &known);
    }

    pub(crate) async fn compact(&self) -> Result<CompactionReport, Refusal> {
        Ok(self.node.compact().await?.0.report.unwrap())
    }

    /// The same, as soon as the first compactor has the job.
    pub(crate) async fn compact_until_one_has_it(
        &self,
    ) -> BoxFuture<'_, Result<CompactionReport, Refusal>> {
        let mut compacting = self.compact().boxed();
        until("the first compactor has it", async || {
            assert!(futures::poll!(&mut compacting).is_pending());
            self.one.attempts() == [1]
        })
        .await;
        compacting
    }

    /// Files, and the rows that were written.
    pub(crate) async fn check(&self, files: u32) {
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
    let answer = node.admin.list_compactions(Request::new(ListCompactionsRequest {})).await;
    answer.unwrap().into_inner().compactions
}

pub(crate) async fn cancel(node: &Node, job_id: &str) -> Result<(), Refusal> {
    let request = CancelCompactionRequest { job_id: job_id.to_owned() };
    node.admin.cancel_compaction(Request::new(request)).await?;
    Ok(())
}
