//! Number of random histories or schedules that a property test runs.

use proptest::test_runner::Config;

/// Returns a proptest configuration with `usual` cases. `TIDEWATER_HISTORIES=20` in the environment
/// multiplies the number by 20; `cargo nextest run --profile long` raises the time limit accordingly.
pub(crate) fn histories(usual: u32) -> Config {
    let factor = match std::env::var("TIDEWATER_HISTORIES") {
        Ok(factor) => factor.parse().expect("TIDEWATER_HISTORIES is a whole number"),
        Err(_) => 1,
    };
    // Bounds shrinking, so that a failure is reported before the test runner's time limit.
    Config { max_shrink_iters: 1_000, ..Config::with_cases(usual * factor) }
}
