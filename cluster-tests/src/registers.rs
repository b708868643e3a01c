//! Registers: rows of an upsert table, whose point reads are checked for linearizability while faults happen.
//!
//! Each register has one writer, which writes ascending values one after the other. So its reads are linearizable
//! exactly if each returns at least the greatest value that was acknowledged, or returned by another read,
//! before it began, and at most the greatest value whose write had begun before it ended. A write with an unknown
//! outcome may take effect at any later time: its register is not written any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::Int64Type;
use parking_lot::{Mutex, RwLock};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tidewater_client::{Client, ClientError, TableWriter, WriterOptions};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::cluster::Cluster;
use crate::workload::options;
use crate::{HarnessError, Result};

/// Table of the registers: `(writer int64, number int64, value int64)`.
pub const REGISTER_TABLE: &str = "registers";
/// Registers that a writer writes at the same time.
const PER_WRITER: usize = 16;
/// Pause after each write and each read: a scenario needs calls in flight, not a saturated machine.
const PAUSE: Duration = Duration::from_millis(5);

/// A row with one writer.
#[derive(Debug)]
struct Register {
    writer: i64,
    number: i64,
    /// Greatest value whose write has begun.
    begun: AtomicI64,
    /// Greatest value that was acknowledged or read.
    floor: AtomicI64,
    /// Values whose writes have definitely failed.
    failed: Mutex<BTreeSet<i64>>,
}

impl Register {
    /// Checks a value that a read has returned; `floor`: before the read began.
    fn check(&self, value: i64, floor: i64) -> Result<()> {
        let begun = self.begun.load(Ordering::SeqCst);
        if value < floor || value > begun || self.failed.lock().contains(&value) {
            let Self { writer, number, .. } = self;
            let text = format!(
                "register {number} of writer {writer}: a read returned {value}, after {floor} was \
                 acknowledged or read, and {begun} begun; failed: {:?}",
                self.failed.lock()
            );
            return Err(HarnessError::violated(text));
        }
        self.floor.fetch_max(value, Ordering::SeqCst);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    registers: RwLock<Vec<Arc<Register>>>,
    acknowledged: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    reads: AtomicU64,
}

/// Writers and readers of registers, until the scenario stops them.
#[derive(Debug)]
pub struct Registers {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Registers {
    /// Creates the table, and starts this number of writers and as many readers.
    ///
    /// # Errors
    /// If the table cannot be created.
    pub async fn start(cluster: &Cluster, writers: i64, seed: u64) -> Result<Self> {
        let columns = "writer int64, number int64, value int64";
        let create = ["table", "create", REGISTER_TABLE, "--columns", columns];
        cluster.run(&[&create[..], &["--primary-key", "writer,number"]].concat()).await?.ok()?;
        let shared = Arc::new(Shared::default());
        let mut tasks = Vec::new();
        for (writer, seed) in (1..=writers).zip(seed..) {
            let client = Client::connect(options(cluster)).await.map_err(|error| failed(&error))?;
            let random = || StdRng::seed_from_u64(seed);
            tasks.push(tokio::spawn(write(client.clone(), writer, random(), shared.clone())));
            tasks.push(tokio::spawn(read(client, random(), shared.clone())));
        }
        Ok(Self { shared, tasks })
    }

    /// Stops the writers and readers, and returns a summary.
    ///
    /// # Errors
    /// A read that was not linearizable, or that failed.
    pub async fn stop(self) -> Result<String> {
        self.shared.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.map_err(|error| HarnessError::violated(error.to_string()))??;
        }
        let [acknowledged, failed, unknown, reads] = [
            &self.shared.acknowledged,
            &self.shared.failed,
            &self.shared.unknown,
            &self.shared.reads,
        ]
        .map(|counter| counter.load(Ordering::SeqCst));
        Ok(format!(
            "registers: {acknowledged} writes acknowledged, {failed} failed, {unknown} unknown, {reads} \
             linearizable reads"
        ))
    }
}

fn failed(error: &ClientError) -> HarnessError {
    HarnessError::violated(format!("registers: {error}"))
}

/// Writes ascending values to registers of its own.
async fn write(client: Client, writer: i64, mut random: StdRng, shared: Arc<Shared>) -> Result<()> {
    // One lane: one write in flight, so that the outcome of each is its own.
    let lanes = WriterOptions { lanes: 1, queue_batches: 1, ..WriterOptions::default() };
    let table = client.writer(REGISTER_TABLE, lanes).await.map_err(|error| failed(&error))?;
    let mut own: Vec<Arc<Register>> = Vec::new();
    let mut numbers = 0..;
    while !shared.stop.load(Ordering::SeqCst) {
        while own.len() < PER_WRITER {
            let register = Arc::new(Register {
                writer,
                number: numbers.next().unwrap_or_default(),
                begun: AtomicI64::new(0),
                floor: AtomicI64::new(0),
                failed: Mutex::default(),
            });
            shared.registers.write().push(register.clone());
            own.push(register);
        }
        let at = random.random_range(0..own.len());
        let register = own[at].clone();
        let value = register.begun.fetch_add(1, Ordering::SeqCst) + 1;
        match put(&table, &register, value).await? {
            Ok(()) => {
                register.floor.fetch_max(value, Ordering::SeqCst);
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            Err(error) if error.maybe_done() => {
                own.swap_remove(at);
                shared.unknown.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => {
                register.failed.lock().insert(value);
                shared.failed.fetch_add(1, Ordering::SeqCst);
            }
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

async fn put(
    table: &TableWriter,
    register: &Register,
    value: i64,
) -> Result<std::result::Result<(), ClientError>> {
    let columns = [register.writer, register.number, value];
    let columns = columns.map(|value| Arc::new(Int64Array::from(vec![value])) as ArrayRef);
    let batch = RecordBatch::try_new(table.table().schema.arrow(), columns.to_vec());
    let batch = batch.map_err(|error| HarnessError::violated(error.to_string()))?;
    Ok(table.put_rows(batch).await.map(drop))
}

/// Reads random registers, some of them together, and checks each value.
async fn read(client: Client, mut random: StdRng, shared: Arc<Shared>) -> Result<()> {
    let table = client.table(REGISTER_TABLE).await.map_err(|error| failed(&error))?;
    while !shared.stop.load(Ordering::SeqCst) {
        sleep(PAUSE).await;
        let chosen: BTreeMap<(i64, i64), Arc<Register>> = {
            let registers = shared.registers.read();
            let count = random.random_range(1..=4).min(registers.len());
            let chosen = (0..count).map(|_| &registers[random.random_range(0..registers.len())]);
            chosen.map(|register| ((register.writer, register.number), register.clone())).collect()
        };
        if chosen.is_empty() {
            continue;
        }
        let floors = chosen.values().map(|register| register.floor.load(Ordering::SeqCst));
        let floors: Vec<i64> = floors.collect();
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let columns = vec![
            column(chosen.keys().map(|(writer, _)| *writer).collect()),
            column(chosen.keys().map(|(_, number)| *number).collect()),
        ];
        let keys = RecordBatch::try_new(table.schema.key_arrow(), columns);
        let keys = keys.map_err(|error| HarnessError::violated(error.to_string()))?;
        let found =
            client.get(REGISTER_TABLE, &keys, None).await.map_err(|error| failed(&error))?;
        let columns = [0, 1, 2].map(|at| found.column(at).as_primitive::<Int64Type>());
        let values: BTreeMap<(i64, i64), i64> = (0..found.num_rows())
            .map(|row| {
                let [writer, number, value] = columns.map(|column| column.value(row));
                ((writer, number), value)
            })
            .collect();
        for ((key, register), floor) in chosen.iter().zip(floors) {
            register.check(values.get(key).copied().unwrap_or(0), floor)?;
        }
        shared.reads.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_lost_and_invented_values_are_found() {
        let register = Register {
            writer: 1,
            number: 2,
            begun: AtomicI64::new(7),
            floor: AtomicI64::new(4),
            failed: Mutex::new(BTreeSet::from([5])),
        };
        for (value, floor, is_valid) in [
            (4, 4, true),
            (6, 4, true),
            (7, 6, true),
            (3, 4, false),
            (0, 4, false),
            (5, 4, false),
            (8, 4, false),
        ] {
            assert_eq!(register.check(value, floor).is_ok(), is_valid, "{value} after {floor}");
        }
        assert_eq!(register.floor.load(Ordering::SeqCst), 7);
    }
}
