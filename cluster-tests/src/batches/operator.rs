//! The operator of the table: one operation after the other, each followed by a check of all rows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_client::admin::{AlterTable, ColumnChange, NewColumn};
use tidewater_client::{Client, ClientError, ScanSpec, WriterOptions};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{ProcedureInfo, Reason};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::BATCH_TABLE;
use super::contents::Contents;
use super::rows::{added_value, batch_rows, names};
use crate::cluster::{Cluster, LOG_TABLE};
use crate::failures::is_expected;
use crate::workload::options;
use crate::{HarnessError, Result, wait};

/// Name of the clone.
const COPY_TABLE: &str = "batches-copy";
/// Batches from which the table is truncated.
const MAX_BATCHES: usize = 30;
/// Most rows of a batch.
const MAX_ROWS: i64 = 400;
/// Pause after each operation: a scenario needs operations of every kind, not as many as possible.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for which an operation is tried again because another one has locked its table or route.
const BUSY_FOR: Duration = Duration::from_secs(20);
/// Time for the cluster to end the procedures of an operation whose outcome is unknown, and for a scan.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// An operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Operation {
    Write,
    BulkLoad,
    AtomicLoad,
    AbandonedLoad,
    Truncate,
    Clone,
    Alter,
    /// An alter of the table of the workload.
    AlterLog,
}

const OPERATIONS: [Operation; 8] = [
    Operation::Write,
    Operation::BulkLoad,
    Operation::AtomicLoad,
    Operation::AbandonedLoad,
    Operation::Truncate,
    Operation::Clone,
    Operation::Alter,
    Operation::AlterLog,
];

/// The operator, until the scenario stops it.
#[derive(Debug)]
pub struct Operator {
    client: Client,
    random: StdRng,
    contents: Contents,
    next_batch: i64,
    next_column: i64,
    /// Numbers of operations: completed, and others.
    ended: BTreeMap<Operation, [u64; 2]>,
}

fn failed(error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("operator: {error}"))
}

impl Operator {
    /// Creates the table and starts the operator; the task returns a summary once `stop` is set.
    ///
    /// # Errors
    /// If the table cannot be created.
    pub async fn start(
        cluster: &Cluster,
        seed: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<JoinHandle<Result<String>>> {
        let columns = "batch int64, number int64, note utf8";
        let create = ["table", "create", BATCH_TABLE, "--columns", columns, "--append-only"];
        cluster.run(&[&create[..], &["--primary-key", "batch,number"]].concat()).await?.ok()?;
        let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
        let mut operator = Self {
            client,
            random: StdRng::seed_from_u64(seed),
            contents: Contents::default(),
            next_batch: 0,
            next_column: 0,
            ended: BTreeMap::new(),
        };
        let stop = stop.clone();
        Ok(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                operator.operate().await?;
                sleep(PAUSE).await;
            }
            operator.check(BATCH_TABLE).await?;
            Ok(operator.summary())
        }))
    }

    fn summary(&self) -> String {
        let ended: Vec<String> = self
            .ended
            .iter()
            .map(|(operation, [completed, other])| format!("{operation:?} {completed}+{other}"))
            .collect();
        format!(
            "operations, completed and others: {}; {} batches, the outcome of {} unknown",
            ended.join(", "),
            self.contents.len(),
            self.contents.unknown()
        )
    }

    async fn operate(&mut self) -> Result<()> {
        let operation = if self.contents.len() >= MAX_BATCHES {
            Operation::Truncate
        } else {
            // A truncation is rarer than the others: it deletes their results.
            match self.random.random_range(0..OPERATIONS.len() * 2) {
                any if any < OPERATIONS.len() => OPERATIONS[any],
                any => OPERATIONS[any % 4],
            }
        };
        let patient_until = Instant::now() + BUSY_FOR;
        let ended = loop {
            match self.attempt(operation).await? {
                Err(error) if is_busy(&error) && Instant::now() < patient_until => {
                    sleep(PAUSE).await;
                }
                ended => break ended,
            }
        };
        let counted = self.ended.entry(operation).or_default();
        match &ended {
            Ok(()) => counted[0] += 1,
            Err(error) if is_expected(error) => {
                counted[1] += 1;
                self.settle().await?;
            }
            Err(error) => {
                return Err(HarnessError::violated(format!("{operation:?}: {error}")));
            }
        }
        let checked = self.check(BATCH_TABLE).await;
        checked
            .map_err(|error| HarnessError::violated(format!("{operation:?}, {ended:?}: {error}")))
    }

    async fn attempt(
        &mut self,
        operation: Operation,
    ) -> Result<std::result::Result<(), ClientError>> {
        Ok(match operation {
            Operation::Write => self.write().await,
            Operation::BulkLoad => self.load_directly().await,
            Operation::AtomicLoad => self.load(true).await,
            Operation::AbandonedLoad => self.load(false).await,
            Operation::Truncate => self.truncate().await,
            Operation::Clone => self.copy().await?,
            Operation::Alter => self.alter(BATCH_TABLE).await,
            Operation::AlterLog => self.alter(LOG_TABLE).await,
        })
    }

    /// Returns the number of the next batch, and its number of rows.
    fn next_batch(&mut self) -> (i64, i64) {
        self.next_batch += 1;
        (self.next_batch, self.random.random_range(1..=MAX_ROWS))
    }

    /// Adds a batch by its outcome: absent after a definite failure.
    fn record(
        &mut self,
        (batch, rows): (i64, i64),
        is_atomic: bool,
        outcome: &std::result::Result<(), ClientError>,
    ) {
        match outcome {
            Ok(()) => self.contents.add(batch, rows),
            Err(error) if error.maybe_done() || !is_atomic => {
                self.contents.add_unknown(batch, rows, is_atomic);
            }
            Err(_) => {}
        }
    }

    async fn write(&mut self) -> std::result::Result<(), ClientError> {
        let (batch, rows) = self.next_batch();
        let writer = self.client.writer(BATCH_TABLE, WriterOptions::default()).await?;
        let schema = writer.table().schema.arrow();
        let written = match batch_rows(schema, batch, 0..rows) {
            Ok(rows) => writer.put_rows(rows).await.map(drop),
            Err(error) => Err(ClientError::BadInput(error.to_string())),
        };
        // Rows of several regions: some of them may be written.
        self.record((batch, rows), false, &written);
        written
    }

    async fn load_directly(&mut self) -> std::result::Result<(), ClientError> {
        let (batch, rows) = self.next_batch();
        let loader = self.client.bulk_loader(BATCH_TABLE).await?;
        let schema = loader.table().schema.arrow();
        let loaded = match batch_rows(schema, batch, 0..rows) {
            Ok(rows) => loader.write(rows).await.map(drop),
            Err(error) => Err(ClientError::BadInput(error.to_string())),
        };
        self.record((batch, rows), false, &loaded);
        loaded
    }

    /// Loads a batch in parts, and publishes or abandons it.
    async fn load(&mut self, publish: bool) -> std::result::Result<(), ClientError> {
        let (batch, rows) = self.next_batch();
        let loader = self.client.atomic_loader(BATCH_TABLE).await?;
        let parts = self.random.random_range(1..=3);
        for part in 0..parts {
            let numbers = rows * part / parts..rows * (part + 1) / parts;
            let rows = batch_rows(loader.table().schema.arrow(), batch, numbers)
                .map_err(|error| ClientError::BadInput(error.to_string()))?;
            // After an error the loader is dropped, and `settle` cancels the load.
            loader.write(rows).await?;
        }
        if !publish {
            return loader.abandon().await;
        }
        let published = loader.publish().await;
        self.record((batch, rows), true, &published);
        published
    }

    async fn truncate(&mut self) -> std::result::Result<(), ClientError> {
        let truncated = self.client.truncate_table(BATCH_TABLE).await.map(drop);
        match &truncated {
            Ok(()) => self.contents.truncate(),
            Err(error) if error.maybe_done() => self.contents.truncate_maybe(),
            Err(_) => {}
        }
        truncated
    }

    /// Clones the table, compares the rows of both, and drops the clone.
    async fn copy(&mut self) -> Result<std::result::Result<(), ClientError>> {
        let copied = self.client.clone_table(BATCH_TABLE, COPY_TABLE).await.map(drop);
        if copied.is_ok() {
            self.check(COPY_TABLE).await?;
        }
        Ok(match copied {
            Ok(()) => self.client.drop_table(COPY_TABLE).await.map(drop),
            Err(error) => Err(error),
        })
    }

    /// Adds a column, or drops the one that was added.
    async fn alter(&mut self, name: &str) -> std::result::Result<(), ClientError> {
        let table = self.client.table(name).await?;
        let added =
            table.schema.columns().iter().find(|column| added_value(&column.name).is_some());
        let change = match added {
            Some(column) => ColumnChange::Drop(column.name.clone()),
            None => {
                self.next_column += 1;
                let default = Some(self.next_column.to_string());
                let name = format!("c{}", self.next_column);
                ColumnChange::Add(NewColumn { default, ..NewColumn::new(&name, "int64", true) })
            }
        };
        let change = AlterTable { columns: vec![change], ..AlterTable::default() };
        self.client.alter_table(name, change).await.map(drop)
    }

    /// Waits until no operation is in progress, and drops the clone if there is one.
    async fn settle(&self) -> Result<()> {
        wait::until("the operations have ended", SETTLED_WITHIN, || async {
            let running = self.client.procedures(1).await.map_err(|error| error.to_string())?;
            let is_own = |of: &&ProcedureInfo| {
                of.ended_ms == 0 && !["split", "merge", "move"].contains(&of.kind.as_str())
            };
            let own: Vec<_> = running.iter().filter(is_own).collect();
            for load in own.iter().filter(|of| of.kind == "load" && of.abandonable) {
                // It may have ended since.
                let _ = self.client.cancel_procedure(&load.procedure_id).await;
            }
            if !own.is_empty() {
                return Err(format!("{own:?}"));
            }
            match self.client.drop_table(COPY_TABLE).await {
                Ok(_) | Err(ClientError::TableNotFound(_)) => Ok(()),
                Err(error) if error.refusal().is_some_and(is_unknown_table) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await
    }

    /// Compares a table with the contents.
    async fn check(&mut self, table: &str) -> Result<()> {
        let client = &self.client;
        let rows = wait::until("a scan is complete", SETTLED_WITHIN, || async {
            let stream = client.scan(ScanSpec::all(table)).await;
            let stream = stream.map_err(|error| error.to_string())?;
            stream.collect().await.map_err(|error| error.to_string())
        })
        .await?;
        let mut found = Vec::new();
        for rows in &rows {
            found.extend(names(rows).map_err(HarnessError::violated)?);
        }
        let checked = self.contents.check(&found);
        checked.map_err(|text| HarnessError::violated(format!("table {table}: {text}")))
    }
}

fn is_busy(error: &ClientError) -> bool {
    let busy = [Reason::TableBusy, Reason::RouteBusy];
    !error.maybe_done() && error.refusal().is_some_and(|refusal| busy.contains(&refusal.reason))
}

fn is_unknown_table(refusal: &Refusal) -> bool {
    refusal.reason == Reason::TableNotFound
}
