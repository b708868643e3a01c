//! Blocking threads for CPU-bound work. Permits bound the threads that compute at the same time; a
//! thread that waits for something else gives its permit back until it continues.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::EngineError;

/// Right of one blocking thread to compute. It holds at most one permit, which returns when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct WorkerSlot {
    workers: Arc<Semaphore>,
    runtime: Handle,
    permit: Mutex<Option<OwnedSemaphorePermit>>,
}

impl WorkerSlot {
    /// Creates a slot without a permit, for a thread outside of `runtime`.
    pub(crate) fn new(workers: Arc<Semaphore>, runtime: Handle) -> Self {
        Self { workers, runtime, permit: Mutex::new(None) }
    }

    /// Waits for a permit if there is none yet.
    pub(crate) async fn acquire(&self) {
        if self.permit.lock().is_some() {
            return;
        }
        // The semaphore is never closed.
        let permit = self.workers.clone().acquire_owned().await.ok();
        *self.permit.lock() = permit;
    }

    /// Gives the permit back: a waiting thread gets it first.
    pub(crate) fn release(&self) {
        *self.permit.lock() = None;
    }

    /// Blocks the thread on `wait` without a permit.
    pub(crate) fn without_permit<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.release();
        let value = wait();
        self.runtime.block_on(self.acquire());
        value
    }
}

/// Runs CPU-bound work on a blocking thread once it has a permit.
pub(crate) async fn on_worker<T: Send + 'static>(
    workers: &Arc<Semaphore>,
    work: impl FnOnce(Arc<WorkerSlot>) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    let slot = Arc::new(WorkerSlot::new(workers.clone(), Handle::current()));
    slot.acquire().await;
    let done = tokio::task::spawn_blocking(move || work(slot));
    match done.await {
        Ok(result) => result,
        Err(error) => {
            Err(EngineError::Internal { detail: format!("a worker task failed: {error}") })
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn thread_that_waits_leaves_its_permit_to_others() {
        let workers = Arc::new(Semaphore::new(1));
        let (sender, mut receiver) = mpsc::channel::<u8>(1);
        let waiting = tokio::spawn({
            let workers = workers.clone();
            async move {
                on_worker(&workers, move |slot| {
                    slot.without_permit(|| sender.blocking_send(1).ok());
                    slot.without_permit(|| sender.blocking_send(2).ok());
                    Ok(())
                })
                .await
            }
        });
        // The channel is full while the second message waits, and the only permit is free.
        while receiver.is_empty() {
            tokio::task::yield_now().await;
        }
        on_worker(&workers, |_| Ok(())).await.unwrap();
        assert!(!waiting.is_finished());
        assert_eq!((receiver.recv().await, receiver.recv().await), (Some(1), Some(2)));
        waiting.await.unwrap().unwrap();
        assert_eq!(workers.available_permits(), 1);
    }

    #[tokio::test]
    async fn permit_returns_when_work_panics() {
        let workers = Arc::new(Semaphore::new(1));
        let failed = on_worker::<()>(&workers, |_| panic!("expected")).await;
        assert!(matches!(failed, Err(EngineError::Internal { .. })), "{failed:?}");
        assert_eq!(workers.available_permits(), 1);
    }
}
