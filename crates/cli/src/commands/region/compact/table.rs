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
        let number = format!("[{}/{}] ", self.done(), self.regions);
        line.map(|line| number.clone() + &line).map_err(|line| number + &line)
    }

    /// Number of regions with a result.
    fn done(&self) -> usize {
        self.compacted.len() + self.failed.len()
    }

    /// Adds the result for a region, and prints its line.
    fn show(
        &mut self,
        region: RegionId,
        result: Result<Compacted, Failure>,
        output: Output,
    ) -> Result<(), Failure> {
        match (self.add(region.get(), result), output) {
            (Ok(shown), Output::Table) => line(&shown)?,
            // stdout is for the JSON.
            (Ok(shown), Output::Json) => eprintln!("{shown}"),
            (Err(shown), _) => eprintln!("error: {shown}"),
        }
        Ok(())
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
    // Regions that their groups do not have: replaced, unless the catalog still has them.
    let mut gone: Vec<(RegionId, ClientError)> = Vec::new();
    let started = Instant::now();
    for _ in 0..MAX_REPLACED {
        let current: BTreeSet<RegionId> =
            client.table_region_ids(table).await?.into_iter().collect();
        gone.retain(|(region, _)| current.contains(region));
        let regions: Vec<RegionId> = current.difference(&known).copied().collect();
        if regions.is_empty() {
            break;
        }
        known.extend(&regions);
        results.regions = results.done() + regions.len() + gone.len();
        gone.extend(compact_all(client, options, regions, &mut results).await?);
        if gone.is_empty() {
            break;
        }
    }
    results.regions = results.done() + gone.len();
    for (region, error) in gone {
        results.show(region, Err(error.into()), options.client.output)?;
    }
    results.seconds = started.elapsed().as_secs_f64();
    match options.client.output {
        Output::Table => line(&results.text())?,
        Output::Json => line(&json(&results)?)?,
    }
    results.outcome()
}

/// Compacts regions, a few at a time. Returns those that their groups do not have.
async fn compact_all(
    client: &Client,
    options: &Options,
    regions: Vec<RegionId>,
    results: &mut TableCompacted,
) -> Result<Vec<(RegionId, ClientError)>, Failure> {
    let mut gone = Vec::new();
    let mut compactions = stream::iter(regions)
        .map(|region| async move {
            let started = Instant::now();
            let report = client.compact_region(region, options.due, place(options), |_| {}).await;
            (region, report, started.elapsed().as_secs_f64())
        })
        .buffer_unordered(usize::try_from(options.concurrency).unwrap_or(1));
    while let Some((region, report, seconds)) = compactions.next().await {
        let compacted = match report {
            Err(error) if error.is_gone() => {
                gone.push((region, error));
                continue;
            }
            report => report.map(|report| Compacted::new(region.get(), report, seconds)),
        };
        results.show(region, compacted.map_err(Failure::from), options.client.output)?;
    }
    Ok(gone)
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
