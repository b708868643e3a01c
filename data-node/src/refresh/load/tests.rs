use async_trait::async_trait;
use futures::FutureExt;
use tidewater_common::clock::SystemClock;
use tidewater_common::schema::TableOptions;
use tidewater_region_engine::MemoryBudget;
use tidewater_region_engine::env::{EngineOptions, SystemIds};
use tidewater_region_engine::storage::Storage;
use tidewater_source_kinds::{Listing, SourceError};
use tokio::time::sleep;

use super::*;
use crate::catalog::RegionPlace;
use crate::group::testing::{batch, options, schema};
use crate::refresh::loads::Loads;

const MINUTE: Duration = Duration::from_secs(60);

/// A source that sends one row after each of its pauses. Then it ends, or hangs.
struct SlowSource {
    pauses: Vec<Duration>,
    hangs: bool,
}

#[async_trait]
impl Source for SlowSource {
    async fn list(&self) -> Result<Listing, SourceError> {
        Err(SourceError::Unreadable("this source is not listed".to_owned()))
    }

    async fn read(&self, _: &Split, rows: RowSender) -> Result<(), SourceError> {
        for (id, pause) in (1..).zip(&self.pauses) {
            sleep(*pause).await;
            let _ = rows.send(batch(&[id])).await;
        }
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

/// A refreshable table with one region.
fn table() -> LoadedTable {
    let options = TableOptions { refreshable: true, ..options() };
    let table = v1::Table {
        table_id: 3,
        name: "t".to_owned(),
        schema: Some((&schema(1)).into()),
        options: Some((&options).into()),
        ..v1::Table::default()
    };
    let place =
        RegionPlace { table_id: 3, group_id: 5, incarnation: 1, start: Vec::new(), end: None };
    let catalog = CatalogRecords {
        tables: BTreeMap::from([(3, table)]),
        regions: BTreeMap::from([(7, place)]),
        ..CatalogRecords::default()
    };
    LoadedTable::new(&catalog, 3).unwrap()
}

/// Starts the load of one split.
fn load(source: SlowSource, open: OpenLoad) -> LoadStream {
    let env = RegionEnv::new(
        Storage::memory(),
        Arc::new(SystemClock),
        Arc::new(SystemIds),
        MemoryBudget::new(1 << 30),
        EngineOptions::default(),
    );
    let split = Split { name: "query".to_owned(), pin: BTreeMap::new(), bytes: 0 };
    start(env, table(), Box::new(source), vec![split], open)
}

/// Returns the last message of a load.
async fn last(mut load: LoadStream) -> Result<LoadSplitsResponse, Refusal> {
    loop {
        match load.next().await {
            Some(Ok(message)) if !message.done => {}
            Some(ended) => return ended.map_err(Refusal::from),
            None => panic!("the load has no last message"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn load_fails_after_an_hour_without_rows() {
    let begun = Instant::now();
    let source = SlowSource { pauses: Vec::new(), hangs: true };
    let open = Loads::default().open("db").unwrap();
    let failed = last(load(source, open)).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 60 * 60);
    assert_eq!(failed.reason, Reason::SourceUnreadable);
    assert!(failed.message.contains("no rows for 60 minutes"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn load_fails_ten_minutes_after_its_last_row() {
    let begun = Instant::now();
    // The first row may take longer than the others.
    let source = SlowSource { pauses: vec![59 * MINUTE, 9 * MINUTE], hangs: true };
    let open = Loads::default().open("db").unwrap();
    let failed = last(load(source, open)).await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), (59 + 9 + 10) * 60);
    assert_eq!(failed.reason, Reason::SourceUnreadable);
    assert!(failed.message.contains("no rows for 10 minutes"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn slow_source_gives_its_slot_back_between_rows() {
    let loads = Loads::default();
    let slow = || SlowSource { pauses: vec![Duration::ZERO, 9 * MINUTE, 9 * MINUTE], hangs: false };
    let slow = ["a", "b"].map(|server| load(slow(), loads.open(server).unwrap()));
    let mut other = loads.open("c").unwrap();
    sleep(MINUTE / 6).await;
    assert!(other.take_slot().now_or_never().is_none());
    sleep(MINUTE).await;
    assert!(other.take_slot().now_or_never().is_some());
    drop(other);
    for slow in slow {
        let ended = last(slow).await.unwrap();
        // Few rows are not written before the others.
        let files: Vec<usize> = ended.files.iter().map(|region| region.file_ids.len()).collect();
        assert_eq!((ended.rows, files), (3, vec![1]));
    }
}
