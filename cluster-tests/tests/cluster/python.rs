//! The Python client of `python/` against a cluster of real processes.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result, binary};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use crate::flights::{create_flights, flights_file};
use crate::support::wait_for_level;

/// Limit for each line that a script prints.
const LINE_LIMIT: Duration = Duration::from_secs(120);

fn script(args: &[&str]) -> Result<Command> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/tests");
    let mut command = Command::new(python()?);
    command.args(args).current_dir(tests).kill_on_drop(true);
    Ok(command)
}

/// Returns the next line of a script, which is a word and a number.
async fn next_line(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<(String, u64)> {
    let line = tokio::time::timeout(LINE_LIMIT, lines.next_line())
        .await
        .map_err(|_| HarnessError::violated("the script printed nothing in time"))?
        .map_err(HarnessError::io("read the script's output"))?
        .ok_or_else(|| HarnessError::violated("the script ended early"))?;
    let parsed = line.split_once(' ').and_then(|(word, number)| Some((word, number.parse().ok()?)));
    match parsed {
        Some((word, number)) => Ok((word.to_owned(), number)),
        None => Err(HarnessError::violated(format!("unexpected line {line:?}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_behaves_as_documented() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let columns = ["--columns", "k int64 not null, v utf8"];
    let create =
        |name| [&["table", "create", name][..], &columns, &["--primary-key", "k"]].concat();
    cluster.run(&create("pairs")).await?.ok()?;
    let spread = [&create("spread")[..], &["--distribute", "hash(k)", "--regions", "4"]].concat();
    cluster.run(&spread).await?.ok()?;
    let log = ["table", "create", "log", "--columns", "n int64 not null", "--primary-key", "n"];
    cluster.run(&[&log[..], &["--append-only"]].concat()).await?.ok()?;
    wait_for_level(&cluster).await?;
    let source = cluster.source_directory().join("mirror");
    std::fs::create_dir_all(&source).map_err(HarnessError::io("create a directory"))?;
    let config = format!(r#"{{"url": "file://{}"}}"#, source.display());
    let mirror = [&["refresh", "create", "mirror"][..], &columns, &["--primary-key", "k"]].concat();
    let spread = ["--distribute", "hash(k)", "--regions", "2"];
    let mirrored = ["--source", "csv", "--config", &config];
    cluster.run(&[&mirror[..], &spread, &mirrored].concat()).await?.ok()?;
    let pytest = ["-m", "pytest", "-q", "-p", "no:cacheprovider"];
    let files = [
        "test_keys.py",
        "test_catalog.py",
        "test_leases.py",
        "test_reads.py",
        "test_storage.py",
        "test_cluster.py",
        "test_holds.py",
    ];
    let output = script(&[&pytest[..], &files].concat())?
        .env("TIDEWATER_META", cluster.meta_addresses().join(","))
        .env("TIDEWATER_BIN", binary::tidewater()?)
        .env("TIDEWATER_SOURCE", &source)
        .output()
        .await
        .map_err(HarnessError::io("run pytest"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() || text.contains("skipped") {
        return Err(HarnessError::violated(format!("pytest: {text}")));
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_client_loses_nothing_when_a_leader_dies() -> Result<()> {
    let mut cluster = Cluster::start().await?;
    create_flights(&cluster).await?;
    let meta = cluster.meta_addresses().join(",");
    let file = flights_file()?.display().to_string();
    let mut child = script(&["flights.py", &meta, &file])?
        .stdout(Stdio::piped())
        .spawn()
        .map_err(HarnessError::io("run flights.py"))?;
    let stdout = child.stdout.take().ok_or_else(|| HarnessError::violated("no stdout"))?;
    let mut lines = BufReader::new(stdout).lines();
    next_line(&mut lines).await?;
    let leader = cluster.owner("flights").await?;
    cluster.data[leader].kill().await?;
    next_line(&mut lines).await?;
    cluster.data[leader].start().await?;
    // The script compares all rows with the file before its last line.
    let rows = loop {
        if let (word, rows) = next_line(&mut lines).await?
            && word == "equal"
        {
            break rows;
        }
    };
    let counted = cluster.count("flights").await?;
    if rows != counted {
        return Err(HarnessError::violated(format!("{rows} rows read, {counted} counted")));
    }
    cluster.finish().await
}
