//! A program that embeds a compactor with its own hook kind: the example of the crate, as a process. The
//! test acts as the owner.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::{HarnessError, Result, binary};
use tidewater_common::clock::SystemClock;
use tidewater_common::refusal::Refusal;
use tidewater_proto::compaction::v1::compaction_client::CompactionClient;
use tidewater_proto::compaction::v1::{
    CompactRequest, OpenCompactionRegionRequest, PluginSpec, compaction_event::Event,
};
use tidewater_proto::v1::{CallHeader, ManifestOwnerEpoch, Reason};
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::compaction::{CompactionPlan, CompactionReason, OutputOptions};
use tidewater_region_engine::env::{EngineOptions, IdSource, RegionEnv, SystemIds};
use tidewater_region_engine::layout::RegionDir;
use tidewater_region_engine::manifest::ManifestState;
use tidewater_region_engine::manifest::history::snapshot;
use tidewater_region_engine::storage::Storage;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tonic::transport::Channel;

use super::expect;

const WITHIN: Duration = Duration::from_secs(60);

/// The running example; stops when dropped.
struct Example {
    _child: Child,
    out: Lines<BufReader<ChildStdout>>,
    node: u64,
    client: CompactionClient<Channel>,
}

impl Example {
    async fn start(cluster: &Cluster) -> Result<Self> {
        let meta = cluster.meta_addresses()[0].clone();
        let mut child = Command::new(binary::example("own_hook")?)
            .args(["127.0.0.1:0", &meta, cluster.store_url()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io("start the example"))?;
        let stdout = child.stdout.take().expect("piped");
        let mut out = BufReader::new(stdout).lines();
        let ready = line(&mut out).await?;
        let words: Vec<&str> = ready.split_whitespace().collect();
        let ["ready", node, address] = words[..] else {
            return Err(HarnessError::violated(format!("the example printed {ready:?}")));
        };
        let client = CompactionClient::connect(format!("http://{address}"))
            .await
            .map_err(|error| HarnessError::violated(format!("cannot connect: {error}")))?;
        let node = node.parse().expect("a node id");
        Ok(Self { _child: child, out, node, client })
    }
}

async fn line(out: &mut Lines<BufReader<ChildStdout>>) -> Result<String> {
    tokio::time::timeout(WITHIN, out.next_line())
        .await
        .map_err(|_| HarnessError::violated("the example prints nothing"))?
        .map_err(HarnessError::io("read from the example"))?
        .ok_or_else(|| HarnessError::violated("the example has exited"))
}

/// Returns the manifest of the region and the id of the object store, as an owner has them.
async fn manifest(cluster: &Cluster) -> Result<(Arc<ManifestState>, String)> {
    let failed = |error: &dyn std::fmt::Display| HarnessError::violated(error.to_string());
    let storage = Storage::open(cluster.store_url()).await.map_err(|error| failed(&error))?;
    let id = storage.id().await.map_err(|error| failed(&error))?;
    let env = RegionEnv::new(
        storage,
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1),
        EngineOptions::default(),
    );
    let catalog = cluster.catalog().await?;
    let table = catalog.tables.iter().find(|table| table.name == LOG_TABLE).expect("created");
    let dir = RegionDir {
        table_id: tidewater_common::ids::TableId(table.table_id),
        region_id: tidewater_common::ids::RegionId(cluster.region(LOG_TABLE).await?.region_id),
        incarnation: tidewater_common::ids::Incarnation(catalog.incarnation),
    };
    let state = snapshot(&env, dir).await.map_err(|error| failed(&error))?;
    Ok((state, id.to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_compactor_calls_its_own_hook_kind() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_COMPACTION", "off");
    let cluster = plan.start().await?;
    cluster.create_log_table().await?;
    let file = cluster.directory().join("rows.csv");
    for writer in 0..2 {
        std::fs::write(&file, format!("writer,serial,note\n{writer},1,n\n"))
            .map_err(HarnessError::io("a csv file"))?;
        cluster.run(&["load", LOG_TABLE, &file.display().to_string()]).await?.ok()?;
        cluster.flush(LOG_TABLE).await?.ok()?;
    }
    let mut example = Example::start(&cluster).await?;
    let (state, object_store_id) = manifest(&cluster).await?;
    let table = state.table.clone().expect("a schema");
    let owner = state.owner.expect("an owner");
    let header = Some(CallHeader {
        cluster_id: cluster.catalog().await?.cluster_id,
        source_node: 101,
        target_node: example.node,
        catalog_revision: 0,
    });
    let opening = |plugins| OpenCompactionRegionRequest {
        header: header.clone(),
        dir: Some(state.dir.into()),
        schema: Some((&table.schema).into()),
        options: Some((&table.options).into()),
        object_store_id: object_store_id.clone(),
        owner_epoch: Some(ManifestOwnerEpoch {
            move_epoch: owner.epoch.move_epoch,
            term: owner.epoch.term.get(),
        }),
        group_id: owner.group.get(),
        plugins,
        ..Default::default()
    };
    let plugin = |kind: &str| PluginSpec {
        name: "mine".to_owned(),
        kind: kind.to_owned(),
        config: "{}".to_owned(),
        generation: 0,
    };
    let refused =
        example.client.open_compaction_region(opening(vec![plugin("no-such-kind")])).await;
    let refusal = Refusal::from(refused.expect_err("an unknown kind"));
    let named = refusal.message.contains("mine") && refusal.message.contains("no-such-kind");
    expect(
        "the error names the unknown kind",
        refusal.reason == Reason::BadPlugin && named,
        &refusal,
    )?;
    let handle = example
        .client
        .open_compaction_region(opening(vec![plugin("print")]))
        .await
        .map_err(HarnessError::refused("open"))?
        .into_inner()
        .handle;
    let plan = CompactionPlan {
        job_id: SystemIds.job_id(1_700_000_000_000),
        dir: state.dir,
        inputs: state.live.keys().cloned().collect(),
        since: state.since,
        now_ms: 0,
        output: OutputOptions { level: 1, target_file_bytes: 1 << 20 },
        window_ms: None,
        why: CompactionReason::Asked,
    };
    let request = CompactRequest { header, handle, plan: Some((&plan).into()), attempt: 1 };
    let answer = example.client.compact(request).await.map_err(HarnessError::refused("compact"))?;
    let mut events = answer.into_inner();
    let mut last = None;
    while let Some(event) = events.message().await.map_err(HarnessError::refused("an event"))? {
        last = event.event;
    }
    let Some(Event::Committed(committed)) = last else {
        return expect("the job is committed", false, &last);
    };
    let region = state.dir.region_id;
    let version = committed.manifest_version;
    for expected in [
        format!("mine sst_files_written region={region} files=1"),
        format!("mine manifest_updated region={region} version={version}"),
    ] {
        let printed = line(&mut example.out).await?;
        expect("the hook is called", printed == expected, (&printed, &expected))?;
    }
    // The owner did not request the job, and learns of its commit from the manifest.
    cluster.run(&["load", LOG_TABLE, &file.display().to_string()]).await?.ok()?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    let rows = cluster.count(LOG_TABLE).await?;
    expect("no row is lost", rows == 3, rows)?;
    cluster.finish().await
}
