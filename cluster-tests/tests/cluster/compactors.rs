//! Compactor nodes that are gone, refuse, die, hang, sleep or come too late, and owners that change
//! meanwhile: the table "When things go wrong" of remote compaction, row by row.
//!
//! A compactor is caught in the midst of a job by the object store, which holds back what it puts.

mod churn;
mod embedded;
mod full;
mod gone;
mod late;
mod memory;
mod noise;
mod outputs;
mod retried;
mod told;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan, Store};
use tidewater_cluster_tests::command::Said;
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::s3::{Fault, Mode, S3Endpoint};
use tidewater_cluster_tests::workload::{Load, Workload};
use tidewater_cluster_tests::{HarnessError, Result, wait};

use crate::support::SETTLED_WITHIN;

/// Longer than anything takes here.
const PATIENT: &str = "600s";
/// Long enough to be seen waiting for.
const HASTY: &str = "3s";

/// A cluster with a table of three files that is written to, and two compactors. Nothing is compacted by
/// itself; `compactor-1` has more slots, so it is asked first.
pub(super) struct Setting {
    pub(super) cluster: Cluster,
    pub(super) load: Workload,
    /// The table's region.
    pub(super) region: String,
}

impl Setting {
    pub(super) async fn start(data: u32) -> Result<Self> {
        Self::planned(Plan::default().nodes(1, data, 2)).await
    }

    /// One whose data node gives jobs up soon.
    pub(super) async fn hasty() -> Result<Self> {
        let plan = Plan::default().nodes(1, 1, 2);
        Self::planned(plan.env("TIDEWATER_COMPACTION_PATIENCE", HASTY)).await
    }

    /// With nodes and settings of one's own.
    pub(super) async fn planned(plan: Plan) -> Result<Self> {
        let plan = Plan { env: [patient(), plan.env].concat(), ..plan };
        let plan = plan.store(Store::S3).env("TIDEWATER_COMPACTION", "off");
        let mut cluster = plan.prepare().await?;
        for (slots, node) in ["4", "1"].into_iter().zip(&mut cluster.compactors) {
            node.spec.env.push(("TIDEWATER_SLOTS".to_owned(), slots.to_owned()));
        }
        cluster.start_all().await?;
        cluster.healthy().await?;
        cluster.create_log_table().await?;
        let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
        let load = Workload::start(&cluster, Load::default()).await?;
        let setting = Self { cluster, load, region };
        setting.flush(3).await?;
        setting.compactors_are_known().await?;
        Ok(setting)
    }

    pub(super) fn s3(&self) -> &S3Endpoint {
        self.cluster.s3.as_ref().expect("planned")
    }

    /// So many more files.
    pub(super) async fn flush(&self, files: usize) -> Result<()> {
        for _ in 0..files {
            self.load.progress(10).await?;
            self.cluster.flush(LOG_TABLE).await?.ok()?;
        }
        Ok(())
    }

    pub(super) async fn compactors_are_known(&self) -> Result<()> {
        compactors_are_known(&self.cluster).await
    }

    /// Another table, of two files, that nobody writes to; its region.
    pub(super) async fn another_table(&self, name: &str) -> Result<String> {
        let columns = ["--columns", "k int64", "--primary-key", "k"];
        self.cluster.run(&[&["table", "create", name], &columns[..]].concat()).await?.ok()?;
        let file = self.cluster.folder().join("rows.csv");
        for rows in ["k\n1\n2\n", "k\n2\n3\n"] {
            std::fs::write(&file, rows).map_err(HarnessError::io("a csv file"))?;
            self.cluster.run(&["load", name, &file.display().to_string()]).await?.ok()?;
            self.cluster.flush(name).await?.ok()?;
        }
        Ok(self.cluster.region(name).await?.region_id.to_string())
    }

    pub(super) async fn compact(&self, flags: &[&str]) -> Result<Said> {
        let args = ["region", "compact", &self.region, "--output", "json"];
        self.cluster.run(&[&args, flags].concat()).await
    }

    /// The node id of a compactor, counted from 0.
    pub(super) async fn compactor(&self, index: usize) -> Result<u64> {
        self.cluster.node_id(&self.cluster.compactors[index].spec).await
    }

    /// Has the store hold back what a compactor puts into these paths.
    pub(super) async fn hold(&self, index: usize, path: &'static str) -> Result<()> {
        let name = &self.cluster.compactors[index].spec.name;
        self.s3().fault(Fault::of(Mode::Hold).on_puts().on_path(path).of_node(name)).await
    }

    /// Until something is held back.
    pub(super) async fn is_held(&self) -> Result<()> {
        wait::until("the compactor is in the midst of a job", SETTLED_WITHIN, || async {
            match self.s3().hits().await.map_err(|error| error.to_string())? {
                0 => Err("nothing is held back yet".to_owned()),
                _ => Ok(()),
            }
        })
        .await
    }

    pub(super) async fn jobs(&self) -> Result<Vec<Value>> {
        let said = self.cluster.run(&["compaction", "list", "--output", "json"]).await?.ok()?;
        Ok(said.json()?.as_array().cloned().unwrap_or_default())
    }

    pub(super) async fn files(&self) -> Result<usize> {
        let said = self.cluster.run(&["region", "files", &self.region, "--output", "json"]).await?;
        Ok(said.ok()?.json()?.as_array().map_or(0, Vec::len))
    }

    /// No attempt at a job of the first data node was counted as failed.
    pub(super) async fn nobody_tried_again(&self) -> Result<()> {
        let metrics = Metrics::of(self.cluster.data[0].spec.listen).await?;
        let retries = metrics.sum("tidewater_compaction_retries_total");
        expect("nobody has tried again", retries == 0, retries)
    }

    /// Until a compactor's log says this.
    pub(super) async fn logged(&self, index: usize, words: &str) -> Result<()> {
        self.logged_times(index, words, 1).await
    }

    /// Until a compactor's log has said this so often.
    pub(super) async fn logged_times(&self, index: usize, words: &str, times: usize) -> Result<()> {
        let log = self.cluster.compactors[index].log();
        wait::until(&format!("{} logs {words:?}", log.path().display()), SETTLED_WITHIN, || async {
            let text = log.text().map_err(|error| error.to_string())?;
            if text.matches(words).count() >= times { Ok(()) } else { Err(log.tail()) }
        })
        .await
    }

    /// All that was acknowledged is there, once, and replicas agree.
    pub(super) async fn conclude(self) -> Result<()> {
        self.s3().heal().await?;
        crate::support::conclude(self.cluster, self.load).await.map(drop)
    }
}

/// Until the owner may hand out jobs. Without anything to merge, asking does nothing.
pub(super) async fn compactors_are_known(cluster: &Cluster) -> Result<()> {
    let small = ["table", "create", "small", "--columns", "k int64", "--primary-key", "k"];
    let said = cluster.run(&small).await?;
    if said.status != Some(4) {
        said.ok()?;
    }
    let region = cluster.region("small").await?.region_id.to_string();
    wait::until("the owner knows compactors", SETTLED_WITHIN, || async {
        let asked = cluster.run(&["region", "compact", &region, "--remote"]).await;
        asked.and_then(Said::ok).map(drop).map_err(|error| error.to_string())
    })
    .await
}

fn patient() -> Vec<(String, String)> {
    vec![("TIDEWATER_COMPACTION_PATIENCE".to_owned(), PATIENT.to_owned())]
}

/// The report of a compaction that was committed by this node.
pub(super) fn done_by(said: Said, node: u64, files_in: u64) -> Result<Value> {
    let report = said.ok()?.json()?;
    if report["node_id"] != node || report["files_in"] != files_in {
        return Err(HarnessError::violated(format!(
            "{files_in} files were to be merged by node {node}: {report}"
        )));
    }
    Ok(report)
}

/// What does not come true.
pub(super) fn expect(what: &str, holds: bool, seen: impl std::fmt::Debug) -> Result<()> {
    match holds {
        true => Ok(()),
        false => Err(HarnessError::violated(format!("{what}: {seen:?}"))),
    }
}
