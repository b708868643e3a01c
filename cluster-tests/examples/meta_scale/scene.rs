//! The processes and stubs of a measurement.

use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::stub::{MetaCalls, StubCluster, StubWatchers};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::time::Instant;

use crate::mirror::{Mirror, States};
use crate::options::Options;
use crate::report::Report;

/// Time over which the processor time of idle processes is measured.
const IDLE: Duration = Duration::from_secs(4);
/// Line of a meta node's log when it begins to lead.
const LEADS: &str = "this node leads the meta group";

/// A meta group with its stubs.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) metas: Vec<String>,
    pub(crate) stubs: StubCluster,
    pub(crate) watchers: StubWatchers,
    pub(crate) calls: MetaCalls,
    pub(crate) mirror: Mirror,
    /// Metrics of the meta leader at the last record.
    rounds: Mutex<(usize, Metrics)>,
}

impl Scene {
    /// Starts everything and measures it.
    pub(crate) async fn start(options: &Options, report: &mut Report) -> Result<Self> {
        let mut cluster = ClusterPlan::default()
            .nodes(3, 0, 0)
            .env("TIDEWATER_GROUPS_PER_NODE", &options.groups.to_string())
            .prepare()
            .await?;
        cluster.start_all().await?;
        let metas = cluster.meta_addresses();
        let calls = MetaCalls::new(&metas);
        let cluster_id = wait::until("the cluster is bootstrapped", options.limit, || async {
            let head = calls.head().await.map_err(|error| error.to_string())?;
            if head.cluster_id.is_empty() {
                Err("it is not".to_owned())
            } else {
                Ok(head.cluster_id)
            }
        })
        .await?;
        let mirror = Mirror::start(&metas, &cluster_id)?;
        let mut stubs = StubCluster::new(metas.clone());
        // The meta service registers 256 new nodes at once, and 4 each second after that.
        let slow = u64::try_from(options.nodes.saturating_sub(256) / 4).unwrap_or(0);
        let begun = Instant::now();
        stubs.add_nodes(options.nodes, options.limit + Duration::from_secs(slow)).await?;
        report.add_time("start", "all nodes registered", begun.elapsed());
        let begun = Instant::now();
        let groups = options.nodes * options.groups;
        stubs.wait_until_led(groups, options.limit * 5).await?;
        wait::until("all groups are active", options.limit, || async {
            match mirror.read(States::active_groups) {
                active if active >= groups => Ok(()),
                active => Err(format!("{active} are")),
            }
        })
        .await?;
        report.add_time("start", "all groups created and active", begun.elapsed());
        let begun = Instant::now();
        let watchers = StubWatchers::start(&metas, options.watchers, options.limit).await?;
        report.add_time("start", "all watchers connected", begun.elapsed());
        Ok(Self { cluster, metas, stubs, watchers, calls, mirror, rounds: Mutex::default() })
    }

    /// Position of the meta leader in the cluster.
    pub(crate) async fn leader(&self) -> Result<usize> {
        let status = self.calls.status().await?;
        usize::try_from(status.leader)
            .ok()
            .and_then(|leader| leader.checked_sub(1))
            .filter(|leader| *leader < self.cluster.meta.len())
            .ok_or_else(|| HarnessError::violated(format!("node {} leads", status.leader)))
    }

    /// Metrics of the meta leader.
    pub(crate) async fn leader_metrics(&self) -> Result<Metrics> {
        Metrics::fetch(self.cluster.meta[self.leader().await?].spec.listen).await
    }

    /// Number of times that a meta node has begun to lead, by their logs.
    pub(crate) fn terms_led(&self) -> Result<usize> {
        let mut terms = 0;
        for node in &self.cluster.meta {
            terms += node.log().text()?.matches(LEADS).count();
        }
        Ok(terms)
    }

    /// Waits until all watchers and stub nodes have the leader's revision.
    pub(crate) async fn settle(&self, limit: Duration) -> Result<()> {
        let revision = self.calls.revision().await?;
        self.watchers.wait_until_at(revision, limit).await?;
        self.stubs.wait_until_served(Instant::now(), revision, limit).await
    }

    /// Records memory and processor time of the meta nodes, and the size of their state.
    pub(crate) async fn record_processes(&self, when: &str, report: &mut Report) -> Result<()> {
        let catalog = self.calls.catalog().await?;
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let kibibytes = |bytes: u64| bytes as f64 / 1024.0;
        let wire_bytes = catalog.encoded_len() as u64;
        report.add(when, "catalog on the wire", kibibytes(wire_bytes), "KiB");
        report.add(when, "revision", catalog.revision as f64, "");
        let leader = self.leader().await?;
        let times = || -> Result<Vec<Duration>> {
            self.cluster.meta.iter().map(|node| node.processor_time()).collect()
        };
        let before = times()?;
        tokio::time::sleep(IDLE).await;
        let used = times()?;
        let metrics = Metrics::fetch(self.cluster.meta[leader].spec.listen).await?;
        let (leader_before, metrics_before) =
            std::mem::replace(&mut *self.rounds.lock(), (leader, metrics.clone()));
        let since = if leader_before == leader { metrics_before } else { Metrics::default() };
        if let Some(seconds) = metrics.mean_since(&since, "tidewater_meta_round_seconds") {
            report.add_time(when, "round of the planner: mean", Duration::from_secs_f64(seconds));
        }
        for (position, node) in self.cluster.meta.iter().enumerate() {
            let role = if position == leader { "leader" } else { "follower" };
            let memory = node.memory()?;
            let name = format!("{} ({role})", node.spec.name);
            report.add(when, &format!("{name}: memory"), mebibytes(memory.now), "MiB");
            report.add(when, &format!("{name}: peak of memory"), mebibytes(memory.peak), "MiB");
            let idle = used[position].saturating_sub(before[position]);
            let share = idle.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
            report.add(when, &format!("{name}: processor while idle"), share, "% of a core");
            let snapshot = node.spec.data_dir.as_deref().map_or(0, snapshot_bytes);
            report.add(when, &format!("{name}: Raft snapshot"), kibibytes(snapshot), "KiB");
        }
        Ok(())
    }

    /// Waits until a condition of the catalog's nodes and groups is met. `unmet`: number of those that do not
    /// meet it.
    pub(crate) async fn wait_for_catalog(
        &self,
        what: &str,
        limit: Duration,
        unmet: impl Fn(&States) -> usize,
    ) -> Result<()> {
        wait::until(what, limit, || async {
            match self.mirror.read(&unmet) {
                0 => Ok(()),
                count => Err(format!("{count} are not")),
            }
        })
        .await
    }

    /// Ends the stubs and stops the meta nodes.
    pub(crate) async fn finish(self) -> Result<()> {
        drop(self.mirror);
        drop(self.watchers);
        drop(self.stubs);
        self.cluster.finish().await
    }
}

/// Bytes of the newest snapshot of the meta group; 0: there is none yet.
fn snapshot_bytes(data_dir: &Path) -> u64 {
    let groups = std::fs::read_dir(data_dir.join("snapshots")).into_iter().flatten().flatten();
    let files = groups.filter_map(|group| std::fs::read_dir(group.path()).ok()).flatten().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).max().unwrap_or(0)
}
