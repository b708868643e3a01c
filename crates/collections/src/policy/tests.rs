use super::*;
use crate::testing::at;

const LIMIT: Epoch = Epoch(1_000);

fn lag(lag_ms: u64, granularity_ms: u64) -> ReadPolicy {
    ReadPolicy::LagWriteFrontier { lag_ms, granularity_ms }
}

fn valid_from(epoch: u64) -> ReadPolicy {
    ReadPolicy::ValidFrom(Epoch(epoch))
}

fn multiple(parts: impl IntoIterator<Item = ReadPolicy>) -> ReadPolicy {
    ReadPolicy::Multiple(parts.into_iter().collect())
}

/// Returns a policy with this number of [`ReadPolicy::Multiple`] around it.
fn nested(policy: ReadPolicy, depth: usize) -> ReadPolicy {
    (0..depth).fold(policy, |inner, _| multiple([inner]))
}

#[test]
fn policies_imply_epochs() {
    let upper = at(25_000);
    for (policy, expected) in [
        (ReadPolicy::Empty, Some(upper)),
        (ReadPolicy::NoPolicy, None),
        (ReadPolicy::ValidFrom(at(30_000)), Some(at(30_000))),
        (lag(0, 0), Some(upper)),
        (lag(1_500, 0), Some(at(23_500))),
        (lag(1_500, 1), Some(at(23_500))),
        (lag(1_500, 1_000), Some(at(23_000))),
        (lag(0, 10_000), Some(at(20_000))),
        (lag(26_000, 1_000), Some(Epoch(0))),
        (lag(u64::MAX, u64::MAX), Some(Epoch(0))),
        (multiple([lag(0, 10_000), lag(2_000, 0)]), Some(at(20_000))),
        (multiple([lag(0, 10_000), multiple([lag(9_000, 0)])]), Some(at(16_000))),
    ] {
        assert_eq!(policy.implied(upper), expected, "{policy:?}");
    }
    assert_eq!(lag(5, 0).implied(Epoch(0)), Some(Epoch(0)));
}

#[test]
fn invalid_policies_imply_that_since_stays() {
    for policy in [multiple([]), multiple([lag(0, 0), ReadPolicy::NoPolicy])] {
        assert_eq!(policy.implied(at(9)), None, "{policy:?}");
    }
}

#[test]
fn valid_policies_are_accepted() {
    for policy in [
        ReadPolicy::Empty,
        ReadPolicy::NoPolicy,
        valid_from(1_000),
        lag(u64::MAX, u64::MAX),
        multiple([ReadPolicy::NoPolicy]),
        multiple([valid_from(7), lag(5, 0), multiple([valid_from(7)])]),
        multiple((0..16).map(|ms| lag(ms, 0))),
        nested(lag(5, 0), 4),
    ] {
        assert_eq!(policy.validate(LIMIT), Ok(()), "{policy:?}");
    }
}

#[test]
fn invalid_policies_name_the_problem() {
    let first = Epoch(7);
    let contradiction = |second| PolicyError::Contradiction { first, second };
    for (policy, expected) in [
        (multiple([lag(5, 0), ReadPolicy::Empty]), PolicyError::EmptyPart),
        (multiple([]), PolicyError::Empty),
        (multiple([lag(5, 0), multiple([])]), PolicyError::Empty),
        (multiple((0..17).map(|ms| lag(ms, 0))), PolicyError::TooManyParts),
        // The parts of all levels are counted.
        (
            multiple([
                multiple((0..8).map(|ms| lag(ms, 0))),
                multiple((0..9).map(|ms| lag(ms, 0))),
            ]),
            PolicyError::TooManyParts,
        ),
        (nested(lag(5, 0), 5), PolicyError::TooDeep),
        (nested(lag(5, 0), 1_000), PolicyError::TooDeep),
        (valid_from(1_001), PolicyError::BeyondLimit { epoch: Epoch(1_001), limit: LIMIT }),
        (multiple([valid_from(7), valid_from(8)]), contradiction(Epoch(8))),
        (multiple([valid_from(7), multiple([valid_from(6)])]), contradiction(Epoch(6))),
        (multiple([lag(5, 0), ReadPolicy::NoPolicy]), PolicyError::NoPolicyBesideOthers),
        (
            multiple([multiple([ReadPolicy::NoPolicy]), valid_from(7)]),
            PolicyError::NoPolicyBesideOthers,
        ),
    ] {
        assert_eq!(policy.validate(LIMIT), Err(expected), "{policy:?}");
    }
}
