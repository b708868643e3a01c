//! All roles in one process.

use tidewater_cluster_tests::cluster::{Cluster, Plan};
use tidewater_cluster_tests::command::Said;
use tidewater_cluster_tests::node::Node;
use tidewater_cluster_tests::{Result, wait};

use super::{file, holds, path, same};
use crate::support::SETTLED_WITHIN;

struct Standalone {
    cluster: Cluster,
    node: Node,
    address: String,
}

impl Standalone {
    async fn start() -> Result<Self> {
        let cluster = Plan::default().nodes(1, 0, 0).prepare().await?;
        let address = cluster.spare_address()?.to_string();
        let dir = path(&cluster, "standalone");
        let args = ["standalone", "--data-dir", &dir, "--listen", &address];
        let args = args.map(str::to_owned).to_vec();
        let mut node = cluster.extra("standalone", &cluster.meta[0].spec, args);
        node.start().await?;
        Ok(Self { cluster, node, address })
    }

    async fn run(&self, args: &[&str]) -> Result<Said> {
        self.cluster.run_bare(&[args, &["--meta", &self.address]].concat()).await
    }

    async fn rows(&self) -> Result<String> {
        Ok(self.run(&["scan", "t", "--format", "csv"]).await?.ok()?.stdout)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_process_work_and_keep_their_rows_through_kills() -> Result<()> {
    let mut one = Standalone::start().await?;
    let out = one.node.out().text()?;
    holds("one line says that it is ready", out.starts_with("ready role=standalone id=1,"))?;
    let create =
        ["table", "create", "t", "--columns", "id int64, name utf8", "--primary-key", "id"];
    one.run(&create).await?.ok()?;

    let csv = |name: &str, from: i64, to: i64| {
        let lines: String = (from..to).map(|id| format!("{id},n{id}\n")).collect();
        file(&one.cluster, name, format!("id,name\n{lines}"))
    };
    let (first, second) = (csv("first.csv", 0, 500)?, csv("second.csv", 500, 700)?);
    one.run(&["load", "t", &first]).await?.ok()?;
    one.run(&["region", "flush", "--table", "t"]).await?.ok()?;
    one.run(&["load", "t", &second]).await?.ok()?;
    one.run(&["delete", "t", "0"]).await?.ok()?;
    let before = one.rows().await?;
    same("rows", before.lines().count(), 1 + 699)?;

    // Some rows are in files, some only in the log.
    for _ in 0..2 {
        one.node.kill().await?;
        one.node.start().await?;
        same("rows after a kill", one.rows().await?, before.clone())?;
    }
    one.node.terminate().await?;
    one.node.start().await?;
    same("rows after a stop", one.rows().await?, before)?;
    wait::until("it is healthy again", SETTLED_WITHIN, || async {
        let said = one.run(&["cluster", "health"]).await.and_then(Said::ok);
        said.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    one.run(&["load", "t", &first]).await?.ok()?;
    let count = one.run(&["scan", "t", "--count"]).await?.ok()?.stdout;
    same("rows after another load", count.as_str(), "700\n")?;
    one.node.terminate().await?;
    holds("no panic", !one.node.log().text()?.contains("panicked at"))?;
    one.cluster.finish().await
}
