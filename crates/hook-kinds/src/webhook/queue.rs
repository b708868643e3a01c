//! Bounded queue of a webhook. A task posts pending calls one after another, each until it is
//! accepted. A receiver that is down blocks its own queue and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tidewater_common::backoff::{Backoff, Jitter};
use tidewater_region_engine::hooks::HookError;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::pending::PendingCalls;
use super::transport::{PostOutcome, Transport};
use crate::meters;
use crate::record::Record;
use crate::record_hook::RecordSink;

/// Backoff between two attempts.
const BACKOFF: Backoff =
    Backoff { first: Duration::from_millis(200), longest: Duration::from_secs(30) };

/// Sink that queues records without waiting. Its delivery task ends when the sink is dropped.
#[derive(Debug)]
pub(super) struct WebhookQueue<T> {
    shared: Arc<QueueState<T>>,
    delivery: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct QueueState<T> {
    hook: String,
    transport: T,
    jitter: Jitter,
    pending: Mutex<PendingCalls>,
    more: Notify,
    lost: AtomicU64,
}

impl<T: Transport> WebhookQueue<T> {
    pub(super) fn new(hook: &str, transport: T, max_calls: usize, max_bytes: usize) -> Self {
        let shared = QueueState {
            hook: hook.to_owned(),
            transport,
            jitter: Jitter::system(),
            pending: Mutex::new(PendingCalls::new(max_calls, max_bytes)),
            more: Notify::new(),
            lost: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), delivery: OnceLock::new() }
    }

    pub(super) fn push(&self, body: Bytes) -> Result<(), HookError> {
        self.delivery.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.run().await }).abort_handle()
        });
        let mut pending = self.shared.pending.lock();
        let count = pending.len();
        if !pending.push(body) {
            return Err(HookError::new(format_args!(
                "the queue of the webhook is full: {count} calls are pending"
            )));
        }
        drop(pending);
        self.shared.more.notify_one();
        Ok(())
    }
}

impl<T> Drop for WebhookQueue<T> {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.get() {
            delivery.abort();
        }
    }
}

#[async_trait]
impl<T: Transport> RecordSink for WebhookQueue<T> {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        self.push(record.into_text().into())
    }

    fn backlog(&self) -> u64 {
        self.shared.pending.lock().len() as u64
    }

    fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl<T: Transport> QueueState<T> {
    async fn run(&self) {
        loop {
            let first = self.pending.lock().first();
            match first {
                Some(body) => self.deliver(body).await,
                None => self.more.notified().await,
            }
        }
    }

    /// Posts the first pending call until it is accepted or rejected, and removes it.
    async fn deliver(&self, body: Bytes) {
        let hook = &self.hook;
        let mut failures: u32 = 0;
        loop {
            meters::set_backlog(hook, self.pending.lock().len());
            match self.transport.post(body.clone()).await {
                PostOutcome::Accepted => {
                    if failures > 0 {
                        tracing::info!(%hook, tried = failures, "webhook receiver is available again");
                    }
                    break;
                }
                PostOutcome::Rejected(problem) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    meters::record_lost_call(hook);
                    tracing::warn!(%hook, %problem, "webhook receiver rejected a call; dropping it");
                    break;
                }
                PostOutcome::Retry(problem) => {
                    if failures == 0 {
                        tracing::warn!(
                            %hook, %problem, "webhook call failed; retrying until it is accepted"
                        );
                    }
                    failures = failures.saturating_add(1);
                    let wait = BACKOFF.wait(failures, None, self.jitter.bits());
                    tokio::time::sleep(wait).await;
                }
            }
        }
        self.pending.lock().remove_first();
    }
}
