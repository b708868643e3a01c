//! Hints of a handler, text to text, as options of a table (pure).

use std::collections::BTreeMap;
use std::time::Duration;

use tidewater_common::quote::quoted;
use tidewater_common::schema::WriteMode;
use tidewater_events::hints;

/// Options of a new table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableHints {
    /// Time after which rows expire; `None`: never.
    pub ttl: Option<Duration>,
    /// Append-only, unless the hints say otherwise.
    pub write_mode: WriteMode,
    /// Window of time of a row's SST; `None`: no windows.
    pub compaction_window: Option<Duration>,
}

/// A hint that is no option of a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HintError {
    /// The name is unknown.
    #[error("there is no table option {}: use ttl, append_mode or compaction_window", quoted(.0))]
    Unknown(String),
    /// The value is invalid.
    #[error("table option {option} cannot be {}: use {rule}", quoted(.value))]
    Value {
        /// Name of the option.
        option: &'static str,
        /// The value.
        value: String,
        /// Values that it can have.
        rule: &'static str,
    },
}

const TIMES: &str = "a whole number above 0 with a unit, s, m, h or d, e.g. 90d";

impl TableHints {
    /// Parses hints. Options without a hint have their defaults: rows do not expire, append-only, no windows.
    ///
    /// # Errors
    /// [`HintError`] names the first hint that is no option.
    pub fn parse<'a>(
        hints: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, HintError> {
        let mut parsed =
            Self { ttl: None, write_mode: WriteMode::AppendOnly, compaction_window: None };
        for (name, value) in hints {
            match name {
                hints::TTL => parsed.ttl = Some(time(hints::TTL, value)?),
                hints::APPEND_MODE => parsed.write_mode = write_mode(value)?,
                hints::COMPACTION_WINDOW => {
                    parsed.compaction_window = Some(time(hints::COMPACTION_WINDOW, value)?);
                }
                unknown => return Err(HintError::Unknown(unknown.to_owned())),
            }
        }
        Ok(parsed)
    }

    /// As [`Self::parse`], of the hints of a handler.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_map(hints: &BTreeMap<&'static str, String>) -> Result<Self, HintError> {
        Self::parse(hints.iter().map(|(name, value)| (*name, value.as_str())))
    }
}

fn write_mode(value: &str) -> Result<WriteMode, HintError> {
    match value {
        "true" => Ok(WriteMode::AppendOnly),
        "false" => Ok(WriteMode::Upsert),
        _ => Err(HintError::Value {
            option: hints::APPEND_MODE,
            value: value.to_owned(),
            rule: "true or false",
        }),
    }
}

fn time(option: &'static str, value: &str) -> Result<Duration, HintError> {
    let seconds = value.char_indices().last().and_then(|(end, unit)| {
        let unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return None,
        };
        let number = value[..end].parse::<u64>().ok().filter(|number| *number > 0)?;
        number.checked_mul(unit)
    });
    let invalid = || HintError::Value { option, value: value.to_owned(), rule: TIMES };
    seconds.map(Duration::from_secs).ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use tidewater_events::EventHandlerOptions;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn hints_of_a_handler_are_options_of_a_table() {
        let defaults = EventHandlerOptions::default();
        assert_eq!(
            TableHints::from_map(&defaults.to_hints()),
            Ok(TableHints {
                ttl: Some(90 * DAY),
                write_mode: WriteMode::AppendOnly,
                compaction_window: Some(DAY),
            })
        );
        let options = EventHandlerOptions {
            ttl: None,
            append_mode: false,
            compaction_window: Duration::ZERO,
        };
        let upsert =
            TableHints { ttl: None, write_mode: WriteMode::Upsert, compaction_window: None };
        assert_eq!(TableHints::from_map(&options.to_hints()), Ok(upsert));
    }

    #[test]
    fn times_have_a_number_and_a_unit() {
        let ttl = |value| TableHints::parse([("ttl", value)]).map(|parsed| parsed.ttl);
        for (value, seconds) in [("1s", 1), ("2m", 120), ("3h", 10_800), ("90d", 7_776_000)] {
            assert_eq!(ttl(value), Ok(Some(Duration::from_secs(seconds))), "{value}");
        }
        for value in ["", "d", "90", "0s", "-1s", "1.5h", "1 d", "90ä", "1w", "300000000000000d"] {
            let error = ttl(value).unwrap_err();
            assert!(matches!(error, HintError::Value { option: "ttl", .. }), "{error}");
        }
    }

    #[test]
    fn unknown_hints_are_refused() {
        for (name, value) in [("TTL", "1d"), ("regions", "3"), ("", "")] {
            let error = TableHints::parse([("ttl", "1d"), (name, value)]).unwrap_err();
            assert_eq!(error, HintError::Unknown(name.to_owned()));
        }
        let error = TableHints::parse([("append_mode", "yes")]).unwrap_err();
        let text = r#"table option append_mode cannot be "yes": use true or false"#;
        assert_eq!(error.to_string(), text);
    }
}
