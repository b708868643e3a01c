use tempfile::TempDir;
use tidewater_common::ids::GroupId;

use super::*;
use crate::testing::entries;
use openraft::storage::RaftLogStorageExt;

const CLUSTER: ClusterId = ClusterId(Uuid::from_u128(1));
const OTHER: ClusterId = ClusterId(Uuid::from_u128(2));

fn open(dir: &TempDir) -> Result<DataDirectory, IdentityError> {
    DataDirectory::open(dir.path(), Role::Data, LogStoreOptions::default())
}

async fn log_something(directory: &DataDirectory) {
    let mut log = directory.log_store().group(GroupId(1));
    log.blocking_append(entries(1, 0..1)).await.unwrap();
}

#[tokio::test]
async fn directory_keeps_its_id_and_adopted_identity() {
    let dir = TempDir::new().unwrap();
    let id = {
        let directory = open(&dir).unwrap();
        assert_eq!(directory.identity(), None);
        directory.directory_id()
    };
    let adopted = {
        let mut directory = open(&dir).unwrap();
        assert_eq!(directory.directory_id(), id, "asking again names the same directory");
        let adopted = directory.adopt(CLUSTER, NodeId(3)).unwrap();
        assert_eq!(directory.adopt(CLUSTER, NodeId(3)).unwrap(), adopted);
        log_something(&directory).await;
        adopted
    };
    let directory = open(&dir).unwrap();
    assert_eq!(directory.identity(), Some(adopted));
    assert_eq!(adopted.node_id, NodeId(3));
    assert!(directory.check_cluster(CLUSTER).is_ok());
}

#[test]
fn other_cluster_node_or_role_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut directory = open(&dir).unwrap();
    directory.adopt(CLUSTER, NodeId(3)).unwrap();
    let error = directory.check_cluster(OTHER).unwrap_err();
    assert!(matches!(error, IdentityError::WrongCluster { found: CLUSTER, expected: OTHER, .. }));
    let error = directory.adopt(OTHER, NodeId(3)).unwrap_err();
    assert!(matches!(error, IdentityError::WrongCluster { .. }));
    let error = directory.adopt(CLUSTER, NodeId(4)).unwrap_err();
    assert!(matches!(
        error,
        IdentityError::WrongNode { found: NodeId(3), expected: NodeId(4), .. }
    ));
    drop(directory);
    let error =
        DataDirectory::open(dir.path(), Role::Meta, LogStoreOptions::default()).unwrap_err();
    assert!(matches!(
        error,
        IdentityError::WrongRole { found: Role::Data, expected: Role::Meta, .. }
    ));
}

#[test]
fn used_directory_error_names_the_process() {
    let dir = TempDir::new().unwrap();
    let _directory = open(&dir).unwrap();
    let error = open(&dir).unwrap_err();
    let IdentityError::InUse { pid, .. } = error else { panic!("{error}") };
    assert_eq!(pid, Some(std::process::id()));
}

#[tokio::test]
async fn lost_copy_is_refused_once_log_has_entries() {
    let dir = TempDir::new().unwrap();
    let mut directory = open(&dir).unwrap();
    let adopted = directory.adopt(CLUSTER, NodeId(3)).unwrap();
    drop(directory);

    // A crash during the first start can leave either copy alone.
    let file = dir.path().join(IDENTITY_FILE);
    fs::remove_file(&file).unwrap();
    assert_eq!(open(&dir).unwrap().identity(), Some(adopted));
    remove_copy(&open(&dir).unwrap());
    assert_eq!(open(&dir).unwrap().identity(), Some(adopted));

    log_something(&open(&dir).unwrap()).await;
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, IdentityError::CopyMissing { missing: "the file `identity`", .. }));
    fs::write(&file, bytes).unwrap();
    remove_copy(&open(&dir).unwrap());
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, IdentityError::CopyMissing { missing: "the log store", .. }));
}

fn remove_copy(directory: &DataDirectory) {
    directory
        .log_store()
        .write_synced(|_, batch| {
            batch.delete(IDENTITY_KEY);
            Ok(())
        })
        .unwrap();
}

#[test]
fn identity_copies_of_two_nodes_are_refused() {
    let one = TempDir::new().unwrap();
    let two = TempDir::new().unwrap();
    open(&one).unwrap().adopt(CLUSTER, NodeId(1)).unwrap();
    open(&two).unwrap().adopt(CLUSTER, NodeId(2)).unwrap();
    fs::copy(one.path().join(IDENTITY_FILE), two.path().join(IDENTITY_FILE)).unwrap();
    let error = open(&two).unwrap_err();
    let IdentityError::CopiesDiffer { file, store, .. } = error else { panic!("{error}") };
    assert!(file.contains("node 1") && store.contains("node 2"), "{file} {store}");
}

#[test]
fn newer_identity_format_is_refused_before_decoding() {
    let dir = TempDir::new().unwrap();
    open(&dir).unwrap();
    fs::write(dir.path().join(IDENTITY_FILE), br#"{"format": 2, "anything": []}"#).unwrap();
    let error = open(&dir).unwrap_err();
    assert!(matches!(error, IdentityError::NewerFormat { found: 2, supported: 1, .. }));
}

#[test]
fn damaged_identity_is_an_error() {
    let dir = TempDir::new().unwrap();
    open(&dir).unwrap();
    for damaged in ["", "{", r#"{"format": 1}"#] {
        fs::write(dir.path().join(IDENTITY_FILE), damaged).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(matches!(error, IdentityError::Damaged { .. }), "{damaged}: {error}");
    }
}

#[test]
fn identity_record_encoding_is_frozen() {
    let record = IdentityRecord::fresh(Role::Meta, DirectoryId(Uuid::nil()))
        .with_identity(ClusterId(Uuid::nil()), NodeId(3));
    let nil = "00000000-0000-0000-0000-000000000000";
    let text = format!(
        "{{\"format\":1,\"role\":\"meta\",\"directory_id\":\"{nil}\",\"cluster_id\":\"{nil}\",\
         \"node_id\":3}}\n"
    );
    assert_eq!(String::from_utf8(record.encode()).unwrap(), text);
    let decoded = IdentityRecord::decode(text.as_bytes(), Path::new("x"), "x").unwrap();
    assert_eq!(decoded, record);
}

#[test]
fn starts_are_counted_across_restarts_and_adoption() {
    let dir = TempDir::new().unwrap();
    let start = || {
        let mut directory = open(&dir).unwrap();
        assert_eq!(directory.count_start().unwrap(), directory.boot());
        directory
    };
    assert_eq!(open(&dir).unwrap().boot(), BootNumber(0));
    assert_eq!(start().boot(), BootNumber(1));
    start().adopt(CLUSTER, NodeId(3)).unwrap();
    let earlier = fs::read(dir.path().join(IDENTITY_FILE)).unwrap();
    assert_eq!(start().boot(), BootNumber(3));
    assert_eq!(start().boot(), BootNumber(4));
    assert_eq!(open(&dir).unwrap().boot(), BootNumber(4), "opening counts nothing");
    // A directory that is restored counts on from its earlier state.
    fs::write(dir.path().join(IDENTITY_FILE), earlier).unwrap();
    assert_eq!(start().boot(), BootNumber(3));
}

#[test]
fn identity_record_with_starts_is_frozen() {
    let record = IdentityRecord::fresh(Role::Data, DirectoryId(Uuid::nil())).started().started();
    let nil = "00000000-0000-0000-0000-000000000000";
    let text =
        format!("{{\"format\":1,\"role\":\"data\",\"directory_id\":\"{nil}\",\"boot\":2}}\n");
    assert_eq!(String::from_utf8(record.encode()).unwrap(), text);
    assert_eq!(IdentityRecord::decode(text.as_bytes(), Path::new("x"), "x").unwrap(), record);
}

#[test]
fn snapshot_directories_are_created() {
    let dir = TempDir::new().unwrap();
    let directory = open(&dir).unwrap();
    let snapshots = directory.snapshot_dir(GroupId(7)).unwrap();
    assert!(snapshots.is_dir());
    assert_eq!(directory.snapshot_dir(GroupId(7)).unwrap(), snapshots);
}

#[test]
fn identity_copies_keep_their_locations_across_releases() {
    let dir = TempDir::new().unwrap();
    let mut directory = open(&dir).unwrap();
    directory.adopt(CLUSTER, NodeId(3)).unwrap();
    let file = fs::read(dir.path().join("identity")).unwrap();
    let copy = directory.log_store().db().read(|db| db.get(b"identity")).unwrap();
    assert_eq!(copy, Some(file));
    assert!(dir.path().join("log/CURRENT").is_file());
    assert!(directory.snapshot_dir(GroupId(7)).unwrap().starts_with(dir.path().join("snapshots")));
}
