//! Bulk loads, atomic loads and clones while nodes are killed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use tidewater_client::{BulkLoader, Client, ClientOptions};
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::direct::{NodeClient, expect_refusal};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{self, Reason};
use uuid::Uuid;

use crate::support::{SETTLED_WITHIN, live_files, wait_until_replicas_agree};

const TABLE: &str = "things";

async fn create(cluster: &Cluster, regions: u32) -> Result<()> {
    let columns = ["--columns", "id int64, name utf8", "--primary-key", "id"];
    let regions = ["--regions", &regions.to_string(), "--distribute", "hash(id)"];
    cluster.run(&[&["table", "create", TABLE][..], &columns, &regions].concat()).await?.ok()?;
    Ok(())
}

fn file(cluster: &Cluster, ids: std::ops::Range<u32>, name: &str) -> Result<PathBuf> {
    let path = cluster.directory().join(format!("{name}.csv"));
    let lines: String = ids.map(|id| format!("{id},{name}\n")).collect();
    std::fs::write(&path, format!("id,name\n{lines}")).map_err(HarnessError::io("a csv file"))?;
    Ok(path)
}

async fn load(cluster: &Cluster, table: &str, file: &Path, how: &[&str]) -> Result<()> {
    let file = file.display().to_string();
    cluster.run(&[&["load", table, &file][..], how].concat()).await?.ok()?;
    Ok(())
}

async fn expect(cluster: &Cluster, table: &str, name: Option<&str>, rows: u64) -> Result<()> {
    let condition = name.map(|name| format!("name = '{name}'"));
    let found = cluster.count_where(table, condition.as_deref()).await?;
    if found == rows {
        return Ok(());
    }
    Err(HarnessError::violated(format!("{table}, {name:?}: {found} rows, expected {rows}")))
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let options = ClientOptions { meta: cluster.meta_addresses(), ..ClientOptions::default() };
    Client::connect(options).await.map_err(failed)
}

fn failed(error: impl ToString) -> HarnessError {
    HarnessError::violated(error.to_string())
}

fn rows(ids: std::ops::Range<i64>, name: &str) -> Result<RecordBatch> {
    let names: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|_| name)));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(ids));
    RecordBatch::try_from_iter([("id", ids), ("name", names)]).map_err(failed)
}

async fn write(loader: &BulkLoader, ids: std::ops::Range<i64>, name: &str) -> Result<()> {
    loader.write(rows(ids, name)?).await.map(drop).map_err(failed)
}

async fn kill_all(cluster: &mut Cluster) -> Result<()> {
    for node in cluster.meta.iter_mut().chain(cluster.data.iter_mut()) {
        node.kill().await?;
    }
    cluster.start_all().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_load_orders_rows_with_earlier_and_later_writes() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create(&cluster, 3).await?;
    load(&cluster, TABLE, &file(&cluster, 0..2_000, "first")?, &[]).await?;
    load(&cluster, TABLE, &file(&cluster, 500..1_500, "bulk")?, &["--bulk"]).await?;
    expect(&cluster, TABLE, Some("bulk"), 1_000).await?;
    load(&cluster, TABLE, &file(&cluster, 1_000..1_200, "later")?, &[]).await?;
    let figures = [("first", 1_000), ("bulk", 800), ("later", 200)];
    for round in 0..3 {
        for (name, rows) in figures {
            expect(&cluster, TABLE, Some(name), rows).await?;
        }
        match round {
            0 => {
                let owner = cluster.owner(TABLE).await?;
                cluster.data[owner].kill().await?;
                cluster.data[owner].start().await?;
            }
            1 => kill_all(&mut cluster).await?,
            _ => {}
        }
    }
    // A second bulk load is newer than all rows before it.
    load(&cluster, TABLE, &file(&cluster, 0..2_000, "bulk")?, &["--bulk"]).await?;
    expect(&cluster, TABLE, Some("bulk"), 2_000).await?;
    cluster.flush(TABLE).await?.ok()?;
    expect(&cluster, TABLE, None, 2_000).await?;
    wait_until_replicas_agree(&cluster, TABLE).await?;
    cluster.finish().await
}

async fn alter(cluster: &Cluster, change: [&str; 2]) -> Result<()> {
    cluster.run(&[&["table", "alter", TABLE][..], &change].concat()).await?.ok()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_load_continues_during_alters() -> Result<()> {
    let cluster = Cluster::start().await?;
    create(&cluster, 3).await?;
    let client = client(&cluster).await?;
    let loader = client.bulk_loader(TABLE).await.map_err(failed)?;
    let seats = ["--add-column", "seats int32 not null default 7"];
    let altered = std::sync::atomic::AtomicBool::new(false);
    let done = std::sync::atomic::Ordering::Relaxed;
    let loading = async {
        let mut part = 0;
        while part < 10 || !altered.load(done) {
            write(&loader, part * 100..(part + 1) * 100, "bulk").await?;
            part += 1;
        }
        Ok::<_, HarnessError>(u64::try_from(part * 100).unwrap_or(0))
    };
    let altering = async {
        for change in [seats, ["--drop-column", "seats"], ["--add-column", "note utf8"], seats] {
            alter(&cluster, change).await?;
        }
        altered.store(true, done);
        Ok::<_, HarnessError>(())
    };
    let (rows, _) = tokio::try_join!(loading, altering)?;
    expect(&cluster, TABLE, Some("bulk"), rows).await?;
    let defaults = cluster.count_where(TABLE, Some("seats = 7")).await?;
    if defaults != rows {
        return Err(HarnessError::violated(format!("{defaults} of {rows} rows have the default")));
    }
    // The command: the table is altered while its file is checked, or while it is loaded.
    let file = cluster.directory().join("seats.csv");
    let lines: String = (0..100_000).map(|id| format!("{id},file,8\n")).collect();
    std::fs::write(&file, format!("id,name,seats\n{lines}"))
        .map_err(HarnessError::io("a csv file"))?;
    tokio::try_join!(
        load(&cluster, TABLE, &file, &["--bulk"]),
        alter(&cluster, ["--drop-column", "note"])
    )?;
    expect(&cluster, TABLE, Some("file"), 100_000).await?;
    let loader = client.atomic_loader(TABLE).await.map_err(failed)?;
    let busy = cluster.run(&["table", "alter", TABLE, "--drop-column", "seats"]).await?;
    busy.status(4)?.expect_stderr(&["being loaded"])?;
    loader.abandon().await.map_err(failed)?;
    wait_until_replicas_agree(&cluster, TABLE).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn atomic_load_is_visible_completely_or_not_at_all() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create(&cluster, 3).await?;
    load(&cluster, TABLE, &file(&cluster, 0..1_000, "old")?, &[]).await?;
    let client = client(&cluster).await?;
    for publish in [false, true] {
        let loader = client.atomic_loader(TABLE).await.map_err(failed)?;
        write(&loader, 0..2_000, "new").await?;
        expect(&cluster, TABLE, Some("new"), 0).await?;
        // During the load the table accepts writes, and no other change.
        load(&cluster, TABLE, &file(&cluster, 3_000..3_100, "concurrent")?, &[]).await?;
        let busy = cluster.run(&["table", "truncate", TABLE]).await?;
        busy.status(4)?.expect_stderr(&["being loaded"])?;
        let clone = cluster.run(&["table", "clone", TABLE, "copy"]).await?;
        clone.status(4)?.expect_stderr(&["being loaded"])?;
        // Staged files survive a kill of the owner, and the record of the load a kill of the meta leader.
        kill_all(&mut cluster).await?;
        cluster.wait_until_healthy().await?;
        write(&loader, 2_000..2_500, "new").await?;
        cluster.flush(TABLE).await?.ok()?;
        expect(&cluster, TABLE, Some("new"), 0).await?;
        expect(&cluster, TABLE, Some("old"), 1_000).await?;
        let (meta, _) = cluster.meta_leader().await?;
        if publish {
            // The command is the point of no return: publication completes although an owner was killed
            // before it, so that a region cannot publish yet, and the meta leader is killed during it.
            let owner = cluster.owner(TABLE).await?;
            cluster.data[owner].kill().await?;
            let leader = cluster.meta[meta].spec.listen;
            let direct = NodeClient::new(leader, Duration::from_millis(500))?;
            let end = v1::EndLoadRequest {
                request_id: loader.load_id().unwrap_or_default().to_string(),
                name: TABLE.to_owned(),
                publish: true,
            };
            let timed_out = direct.end_load(end).await;
            if timed_out.is_ok() {
                return Err(HarnessError::violated("a group without a leader has published"));
            }
            cluster.meta[meta].kill().await?;
            loader.publish().await.map_err(failed)?;
            cluster.meta[meta].start().await?;
            cluster.data[owner].start().await?;
        } else {
            loader.abandon().await.map_err(failed)?;
        }
        let (old, new) = if publish { (0, 2_500) } else { (1_000, 0) };
        expect(&cluster, TABLE, Some("new"), new).await?;
        expect(&cluster, TABLE, Some("old"), old).await?;
        expect(&cluster, TABLE, Some("concurrent"), 100).await?;
    }
    kill_all(&mut cluster).await?;
    expect(&cluster, TABLE, None, 2_600).await?;
    wait_until_replicas_agree(&cluster, TABLE).await?;
    cluster.run(&["table", "truncate", TABLE]).await?.ok()?;
    expect(&cluster, TABLE, None, 0).await?;
    cluster.finish().await
}

/// Begins a load whose loader never continues. On a slow machine, one with a short deadline ends before it has begun.
async fn begin_abandoned_load(cluster: &Cluster) -> Result<(NodeClient, String)> {
    let timeout_ms = AtomicU64::new(2_000);
    wait::until("a load is begun", SETTLED_WITHIN, || async {
        let (meta, _) = cluster.meta_leader().await.map_err(|error| error.to_string())?;
        let direct = NodeClient::new(cluster.meta[meta].spec.listen, Duration::from_secs(10));
        let direct = direct.map_err(|error| error.to_string())?;
        let request_id = Uuid::new_v4().to_string();
        let begin = v1::BeginLoadRequest {
            request_id: request_id.clone(),
            name: TABLE.to_owned(),
            timeout_ms: timeout_ms.fetch_add(1_000, Ordering::Relaxed),
        };
        direct.begin_load(begin).await.map_err(|status| status.to_string())?;
        Ok((direct, request_id))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn region_publishes_load_atomically_and_abandons_expired_load() -> Result<()> {
    let cluster = Cluster::start().await?;
    create(&cluster, 1).await?;
    let client = client(&cluster).await?;
    let loader = client.atomic_loader(TABLE).await.map_err(failed)?;
    for part in 0..8 {
        write(&loader, part * 100..(part + 1) * 100, "new").await?;
    }
    let publishing = tokio::spawn(loader.publish());
    let mut seen = BTreeSet::new();
    while !seen.contains(&800) {
        let visible = cluster.count(TABLE).await?;
        seen.insert(visible);
        if visible != 0 && visible != 800 {
            return Err(HarnessError::violated(format!("{visible} of 800 rows are visible")));
        }
    }
    publishing.await.map_err(failed)?.map_err(failed)?;
    // A load whose loader never continues.
    let (direct, request_id) = begin_abandoned_load(&cluster).await?;
    cluster
        .run(&["table", "truncate", TABLE])
        .await?
        .status(4)?
        .expect_stderr(&["being loaded"])?;
    wait::until("the load is abandoned", SETTLED_WITHIN, || async {
        let output =
            cluster.run(&["table", "truncate", TABLE]).await.and_then(|output| output.ok());
        output.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let end = v1::EndLoadRequest { request_id, name: TABLE.to_owned(), publish: true };
    let refused = expect_refusal(direct.end_load(end).await)?;
    if !refused.message.contains("abandoned") {
        return Err(HarnessError::violated(refused.message));
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_load_flushes_older_rows_and_counts_them() -> Result<()> {
    let cluster = Cluster::start().await?;
    create(&cluster, 1).await?;
    load(&cluster, TABLE, &file(&cluster, 0..100, "old")?, &[]).await?;
    load(&cluster, TABLE, &file(&cluster, 50..150, "new")?, &["--bulk"]).await?;
    expect(&cluster, TABLE, Some("old"), 50).await?;
    expect(&cluster, TABLE, Some("new"), 100).await?;
    let owner = &cluster.data[cluster.owner(TABLE).await?];
    let flushed = Metrics::fetch(owner.spec.listen).await?.sum("tidewater_flush_rows_total");
    if flushed != 100 {
        return Err(HarnessError::violated(format!("{flushed} rows flushed, expected 100")));
    }
    cluster.finish().await
}

/// Returns the refusal of the region's owner: its group may have another leader than a moment ago.
async fn refused_by_owner(cluster: &Cluster, request: &v1::AdoptFilesRequest) -> Result<Refusal> {
    wait::until("the owner has answered", SETTLED_WITHIN, || async {
        let owner = cluster.owner(TABLE).await.map_err(|error| error.to_string())?;
        let direct = NodeClient::new(cluster.data[owner].spec.listen, Duration::from_secs(20));
        let direct = direct.map_err(|error| error.to_string())?;
        match expect_refusal(direct.adopt_files(request.clone()).await) {
            Ok(refused) if refused.reason == Reason::NotLeader => Err(refused.to_string()),
            answer => Ok(answer),
        }
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_bulk_loads_clones_and_adoptions_change_nothing() -> Result<()> {
    let cluster = Cluster::start().await?;
    create(&cluster, 1).await?;
    load(&cluster, TABLE, &file(&cluster, 0..100, "old")?, &["--bulk"]).await?;
    let bad = cluster.directory().join("bad.csv");
    std::fs::write(&bad, "id,colour\n1,red\n").map_err(HarnessError::io("a csv file"))?;
    let late = cluster.directory().join("late.csv");
    std::fs::write(&late, "id,name\n1,red\nx,blue\n").map_err(HarnessError::io("a csv file"))?;
    for how in ["--bulk", "--atomic"] {
        let good = file(&cluster, 0..10, "new")?.display().to_string();
        let file = |path: &Path| path.display().to_string();
        cluster
            .run(&["load", "nowhere", &good, how])
            .await?
            .status(3)?
            .expect_stderr(&["nowhere"])?;
        let columns = cluster.run(&["load", TABLE, &file(&bad), how]).await?;
        columns.status(1)?.expect_stderr(&["colour"])?;
        let output = cluster.run(&["load", TABLE, &file(&late), how, "--unchecked"]).await?;
        output.status(1)?.expect_stderr(&["line 3"])?;
        cluster.run(&["load", TABLE, &good, how, "--in-flight", "3"]).await?.status(2)?;
    }
    cluster.run(&["load", TABLE, "x", "--bulk", "--atomic"]).await?.status(2)?;
    cluster.run(&["table", "clone", TABLE, TABLE]).await?.status(4)?.expect_stderr(&["exists"])?;
    cluster.run(&["table", "clone", "nowhere", "copy"]).await?.status(3)?;

    let region = cluster.region(TABLE).await?;
    let adopt = |area: Uuid, files: Vec<Vec<u8>>, stage| v1::AdoptFilesRequest {
        group_id: region.group_id,
        region_id: region.region_id,
        catalog_version: region.catalog_version,
        schema_version: region.schema_version,
        area_id: area.as_bytes().to_vec().into(),
        file_ids: files.into_iter().map(Into::into).collect(),
        stage,
    };
    let live = live_files(&cluster, TABLE).await?;
    let known = Path::new(&live[0]).file_stem().and_then(|name| name.to_str()).unwrap();
    let known = Uuid::parse_str(known).unwrap().as_bytes().to_vec();
    let foreign = Uuid::now_v7();
    let directory = Path::new(cluster.store_url().trim_start_matches("file://")).join(&live[0]);
    let foreign_file = directory.with_file_name(format!("{foreign}.parquet"));
    std::fs::write(&foreign_file, b"not a parquet file").map_err(HarnessError::io("a file"))?;
    let unknown = Uuid::now_v7().as_bytes().to_vec();
    let fresh = Uuid::new_v4;
    for (request, reason, words) in [
        (
            adopt(fresh(), vec![unknown.clone()], false),
            Reason::InvalidArgument,
            "not in the region",
        ),
        (adopt(fresh(), vec![known.clone()], false), Reason::InvalidArgument, "already adopted"),
        (
            adopt(fresh(), vec![foreign.as_bytes().to_vec()], false),
            Reason::InvalidArgument,
            "damaged",
        ),
        (adopt(fresh(), vec![unknown.clone()], true), Reason::LoadEnded, "not open"),
        (adopt(fresh(), vec![], false), Reason::InvalidArgument, "no file"),
        (adopt(fresh(), vec![vec![1, 2]], false), Reason::InvalidArgument, "UUID"),
        (
            v1::AdoptFilesRequest {
                schema_version: 99,
                ..adopt(fresh(), vec![unknown.clone()], false)
            },
            Reason::SchemaVersionBehind,
            "schema",
        ),
    ] {
        let refused = refused_by_owner(&cluster, &request).await?;
        if refused.reason != reason || !refused.message.contains(words) {
            return Err(HarnessError::violated(format!("{request:?}: {refused:?}")));
        }
    }
    let follower = (cluster.owner(TABLE).await? + 1) % cluster.data.len();
    let other = NodeClient::new(cluster.data[follower].spec.listen, Duration::from_secs(20))?;
    let refused = expect_refusal(other.adopt_files(adopt(fresh(), vec![unknown], false)).await)?;
    if refused.reason != Reason::NotLeader {
        return Err(HarnessError::violated(format!("{refused:?}")));
    }
    expect(&cluster, TABLE, Some("old"), 100).await?;
    expect(&cluster, TABLE, None, 100).await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clone_shares_files_and_outlives_its_source() -> Result<()> {
    let mut cluster = ClusterPlan::default().env("TIDEWATER_GC_GRACE", "1s").start().await?;
    create(&cluster, 3).await?;
    load(&cluster, TABLE, &file(&cluster, 0..1_000, "flushed")?, &[]).await?;
    cluster.flush(TABLE).await?.ok()?;
    load(&cluster, TABLE, &file(&cluster, 500..1_500, "fresh")?, &[]).await?;
    cluster.run(&["table", "clone", TABLE, "copy"]).await?.ok()?;
    let shared: BTreeSet<String> = live_files(&cluster, TABLE).await?.into_iter().collect();
    let clones: BTreeSet<String> = live_files(&cluster, "copy").await?.into_iter().collect();
    if shared != clones || shared.is_empty() {
        return Err(HarnessError::violated(format!("the clone has {clones:?}, not {shared:?}")));
    }
    // From here on the two tables are independent.
    load(&cluster, "copy", &file(&cluster, 0..100, "copied")?, &[]).await?;
    load(&cluster, TABLE, &file(&cluster, 1_400..1_600, "own")?, &[]).await?;
    cluster.run(&["table", "clone", "copy", "again"]).await?.ok()?;
    let owner = cluster.owner("copy").await?;
    cluster.data[owner].kill().await?;
    cluster.data[owner].start().await?;
    cluster.run(&["table", "drop", TABLE]).await?.ok()?;
    wait::until("garbage collection keeps the files of the clones", SETTLED_WITHIN, || async {
        let output = cluster.run(&["gc", "--output", "json"]).await.and_then(|output| output.ok());
        output.map(drop).map_err(|error| error.to_string())?;
        let all_exist = shared.iter().all(|path| cluster.objects().join(path).exists());
        if all_exist { Ok(()) } else { Err("a file of the clones was deleted".to_owned()) }
    })
    .await?;
    for table in ["copy", "again"] {
        for (name, rows) in [("copied", 100), ("flushed", 400), ("fresh", 1_000), ("own", 0)] {
            expect(&cluster, table, Some(name), rows).await?;
        }
    }
    let add = ["table", "alter", "again", "--add-column", "seats int32 not null default 7"];
    cluster.run(&add).await?.ok()?;
    let regions = cluster.run(&["region", "list", "--table", "again", "--output", "json"]).await?;
    for region in regions.ok()?.json()?.as_array().into_iter().flatten() {
        let region = region["region_id"].to_string();
        cluster.run(&["region", "compact", &region]).await?.ok()?;
    }
    kill_all(&mut cluster).await?;
    expect(&cluster, "again", None, 1_500).await?;
    expect(&cluster, "copy", None, 1_500).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_load_and_clone_continue_when_owners_are_killed() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create(&cluster, 3).await?;
    let client = client(&cluster).await?;
    let loading = tokio::spawn(async move {
        let loader = client.bulk_loader(TABLE).await.map_err(failed)?;
        for part in 0..60 {
            write(&loader, part * 50..(part + 1) * 50, "bulk").await?;
        }
        Ok::<_, HarnessError>(client)
    });
    for round in 1..=3_u64 {
        wait::until("the load makes progress", SETTLED_WITHIN, || async {
            let found = cluster.count(TABLE).await.map_err(|error| error.to_string())?;
            if found >= round * 500 { Ok(()) } else { Err(format!("{found} rows")) }
        })
        .await?;
        let owner = cluster.owner(TABLE).await?;
        cluster.data[owner].kill().await?;
        // The next leader returns all acknowledged rows.
        let before = cluster.count(TABLE).await?;
        cluster.data[owner].start().await?;
        let after = cluster.count(TABLE).await?;
        if after < before {
            return Err(HarnessError::violated(format!(
                "{before} rows before the restart, {after} after it"
            )));
        }
        cluster.wait_until_healthy().await?;
    }
    let client = loading.await.map_err(failed)??;
    expect(&cluster, TABLE, Some("bulk"), 3_000).await?;

    let (meta, _) = cluster.meta_leader().await?;
    let owner = cluster.owner(TABLE).await?;
    let cloning = tokio::spawn(async move { client.clone_table(TABLE, "copy").await });
    cluster.meta[meta].kill().await?;
    cluster.data[owner].kill().await?;
    cloning.await.map_err(failed)?.map_err(failed)?;
    expect(&cluster, "copy", Some("bulk"), 3_000).await?;
    cluster.meta[meta].start().await?;
    cluster.data[owner].start().await?;
    expect(&cluster, "copy", Some("bulk"), 3_000).await?;
    expect(&cluster, TABLE, Some("bulk"), 3_000).await?;
    cluster.wait_until_healthy().await?;
    wait_until_replicas_agree(&cluster, "copy").await?;
    cluster.finish().await
}
