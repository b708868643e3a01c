//! Kill -9 while groups write: acknowledged entries and votes survive.
//!
//! The test runs this test binary as a child process that writes, and prints each acknowledgement
//! on its standard output. The test kills the child.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorageExt;
use tempfile::TempDir;
use tidewater_common::ids::GroupId;

use super::reclaim::small_files;
use super::*;

const CHILD: &str = "TIDEWATER_TEST_LOG_STORE_CHILD";
const GROUPS: u64 = 8;

/// Child process of the test below: does nothing unless it is started as the child.
#[tokio::test(flavor = "multi_thread")]
async fn child_writes_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    // The space of purged entries is released all the time.
    let options = LogStoreOptions { reclaim_interval: Duration::from_millis(20), ..small_files() };
    let store = LogStore::open(dir.as_ref(), options).unwrap();
    let mut writers = Vec::new();
    for group in 1..=GROUPS {
        let mut log = store.group(GroupId(group));
        let next = log.last_log_id().map_or(0, |id| id.index + 1);
        let term = log.read_vote().await.unwrap().map_or(1, |vote| vote.leader_id.term + 1);
        writers.push(tokio::spawn(async move {
            log.save_vote(&Vote::new(term, 1)).await.unwrap();
            print_acknowledged(format_args!("vote {group} {term}"));
            for index in next.. {
                let entry = entry(term, index, 200 + (index % 7) as usize * 1_000);
                log.blocking_append([entry]).await.unwrap();
                print_acknowledged(format_args!("entry {group} {index}"));
                if index % 100 == 99 {
                    log.purge(log_id(term, index - 50)).await.unwrap();
                }
                log.save_committed(Some(log_id(term, index))).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

fn print_acknowledged(what: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {what}").unwrap();
    out.flush().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_kill_9() {
    let dir = TempDir::new().unwrap();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut votes: BTreeMap<u64, u64> = BTreeMap::new();
    for round in 0..5 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("log_store::tests::crash::child_writes_until_it_is_killed")
            .env(CHILD, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut acknowledged = 0;
        // Lines still in the pipe after the kill were acknowledged, too.
        for line in lines {
            let line = line.unwrap();
            let Some(at) = line.find("ack ") else { continue };
            let words: Vec<&str> = line[at + 4..].split(' ').collect();
            let [kind, group, value] = words[..] else { continue };
            let (Ok(group), Ok(value)) = (group.parse(), value.parse()) else { continue };
            match kind {
                "vote" => votes.insert(group, value),
                _ => last.insert(group, value),
            };
            acknowledged += 1;
            if acknowledged == 200 + 150 * round {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged >= 200, "{acknowledged}");

        let store = open(dir.path());
        for group in 1..=GROUPS {
            let mut log = store.group(GroupId(group));
            let vote = log.read_vote().await.unwrap().unwrap();
            assert!(vote.leader_id.term >= votes[&group], "group {group}");
            let Some(acknowledged) = last.get(&group) else { continue };
            let (purged, stored) = state(&mut log).await;
            assert!(stored >= Some(*acknowledged), "group {group}: {stored:?} {acknowledged}");
            let first = purged.map_or(0, |purged| purged + 1);
            let read = log.try_get_log_entries(..).await.unwrap();
            let expected: Vec<u64> = (first..=stored.unwrap()).collect();
            assert_eq!(indexes(&read), expected, "group {group}");
        }
    }
}
