//! The kinds of problems that `cluster status` reports: one row for each, with its meaning and remedy.
//!
//! A new kind needs its number in `proto/tidewater/v1/problem.proto` and its row here. The match in
//! [`facts`] has no wildcard, so a kind without a row does not compile. The table in
//! `docs/operations.md` is generated from these rows.

use std::time::Duration;

use tidewater_proto::v1::ProblemKind;

/// Time for which a problem must last if it may also appear between two heartbeats.
const HEARTBEATS: Duration = Duration::from_secs(5);
/// Time in which a replica learns that a file, or a region, is not needed any more.
const RECHECK: Duration = Duration::from_secs(15);
/// Time in which callers usually end the exports and capabilities of a table that is to be dropped.
const CLEANUP: Duration = Duration::from_secs(600);

/// Meaning of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProblemFacts {
    /// Condition under which the problem is reported.
    pub meaning: &'static str,
    /// Remedy for operators.
    pub remedy: &'static str,
    /// Time for which the problem must last before it is reported.
    pub grace: Duration,
}

impl ProblemFacts {
    const fn new(meaning: &'static str, remedy: &'static str) -> Self {
        Self { meaning, remedy, grace: Duration::ZERO }
    }

    const fn after(self, grace: Duration) -> Self {
        Self { grace, ..self }
    }
}

/// Returns the meaning of a kind.
#[must_use]
pub const fn facts(kind: ProblemKind) -> ProblemFacts {
    const fn row(meaning: &'static str, remedy: &'static str) -> ProblemFacts {
        ProblemFacts::new(meaning, remedy)
    }
    match kind {
        ProblemKind::Unspecified => {
            row("A newer release reports a kind that this one does not know", "upgrade this command")
        }
        ProblemKind::Reported => row(
            "A node of an older release reports a problem as text",
            "follow the text, and upgrade the node",
        ),
        // Meta group.
        ProblemKind::MetaMemberSilent => row(
            "A member of the meta group does not answer the meta leader",
            "start the meta node again, or replace it: `tidewater meta-member replace`",
        ),
        ProblemKind::MetaMemberLags => row(
            "A member of the meta group lacks many entries of the leader's log",
            "wait until it has caught up; if it does not, check its log, disk and network",
        )
        .after(HEARTBEATS),
        ProblemKind::MetaStateDiffers => row(
            "The catalog of a meta node differs from the leader's at the same log index",
            "replace that meta node: `tidewater meta-member replace`. While meta nodes are upgraded, wait \
             until the data nodes have registered again, at most a day",
        ),
        ProblemKind::MemberReplacementWaits => row(
            "A member of the meta group cannot be replaced",
            "resolve the error that it names, or cancel: `tidewater meta-member replace OLD --cancel`",
        )
        .after(RECHECK),
        // Nodes.
        ProblemKind::NodeDown => row(
            "A node with replicas sends no heartbeats",
            "start the node again; its replicas are moved after `meta --replace-after`",
        ),
        ProblemKind::DrainWaits => row(
            "A draining node keeps replicas that no other node can have, or whose group has no leader",
            "start data nodes that are down or another one, or take the drain back: `tidewater node drain --cancel`",
        )
        .after(RECHECK),
        ProblemKind::NodeUnreachable => row(
            "A node is alive, but does not answer new connections to its address",
            "check --advertise, the firewall and the limit of open files of the node; restart it if it \
             hangs",
        )
        .after(HEARTBEATS),
        ProblemKind::ConnectionsRefused => row(
            "A process accepts no new connections",
            "raise its limit of open files or --max-connections, or end idle connections",
        ),
        ProblemKind::DescriptorsShort => row(
            "A process uses 90 % of its limit of open files",
            "raise the limit (`ulimit -n`, LimitNOFILE) and restart the process",
        ),
        ProblemKind::ClockDiffers => row(
            "A clock differs from the other clocks by more than --max-clock-difference",
            "synchronize the clock of that machine (NTP)",
        ),
        ProblemKind::MemoryFull => row(
            "Unflushed rows exceed the memory limit of a data node",
            "check that flushes succeed and the object store keeps up, or raise --memory-limit",
        ),
        ProblemKind::DiskFull => row(
            "A disk has less space than its reserve: writes or jobs are refused",
            "free space on that disk; work then continues by itself",
        ),
        ProblemKind::DiskFailed => row(
            "A disk returns errors",
            "replace the disk, and start the node with an empty data directory",
        ),
        ProblemKind::DiskLow => row(
            "The free space on the disk of a data directory is below --disk-low",
            "free space before writes are refused, or lower --disk-low",
        ),
        ProblemKind::StoreLow => row(
            "The free space on the disk of the object store's directory is below --disk-low",
            "free space on that disk, drop tables, or lower --disk-low",
        ),
        ProblemKind::LogGrows => row(
            "The Raft log of a group grows beyond what its snapshots leave",
            "read the log of the node: snapshots fail or lag",
        ),
        ProblemKind::LogNotReleased => row(
            "The space of purged Raft log entries is not released",
            "read the log of the node: the release of space fails",
        ),
        ProblemKind::EventsNotRecorded => row(
            "A process does not record its events: it cannot open its event spool, a table has taken none for \
             2 minutes, or events were dropped in the last 10 minutes",
            "resolve the error. A spool that cannot be opened: give each process a --event-dir of its own, or move a \
             damaged spool away; it is opened again every 30 s. A table of your own in the place of the events \
             table: clone it and drop it. Dropped events: free space on the disk of the spool, or raise \
             --event-spool",
        ),
        // Groups and replicas.
        ProblemKind::NoActiveGroup => row(
            "No data group is active, so that tables accept no writes",
            "start data nodes; if some are up, wait until their groups are created",
        ),
        ProblemKind::GroupNotCreated => row(
            "A group has been in state creating for too long",
            "check that its nodes are up and reach each other",
        ),
        ProblemKind::GroupWithoutLeader => row(
            "The meta leader receives no reports of a leader of the group",
            "start the nodes of the group that are down: a majority of its replicas must run",
        ),
        ProblemKind::GroupLacksReplicas => row(
            "A group has fewer replicas than the data nodes can host",
            "wait while replicas are added; otherwise start more data nodes",
        ),
        ProblemKind::ReplicaMissing => row(
            "A node that is a voter of the group hosts no replica of it",
            "look for the replica's log in `removed` below the node's data directory; then remove the \
             node's data directory and start it, so that it joins as a new node",
        )
        .after(HEARTBEATS),
        ProblemKind::ReplicaWithoutLeader => row(
            "A replica has not learned of a leader of its group for some time",
            "check the network between the nodes of the group",
        )
        .after(HEARTBEATS),
        ProblemKind::BarriersLate => row(
            "A group with a leader has applied no barrier for some time: its tables have no new epochs, and their \
             refreshes are not published",
            "check the load, the disk and the network of the group's nodes",
        )
        .after(RECHECK),
        // Tables and regions.
        ProblemKind::TableUnfinished => row(
            "The creation, change or removal of a table does not complete",
            "resolve the error that it names; the operation then continues by itself",
        ),
        ProblemKind::RefreshFailing => row(
            "The last refresh of a table has failed: its rows are those of an earlier one",
            "resolve the error, usually of the source, and run `tidewater refresh start`; `tidewater refresh history` \
             shows all errors",
        ),
        ProblemKind::ExportFailing => row(
            "A step of an export has failed for 30 s: its frontier stays, and the hold of the export keeps the versions \
             since",
            "resolve the error, usually of the target; the step is retried by itself, and `tidewater export list` shows its \
             progress. `tidewater export drop` ends an export that is not needed",
        ),
        ProblemKind::TableDropWaits => row(
            "A table has had the empty read policy for 10 minutes, and is not dropped since an export or capabilities \
             keep it",
            "drop its exports: `tidewater export drop`. Capabilities are taken away by the program that has added \
             them, or by `tidewater collection capabilities T --remove EPOCH` if the program has ended. To keep the \
             table, set another policy: `tidewater collection policy T --default`",
        )
        .after(CLEANUP),
        ProblemKind::RegionNotHosted => row(
            "The catalog has a region that its group does not have",
            "recreate the table from a backup or its source; report this as a defect",
        )
        .after(RECHECK),
        ProblemKind::RegionNotServed => row(
            "The manifest of a region cannot be read: the region is not served, or with old files only",
            "check the object store; restore missing manifest objects from a backup",
        )
        .after(HEARTBEATS),
        ProblemKind::RegionDamaged => row(
            "Files of a region are missing or damaged",
            "restore the named objects from a backup; the region is then checked again by itself",
        )
        .after(RECHECK),
        ProblemKind::ManifestDatedAhead => row(
            "A manifest was dated in the future by a clock that was wrong",
            "none: removed files are deleted later than usual",
        ),
        ProblemKind::FlushFailing => row(
            "Flushes of a region fail repeatedly",
            "resolve the error, usually of the object store; flushes are retried",
        ),
        ProblemKind::CompactionFailing => row(
            "Compactions of a region fail repeatedly",
            "resolve the error; compactions are retried",
        ),
        ProblemKind::CompactionQuarantined => row(
            "Compactions have failed too often, and their files are not compacted for now",
            "`tidewater compaction list` shows the errors; `tidewater compaction cancel` releases a job",
        ),
        ProblemKind::HookSuspended => row(
            "A hook is not called, because it fails or cannot be created",
            "resolve the error, or pause or remove the hook: `tidewater hook pause`",
        ),
        // Garbage collection.
        ProblemKind::GarbageCollectionFailing => row(
            "Garbage collection passes fail",
            "resolve the error, then run `tidewater gc`, or wait for the next pass",
        ),
        ProblemKind::GarbageSpared => row(
            "The last garbage collection pass has left a region alone, because its manifest cannot be \
             read or lacks deltas",
            "restore the manifest objects of the region from a backup, then run `tidewater gc`",
        ),
    }
}

/// Returns the name of a kind in JSON and metrics, e.g. `group_without_leader`.
#[must_use]
pub fn name(kind: ProblemKind) -> String {
    kind.as_str_name().trim_start_matches("PROBLEM_KIND_").to_lowercase()
}

/// Returns the kinds that this release reports, in order of number.
pub fn kinds() -> impl Iterator<Item = ProblemKind> {
    (1..).map_while(|number| ProblemKind::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_meaning_and_a_remedy() {
        let mut names: Vec<String> = kinds().map(name).collect();
        assert_eq!(names.len(), 40);
        assert!(names.contains(&"group_without_leader".to_owned()));
        for kind in kinds() {
            let ProblemFacts { meaning, remedy, .. } = facts(kind);
            let is_upper = |text: &str| text.starts_with(|first: char| first.is_uppercase());
            assert!(is_upper(meaning) && !meaning.ends_with('.'), "{kind:?}: {meaning}");
            assert!(!is_upper(remedy) && !remedy.ends_with('.'), "{kind:?}: {remedy}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 40);
    }
}
