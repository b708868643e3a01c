//! `event tail`

use std::time::Duration;

use clap::Args;
use tidewater_client::Client;
use tidewater_common::clock::{Clock, MonotonicClock, SystemClock};
use tokio::task::yield_now;
use tokio::time::MissedTickBehavior;

use super::cluster_time::ClusterTime;
use super::line::EventLine;
use super::query::{EventChoice, check_bytes};
use super::window::{OVERLAP_NS, TailWindow};
use crate::commands::client::ClientArgs;
use crate::exit::{Exit, Failure};
use crate::output::fact;
use crate::output::terminal::note;
use crate::server::signals::StopSignals;
use crate::text::moment::Moment;

/// Interval of reads. An event is in the table after a second, and printed within two.
const INTERVAL: Duration = Duration::from_millis(500);

/// Options of `event tail`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater event tail\n  tidewater event tail --since 10m --type \
                        '!slow_operation' --output json\n\nEvents are printed as they become visible, \
                        usually within two seconds. An event that becomes visible a minute or more after \
                        later ones, because its node could not reach the cluster, is not printed: \
                        `tidewater event list` shows it. Ctrl-C ends the command."
)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: EventChoice,

    /// Print events from this time on first: a duration before now, by the time of the cluster, or a time
    /// [default: new events only]
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Prints events until SIGINT or SIGTERM.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    tokio::select! {
        result = follow(&options, &SystemClock, &SystemClock) => result,
        _ = signals.next() => Ok(()),
    }
}

async fn follow(
    options: &Options,
    clock: &dyn Clock,
    monotonic: &dyn MonotonicClock,
) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let time = ClusterTime::read(&client, clock, monotonic).await;
    let now = time.now_ns();
    let start_ns =
        options.since.map_or_else(|| now.saturating_sub(OVERLAP_NS), |since| since.ns(now));
    let mut window = TailWindow::new(start_ns);
    let mut tail = Tail::new(options.since.is_some());
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let read = unseen(&client, &options.choice, &mut window).await;
        print(options, &tail.printed(read)?).await?;
        window.advance(time.now_ns());
    }
}

/// Decisions about the outcomes of reads.
#[derive(Debug)]
struct Tail {
    /// The events of the next read are printed. Without `--since`, those of the first read are old.
    prints: bool,
    /// A read has succeeded: the command line names columns of the table.
    has_read: bool,
    /// The last failure that was noted.
    noted: Option<String>,
}

impl Tail {
    fn new(has_since: bool) -> Self {
        Self { prints: has_since, has_read: false, noted: None }
    }

    /// Returns the events to print. A failure is noted once, and the read repeated: the table is altered and its routes
    /// change while it is followed.
    ///
    /// # Errors
    /// The first read fails by the command line, or by a table that is not one of events.
    fn printed(
        &mut self,
        read: Result<Vec<EventLine>, Failure>,
    ) -> Result<Vec<EventLine>, Failure> {
        match read {
            Ok(lines) => {
                self.has_read = true;
                self.noted = None;
                let prints = std::mem::replace(&mut self.prints, true);
                Ok(if prints { lines } else { Vec::new() })
            }
            Err(failure) if !self.has_read && failure.exit == Exit::Usage => Err(failure),
            Err(failure) => {
                // The next event creates a missing table: all of its events are new.
                self.prints |= failure.exit == Exit::NotFound;
                if self.noted.as_ref() != Some(&failure.message) {
                    note(&format!("{}; retrying", failure.message));
                    self.noted = Some(failure.message);
                }
                Ok(Vec::new())
            }
        }
    }
}

/// Prints events. A signal ends the command between two of them.
async fn print(options: &Options, lines: &[EventLine]) -> Result<(), Failure> {
    for line in lines {
        fact(options.client.output, line, EventLine::text)?;
        yield_now().await;
    }
    Ok(())
}

/// Returns the events of the window that were not seen yet, the newest last.
async fn unseen(
    client: &Client,
    choice: &EventChoice,
    window: &mut TailWindow,
) -> Result<Vec<EventLine>, Failure> {
    let table = choice.table_info(client).await?;
    let scan = choice.scan(&table, window.start_ns(), None)?;
    let mut lines = Vec::new();
    let mut bytes = 0;
    let collect = |line: EventLine| {
        if !window.has(line.timestamp_ns, line.id) {
            bytes += line.bytes;
            lines.push(line);
        }
        check_bytes(bytes)
    };
    scan.run(client, collect).await?;
    // Only now: a scan that fails is repeated.
    lines.retain(|line| window.add(line.timestamp_ns, line.id));
    lines.sort_by_key(|line| (line.timestamp_ns, line.id));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::plain;
    use super::*;

    fn failed(exit: Exit) -> Result<Vec<EventLine>, Failure> {
        Err(Failure::new(exit, "it failed"))
    }

    fn count(tail: &mut Tail, read: Result<Vec<EventLine>, Failure>) -> Option<usize> {
        tail.printed(read).ok().map(|lines| lines.len())
    }

    #[test]
    fn tail_prints_new_events_only() {
        let one = || Ok(vec![plain(1, 1)]);
        let mut tail = Tail::new(false);
        assert_eq!(count(&mut tail, one()), Some(0));
        assert_eq!(count(&mut tail, one()), Some(1));
        assert_eq!(count(&mut Tail::new(true), one()), Some(1));
        // A table that did not exist has new events only.
        let mut tail = Tail::new(false);
        assert_eq!(count(&mut tail, failed(Exit::NotFound)), Some(0));
        assert_eq!(count(&mut tail, one()), Some(1));
    }

    #[test]
    fn tail_repeats_failed_reads_after_the_first() {
        assert_eq!(count(&mut Tail::new(false), failed(Exit::Usage)), None);
        for exit in [Exit::Usage, Exit::NotFound, Exit::Conflict, Exit::Unavailable, Exit::Other] {
            let mut tail = Tail::new(true);
            assert_eq!(count(&mut tail, Ok(Vec::new())), Some(0));
            assert_eq!(count(&mut tail, failed(exit)), Some(0), "{exit:?}");
            assert_eq!(tail.noted.as_deref(), Some("it failed"));
            assert_eq!(count(&mut tail, Ok(vec![plain(1, 1)])), Some(1));
            assert_eq!(tail.noted, None);
        }
    }
}
