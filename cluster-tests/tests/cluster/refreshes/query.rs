//! Refreshes from the query of a live PostgreSQL.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::postgres::{PASSWORD, Postgres};
use tidewater_cluster_tests::{HarnessError, Result};

use super::expect;
use crate::support::wait_for_level;

const TABLE: &str = "orders";
/// Changes between refreshes, and what SQL counts for them.
const CHANGES: [&str; 3] = [
    "update orders set price = price + 1 where id % 100 = 3",
    "delete from orders where id % 50 = 7; insert into orders select id, 'new', null, now() from \
     generate_series(100001, 100200) as id",
    "select 1",
];

/// Writes the file with the password of PostgreSQL's administrator, and returns its path.
pub(super) fn secret_file(cluster: &Cluster) -> Result<PathBuf> {
    let file = cluster.secret_directory().join("password");
    let text = format!("127.0.0.1:*:*:*:{PASSWORD}\n");
    fs::write(&file, text).map_err(HarnessError::io("write a password"))?;
    Ok(file)
}

/// Keeps the rows of a table for [`counts_by_sql`].
pub(super) async fn keep_rows(postgres: &Postgres, table: &str) -> Result<()> {
    let keep = format!("drop table if exists before; create table before as table {table}");
    postgres.query(&keep).await.map(drop)
}

/// Returns the numbers of inserted, deleted, updated and unchanged rows since [`keep_rows`].
pub(super) async fn counts_by_sql(
    postgres: &Postgres,
    table: &str,
    keys: &[&str],
) -> Result<String> {
    let keys = keys.join(", ");
    let sql = format!(
        "select count(*) filter (where is_old is null), count(*) filter (where is_new is null), \
         count(*) filter (where is_old and is_new and new is distinct from old), \
         count(*) filter (where is_old and is_new and new is not distinct from old) \
         from (select true as is_new, to_jsonb(t) as new, {keys} from {table} as t) as n \
         full join (select true as is_old, to_jsonb(t) as old, {keys} from before as t) as b using ({keys})"
    );
    postgres.query(&sql).await
}

/// Refreshes a table, and returns the numbers of inserted, deleted, updated and unchanged rows.
pub(super) async fn refreshed_counts(cluster: &Cluster, table: &str) -> Result<String> {
    let run = cluster.run(&["refresh", "start", table, "--output", "json"]).await?.ok()?.json()?;
    let counts = ["inserted", "deleted", "updated", "unchanged"].map(|name| run[name].to_string());
    Ok(counts.join("|"))
}

async fn create(cluster: &Cluster, postgres: &Postgres, name: &str, query: &str) -> Result<()> {
    let secret = secret_file(cluster)?;
    let config = json!({
        "host": "127.0.0.1",
        "port": postgres.port(),
        "database": "postgres",
        "user": "postgres",
        "password_file": secret,
        "query": query,
    });
    let columns = "id int64, name utf8, price decimal128(12, 2), at timestamp(us, UTC)";
    let config = config.to_string();
    let args = ["refresh", "create", name, "--columns", columns, "--primary-key", "id", "--source"];
    let args = [&args[..], &["postgres", "--config", &config]].concat();
    cluster.run(&args).await?.ok()?;
    Ok(())
}

/// Rows as text, in the order of their ids, with prices in hundredths.
async fn rows(cluster: &Cluster) -> Result<String> {
    let output = cluster.run(&["scan", TABLE, "--output", "json"]).await?.ok()?;
    let text = |row: &Value| {
        // Numbers, and texts of them.
        let price = row["price"].to_string().trim_matches('"').parse::<f64>();
        let price = price.map(|price| format!("{:.0}", price * 100.0)).unwrap_or_default();
        format!("{}|{}|{price}", row["id"], row["name"].as_str().unwrap_or_default())
    };
    let lines: Vec<String> = output.json_lines()?.iter().map(text).collect();
    Ok(lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshed_table_equals_its_query() -> Result<()> {
    let postgres = Postgres::start().await?;
    postgres
        .query(
            "create table orders as select id, 'order ' || id as name, (id % 977)::numeric(12, 2) as \
             price, now() as at from generate_series(1, 20000) as id",
        )
        .await?;
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    create(&cluster, &postgres, TABLE, "select id, name, price, at from orders").await?;
    cluster.run(&["refresh", "start", TABLE]).await?.ok()?;
    for change in CHANGES {
        keep_rows(&postgres, "orders").await?;
        postgres.query(change).await?;
        let expected = counts_by_sql(&postgres, "orders", &["id"]).await?;
        let counts = refreshed_counts(&cluster, TABLE).await?;
        if counts != expected {
            let text = format!("{counts} rows instead of {expected} after {change}");
            return Err(HarnessError::violated(text));
        }
        let expected =
            postgres.query("select id, name, (price * 100)::int8 from orders order by id").await?;
        if rows(&cluster).await? != expected {
            let found = rows(&cluster).await?;
            let differs = found.lines().zip(expected.lines()).find(|(found, row)| found != row);
            return Err(HarnessError::violated(format!("{differs:?} after {change}")));
        }
        println!("{change}: {counts}");
    }
    refuses_wrong_queries(&cluster, &postgres).await?;
    cluster.finish().await
}

async fn refuses_wrong_queries(cluster: &Cluster, postgres: &Postgres) -> Result<()> {
    for (position, (query, status, word)) in [
        ("select id, name, price, at from nothing", 5, "nothing"),
        ("select name, price, at from orders", 2, "id"),
        ("select id, name, price, at, 1 as more from orders", 2, "more"),
        ("select 1::int8 as id, name, price, at from orders", 2, "more than once"),
        ("select null::int8 as id, 'x' as name, null::numeric as price, now() as at", 2, "null"),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("wrong{position}");
        create(cluster, postgres, &name, query).await?;
        expect(cluster, status, &["refresh", "start", &name], &[word]).await?;
        cluster.run(&["table", "drop", &name]).await?.ok()?;
    }
    fs::write(cluster.secret_directory().join("password"), "127.0.0.1:*:*:*:wrong\n")
        .map_err(HarnessError::io("write a password"))?;
    expect(cluster, 5, &["refresh", "start", TABLE], &["password"]).await?;
    Ok(())
}
