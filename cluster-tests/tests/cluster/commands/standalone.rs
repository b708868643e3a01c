//! All roles in one process.

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{Result, wait};

use super::{check, check_equal, file, path};
use crate::support::SETTLED_WITHIN;

/// Process with all roles.
pub(crate) struct Standalone {
    pub(crate) cluster: Cluster,
    pub(crate) node: Node,
    pub(crate) address: String,
}

impl Standalone {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a process with more arguments.
    pub(crate) async fn start_with(more: &[&str]) -> Result<Self> {
        let cluster = ClusterPlan::default().nodes(1, 0, 0).prepare().await?;
        let address = cluster.spare_address()?.to_string();
        let dir = path(&cluster, "standalone");
        let args = ["standalone", "--data-dir", &dir, "--listen", &address];
        let args = args.iter().chain(more).map(ToString::to_string).collect();
        let mut node = cluster.extra("standalone", &cluster.meta[0].spec, args);
        node.start().await?;
        Ok(Self { cluster, node, address })
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Result<CommandOutput> {
        self.cluster.run_bare(&[args, &["--meta", &self.address]].concat()).await
    }

    async fn rows(&self) -> Result<String> {
        Ok(self.run(&["scan", "t", "--format", "csv"]).await?.ok()?.stdout)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standalone_process_keeps_its_rows_across_kills() -> Result<()> {
    let mut standalone = Standalone::start().await?;
    let out = standalone.node.out().text()?;
    check("stdout has one ready line", out.starts_with("ready role=standalone id=1,"))?;
    let create =
        ["table", "create", "t", "--columns", "id int64, name utf8", "--primary-key", "id"];
    standalone.run(&create).await?.ok()?;

    let csv = |name: &str, from: i64, to: i64| {
        let lines: String = (from..to).map(|id| format!("{id},n{id}\n")).collect();
        file(&standalone.cluster, name, format!("id,name\n{lines}"))
    };
    let first = csv("first.csv", 0, 500)?;
    let second = csv("second.csv", 500, 700)?;
    standalone.run(&["load", "t", &first]).await?.ok()?;
    standalone.run(&["region", "flush", "--table", "t"]).await?.ok()?;
    standalone.run(&["load", "t", &second]).await?.ok()?;
    standalone.run(&["delete", "t", "0"]).await?.ok()?;
    let before = standalone.rows().await?;
    check_equal("rows", before.lines().count(), 1 + 699)?;

    // Some rows are in files, some only in the log.
    for _ in 0..2 {
        standalone.node.kill().await?;
        standalone.node.start().await?;
        check_equal("rows after a kill", standalone.rows().await?, before.clone())?;
    }
    standalone.node.terminate().await?;
    standalone.node.start().await?;
    check_equal("rows after a stop", standalone.rows().await?, before)?;
    wait::until("the process is healthy again", SETTLED_WITHIN, || async {
        let output = standalone.run(&["cluster", "health"]).await.and_then(CommandOutput::ok);
        output.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    standalone.run(&["load", "t", &first]).await?.ok()?;
    let count = standalone.run(&["scan", "t", "--count"]).await?.ok()?.stdout;
    check_equal("rows after another load", count.as_str(), "700\n")?;
    standalone.node.terminate().await?;
    check("no panic", !standalone.node.log().text()?.contains("panicked at"))?;
    standalone.cluster.finish().await
}
