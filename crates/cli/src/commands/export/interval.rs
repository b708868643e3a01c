//! Time between the begins of two steps of an export.

use tidewater_client::ExportDefinition;

use crate::text::time_span::{TimeSpan, TimeSpanError};

/// An invalid interval.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IntervalError {
    #[error(transparent)]
    TimeSpan(#[from] TimeSpanError),
    #[error("{0} is not the interval of an export (minimum 1s, maximum 1d)")]
    OutOfRange(TimeSpan),
}

/// Parses an interval. In a request, 0 is another one.
pub(super) fn interval(text: &str) -> Result<TimeSpan, IntervalError> {
    let span: TimeSpan = text.parse()?;
    let range = ExportDefinition::MIN_INTERVAL..=ExportDefinition::MAX_INTERVAL;
    if !range.contains(&span.duration()) {
        return Err(IntervalError::OutOfRange(span));
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_out_of_range_are_refused() {
        for (text, ms) in [("1s", 1_000), ("10s", 10_000), ("1d", 86_400_000)] {
            assert_eq!(interval(text), Ok(TimeSpan(ms)));
        }
        for (text, ms) in [("0s", 0), ("999ms", 999), ("86400001ms", 86_400_001)] {
            assert_eq!(interval(text), Err(IntervalError::OutOfRange(TimeSpan(ms))));
        }
        assert!(matches!(interval("often"), Err(IntervalError::TimeSpan(_))));
    }
}
