//! Benchmark of the recorder: events from the call to the spool, thousands at a time and one after the other.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tidewater_event_recorder::{EventRecorderImpl, EventRecorderOptions, RecorderEnv};
use tidewater_events::{
    Event, EventBatch, EventError, EventHandler, EventRecorder, Handled, HandlerError, Receipt,
    RecordOutcome, TypeFilter,
};

/// Events that are recorded before their receipts are awaited: the queue has room for them.
const ROUND: usize = 2_000;

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

fn record(criterion: &mut Criterion) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let recorder = runtime.block_on(async {
        EventRecorderImpl::open(
            directory.path(),
            Arc::new(Discard),
            TypeFilter::default(),
            EventRecorderOptions::default(),
            RecorderEnv::default(),
        )
        .unwrap()
    });
    let mut group = criterion.benchmark_group("events");
    group.throughput(Throughput::Elements(ROUND as u64));
    group.bench_function("record_and_spool", |bencher| {
        bencher.iter(|| {
            let receipts: Vec<Receipt> =
                (0..ROUND).map(|n| recorder.record(&NodeUp(n as u64))).collect();
            runtime.block_on(async {
                for receipt in receipts {
                    assert_eq!(receipt.await, RecordOutcome::Spooled);
                }
            });
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

criterion_group!(benches, record);
criterion_main!(benches);
