//! `cluster status --watch`: the status again and again, also while no node can be reached.

use std::io::{self, IsTerminal};
use std::time::Duration;

use serde::Serialize;
use tidewater_client::{Client, ClientOptions};
use tidewater_common::clock::{Clock, SystemClock};
use tokio::time::MissedTickBehavior;

use super::{Status, text};
use crate::commands::client::ClientArgs;
use crate::commands::cluster::problem::utc_text;
use crate::exit::{Exit, Failure};
use crate::output::terminal::printable;
use crate::output::{Output, drawn, json, line};
use crate::server::signals::StopSignals;
use crate::text::time_span::TimeSpan;

/// Deadline of one status, so that the display shows soon that no node can be reached.
const DEADLINE: Duration = Duration::from_secs(5);

/// Timeout of one attempt: within the deadline, a frozen node leaves time for another one.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Moves the cursor of a terminal to its first line.
const HOME: &str = "\x1b[H";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\x1b[K";
/// Clears all lines below the cursor.
const CLEAR_BELOW: &str = "\x1b[J";
/// Clears the terminal.
const CLEAR: &str = "\x1b[2J";

/// Form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Display {
    /// Each status replaces the one before it on the terminal.
    Redraw,
    /// Each status follows a line with its time.
    Append,
    /// One JSON object for each status.
    Json,
}

/// A status with its time. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct TimedStatus<'a> {
    time: &'a str,
    #[serde(flatten)]
    status: &'a Status,
}

/// Error that took the place of a status. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct TimedError<'a> {
    time: &'a str,
    error: &'a str,
}

/// Shows the status at every interval until SIGINT or SIGTERM.
pub(super) async fn run(client: &ClientArgs, interval: TimeSpan) -> Result<(), Failure> {
    if interval.0 == 0 {
        return Err(Failure::usage("--watch 0ms is too short (minimum 1ms)"));
    }
    let mut signals = StopSignals::listen()?;
    let display = match client.output {
        Output::Json => Display::Json,
        Output::Table if io::stdout().is_terminal() => Display::Redraw,
        Output::Table => Display::Append,
    };
    // A status that no node has returned is no sign of health.
    let mut health = Err(Failure::new(Exit::Unavailable, "no node has returned a status"));
    tokio::select! {
        result = repeat(client, interval.duration(), display, &SystemClock, &mut health) => {
            return result;
        }
        _ = signals.next() => {}
    }
    health
}

/// Prints the status at intervals. `health`: set to the outcome of each status.
async fn repeat(
    client: &ClientArgs,
    interval: Duration,
    display: Display,
    clock: &dyn Clock,
    health: &mut Result<(), Failure>,
) -> Result<(), Failure> {
    let options = client.options();
    let options = ClientOptions {
        deadline: options.deadline.min(DEADLINE),
        attempt_timeout: options.attempt_timeout.min(ATTEMPT),
        ..options
    };
    let mut connected = None;
    let mut last_status = None;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    if display == Display::Redraw {
        drawn(CLEAR)?;
    }
    loop {
        ticks.tick().await;
        let status = status(&mut connected, &options).await;
        let shown = utc_text(clock.now_ms());
        let error = match status {
            Ok(status) => {
                *health = status.check_healthy();
                last_status = Some((shown.clone(), status));
                None
            }
            Err(failure) if failure.exit == Exit::Unavailable => {
                *health = Err(Failure::new(failure.exit, failure.message.clone()));
                Some(failure.message)
            }
            Err(failure) => return Err(failure),
        };
        let frame = frame(display, &shown, error.as_deref(), last_status.as_ref())?;
        if display == Display::Redraw { drawn(&frame)? } else { line(&frame)? }
    }
}

/// Returns the current status; connects first if that has not succeeded yet.
async fn status(
    connected: &mut Option<Client>,
    options: &ClientOptions,
) -> Result<Status, Failure> {
    let client = match connected {
        Some(client) => client,
        None => connected.insert(Client::connect(options.clone()).await?),
    };
    Ok(client.cluster_status().await?.into())
}

/// Returns the text to print. `last_status` is the last status with its time, and current if there is no
/// error.
fn frame(
    display: Display,
    time: &str,
    error: Option<&str>,
    last_status: Option<&(String, Status)>,
) -> Result<String, Failure> {
    let lines = match (display, error, last_status) {
        (Display::Json, Some(error), _) => return json(&TimedError { time, error }),
        (Display::Json, None, Some((time, status))) => return json(&TimedStatus { time, status }),
        (Display::Append | Display::Redraw, None, Some((time, status))) => {
            format!("{time}\n{}\n", text(status))
        }
        (Display::Redraw, Some(error), Some((then, status))) => {
            format!("{time}\nNO STATUS: {error}\n\nlast status, {then}\n{}\n", text(status))
        }
        (Display::Append | Display::Redraw, Some(error), _) => {
            format!("{time}\nNO STATUS: {error}\n")
        }
        (_, None, None) => String::new(),
    };
    if display != Display::Redraw {
        return Ok(lines);
    }
    // Names and errors come from servers.
    let lines: Vec<String> =
        lines.lines().map(|line| format!("{}{CLEAR_LINE}", printable(line))).collect();
    Ok(format!("{HOME}{}{CLEAR_BELOW}", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::ClusterStatusResponse;

    use super::*;

    fn known() -> (String, Status) {
        let status = ClusterStatusResponse { healthy: true, ..Default::default() };
        ("T1".to_owned(), Status::from(status))
    }

    fn shown(display: Display, error: Option<&str>, status: Option<&(String, Status)>) -> String {
        let time = if error.is_some() { "T2" } else { "T1" };
        frame(display, time, error, status).unwrap()
    }

    #[test]
    fn appended_status_follows_a_line_with_its_time() {
        let text = shown(Display::Append, None, Some(&known()));
        assert!(text.starts_with("T1\ncluster "), "{text}");
        assert!(!text.contains('\x1b'));
        let text = shown(Display::Append, Some("refused"), Some(&known()));
        assert_eq!(text, "T2\nNO STATUS: refused\n");
    }

    #[test]
    fn redrawn_error_keeps_the_last_status() {
        let text = shown(Display::Redraw, Some("refused"), Some(&known()));
        assert!(text.starts_with(&format!("{HOME}T2{CLEAR_LINE}\nNO STATUS: refused")), "{text}");
        assert!(text.contains("last status, T1") && text.contains("health   healthy"), "{text}");
        assert!(text.ends_with(CLEAR_BELOW));
        let hostile = shown(Display::Redraw, Some("a\x1b[2Jb"), None);
        assert!(hostile.contains("a\\u{1b}[2Jb"), "{hostile}");
        let first = shown(Display::Redraw, Some("refused"), None);
        assert!(first.contains("NO STATUS: refused") && !first.contains("last status"));
    }

    #[test]
    fn json_status_has_its_time() {
        let text = shown(Display::Json, None, Some(&known()));
        assert!(text.starts_with(r#"{"time":"T1","cluster_id":"#), "{text}");
        let text = shown(Display::Json, Some("refused"), None);
        assert_eq!(text, r#"{"time":"T2","error":"refused"}"#);
    }
}
