//! Memory of scans: many overlapping files, and readers that do not read.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::try_join_all;
use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::direct::{NodeClient, expect_refusal};
use tidewater_cluster_tests::metrics::Metrics;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_proto::v1::Reason;

use crate::support::{expect_within_memory, setting};

const MIB: u64 = 1 << 20;
const LIMIT_MIB: u64 = 1_024;
/// Memory that scans may take above that of an idle node.
const ABOVE_IDLE_MIB: u64 = 250;
/// Bytes of a large row.
const LARGE_ROW: usize = 14_000_000;
/// Columns of values that are not part of the key.
const VALUES: usize = 10;

/// Creates a table of devices and times, and fills up to 744 hourly windows that all span the same
/// devices, with up to 60,000 rows each. Each window is flushed.
async fn fill_windows(cluster: &Cluster, windows: u64, rows: u64) -> Result<()> {
    let values: Vec<String> = (0..VALUES).map(|number| format!("v{number} float64")).collect();
    let columns = format!("device int64, at timestamp(ms), {}", values.join(", "));
    let create = ["table", "create", "t", "--columns", &columns, "--primary-key", "device,at"];
    cluster.run(&[&create[..], &["--time-column", "at", "--append-only"]].concat()).await?.ok()?;
    let names: Vec<String> = (0..VALUES).map(|number| format!("v{number}")).collect();
    let path = cluster.directory().join("window.csv");
    for window in 0..windows {
        let mut text = format!("device,at,{}\n", names.join(","));
        for row in 0..rows {
            let (day, hour) = (1 + window / 24, window % 24);
            let (second, millisecond) = (row / 1_000, row % 1_000);
            let time = format!("2024-01-{day:02}T{hour:02}:00:{second:02}.{millisecond:03}Z");
            let _ = write!(text, "{},{time}", row % 1_000);
            for value in 0..VALUES as u64 {
                let noise = (row * 7_919 + window * 104_729 + value * 1_299_709) % 1_000_003;
                let _ = write!(text, ",{}.{noise}", noise % 97);
            }
            text.push('\n');
        }
        std::fs::write(&path, text).map_err(HarnessError::io("write a window"))?;
        cluster.run(&["load", "t", &path.to_string_lossy(), "--unchecked"]).await?.ok()?;
        cluster.flush("t").await?.ok()?;
    }
    Ok(())
}

/// Runs `work` and returns the greatest resident memory of the data node during it, in bytes.
async fn peak_during<T>(
    cluster: &Cluster,
    work: impl Future<Output = Result<T>>,
) -> Result<(u64, T)> {
    let done = Arc::new(AtomicBool::new(false));
    let sampled = async {
        let mut peak = 0;
        while !done.load(Ordering::Relaxed) {
            peak = peak.max(cluster.data[0].memory()?.now);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok::<u64, HarnessError>(peak)
    };
    let work = async {
        let result = work.await;
        done.store(true, Ordering::Relaxed);
        result
    };
    let (peak, result) = tokio::join!(sampled, work);
    Ok((peak?, result?))
}

fn expect_growth(what: &str, idle: u64, peak: u64) -> Result<()> {
    let growth = peak.saturating_sub(idle) / MIB;
    println!("{what}: {growth} MiB above {} MiB", idle / MIB);
    if growth > ABOVE_IDLE_MIB {
        return Err(HarnessError::violated(format!(
            "{what}: {growth} MiB above the idle node (maximum {ABOVE_IDLE_MIB})"
        )));
    }
    Ok(())
}

// `TIDEWATER_SCAN_WINDOWS=200 TIDEWATER_SCAN_WINDOW_ROWS=40000` is the size that took 858 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_of_many_windows_take_little_memory() -> Result<()> {
    let windows = setting("TIDEWATER_SCAN_WINDOWS", 24);
    let rows = setting("TIDEWATER_SCAN_WINDOW_ROWS", 2_000);
    let mut cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    fill_windows(&cluster, windows, rows).await?;
    // Memory of an idle node: without that of the ingest.
    cluster.data[0].terminate().await?;
    cluster.data[0].start().await?;
    cluster.wait_until_healthy().await?;
    assert_eq!(cluster.count_where("t", Some("device = 3")).await?, windows * rows.div_ceil(1_000));
    let idle = cluster.data[0].memory()?.now;

    let counts = try_join_all((0..4).map(|_| cluster.count("t")));
    let (peak, counts) = peak_during(&cluster, counts).await?;
    assert_eq!(counts, vec![windows * rows; 4]);
    expect_growth("four counts", idle, peak)?;

    let filtered = try_join_all((0..4).map(|_| cluster.count_where("t", Some("v0 >= 0"))));
    let (peak, filtered) = peak_during(&cluster, filtered).await?;
    assert_eq!(filtered, vec![windows * rows; 4]);
    expect_growth("four counts of a filter", idle, peak)?;

    let path = cluster.directory().join("rows.csv");
    let path = path.to_string_lossy();
    let scan = ["scan", "t", "--columns", "device,at,v0,v9", "--format", "csv", "--out", &path];
    let scanned = async { cluster.run(&[&scan[..], &["--timeout", "600s"]].concat()).await?.ok() };
    let (peak, _) = peak_during(&cluster, scanned).await?;
    let text = std::fs::read_to_string(&*path).map_err(HarnessError::io("read rows"))?;
    assert_eq!(text.lines().count() as u64, windows * rows + 1);
    expect_growth("a scan in key order", idle, peak)?;
    cluster.finish().await
}

/// Creates table `t` with rows of `bytes` and these keys.
async fn load_large_rows(
    cluster: &Cluster,
    keys: u64,
    regions: u64,
    bytes: usize,
) -> Result<String> {
    let columns = ["--columns", "k int64, v utf8", "--primary-key", "k"];
    let regions = regions.to_string();
    let spread = ["--distribute", "hash(k)", "--regions", &regions];
    cluster.run(&[&["table", "create", "t"], &columns[..], &spread].concat()).await?.ok()?;
    let path = cluster.directory().join("rows.csv");
    let large = "x".repeat(bytes);
    let rows: String = (0..keys).map(|key| format!("{key},{large}\n")).collect();
    std::fs::write(&path, format!("k,v\n{rows}")).map_err(HarnessError::io("write rows"))?;
    let load = ["load", "t", &path.to_string_lossy(), "--batch-rows", "1", "--in-flight", "1"];
    cluster.run(&load).await?.ok()?;
    Ok(large)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_with_too_many_arguments_is_refused() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let columns = ["--columns", "k int64, v utf8", "--primary-key", "k"];
    cluster.run(&[&["table", "create", "t"], &columns[..]].concat()).await?.ok()?;
    let client = NodeClient::new(cluster.data[0].spec.listen, Duration::from_secs(60))?;
    let table = cluster.region("t").await?;
    for (columns, part) in [(vec![1, 2, 1], "named twice"), (vec![1; 100_000], "1024 columns")] {
        let refused = client.open_scan(table, columns).await.map(drop);
        let refusal = expect_refusal(refused)?;
        assert_eq!(refusal.reason, Reason::InvalidArgument);
        assert!(refusal.message.contains(part), "{refusal}");
    }
    // Refused before it is decoded.
    let huge = client.open_scan(table, vec![1; 5 << 20]).await.map(drop).unwrap_err();
    assert_eq!(huge.code(), tonic::Code::OutOfRange, "{huge}");
    cluster.finish().await
}

// The next region is read ahead on the same connection, which has memory for one row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scan_reads_large_rows_of_several_regions() -> Result<()> {
    let plan = ClusterPlan::default().nodes(1, 1, 0).memory_limit(&format!("{LIMIT_MIB}MiB"));
    let cluster = plan.start().await?;
    load_large_rows(&cluster, 8, 2, LARGE_ROW).await?;
    let path = cluster.directory().join("scanned.csv");
    let scan = ["scan", "t", "--columns", "k,v", "--format", "csv", "--timeout", "120s", "--out"];
    cluster.run(&[&scan[..], &[&path.to_string_lossy()]].concat()).await?.ok()?;
    let size = std::fs::metadata(&path).map_err(HarnessError::io("look at rows"))?.len();
    assert!(size > 8 * 14_000_000, "{size} bytes");
    expect_within_memory(&cluster, LIMIT_MIB)?;
    cluster.finish().await
}

// Each scan has one message: it is read to its end, and its reader takes none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connection_cannot_open_all_scans() -> Result<()> {
    // Memory for the messages of all scans of a connection: none ends for lack of it.
    let plan = ClusterPlan::default().nodes(1, 1, 0).env("TIDEWATER_SCAN_MEMORY", "768MiB");
    let cluster = plan.start().await?;
    load_large_rows(&cluster, 1, 1, 1_000_000).await?;
    let client = NodeClient::new(cluster.data[0].spec.listen, Duration::from_secs(60))?;
    let table = cluster.region("t").await?;
    let mut unread = Vec::new();
    let refused = loop {
        match client.open_scan(table, vec![1, 2]).await {
            Ok(stream) => unread.push(stream),
            Err(status) => break expect_refusal::<()>(Err(status))?,
        }
        // The first ones end: they fit into the window of the connection.
        assert!(unread.len() < 256, "no scan was refused");
    };
    println!("{} scans were opened", unread.len());
    assert_eq!(refused.reason, Reason::Overloaded, "{refused}");
    assert!(refused.message.contains("128 scans are open on this connection"), "{refused}");
    drop(unread);
    wait::until("the scans end with their streams", Duration::from_secs(30), || async {
        client.open_scan(table, vec![1, 2]).await.map(drop).map_err(|status| status.to_string())
    })
    .await?;
    cluster.finish().await
}

// `TIDEWATER_UNREAD_SCANS=256` is the number that took 5.6 GB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scans_that_nothing_reads_leave_memory_to_others() -> Result<()> {
    let scans: usize = setting("TIDEWATER_UNREAD_SCANS", 64);
    let plan = ClusterPlan::default().nodes(1, 1, 0).memory_limit(&format!("{LIMIT_MIB}MiB"));
    let cluster = plan.start().await?;
    let large = load_large_rows(&cluster, 4, 1, LARGE_ROW).await?;

    let address = cluster.data[0].spec.listen;
    let client = NodeClient::new(address, Duration::from_secs(60))?;
    let table = cluster.region("t").await?;
    let mut unread = Vec::new();
    let mut refused = 0;
    for number in 0..scans {
        // The other scans read files, whose rows are decoded.
        if number == scans / 2 {
            cluster.flush("t").await?.ok()?;
        }
        match client.open_scan(table, vec![1, 2]).await {
            Ok(stream) => unread.push(stream),
            Err(status) => {
                refused += 1;
                let refusal = expect_refusal::<()>(Err(status))?;
                assert_eq!(refusal.reason, Reason::Overloaded, "{refusal}");
                assert!(refusal.retry_after.is_some());
            }
        }
    }
    println!("{} scans are open, {refused} were refused", unread.len());
    assert!(!unread.is_empty());
    for _ in 0..5 {
        assert_eq!(cluster.count("t").await?, 4);
        let rows = ["scan", "t", "--limit", "1", "--format", "csv", "--timeout", "30s"];
        assert!(cluster.run(&rows).await?.ok()?.stdout.len() > large.len());
        expect_within_memory(&cluster, LIMIT_MIB)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // The streams are open, and nothing reads them.
    wait::until("stalled scans end", Duration::from_secs(150), || async {
        let metrics = Metrics::fetch(address).await.map_err(|error| error.to_string())?;
        let held = metrics.sum("tidewater_scan_memory_bytes");
        let stalled = metrics.sum("tidewater_scans_stalled_total");
        if held == 0 && stalled > 0 {
            Ok(())
        } else {
            Err(format!("{held} bytes are held, {stalled} scans were stalled"))
        }
    })
    .await?;
    let mut reasons = Vec::new();
    for mut stream in unread {
        let end = loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(status) => break Some(status),
            }
        };
        let refusal = expect_refusal::<()>(end.map_or(Ok(()), Err))?;
        reasons.push(refusal.reason);
    }
    let typed = |reason: &Reason| matches!(reason, Reason::DeadlineExceeded | Reason::Overloaded);
    assert!(reasons.iter().all(typed), "{reasons:?}");
    assert!(reasons.contains(&Reason::DeadlineExceeded), "{reasons:?}");
    expect_within_memory(&cluster, LIMIT_MIB)?;
    cluster.finish().await
}
