//! Lengths of the leases of holds: `10s` to `30d`.

use tidewater_client::AcquireHold;

use super::time_span::{TimeSpan, TimeSpanError};

/// An invalid lease.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error(transparent)]
    TimeSpan(#[from] TimeSpanError),
    #[error("{0} is not the length of a lease (minimum 10s, maximum 30d)")]
    OutOfRange(TimeSpan),
}

/// Parses the length of a lease. In a request, 0 is another length.
pub(crate) fn lease(text: &str) -> Result<TimeSpan, LeaseError> {
    let span: TimeSpan = text.parse()?;
    if !(AcquireHold::MIN_LEASE..=AcquireHold::MAX_LEASE).contains(&span.duration()) {
        return Err(LeaseError::OutOfRange(span));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_out_of_range_are_refused() {
        for (text, ms) in [("10s", 10_000), ("1h", 3_600_000), ("30d", 2_592_000_000)] {
            assert_eq!(lease(text), Ok(TimeSpan(ms)));
        }
        for (text, ms) in [("0s", 0), ("9999ms", 9_999), ("2592000001ms", 2_592_000_001)] {
            assert_eq!(lease(text), Err(LeaseError::OutOfRange(TimeSpan(ms))));
        }
        assert!(matches!(lease("long"), Err(LeaseError::TimeSpan(_))));
    }
}
