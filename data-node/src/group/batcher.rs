//! Combines writes of many clients into few log entries: a bounded queue, and a task that takes as
//! many writes from it as fit into one entry and proposes it, with several entries in flight.
//!
//! While all slots are taken the queue fills, so entries grow with the load and a single client
//! does not wait. A write that is still queued when the replica stops has definitely failed; a
//! proposed one is answered with its outcome or as unknown, never as failed.

use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use openraft::impls::OneshotResponder;
use tidewater_common::ids::GroupId;
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::{Reason, WriteRequest, WriteResponse};
use tidewater_raft_store::{Command, Raft};
use tidewater_region_engine::memory::Admission;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::batch::{BatchLimits, BatchSize};
use super::entry::{self, EncodedEntry};
use super::refusals;
use super::shared::ReplicaState;
use super::state_machine::GroupStateMachine;
use crate::meters;

/// Entries in flight.
const IN_FLIGHT: usize = 8;
/// Capacity of the queue, in writes.
const QUEUE: usize = 2_048;

type WriteReply = Result<WriteResponse, Refusal>;

/// An admitted write.
#[derive(Debug)]
struct QueuedWrite {
    write: WriteRequest,
    reply: oneshot::Sender<WriteReply>,
    admission: Admission,
}

/// Sender of writes to the batcher. Clones share one queue.
#[derive(Debug, Clone)]
pub struct BatcherHandle {
    group: GroupId,
    queue: mpsc::Sender<QueuedWrite>,
}

impl BatcherHandle {
    /// Queues a write and waits for its outcome. The admission is released once the write is
    /// applied.
    pub async fn write(&self, write: WriteRequest, admission: Admission) -> WriteReply {
        let (reply, outcome) = oneshot::channel();
        if self.queue.send(QueuedWrite { write, reply, admission }).await.is_err() {
            return Err(closed(self.group));
        }
        outcome.await.unwrap_or_else(|_| Err(refusals::leadership_lost(self.group)))
    }
}

fn closed(group: GroupId) -> Refusal {
    Refusal::new(
        Reason::GroupNotHosted,
        format!("the replica of group {group} on this node was stopped"),
    )
}

/// Creates the batcher; the returned future must be spawned.
pub fn start(
    shared: Arc<ReplicaState>,
    raft: Raft<GroupStateMachine>,
    limits: BatchLimits,
) -> (BatcherHandle, impl Future<Output = ()> + Send + 'static) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let group = shared.group;
    let stopping = shared.stopping.clone();
    let batcher = Batcher { shared, raft: Arc::new(raft), limits, receiver, carried: None };
    (BatcherHandle { group, queue }, batcher.run(stopping))
}

struct Batcher {
    shared: Arc<ReplicaState>,
    raft: Arc<Raft<GroupStateMachine>>,
    limits: BatchLimits,
    receiver: mpsc::Receiver<QueuedWrite>,
    // The write that did not fit into the last batch.
    carried: Option<QueuedWrite>,
}

impl Batcher {
    async fn run(mut self, stopping: CancellationToken) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let room = in_flight.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(()) = in_flight.next(), if !in_flight.is_empty() => {}
                batch = self.next_batch(), if room => match batch {
                    Some(batch) => in_flight.push(Box::pin(propose(
                        self.shared.clone(),
                        self.raft.clone(),
                        batch,
                    ))),
                    None => break,
                },
            }
        }
        self.refuse_queued().await;
        while in_flight.next().await.is_some() {}
    }

    /// Cancel safe: holds no write across the await.
    async fn next_batch(&mut self) -> Option<Vec<QueuedWrite>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => self.receiver.recv().await?,
        };
        let mut size = BatchSize::default();
        size.try_add(&self.limits, first.write.rows.len());
        let mut batch = vec![first];
        while let Ok(next) = self.receiver.try_recv() {
            if !size.try_add(&self.limits, next.write.rows.len()) {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        Some(batch)
    }

    async fn refuse_queued(&mut self) {
        self.receiver.close();
        let mut refused: Vec<_> = self.carried.take().into_iter().collect();
        while let Some(queued) = self.receiver.recv().await {
            refused.push(queued);
        }
        for queued in refused {
            let _ = queued.reply.send(Err(closed(self.shared.group)));
        }
    }
}

async fn propose(
    shared: Arc<ReplicaState>,
    raft: Arc<Raft<GroupStateMachine>>,
    batch: Vec<QueuedWrite>,
) {
    let mut writes = Vec::with_capacity(batch.len());
    let mut waiting = Vec::with_capacity(batch.len());
    for queued in batch {
        writes.push(queued.write);
        waiting.push((queued.reply, queued.admission));
    }
    let bytes = writes.iter().map(|write| write.rows.len()).sum();
    let begun = Instant::now();
    let outcome = propose_entry(&shared, &raft, entry::writes(writes)).await;
    meters::record_write_entry(waiting.len(), bytes, begun.elapsed(), outcome.is_err());
    let replies = match outcome {
        Ok(outcomes) if outcomes.len() == waiting.len() => {
            outcomes.into_iter().map(entry::EntryOutcome::into_result).collect()
        }
        Ok(outcomes) => {
            let refusal = Refusal::new(
                Reason::Internal,
                format!("{} writes got {} outcomes", waiting.len(), outcomes.len()),
            );
            vec![Err(refusal); waiting.len()]
        }
        Err(refusal) => vec![Err(refusal); waiting.len()],
    };
    for ((reply, admission), outcome) in waiting.into_iter().zip(replies) {
        // The memtable accounts for the rows now.
        drop(admission);
        let _ = reply.send(outcome);
    }
}

/// Proposes one entry and waits until this replica has applied it.
///
/// # Errors
/// See [`refusals`]: failed and unknown outcomes are distinct.
pub async fn propose_entry(
    shared: &ReplicaState,
    raft: &Raft<GroupStateMachine>,
    entry: EncodedEntry,
) -> Result<Vec<entry::EntryOutcome>, Refusal> {
    let group = shared.group;
    let (needed, level) = (entry.level(), shared.level());
    if needed > level {
        let text = format!(
            "the operation needs feature level {needed}, and group {group} is at level {level}: `tidewater \
             cluster status` shows the nodes that hold back the next level"
        );
        return Err(Refusal::new(Reason::Unsupported, text));
    }
    let (responder, outcome) = OneshotResponder::new_pair();
    if let Err(fatal) = raft.client_write_ff(Command(entry.into()), Some(responder)).await {
        // Not proposed: the Raft core had already stopped.
        return Err(refusals::replica_stopped(group, &fatal));
    }
    match outcome.await {
        Ok(Ok(response)) => entry::decode_reply(&response.data.0)
            .map_err(|error| Refusal::new(Reason::Internal, error.to_string())),
        Ok(Err(error)) => Err(refusals::write_error(group, &error)),
        Err(_) => Err(refusals::leadership_lost(group)),
    }
}
