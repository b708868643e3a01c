//! Drops of held tables: the rows of held epochs stay readable, whatever is killed, until the last hold ends; then no region and
//! no file is left.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_client::{ClientError, TableWriter, WriterOptions};
use tidewater_cluster_tests::command::CommandOutput;
use tidewater_proto::v1::Reason;

use super::super::table_as_of;
use super::*;
use crate::garbage::expect_only_live_files;
use crate::support::setting;

/// Rows of a table of these tests.
const ROWS: u64 = 500;

/// A cluster that deletes garbage all the time.
fn plan() -> ClusterPlan {
    ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").env("TIDEWATER_GC_EVERY", "1s")
}

/// Creates a table with two regions, and loads rows with this value.
async fn create(cluster: &Cluster, table: &str, value: u64) -> Result<()> {
    let columns = ["--columns", "k int64, v int64", "--primary-key", "k"];
    let create = ["table", "create", table, "--distribute", "hash(k)", "--regions", "2"];
    cluster.run(&[&create[..], &columns[..]].concat()).await?.ok()?;
    load(cluster, table, value).await?.ok()?;
    cluster.run(&["region", "flush", "--table", table]).await?.ok()?;
    Ok(())
}

async fn load(cluster: &Cluster, table: &str, value: u64) -> Result<CommandOutput> {
    let file = cluster.directory().join(format!("{table}.csv"));
    let rows: String = (0..ROWS).map(|key| format!("{key},{value}\n")).collect();
    fs::write(&file, format!("k,v\n{rows}")).map_err(HarnessError::io("a csv file"))?;
    cluster.run(&["load", table, &file.display().to_string()]).await
}

/// Waits until a table is readable as of an epoch, and returns its rows.
async fn held_rows(client: &Client, table: &str, epoch: Epoch) -> Result<Vec<String>> {
    let rows = table_as_of(client, table, epoch).await?;
    let found = u64::try_from(rows.len()).unwrap_or_default();
    if found != ROWS {
        return Err(HarnessError::violated(format!("{found} rows of {table} as of {epoch}")));
    }
    Ok(rows)
}

/// Waits for an upper of the table that is later than this.
async fn later_upper(client: &Client, table: &str, after: Epoch) -> Result<Epoch> {
    wait::until("a later epoch has begun", SETTLED_WITHIN, || async {
        let epochs = client.table_epochs(table).await.map_err(|error| error.to_string())?;
        if epochs.upper > after { Ok(epochs.upper) } else { Err(format!("{epochs:?}")) }
    })
    .await
}

/// Holds a table at an epoch that has the rows that were loaded, and waits until it can be read.
async fn hold(cluster: &Cluster, client: &Client, name: &str, table: &str) -> Result<Epoch> {
    let loaded = client.table_epochs(table).await.map_err(failed)?.upper;
    let next = later_upper(client, table, loaded).await?;
    later_upper(client, table, next).await?;
    let acquired = acquire(cluster, &[name, table]).await?;
    later_upper(client, table, acquired).await?;
    Ok(acquired)
}

/// Writes a row as a client that has opened the table before.
async fn write_one(writer: &TableWriter) -> std::result::Result<(), ClientError> {
    let column = || -> ArrayRef { Arc::new(Int64Array::from(vec![7])) };
    let batch = RecordBatch::try_new(writer.table().schema.arrow(), vec![column(), column()]);
    let batch = batch.expect("the columns of the table");
    writer.put_rows(batch).await.map(|_| ())
}

/// Drops a held table; returns the name under which its rows can be read.
async fn drop_held(cluster: &Cluster, table: &str) -> Result<String> {
    let dropped = json_of(cluster, &["table", "drop", table]).await?;
    let kept = dropped["kept_as"].as_str().map(str::to_owned);
    kept.ok_or_else(|| HarnessError::violated(dropped.to_string()))
}

/// Checks the costs of the only hold, in both lists: it keeps all versions of a dropped table, of which there are at least this
/// number, and one more if the row of the writer has an epoch of its own.
async fn expect_costs(cluster: &Cluster, kept: &str, versions: u64) -> Result<()> {
    let holds = json_of(cluster, &["hold", "list", "--costs"]).await?;
    let collections = json_of(cluster, &["collection", "list", "--costs"]).await?;
    let mut listed = collections.as_array().into_iter().flatten();
    let of_table = listed.find(|line| line["table"] == kept).cloned().unwrap_or_default();
    let costs = [
        (&holds[0]["kept_versions"], &holds[0]["kept_bytes"]),
        (&of_table["held_versions"], &of_table["held_bytes"]),
    ];
    let is_shown = |(counted, bytes): (&Value, &Value)| {
        let counted =
            counted.as_u64().filter(|counted| (versions..=versions + 1).contains(counted));
        counted.is_some() && bytes.as_u64() >= Some(versions)
    };
    if !costs.into_iter().all(is_shown) || costs[0] != costs[1] {
        return Err(HarnessError::violated(format!("{holds} {of_table}")));
    }
    Ok(())
}

/// Waits until the cluster has no regions and no files but those of these tables.
async fn wait_until_removed(cluster: &Cluster, tables: &[&str]) -> Result<()> {
    wait::until("only regions of tables that have a name are left", SETTLED_WITHIN, || async {
        let shown = json_of(cluster, &["collection", "list"]).await;
        let shown = shown.map_err(|error| error.to_string())?;
        let listed = shown.as_array().into_iter().flatten();
        let names: Vec<&str> = listed.filter_map(|line| line["table"].as_str()).collect();
        if names == tables { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await?;
    expect_only_live_files(cluster, tables).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_table_is_readable_until_its_last_hold_ends() -> Result<()> {
    let mut cluster = plan().start().await?;
    wait_for_level(&cluster).await?;
    keep_routes(&cluster).await?;
    create(&cluster, "t", 1).await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let epoch = hold(&cluster, &client, "backup", "t").await?;
    let seen = held_rows(&client, "t", epoch).await?;
    // Later versions, which no hold keeps.
    load(&cluster, "t", 2).await?.ok()?;

    // A writer that knows the table from before.
    let writer = client.writer("t", WriterOptions::default()).await.map_err(failed)?;
    write_one(&writer).await.map_err(failed)?;
    let kept = drop_held(&cluster, "t").await?;
    let refused = write_one(&writer).await;
    let reason = |error: &ClientError| error.refusal().map(|refusal| refusal.reason);
    match refused {
        Err(error) if reason(&error) == Some(Reason::TableNotFound) => {}
        Err(ClientError::TableNotFound(_)) => {}
        other => return Err(HarnessError::violated(format!("{other:?}"))),
    }
    let listed = json_of(&cluster, &["table", "list"]).await?;
    if listed.as_array().is_none_or(|tables| !tables.is_empty()) {
        return Err(HarnessError::violated(listed.to_string()));
    }
    for args in [
        &["scan", "t", "--count"][..],
        &["hold", "acquire", "later", "t"],
        &["hold", "acquire", "later", &kept],
        &["table", "drop", "t"],
        &["table", "drop", &kept],
    ] {
        cluster.run(args).await?.status(3)?.expect_stderr(&["table"])?;
    }
    load(&cluster, &kept, 3).await?.status(3)?;
    let shown = cluster.run(&["collection", "list"]).await?.ok()?.stdout;
    if !shown.contains(&format!("{kept} (dropped: t)")) || !shown.contains("backup") {
        return Err(HarnessError::violated(shown));
    }
    create(&cluster, "t", 4).await?;

    for step in ["flush", "compact"] {
        cluster.run(&["region", step, "--table", &kept]).await?.ok()?;
    }
    expect_costs(&cluster, &kept, 2 * ROWS).await?;
    cluster.run(&["gc"]).await?.ok()?;
    let known = routes(&cluster, &kept).await?;
    let (route, from) = (known[0]["route_id"].to_string(), known[0]["group_id"].as_u64());
    let to = if from == Some(1) { "2" } else { "1" };
    cluster.run(&["route", "move", &route, "--to", to]).await?.ok()?;
    let (leader, _) = cluster.meta_leader().await?;
    cluster.meta[leader].kill().await?;
    let owner = cluster.owner(&kept).await?;
    cluster.data[owner].kill().await?;
    if held_rows(&client, &kept, epoch).await? != seen {
        return Err(HarnessError::violated("the rows of the held epoch have changed"));
    }
    cluster.meta[leader].start().await?;
    cluster.data[owner].start().await?;
    // A hold that is like the first one keeps the table after it.
    cluster.run(&["hold", "acquire", "second", "--like", "backup"]).await?.ok()?;
    cluster.run(&["hold", "release", "backup"]).await?.ok()?;
    if held_rows(&client, &kept, epoch).await? != seen {
        return Err(HarnessError::violated("the rows of the second hold have changed"));
    }
    cluster.run(&["hold", "release", "second"]).await?.ok()?;
    wait_until_removed(&cluster, &["t"]).await?;
    let counted = cluster.count("t").await?;
    if counted != ROWS {
        return Err(HarnessError::violated(format!("{counted} rows of the later table")));
    }
    cluster.finish().await
}

/// A dropped table whose rows a hold keeps.
struct KeptTable {
    name: String,
    hold: String,
    epoch: Epoch,
    rows: Vec<String>,
}

/// Kills a node, and starts it again after `during`.
async fn kill_during<T>(
    cluster: &mut Cluster,
    random: &mut StdRng,
    during: impl AsyncFn(&Cluster) -> Result<T>,
) -> Result<T> {
    let is_meta = random.random_range(0..3) > 0;
    let leader = cluster.meta_leader().await?.0;
    let data = random.random_range(0..cluster.data.len());
    println!("killing {}", if is_meta { "the meta leader" } else { "a data node" });
    let node = if is_meta { &mut cluster.meta[leader] } else { &mut cluster.data[data] };
    node.kill().await?;
    let done = during(cluster).await;
    let node = if is_meta { &mut cluster.meta[leader] } else { &mut cluster.data[data] };
    node.start().await?;
    done
}

/// Invariant K3: what is held stays, and what is not is removed; `TIDEWATER_DROP_KILLS=40` is its full length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn held_rows_outlive_drops_and_kills() -> Result<()> {
    let kills: usize = setting("TIDEWATER_DROP_KILLS", 5);
    let seed: u64 = setting("TIDEWATER_SEED", rand::random::<u32>().into());
    println!("TIDEWATER_SEED={seed} TIDEWATER_DROP_KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = plan().start().await?;
    wait_for_level(&cluster).await?;
    let client = Client::connect(options(&cluster)).await.map_err(failed)?;
    let mut kept: Vec<KeptTable> = Vec::new();
    for number in 0..kills {
        create(&cluster, "t", u64::try_from(number).unwrap_or_default()).await?;
        let hold = format!("h{number}");
        let epoch = self::hold(&cluster, &client, &hold, "t").await?;
        let rows = held_rows(&client, "t", epoch).await?;
        let released = if random.random_bool(0.5) && !kept.is_empty() {
            Some(kept.remove(random.random_range(0..kept.len())))
        } else {
            None
        };
        let name = kill_during(&mut cluster, &mut random, async |cluster| {
            if let Some(KeptTable { hold, .. }) = &released {
                cluster.run(&["hold", "release", hold]).await?.ok()?;
            }
            drop_held(cluster, "t").await
        })
        .await?;
        kept.push(KeptTable { name, hold, epoch, rows });
        for of in &kept {
            if held_rows(&client, &of.name, of.epoch).await? != of.rows {
                let text = format!("the rows of {} as of {} have changed", of.name, of.epoch);
                return Err(HarnessError::violated(text));
            }
        }
    }
    cluster.wait_until_healthy().await?;
    let mut names: Vec<&str> = kept.iter().map(|of| of.name.as_str()).collect();
    names.sort_by_key(|name| name.len());
    wait_until_removed(&cluster, &names).await?;
    println!("{} tables dropped, {} of them held: {names:?}", kills, kept.len());
    for of in &kept {
        cluster.run(&["hold", "release", &of.hold]).await?.ok()?;
    }
    wait_until_removed(&cluster, &[]).await?;
    cluster.finish().await
}
