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

impl Default for EventHandlerOptions {
    fn default() -> Self {
        Self { ttl: Some(90 * DAY), append_mode: true, compaction_window: DAY }
    }
}

impl EventHandlerOptions {
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

#[cfg(test)]
mod tests {
    use super::*;

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
