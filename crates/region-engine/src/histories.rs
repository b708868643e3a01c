//! How many random histories or schedules a test tries.

use proptest::test_runner::Config;

/// Enough for every day. `TIDEWATER_HISTORIES=20` in the environment makes it twenty times as many;
/// `cargo nextest run --profile long` gives them the time.
pub(crate) fn histories(usual: u32) -> Config {
    let times = match std::env::var("TIDEWATER_HISTORIES") {
        Ok(times) => times.parse().expect("TIDEWATER_HISTORIES is a whole number"),
        Err(_) => 1,
    };
    // A failure is shown before the test runner's patience ends.
    Config { max_shrink_iters: 1_000, ..Config::with_cases(usual * times) }
}
