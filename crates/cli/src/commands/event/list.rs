//! `event list`

use std::cmp::Ordering;

use clap::Args;
use tidewater_common::clock::SystemClock;

use super::cluster_time::ClusterTime;
use super::newest::NewestEvents;
use super::query::EventChoice;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::terminal::note;
use crate::output::{amount, list};
use crate::text::moment::Moment;

/// Options of `event list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater event list --since 24h --type node_down,leader_changed\n  \
                        tidewater event list --since 2026-01-31T10:00:00Z --until 2026-01-31T11:00:00Z \
                        --where 'node_id = 101' --output json\n\nThe newest event is last. JSON fields \
                        are id, type, timestamp, payload and the columns of the type that have a value; \
                        `tidewater event types` lists them."
)]
pub(crate) struct Options {
    #[command(flatten)]
    choice: EventChoice,

    /// List events from this time on: a duration before now, by the time of the cluster, or a time
    #[arg(long, value_name = "TIME", default_value = "1h")]
    since: Moment,

    /// List events before this time [default: all]
    #[arg(long, value_name = "TIME")]
    until: Option<Moment>,

    /// Maximum number of events; the newest are listed
    #[arg(long, value_name = "N", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,

    #[command(flatten)]
    client: ClientArgs,
}

/// Lists the newest events of a period.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let order = options.until.and_then(|until| options.since.known_order(until));
    if order.is_some_and(Ordering::is_ge) {
        return Err(reversed_period());
    }
    let client = options.client.connect().await?;
    let now_ns = ClusterTime::read(&client, &SystemClock, &SystemClock).await.now_ns();
    let since_ns = options.since.ns(now_ns);
    let until_ns = options.until.map(|until| until.ns(now_ns));
    if until_ns.is_some_and(|until_ns| until_ns <= since_ns) {
        return Err(reversed_period());
    }
    let table = options.choice.table_info(&client).await?;
    let scan = options.choice.scan(&table, since_ns, until_ns)?;
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let mut newest = NewestEvents::new(limit);
    scan.run(&client, |line| newest.push(line)).await?;
    let (lines, found) = newest.finish();
    list(options.client.output, &lines)?;
    if found > lines.len() as u64 {
        let found = amount::grouped(found);
        note(&format!("the newest {} of {found} events; --limit lists more", lines.len()));
    }
    Ok(())
}

fn reversed_period() -> Failure {
    Failure::usage("--until is not after --since: exchange them")
}
