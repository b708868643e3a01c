//! `bench meta`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use tidewater_client::{Client, ClientError};
use tokio::task::JoinSet;

use super::figures::Figures;
use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::{Output, json, line};

/// Options of `bench meta`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater bench meta --clients 1,8,64 --output json\n\nEach \
                        command is committed to the log of the meta group and changes nothing.")]
pub(crate) struct Options {
    /// Numbers of concurrent clients to measure with, in turn
    #[arg(
        long,
        value_name = "N",
        value_delimiter = ',',
        default_value = "1,8,64",
        env = "TIDEWATER_CLIENTS"
    )]
    clients: Vec<usize>,

    /// Duration of the measurement for each number of clients
    #[arg(long, value_name = "TIME", default_value = "5s", env = "TIDEWATER_DURATION")]
    duration: crate::text::time_span::TimeSpan,

    /// Size of each command
    #[arg(long, value_name = "SIZE", default_value = "256", env = "TIDEWATER_COMMAND_SIZE")]
    command_size: crate::text::size::Size,

    #[command(flatten)]
    client: ClientArgs,
}

/// Measures commands per second and prints one line for each number of clients.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let size = usize::try_from(options.command_size.0.min(1 << 20)).unwrap_or(256);
    let value = Bytes::from(vec![7; size]);
    for clients in options.clients.iter().copied().filter(|clients| *clients > 0) {
        let duration = options.duration.duration();
        let figures = measure(&client, clients, duration, &value).await?;
        line(&match options.client.output {
            Output::Json => json(&figures)?,
            Output::Table => figures.text(),
        })?;
    }
    Ok(())
}

async fn measure(
    client: &Client,
    clients: usize,
    duration: Duration,
    value: &Bytes,
) -> Result<Figures, Failure> {
    let done = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let mut tasks: JoinSet<Result<Vec<Duration>, ClientError>> = JoinSet::new();
    for _ in 0..clients {
        let client = client.clone();
        let value = value.clone();
        let done = done.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while started.elapsed() < duration {
                let begun = Instant::now();
                client.bench_command(value.clone()).await?;
                times.push(begun.elapsed());
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(part) = tasks.join_next().await {
        let part =
            part.map_err(|error| Failure::other(format!("a client task failed: {error}")))?;
        times.extend(part?);
    }
    let rows = done.load(Ordering::Relaxed);
    Ok(Figures::new("meta", clients, rows, started.elapsed(), &mut times))
}
