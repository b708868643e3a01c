//! Memory and cost of a division.

use tidewater_common::schema::WriteMode;

use super::family::Family;
use crate::memtable::FAN_IN;
use crate::region::tests::fixture::*;

fn rows(numbers: std::ops::Range<i32>) -> Vec<Row> {
    numbers.map(|n| (("k".to_owned(), n), Some(i64::from(n)), format!("row {n}"))).collect()
}

fn cut(family: &Family, number: i32) -> Vec<u8> {
    row_key(&family.spec, &("k".to_owned(), number))
}

#[tokio::test]
async fn memory_is_charged_once_until_all_children_flush() {
    let mut family = Family::new(WriteMode::Upsert, false).await;
    family.put(&rows(0..100));
    family.put(&rows(50..150));
    let [whole, _] = family.memory();
    let cuts = [cut(&family, 20), cut(&family, 100)];
    let parent = family.split(0, &cuts).await;
    family.bear(&[parent]).await;
    assert_eq!(family.memory()[0], whole);
    let stats: Vec<_> = family.regions.iter().map(|region| region.owner.stats()).collect();
    assert_eq!(stats.iter().map(|stats| stats.memtable_bytes).sum::<u64>(), whole);
    assert_eq!(stats.iter().map(|stats| stats.memtable_rows).collect::<Vec<_>>(), [20, 130, 50]);
    assert_eq!(stats.iter().map(|stats| stats.runs).collect::<Vec<_>>(), [1, 2, 1]);
    // The first run is shared by the first two children, the second run by the last two.
    let size = |run: usize| {
        let contents = family.regions[1].owner.contents.lock();
        contents.runs[run].shared_bytes() as u64
    };
    let sizes = [size(0), size(1)];
    family.regions[1].owner.flush().await.unwrap();
    assert_eq!(family.memory()[0], whole);
    family.regions[0].owner.flush().await.unwrap();
    assert_eq!(family.memory()[0], whole - sizes[0]);
    family.regions[2].owner.close();
    assert_eq!(family.memory()[0], whole - sizes[0] - sizes[1]);
    assert_eq!(family.memory()[0], 0);
}

#[tokio::test]
async fn merged_run_of_child_is_charged_for_its_rows() {
    let mut family = Family::new(WriteMode::AppendOnly, false).await;
    for _ in 0..FAN_IN {
        family.put(&rows(0..10));
    }
    let [whole, _] = family.memory();
    let cuts = [cut(&family, 5)];
    let parent = family.split(0, &cuts).await;
    family.bear(&[parent]).await;
    let [low, high] = [0, 1].map(|at: usize| family.regions[at].owner.clone());
    low.merge_runs().await.unwrap();
    let stats = low.stats();
    assert_eq!((stats.runs, stats.memtable_rows), (1, 5 * FAN_IN as u64));
    // The other child still shares the runs of the parent.
    assert_eq!(family.memory()[0], whole + stats.memtable_bytes);
    high.merge_runs().await.unwrap();
    assert_eq!(family.memory()[0], stats.memtable_bytes + high.stats().memtable_bytes);
    family.check().await;
    family.finish().await;
}

#[tokio::test]
async fn division_shares_rows_without_copies() {
    let mut family = Family::new(WriteMode::AppendOnly, false).await;
    for n in 0..64 {
        family.put(&rows(n..n + 100));
    }
    let before = family.regions[0].owner.contents.lock().runs.clone();
    assert_eq!(before.len(), 64);
    let cuts = [cut(&family, 32), cut(&family, 90)];
    let parent = family.split(0, &cuts).await;
    let mut parts = 0;
    for region in &family.regions {
        let contents = region.owner.contents.lock();
        parts += contents.runs.len();
        for run in &contents.runs {
            let sources = before.iter().filter(|source| source.shares_rows(run)).count();
            assert_eq!(sources, 1);
        }
    }
    // Runs 0 to 31 have keys below the first cut, all have some between the cuts, and from run 0 on all
    // have some above the last cut.
    assert_eq!(parts, 32 + 64 + 64);
    // Columns are shared, too.
    let first = before[0].batch(0).unwrap();
    let part = family.regions[0].owner.contents.lock().runs[0].batch(0).unwrap();
    let buffers = |rows: &crate::row_versions::RowVersions| {
        let data: Vec<_> = rows.arrays().iter().map(|array| array.to_data()).collect();
        data.iter().flat_map(|data| data.buffers().to_vec()).collect::<Vec<_>>()
    };
    for (whole, part) in buffers(&first).iter().zip(buffers(&part)) {
        let end = whole.as_ptr() as usize + whole.len();
        assert!((whole.as_ptr() as usize..=end).contains(&(part.as_ptr() as usize)));
    }
    family.bear(&[parent]).await;
    family.check().await;
}
