//! Rule of the events that a new leader records again. Pure.

/// Replicated time for which an event is due at a new leader, in milliseconds. Longer than any election, and than the time
/// in which a leader's spool receives an event.
pub(crate) const DUE_MS: u64 = 10 * 60 * 1_000;

/// Returns whether a new leader records an event again. Times are replicated, in milliseconds since the Unix epoch.
pub(crate) fn is_due(event_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(event_ms) <= DUE_MS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_due_for_ten_minutes() {
        const NOW: u64 = 1_700_000_000_000;
        for (event_ms, expected) in [
            (0, false),
            (NOW - DUE_MS - 1, false),
            (NOW - DUE_MS, true),
            (NOW, true),
            // The event of an entry that this replica has applied since.
            (NOW + 1, true),
        ] {
            assert_eq!(is_due(event_ms, NOW), expected, "{event_ms}");
        }
    }
}
