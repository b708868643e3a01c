//! Many clients' writes into few log entries: a bounded queue, and a task that takes from it what
//! fits into one entry and proposes it, with several entries under way.
//!
//! While all slots are taken the queue fills, so entries grow with the load and a lone client does
//! not wait. A write that is still in the queue when the replica stops has definitely not happened;
//! one that was proposed is answered by its outcome or as unknown, never as failed.

use std::sync::Arc;

use bytes::Bytes;
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
use super::entry;
use super::refusals;
use super::state_machine::GroupStateMachine;
use crate::meters;

/// Entries under way at the same time.
const IN_FLIGHT: usize = 8;
/// Writes that wait to be proposed.
const QUEUE: usize = 2_048;

type Answer = Result<WriteResponse, Refusal>;

/// A write that was admitted.
#[derive(Debug)]
struct Pending {
    write: WriteRequest,
    answer: oneshot::Sender<Answer>,
    admission: Admission,
}

/// Hands writes to the batcher. Clones feed the same one.
#[derive(Debug, Clone)]
pub struct BatcherHandle {
    group: GroupId,
    queue: mpsc::Sender<Pending>,
}

impl BatcherHandle {
    /// Queues a write and waits for its outcome. The admission is given back once it is applied.
    pub async fn write(&self, write: WriteRequest, admission: Admission) -> Answer {
        let (answer, outcome) = oneshot::channel();
        if self.queue.send(Pending { write, answer, admission }).await.is_err() {
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

/// Starts the batcher's queue; the second part is to be spawned.
pub fn start(
    group: GroupId,
    raft: Raft<GroupStateMachine>,
    limits: BatchLimits,
    stopping: CancellationToken,
) -> (BatcherHandle, impl Future<Output = ()> + Send + 'static) {
    let (queue, receiver) = mpsc::channel(QUEUE);
    let batcher = Batcher { group, raft: Arc::new(raft), limits, receiver, carried: None };
    (BatcherHandle { group, queue }, batcher.run(stopping))
}

struct Batcher {
    group: GroupId,
    raft: Arc<Raft<GroupStateMachine>>,
    limits: BatchLimits,
    receiver: mpsc::Receiver<Pending>,
    // Did not fit into the last batch.
    carried: Option<Pending>,
}

impl Batcher {
    async fn run(mut self, stopping: CancellationToken) {
        let mut under_way: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        loop {
            let room = under_way.len() < IN_FLIGHT;
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                batch = self.next_batch(), if room => match batch {
                    Some(batch) => under_way.push(Box::pin(propose(
                        self.group,
                        self.raft.clone(),
                        batch,
                    ))),
                    None => break,
                },
            }
        }
        self.refuse_queued().await;
        while under_way.next().await.is_some() {}
    }

    /// Cancel safe: nothing is held across the await.
    async fn next_batch(&mut self) -> Option<Vec<Pending>> {
        let first = match self.carried.take() {
            Some(carried) => carried,
            None => self.receiver.recv().await?,
        };
        let mut size = BatchSize::default();
        size.add(&self.limits, first.write.rows.len());
        let mut batch = vec![first];
        while let Ok(next) = self.receiver.try_recv() {
            if !size.add(&self.limits, next.write.rows.len()) {
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
        while let Some(pending) = self.receiver.recv().await {
            refused.push(pending);
        }
        for pending in refused {
            let _ = pending.answer.send(Err(closed(self.group)));
        }
    }
}

async fn propose(group: GroupId, raft: Arc<Raft<GroupStateMachine>>, batch: Vec<Pending>) {
    let mut writes = Vec::with_capacity(batch.len());
    let mut waiting = Vec::with_capacity(batch.len());
    for pending in batch {
        writes.push(pending.write);
        waiting.push((pending.answer, pending.admission));
    }
    let bytes = writes.iter().map(|write| write.rows.len()).sum();
    let begun = Instant::now();
    let outcome = propose_entry(group, &raft, entry::writes(writes)).await;
    meters::record_write_entry(waiting.len(), bytes, begun.elapsed(), outcome.is_err());
    let answers = match outcome {
        Ok(outcomes) if outcomes.len() == waiting.len() => {
            outcomes.into_iter().map(entry::Outcome::into_result).collect()
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
    for ((answer, admission), outcome) in waiting.into_iter().zip(answers) {
        // The rows count in the memtable now.
        drop(admission);
        let _ = answer.send(outcome);
    }
}

/// Proposes one entry and waits until it is applied here.
///
/// # Errors
/// See [`refusals`]: failed and unknown are told apart.
pub async fn propose_entry(
    group: GroupId,
    raft: &Raft<GroupStateMachine>,
    entry: Bytes,
) -> Result<Vec<entry::Outcome>, Refusal> {
    let (responder, answer) = OneshotResponder::new_pair();
    if let Err(fatal) = raft.client_write_ff(Command(entry), Some(responder)).await {
        // Not handed over: the core had ended.
        return Err(refusals::stopped(group, &fatal));
    }
    match answer.await {
        Ok(Ok(response)) => entry::decode_reply(&response.data.0)
            .map_err(|error| Refusal::new(Reason::Internal, error.to_string())),
        Ok(Err(error)) => Err(refusals::write_refused(group, &error)),
        Err(_) => Err(refusals::leadership_lost(group)),
    }
}
