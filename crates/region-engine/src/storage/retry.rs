//! Bounded retries of calls that may be repeated.

use std::time::Duration;

use super::{StorageError, StorageOptions};

/// Tries `call` up to `options.attempts` times while its error may pass.
pub(super) async fn idempotent<T, C, F>(
    options: &StorageOptions,
    mut call: C,
) -> Result<T, StorageError>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T, StorageError>>,
{
    let mut tried = 0;
    loop {
        match call().await {
            Ok(value) => return Ok(value),
            Err(error) => {
                tried += 1;
                if tried >= options.attempts || !error.is_transient() {
                    return Err(error);
                }
                rest(options.backoff, options.backoff_limit, tried).await;
            }
        }
    }
}

/// Waits between two tries.
pub(crate) async fn rest(first: Duration, limit: Duration, tried: u32) {
    let pause = pause(first, limit, tried);
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// The pause after `tried` tries: doubles from `first`, up to `limit`.
fn pause(first: Duration, limit: Duration, tried: u32) -> Duration {
    let factor = 1_u32.checked_shl(tried.saturating_sub(1)).unwrap_or(u32::MAX);
    first.saturating_mul(factor).min(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit() {
        let (first, limit) = (Duration::from_millis(50), Duration::from_millis(300));
        let pauses: Vec<u128> =
            [1, 2, 3, 4, 40].iter().map(|tried| pause(first, limit, *tried).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
    }
}
