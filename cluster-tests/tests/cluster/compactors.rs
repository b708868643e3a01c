//! Faults of remote compaction: compactors that are unavailable, reject jobs, crash, hang, freeze or
//! commit late, and changes of the owner during a job.
//!
//! A scenario stops a compactor within a job through the object store, which holds back its puts.

mod churn;
mod embedded;
mod full_disk;
mod hook_calls;
mod incompressible_table;
mod late_commits;
mod lost;
mod memory;
mod outputs;
mod retries;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE, Store};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::s3::{Fault, Mode, S3Endpoint};
use tidewater_cluster_tests::workload::{LoadOptions, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::SETTLED_WITHIN;

/// Progress timeout that no job reaches.
const LONG_TIMEOUT: &str = "600s";
/// Progress timeout that stalled jobs reach.
const SHORT_TIMEOUT: &str = "3s";

/// A cluster with two compactors and a table of three files with running writers. Background compaction
/// is off. `compactor-1` has more slots, so jobs are offered to it first.
pub(super) struct CompactionScenario {
    pub(super) cluster: Cluster,
    pub(super) load: Workload,
    /// Id of the table's region.
    pub(super) region: String,
}

impl CompactionScenario {
    pub(super) async fn start(data: u32) -> Result<Self> {
        Self::start_with(ClusterPlan::default().nodes(1, data, 2)).await
    }

    /// Starts a cluster whose data node aborts stalled jobs after [`SHORT_TIMEOUT`].
    pub(super) async fn start_with_short_timeout() -> Result<Self> {
        let plan = ClusterPlan::default().nodes(1, 1, 2);
        Self::start_with(plan.env("TIDEWATER_COMPACTION_PATIENCE", SHORT_TIMEOUT)).await
    }

    /// Starts a cluster with other nodes and settings.
    pub(super) async fn start_with(plan: ClusterPlan) -> Result<Self> {
        let plan = ClusterPlan { env: [long_timeout(), plan.env].concat(), ..plan };
        let plan = plan.store(Store::S3).env("TIDEWATER_COMPACTION", "off");
        let mut cluster = plan.prepare().await?;
        for (slots, node) in ["4", "1"].into_iter().zip(&mut cluster.compactors) {
            node.spec.env.push(("TIDEWATER_SLOTS".to_owned(), slots.to_owned()));
        }
        cluster.start_all().await?;
        cluster.wait_until_healthy().await?;
        cluster.create_log_table().await?;
        let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
        let load = Workload::start(&cluster, LoadOptions::default()).await?;
        let scenario = Self { cluster, load, region };
        scenario.flush(3).await?;
        scenario.wait_for_compactors().await?;
        Ok(scenario)
    }

    pub(super) fn s3(&self) -> &S3Endpoint {
        self.cluster.s3.as_ref().expect("planned")
    }

    /// Flushes `files` more files.
    pub(super) async fn flush(&self, files: usize) -> Result<()> {
        for _ in 0..files {
            self.load.progress(10).await?;
            self.cluster.flush(LOG_TABLE).await?.ok()?;
        }
        Ok(())
    }

    pub(super) async fn wait_for_compactors(&self) -> Result<()> {
        wait_for_compactors(&self.cluster).await
    }

    /// Creates another table of two files without writers; returns its region.
    pub(super) async fn create_other_table(&self, name: &str) -> Result<String> {
        let columns = ["--columns", "k int64", "--primary-key", "k"];
        self.cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?.ok()?;
        let file = self.cluster.directory().join("rows.csv");
        for rows in ["k\n1\n2\n", "k\n2\n3\n"] {
            std::fs::write(&file, rows).map_err(HarnessError::io("a csv file"))?;
            self.cluster.run(&["load", name, &file.display().to_string()]).await?.ok()?;
            self.cluster.flush(name).await?.ok()?;
        }
        Ok(self.cluster.region(name).await?.region_id.to_string())
    }

    pub(super) async fn compact(&self, flags: &[&str]) -> Result<CommandOutput> {
        let args = ["region", "compact", &self.region, "--output", "json"];
        self.cluster.run(&[&args, flags].concat()).await
    }

    /// Returns the node id of a compactor, by index from 0.
    pub(super) async fn compactor(&self, index: usize) -> Result<u64> {
        self.cluster.node_id(&self.cluster.compactors[index].spec).await
    }

    /// Holds back the puts of a compactor to paths that contain `path`.
    pub(super) async fn hold_puts(&self, index: usize, path: &'static str) -> Result<()> {
        let name = &self.cluster.compactors[index].spec.name;
        self.s3().inject(Fault::new(Mode::Hold).on_puts().on_path(path).from_node(name)).await
    }

    /// Waits until the store holds back a put.
    pub(super) async fn wait_until_held(&self) -> Result<()> {
        wait::until("the compactor is within a job", SETTLED_WITHIN, || async {
            match self.s3().hits().await.map_err(|error| error.to_string())? {
                0 => Err("nothing is held back yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await
    }

    pub(super) async fn jobs(&self) -> Result<Vec<Value>> {
        let output = self.cluster.run(&["compaction", "list", "--output", "json"]).await?.ok()?;
        Ok(output.json()?.as_array().cloned().unwrap_or_default())
    }

    pub(super) async fn files(&self) -> Result<usize> {
        let output =
            self.cluster.run(&["region", "files", &self.region, "--output", "json"]).await?;
        Ok(output.ok()?.json()?.as_array().map_or(0, Vec::len))
    }

    /// Verifies that the first data node has retried no job.
    pub(super) async fn expect_no_retries(&self) -> Result<()> {
        let metrics = Metrics::fetch(self.cluster.data[0].spec.listen).await?;
        let retries = metrics.sum("tidewater_compaction_retries_total");
        expect("no job is retried", retries == 0, retries)
    }

    /// Waits until the log of a compactor contains `words`.
    pub(super) async fn wait_for_log(&self, index: usize, words: &str) -> Result<()> {
        self.wait_for_log_times(index, words, 1).await
    }

    /// Waits until the log of a compactor contains `words` at least `times` times.
    pub(super) async fn wait_for_log_times(
        &self,
        index: usize,
        words: &str,
        times: usize,
    ) -> Result<()> {
        let log = self.cluster.compactors[index].log();
        wait::until(&format!("{} logs {words:?}", log.path().display()), SETTLED_WITHIN, || async {
            let text = log.text().map_err(|error| error.to_string())?;
            if text.matches(words).count() >= times { Ok(()) } else { Err(log.tail()) }
        })
        .await
    }

    /// Verifies that all acknowledged rows are present once and that replicas agree.
    pub(super) async fn conclude(self) -> Result<()> {
        self.s3().heal().await?;
        crate::support::conclude(self.cluster, self.load).await.map(drop)
    }
}

/// Waits until the owner offloads jobs. A request for an empty table has no effect.
pub(super) async fn wait_for_compactors(cluster: &Cluster) -> Result<()> {
    let small = ["table", "create", "small", "--columns", "k int64", "--primary-key", "k"];
    let output = cluster.run(&small).await?;
    if output.status != Some(4) {
        output.ok()?;
    }
    let region = cluster.region("small").await?.region_id.to_string();
    wait::until("the owner knows compactors", SETTLED_WITHIN, || async {
        let compacted = cluster.run(&["region", "compact", &region, "--remote"]).await;
        compacted.and_then(CommandOutput::ok).map(drop).map_err(|error| error.to_string())
    })
    .await
}

fn long_timeout() -> Vec<(String, String)> {
    vec![("TIDEWATER_COMPACTION_PATIENCE".to_owned(), LONG_TIMEOUT.to_owned())]
}

/// Verifies that node `node` (0: the data node) committed a compaction of `files_in` files; returns its
/// report.
pub(super) fn expect_committed_by(
    output: CommandOutput,
    node: u64,
    files_in: u64,
) -> Result<Value> {
    let report = output.ok()?.json()?;
    if report["node_id"] != node || report["files_in"] != files_in {
        return Err(HarnessError::violated(format!(
            "expected a compaction of {files_in} files by node {node}: {report}"
        )));
    }
    Ok(report)
}

/// Verifies a condition; `seen` is the observation for the error message.
pub(super) fn expect(condition: &str, is_true: bool, seen: impl std::fmt::Debug) -> Result<()> {
    if is_true { Ok(()) } else { Err(HarnessError::violated(format!("{condition}: {seen:?}"))) }
}
