//! The scan: reads groups of sources one after the other, and merges overlapping sources.

mod count;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidewater_common::schema::WriteMode;

use super::RowOrder;
use super::chain::{Chain, Link, group_need, prepare, rows_left};
use super::groups::{chains, overlapping};
use super::independent::{Extent, KeySharing, independent};
use super::life::ReadDeadline;
use super::memory::{BEGUN_WAIT, ByteLease, ScanAccount};
use super::merge::{KeptCounts, Merge, MergeRules, MergeStep, Versions};
use super::need::{GroupUse, ScanNeed};
use super::shape::TableShape;
use super::source::{Source, SourceMemory};
use crate::EngineError;
use crate::file_meta::TimeRange;
use crate::row_versions::RowVersions;

/// Longest wait of a scan for its first memory. Nothing was read, so its caller can repeat it.
const FIRST_WAIT: Duration = Duration::from_secs(10);

/// A source with its properties that are known before it is opened.
#[derive(Debug)]
pub(crate) struct ScanSource {
    pub(crate) source: Source,
    /// Lowest and highest row key that it may yield.
    pub(crate) bounds: (Vec<u8>, Vec<u8>),
    /// Least and greatest time of its rows; `None`: unknown.
    pub(crate) times: Option<TimeRange>,
    /// True if no key occurs twice in it.
    pub(crate) unique: bool,
}

/// Options of a scan of some sources.
#[derive(Debug, Clone)]
pub(crate) struct SourceOptions {
    /// Rows of a batch.
    pub(crate) batch_rows: usize,
    pub(crate) order: RowOrder,
    pub(crate) account: ScanAccount,
}

/// A running scan.
#[derive(Debug)]
pub(crate) struct Scan {
    shape: Arc<TableShape>,
    newest_only: bool,
    /// Deletes are rows of the result.
    keeps_deletes: bool,
    groups: VecDeque<Vec<Chain>>,
    open: Option<Group>,
    options: SourceOptions,
    deadline: ReadDeadline,
    /// Memory of the open group, or of the one before it.
    lease: Option<ByteLease>,
    /// True once a group was opened.
    begun: bool,
}

#[derive(Debug)]
enum Group {
    Single(Source),
    Merged { merge: Merge, chains: Vec<Chain> },
}

impl Scan {
    pub(crate) fn new(
        shape: Arc<TableShape>,
        candidates: Vec<ScanSource>,
        options: SourceOptions,
        deadline: ReadDeadline,
    ) -> Self {
        let extents: Vec<Extent<'_>> = candidates
            .iter()
            .map(|candidate| Extent {
                keys: (&candidate.bounds.0, &candidate.bounds.1),
                times: candidate.times,
            })
            .collect();
        let parts = independent(&extents, KeySharing::of(&shape.schema, &shape.options));
        let mut alone = vec![false; candidates.len()];
        for part in &parts {
            if let [single] = part.as_slice() {
                alone[*single] = true;
            }
        }
        let bounds: Vec<(&[u8], &[u8])> = extents.iter().map(|extent| extent.keys).collect();
        let groups = match options.order {
            RowOrder::Key => overlapping(&bounds),
            RowOrder::Any => parts,
        };
        let order: Vec<Vec<Vec<usize>>> =
            groups.iter().map(|group| chains(&bounds, group)).collect();
        let mut sources: Vec<Option<ScanSource>> = candidates.into_iter().map(Some).collect();
        let mut chain = |members: Vec<usize>| {
            let links = members.into_iter().filter_map(|index| {
                let ScanSource { source, unique, .. } = sources[index].take()?;
                Some(Link { source, unique, alone: alone[index] })
            });
            Chain(links.collect())
        };
        let groups =
            order.into_iter().map(|group| group.into_iter().map(&mut chain).collect()).collect();
        let newest_only = shape.mode() == WriteMode::Upsert;
        let options = SourceOptions { batch_rows: options.batch_rows.max(1), ..options };
        Self {
            shape,
            newest_only,
            keeps_deletes: false,
            groups,
            open: None,
            options,
            deadline,
            lease: None,
            begun: false,
        }
    }

    /// Yields every row, not only the newest version of each key. The sources have no deletes.
    pub(crate) fn with_all_versions(mut self) -> Self {
        self.newest_only = false;
        self
    }

    /// Yields deletes too.
    pub(crate) fn with_deletes(mut self) -> Self {
        self.keeps_deletes = true;
        self
    }

    /// Returns the memory that the scan needs. `limit`: bytes that it may have, see [`group_need`]. Must precede the
    /// first call of [`Self::next`].
    pub(crate) fn need(&mut self, limit: u64) -> ScanNeed {
        let newest_only = self.newest_only;
        let merge_use = GroupUse::Merge { batch_rows: self.options.batch_rows };
        let mut need = ScanNeed::default();
        for chains in &mut self.groups {
            let single = prepare(chains, newest_only);
            let group_use = if single { merge_use.without_merge() } else { merge_use };
            need = need.or(&group_need(chains, group_use, limit));
        }
        need
    }

    /// Sets the budgets of the scan; must precede the first call of [`Self::next`].
    pub(crate) fn set_account(&mut self, account: ScanAccount) {
        self.options.account = account;
    }

    /// Returns the next rows, about `batch_rows`; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RowVersions>, EngineError> {
        let batch_rows = self.options.batch_rows;
        while self.open_group(GroupUse::Merge { batch_rows }, None).await? {
            self.deadline.check()?;
            let rows = match &mut self.open {
                None => return Ok(None),
                Some(Group::Single(source)) => match source.next().await? {
                    None => None,
                    Some(piece) if self.keeps_deletes => Some(piece.rows),
                    Some(piece) => Some(piece.rows.without_deletes()?),
                },
                Some(Group::Merged { merge, chains }) => {
                    run_merge(&self.shape, merge, chains, batch_rows).await?;
                    merge.take()?
                }
            };
            match rows {
                None => self.open = None,
                Some(rows) if rows.rows() == 0 => {}
                Some(rows) => return Ok(Some(rows)),
            }
        }
        Ok(None)
    }

    /// Opens the next group when none is open; returns false when there is none left. `counts`: counts of the sinces
    /// for which versions are counted, not yielded.
    async fn open_group(
        &mut self,
        merge_use: GroupUse,
        counts: Option<&KeptCounts>,
    ) -> Result<bool, EngineError> {
        if self.open.is_some() {
            return Ok(true);
        }
        let Some(mut chains) = self.groups.pop_front() else {
            self.lease = None;
            return Ok(false);
        };
        let single = prepare(&mut chains, self.newest_only);
        let known = single && merge_use == GroupUse::Count && rows_left(&chains).is_some();
        if !known {
            let group_use = if single { merge_use.without_merge() } else { merge_use };
            self.lease_memory(&mut chains, group_use).await?;
        }
        let streamed = chains.first_mut().and_then(|chain| chain.0.pop_front_if(|_| single));
        self.open = Some(match streamed {
            Some(link) => Group::Single(link.source),
            None => {
                let versions = match counts {
                    _ if !self.newest_only => Versions::Every,
                    // A version that is kept for a since is also kept for the first one.
                    Some(_) => Versions::Since(0),
                    None => Versions::Newest,
                };
                let rules = MergeRules { versions, keep_deletes: self.keeps_deletes };
                let merge = match counts {
                    Some(counts) => Merge::counting(chains.len(), rules, counts.cleared()),
                    None => Merge::new(chains.len(), rules),
                };
                Group::Merged { merge, chains }
            }
        });
        Ok(true)
    }

    /// Gets memory for the sources of a group, and distributes it among those that are open at the
    /// same time.
    async fn lease_memory(
        &mut self,
        chains: &mut [Chain],
        group_use: GroupUse,
    ) -> Result<(), EngineError> {
        let budgets = &self.options.account.sources;
        let need = group_need(chains, group_use, budgets.limit());
        let wait = if self.begun { BEGUN_WAIT } else { FIRST_WAIT };
        let lease = budgets.renew(self.lease.take(), need.least, need.want, wait).await?;
        let excess = &self.options.account.excess;
        for (chain, bytes) in chains.iter_mut().zip(need.distribute(lease.bytes())) {
            let memory = SourceMemory { bytes, excess: excess.clone(), wait };
            for link in &mut chain.0 {
                link.source.set_memory(&memory);
            }
        }
        self.lease = Some(lease);
        self.begun = true;
        Ok(())
    }
}

/// Feeds a merge until it has `target` rows or all sources have ended.
async fn run_merge(
    shape: &TableShape,
    merge: &mut Merge,
    chains: &mut [Chain],
    target: usize,
) -> Result<(), EngineError> {
    loop {
        match merge.advance(target) {
            MergeStep::Full | MergeStep::Done => return Ok(()),
            MergeStep::Feed(index) => {
                let chunk = match chains[index].next().await? {
                    Some((piece, unique)) => Some(piece.into_chunk(&shape.codec, unique)?),
                    None => None,
                };
                merge.feed(index, chunk);
            }
        }
    }
}
