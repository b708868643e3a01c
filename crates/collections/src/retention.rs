//! Rule of since.

use tidewater_common::ids::Epoch;

use crate::capabilities::Capabilities;
use crate::policy::ReadPolicy;

/// Everything that holds since back.
#[derive(Debug, Clone, Copy)]
pub struct Retention<'a> {
    /// Policy of the collection.
    pub policy: &'a ReadPolicy,
    /// Capabilities of the collection; an empty set holds nothing back.
    pub capabilities: &'a Capabilities,
    /// Least epoch of the live holds; `None`: there are none.
    pub least_hold: Option<Epoch>,
}

impl Retention<'_> {
    /// Returns since at an upper. `since`: before; the result is not less.
    pub fn since_at(&self, since: Epoch, upper: Epoch) -> Epoch {
        let implied = self.policy.implied(upper).unwrap_or(since);
        let promised = [self.capabilities.least(), self.least_hold];
        let least = promised.into_iter().flatten().fold(implied.min(upper), Epoch::min);
        since.max(least)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::testing::at;

    #[test]
    fn since_is_the_least_of_all_that_hold() {
        let lag = ReadPolicy::LagWriteFrontier { lag_ms: 10, granularity_ms: 0 };
        let none = Capabilities::default();
        let plain = Retention { policy: &lag, capabilities: &none, least_hold: None };
        let capabilities = Capabilities::from_counts([(at(30), NonZeroU64::MIN)]).unwrap();
        let capable = Retention { capabilities: &capabilities, ..plain };
        let held = Retention { least_hold: Some(at(20)), ..capable };
        let kept = Retention { policy: &ReadPolicy::NoPolicy, ..plain };
        let later = ReadPolicy::ValidFrom(at(60));
        let later = Retention { policy: &later, ..plain };
        for (retention, expected) in
            [(plain, 40), (capable, 30), (held, 20), (kept, 5), (later, 50)]
        {
            assert_eq!(retention.since_at(at(5), at(50)), at(expected), "{retention:?}");
            // It never goes back.
            assert_eq!(retention.since_at(at(50), at(50)), at(50), "{retention:?}");
        }
    }
}
