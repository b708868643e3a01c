//! Spools that cannot be opened.

use rocksdb::{DB, Options};

use super::*;

/// Makes a spool with events.
fn filled(directory: &Path) {
    let spool = Spool::open(directory, LIMIT).unwrap();
    append(&spool, &events(0..100));
}

#[test]
fn spool_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _open = Spool::open(directory.path(), LIMIT).unwrap();
    let error = Spool::open(directory.path(), LIMIT).unwrap_err();
    assert!(matches!(error, SpoolError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("of its own"), "{error}");
}

#[test]
fn spool_of_a_later_release_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    spool
        .database
        .write(Durability::Synced, |_, batch| {
            batch.put(keys::FORMAT, 2u32.to_be_bytes());
            Ok(())
        })
        .unwrap();
    drop(spool);
    let error = Spool::open(directory.path(), LIMIT).unwrap_err();
    assert!(matches!(error, SpoolError::NewerFormat { .. }), "{error}");
}

#[test]
fn damaged_spool_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::open(directory.path(), LIMIT).unwrap();
    append(&spool, &events(0..100));
    drop(spool);
    std::fs::write(directory.path().join("CURRENT"), "nonsense\n").unwrap();
    let error = Spool::open(directory.path(), LIMIT).unwrap_err();
    assert!(matches!(error, SpoolError::Damaged { .. }), "{error}");
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(Spool::open(&file, LIMIT).is_err());
}

#[test]
fn spool_with_unknown_families_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let mut options = Options::default();
    options.create_missing_column_families(true);
    let mut families = DB::list_cf(&options, directory.path()).unwrap();
    families.push("receipts".to_owned());
    drop(DB::open_cf(&options, directory.path(), families).unwrap());
    let error = Spool::open(directory.path(), LIMIT).unwrap_err();
    assert!(matches!(error, SpoolError::NewerFormat { .. }), "{error}");
    assert!(error.to_string().contains("receipts"), "{error}");
}

#[test]
fn spool_with_damaged_manifest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    filled(directory.path());
    let files = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
    let is_manifest =
        |path: &Path| path.file_name().unwrap().to_string_lossy().starts_with("MANIFEST");
    let manifests: Vec<_> = files.filter(|path| is_manifest(path)).collect();
    assert!(!manifests.is_empty());
    for manifest in manifests {
        std::fs::write(manifest, "nonsense ".repeat(100)).unwrap();
    }
    let error = Spool::open(directory.path(), LIMIT).unwrap_err();
    assert!(matches!(error, SpoolError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("move the directory away"), "{error}");
}
