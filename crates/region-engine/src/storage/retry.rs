//! Bounded retries of idempotent calls.

use std::time::Duration;

use super::{StorageError, StorageOptions};

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
                sleep_backoff(options.backoff, options.backoff_limit, attempts).await;
            }
        }
    }
}

/// Sleeps between two attempts.
pub(crate) async fn sleep_backoff(first: Duration, limit: Duration, attempts: u32) {
    let pause = backoff(first, limit, attempts);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Backoff after `attempts` attempts: doubles from `first`, up to `limit`.
fn backoff(first: Duration, limit: Duration, attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_backoff_doubles_up_to_the_limit() {
        let first = Duration::from_millis(50);
        let limit = Duration::from_millis(300);
        let pauses: Vec<u128> = [1, 2, 3, 4, 40]
            .iter()
            .map(|attempts| backoff(first, limit, *attempts).as_millis())
            .collect();
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
    }
}
