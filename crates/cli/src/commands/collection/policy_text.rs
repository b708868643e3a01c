//! Text of a read policy: `default`, `keep-all`, `valid-from 5962137600000000`, `lag 1h`, `lag 1h granularity 1m`. A combined
//! policy keeps all that one of its parts keeps: `lag 1h + valid-from 5962137600000000`.

use tidewater_proto::v1::{LagWriteFrontier, ReadPolicies, ReadPolicy, read_policy::Policy};

use crate::text::time_span::TimeSpan;

/// Text of a policy of a later release.
const UNKNOWN: &str = "unknown";

/// Returns the text of a policy; `None`: the table follows the history of the cluster.
pub(crate) fn policy_text(policy: Option<&ReadPolicy>) -> String {
    match policy {
        None => "default".to_owned(),
        Some(policy) => parts(policy).join(" + "),
    }
}

/// Returns the texts of the parts. The depth of a message is limited by its decoder.
fn parts(policy: &ReadPolicy) -> Vec<String> {
    let text = match &policy.policy {
        None => UNKNOWN.to_owned(),
        Some(Policy::Empty(_)) => "empty".to_owned(),
        Some(Policy::NoPolicy(_)) => "keep-all".to_owned(),
        Some(Policy::ValidFrom(epoch)) => format!("valid-from {epoch}"),
        Some(Policy::LagWriteFrontier(lag)) => lag_text(lag),
        Some(Policy::Multiple(ReadPolicies { policies })) => {
            return policies.iter().flat_map(parts).collect();
        }
    };
    vec![text]
}

fn lag_text(lag: &LagWriteFrontier) -> String {
    let span = TimeSpan(lag.lag_ms);
    match lag.granularity_ms {
        0 => format!("lag {span}"),
        granularity_ms => format!("lag {span} granularity {}", TimeSpan(granularity_ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(of: Policy) -> ReadPolicy {
        ReadPolicy { policy: Some(of) }
    }

    fn lag(lag_ms: u64, granularity_ms: u64) -> ReadPolicy {
        policy(Policy::LagWriteFrontier(LagWriteFrontier { lag_ms, granularity_ms }))
    }

    fn multiple(policies: Vec<ReadPolicy>) -> ReadPolicy {
        policy(Policy::Multiple(ReadPolicies { policies }))
    }

    #[test]
    fn texts_of_policies_are_stable() {
        let nested = multiple(vec![lag(60_000, 0), policy(Policy::ValidFrom(9))]);
        for (policy, text) in [
            (None, "default"),
            (Some(policy(Policy::Empty(true))), "empty"),
            (Some(policy(Policy::NoPolicy(true))), "keep-all"),
            (Some(policy(Policy::ValidFrom(7))), "valid-from 7"),
            (Some(lag(3_600_000, 0)), "lag 1h"),
            (Some(lag(90_500, 60_000)), "lag 90500ms granularity 1m"),
            (Some(lag(0, 0)), "lag 0ms"),
            (Some(multiple(vec![nested, lag(1_000, 0)])), "lag 1m + valid-from 9 + lag 1s"),
            (Some(ReadPolicy { policy: None }), "unknown"),
        ] {
            assert_eq!(policy_text(policy.as_ref()), text);
        }
    }
}
