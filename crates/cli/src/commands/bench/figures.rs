//! Result of a measurement.

use std::time::Duration;

use serde::Serialize;

use crate::output::amount::grouped;

/// Latency of single calls, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

impl Latency {
    /// Returns the percentiles of the times of calls, which it sorts; `None`: there are none.
    pub(super) fn of(times: &mut [Duration]) -> Option<Self> {
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        let at = |share: f64| {
            let index = (share * last as f64).round() as usize;
            let time = times.get(index.min(last)).copied().unwrap_or_default();
            (time.as_secs_f64() * 1e6).round() / 1e3
        };
        Some(Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) })
    }
}

/// One measurement. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) bench: &'static str,
    pub(super) clients: usize,
    /// Rows, or commands for `bench meta`.
    pub(super) rows: u64,
    pub(super) seconds: f64,
    pub(super) rows_per_second: f64,
    pub(super) latency_ms: Option<Latency>,
    pub(super) calls: u64,
}

impl Figures {
    pub(super) fn new(
        bench: &'static str,
        clients: usize,
        rows: u64,
        elapsed: Duration,
        times: &mut [Duration],
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        Self {
            bench,
            clients,
            rows,
            seconds,
            rows_per_second: (rows as f64 / seconds.max(1e-9)).round(),
            calls: times.len() as u64,
            latency_ms: Latency::of(times),
        }
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{} with {} {}: {} in {:.2} s, {} per second",
            self.bench,
            self.clients,
            if self.clients == 1 { "client" } else { "clients" },
            grouped(self.rows),
            self.seconds,
            grouped(self.rows_per_second as u64)
        );
        if let Some(latency) = &self.latency_ms {
            text.push_str(&format!(
                "; latency of a call {:.2} ms (median), {:.2} (p90), {:.2} (p99), {:.2} (max)",
                latency.p50, latency.p90, latency.p99, latency.max
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_sorted_times() {
        let mut times: Vec<Duration> = (1..=101).rev().map(Duration::from_millis).collect();
        let latency = Latency::of(&mut times).unwrap();
        assert_eq!(latency, Latency { p50: 51.0, p90: 91.0, p99: 100.0, max: 101.0 });
        assert_eq!(Latency::of(&mut []), None);
    }

    #[test]
    fn bench_figures_have_stable_json_fields() {
        let mut times = [Duration::from_millis(2)];
        let figures = Figures::new("ingest", 1, 100, Duration::from_secs(2), &mut times);
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"bench":"ingest","clients":1,"rows":100,"seconds":2.0,"rows_per_second":50.0,"latency_ms":{"p50":2.0,"p90":2.0,"p99":2.0,"max":2.0},"calls":1}"#
        );
    }
}
