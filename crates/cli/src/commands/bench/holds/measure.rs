//! Measured calls: a command without effect, and the acquisition, downgrade and release of a hold, again and again. The kinds
//! alternate, because the speed of the machine drifts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidewater_client::{Client, ClientError};
use tidewater_common::ids::Epoch;
use tokio::task::JoinSet;

use super::Options;
use super::definitions::hold;
use crate::exit::Failure;
use crate::output::progress::Progress;

/// Size of a command without effect: the default of `bench meta`.
const COMMAND_BYTES: usize = 256;

/// Times of the measured calls, by kind.
#[derive(Debug, Default)]
pub(super) struct CallTimes {
    pub(super) empty_command: Vec<Duration>,
    pub(super) acquire: Vec<Duration>,
    pub(super) downgrade: Vec<Duration>,
    pub(super) release: Vec<Duration>,
}

impl CallTimes {
    fn append(&mut self, other: Self) {
        self.empty_command.extend(other.empty_command);
        self.acquire.extend(other.acquire);
        self.downgrade.extend(other.downgrade);
        self.release.extend(other.release);
    }
}

/// Measures all requests. `later`: epoch after those of all holds.
pub(super) async fn measure(
    client: &Client,
    options: &Options,
    later: Epoch,
) -> Result<CallTimes, Failure> {
    let mut progress = Progress::counting("measuring", "requests");
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Result<CallTimes, ClientError>> = JoinSet::new();
    for _ in 0..options.clients {
        let caller = Caller {
            client: client.clone(),
            tables: options.tables,
            first_hold: options.holds,
            requests: options.requests,
            later,
            next: next.clone(),
        };
        tasks.spawn(caller.run());
    }
    let mut times = CallTimes::default();
    let mut tick = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            done = tasks.join_next() => match done {
                Some(Ok(part)) => times.append(part?),
                Some(Err(error)) => return Err(Failure::other(format!("a client task failed: {error}"))),
                None => break,
            },
            _ = tick.tick() => {
                let begun = next.load(Ordering::Relaxed).min(options.requests);
                progress.update(begun, (begun, options.requests));
            }
        }
    }
    progress.finish();
    Ok(times)
}

/// A client with one call in flight. It takes the number of each request from a shared counter.
struct Caller {
    client: Client,
    tables: u64,
    /// Number of the hold of the first request.
    first_hold: u64,
    requests: u64,
    later: Epoch,
    next: Arc<AtomicU64>,
}

impl Caller {
    async fn run(self) -> Result<CallTimes, ClientError> {
        let mut times = CallTimes::default();
        loop {
            let request = self.next.fetch_add(1, Ordering::Relaxed);
            if request >= self.requests {
                return Ok(times);
            }
            self.make_calls(request, &mut times).await?;
        }
    }

    async fn make_calls(&self, request: u64, times: &mut CallTimes) -> Result<(), ClientError> {
        let client = &self.client;
        let hold = hold(self.first_hold + request, self.tables);
        let names = [hold.name.clone()];
        let [name] = &names;

        let begun = Instant::now();
        client.bench_command(Bytes::from_static(&[7; COMMAND_BYTES])).await?;
        times.empty_command.push(begun.elapsed());

        let begun = Instant::now();
        client.acquire_read_hold(hold).await?;
        times.acquire.push(begun.elapsed());

        let begun = Instant::now();
        client.downgrade_read_hold(name, self.later).await?;
        times.downgrade.push(begun.elapsed());

        let begun = Instant::now();
        client.release_read_holds(&names).await?;
        times.release.push(begun.elapsed());
        Ok(())
    }
}
