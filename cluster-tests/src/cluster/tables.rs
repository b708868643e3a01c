//! The table that the writers of scenarios fill, and its verification.

use super::Cluster;
use crate::command::CommandOutput;
use crate::oracle::{Attempt, RowName, Verdict};
use crate::{HarnessError, Result};

/// Name of the table. It is append-only, so that a write that takes effect twice is visible.
pub const LOG_TABLE: &str = "written";

impl Cluster {
    /// Creates [`LOG_TABLE`] with one region.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn create_log_table(&self) -> Result<()> {
        self.create_log_table_with_regions(1).await
    }

    /// Creates [`LOG_TABLE`] with `regions` regions, over which rows are distributed.
    ///
    /// # Errors
    /// If the command fails.
    pub async fn create_log_table_with_regions(&self, regions: u32) -> Result<()> {
        let count = regions.to_string();
        let mut args = vec![
            "table",
            "create",
            LOG_TABLE,
            "--columns",
            "writer int64, serial int64, note utf8",
            "--primary-key",
            "writer,serial",
            "--append-only",
            "--regions",
            &count,
        ];
        if regions > 1 {
            args.extend(["--distribute", "hash(writer,serial)"]);
        }
        self.run(&args).await?.ok()?;
        Ok(())
    }

    /// Flushes the first region of a table.
    ///
    /// # Errors
    /// If the command cannot be run. A flush that fails returns its output.
    pub async fn flush(&self, table: &str) -> Result<CommandOutput> {
        let region = self.region(table).await?.region_id.to_string();
        self.run(&["region", "flush", &region]).await
    }

    /// Returns every row of [`LOG_TABLE`].
    ///
    /// # Errors
    /// If the scan fails or returns malformed rows.
    pub async fn written_rows(&self) -> Result<Vec<RowName>> {
        let output = self
            .run(&["scan", LOG_TABLE, "--columns", "writer,serial", "--format", "csv"])
            .await?
            .ok()?;
        output.stdout.lines().skip(1).map(row_name).collect()
    }

    /// Compares the outcomes of all writes with a scan, which must agree with a count.
    ///
    /// # Errors
    /// [`HarnessError::Violated`] with the findings of the oracle.
    pub async fn verify(&self, attempts: &[Attempt]) -> Result<Verdict> {
        self.verdict(attempts).await?.ok()
    }

    /// Makes the same comparison and returns its verdict, clean or not.
    ///
    /// # Errors
    /// If the scan fails, or a count contradicts it.
    pub async fn verdict(&self, attempts: &[Attempt]) -> Result<Verdict> {
        let rows = self.written_rows().await?;
        let counted = self.count(LOG_TABLE).await?;
        if counted != rows.len() as u64 {
            return Err(HarnessError::violated(format!(
                "a scan returns {} rows, a count {counted}",
                rows.len()
            )));
        }
        Ok(Verdict::new(attempts, rows))
    }

    /// Returns the result of `scan --count`.
    ///
    /// # Errors
    /// If the command fails or does not print a number.
    pub async fn count(&self, table: &str) -> Result<u64> {
        self.count_where(table, None).await
    }

    /// Returns the result of `scan --count --where`.
    ///
    /// # Errors
    /// If the command fails or does not print a number.
    pub async fn count_where(&self, table: &str, condition: Option<&str>) -> Result<u64> {
        let mut args = vec!["scan", table, "--count", "--output", "json"];
        args.extend(condition.iter().flat_map(|text| ["--where", text]));
        let output = self.run(&args).await?.ok()?;
        output.json()?["rows"].as_u64().ok_or_else(|| {
            HarnessError::violated(format!("scan --count printed {}", output.stdout))
        })
    }
}

fn row_name(line: &str) -> Result<RowName> {
    line.split_once(',')
        .and_then(|(writer, serial)| Some((writer.parse().ok()?, serial.parse().ok()?)))
        .ok_or_else(|| HarnessError::violated(format!("unexpected line in the scan: {line:?}")))
}
