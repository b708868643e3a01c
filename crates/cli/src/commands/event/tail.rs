//! `event tail`

use std::time::Duration;

use clap::Args;
use tidewater_client::Client;
use tidewater_common::clock::{Clock, SystemClock};
use tokio::time::MissedTickBehavior;

use super::line::EventLine;
use super::list::now_ns;
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
                        `tidewater event list` shows it."
)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: EventChoice,

    /// Print events from this time on first: a duration before now, or a time [default: new events only]
    #[arg(long, value_name = "TIME")]
    since: Option<Moment>,

    #[command(flatten)]
    client: ClientArgs,
}

/// Prints events until SIGINT or SIGTERM.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let mut signals = StopSignals::listen()?;
    tokio::select! {
        result = follow(&options, &SystemClock) => result,
        _ = signals.next() => Ok(()),
    }
}

async fn follow(options: &Options, clock: &dyn Clock) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let now = now_ns(clock);
    let start_ns =
        options.since.map_or_else(|| now.saturating_sub(OVERLAP_NS), |since| since.ns(now));
    let mut window = TailWindow::new(start_ns);
    let first = unseen(&client, &options.choice, &mut window).await?;
    if options.since.is_some() {
        print(options, &first)?;
    }
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        window.advance(now_ns(clock));
        ticks.tick().await;
        match unseen(&client, &options.choice, &mut window).await {
            Ok(lines) => print(options, &lines)?,
            Err(failure) if failure.exit == Exit::Unavailable => note(&failure.message),
            // The table was dropped: it is created again with the next event.
            Err(failure) if failure.exit == Exit::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
}

fn print(options: &Options, lines: &[EventLine]) -> Result<(), Failure> {
    lines.iter().try_for_each(|line| fact(options.client.output, line, EventLine::text))
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
