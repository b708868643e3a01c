//! Changes of a region between the epochs of a step.

use std::sync::Arc;

use futures::future::ready;
use futures::stream::{self, StreamExt, TryStreamExt};
use tidewater_common::refusal::Refusal;
use tidewater_proto::v1::Reason;
use tidewater_region_engine::read::memory::ScanMemory;
use tidewater_region_engine::region::{EpochChangeOptions, EpochChanges};
use tidewater_region_engine::{AsOf, ScanMeter};

use super::layout::StepEpochs;
use crate::group::hosted::HostedRegion;
use crate::group::replica::GroupReplica;

/// Maximum number of rows of a batch.
const BATCH_ROWS: usize = 8_192;

/// Pins the changes of a region. The caller has confirmed the leadership: all rows of a complete epoch are applied.
///
/// # Errors
/// [`Reason::EpochIncomplete`], [`Reason::RouteMoved`], [`Reason::RegionLoading`], and those of [`tidewater_region_engine::Region::epoch_changes`].
pub(super) fn pin(
    replica: &GroupReplica,
    hosted: &HostedRegion,
    memory: &ScanMemory,
    epochs: StepEpochs,
) -> Result<EpochChanges, Refusal> {
    let region = hosted.descriptor.region_id;
    let (_, upper) = replica.shared.state.read().readable_epochs(region).unwrap_or_default();
    if upper <= epochs.as_of() {
        let text = format!("group {} has not completed epoch {}", replica.group(), epochs.as_of);
        return Err(Refusal::new(Reason::EpochIncomplete, text));
    }
    if replica.shared.regions.is_replaced(region) {
        // A region that was restored from a snapshot serves reads of its own rows, and writes go to its children.
        let text = format!("region {region} was split or merged");
        return Err(Refusal::new(Reason::RouteMoved, text));
    }
    // No later step reads these epochs again: the export would never have the rows of loaded files.
    replica.check_recorded(hosted)?;
    let options = EpochChangeOptions {
        after: epochs.after(),
        as_of: AsOf { epoch: epochs.as_of(), upper },
        batch_rows: BATCH_ROWS,
        account: memory.account(),
    };
    let changes = hosted.region.epoch_changes(&options, &ScanMeter::default());
    let EpochChanges { schema, rows } = changes.map_err(|error| Refusal::from(&error))?;
    let shared = Arc::clone(&replica.shared);
    let rows = rows.inspect_err(move |error| shared.handle_read_error(region, error));
    Ok(EpochChanges { schema, rows: rows.boxed() })
}

/// Reads the first changes, and returns all of them; `None`: there are none.
///
/// # Errors
/// Those of the read.
pub(super) async fn peek(changes: EpochChanges) -> Result<Option<EpochChanges>, Refusal> {
    let EpochChanges { schema, mut rows } = changes;
    while let Some(first) = rows.try_next().await.map_err(|error| Refusal::from(&error))? {
        if first.num_rows() > 0 {
            let rows = stream::once(ready(Ok(first))).chain(rows);
            return Ok(Some(EpochChanges { schema, rows: rows.boxed() }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use arrow::array::RecordBatch;
    use tidewater_common::ids::RegionId;
    use tidewater_region_engine::EngineError;

    use super::*;
    use crate::group::testing::{batch, schema};

    fn changes(batches: Vec<Result<RecordBatch, EngineError>>) -> EpochChanges {
        EpochChanges { schema: schema(1).arrow(), rows: stream::iter(batches).boxed() }
    }

    #[tokio::test]
    async fn peek_returns_all_changes() {
        let batches = [batch(&[]), batch(&[1]), batch(&[]), batch(&[2, 3])];
        let peeked = peek(changes(Vec::from(batches.map(Ok)))).await.unwrap().unwrap();
        let rows: Vec<RecordBatch> = peeked.rows.try_collect().await.unwrap();
        assert_eq!(rows, [batch(&[1]), batch(&[]), batch(&[2, 3])]);
        assert!(peek(changes(vec![Ok(batch(&[]))])).await.unwrap().is_none());
        assert!(peek(changes(Vec::new())).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn peek_returns_the_error_of_the_read() {
        let closed = EngineError::Closed { region: RegionId(7) };
        let refused = peek(changes(vec![Err(closed)])).await.err().unwrap();
        assert_eq!(refused.reason, Reason::RegionNotFound);
    }
}
