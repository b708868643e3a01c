//! The table that writers of scenarios fill, and what it holds in the end.

use super::Cluster;
use crate::command::Said;
use crate::oracle::{Attempt, RowName, Verdict};
use crate::{HarnessError, Result};

/// Append-only, so that a write that takes effect twice shows.
pub const LOG_TABLE: &str = "written";

impl Cluster {
    /// Creates [`LOG_TABLE`] with one region.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn create_log_table(&self) -> Result<()> {
        self.create_log_table_of(1).await
    }

    /// Creates [`LOG_TABLE`] with so many regions, among which writers are spread.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn create_log_table_of(&self, regions: u32) -> Result<()> {
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
    /// When it cannot be run; a flush that fails is not an error here.
    pub async fn flush(&self, table: &str) -> Result<Said> {
        let region = self.region(table).await?.region_id.to_string();
        self.run(&["region", "flush", &region]).await
    }

    /// Every row of [`LOG_TABLE`].
    ///
    /// # Errors
    /// When the scan fails or yields something else.
    pub async fn written_rows(&self) -> Result<Vec<RowName>> {
        let said = self
            .run(&["scan", LOG_TABLE, "--columns", "writer,serial", "--format", "csv"])
            .await?
            .ok()?;
        said.stdout.lines().skip(1).map(row_name).collect()
    }

    /// Compares all that writers were told with a scan, which must agree with a count.
    ///
    /// # Errors
    /// [`HarnessError::Violated`] with the oracle's findings.
    pub async fn verify(&self, attempts: &[Attempt]) -> Result<Verdict> {
        self.verdict(attempts).await?.ok()
    }

    /// The same comparison, whatever it finds.
    ///
    /// # Errors
    /// When there is nothing to compare with: the scan fails, or a count contradicts it.
    pub async fn verdict(&self, attempts: &[Attempt]) -> Result<Verdict> {
        let rows = self.written_rows().await?;
        let counted = self.count(LOG_TABLE).await?;
        if counted != rows.len() as u64 {
            return Err(HarnessError::violated(format!(
                "a scan shows {} rows, a count {counted}",
                rows.len()
            )));
        }
        Ok(Verdict::of(attempts, rows))
    }

    /// `scan --count`.
    ///
    /// # Errors
    /// When the command fails or does not say a number.
    pub async fn count(&self, table: &str) -> Result<u64> {
        self.count_where(table, None).await
    }

    /// `scan --count --where`.
    ///
    /// # Errors
    /// When the command fails or does not say a number.
    pub async fn count_where(&self, table: &str, condition: Option<&str>) -> Result<u64> {
        let mut args = vec!["scan", table, "--count", "--output", "json"];
        args.extend(condition.iter().flat_map(|text| ["--where", text]));
        let said = self.run(&args).await?.ok()?;
        said.json()?["rows"]
            .as_u64()
            .ok_or_else(|| HarnessError::violated(format!("scan --count said {}", said.stdout)))
    }
}

fn row_name(line: &str) -> Result<RowName> {
    line.split_once(',')
        .and_then(|(writer, serial)| Some((writer.parse().ok()?, serial.parse().ok()?)))
        .ok_or_else(|| HarnessError::violated(format!("the scan yields {line:?}")))
}
