//! Files that a count reads: those that need it, once.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewater_common::ids::{Epoch, Sequence};
use tidewater_common::schema::WriteMode;

use super::{ALL_READABLE, kept, rows};
use crate::Region;
use crate::env::{EngineOptions, RegionEnv};
use crate::read::memory::ScanAccount;
use crate::region::tests::fixture::RegionFixture;
use crate::storage::Operation;
use crate::storage::testing::{Fault, FaultyStore};

/// A region of three files, one of each epoch: the keys of the last two overlap.
async fn with_files(store: &FaultyStore, mode: WriteMode) -> RegionFixture {
    let mut fixture = RegionFixture::new(store.storage(), mode, false).await;
    for numbers in [0..10, 20..30, 25..35] {
        fixture.put(&rows(numbers, "flushed"));
        fixture.region.flush().await.unwrap();
        fixture.begin_epoch(ALL_READABLE);
    }
    assert_eq!(fixture.region.files().len(), 3);
    fixture
}

/// Opens a separate region over the fixture's store, without a cache of data files. Returns it with the paths of its
/// reads of data files.
async fn reader(
    store: &FaultyStore,
    fixture: &RegionFixture,
) -> (Arc<Region>, Arc<Mutex<Vec<String>>>) {
    let env = fixture.env();
    let options = EngineOptions { object_cache_bytes: 0, ..env.options.clone() };
    let env = RegionEnv::new(env.storage, env.clock, env.ids, env.memory, options);
    let region = Region::new(env, fixture.spec.clone(), Sequence(0), Sequence(0)).unwrap();
    region.load().await.unwrap();
    let reads = Arc::new(Mutex::new(Vec::new()));
    let recorded = reads.clone();
    store.plan(move |call| {
        if call.operation == Operation::Get && call.path.as_ref().ends_with(".parquet") {
            recorded.lock().push(call.path.to_string());
        }
        Fault::None
    });
    (region, reads)
}

#[tokio::test]
async fn files_of_single_versions_are_not_read() {
    for (mode, expected, files_read) in
        [(WriteMode::AppendOnly, [30, 30, 30], 0), (WriteMode::Upsert, [30, 30, 25], 2)]
    {
        let store = FaultyStore::new();
        let fixture = with_files(&store, mode).await;
        let (region, reads) = reader(&store, &fixture).await;
        assert_eq!(kept(&region, [0, 1, 2]).await, expected, "{mode:?}");
        let read: BTreeSet<String> = reads.lock().drain(..).collect();
        assert_eq!(read.len(), files_read, "{mode:?}: {read:?}");
    }
}

#[tokio::test]
async fn files_are_read_once_for_all_epochs() {
    let store = FaultyStore::new();
    let fixture = with_files(&store, WriteMode::Upsert).await;
    let mut reads_of_count = Vec::new();
    for epochs in [1, 200] {
        let (region, reads) = reader(&store, &fixture).await;
        let sinces: Vec<Epoch> = (0..epochs).map(Epoch).collect();
        region.kept_versions(&sinces, &ScanAccount::default()).await.unwrap();
        reads_of_count.push(reads.lock().len());
    }
    assert!(reads_of_count[0] > 0 && reads_of_count[0] == reads_of_count[1], "{reads_of_count:?}");
}
