//! Progress of long work: a bar on a terminal, a plain line every few seconds elsewhere. On stderr,
//! so that stdout stays for results.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between plain lines.
const EVERY: Duration = Duration::from_secs(5);

/// Shows how many rows are done and how fast.
pub(crate) struct Progress {
    what: String,
    started: Instant,
    shown: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `what` stands in front: a verb in the present participle.
    pub(crate) fn start(what: impl Into<String>) -> Self {
        let what = what.into();
        let bar = io::stderr().is_terminal().then(|| bar(&what));
        let now = Instant::now();
        Self { what, started: now, shown: now, bar }
    }

    /// Shows `rows` done, and which `share` (part, whole) of the work that is.
    pub(crate) fn update(&mut self, rows: u64, share: (u64, u64)) {
        let rate = rows as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        if let Some(bar) = &self.bar {
            bar.set_length(share.1.max(1));
            bar.set_position(share.0);
            bar.set_message(format!("{} rows, {} rows/s", grouped(rows), grouped(rate as u64)));
        } else if self.shown.elapsed() >= EVERY {
            self.shown = Instant::now();
            let percent = share.0.saturating_mul(100) / share.1.max(1);
            eprintln!(
                "{}: {} rows, {percent}%, {} rows/s",
                self.what,
                grouped(rows),
                grouped(rate as u64)
            );
        }
    }

    /// Takes the bar away; returns the seconds since the start.
    pub(crate) fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }
}

fn bar(what: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    let style = ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3}% {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar
}

/// A number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (336_776, "336,776"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
