//! `bench holds`
//!
//! - `definitions`: tables and holds of the measurement. `setup`: calls before and after it.
//! - `measure`: measured calls. `figures`: result.

mod definitions;
mod figures;
mod measure;
mod setup;

use clap::Args;
use tidewater_client::Client;

use self::figures::HoldFigures;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::grouped;
use crate::output::fact;

/// Options of `bench holds`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidewater bench holds\n  tidewater bench holds --tables 100 --holds 1000 --clients 8 --output \
                  json\n\nCreates the tables hold_bench_0, hold_bench_1, ... where they are missing, with one region each, and \
                  acquires the holds hold_bench_0, hold_bench_1, ... of them in turn. Then each client repeats four calls: a \
                  command without effect, as `bench meta` sends it, and the acquisition, the downgrade and the release of one \
                  more hold. The ratios are those of the 99th percentiles to that of the commands without effect. At the end, \
                  the holds are released and the tables are dropped, also those of earlier runs."
)]
pub(crate) struct Options {
    /// Number of tables
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    tables: u64,

    /// Number of holds during the measurement; at least one for each table
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=90_000))]
    holds: u64,

    /// Concurrent clients, each with one call in flight
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    clients: u32,

    /// Number of measured calls of each kind
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    requests: u64,

    /// Drop the tables at the end
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    cleanup: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Measures calls about holds, prints their latencies, and removes what the measurement has created, also after an error.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    check(options.tables, options.holds)?;
    let client = options.client.connect().await?;
    let measured = measured(&client, &options).await;
    let cleaned = clean_up(&client, &options).await;
    fact(options.client.output, &measured?, HoldFigures::text)?;
    cleaned
}

/// Checks that each table is held during the measurement: the first hold of a table alters it.
fn check(tables: u64, holds: u64) -> Result<(), Failure> {
    if holds >= tables {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "--holds {holds} is too small for {} tables (minimum: one hold for each table)",
        grouped(tables)
    )))
}

async fn measured(client: &Client, options: &Options) -> Result<HoldFigures, Failure> {
    // Those of a run that has ended early have the same names.
    setup::release_holds(client, options).await?;
    setup::create_tables(client, options.tables).await?;
    setup::acquire_holds(client, options).await?;
    let later = setup::later_epoch(client).await?;
    let times = measure::measure(client, options, later).await?;
    let figures = HoldFigures::new(options, times);
    figures.ok_or_else(|| Failure::other("no calls were measured: raise --requests"))
}

async fn clean_up(client: &Client, options: &Options) -> Result<(), Failure> {
    setup::release_holds(client, options).await?;
    if options.cleanup {
        setup::drop_tables(client, options.tables).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn each_table_needs_a_hold() {
        for (tables, holds) in [(1, 1), (1_000, 1_000), (1_000, 10_000)] {
            assert!(check(tables, holds).is_ok(), "{tables} {holds}");
        }
        let failure = check(1_000, 999).unwrap_err();
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.starts_with("--holds 999 is too small for 1,000 tables"));
    }
}
