//! Requests during refreshes: second starts, cancellations, drops, deadlines, and sources that never answer.

use std::time::Duration;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::postgres::Postgres;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::expect;
use super::query::secret_file;
use crate::support::{SETTLED_WITHIN, wait_for_level};

/// Table whose query takes as many seconds as the table `pace` says.
const SLOW: &str = "slow";
/// Table with a source that answers at once.
const QUICK: &str = "quick";
/// Longest time of a quick refresh beside slow ones.
const QUICK_WITHIN: Duration = Duration::from_secs(20);
const ROWS: u64 = 1_000;

struct Scene {
    cluster: Cluster,
    postgres: Postgres,
}

impl Scene {
    async fn start() -> Result<Self> {
        let postgres = Postgres::start().await?;
        let rows = format!(
            "create table pace as select 0::float8 as seconds; create table rows as select id, 'row ' || id as name \
             from generate_series(1, {ROWS}) as id"
        );
        postgres.query(&rows).await?;
        let cluster = ClusterPlan::default().start().await?;
        wait_for_level(&cluster).await?;
        let scene = Self { cluster, postgres };
        let slow = "select id, name from rows, (select pg_sleep(seconds) from pace) as waited";
        scene.create(SLOW, scene.postgres.port(), slow, &[]).await?;
        scene.create(QUICK, scene.postgres.port(), "select id, name from rows", &[]).await?;
        scene.cluster.run(&["refresh", "start", SLOW]).await?.ok()?;
        Ok(scene)
    }

    async fn create(&self, name: &str, port: u16, query: &str, more: &[&str]) -> Result<()> {
        let secret = secret_file(&self.cluster)?;
        let config = json!({
            "host": "127.0.0.1",
            "port": port,
            "database": "postgres",
            "user": "postgres",
            "password_file": secret,
            "query": query,
        });
        let config = config.to_string();
        let table = ["refresh", "create", name, "--columns", "id int64, name utf8"];
        let source = ["--primary-key", "id", "--source", "postgres", "--config", &config];
        self.cluster.run(&[&table[..], &source, more].concat()).await?.ok()?;
        Ok(())
    }

    /// Sets the time that the slow query takes.
    async fn pace(&self, seconds: u64) -> Result<()> {
        self.postgres.query(&format!("update pace set seconds = {seconds}")).await.map(drop)
    }

    async fn status(&self, table: &str) -> Result<Value> {
        let args = ["refresh", "status", table, "--output", "json"];
        Ok(self.cluster.run(&args).await?.ok()?.json()?[0].clone())
    }

    /// Begins a refresh whose query takes this time, and waits until it is being read.
    async fn start_slow(&self, seconds: u64) -> Result<u64> {
        self.pace(seconds).await?;
        let args = ["refresh", "start", SLOW, "--no-wait", "--output", "json"];
        let begun = self.cluster.run(&args).await?.ok()?.json()?;
        self.wait_for_queries(1).await?;
        Ok(begun["generation"].as_u64().unwrap_or_default())
    }

    /// Waits until PostgreSQL executes this number of slow queries.
    async fn wait_for_queries(&self, expected: u64) -> Result<()> {
        let count = "select count(*) from pg_stat_activity where query like 'COPY%pg_sleep%' and state = 'active'";
        wait::until("PostgreSQL executes the slow queries", SETTLED_WITHIN, || async {
            let found = self.postgres.query(count).await.map_err(|error| error.to_string())?;
            if found == expected.to_string() { Ok(()) } else { Err(found) }
        })
        .await
    }

    /// Waits until no refresh of the table is in progress, and returns the outcome of the last one.
    async fn wait_until_idle(&self, table: &str) -> Result<Value> {
        wait::until("the table is idle", SETTLED_WITHIN, || async {
            let found = self.status(table).await.map_err(|error| error.to_string())?;
            if found["state"] == "idle" {
                Ok(found["last"].clone())
            } else {
                Err(found.to_string())
            }
        })
        .await
    }

    async fn expect_rows(&self, table: &str, rows: u64) -> Result<()> {
        let count = self.cluster.run(&["scan", table, "--count"]).await?.ok()?;
        if count.stdout.trim() == rows.to_string() {
            return Ok(());
        }
        Err(HarnessError::violated(format!("{table} has {} rows", count.stdout.trim())))
    }

    /// Refreshes the other table, which no slow source delays.
    async fn refresh_quick(&self) -> Result<()> {
        let begun = Instant::now();
        self.cluster.run(&["refresh", "start", QUICK]).await?.ok()?;
        let taken = begun.elapsed();
        println!("refresh beside a slow one: {:.2} s", taken.as_secs_f64());
        if taken > QUICK_WITHIN {
            return Err(HarnessError::violated(format!("it took {taken:?}")));
        }
        self.expect_rows(QUICK, ROWS).await
    }

    async fn second_start_is_refused_or_joins(&self) -> Result<()> {
        let generation = self.start_slow(8).await?;
        let words = ["is in progress", &format!("refresh {generation} ")];
        expect(&self.cluster, 4, &["refresh", "start", SLOW], &words).await?;
        self.refresh_quick().await?;
        let join = ["refresh", "start", SLOW, "--join", "--output", "json"];
        let joined = self.cluster.run(&join).await?.ok()?.json()?;
        if joined["generation"] != generation || joined["outcome"] != "published" {
            return Err(HarnessError::violated(format!("joined {joined} instead of {generation}")));
        }
        Ok(())
    }

    async fn cancelled_refresh_changes_nothing(&self) -> Result<()> {
        self.postgres.query("update rows set name = 'changed'").await?;
        self.start_slow(300).await?;
        self.cluster.run(&["refresh", "cancel", SLOW]).await?.ok()?;
        let last = self.wait_until_idle(SLOW).await?;
        if last["outcome"] != "cancelled" {
            return Err(HarnessError::violated(format!("cancelled: {last}")));
        }
        // The query ends with the refresh.
        self.wait_for_queries(0).await?;
        let changed = ["scan", SLOW, "--count", "--where", "name = 'changed'"];
        if self.cluster.run(&changed).await?.ok()?.stdout.trim() != "0" {
            return Err(HarnessError::violated("a cancelled refresh has changed rows"));
        }
        self.expect_rows(SLOW, ROWS).await
    }

    async fn refresh_ends_at_its_deadline(&self) -> Result<()> {
        let deadline = |span: &'static str| ["refresh", "alter", SLOW, "--deadline", span];
        self.cluster.run(&deadline("3s")).await?.ok()?;
        self.start_slow(300).await?;
        let last = self.wait_until_idle(SLOW).await?;
        let error = last["error"].as_str().unwrap_or_default();
        if last["outcome"] != "failed" || !error.contains("deadline") {
            return Err(HarnessError::violated(format!("at its deadline: {last}")));
        }
        self.wait_for_queries(0).await?;
        self.cluster.run(&deadline("1h")).await?.ok()?;
        self.expect_rows(SLOW, ROWS).await
    }

    async fn dropped_table_ends_its_refresh(&self) -> Result<()> {
        // The refresh that has failed at its deadline is tried again, once: this one may be its second attempt.
        self.wait_until_idle(SLOW).await?;
        self.pace(300).await?;
        self.cluster.run(&["refresh", "start", SLOW, "--no-wait"]).await?;
        self.wait_for_queries(1).await?;
        self.cluster.run(&["table", "drop", SLOW]).await?.ok()?;
        expect(&self.cluster, 3, &["refresh", "status", SLOW], &["does not exist"]).await?;
        self.wait_for_queries(0).await?;
        self.pace(0).await?;
        self.create(SLOW, self.postgres.port(), "select id, name from rows", &[]).await?;
        self.expect_rows(SLOW, 0).await?;
        self.cluster.run(&["refresh", "start", SLOW]).await?.ok()?;
        self.expect_rows(SLOW, ROWS).await
    }

    /// A server that accepts connections and never answers.
    async fn silent_source_fails_its_own_refreshes_only(&self) -> Result<()> {
        let silent = TcpListener::bind("127.0.0.1:0").await;
        let silent = silent.map_err(HarnessError::io("listen"))?;
        let port = silent.local_addr().map_err(HarnessError::io("listen"))?.port();
        let every = ["--interval", "1s", "--deadline", "1h"];
        self.create("silent", port, "select id, name from rows", &every).await?;
        wait::until("a refresh from the silent source is in progress", SETTLED_WITHIN, || async {
            let found = self.status("silent").await.map_err(|error| error.to_string())?;
            if found["state"] == "refreshing" { Ok(()) } else { Err(found.to_string()) }
        })
        .await?;
        self.refresh_quick().await?;
        self.cluster.run(&["refresh", "pause", "silent"]).await?.ok()?;
        self.cluster.run(&["refresh", "cancel", "silent"]).await?.ok()?;
        self.wait_until_idle("silent").await?;
        let failed = self.status("silent").await?;
        if failed["paused"] != true || failed["last"]["outcome"] == "published" {
            return Err(HarnessError::violated(format!("silent source: {failed}")));
        }
        self.expect_rows("silent", 0).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_during_a_refresh_leave_the_table_as_published() -> Result<()> {
    let scene = Scene::start().await?;
    scene.second_start_is_refused_or_joins().await?;
    scene.cancelled_refresh_changes_nothing().await?;
    scene.refresh_ends_at_its_deadline().await?;
    scene.dropped_table_ends_its_refresh().await?;
    scene.silent_source_fails_its_own_refreshes_only().await?;
    scene.cluster.finish().await
}
