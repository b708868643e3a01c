//! Fixtures of this crate's tests.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::types::{Command, Entry, EntryPayload, TypeConfig, log_id};

pub(crate) mod cluster;
pub(crate) mod faults;
pub(crate) mod follower;
pub(crate) mod handler;
pub(crate) mod machine;
pub(crate) mod proxy;

/// Creates an entry with a command of `bytes` bytes.
pub(crate) fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(Command(Bytes::from(vec![index as u8; bytes]))),
    }
}

/// Creates entries with these indexes and commands of 8 bytes.
pub(crate) fn entries(term: u64, indexes: std::ops::Range<u64>) -> Vec<Entry> {
    indexes.map(|index| entry(term, index, 8)).collect()
}

pub(crate) fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.log_id.index).collect()
}

/// Creates a flush callback, and a future of the result passed to it.
pub(crate) fn callback() -> (
    openraft::storage::IOFlushed<TypeConfig>,
    impl Future<Output = Result<(), std::io::Error>> + Unpin,
) {
    use openraft::type_config::TypeConfigExt;
    let (sender, receiver) = TypeConfig::oneshot();
    let callback = openraft::storage::IOFlushed::signal(sender);
    (callback, Box::pin(async move { receiver.await.expect("the callback is called") }))
}

/// Waits until a condition holds, for at most 30 seconds.
pub(crate) async fn eventually(condition: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting for: {condition}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
