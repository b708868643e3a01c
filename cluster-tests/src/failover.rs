//! What a series of kills has shown: times, the oracle's findings, and whether both are good enough.

use std::fmt;
use std::time::Duration;

use crate::oracle::Verdict;

/// R4: half of the failovers are over by then.
pub const MEDIAN_LIMIT: Duration = Duration::from_secs(2);

/// Times of one kind, one for each kill.
#[derive(Debug, Clone)]
pub struct Times {
    what: &'static str,
    sorted: Vec<Duration>,
}

impl Times {
    /// Of what, none yet.
    pub fn of(what: &'static str) -> Self {
        Self { what, sorted: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let at = self.sorted.partition_point(|one| *one < time);
        self.sorted.insert(at, time);
    }

    /// The time that so many percent of all reach or stay below; 0 when there is none.
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).saturating_sub(1);
        self.sorted.get(rank).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({} kills): median {:.2} s, p90 {:.2} s, max {:.2} s",
            self.what,
            self.sorted.len(),
            self.percentile(50).as_secs_f64(),
            self.percentile(90).as_secs_f64(),
            self.percentile(100).as_secs_f64()
        )
    }
}

/// All that is held against what was measured; nothing: it is good enough.
#[derive(Debug, Clone, Default)]
pub struct Findings(Vec<String>);

impl Findings {
    /// The oracle's verdict after a kill.
    pub fn verdict(&mut self, kill: &str, verdict: &Verdict) {
        if !verdict.is_clean() {
            self.0.push(format!("{kill}: the oracle found: {verdict}"));
        }
    }

    /// Times of a whole series.
    pub fn times(&mut self, times: &Times) {
        if times.sorted.is_empty() {
            self.0.push(format!("{}: nothing was measured", times.what));
        } else if times.percentile(50) > MEDIAN_LIMIT {
            self.0.push(format!("the median is above {} s: {times}", MEDIAN_LIMIT.as_secs()));
        }
    }

    /// Each in a sentence.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle::{Attempt, Outcome};

    fn times(millis: &[u64]) -> Times {
        let mut times = Times::of("a write");
        millis.iter().for_each(|ms| times.add(Duration::from_millis(*ms)));
        times
    }

    fn found(of: &Times) -> Vec<String> {
        let mut findings = Findings::default();
        findings.times(of);
        findings.sentences().to_vec()
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let of_twenty: Vec<u64> = (1..=20).rev().map(|n| n * 100).collect();
        let times = times(&of_twenty);
        let at = |percent| times.percentile(percent).as_millis();
        assert_eq!((at(50), at(90), at(100)), (1_000, 1_800, 2_000));
        assert_eq!(times.to_string(), "a write (20 kills): median 1.00 s, p90 1.80 s, max 2.00 s");
    }

    #[test]
    fn a_slow_median_is_a_finding_and_a_slow_maximum_is_not() {
        assert_eq!(found(&times(&[1_000, 2_000, 9_000])), [""; 0]);
        assert!(found(&times(&[1_000, 2_001, 2_500]))[0].contains("above 2 s"));
        assert!(found(&times(&[]))[0].contains("nothing was measured"));
    }

    #[test]
    fn what_the_oracle_finds_is_a_finding() {
        let attempt = Attempt { writer: 1, first: 1, rows: 2, outcome: Outcome::Acknowledged };
        let mut findings = Findings::default();
        findings.verdict("kill 1", &Verdict::of(std::slice::from_ref(&attempt), [(1, 1), (1, 2)]));
        assert_eq!(findings.sentences(), [""; 0]);
        findings.verdict("kill 2", &Verdict::of(&[attempt], [(1, 1)]));
        assert!(findings.sentences()[0].contains("kill 2"), "{findings:?}");
        assert!(findings.sentences()[0].contains("MISSING"), "{findings:?}");
    }
}
