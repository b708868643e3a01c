//! Conditions with timeouts, instead of fixed sleeps.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;

use crate::{HarnessError, Result};

/// Interval between attempts.
const INTERVAL: Duration = Duration::from_millis(40);

/// Calls `attempt` until it returns a value. An `Err` is the reason to continue.
///
/// # Errors
/// [`HarnessError::Timeout`] with the last reason after `limit`.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut attempt: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + limit;
    let mut last = "nothing yet".to_owned();
    loop {
        match tokio::time::timeout_at(deadline, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = reason,
            Err(_) => {
                return Err(HarnessError::Timeout { what: what.to_owned(), limit, last });
            }
        }
        if Instant::now() >= deadline {
            return Err(HarnessError::Timeout { what: what.to_owned(), limit, last });
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn timeout_reports_the_last_reason() {
        let error = until("pigs fly", Duration::from_millis(90), || async {
            Err::<(), _>("no wings".to_owned())
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("no wings"), "{error}");
    }

    #[tokio::test]
    async fn hanging_attempt_ends_at_the_limit() {
        let error = until("an answer", Duration::from_millis(90), || async {
            std::future::pending::<Result<(), String>>().await
        })
        .await
        .unwrap_err();
        assert!(error.to_string().contains("nothing yet"), "{error}");
    }
}
