//! Result of `bench holds`.

use serde::Serialize;

use super::Options;
use super::measure::CallTimes;
use crate::commands::bench::figures::Latency;
use crate::output;
use crate::output::amount::grouped;

/// Least latency that a ratio is to, in milliseconds: the resolution of the times.
const RESOLUTION_MS: f64 = 1e-3;

/// Latencies of calls about holds. The JSON field names are stable.
#[derive(Debug, Serialize)]
pub(super) struct HoldFigures {
    bench: &'static str,
    tables: u64,
    holds: u64,
    clients: u32,
    /// Calls of each kind.
    requests: u64,
    latency_ms: CallLatencies,
    /// 99th percentiles, as ratios to that of the commands without effect.
    p99_ratio: CallRatios,
}

/// Latencies by kind of call, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
struct CallLatencies {
    empty_command: Latency,
    acquire: Latency,
    downgrade: Latency,
    release: Latency,
}

/// Ratios by kind of call.
#[derive(Debug, Clone, Copy, Serialize)]
struct CallRatios {
    acquire: f64,
    downgrade: f64,
    release: f64,
}

impl HoldFigures {
    /// Returns the figures of a measurement; `None`: there are no calls of a kind.
    pub(super) fn new(options: &Options, times: CallTimes) -> Option<Self> {
        let Options { tables, holds, clients, requests, .. } = *options;
        let latency_ms = CallLatencies::of(times)?;
        let p99_ratio = CallRatios::of(&latency_ms);
        let bench = "holds";
        Some(Self { bench, tables, holds, clients, requests, latency_ms, p99_ratio })
    }

    pub(super) fn text(&self) -> String {
        let CallLatencies { empty_command, acquire, downgrade, release } = &self.latency_ms;
        let ratios = &self.p99_ratio;
        let rows = [
            cells("command without effect", empty_command, None),
            cells("acquire", acquire, Some(ratios.acquire)),
            cells("downgrade", downgrade, Some(ratios.downgrade)),
            cells("release", release, Some(ratios.release)),
        ];
        format!(
            "{} calls of each kind by {} {}, with {} holds of {} tables; latencies in ms:\n{}",
            grouped(self.requests),
            self.clients,
            if self.clients == 1 { "client" } else { "clients" },
            grouped(self.holds),
            grouped(self.tables),
            output::table(&["CALL", "MEDIAN", "P90", "P99", "MAX", "RATIO OF P99"], rows)
        )
    }
}

impl CallLatencies {
    fn of(mut times: CallTimes) -> Option<Self> {
        Some(Self {
            empty_command: Latency::of(&mut times.empty_command)?,
            acquire: Latency::of(&mut times.acquire)?,
            downgrade: Latency::of(&mut times.downgrade)?,
            release: Latency::of(&mut times.release)?,
        })
    }
}

impl CallRatios {
    fn of(latencies: &CallLatencies) -> Self {
        let peer = latencies.empty_command.p99.max(RESOLUTION_MS);
        let ratio = |latency: &Latency| (latency.p99 / peer * 100.0).round() / 100.0;
        Self {
            acquire: ratio(&latencies.acquire),
            downgrade: ratio(&latencies.downgrade),
            release: ratio(&latencies.release),
        }
    }
}

fn cells(call: &str, latency: &Latency, ratio: Option<f64>) -> Vec<String> {
    let mut cells = vec![call.to_owned()];
    cells.extend(
        [latency.p50, latency.p90, latency.p99, latency.max].map(|time| format!("{time:.2}")),
    );
    cells.push(ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")));
    cells
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn figures() -> HoldFigures {
        let options =
            Command::parse_from(["bench", "--tables", "10", "--holds", "2000", "--requests", "1"]);
        let ms = |ms| vec![Duration::from_millis(ms)];
        let times =
            CallTimes { empty_command: ms(2), acquire: ms(3), downgrade: ms(1), release: ms(5) };
        HoldFigures::new(&options.options, times).unwrap()
    }

    #[test]
    fn hold_figures_have_stable_json_fields() {
        let latency = |ms: &str| format!(r#"{{"p50":{ms},"p90":{ms},"p99":{ms},"max":{ms}}}"#);
        let expected = format!(
            r#"{{"bench":"holds","tables":10,"holds":2000,"clients":1,"requests":1,"latency_ms":{{"empty_command":{},"acquire":{},"downgrade":{},"release":{}}},"p99_ratio":{{"acquire":1.5,"downgrade":0.5,"release":2.5}}}}"#,
            latency("2.0"),
            latency("3.0"),
            latency("1.0"),
            latency("5.0")
        );
        assert_eq!(serde_json::to_string(&figures()).unwrap(), expected);
    }

    #[test]
    fn ratios_are_those_of_the_99th_percentiles() {
        let flat = |ms: f64| Latency { p50: 9.0, p90: 9.0, p99: ms, max: 9.0 };
        let ratios = |empty_command| {
            let latencies = CallLatencies {
                empty_command: flat(empty_command),
                acquire: flat(6.0),
                downgrade: flat(3.0),
                release: flat(1.0),
            };
            let CallRatios { acquire, downgrade, release } = CallRatios::of(&latencies);
            (acquire, downgrade, release)
        };
        assert_eq!(ratios(3.0), (2.0, 1.0, 0.33));
        assert_eq!(ratios(0.0), (6_000.0, 3_000.0, 1_000.0));
    }

    #[test]
    fn text_has_a_line_for_each_kind_of_call() {
        let text = figures().text();
        let lines: Vec<&str> = text.lines().collect();
        let first =
            "1 calls of each kind by 1 client, with 2,000 holds of 10 tables; latencies in ms:";
        assert_eq!(lines[0], first);
        let words: Vec<Vec<&str>> =
            lines[3..].iter().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            words,
            [
                ["acquire", "3.00", "3.00", "3.00", "3.00", "1.50"],
                ["downgrade", "1.00", "1.00", "1.00", "1.00", "0.50"],
                ["release", "5.00", "5.00", "5.00", "5.00", "2.50"],
            ]
        );
    }

    #[test]
    fn measurement_without_calls_has_no_figures() {
        let options = Command::parse_from(["bench"]);
        assert!(HoldFigures::new(&options.options, CallTimes::default()).is_none());
    }
}
