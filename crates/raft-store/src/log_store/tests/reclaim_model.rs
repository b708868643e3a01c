//! Random logs with release of space and kills, compared with a model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::reclaim::{reclaim, settle, small_files};
use super::*;
use crate::types::Entry;

#[derive(Debug, Clone)]
enum Step {
    Append { group: u64, count: u64, bytes: usize },
    Truncate { group: u64, back: u64 },
    Purge { group: u64, behind: u64 },
    Remove { group: u64 },
    Reclaim,
    Settle,
    Kill,
}

/// Entries of a group by index; those at and below `purged` are purged.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<u64, Entry>,
    purged: Option<u64>,
    term: u64,
}

impl Model {
    fn next(&self) -> u64 {
        let last = self.entries.keys().last().copied();
        last.max(self.purged).map_or(0, |last| last + 1)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |purged| purged + 1)
    }

    fn live(&self, first: u64) -> Vec<Entry> {
        self.entries.range(first..).map(|(_, entry)| entry.clone()).collect()
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = 0..5_u64;
    let step = prop_oneof![
        6 => (group.clone(), 1..40_u64, 1..9_000_usize)
            .prop_map(|(group, count, bytes)| Step::Append { group, count, bytes }),
        2 => (group.clone(), 0..30_u64).prop_map(|(group, back)| Step::Truncate { group, back }),
        4 => (group.clone(), 0..30_u64).prop_map(|(group, behind)| Step::Purge { group, behind }),
        1 => group.prop_map(|group| Step::Remove { group }),
        3 => Just(Step::Reclaim),
        2 => Just(Step::Settle),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..60)
}

fn open_store(dir: &Path) -> (Arc<LogStore>, Arc<FaultyDisk>) {
    let disk = Arc::new(FaultyDisk::default());
    // Lazy writes wait for the next entry, so that a kill loses purge points.
    let options = LogStoreOptions { check_interval: Duration::from_secs(600), ..small_files() };
    let store = LogStore::open_on(dir, options, Arc::clone(&disk) as _).unwrap();
    (store, disk)
}

async fn run(steps: Vec<Step>) {
    let dir = TempDir::new().unwrap();
    let (mut store, mut disk) = open_store(dir.path());
    let mut models: BTreeMap<u64, Model> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Append { group, count, bytes } => {
                let model = models.entry(group).or_default();
                let next = model.next();
                let entries: Vec<_> = (next..next + count)
                    .map(|index| entry(model.term, index, bytes + index as usize % 7))
                    .collect();
                store.group(GroupId(group)).blocking_append(entries.clone()).await.unwrap();
                model.entries.extend(entries.into_iter().map(|entry| (entry.log_id.index, entry)));
            }
            Step::Truncate { group, back } => {
                let model = models.entry(group).or_default();
                let from = model.next().saturating_sub(back).max(model.first());
                let keep = from.checked_sub(1).map(|index| log_id(model.term, index));
                store.group(GroupId(group)).truncate_after(keep).await.unwrap();
                model.entries.retain(|index, _| *index < from);
                model.term += 1;
            }
            Step::Purge { group, behind } => {
                let model = models.entry(group).or_default();
                let Some(upto) = model.next().checked_sub(behind + 1) else { continue };
                if model.purged >= Some(upto) {
                    continue;
                }
                let id = model.entries[&upto].log_id;
                store.group(GroupId(group)).purge(id).await.unwrap();
                model.purged = Some(upto);
            }
            Step::Remove { group } => {
                store.remove_group(GroupId(group)).await.unwrap();
                models.remove(&group);
            }
            Step::Reclaim => {
                reclaim(&store).unwrap();
            }
            Step::Settle => settle(&store),
            Step::Kill => {
                // Queued writes are lost; the database keeps those that it has.
                disk.fail_with(Some("killed"));
                drop(store);
                (store, disk) = open_store(dir.path());
                for (group, model) in &mut models {
                    let purged = store.group(GroupId(*group)).purged().map(|id| id.index);
                    assert!(purged <= model.purged, "group {group}: {purged:?} {model:?}");
                    model.purged = purged;
                }
            }
        }
        for (group, model) in &models {
            let mut log = store.group(GroupId(*group));
            let read = log.try_get_log_entries(..).await.unwrap();
            let live = model.live(model.first());
            assert!(read == live, "group {group}: {:?} {:?}", indexes(&read), indexes(&live));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn reclaimed_logs_equal_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps));
    }
}
