//! Compaction of all regions of a table: a few at a time, each with its own result.

use std::collections::BTreeSet;
use std::time::Instant;

use futures::stream::{self, StreamExt};
use serde::Serialize;
use tidewater_client::admin::MAX_REPLACED;
use tidewater_client::{Client, ClientError};
use tidewater_common::ids::RegionId;

use super::{Compacted, Options, place};
use crate::exit::{Exit, Failure};
use crate::output::{Output, json, line};

/// Results for all regions of a table. The JSON field names are stable.
#[derive(Debug, Default, Serialize)]
struct TableCompacted {
    table: String,
    regions: usize,
    /// In the order in which they completed.
    compacted: Vec<Compacted>,
    failed: Vec<FailedRegion>,
    seconds: f64,
}

/// A region that was not compacted.
#[derive(Debug, Serialize)]
struct FailedRegion {
    region_id: u64,
    error: String,
    #[serde(skip)]
    exit: Exit,
}

impl TableCompacted {
    /// Adds the result for a region; returns its line for people.
    fn add(
        &mut self,
        region_id: u64,
        result: Result<Compacted, Failure>,
    ) -> Result<String, String> {
        let line = match result {
            Ok(compacted) => {
                let line = compacted.text();
                self.compacted.push(compacted);
                Ok(line)
            }
            Err(failure) => {
                let line = format!("region {region_id}: {failure}");
                self.failed.push(FailedRegion {
                    region_id,
                    error: failure.message,
                    exit: failure.exit,
                });
                Err(line)
            }
        };
        let number = format!("[{}/{}] ", self.compacted.len() + self.failed.len(), self.regions);
        line.map(|line| number.clone() + &line).map_err(|line| number + &line)
    }

    fn text(&self) -> String {
        let idle = self.compacted.iter().filter(|region| region.job_id.is_none()).count();
        let mut parts = vec![format!("{} compacted", self.compacted.len() - idle)];
        if idle > 0 {
            parts.push(format!("{idle} with nothing to compact"));
        }
        if !self.failed.is_empty() {
            parts.push(format!("{} failed", self.failed.len()));
        }
        let regions = if self.regions == 1 { "region" } else { "regions" };
        format!(
            "table {}: {} {regions}: {}, in {:.1} s",
            self.table,
            self.regions,
            parts.join(", "),
            self.seconds
        )
    }

    /// Returns the error of the command: its exit status is that of the failed regions if they agree.
    fn outcome(&self) -> Result<(), Failure> {
        let Some(first) = self.failed.first() else { return Ok(()) };
        let exit = if self.failed.iter().all(|failed| failed.exit == first.exit) {
            first.exit
        } else {
            Exit::Other
        };
        let ids: Vec<String> =
            self.failed.iter().map(|failed| failed.region_id.to_string()).collect();
        Err(Failure::new(
            exit,
            format!(
                "{} of {} regions of table {} were not compacted: {}\n  the errors are above; the \
                 other regions need no retry",
                self.failed.len(),
                self.regions,
                self.table,
                ids.join(", ")
            ),
        ))
    }
}

/// Compacts all regions of a table. A region that fails does not stop the others. One that is replaced before its
/// turn is left out for those that replace it.
pub(super) async fn run(client: &Client, options: &Options, table: &str) -> Result<(), Failure> {
    let mut results = TableCompacted { table: table.to_owned(), ..TableCompacted::default() };
    let mut known = BTreeSet::new();
    let started = Instant::now();
    for round in 1..=MAX_REPLACED {
        let regions = client.table_region_ids_besides(table, &known).await?;
        known.extend(&regions);
        results.regions += regions.len();
        if !compact_all(client, options, regions, round < MAX_REPLACED, &mut results).await? {
            break;
        }
    }
    results.seconds = started.elapsed().as_secs_f64();
    match options.client.output {
        Output::Table => line(&results.text())?,
        Output::Json => line(&json(&results)?)?,
    }
    results.outcome()
}

/// Compacts regions, a few at a time. Returns whether one of them was replaced before its turn, which then counts no
/// more if `leave_out` is set.
async fn compact_all(
    client: &Client,
    options: &Options,
    regions: Vec<RegionId>,
    leave_out: bool,
    results: &mut TableCompacted,
) -> Result<bool, Failure> {
    let mut is_replaced = false;
    let mut compactions = stream::iter(regions)
        .map(|region| async move {
            let started = Instant::now();
            let report = client.compact_region(region, options.due, place(options), |_| {}).await;
            (region, report, started.elapsed().as_secs_f64())
        })
        .buffer_unordered(usize::try_from(options.concurrency).unwrap_or(1));
    while let Some((region, report, seconds)) = compactions.next().await {
        if leave_out && report.as_ref().is_err_and(ClientError::is_gone) {
            is_replaced = true;
            results.regions -= 1;
            continue;
        }
        let compacted = report.map(|report| Compacted::new(region.get(), report, seconds));
        match (results.add(region.get(), compacted.map_err(Failure::from)), options.client.output) {
            (Ok(shown), Output::Table) => line(&shown)?,
            // stdout is for the JSON.
            (Ok(shown), Output::Json) => eprintln!("{shown}"),
            (Err(shown), _) => eprintln!("error: {shown}"),
        }
    }
    Ok(is_replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compacted(region: u64, job: bool) -> Result<Compacted, Failure> {
        let job_id = job.then(|| "j".to_owned());
        Ok(Compacted { region_id: region, job_id, ..Compacted::default() })
    }

    fn failed(exit: Exit) -> Result<Compacted, Failure> {
        Err(Failure::new(exit, "no compactor"))
    }

    fn results(of_regions: Vec<Result<Compacted, Failure>>) -> (TableCompacted, Vec<String>) {
        let mut results = TableCompacted {
            table: "t".to_owned(),
            regions: of_regions.len(),
            ..TableCompacted::default()
        };
        let add = |(id, result)| results.add(id, result).unwrap_or_else(|line| line);
        let lines = (1..).zip(of_regions).map(add).collect();
        (results, lines)
    }

    #[test]
    fn every_region_has_a_line_and_a_result() {
        let (mut results, lines) =
            results(vec![compacted(1, false), failed(Exit::Unavailable), compacted(3, true)]);
        assert_eq!(lines[0], "[1/3] region 1: nothing to compact");
        assert_eq!(lines[1], "[2/3] region 2: no compactor");
        assert!(lines[2].starts_with("[3/3] region 3: compacted 0 rows"), "{lines:?}");
        assert_eq!(
            results.text(),
            "table t: 3 regions: 1 compacted, 1 with nothing to compact, 1 failed, in 0.0 s"
        );
        results.compacted.clear();
        assert_eq!(
            serde_json::to_string(&results).unwrap(),
            r#"{"table":"t","regions":3,"compacted":[],"failed":[{"region_id":2,"error":"no compactor"}],"seconds":0.0}"#
        );
    }

    #[test]
    fn exit_status_is_that_of_the_failed_regions() {
        let exit = |of_regions| results(of_regions).0.outcome().err().map(|failure| failure.exit);
        assert_eq!(exit(vec![]), None);
        assert_eq!(exit(vec![compacted(1, true), compacted(2, false)]), None);
        let unavailable = || failed(Exit::Unavailable);
        assert_eq!(exit(vec![unavailable(), compacted(2, true)]), Some(Exit::Unavailable));
        assert_eq!(exit(vec![unavailable(), unavailable()]), Some(Exit::Unavailable));
        assert_eq!(exit(vec![unavailable(), failed(Exit::Conflict)]), Some(Exit::Other));
    }
}
