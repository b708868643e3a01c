//! The scan: reads groups of sources one after the other, and merges overlapping sources.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, UInt8Array};
use arrow::compute::kernels::cmp;
use arrow::compute::not;
use arrow::datatypes::{Schema, SchemaRef};
use tidewater_common::ids::ColumnId;
use tidewater_common::schema::WriteMode;

use super::filter::Filter;
use super::groups::{chains, overlapping};
use super::life::ReadDeadline;
use super::merge::{Merge, MergeRules, MergeStep, Versions};
use super::pushdown::{SourceProperties, pushdown};
use super::shape::{Carried, Piece, TableShape};
use super::source::Source;
use crate::EngineError;
use crate::row_versions::{Ops, RowOp, RowVersions};

/// A source with its properties that are known before it is opened.
#[derive(Debug)]
pub(crate) struct ScanSource {
    pub(crate) source: Source,
    /// Lowest and highest row key that it may yield.
    pub(crate) bounds: (Vec<u8>, Vec<u8>),
    /// True if no key occurs twice in it.
    pub(crate) unique: bool,
}

/// A running scan.
#[derive(Debug)]
pub(crate) struct Scan {
    shape: Arc<TableShape>,
    newest_only: bool,
    groups: VecDeque<Vec<Chain>>,
    open: Option<Group>,
    batch_rows: usize,
    deadline: ReadDeadline,
}

#[derive(Debug)]
enum Group {
    Single(Source),
    Merged { merge: Merge, chains: Vec<Chain> },
}

/// Sources of which each begins after the previous one has ended, each with a flag that is true if
/// no key occurs twice in it. They are opened one after the other.
#[derive(Debug)]
struct Chain(VecDeque<(Source, bool)>);

impl Chain {
    async fn next(&mut self) -> Result<Option<(Piece, bool)>, EngineError> {
        while let Some((source, unique)) = self.0.front_mut() {
            if let Some(piece) = source.next().await? {
                return Ok(Some((piece, *unique)));
            }
            self.0.pop_front();
        }
        Ok(None)
    }
}

/// Returns the columns of a scan: the projection first, then columns that only the filter needs.
pub(crate) fn carried_columns(
    shape: &TableShape,
    projection: &[ColumnId],
    filter: &Filter,
) -> Result<Carried, EngineError> {
    let mut ids = projection.to_vec();
    for id in filter.columns() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    Carried::new(&shape.schema, &ids)
}

impl Scan {
    pub(crate) fn new(
        shape: Arc<TableShape>,
        candidates: Vec<ScanSource>,
        batch_rows: usize,
        deadline: ReadDeadline,
    ) -> Self {
        let bounds: Vec<(&[u8], &[u8])> = candidates
            .iter()
            .map(|candidate| (candidate.bounds.0.as_slice(), candidate.bounds.1.as_slice()))
            .collect();
        let order: Vec<Vec<Vec<usize>>> =
            overlapping(&bounds).iter().map(|group| chains(&bounds, group)).collect();
        let mut sources: Vec<Option<ScanSource>> = candidates.into_iter().map(Some).collect();
        let mut chain = |members: Vec<usize>| {
            let members = members.into_iter().filter_map(|index| sources[index].take());
            Chain(members.map(|candidate| (candidate.source, candidate.unique)).collect())
        };
        let groups =
            order.into_iter().map(|group| group.into_iter().map(&mut chain).collect()).collect();
        let newest_only = shape.mode() == WriteMode::Upsert;
        Self { shape, newest_only, groups, open: None, batch_rows: batch_rows.max(1), deadline }
    }

    /// Returns the next rows, about `batch_rows`, without deletes; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<RowVersions>, EngineError> {
        while self.open_group() {
            self.deadline.check()?;
            let rows = match &mut self.open {
                None => return Ok(None),
                Some(Group::Single(source)) => match source.next().await? {
                    None => None,
                    Some(piece) => Some(without_deletes(piece.rows)?),
                },
                Some(Group::Merged { merge, chains }) => {
                    run_merge(&self.shape, merge, chains, self.batch_rows).await?;
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

    /// Returns the number of remaining rows without building them.
    pub(crate) async fn count(&mut self) -> Result<u64, EngineError> {
        let mut total = 0;
        while self.open_group() {
            self.deadline.check()?;
            let rows = match &mut self.open {
                None => return Ok(total),
                Some(Group::Single(source)) => match source.next().await? {
                    None => None,
                    Some(piece) => {
                        let rows = piece.rows.rows();
                        Some(rows - piece.rows.stamps().ops.deletes(rows))
                    }
                },
                Some(Group::Merged { merge, chains }) => {
                    run_merge(&self.shape, merge, chains, usize::MAX).await?;
                    Some(merge.take_count()).filter(|rows| *rows > 0)
                }
            };
            match rows {
                None => self.open = None,
                Some(rows) => total += rows as u64,
            }
        }
        Ok(total)
    }

    /// Opens the next group when none is open; returns false when there is none left.
    fn open_group(&mut self) -> bool {
        if self.open.is_some() {
            return true;
        }
        let Some(mut chains) = self.groups.pop_front() else { return false };
        let mut members = chains.iter().flat_map(|chain| &chain.0);
        let alone = members.next().is_some() && members.next().is_none();
        for (source, unique) in chains.iter_mut().flat_map(|chain| &mut chain.0) {
            let properties = SourceProperties {
                newest_only: self.newest_only,
                alone,
                unique: *unique,
                bounded: source.is_bounded(),
            };
            source.set_merged(!(alone && (*unique || !self.newest_only)));
            source.set_pushdown(pushdown(properties));
        }
        let single = |unique: bool| alone && (unique || !self.newest_only);
        let streams = chains
            .first_mut()
            .and_then(|chain| chain.0.pop_front_if(|(_, unique)| single(*unique)));
        self.open = Some(match streams {
            Some((source, _)) => Group::Single(source),
            None => {
                let versions = if self.newest_only { Versions::Newest } else { Versions::Every };
                let rules = MergeRules { versions, keep_deletes: false };
                Group::Merged { merge: Merge::new(chains.len(), rules), chains }
            }
        });
        true
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

fn without_deletes(rows: RowVersions) -> Result<RowVersions, EngineError> {
    match &rows.stamps().ops {
        Ops::All(RowOp::Put) => Ok(rows),
        Ops::All(RowOp::Delete) => Ok(rows.slice(0, 0)),
        Ops::Each(codes) => {
            let deletes = cmp::eq(codes, &UInt8Array::new_scalar(RowOp::Delete.code()))?;
            Ok(rows.filter(&not(&deletes)?)?)
        }
    }
}

/// Returns the Arrow schema of a projection.
pub(crate) fn projected_schema(
    shape: &TableShape,
    projection: &[ColumnId],
) -> Result<SchemaRef, EngineError> {
    Carried::new(&shape.schema, projection)?;
    let whole = shape.schema.arrow();
    let fields: Vec<_> = projection
        .iter()
        .filter_map(|id| shape.schema.index_of(*id))
        .map(|index| whole.fields()[index].clone())
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Returns the first columns of some rows as a batch of `schema`.
pub(crate) fn to_batch(rows: &RowVersions, schema: &SchemaRef) -> Result<RecordBatch, EngineError> {
    let arrays = rows.arrays()[..schema.fields().len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.rows()));
    Ok(RecordBatch::try_new_with_options(schema.clone(), arrays, &options)?)
}
