//! Filter of events by type (pure).

use crate::name::check_name;

/// Types of events that are recorded. Default: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeFilter {
    /// The first rule that matches decides; without a match, a type is recorded unless the rules begin with an
    /// included one.
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    includes: bool,
    /// Type, or its beginning.
    pattern: String,
    is_prefix: bool,
}

/// Text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a filter of event types: use a type such as node_up, a beginning such as hook_*, or either with ! before it to leave it out"
)]
pub struct FilterError(String);

impl TypeFilter {
    /// Parses a filter: types and beginnings of types such as `hook_*`, separated by commas. Those with `!` are left
    /// out. A filter that begins with one without `!` records nothing else.
    ///
    /// # Errors
    /// [`FilterError`] names the part that is no type.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let rules = parts
            .map(|part| {
                let (includes, rest) = match part.strip_prefix('!') {
                    Some(rest) => (false, rest),
                    None => (true, part),
                };
                let (pattern, is_prefix) = match rest.strip_suffix('*') {
                    Some(pattern) => (pattern, true),
                    None => (rest, false),
                };
                let is_valid =
                    (is_prefix && pattern.is_empty()) || check_name("type", pattern).is_ok();
                if !is_valid {
                    return Err(FilterError(part.to_owned()));
                }
                Ok(Rule { includes, pattern: pattern.to_owned(), is_prefix })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { rules })
    }

    /// Returns whether events of a type are recorded.
    pub fn records(&self, event_type: &str) -> bool {
        let matching = self.rules.iter().find(|rule| {
            if rule.is_prefix {
                event_type.starts_with(&rule.pattern)
            } else {
                event_type == rule.pattern
            }
        });
        match (matching, self.rules.first()) {
            (Some(rule), _) => rule.includes,
            (None, Some(first)) => !first.includes,
            (None, None) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_decide_by_their_first_match() {
        let records =
            |filter: &str, event_type| TypeFilter::parse(filter).unwrap().records(event_type);
        for (filter, event_type, expected) in [
            ("", "node_up", true),
            ("node_up", "node_up", true),
            ("node_up", "node_down", false),
            ("node_*, hook_failed", "node_down", true),
            ("node_*, hook_failed", "hook_lagging", false),
            ("!slow_*", "slow_scan", false),
            ("!slow_*", "node_up", true),
            ("!hook_failed, hook_*", "hook_failed", false),
            ("!hook_failed, hook_*", "hook_lagging", true),
            ("!*", "node_up", false),
        ] {
            assert_eq!(records(filter, event_type), expected, "{filter} {event_type}");
        }
    }

    #[test]
    fn filters_that_are_no_types_are_refused() {
        for text in ["a b", "!", "A", "a*b", "node_up,-"] {
            let error = TypeFilter::parse(text).unwrap_err();
            assert!(error.to_string().contains("use a type such as"), "{error}");
        }
    }
}
