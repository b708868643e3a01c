//! Durations: `500ms`, `30s`, `15m`, `6h`, `90d`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A duration in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeSpan(pub(crate) u64);

/// An invalid duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TimeSpanError {
    #[error("`{0}` is not a duration: write a whole number and ms, s, m, h or d, e.g. 90d")]
    Form(String),
    #[error("`{0}` is too long: the maximum is 2^64 - 1 milliseconds")]
    Overflow(String),
}

impl TimeSpan {
    pub(crate) fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// Returns the duration as a limit; `None` for 0: there is no limit.
    pub(crate) fn limit(self) -> Option<Duration> {
        (self.0 > 0).then(|| self.duration())
    }
}

impl FromStr for TimeSpan {
    type Err = TimeSpanError;

    fn from_str(text: &str) -> Result<Self, TimeSpanError> {
        let trimmed = text.trim();
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = trimmed.split_at(digits);
        let factor = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(TimeSpanError::Form(text.to_owned())),
        };
        if number.is_empty() {
            return Err(TimeSpanError::Form(text.to_owned()));
        }
        number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| TimeSpanError::Overflow(text.to_owned()))
    }
}

impl fmt::Display for TimeSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if self.0 != 0 && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_display() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("15m", 900_000),
            ("6h", 21_600_000),
            ("90d", 7_776_000_000),
        ] {
            assert_eq!(text.parse(), Ok(TimeSpan(ms)), "{text}");
            assert_eq!(TimeSpan(ms).to_string(), text);
        }
    }

    #[test]
    fn zero_duration_is_no_limit() {
        assert_eq!(TimeSpan(0).limit(), None);
        assert_eq!(TimeSpan(5).limit(), Some(Duration::from_millis(5)));
    }

    #[test]
    fn invalid_durations_are_rejected() {
        for text in ["", "90", "d", "1.5h", "-1d", "3 weeks"] {
            assert_eq!(text.parse::<TimeSpan>(), Err(TimeSpanError::Form(text.into())), "{text}");
        }
        let huge = "99999999999999d";
        assert_eq!(huge.parse::<TimeSpan>(), Err(TimeSpanError::Overflow(huge.into())));
    }
}
