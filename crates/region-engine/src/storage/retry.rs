//! Bounded retries of idempotent calls.

use tidewater_common::backoff::Backoff;

use super::{Storage, StorageError, StorageOptions};

/// Makes up to `options.attempts` attempts of `call` while its error is transient.
pub(super) async fn idempotent<T, C, F>(
    options: &StorageOptions,
    mut call: C,
) -> Result<T, StorageError>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, StorageError>>,
{
    let mut attempts = 0;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                attempts += 1;
                if attempts >= options.attempts || !error.is_transient() {
                    return Err(error);
                }
                pause(options, options.backoff, attempts).await;
            }
        }
    }
}

impl Storage {
    /// Sleeps after attempt number `made` (from 1) of an operation on several objects.
    pub(crate) async fn back_off(&self, backoff: Backoff, made: u32) {
        pause(&self.inner.options, backoff, made).await;
    }
}

async fn pause(options: &StorageOptions, backoff: Backoff, made: u32) {
    if backoff != Backoff::NONE {
        tokio::time::sleep(backoff.wait(made, None, options.jitter.bits())).await;
    }
}
