//! Hooks that operators add, on real nodes.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const WITHIN: Duration = Duration::from_secs(30);

/// Returns the lines of a hook's file that satisfy `pick`; none if the file does not exist.
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

pub(crate) async fn load(cluster: &Cluster, writer: u32) -> Result<()> {
    let rows: String = (0..100).map(|serial| format!("{writer},{serial},n\n")).collect();
    let path = cluster.directory().join(format!("{writer}.csv"));
    std::fs::write(&path, format!("writer,serial,note\n{rows}"))
        .map_err(HarnessError::io("write rows"))?;
    cluster.run(&["load", LOG_TABLE, &path.to_string_lossy()]).await?.ok()?;
    cluster.flush(LOG_TABLE).await?.ok()?;
    Ok(())
}

/// Checks table, incarnation, schema and column statistics of a call with one file of `load`.
fn check_file_fields(line: &Value) {
    assert_eq!((&line["table"], &line["schema"]["version"]), (&LOG_TABLE.into(), &1.into()));
    assert!(
        line["table_id"].as_u64() > Some(0) && line["incarnation"].as_u64() > Some(0),
        "{line}"
    );
    let columns = &line["files"][0]["columns"];
    let names = line["schema"]["columns"].as_array().expect("columns");
    let names: Vec<&str> = names.iter().filter_map(|column| column["name"].as_str()).collect();
    assert_eq!(names, ["writer", "serial", "note"]);
    let serial = &columns[1];
    assert_eq!(
        (&serial["id"], &serial["min"], &serial["max"]),
        (&2.into(), &"0".into(), &"99".into())
    );
    assert_eq!((&serial["nulls"], &columns[2]["max"]), (&0.into(), &"n".into()));
}

async fn hook_list(cluster: &Cluster) -> Result<Value> {
    cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jsonl_hook_reports_every_file_of_every_flush() -> Result<()> {
    let cluster = ClusterPlan::default().start().await?;
    cluster.create_log_table().await?;
    let path = cluster.hook_directory().join("audit.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    cluster.run(&["hook", "add", "audit", "--kind", "jsonl", "--config", &config]).await?.ok()?;
    for writer in 0..3 {
        load(&cluster, writer).await?;
    }
    // Both events are reported before a flush returns.
    let written = lines(&path, event("sst_files_written"));
    let updated = lines(&path, event("manifest_updated"));
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
    written.iter().for_each(check_file_fields);
    let mut last = 0;
    for line in &updated {
        assert_eq!((&line["hook"], &line["manifest"]), (&"audit".into(), &"live".into()));
        assert_eq!((&line["node_role"], &line["node_id"]), (&"data".into(), &owner.into()));
        assert_eq!(line["region_id"].to_string(), region);
        check_file_fields(line);
        assert!(line["author"]["owner"].is_string(), "{line}");
        let version = line["manifest_version"].as_u64().expect("a version");
        assert!(version > last, "{line}");
        last = version;
    }

    let hooks = wait::until("the calls are counted", WITHIN, || async {
        let hooks = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        if hooks[0]["calls"].as_u64() >= Some(6) { Ok(hooks) } else { Err(hooks.to_string()) }
    })
    .await?;
    assert_eq!(hooks[0]["name"], "audit");
    assert_eq!(hooks[0]["kind"], "jsonl");
    assert_eq!(hooks[0]["table"], Value::Null);
    assert_eq!(hooks[0]["durable"], false);
    assert_eq!(hooks[0]["state"], "active");
    assert_eq!((&hooks[0]["failures"], &hooks[0]["lag"]), (&0.into(), &0.into()));
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hook_survives_restarts_and_can_be_paused_and_removed() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    cluster.create_log_table().await?;
    let path = cluster.hook_directory().join("audit.jsonl");
    let config = format!(r#"{{"path":"{}"}}"#, path.display());
    let add = ["hook", "add", "audit", "--kind", "jsonl", "--config", &config];
    cluster.run(&add).await?.ok()?;
    let wait_for_state = async |state: &str| {
        wait::until(&format!("the hook is {state}"), WITHIN, || async {
            let hooks = hook_list(&cluster).await.map_err(|error| error.to_string())?;
            if hooks[0]["state"] == state { Ok(()) } else { Err(hooks.to_string()) }
        })
        .await
    };
    let calls = || lines(&path, event("manifest_updated")).len();
    load(&cluster, 0).await?;
    assert_eq!(calls(), 1);
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    wait_for_state("paused").await?;
    // Pausing a paused hook succeeds. The listed state may be older by a heartbeat than that of the node.
    cluster.run(&["hook", "pause", "audit"]).await?.ok()?;
    cluster.run(&["hook", "resume", "audit"]).await?.ok()?;
    cluster.run(&["hook", "resume", "unknown"]).await?.status(3)?;
    for node in cluster.meta.iter_mut().chain(cluster.data.iter_mut()) {
        node.kill().await?;
    }
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    // The hook is stored in the catalog, so it survives the restart.
    wait::until("the hook is called again", WITHIN, || async {
        let before = lines(&path, event("manifest_updated")).len();
        load(&cluster, 1).await.map_err(|error| error.to_string())?;
        let after = lines(&path, event("manifest_updated")).len();
        if after > before { Ok(()) } else { Err(format!("{after} calls")) }
    })
    .await?;
    cluster.run(&["hook", "remove", "audit"]).await?.ok()?;
    assert_eq!(hook_list(&cluster).await?, Value::Array(Vec::new()));
    wait::until("the hook is no longer called", WITHIN, || async {
        let before = lines(&path, event("manifest_updated")).len();
        load(&cluster, 2).await.map_err(|error| error.to_string())?;
        let after = lines(&path, event("manifest_updated")).len();
        if after == before { Ok(()) } else { Err(format!("{after} calls")) }
    })
    .await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_hook_is_rejected_when_added() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let add = async |name: &str, kind: &str, config: &str| {
        cluster.run(&["hook", "add", name, "--kind", kind, "--config", config]).await
    };
    let good = format!(r#"{{"path":"{}"}}"#, cluster.hook_directory().join("x").display());
    add("a", "carrier-pigeon", "{}")
        .await?
        .status(2)?
        .expect_stderr(&["unknown kind", "webhook"])?;
    add("a", "jsonl", "{").await?.status(2)?.expect_stderr(&["not json"])?;
    add("a", "jsonl", "{}").await?.status(2)?.expect_stderr(&["missing field `path`"])?;
    add("a", "webhook", r#"{"url":"nowhere"}"#).await?.status(2)?.expect_stderr(&["the url"])?;
    add("a b", "jsonl", &good).await?.status(2)?.expect_stderr(&["not a hook name"])?;
    // The data nodes refuse what their operator has not allowed, and nothing is left of the hook.
    let data_dir = cluster.data[0].spec.data_dir.clone().unwrap_or_default();
    let identity = data_dir.join("identity");
    let before = std::fs::read(&identity).map_err(HarnessError::io("read the identity"))?;
    let into_identity = format!(r#"{{"path":"{}"}}"#, identity.display());
    add("a", "jsonl", &into_identity).await?.status(2)?.expect_stderr(&["is outside of"])?;
    add("a", "webhook", r#"{"url":"http://169.254.169.254/latest"}"#)
        .await?
        .status(2)?
        .expect_stderr(&["not a public address", "--allow-private-webhooks"])?;
    let secret = r#"{"url":"http://example.org/","secret_file":"/dev/zero"}"#;
    add("a", "webhook", secret).await?.status(2)?.expect_stderr(&["--hook-secret-dir"])?;
    cluster.create_log_table().await?;
    load(&cluster, 0).await?;
    let after = std::fs::read(&identity).map_err(HarnessError::io("read the identity"))?;
    assert_eq!(after, before, "a hook wrote to the identity of a node");
    assert_eq!(hook_list(&cluster).await?, Value::Array(Vec::new()));
    add("a", "jsonl", &good).await?.ok()?;
    add("a", "jsonl", &good).await?.status(4)?.expect_stderr(&["already exists", "hook remove"])?;
    let missing = ["hook", "add", "b", "--kind", "jsonl", "--config", &good, "--table", "nowhere"];
    cluster.run(&missing).await?.status(3)?.expect_stderr(&["nowhere"])?;
    cluster.run(&["hook", "remove", "b"]).await?.status(3)?.expect_stderr(&["hook list"])?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhook_lags_while_down_and_catches_up() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0);
    let cluster = plan.env("TIDEWATER_ALLOW_PRIVATE_WEBHOOKS", "true").start().await?;
    cluster.create_log_table().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(HarnessError::io("listen"))?;
    let address = listener.local_addr().map_err(HarnessError::io("listen"))?;
    drop(listener);
    let config = format!(r#"{{"url":"http://{address}/in"}}"#);
    let add = ["hook", "add", "mirror", "--kind", "webhook", "--table", LOG_TABLE];
    cluster.run(&[add.as_slice(), &["--config", &config]].concat()).await?.ok()?;
    load(&cluster, 0).await?;
    wait::until("the lag is visible", WITHIN, || async {
        let hooks = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        let lags = hooks[0]["lag"].as_u64() >= Some(2) && hooks[0]["table"] == LOG_TABLE;
        if lags { Ok(()) } else { Err(hooks.to_string()) }
    })
    .await?;
    let listener = TcpListener::bind(address).await.map_err(HarnessError::io("listen"))?;
    let receiver = tokio::spawn(receive(listener));
    wait::until("the hook has no lag", Duration::from_secs(60), || async {
        let hooks = hook_list(&cluster).await.map_err(|error| error.to_string())?;
        if hooks[0]["lag"] == 0 { Ok(()) } else { Err(hooks.to_string()) }
    })
    .await?;
    receiver.abort();
    cluster.finish().await
}

/// Accepts all posted requests.
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
