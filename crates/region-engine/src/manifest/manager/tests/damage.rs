//! Damaged objects (S6).

use super::*;
use crate::layout::RegionDir;
use crate::manifest::{ManifestOptions, ManifestState};

async fn six_deltas() -> FaultyStore {
    let store = FaultyStore::new();
    let mut owner = owned_manager(&store, 1).await;
    for number in 1..=5 {
        owner.update(flush(1, number)).await.unwrap();
    }
    store
}

async fn open(store: &FaultyStore) -> Result<ManifestVersion, EngineError> {
    manager(store).refresh().await
}

#[tokio::test]
async fn damage_error_names_the_object() {
    let store = six_deltas().await;
    let storage = store.storage();
    for path in [DIR.checkpoint(ManifestVersion(4)), DIR.delta(ManifestVersion(5))] {
        let whole = storage.get(&path).await.unwrap();
        let name = storage.name(&path);
        let damaged = [
            whole.slice(..whole.len() - 1),
            Bytes::new(),
            Bytes::from([&whole[..], b"x"].concat()),
            Bytes::from(whole.iter().map(|byte| byte ^ 4).collect::<Vec<u8>>()),
        ];
        for bytes in damaged {
            storage.put(&path, bytes).await.unwrap();
            let error = open(&store).await.unwrap_err();
            assert!(
                matches!(&error, EngineError::Damaged { object, .. } if *object == name),
                "{error}"
            );
            assert!(error.to_string().contains(&name));
        }
        storage.put(&path, whole).await.unwrap();
        assert_eq!(open(&store).await.unwrap(), ManifestVersion(6));
    }
}

#[tokio::test]
async fn refresh_before_a_commit_finds_a_lost_delta() {
    let store = FaultyStore::new();
    let storage = store.storage();
    let mut owner = owned_manager(&store, 1).await;
    owner.update(flush(1, 1)).await.unwrap();
    let lost = DIR.delta(owner.state().version);
    let whole = storage.get(&lost).await.unwrap();
    storage.delete(&lost).await.unwrap();
    let before = names(&store).await;
    for _ in 0..2 {
        let error = owner.refresh().await.unwrap_err();
        let name = storage.name(&lost);
        assert!(
            matches!(&error, EngineError::Damaged { object, .. } if *object == name),
            "{error}"
        );
        assert_eq!(names(&store).await, before);
    }
    // Restored, the owner continues.
    storage.put(&lost, whole).await.unwrap();
    owner.refresh().await.unwrap();
    owner.update(flush(1, 2)).await.unwrap();
}

/// Expects either an error that names the object or the undamaged state. Returns `true` for the
/// error.
async fn expect_named_or_whole(
    store: &FaultyStore,
    name: &str,
    whole: &ManifestState,
    context: &str,
) -> bool {
    let mut manager = manager(store);
    match manager.refresh().await {
        Ok(_) => {
            assert_eq!(**manager.state(), *whole, "{context}");
            false
        }
        Err(EngineError::Damaged { object, .. } | EngineError::NewerFormat { object, .. }) => {
            assert_eq!(object, name, "{context}");
            true
        }
        Err(other) => panic!("{context}: {other}"),
    }
}

#[tokio::test]
async fn flips_and_cuts_of_any_object_are_detected() {
    let store = six_deltas().await;
    let storage = store.storage();
    let mut reader = manager(&store);
    reader.refresh().await.unwrap();
    let whole = ManifestState::clone(reader.state());
    let objects = [
        (DIR.checkpoint(ManifestVersion(4)), true),
        (DIR.delta(ManifestVersion(5)), true),
        // Only a hint: without it, or with a wrong one, the listing is longer.
        (DIR.last_checkpoint(), false),
    ];
    for (path, decisive) in objects {
        let bytes = storage.get(&path).await.unwrap();
        let name = storage.name(&path);
        let mut found = 0;
        for position in 0..500 {
            let mut flipped = bytes.to_vec();
            flipped[position * 31 % bytes.len()] ^= 1 << (position % 8);
            storage.put(&path, flipped.into()).await.unwrap();
            let context = format!("{path}: flip {position}");
            found += usize::from(expect_named_or_whole(&store, &name, &whole, &context).await);
            let cut = bytes.slice(..position * 17 % bytes.len());
            storage.put(&path, cut).await.unwrap();
            let context = format!("{path}: cut {position}");
            found += usize::from(expect_named_or_whole(&store, &name, &whole, &context).await);
        }
        assert_eq!(found, if decisive { 1_000 } else { 0 }, "{path}");
        storage.put(&path, bytes).await.unwrap();
    }
}

#[tokio::test]
async fn newer_format_is_reported_as_newer() {
    let store = six_deltas().await;
    let storage = store.storage();
    let path = DIR.delta(ManifestVersion(5));
    let mut bytes = storage.get(&path).await.unwrap().to_vec();
    bytes[4] = 9;
    let end = bytes.len() - 4;
    let sum = crc32c::crc32c(&bytes[..end]);
    bytes[end..].copy_from_slice(&sum.to_le_bytes());
    storage.put(&path, bytes.into()).await.unwrap();
    let error = open(&store).await.unwrap_err();
    assert!(matches!(error, EngineError::NewerFormat { found: 9, supported: 1, .. }), "{error}");
}

#[tokio::test]
async fn object_in_another_slot_or_region_is_damage() {
    let store = six_deltas().await;
    let storage = store.storage();
    let other = RegionDir { region_id: tidewater_common::ids::RegionId(99), ..DIR };
    for (from, to) in [
        (DIR.delta(ManifestVersion(5)), DIR.delta(ManifestVersion(7))),
        (DIR.checkpoint(ManifestVersion(4)), DIR.checkpoint(ManifestVersion(8))),
        (DIR.delta(ManifestVersion(1)), other.delta(ManifestVersion(1))),
        (DIR.checkpoint(ManifestVersion(4)), other.checkpoint(ManifestVersion(4))),
    ] {
        storage.put(&to, storage.get(&from).await.unwrap()).await.unwrap();
        let dir = if to.as_ref().starts_with(other.path().as_ref()) { other } else { DIR };
        let error = RegionManifestManager::new(env(store.storage()), dir).refresh().await;
        let name = storage.name(&to);
        assert!(
            matches!(&error, Err(EngineError::Damaged { object, .. }) if *object == name),
            "{to}: {error:?}"
        );
        storage.delete(&to).await.unwrap();
    }
}

#[tokio::test]
async fn missing_delta_is_damage() {
    let store = six_deltas().await;
    let path = DIR.delta(ManifestVersion(5));
    store.storage().delete(&path).await.unwrap();
    let error = open(&store).await.unwrap_err();
    let name = store.storage().name(&path);
    assert!(matches!(&error, EngineError::Damaged { object, .. } if *object == name), "{error}");
}

#[tokio::test]
async fn reading_stops_when_the_manifest_keeps_changing() {
    let store = six_deltas().await;
    // Listed, but not found on every read.
    store.plan(|call| {
        let unaffected = call.operation == crate::storage::Operation::List
            || !call.path.as_ref().ends_with("5.delta");
        if unaffected {
            crate::storage::testing::Fault::None
        } else {
            crate::storage::testing::Fault::NotFound
        }
    });
    let error = open(&store).await.unwrap_err();
    let rounds = ManifestOptions::default().read_rounds;
    assert!(matches!(error, EngineError::Unstable { rounds: r, .. } if r == rounds), "{error}");
}
