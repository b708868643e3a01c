//! Epochs of reads: `5962137600000000`, `5m`, `2026-01-31T10:00:00Z`.

use std::str::FromStr;

use tidewater_common::ids::Epoch;

use super::moment::Moment;

/// Epoch of a read, as a number or by a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AsOf {
    /// This epoch.
    Epoch(Epoch),
    /// The epoch of a time.
    Time(Moment),
}

/// An invalid epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no epoch: write its number, a duration before now, e.g. 5m, or a time in UTC, e.g. 2026-01-31T10:00:00Z"
)]
pub(crate) struct AsOfError(String);

impl AsOf {
    /// Parses the epoch of a hold or an export. In a request, 0 is another one.
    pub(crate) fn held(text: &str) -> Result<Self, AsOfError> {
        match text.parse::<Self>()? {
            Self::Epoch(Epoch(0)) => Err(AsOfError(text.to_owned())),
            as_of => Ok(as_of),
        }
    }
}

impl FromStr for AsOf {
    type Err = AsOfError;

    fn from_str(text: &str) -> Result<Self, AsOfError> {
        if let Ok(number) = text.trim().parse() {
            return Ok(Self::Epoch(Epoch(number)));
        }
        text.parse().map(Self::Time).map_err(|_| AsOfError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::time_span::TimeSpan;

    #[test]
    fn whole_numbers_are_epochs() {
        for (text, number) in [("0", 0), ("5962137600000000", 5_962_137_600_000_000)] {
            assert_eq!(text.parse(), Ok(AsOf::Epoch(Epoch(number))));
        }
    }

    #[test]
    fn durations_and_times_are_moments() {
        let five_minutes = Moment::Ago(TimeSpan(300_000));
        assert_eq!("5m".parse(), Ok(AsOf::Time(five_minutes)));
        let time = Moment::At(1_357_034_400_000_000_000);
        assert_eq!("2013-01-01T10:00:00Z".parse(), Ok(AsOf::Time(time)));
    }

    #[test]
    fn epoch_zero_cannot_be_held() {
        assert_eq!(AsOf::held("1"), Ok(AsOf::Epoch(Epoch(1))));
        assert_eq!(AsOf::held("0s"), Ok(AsOf::Time(Moment::Ago(TimeSpan(0)))));
        for text in ["0", "yesterday"] {
            assert_eq!(AsOf::held(text), Err(AsOfError(text.to_owned())));
        }
    }

    #[test]
    fn other_texts_are_rejected() {
        for text in ["", "yesterday", "-1", "1.5h", "99999999999999999999"] {
            assert_eq!(text.parse::<AsOf>(), Err(AsOfError(text.to_owned())));
        }
    }
}
