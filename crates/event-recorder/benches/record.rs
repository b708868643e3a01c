//! Benchmark of the recorder: events from the call to the spool, thousands at a time and one after the other.
//!
//! It also prints the figures of invariants V2 and V5: `record` takes at most 20 us for 99 % of the calls while the handler
//! hangs, and the spool takes 50,000 events/s on one core (`taskset -c 0 cargo bench -p tidewater-event-recorder`).
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::any::Any;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidewater_event_recorder::{EventRecorderImpl, EventRecorderOptions, RecorderEnv};
use tidewater_events::{
    Event, EventBatch, EventError, EventHandler, EventRecorder, Handled, HandlerError, Receipt,
    RecordOutcome, TypeFilter,
};
use tokio::runtime::Runtime;

/// Events that are recorded before their receipts are awaited: the queue has room for them.
const ROUND: usize = 2_000;

/// Rounds of the printed figures. The spool has room for their events.
const ROUNDS: usize = 100;

#[derive(Debug)]
struct NodeUp(u64);

impl Event for NodeUp {
    fn event_type(&self) -> &str {
        "node_up"
    }

    fn json_payload(&self) -> Result<String, EventError> {
        Ok(format!(r#"{{"node_id":{},"address":"10.0.0.1:7100","release":"0.1.0"}}"#, self.0))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Handler that persists nothing, at once: the spool stays small.
#[derive(Debug)]
struct Discard;

#[async_trait]
impl EventHandler for Discard {
    async fn handle(&self, _batch: &EventBatch) -> Result<Handled, HandlerError> {
        Ok(Handled::default())
    }
}

/// Handler that never returns: the spool keeps all events.
#[derive(Debug)]
struct Hang;

#[async_trait]
impl EventHandler for Hang {
    async fn handle(&self, _batch: &EventBatch) -> Result<Handled, HandlerError> {
        std::future::pending().await
    }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn open(runtime: &Runtime, spool: &Path, handler: impl EventHandler) -> EventRecorderImpl {
    let options = EventRecorderOptions {
        close_timeout: Duration::from_millis(100),
        // Events are recorded faster than they are shipped.
        spool_bytes: 8 << 30,
        ..EventRecorderOptions::default()
    };
    let _context = runtime.enter();
    let filter = TypeFilter::default();
    EventRecorderImpl::open(spool, Arc::new(handler), filter, options, RecorderEnv::default())
        .unwrap()
}

/// Prints the time of `record` with a handler that hangs, and the events that the spool takes in a second.
fn figures(_: &mut Criterion) {
    // Not when tests run all benchmarks once.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let recorder = open(&runtime, directory.path(), Hang);
    let mut times = Vec::with_capacity(ROUNDS * ROUND);
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        let mut receipts = Vec::with_capacity(ROUND);
        for n in 0..ROUND {
            let event = NodeUp(n as u64);
            let called = Instant::now();
            receipts.push(recorder.record(&event));
            times.push(called.elapsed());
        }
        runtime.block_on(spooled(receipts));
    }
    let events_per_second = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    println!("record, handler hangs: p99 {p99:?} (at most 20us)");
    println!("record and spool: {events_per_second:.0} events/s (at least 50000)");
    runtime.block_on(recorder.close());
}

/// Waits until events are spooled.
async fn spooled(receipts: Vec<Receipt>) {
    for receipt in receipts {
        assert_eq!(receipt.await, RecordOutcome::Spooled);
    }
}

fn record(criterion: &mut Criterion) {
    let runtime = runtime();
    let directory = tempfile::tempdir().unwrap();
    let recorder = open(&runtime, directory.path(), Discard);
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(ROUND as u64));
    group.bench_function("record_and_spool", |bencher| {
        bencher.iter(|| {
            let receipts: Vec<Receipt> =
                (0..ROUND).map(|n| recorder.record(&NodeUp(n as u64))).collect();
            runtime.block_on(spooled(receipts));
        });
    });
    // Each event waits for its receipt: the queue is never full.
    group.throughput(Throughput::Elements(1));
    group.bench_function("record_and_wait", |bencher| {
        bencher.iter(|| {
            let receipt = recorder.record(&NodeUp(1));
            assert_eq!(runtime.block_on(receipt), RecordOutcome::Spooled);
        });
    });
    group.finish();
    runtime.block_on(recorder.close());
}

criterion_group!(benches, figures, record);
criterion_main!(benches);
