//! Refreshes of the flights data set from PostgreSQL, which SQL changes between them.

use std::fs;

use serde_json::json;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::postgres::Postgres;
use tidewater_cluster_tests::{HarnessError, Result};

use super::query::{counts_by_sql, keep_rows, refreshed_counts, secret_file};
use crate::flights::{create_flights, flights_file};
use crate::support::{setting, wait_for_level};

const TABLE: &str = "mirror";
/// Months of the year that are mirrored, without a count in the environment.
const MONTHS: u32 = 2;
const KEY: [&str; 3] = ["time_hour", "carrier", "flight"];
/// Columns of the mirror. PostgreSQL has no integers of one byte.
const COLUMNS: &str = "year int16, month int16, day int16, dep_time int16, sched_dep_time int16, dep_delay int16, \
    arr_time int16, sched_arr_time int16, arr_delay int16, carrier utf8, flight int32, tailnum utf8, origin utf8, dest utf8, \
    air_time int16, distance int32, hour int16, minute int16, time_hour timestamp(us, UTC)";
const CHANGES: [&str; 4] = [
    "update flights set arr_delay = arr_delay + 1 where carrier = 'UA' and arr_delay is not null",
    "delete from flights where dest = 'LAX'; insert into flights select year + 1, month, day, dep_time, \
     sched_dep_time, dep_delay, arr_time, sched_arr_time, arr_delay, carrier, flight, tailnum, origin, dest, air_time, \
     distance, hour, minute, time_hour + interval '1 year' from flights where dest = 'SFO' on conflict do nothing",
    "update flights set tailnum = null where origin = 'JFK' and month = 1",
    "update flights set distance = -distance",
];

/// Creates the table in PostgreSQL with the rows of the data set, which Tidewater reads from its file.
async fn fill(cluster: &Cluster, postgres: &Postgres) -> Result<()> {
    create_flights(cluster).await?;
    let file = flights_file()?.display().to_string();
    cluster.run(&["load", "flights", &file, "--null", "NA"]).await?.ok()?;
    let rows = cluster.run(&["scan", "flights", "--format", "csv"]).await?.ok()?.stdout;
    let path = postgres.directory().join("flights.csv");
    fs::write(&path, rows).map_err(HarnessError::io("write the flights"))?;
    let columns: Vec<String> = COLUMNS
        .split(", ")
        .map(|column| column.replace(" int16", " int2").replace(" int32", " int4"))
        .map(|column| column.replace(" utf8", " text"))
        .collect();
    let columns = columns.join(", ").replace("timestamp(us, UTC)", "timestamptz");
    let (key, path) = (KEY.join(", "), path.display());
    let sql = format!(
        "create table flights ({columns}, primary key ({key})); \
         copy flights from '{path}' with (format csv, header)"
    );
    postgres.query(&sql).await?;
    let months = setting("TIDEWATER_FLIGHTS_MONTHS", MONTHS);
    postgres.query(&format!("delete from flights where month > {months}")).await.map(drop)
}

async fn create(cluster: &Cluster, postgres: &Postgres) -> Result<()> {
    let config = json!({
        "host": "127.0.0.1",
        "port": postgres.port(),
        "database": "postgres",
        "user": "postgres",
        "password_file": secret_file(cluster)?,
        "query": "select * from flights",
    });
    let (key, config) = (KEY.join(","), config.to_string());
    let table = ["refresh", "create", TABLE, "--columns", COLUMNS, "--primary-key", &key];
    let spread = ["--distribute", "hash(flight)", "--regions", "3"];
    let source = ["--source", "postgres", "--config", &config];
    cluster.run(&[&table[..], &spread, &source].concat()).await?.ok()?;
    Ok(())
}

/// Compares all rows, as text in the order of their text.
async fn compare(cluster: &Cluster, postgres: &Postgres, after: &str) -> Result<()> {
    let scanned = cluster.run(&["scan", TABLE, "--format", "csv"]).await?.ok()?.stdout;
    let mut found: Vec<&str> = scanned.lines().skip(1).collect();
    found.sort_unstable();
    let sql = "select concat_ws(',', coalesce(year::text, ''), coalesce(month::text, ''), coalesce(day::text, ''), \
        coalesce(dep_time::text, ''), coalesce(sched_dep_time::text, ''), coalesce(dep_delay::text, ''), \
        coalesce(arr_time::text, ''), coalesce(sched_arr_time::text, ''), coalesce(arr_delay::text, ''), carrier, flight, \
        coalesce(tailnum, ''), origin, dest, coalesce(air_time::text, ''), distance, hour, minute, \
        to_char(time_hour at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')) from flights";
    let rows = postgres.query(sql).await?;
    let mut expected: Vec<&str> = rows.lines().collect();
    expected.sort_unstable();
    if found == expected {
        return Ok(());
    }
    let differs = found.iter().zip(&expected).find(|(found, row)| found != row);
    let (rows, expected) = (found.len(), expected.len());
    Err(HarnessError::violated(format!(
        "{rows} rows, expected {expected}: {differs:?} after {after}"
    )))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refreshed_flights_equal_those_in_postgres() -> Result<()> {
    let postgres = Postgres::start().await?;
    let cluster = ClusterPlan::default().start().await?;
    wait_for_level(&cluster).await?;
    fill(&cluster, &postgres).await?;
    create(&cluster, &postgres).await?;
    cluster.run(&["refresh", "start", TABLE]).await?.ok()?;
    compare(&cluster, &postgres, "the first refresh").await?;
    for change in CHANGES {
        keep_rows(&postgres, "flights").await?;
        postgres.query(change).await?;
        let expected = counts_by_sql(&postgres, "flights", &KEY).await?;
        let counts = refreshed_counts(&cluster, TABLE).await?;
        println!("{change}: {counts}");
        if counts != expected {
            let text = format!("{counts} rows instead of {expected} after {change}");
            return Err(HarnessError::violated(text));
        }
        compare(&cluster, &postgres, change).await?;
    }
    cluster.finish().await
}
