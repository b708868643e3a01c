//! Difference between a node's clock and the cluster's clocks.

use std::fmt;

/// A clock that differs by more than the configured bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockDifference {
    /// The clock minus the cluster's clocks, in milliseconds.
    pub difference_ms: i64,
    /// Greatest allowed difference in milliseconds.
    pub bound_ms: u64,
    /// Time since which it is known, by the cluster's clocks, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl ClockDifference {
    /// Returns the difference of a clock from a reference if it exceeds the bound.
    #[must_use]
    pub fn beyond(bound_ms: u64, wall_ms: u64, reference_ms: u64) -> Option<i64> {
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        (wall_ms.abs_diff(reference_ms) > bound_ms)
            .then(|| signed(wall_ms).saturating_sub(signed(reference_ms)))
    }
}

impl fmt::Display for ClockDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.difference_ms < 0 { "behind" } else { "ahead of" };
        let seconds = self.difference_ms.unsigned_abs() / 1_000;
        let allowed = self.bound_ms / 1_000;
        write!(f, "{seconds} s {direction} the cluster's clocks (allowed: {allowed} s) since ")?;
        write_utc(f, self.since_ms / 1_000)
    }
}

/// Writes a time in UTC: `2026-11-21 13:35:29 UTC`.
fn write_utc(f: &mut fmt::Formatter<'_>, seconds: u64) -> fmt::Result {
    // Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let time = seconds % 86_400;
    let (hour, minute) = (time / 3_600, time / 60 % 60);
    write!(f, "{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC", time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_shows_its_direction_and_date() {
        let shown = |difference_ms, since_ms| {
            ClockDifference { difference_ms, bound_ms: 600_000, since_ms }.to_string()
        };
        let cases = [
            (3_600_999, 1_795_268_129_000, "3600 s ahead of", "2026-11-21 13:35:29"),
            (-700_000, 951_782_400_000, "700 s behind", "2000-02-29 00:00:00"),
            (700_000, 1_767_225_599_999, "700 s ahead of", "2025-12-31 23:59:59"),
            (700_000, 0, "700 s ahead of", "1970-01-01 00:00:00"),
        ];
        for (difference_ms, since_ms, offset, since) in cases {
            let expected =
                format!("{offset} the cluster's clocks (allowed: 600 s) since {since} UTC");
            assert_eq!(shown(difference_ms, since_ms), expected);
        }
    }
}
