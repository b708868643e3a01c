//! Smaller files of the real data: planes, with missing values in several columns, and airlines.

use std::path::Path;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result};

/// A data set and its expected figures.
struct Data {
    table: &'static str,
    columns: &'static str,
    key: &'static str,
    /// The complete file next to the project directory, or the sample in the project: path, number of
    /// rows, and number of rows that satisfy `missing`.
    files: [(&'static str, u64, u64); 2],
    missing: &'static str,
}

const PLANES: Data = Data {
    table: "planes",
    columns: "tailnum utf8, year int32, type utf8, manufacturer utf8, model utf8, engines int32, \
              seats int32, speed int32, engine utf8",
    key: "tailnum",
    files: [
        ("../shared/data/planes.csv", 3_322, 70),
        ("scripts/demo-data/planes-sample.csv", 186, 12),
    ],
    missing: "year is null",
};

const AIRLINES: Data = Data {
    table: "airlines",
    columns: "carrier utf8, name utf8 not null",
    key: "carrier",
    files: [("../shared/data/airlines.csv", 16, 0), ("scripts/demo-data/airlines.csv", 16, 0)],
    missing: "name is null",
};

/// Loads a data set and compares a scan with the file, line by line.
async fn round_trip(cluster: &Cluster, data: &Data) -> Result<()> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let found = data.files.iter().find(|(name, _, _)| project.join(name).is_file());
    let (name, rows, missing) =
        found.ok_or_else(|| HarnessError::violated(format!("no file for table {}", data.table)))?;
    println!("{}: read from {name}", data.table);
    let file = project.join(name).display().to_string();
    let table = data.table;
    let create = ["table", "create", table, "--columns", data.columns, "--primary-key", data.key];
    cluster.run(&create).await?.ok()?;
    let text = std::fs::read_to_string(&file).map_err(HarnessError::io(format!("read {file}")))?;
    for round in ["in memory", "in files", "loaded again"] {
        if round != "in files" {
            cluster.run(&["load", table, &file, "--null", "NA"]).await?.ok()?;
        } else {
            cluster.run(&["region", "flush", "--table", table]).await?.ok()?;
        }
        let found =
            (cluster.count(table).await?, cluster.count_where(table, Some(data.missing)).await?);
        if found != (*rows, *missing) {
            return Err(HarnessError::violated(format!(
                "{table}, {round}: {found:?}, expected {rows} rows and {missing} where {}",
                data.missing
            )));
        }
        let scanned = cluster.run(&["scan", table, "--format", "csv"]).await?.ok()?.stdout;
        if let Some((found, expected)) = first_difference(&scanned, &text) {
            return Err(HarnessError::violated(format!(
                "{table}, {round}: {found:?}, expected {expected:?}"
            )));
        }
    }
    let key = text.lines().nth(7).and_then(|line| line.split(',').next()).unwrap_or_default();
    cluster.run(&["get", table, key]).await?.ok()?;
    Ok(())
}

/// Returns the first difference of the lines, sorted by the key in the first column. Missing values are
/// empty.
fn first_difference(scanned: &str, file: &str) -> Option<(String, String)> {
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| {
                let cells = line.split(',').map(|cell| if cell == "NA" { "" } else { cell });
                cells.collect::<Vec<_>>().join(",")
            })
            .collect();
        lines.sort();
        lines
    };
    let found = sorted(scanned);
    let expected = sorted(file);
    if found.len() != expected.len() {
        return Some((format!("{} lines", found.len()), format!("{} lines", expected.len())));
    }
    found.into_iter().zip(expected).find(|(found, expected)| found != expected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn planes_and_airlines_survive_a_round_trip() -> Result<()> {
    let cluster = ClusterPlan::default().nodes(1, 3, 0).start().await?;
    round_trip(&cluster, &PLANES).await?;
    round_trip(&cluster, &AIRLINES).await?;
    cluster.wait_until_healthy().await?;
    cluster.finish().await
}
