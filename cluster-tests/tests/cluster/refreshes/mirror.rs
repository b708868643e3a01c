//! A refreshable table of a CSV source, and the rows that it must have after the next refresh.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};

/// Name of the table.
pub(crate) const TABLE: &str = "mirror";

/// Rows by id.
pub(crate) type Rows = BTreeMap<i64, String>;

pub(crate) struct Mirror {
    /// Rows of the source, once they are written.
    pub(crate) rows: Rows,
    directory: PathBuf,
}

/// Returns the rows that a scan prints.
pub(crate) async fn rows_of(cluster: &Cluster, scan: &[&str]) -> Result<Rows> {
    let output = cluster.run(&[scan, &["--output", "json"]].concat()).await?.ok()?;
    let row = |line: Value| {
        let name = line["name"].as_str().unwrap_or_default().to_owned();
        Some((line["id"].as_i64()?, name))
    };
    Ok(output.json_lines()?.into_iter().filter_map(row).collect())
}

impl Mirror {
    /// Creates the table with this number of regions, and an empty source.
    pub(crate) async fn create(cluster: &Cluster, regions: u32) -> Result<Self> {
        let directory = cluster.source_directory().join(TABLE);
        fs::create_dir_all(&directory).map_err(HarnessError::io("create a directory"))?;
        let config = format!(r#"{{"url": "file://{}"}}"#, directory.display());
        let regions = regions.to_string();
        let create = [
            "refresh",
            "create",
            TABLE,
            "--columns",
            "id int64, name utf8",
            "--primary-key",
            "id",
            "--distribute",
            "hash(id)",
            "--regions",
            &regions,
            "--source",
            "csv",
            "--config",
            &config,
        ];
        cluster.run(&create).await?.ok()?;
        Ok(Self { rows: Rows::new(), directory })
    }

    /// Writes the rows to this number of objects.
    pub(crate) fn write(&self, objects: usize) -> Result<()> {
        let mut texts = vec!["id,name\n".to_owned(); objects];
        for (position, (id, name)) in self.rows.iter().enumerate() {
            // Writing to a String cannot fail.
            let _ = writeln!(texts[position % objects], "{id},{name}");
        }
        self.replace(&texts)
    }

    /// Writes one object with this content.
    pub(crate) fn write_text(&self, text: &str) -> Result<()> {
        self.replace(&[text.to_owned()])
    }

    /// Replaces the directory of the source: no listing sees some objects only.
    fn replace(&self, texts: &[String]) -> Result<()> {
        let io = || HarnessError::io("write a source");
        let new = self.directory.with_extension("new");
        let _ = fs::remove_dir_all(&new);
        fs::create_dir_all(&new).map_err(io())?;
        for (position, text) in texts.iter().enumerate() {
            fs::write(new.join(format!("{position}.csv")), text).map_err(io())?;
        }
        fs::remove_dir_all(&self.directory).map_err(io())?;
        fs::rename(&new, &self.directory).map_err(io())
    }

    /// Returns the rows of the table.
    pub(crate) async fn scan(&self, cluster: &Cluster) -> Result<Rows> {
        rows_of(cluster, &["scan", TABLE]).await
    }

    /// Refreshes the table, and compares the counts and the contents.
    pub(crate) async fn refresh(&self, cluster: &Cluster, counts: Value) -> Result<()> {
        let output = cluster.run(&["refresh", "start", TABLE, "--output", "json"]).await?.ok()?;
        let found = output.json()?;
        for (name, expected) in counts.as_object().into_iter().flatten() {
            if found[name] != *expected {
                let text = format!("{name}: {} instead of {expected} in {found}", found[name]);
                return Err(HarnessError::violated(text));
            }
        }
        self.check(cluster).await
    }

    /// Compares the contents of the table with those of the source.
    pub(crate) async fn check(&self, cluster: &Cluster) -> Result<()> {
        let found = self.scan(cluster).await?;
        if found == self.rows {
            return Ok(());
        }
        let missing = self.rows.iter().filter(|row| found.get(row.0) != Some(row.1)).count();
        let extra = found.keys().filter(|id| !self.rows.contains_key(id)).count();
        let text = format!("{missing} rows are missing or differ, {extra} are too many");
        Err(HarnessError::violated(text))
    }
}
