//! Versions of a source: all rows have the number of the version, and each merge takes several chunks for a part.

use std::time::Duration;

use tidewater_client::Client;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::workload::options;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tidewater_common::ids::Generation;
use tidewater_proto::v1::{RefreshInfo, RefreshOutcome, RegionMergePart};

use super::mirror::{Mirror, TABLE};

/// Longest time until a refresh is published although nodes are killed.
const PUBLISHED_WITHIN: Duration = Duration::from_secs(120);
/// Interval of the looks at a refresh whose moment is awaited.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of a name: 24,000 rows are about 12 chunks.
pub(super) const NAME_BYTES: usize = 500;

/// Number of rows of a version; version 0 has none.
pub(super) fn rows_of(version: u64) -> u64 {
    if version == 0 { 0 } else { 24_000 + 100 * (version % 5) }
}

/// Returns the version that a row's name has.
pub(super) fn version_in(name: &str) -> Option<u64> {
    name.strip_prefix("version ")?.split(' ').next()?.parse().ok()
}

/// Writes a version of the source.
pub(super) fn write(mirror: &mut Mirror, version: u64) -> Result<()> {
    let rows = i64::try_from(rows_of(version)).unwrap_or_default();
    let name = format!("{:<NAME_BYTES$}|", format!("version {version}"));
    mirror.rows = (0..rows).map(|id| (id, name.clone())).collect();
    mirror.write(4)
}

/// Moment of a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The source is being read.
    Refreshing,
    /// The merge has begun.
    Merging,
    /// The first chunks of a part are merged, others are not.
    BetweenChunks,
    /// All regions are merged.
    Publishing,
    /// The refresh is published.
    Cleanup,
}

impl Moment {
    /// Returns whether the refresh goes on after the death of any process: what was read of the source is staged.
    pub(super) fn is_after_load(self) -> bool {
        self != Self::Refreshing
    }

    fn is_now(self, info: &RefreshInfo) -> bool {
        let parts = || info.merges.iter().filter_map(|region| region.merge.as_ref());
        let is_begun = |part: &&RegionMergePart| !part.is_complete && !part.reached.is_empty();
        match self {
            Self::Refreshing => info.state == "refreshing",
            Self::Merging => info.state == "merging",
            Self::BetweenChunks => {
                parts().flat_map(|merge| &merge.parts).filter(is_begun).count() > 0
            }
            Self::Publishing => info.state == "publishing",
            Self::Cleanup => info.state == "cleanup",
        }
    }
}

pub(super) async fn connect(cluster: &Cluster) -> Result<Client> {
    let client = Client::connect(options(cluster)).await;
    client.map_err(|error| HarnessError::violated(error.to_string()))
}

pub(super) async fn info(client: &Client) -> std::result::Result<RefreshInfo, String> {
    let found = client.refreshes(Some(TABLE), true).await.map_err(|error| error.to_string())?;
    found.into_iter().next().ok_or_else(|| "no such table".to_owned())
}

/// Begins a refresh, and waits for a moment of it. Returns its generation; `None`: the moment has passed unseen.
pub(super) async fn start_until(client: &Client, moment: Moment) -> Result<Option<Generation>> {
    let started = client.start_refresh(TABLE, false).await;
    let generation = started.map_err(|error| HarnessError::violated(error.to_string()))?;
    loop {
        let info = info(client).await.map_err(HarnessError::violated)?;
        if moment.is_now(&info) {
            return Ok(Some(generation));
        }
        if info.state == "idle" {
            return Ok(None);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the table has a version, and returns the generation that has published it. A refresh that has failed is
/// begun again, by the cluster or by this test.
pub(super) async fn wait_until_published(client: &Client, version: u64) -> Result<Generation> {
    wait::until("the refresh is published", PUBLISHED_WITHIN, || async {
        let found = info(client).await?;
        let last = found.record.as_ref().and_then(|record| record.history.first()).cloned();
        let last = last.unwrap_or_default();
        if found.state != "idle" {
            return Err(format!("{found:?}"));
        }
        if last.outcome() != RefreshOutcome::Published {
            let _ = client.start_refresh(TABLE, false).await;
            return Err(format!("{last:?}"));
        }
        if last.source_rows == rows_of(version) {
            Ok(Generation(last.generation))
        } else {
            Err(format!("{last:?}"))
        }
    })
    .await
}
