use std::io::Write;
use std::process::Command;
use std::time::Instant;

use super::*;

const NO_SPACE: &str = "IO error: No space left on device: While appending to file: test";

async fn wait_health(store: &LogStore, health: DiskHealth) {
    let mut watched = store.health();
    let wait = watched.wait_for(|seen| *seen == health);
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("health changes").unwrap();
}

#[tokio::test]
async fn full_disk_delays_writes_until_there_is_space() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..3)).await.unwrap();
    disk.fail_with(Some(NO_SPACE));
    let (flushed, first) = callback();
    log.append(entries(1, 3..5), flushed).await.unwrap();
    wait_health(&store, DiskHealth::Full).await;
    let (flushed, second) = callback();
    log.append(entries(1, 5..6), flushed).await.unwrap();
    let read = log.try_get_log_entries(3..).await.unwrap();
    assert_eq!(indexes(&read), [3, 4, 5], "readable while the disk is full");
    assert!(store.accepts_entries(), "there is space in memory");
    disk.fail_with(None);
    first.await.unwrap();
    second.await.unwrap();
    wait_health(&store, DiskHealth::Ok).await;
    assert!(store.stats().reopened >= 1);
    // Through the reopened database.
    log.blocking_append(entries(1, 6..7)).await.unwrap();
    drop(log);
    store.shutdown();
    drop(store);
    let store = open(dir.path());
    assert_eq!(state(&mut store.group(GroupId(1))).await, (None, Some(6)));
}

#[tokio::test]
async fn low_free_space_is_reported_before_writes_fail() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    let floor = options().free_space_floor;
    let mut log = store.group(GroupId(1));
    disk.set_free(floor - 1);
    wait_health(&store, DiskHealth::Full).await;
    log.blocking_append(entries(1, 0..3)).await.unwrap();
    wait_health(&store, DiskHealth::Full).await;
    // Nothing is written when a write could fail half-way.
    disk.set_free(floor / 4 - 1);
    let (flushed, done) = callback();
    log.append(entries(1, 3..4), flushed).await.unwrap();
    eventually("the flusher has taken it", || store.shared.queue.bytes() == 0).await;
    // A check completes before the next one starts: after two, the first had its effect.
    let free_space_checks = disk.free_space_checks();
    eventually("the flusher has checked the disk", || {
        disk.free_space_checks() >= free_space_checks + 2
    })
    .await;
    assert_eq!(store.stats().entries, 3);
    disk.set_free(floor * 2);
    done.await.unwrap();
    wait_health(&store, DiskHealth::Ok).await;
    assert_eq!(store.stats().reopened, 0, "RocksDB never ran out of space");
}

#[tokio::test]
async fn memory_bounds_accepted_entries_while_the_disk_is_full() {
    let dir = TempDir::new().unwrap();
    let disk = Arc::new(FaultyDisk::default());
    let small = LogStoreOptions { pending_bytes: 2_000, ..options() };
    let store = LogStore::open_on(dir.path(), small, Arc::clone(&disk) as _).unwrap();
    disk.fail_with(Some(NO_SPACE));
    let mut log = store.group(GroupId(1));
    let (flushed, first) = callback();
    log.append(entries(1, 0..1), flushed).await.unwrap();
    wait_health(&store, DiskHealth::Full).await;
    let (flushed, second) = callback();
    log.append([entry(1, 1, 1_500)], flushed).await.unwrap();
    assert!(!store.accepts_entries());
    disk.fail_with(None);
    first.await.unwrap();
    second.await.unwrap();
    eventually("entries are accepted", || store.accepts_entries()).await;
}

#[tokio::test]
async fn any_other_write_error_is_permanent() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..3)).await.unwrap();
    disk.fail_with(Some("IO error: Input/output error: While fsync: test"));
    let (flushed, first) = callback();
    log.append(entries(1, 3..4), flushed).await.unwrap();
    assert!(first.await.is_err());
    assert!(matches!(&*store.health().borrow(), DiskHealth::Failed(message)
        if message.contains("Input/output error")));
    disk.fail_with(None);
    let (flushed, second) = callback();
    assert!(log.append(entries(1, 4..5), flushed).await.is_err());
    assert!(second.await.is_err(), "nothing is acknowledged after a failure");
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err());
    let read = log.try_get_log_entries(0..3).await.unwrap();
    assert_eq!(read.len(), 3, "reads continue");
}

#[tokio::test]
async fn close_fails_pending_writes_while_the_disk_is_full() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    disk.fail_with(Some(NO_SPACE));
    let (flushed, done) = callback();
    store.group(GroupId(1)).append(entries(1, 0..1), flushed).await.unwrap();
    wait_health(&store, DiskHealth::Full).await;
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.shutdown()).await.unwrap();
    assert_eq!(done.await.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

/// A replica's Raft waits for its vote before it can stop, and the store is closed after it.
#[tokio::test]
async fn callers_blocked_by_a_full_disk_can_be_failed() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty(dir.path());
    store.fail_pending_if_full();
    let mut log = store.group(GroupId(1));
    log.blocking_append(entries(1, 0..3)).await.unwrap();
    disk.fail_with(Some(NO_SPACE));
    let vote = tokio::spawn(async move { log.save_vote(&Vote::new(9, 1)).await });
    wait_health(&store, DiskHealth::Full).await;
    store.fail_pending_if_full();
    let ended = tokio::time::timeout(Duration::from_secs(30), vote).await.unwrap().unwrap();
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
}

fn open_faulty_with_rows(dir: &Path) -> (Arc<LogStore>, Arc<FaultyDisk>) {
    let disk = Arc::new(FaultyDisk::default());
    let with_rows = options().with_column_family("state");
    let store = LogStore::open_on(dir, with_rows, Arc::clone(&disk) as _).unwrap();
    (store, disk)
}

#[tokio::test]
async fn rows_written_behind_wait_for_space_in_order() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty_with_rows(dir.path());
    let mut log = store.group(GroupId(1));
    disk.fail_with(Some(NO_SPACE));
    log.write_behind(16, put_row(1)).await.unwrap();
    // They have no waiting caller, and health still reports that they do not fit.
    wait_health(&store, DiskHealth::Full).await;
    let (flushed, appended) = callback();
    log.append(entries(1, 0..1), flushed).await.unwrap();
    log.write_behind(16, put_row(2)).await.unwrap();
    let mut durable = Box::pin(log.write_durably(16, put_row(3)));
    assert!(futures::poll!(&mut durable).is_pending());
    assert_eq!(row(&store), None);
    disk.fail_with(None);
    appended.await.unwrap();
    durable.await.unwrap();
    assert_eq!(row(&store), Some(3));
    wait_health(&store, DiskHealth::Ok).await;
}

#[tokio::test]
async fn close_fails_awaited_rows_while_the_disk_is_full() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty_with_rows(dir.path());
    let log = store.group(GroupId(1));
    disk.fail_with(Some(NO_SPACE));
    log.write_behind(16, put_row(1)).await.unwrap();
    wait_health(&store, DiskHealth::Full).await;
    let mut durable = Box::pin(log.write_durably(16, put_row(2)));
    assert!(futures::poll!(&mut durable).is_pending());
    let closing = Arc::clone(&store);
    tokio::task::spawn_blocking(move || closing.shutdown()).await.unwrap();
    assert!(matches!(durable.await, Err(StoreError::Full)));
    let late = log.write_behind(16, put_row(3)).await;
    assert!(matches!(late, Err(StoreError::Full)), "{late:?}");
}

#[tokio::test]
async fn failed_lazy_rows_fail_the_store() {
    let dir = TempDir::new().unwrap();
    let (store, disk) = open_faulty_with_rows(dir.path());
    let mut log = store.group(GroupId(1));
    disk.fail_with(Some("IO error: Input/output error: While fsync: test"));
    log.write_behind(16, put_row(1)).await.unwrap();
    let mut health = store.health();
    let failed = health.wait_for(|seen| matches!(seen, DiskHealth::Failed(_)));
    tokio::time::timeout(Duration::from_secs(30), failed).await.expect("it is reported").unwrap();
    disk.fail_with(None);
    assert!(log.write_behind(16, put_row(2)).await.is_err(), "no row after a lost one");
    assert!(log.save_vote(&Vote::new(9, 1)).await.is_err());
    assert_eq!(row(&store), None);
}

const CHILD: &str = "TIDEWATER_TEST_SMALL_DISK";

/// Child process of the test below: does nothing unless it runs on a small disk of its own.
#[tokio::test(flavor = "multi_thread")]
async fn child_on_a_small_disk() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let dir = Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 40 * 1024 * 1024]).unwrap();
    let small = LogStoreOptions {
        free_space_floor: 0,
        write_buffer_bytes: 4 * 1024 * 1024,
        cache_bytes_per_group: 0,
        ..options()
    };
    let store = LogStore::open(&dir.join("log"), small.clone()).unwrap();
    let mut log = store.group(GroupId(1));
    let mut health = store.health();
    let mut index = 0;
    let mut pending = loop {
        let (flushed, mut done) = callback();
        log.append([entry(1, index, 64 * 1024)], flushed).await.unwrap();
        index += 1;
        tokio::select! {
            flushed = &mut done => flushed.unwrap(),
            full = health.wait_for(|seen| *seen == DiskHealth::Full) => {
                drop(full.unwrap());
                break vec![done];
            }
        }
        assert!(index < 2_000, "the disk is never full");
    };
    assert!(index > 50, "{index} fit before it was full");
    // Reopening may free space and write everything that waits. Fill the remaining space and write
    // more, until reopening fails.
    let rest = dir.join("rest");
    let mut filler = std::fs::File::create(&rest).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !store.db().is_read_only() {
        assert!(Instant::now() < deadline, "there is always space to reopen it");
        while filler.write_all(&[1; 4_096]).is_ok() {}
        let (flushed, done) = callback();
        log.append([entry(1, index, 4_096)], flushed).await.unwrap();
        index += 1;
        pending.push(done);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(indexes(&log.try_get_log_entries(0..3).await.unwrap()), [0, 1, 2], "from disk");
    drop(filler);
    std::fs::remove_file(&rest).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    for done in pending {
        done.await.unwrap();
    }
    wait_health(&store, DiskHealth::Ok).await;
    assert!(store.stats().reopened >= 1);
    drop(log);
    store.shutdown();
    drop(store);
    let store = LogStore::open(&dir.join("log"), small).unwrap();
    assert_eq!(state(&mut store.group(GroupId(1))).await, (None, Some(index - 1)));
    println!("held {index} entries over a full disk");
}

/// With a real full disk, where the system lets an ordinary user make one.
#[test]
fn real_full_disk_delays_writes() {
    let dir = TempDir::new().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64m tmpfs {dir} && exec {exe} --exact --nocapture \
         log_store::tests::full_disk::child_on_a_small_disk",
        dir = dir.path().display(),
        exe = std::env::current_exe().unwrap().display(),
    );
    let child =
        Command::new("unshare").args(["-rm", "sh", "-c", &script]).env(CHILD, dir.path()).output();
    let Ok(child) = child else { return eprintln!("skipped: there is no unshare") };
    let out = String::from_utf8_lossy(&child.stdout);
    let err = String::from_utf8_lossy(&child.stderr);
    if err.contains("unshare") || err.contains("mount:") {
        return eprintln!("skipped: cannot make a small disk: {err}");
    }
    assert!(child.status.success() && out.contains("over a full disk"), "{out}\n{err}");
}
