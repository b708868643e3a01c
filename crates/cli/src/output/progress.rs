//! Progress of long operations: a bar on a terminal, otherwise a plain line every few seconds. Printed
//! on stderr, because stdout is for results.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::amount::{duration_text, grouped};

/// Time between plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Time before which the time left is not estimated.
const ESTIMATED_AFTER: Duration = Duration::from_secs(2);

/// Number of processed rows, or of other units, and their rate.
pub(crate) struct Progress {
    activity: String,
    /// Plural of the unit that is counted.
    unit: &'static str,
    started: Instant,
    last_line: Instant,
    bar: Option<ProgressBar>,
    /// Text after the activity.
    note: String,
}

impl Progress {
    /// Starts the display of a number of rows. `activity` is a verb in the present participle, printed as a prefix.
    pub(crate) fn start(activity: impl Into<String>) -> Self {
        Self::counting(activity, "rows")
    }

    /// Starts the display of a number of units other than rows; `unit` is their plural.
    pub(crate) fn counting(activity: impl Into<String>, unit: &'static str) -> Self {
        let activity = activity.into();
        let bar = io::stderr().is_terminal().then(|| bar(&activity));
        let now = Instant::now();
        Self { activity, unit, started: now, last_line: now, bar, note: String::new() }
    }

    /// Sets the text that follows the activity, e.g. its current part.
    pub(crate) fn set_note(&mut self, note: String) {
        if note == self.note {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(format!("{}, {note}", self.activity));
        }
        self.note = note;
    }

    /// Updates the `number` of processed units and the `share` (part, whole) of completed work.
    pub(crate) fn update(&mut self, number: u64, share: (u64, u64)) {
        let unit = self.unit;
        let elapsed = self.started.elapsed();
        let rate = number as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = left(elapsed, share).map(|left| format!(", {} left", duration_text(left)));
        let left = left.unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_length(share.1.max(1));
            bar.set_position(share.0);
            let rate = grouped(rate as u64);
            bar.set_message(format!("{} {unit}, {rate} {unit}/s{left}", grouped(number)));
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let percent = share.0.saturating_mul(100) / share.1.max(1);
            eprintln!(
                "{}{}{}: {} {unit}, {percent}%, {} {unit}/s{left}",
                self.activity,
                if self.note.is_empty() { "" } else { ", " },
                self.note,
                grouped(number),
                grouped(rate as u64)
            );
        }
    }

    /// Removes the bar; returns the seconds since the start.
    pub(crate) fn finish(self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed().as_secs_f64()
    }
}

/// Estimates the time that the rest of the work takes; `None`: it is too early, or all is done.
fn left(elapsed: Duration, (part, whole): (u64, u64)) -> Option<Duration> {
    if elapsed < ESTIMATED_AFTER || part == 0 || part >= whole {
        return None;
    }
    let seconds = elapsed.as_secs_f64() * (whole - part) as f64 / part as f64;
    Duration::try_from_secs_f64(seconds).ok()
}

fn bar(activity: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8));
    let style = ProgressStyle::with_template("{prefix} [{bar:32}] {percent:>3}% {msg}");
    if let Ok(style) = style {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(activity.to_owned());
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_follows_the_share_of_the_work() {
        let seconds = Duration::from_secs;
        for (elapsed, share, expected) in [
            (1, (1, 2), None),
            (10, (0, 2), None),
            (10, (2, 2), None),
            (10, (3, 2), None),
            (10, (0, 0), None),
            (10, (1, 4), Some(seconds(30))),
            (60, (90, 100), Some(Duration::from_secs_f64(60.0 * 10.0 / 90.0))),
            (1 << 60, (1, u64::MAX), None),
        ] {
            assert_eq!(left(seconds(elapsed), share), expected, "{share:?}");
        }
    }
}
