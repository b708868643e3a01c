//! Hooks by configuration, on real nodes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, LOG_TABLE, Plan};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const WITHIN: Duration = Duration::from_secs(30);

/// The lines of a hook's file for which `pick` is true; none while there is no file.
fn lines(path: &Path, pick: impl Fn(&Value) -> bool) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON"));
    lines.filter(pick).collect()
}

fn event(name: &'static str) -> impl Fn(&Value) -> bool {
    move |line| line["event"] == name && !line["files"].as_array().is_some_and(Vec::is_empty)
}

fn file_ids(lines: &[Value]) -> BTreeSet<String> {
    let files = lines.iter().flat_map(|line| line["files"].as_array().cloned().unwrap_or_default());
    files.filter_map(|file| file["file_id"].as_str().map(str::to_owned)).collect()
}

async fn load(cluster: &Cluster, writer: u32) -> Result<()> {
    let rows: String = (0..100).map(|serial| format!("{writer},{serial},n\n")).collect();
    let path = cluster.folder().join(format!("{writer}.csv"));
    std::fs::write(&path, format!("writer,serial,note\n{rows}"))
        .map_err(HarnessError::io("write rows"))?;
    cluster.run(&["load", LOG_TABLE, &path.to_string_lossy()]).await?.ok()?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    Ok(())
}

async fn hook_list(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jsonl_hook_names_every_file_of_every_flush() -> Result<()> {
    let cluster = Plan::default().start().await?;
    cluster.create_log_table().await?;
    let path = cluster.folder().join("audit.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    cluster.run(&["hook", "add", "audit", "--kind", "jsonl", "--config", &config]).await?.ok()?;
    for writer in 0..3 {
        load(&cluster, writer).await?;
    }
    // Both are called before a flush is answered.
    let (written, updated) =
        (lines(&path, event("sst_files_written")), lines(&path, event("manifest_updated")));
    let region = cluster.region(LOG_TABLE).await?.region_id.to_string();
    let files =
        cluster.run(&["region", "files", &region, "--output", "json"]).await?.ok()?.json()?;
    let live: BTreeSet<String> = files
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|file| file["file_id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(live.len(), 3);
    assert_eq!(file_ids(&written), live);
    assert_eq!(file_ids(&updated), live);
    let owner = cluster.node_id(&cluster.data[cluster.owner(LOG_TABLE).await?].spec).await?;
    let mut last = 0;
    for line in &updated {
        assert_eq!((&line["hook"], &line["manifest"]), (&"audit".into(), &"live".into()));
        assert_eq!((&line["node_role"], &line["node_id"]), (&"data".into(), &owner.into()));
        assert_eq!(line["region_id"].to_string(), region);
        let version = line["manifest_version"].as_u64().expect("a version");
        assert!(version > last, "{line}");
        last = version;
    }

    let shown = wait::until("the calls are counted", WITHIN, || async {
        let shown = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        if shown[0]["calls"].as_u64() >= Some(6) { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await?;
    assert_eq!(shown[0]["name"], "audit");
    assert_eq!(shown[0]["kind"], "jsonl");
    assert_eq!(shown[0]["table"], Value::Null);
    assert_eq!(shown[0]["durable"], false);
    assert_eq!(shown[0]["state"], "active");
    assert_eq!((&shown[0]["failures"], &shown[0]["lag"]), (&0.into(), &0.into()));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_is_paused_resumed_removed_and_outlives_restarts() -> Result<()> {
    let mut cluster = Plan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let path = cluster.folder().join("audit.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let add = ["hook", "add", "audit", "--kind", "jsonl", "--config", &config];
    cluster.run(&add).await?.ok()?;
    let state = async |wanted: &str| {
        wait::until(&format!("the hook is {wanted}"), WITHIN, || async {
            let shown = hook_list(&cluster).await.map_err(|error| error.to_string())?;
            if shown[0]["state"] == wanted { Ok(()) } else { Err(shown.to_string()) }
        })
        .await
    };
    let seen = || lines(&path, event("manifest_updated")).len();
    load(&cluster, 0).await?;
    assert_eq!(seen(), 1);
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    state("paused").await?;
    // The node's answer: what it says of a paused hook is a heartbeat younger than what it knows.
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    cluster.run(&["hook", "resume", "nobody"]).await?.status(3)?;
    for node in cluster.meta.iter_mut().chain(cluster.data.iter_mut()) {
        node.kill().await?;
    }
    cluster.start_all().await?;
    cluster.healthy().await?;
    // Stored with the catalog, so it is there again.
    wait::until("the hook is called again", WITHIN, || async {
        let before = lines(&path, event("manifest_updated")).len();
        load(&cluster, 1).await.map_err(|error| error.to_string())?;
        let after = lines(&path, event("manifest_updated")).len();
        if after > before { Ok(()) } else { Err(format!("{after} calls")) }
    })
    .await?;
    cluster.run(&["hook", "remove", "audit"]).await?.ok()?;
    assert_eq!(hook_list(&cluster).await?, Value::Array(Vec::new()));
    wait::until("the hook is not called any more", WITHIN, || async {
        let before = lines(&path, event("manifest_updated")).len();
        load(&cluster, 2).await.map_err(|error| error.to_string())?;
        let after = lines(&path, event("manifest_updated")).len();
        if after == before { Ok(()) } else { Err(format!("{after} calls")) }
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_hook_is_refused_when_it_is_added() -> Result<()> {
    let cluster = Plan::default().nodes(1, 1, 0).start().await?;
    let add = async |name: &str, kind: &str, config: &str| {
        cluster.run(&["hook", "add", name, "--kind", kind, "--config", config]).await
    };
    let good = format!(r#"{{"path":"{}"}}"#, cluster.folder().join("x").display());
    add("a", "carrier-pigeon", "{}").await?.status(2)?.complains(&["unknown kind", "webhook"])?;
    add("a", "jsonl", "{").await?.status(2)?.complains(&["not json"])?;
    add("a", "jsonl", "{}").await?.status(2)?.complains(&["missing field `path`"])?;
    add("a", "webhook", r#"{"url":"nowhere"}"#).await?.status(2)?.complains(&["the url"])?;
    add("a b", "jsonl", &good).await?.status(2)?.complains(&["not a hook name"])?;
    assert_eq!(hook_list(&cluster).await?, Value::Array(Vec::new()));
    add("a", "jsonl", &good).await?.ok()?;
    add("a", "jsonl", &good).await?.status(4)?.complains(&["already exists", "hook remove"])?;
    let missing = ["hook", "add", "b", "--kind", "jsonl", "--config", &good, "--table", "nowhere"];
    cluster.run(&missing).await?.status(3)?.complains(&["nowhere"])?;
    cluster.run(&["hook", "remove", "b"]).await?.status(3)?.complains(&["hook list"])?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_is_down_lags_and_catches_up() -> Result<()> {
    let cluster = Plan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(HarnessError::io("listen"))?;
    let address = listener.local_addr().map_err(HarnessError::io("listen"))?;
    drop(listener);
    let config = format!(r#"{{"url":"http://{address}/in"}}"#);
    let add = ["hook", "add", "mirror", "--kind", "webhook", "--table", LOG_TABLE];
    cluster.run(&[add.as_slice(), &["--config", &config]].concat()).await?.ok()?;
    load(&cluster, 0).await?;
    wait::until("the lag shows", WITHIN, || async {
        let shown = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        let lags = shown[0]["lag"].as_u64() >= Some(2) && shown[0]["table"] == LOG_TABLE;
        if lags { Ok(()) } else { Err(shown.to_string()) }
    })
    .await?;
    let listener = TcpListener::bind(address).await.map_err(HarnessError::io("listen"))?;
    let got = tokio::spawn(receive(listener));
    wait::until("the lag is gone", Duration::from_secs(60), || async {
        let shown = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        if shown[0]["lag"] == 0 { Ok(()) } else { Err(shown.to_string()) }
    })
    .await?;
    got.abort();
    cluster.finish().await
}

/// Takes whatever is posted.
async fn receive(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = Vec::new();
            let mut part = [0; 8_192];
            while let Ok(read) = stream.read(&mut part).await {
                request.extend_from_slice(&part[..read]);
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((header, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = header.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let _ = stream.write_all(answer.as_bytes()).await;
                    request.clear();
                }
                if read == 0 {
                    return;
                }
            }
        });
    }
}
