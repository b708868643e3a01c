//! Objects that are not what was written (S6).

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
async fn damage_names_the_object() {
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

/// What a reader makes of damage: an error that names the object, or what it would have read.
async fn expect_named_or_whole(
    store: &FaultyStore,
    name: &str,
    whole: &ManifestState,
    what: &str,
) -> bool {
    let mut manager = manager(store);
    match manager.refresh().await {
        Ok(_) => {
            assert_eq!(**manager.state(), *whole, "{what}");
            false
        }
        Err(EngineError::Damaged { object, .. } | EngineError::NewerFormat { object, .. }) => {
            assert_eq!(object, name, "{what}");
            true
        }
        Err(other) => panic!("{what}: {other}"),
    }
}

#[tokio::test]
async fn five_hundred_flips_and_cuts_of_every_kind_of_object() {
    let store = six_deltas().await;
    let storage = store.storage();
    let mut reader = manager(&store);
    reader.refresh().await.unwrap();
    let whole = ManifestState::clone(reader.state());
    let objects = [
        (DIR.checkpoint(ManifestVersion(4)), true),
        (DIR.delta(ManifestVersion(5)), true),
        // Nothing but a hint: without it, or with a wrong one, a listing is longer.
        (DIR.last_checkpoint(), false),
    ];
    for (path, decisive) in objects {
        let bytes = storage.get(&path).await.unwrap();
        let name = storage.name(&path);
        let mut found = 0;
        for place in 0..500 {
            let mut flipped = bytes.to_vec();
            flipped[place * 31 % bytes.len()] ^= 1 << (place % 8);
            storage.put(&path, flipped.into()).await.unwrap();
            let what = format!("{path}: flip {place}");
            found += usize::from(expect_named_or_whole(&store, &name, &whole, &what).await);
            let cut = bytes.slice(..place * 17 % bytes.len());
            storage.put(&path, cut).await.unwrap();
            let what = format!("{path}: cut {place}");
            found += usize::from(expect_named_or_whole(&store, &name, &whole, &what).await);
        }
        assert_eq!(found, if decisive { 1_000 } else { 0 }, "{path}");
        storage.put(&path, bytes).await.unwrap();
    }
}

#[tokio::test]
async fn a_newer_format_says_upgrade() {
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
async fn an_object_in_another_slot_or_region_is_damage() {
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
async fn a_missing_delta_is_damage() {
    let store = six_deltas().await;
    let path = DIR.delta(ManifestVersion(5));
    store.storage().delete(&path).await.unwrap();
    let error = open(&store).await.unwrap_err();
    let name = store.storage().name(&path);
    assert!(matches!(&error, EngineError::Damaged { object, .. } if *object == name), "{error}");
}

#[tokio::test]
async fn reading_ends_when_the_manifest_never_holds_still() {
    let store = six_deltas().await;
    // Listed, and gone whenever it is read.
    store.plan(|call| {
        let gone = call.operation == crate::storage::Operation::List
            || !call.path.as_ref().ends_with("5.delta");
        if gone {
            crate::storage::testing::Fault::None
        } else {
            crate::storage::testing::Fault::NotFound
        }
    });
    let error = open(&store).await.unwrap_err();
    let rounds = ManifestOptions::default().read_rounds;
    assert!(matches!(error, EngineError::Unstable { rounds: r, .. } if r == rounds), "{error}");
}
