//! Limits on what callers and their mistakes can do to nodes: connections, files, names, loads.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan, LOG_TABLE};
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result, binary, command, wait};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(60);

/// Starts a cluster whose data node runs under `prlimit` with this limit.
async fn with_limit(plan: ClusterPlan, limit: &str) -> Result<Cluster> {
    let mut cluster = plan.nodes(1, 1, 0).prepare().await?;
    cluster.data[0].spec.launcher = vec!["prlimit".to_owned(), limit.to_owned()];
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    Ok(cluster)
}

/// Opens connections to the data node that send nothing.
async fn silent_connections(cluster: &Cluster, count: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::new();
    for _ in 0..count {
        let connected = TcpStream::connect(cluster.data[0].spec.listen).await;
        streams.push(connected.map_err(HarnessError::io("connect"))?);
    }
    Ok(streams)
}

async fn problems(cluster: &Cluster) -> std::result::Result<String, String> {
    let status = cluster.run(&["cluster", "status", "--output", "json"]).await;
    let json = status.and_then(|output| output.json()).map_err(|error| error.to_string())?;
    Ok(json["problems"].to_string())
}

/// Processor time of the data node so far, in clock ticks.
fn ticks(cluster: &Cluster) -> u64 {
    let pid = cluster.data[0].pid().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_of_one_peer_do_not_block_others() -> Result<()> {
    let cluster = with_limit(ClusterPlan::default(), "--nofile=256").await?;
    cluster.create_log_table().await?;
    let mut streams = silent_connections(&cluster, 400).await?;
    // Half of the descriptors are for connections, and half of those for one peer.
    let mut closed = 0;
    for stream in &mut streams {
        let read = tokio::time::timeout(Duration::from_millis(20), stream.read_u8()).await;
        closed += usize::from(read.is_ok());
    }
    assert!(closed >= 300, "only {closed} of 400 silent connections were closed at once");
    // The rest ends when no preface has arrived, while the peer keeps its ends open.
    wait::until("silent connections end", Duration::from_secs(30), || async {
        let result = cluster.run(&["scan", LOG_TABLE, "--timeout", "5s"]).await;
        result.and_then(|output| output.ok()).map(|_| ()).map_err(|error| error.to_string())
    })
    .await?;
    for stream in &mut streams {
        let read = tokio::time::timeout(WITHIN, stream.read_u8()).await;
        assert!(matches!(read, Ok(Err(_))), "a silent connection is open");
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_without_descriptors_reports_it_and_recovers() -> Result<()> {
    let plan = ClusterPlan::default().env("TIDEWATER_MAX_CONNECTIONS", "10000");
    let cluster = with_limit(plan, "--nofile=256").await?;
    let streams = silent_connections(&cluster, 300).await?;
    let begun = (Instant::now(), ticks(&cluster));
    wait::until("the shortage is reported", Duration::from_secs(9), || async {
        let shown = problems(&cluster).await?;
        let reported = shown.contains("accepts no connections") && shown.contains("for ");
        if reported { Ok(()) } else { Err(shown) }
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (seconds, used) = (begun.0.elapsed().as_secs_f64(), ticks(&cluster) - begun.1);
    assert!(used as f64 / seconds < 60.0, "{used} ticks in {seconds} s: the node spins");
    // The peer keeps its ends open: the node ends the connections.
    wait::until("the node has descriptors again", WITHIN, || async {
        let shown = problems(&cluster).await?;
        if shown == "[]" { Ok(()) } else { Err(shown) }
    })
    .await?;
    drop(streams);
    cluster.create_log_table().await?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limit_of_file_sizes_is_a_full_disk() -> Result<()> {
    let mut cluster = with_limit(ClusterPlan::default(), "--fsize=4194304").await?;
    cluster.create_log_table().await?;
    let path = cluster.directory().join("rows.csv");
    let note = "n".repeat(400);
    let rows: String = (0..60_000).map(|serial| format!("1,{serial},{note}\n")).collect();
    std::fs::write(&path, format!("writer,serial,note\n{rows}"))
        .map_err(HarnessError::io("write rows"))?;
    let load = ["load", LOG_TABLE, &path.to_string_lossy(), "--timeout", "20s", "--output", "json"];
    let loaded = cluster.run(&load).await?;
    let acknowledged =
        loaded.json().ok().and_then(|json| json["acknowledged"].as_u64()).unwrap_or(0);
    cluster.data[0].terminate().await?;
    assert!(!cluster.data[0].log().text()?.contains("panicked"));
    cluster.data[0].spec.launcher.clear();
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    let count = cluster.count(LOG_TABLE).await?;
    assert!(count >= acknowledged, "{count} of {acknowledged} acknowledged rows are left");
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_load_writes_no_row() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let create = ["table", "create", "t", "--columns", "k utf8, v utf8", "--primary-key", "k"];
    cluster.run(&create).await?.ok()?;
    let path = cluster.directory().join("rows.csv");
    let file = path.to_string_lossy().into_owned();
    let good: String = (0..20_000).map(|key| format!("{key},v\n")).collect();
    let long_key = "k".repeat(70_000);
    let write = |last: &str| {
        std::fs::write(&path, format!("k,v\n{good}{last}\n")).map_err(HarnessError::io("write"))
    };
    write(&format!("{long_key},v"))?;
    for way in [&["--in-flight", "4"][..], &["--bulk"], &["--atomic"]] {
        let load = [&["load", "t", &file], way].concat();
        let refused = cluster.run(&load).await?.status(1)?;
        refused.expect_stderr(&["line 20002", "a row key of", "nothing was written"])?;
        assert_eq!(cluster.count("t").await?, 0, "{way:?}");
    }
    // A line of many empty fields.
    write(&format!("x{}", ",".repeat(1 << 20)))?;
    let begun = Instant::now();
    let refused = cluster.run(&["load", "t", &file]).await?.status(1)?;
    refused.expect_stderr(&["found 1048577 values"])?;
    assert!(begun.elapsed() < WITHIN);
    assert_eq!(cluster.count("t").await?, 0);
    write("last,v")?;
    cluster.run(&["load", "t", &file]).await?.ok()?;
    assert_eq!(cluster.count("t").await?, 20_001);
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_names_and_zones_are_refused_at_once() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let create = async |name: &str, columns: &str| {
        let args = ["table", "create", "--columns", columns, "--primary-key", "k", "--", name];
        let meta = cluster.meta_addresses().join(",");
        let args = [&["table", "create", "--meta", &meta][..], &args[2..]].concat();
        cluster.run_bare(&args).await
    };
    let long = "x".repeat(10_000);
    for name in ["..", "../x", "a/b", "-x", "a b", &long] {
        let begun = Instant::now();
        let refused = create(name, "k int64").await?.status(2)?;
        assert!(refused.stderr.len() < 2_000, "{}", refused.stderr);
        assert!(begun.elapsed() < Duration::from_secs(30), "{name}");
    }
    let zone = "k int64, at timestamp(us, ../../etc/passwd)";
    create("t", zone).await?.status(2)?.expect_stderr(&["unknown time zone"])?;
    let list = cluster.run(&["table", "list", "--output", "json"]).await?.ok()?.json()?;
    assert_eq!(list, Value::Array(Vec::new()));
    create("t", "k int64, at timestamp(us, Europe/Berlin)").await?.ok()?;
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jsonl_hook_without_a_hook_directory_is_refused() -> Result<()> {
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).prepare().await?;
    cluster.data[0].spec.env.retain(|(name, _)| name != "TIDEWATER_HOOK_DIR");
    cluster.start_all().await?;
    cluster.wait_until_healthy().await?;
    let config = format!(r#"{{"path":"{}"}}"#, cluster.hook_directory().join("a").display());
    let add = ["hook", "add", "a", "--kind", "jsonl", "--config", &config];
    cluster.run(&add).await?.status(2)?.expect_stderr(&["--hook-dir"])?;
    let hooks = cluster.run(&["hook", "list", "--output", "json"]).await?.ok()?.json()?;
    assert_eq!(hooks, Value::Array(Vec::new()));
    // A directory that contains files of the node is no hook directory.
    cluster.data[0].terminate().await?;
    let data_dir = cluster.data[0].spec.data_dir.clone().unwrap();
    for overlapping in [data_dir.as_path(), cluster.directory()] {
        let args = cluster.data[0].spec.args.clone();
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        let overlapping = overlapping.display().to_string();
        args.extend(["--hook-dir", &overlapping]);
        cluster.run_bare(&args).await?.status(2)?.expect_stderr(&["overlaps with"])?;
    }
    cluster.data[0].start().await?;
    cluster.finish().await
}

/// Writes Parquet files into the current directory: rows whose name is one value of a dictionary, cells of
/// 60 and 100 MB, and a page that is too large.
const EXPANDING: &str = r#"
import pyarrow as pa, pyarrow.parquet as pq
def write(name, keys, value):
    names = pa.DictionaryArray.from_arrays(pa.array(keys, pa.int32()), pa.array(["small", value]))
    table = pa.table({"k": pa.array(range(len(keys)), pa.int64()), "v": names})
    pq.write_table(table, name, compression="zstd", dictionary_pagesize_limit=1 << 30)
write("good.parquet", [0] * 50000 + [1] * 40, "v" * (1 << 20))
write("wide.parquet", [0] * 50000 + [1] * 200000, "v" * (20 << 20))
write("cells.parquet", [0, 1, 1, 1, 1, 1, 1, 1, 1], "v" * (100 << 20))
write("page.parquet", [1], "v" * (200 << 20))
plain = pa.table({"k": pa.array(range(12), pa.int64()), "v": ["v" * (60 << 20)] * 12})
pq.write_table(plain, "plain.parquet", compression="zstd", use_dictionary=False, write_statistics=False)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_of_expanding_parquet_stays_within_memory() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let create = ["table", "create", "t", "--columns", "k int64, v utf8", "--primary-key", "k"];
    cluster.run(&create).await?.ok()?;
    let directory = cluster.directory().to_owned();
    let written = tokio::process::Command::new(python()?)
        .args(["-c", EXPANDING])
        .current_dir(&directory)
        .output()
        .await
        .map_err(HarnessError::io("write Parquet files"))?;
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    let load = async |args: &[&str], name: &str| {
        let file = directory.join(name).display().to_string();
        assert!(std::fs::metadata(&file).unwrap().len() < 2 << 20, "{name} is large");
        let binary = binary::tidewater()?.display().to_string();
        let args = [&["--data=1000000000", &binary, "load", "t", &file], args].concat();
        let env = [("TIDEWATER_META".to_owned(), cluster.meta_addresses().join(","))];
        command::run(Path::new("prlimit"), &args, &env).await
    };
    for (name, words) in [
        ("wide.parquet", ["row 50001", "nothing was written"]),
        ("cells.parquet", ["row 2", "nothing was written"]),
        ("plain.parquet", ["column `v`", "limit of 134217728"]),
        ("page.parquet", ["column `v`", "limit of 134217728"]),
    ] {
        let refused = load(&[], name).await?.status(1)?.expect_stderr(&words)?;
        println!("{name}: {}", refused.stderr.trim());
        assert_eq!(cluster.count("t").await?, 0, "{name}");
    }
    load(&[], "good.parquet").await?.ok()?;
    assert_eq!(cluster.count("t").await?, 50_040);
    cluster.finish().await
}
