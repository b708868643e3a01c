//! Times, and durations before now: `90m`, `2026-01-31T10:00:00Z`.

use std::cmp::Ordering;
use std::str::FromStr;

use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;

use super::time_span::TimeSpan;

/// A time, absolute or relative to now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A duration before now.
    Ago(TimeSpan),
    /// Nanoseconds since the Unix epoch.
    At(i64),
}

/// An invalid time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time: write a duration before now, e.g. 90m, or a time in UTC, e.g. 2026-01-31T10:00:00Z"
)]
pub(crate) struct MomentError(String);

impl Moment {
    /// Returns the time in nanoseconds since the Unix epoch. `now_ns`: the time now.
    pub(crate) fn ns(self, now_ns: i64) -> i64 {
        match self {
            Self::Ago(span) => {
                let ns = i64::try_from(span.duration().as_nanos()).unwrap_or(i64::MAX);
                now_ns.saturating_sub(ns)
            }
            Self::At(ns) => ns,
        }
    }

    /// Returns the time in milliseconds since the Unix epoch, 0 for one before it. `now_ms`: the time now.
    pub(crate) fn ms(self, now_ms: u64) -> u64 {
        let now_ns = i64::try_from(now_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        u64::try_from(self.ns(now_ns) / 1_000_000).unwrap_or(0)
    }

    /// Compares two times; `None`: their order depends on the time now.
    pub(crate) fn known_order(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Ago(first), Self::Ago(second)) => Some(second.duration().cmp(&first.duration())),
            (Self::At(first), Self::At(second)) => Some(first.cmp(&second)),
            (Self::Ago(_), Self::At(_)) | (Self::At(_), Self::Ago(_)) => None,
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        if let Ok(span) = text.parse() {
            return Ok(Self::Ago(span));
        }
        match string_to_timestamp_nanos(text.trim()) {
            Ok(ns) => Ok(Self::At(ns)),
            Err(_) => Err(MomentError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000_000;

    #[test]
    fn durations_count_back_from_now() {
        let ns = |text: &str| text.parse::<Moment>().unwrap().ns(NOW);
        assert_eq!(ns("0s"), NOW);
        assert_eq!(ns("1h"), NOW - 3_600_000_000_000);
        assert_eq!(ns("18446744073709551615ms"), NOW - i64::MAX);
    }

    #[test]
    fn milliseconds_are_rounded_down() {
        let ms = |text: &str| text.parse::<Moment>().unwrap().ms(1_700_000_000_123);
        assert_eq!(ms("3ms"), 1_700_000_000_120);
        assert_eq!(ms("2013-01-01T10:00:00.0019Z"), 1_357_034_400_001);
        assert_eq!(ms("1900-01-01"), 0);
        assert_eq!(ms("99999d"), 0);
    }

    #[test]
    fn times_of_one_kind_have_a_known_order() {
        for (first, second, expected) in [
            ("2m", "1m", Some(Ordering::Less)),
            ("1m", "60s", Some(Ordering::Equal)),
            ("2013-01-02", "2013-01-01", Some(Ordering::Greater)),
            ("1m", "2013-01-01", None),
            ("2013-01-01", "1m", None),
        ] {
            let moment = |text: &str| text.parse::<Moment>().unwrap();
            assert_eq!(moment(first).known_order(moment(second)), expected, "{first} {second}");
        }
    }

    #[test]
    fn times_without_an_offset_are_in_utc() {
        for text in ["2013-01-01T10:00:00Z", "2013-01-01 10:00:00", "2013-01-01T11:00:00+01:00"] {
            let parsed: Moment = text.parse().unwrap();
            assert_eq!(parsed.ns(NOW), 1_357_034_400_000_000_000, "{text}");
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in ["", "yesterday", "10", "-1h", "99999999999999999999d", "2013-13-01"] {
            assert_eq!(text.parse::<Moment>(), Err(MomentError(text.to_owned())));
        }
    }
}
