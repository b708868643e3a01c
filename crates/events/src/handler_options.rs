//! Options of the tables of events.

use std::collections::BTreeMap;
use std::time::Duration;

/// Options of a table of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHandlerOptions {
    /// Time after which rows expire; `None`: never.
    pub ttl: Option<Duration>,
    /// Append mode: the table never replaces a row.
    pub append_mode: bool,
    /// Window of time of a row's SST; zero: no windows.
    pub compaction_window: Duration,
}

/// Names of the hints of [`EventHandlerOptions::to_hints`].
pub mod hints {
    /// Time after which rows expire, e.g. `90d`.
    pub const TTL: &str = "ttl";
    /// `true` or `false`.
    pub const APPEND_MODE: &str = "append_mode";
    /// Window of time, e.g. `1d`.
    pub const COMPACTION_WINDOW: &str = "compaction_window";
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Shortest window that a table can be given.
const SHORTEST_WINDOW: Duration = Duration::from_secs(60 * 60);

/// An option of a table of events with a value that it cannot have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("option {field} of an event table cannot be {value:?}: use {rule}")]
pub struct HandlerOptionError {
    /// Name of the field.
    pub field: &'static str,
    /// Its value.
    pub value: Duration,
    /// The rule that the value breaks.
    pub rule: &'static str,
}

impl Default for EventHandlerOptions {
    fn default() -> Self {
        Self { ttl: Some(90 * DAY), append_mode: true, compaction_window: DAY }
    }
}

impl EventHandlerOptions {
    /// Checks the options.
    ///
    /// # Errors
    /// [`HandlerOptionError`] names the first field that is out of its range.
    pub fn check(&self) -> Result<(), HandlerOptionError> {
        if let Some(ttl) = self.ttl.filter(|ttl| ttl.is_zero() || !is_whole_seconds(*ttl)) {
            let rule = "whole seconds, at least 1s";
            return Err(HandlerOptionError { field: hints::TTL, value: ttl, rule });
        }
        let window = self.compaction_window;
        if !window.is_zero() && (window < SHORTEST_WINDOW || !is_whole_seconds(window)) {
            let rule = "whole seconds, at least 1h, or zero for no windows";
            return Err(HandlerOptionError {
                field: hints::COMPACTION_WINDOW,
                value: window,
                rule,
            });
        }
        Ok(())
    }

    /// Returns the options as text for the creation of a table. Times are whole seconds, e.g. `7776000s`.
    pub fn to_hints(&self) -> BTreeMap<&'static str, String> {
        let mut hints = BTreeMap::new();
        if let Some(ttl) = self.ttl {
            hints.insert(hints::TTL, format!("{}s", ttl.as_secs()));
        }
        hints.insert(hints::APPEND_MODE, self.append_mode.to_string());
        if !self.compaction_window.is_zero() {
            let window = format!("{}s", self.compaction_window.as_secs());
            hints.insert(hints::COMPACTION_WINDOW, window);
        }
        hints
    }
}

fn is_whole_seconds(time: Duration) -> bool {
    time.subsec_nanos() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let ms = Duration::from_millis;
        for (ttl_ms, window_ms, field) in [
            (Some(1_000), 3_600_000, None),
            (None, 0, None),
            (Some(90_000), 86_400_000, None),
            (Some(0), 0, Some("ttl")),
            (Some(999), 0, Some("ttl")),
            (Some(1_500), 0, Some("ttl")),
            (None, 1, Some("compaction_window")),
            (None, 3_599_000, Some("compaction_window")),
            (None, 3_600_001, Some("compaction_window")),
        ] {
            let options = EventHandlerOptions {
                ttl: ttl_ms.map(ms),
                compaction_window: ms(window_ms),
                ..EventHandlerOptions::default()
            };
            let refused = options.check().err();
            assert_eq!(refused.map(|error| error.field), field, "{options:?}");
        }
        assert_eq!(EventHandlerOptions::default().check(), Ok(()));
    }

    #[test]
    fn refused_option_has_its_value_and_rule() {
        let options = EventHandlerOptions {
            compaction_window: Duration::from_secs(30),
            ..EventHandlerOptions::default()
        };
        assert_eq!(
            options.check().unwrap_err().to_string(),
            "option compaction_window of an event table cannot be 30s: use whole seconds, at least 1h, or zero for no \
             windows"
        );
    }

    #[test]
    fn hints_have_the_options_of_tables() {
        let hints = EventHandlerOptions::default().to_hints();
        let expected =
            [("append_mode", "true"), ("compaction_window", "86400s"), ("ttl", "7776000s")];
        assert!(hints.iter().map(|(name, text)| (*name, text.as_str())).eq(expected));
        let options = EventHandlerOptions {
            ttl: None,
            append_mode: false,
            compaction_window: Duration::ZERO,
        };
        assert!(options.to_hints().into_iter().eq([("append_mode", "false".to_owned())]));
    }
}
