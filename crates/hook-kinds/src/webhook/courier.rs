//! Posts what waits, one after another, until it is taken. A receiver that is down holds the queue
//! up and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use metrics::{counter, gauge};
use parking_lot::Mutex;
use tidewater_region_engine::hooks::HookError;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::queue::Queue;
use super::transport::{Answer, Transport};
use crate::narrator::Outlet;
use crate::record::Record;

/// First and longest wait between two attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// The outlet: takes records at once, and has them posted by a task that ends with it.
#[derive(Debug)]
pub(super) struct Mailbox<T> {
    shared: Arc<Shared<T>>,
    courier: OnceLock<AbortHandle>,
}

#[derive(Debug)]
struct Shared<T> {
    hook: String,
    transport: T,
    queue: Mutex<Queue>,
    more: Notify,
    lost: AtomicU64,
}

impl<T: Transport> Mailbox<T> {
    pub(super) fn new(hook: &str, transport: T, most: usize, most_bytes: usize) -> Self {
        let shared = Shared {
            hook: hook.to_owned(),
            transport,
            queue: Mutex::new(Queue::new(most, most_bytes)),
            more: Notify::new(),
            lost: AtomicU64::new(0),
        };
        Self { shared: Arc::new(shared), courier: OnceLock::new() }
    }

    pub(super) fn push(&self, body: Bytes) -> Result<(), HookError> {
        self.courier.get_or_init(|| {
            let shared = self.shared.clone();
            tokio::spawn(async move { shared.run().await }).abort_handle()
        });
        let mut queue = self.shared.queue.lock();
        let waiting = queue.len();
        if !queue.push(body) {
            return Err(HookError::new(format_args!(
                "{waiting} calls wait for the receiver: there is no room for another one"
            )));
        }
        drop(queue);
        self.shared.more.notify_one();
        Ok(())
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        if let Some(courier) = self.courier.get() {
            courier.abort();
        }
    }
}

#[async_trait]
impl<T: Transport> Outlet for Mailbox<T> {
    async fn put(&self, record: Record) -> Result<(), HookError> {
        self.push(record.into_text().into())
    }

    fn backlog(&self) -> u64 {
        self.shared.queue.lock().len() as u64
    }

    fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl<T: Transport> Shared<T> {
    async fn run(&self) {
        loop {
            let first = self.queue.lock().first();
            match first {
                Some(body) => self.deliver(body).await,
                None => self.more.notified().await,
            }
        }
    }

    /// Returns when the first of the queue is posted, or given up.
    async fn deliver(&self, body: Bytes) {
        let hook = &self.hook;
        let mut tried: u32 = 0;
        loop {
            gauge!("tidewater_hook_backlog", "hook" => hook.clone())
                .set(self.queue.lock().len() as f64);
            match self.transport.post(body.clone()).await {
                Answer::Taken => {
                    if tried > 0 {
                        tracing::info!(%hook, tried, "the receiver of a webhook answers again");
                    }
                    break;
                }
                Answer::Refused(problem) => {
                    self.lost.fetch_add(1, Ordering::Relaxed);
                    counter!("tidewater_hook_lost_total", "hook" => hook.clone()).increment(1);
                    tracing::warn!(%hook, %problem, "the receiver of a webhook refuses a call: lost");
                    break;
                }
                Answer::Again(problem) => {
                    if tried == 0 {
                        tracing::warn!(
                            %hook, %problem, "the receiver of a webhook does not take a call; \
                            it is tried again until it does"
                        );
                    }
                    tokio::time::sleep(wait(tried)).await;
                    tried = tried.saturating_add(1);
                }
            }
        }
        self.queue.lock().done();
    }
}

/// How long to wait after so many attempts before.
fn wait(tried: u32) -> Duration {
    BACKOFF.0.saturating_mul(1 << tried.min(16)).min(BACKOFF.1)
}
