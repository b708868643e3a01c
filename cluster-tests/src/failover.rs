//! Results of a series of kills: failover times, findings of the oracle, and their limits.

use std::fmt;
use std::time::Duration;

use crate::oracle::Verdict;

/// Limit of the median failover time (R4).
pub const MEDIAN_LIMIT: Duration = Duration::from_secs(2);

/// Failover times of one kind, one for each kill.
#[derive(Debug, Clone)]
pub struct FailoverTimes {
    name: &'static str,
    sorted: Vec<Duration>,
}

impl FailoverTimes {
    /// Creates an empty series with a name for messages.
    pub fn new(name: &'static str) -> Self {
        Self { name, sorted: Vec::new() }
    }

    /// Adds a time.
    pub fn add(&mut self, time: Duration) {
        let at = self.sorted.partition_point(|earlier| *earlier < time);
        self.sorted.insert(at, time);
    }

    /// Returns a percentile by nearest rank; zero for an empty series.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(rank).copied().unwrap_or_default()
    }
}

impl fmt::Display for FailoverTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} kills): median {:.2} s, p90 {:.2} s, max {:.2} s",
            self.name,
            self.sorted.len(),
            self.percentile(50).as_secs_f64(),
            self.percentile(90).as_secs_f64(),
            self.percentile(100).as_secs_f64()
        )
    }
}

/// Violations found in a series; empty if the series passes.
#[derive(Debug, Clone, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// Adds a finding if the verdict after a kill is not clean.
    pub fn add_verdict(&mut self, kill: &str, verdict: &Verdict) {
        if !verdict.is_clean() {
            self.0.push(format!("{kill}: the oracle found: {verdict}"));
        }
    }

    /// Adds a finding if the series is empty or its median is above [`MEDIAN_LIMIT`].
    pub fn add_times(&mut self, times: &FailoverTimes) {
        if times.sorted.is_empty() {
            self.0.push(format!("{}: nothing was measured", times.name));
        } else if times.percentile(50) > MEDIAN_LIMIT {
            self.0.push(format!("the median is above {} s: {times}", MEDIAN_LIMIT.as_secs()));
        }
    }

    /// Messages of the findings.
    pub fn messages(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Attempt, Outcome};

    fn times(millis: &[u64]) -> FailoverTimes {
        let mut times = FailoverTimes::new("a write");
        millis.iter().for_each(|ms| times.add(Duration::from_millis(*ms)));
        times
    }

    fn found(times: &FailoverTimes) -> Vec<String> {
        let mut findings = Findings::default();
        findings.add_times(times);
        findings.messages().to_vec()
    }

    #[test]
    fn percentiles_are_measured_times() {
        let millis: Vec<u64> = (1..=20).rev().map(|n| n * 100).collect();
        let times = times(&millis);
        let at = |percent| times.percentile(percent).as_millis();
        assert_eq!((at(50), at(90), at(100)), (1_000, 1_800, 2_000));
        assert_eq!(times.to_string(), "a write (20 kills): median 1.00 s, p90 1.80 s, max 2.00 s");
    }

    #[test]
    fn slow_median_is_a_finding() {
        assert_eq!(found(&times(&[1_000, 2_000, 9_000])), [""; 0]);
        assert!(found(&times(&[1_000, 2_001, 2_500]))[0].contains("above 2 s"));
        assert!(found(&times(&[]))[0].contains("nothing was measured"));
    }

    #[test]
    fn unclean_verdict_is_a_finding() {
        let attempt = Attempt { writer: 1, first: 1, rows: 2, outcome: Outcome::Acknowledged };
        let mut findings = Findings::default();
        let clean = Verdict::new(std::slice::from_ref(&attempt), [(1, 1), (1, 2)]);
        findings.add_verdict("kill 1", &clean);
        assert_eq!(findings.messages(), [""; 0]);
        findings.add_verdict("kill 2", &Verdict::new(&[attempt], [(1, 1)]));
        assert!(findings.messages()[0].contains("kill 2"), "{findings:?}");
        assert!(findings.messages()[0].contains("MISSING"), "{findings:?}");
    }
}
