//! Opening of a file: which of its rows and columns are read, and by which reader.

use arrow::array::RecordBatch;
use tidewater_common::ids::ColumnId;

use super::FileSource;
use crate::EngineError;
use crate::cache::should_cache;
use crate::read::filter::Term;
use crate::read::memory::ExtraMemory;
use crate::read::pushdown::pushed_terms;
use crate::sst::decode::{Pace, RowDecoder};
use crate::sst::fetch::CheckedReader;
use crate::sst::few::{FewRowsReader, is_small};
use crate::sst::footer::Footer;
use crate::sst::format::{EPOCH_ID, OP_ID, PAGE_ROWS, SEQUENCE_ID};
use crate::sst::plan::{RowPlan, plan};
use crate::sst::statistics::file_admits;

/// A file that is being read.
pub(super) struct OpenFile {
    pub(super) rows: RowReader,
    /// Field id of each column that the stream yields.
    pub(super) ids: Vec<ColumnId>,
    /// True if all rows are in the ranges.
    pub(super) covered: bool,
    /// Memory above the source's part: a single row is larger.
    _extra: Option<ExtraMemory>,
}

/// Reader of the rows of a file.
pub(super) enum RowReader {
    Few(FewRowsReader),
    Many(RowDecoder),
}

impl RowReader {
    pub(super) async fn next(&mut self) -> Result<Option<RecordBatch>, EngineError> {
        match self {
            Self::Few(few) => few.next().await,
            Self::Many(decoder) => decoder.next().await,
        }
    }
}

impl FileSource {
    /// Opens the file; `None` if it has no row of the read.
    pub(super) async fn open(&mut self) -> Result<Option<OpenFile>, EngineError> {
        let schema = &self.shape.schema;
        let context = &self.context;
        let terms: Vec<&Term> =
            pushed_terms(&context.filter, self.pushdown, schema.primary_key()).collect();
        if self.is_hidden() || !file_admits(schema, &self.file, terms.iter().copied()) {
            context.counters.files_pruned.add(1);
            context.counters.bytes_pruned.add(self.file.size);
            return Ok(None);
        }
        let footer = self.access.footer(&self.file).await?;
        context.counters.files.add(1);
        let covered = self.ranges.cover(&self.file.min_key, &self.file.max_key);
        let (leaves, ids) = leaves(&footer, self.needed_columns(covered));
        let blocks = (!covered).then(|| self.ranges.blocks(&footer.key_index, &self.file.max_key));
        let mut plan = plan(&footer, schema, blocks.as_deref(), &terms);
        let usage = plan.usage(&footer, &leaves);
        let access = &self.access;
        let reader = CheckedReader {
            storage: access.storage.clone(),
            cache: access.objects.clone(),
            file: self.file.clone(),
            footer: footer.clone(),
            keep: should_cache(usage.bytes, access.scanned, access.objects.capacity()),
        };
        if !covered && plan.rows() <= 2 * PAGE_ROWS {
            plan = self.exact_rows(&reader, &plan).await?;
        }
        plan.usage(&footer, &leaves).count(&context.counters);
        if plan.0.is_empty() {
            return Ok(None);
        }
        let pace = if self.merged { Pace::MERGED } else { Pace::ALONE };
        let (most_bytes, _extra) = self.row_memory(&footer, &leaves, &plan).await?;
        // A merge holds the keys of a piece in two more forms.
        let most_bytes = if self.merged { most_bytes - most_bytes / 4 } else { most_bytes };
        let rows = self.row_reader(reader, leaves, &plan, pace, most_bytes);
        Ok(Some(OpenFile { rows, ids, covered, _extra }))
    }

    fn row_reader(
        &self,
        reader: CheckedReader,
        leaves: Vec<usize>,
        plan: &RowPlan,
        pace: Pace,
        most_bytes: u64,
    ) -> RowReader {
        if is_small(&reader.footer, &leaves, plan, most_bytes) {
            RowReader::Few(FewRowsReader::new(reader, leaves, plan))
        } else {
            let readers = self.access.readers.clone();
            RowReader::Many(RowDecoder::new(reader, leaves, plan, pace, most_bytes, readers))
        }
    }

    /// Reduces a plan of a few rows to those whose keys are in the ranges, so that the other
    /// columns are decoded for these only.
    async fn exact_rows(
        &self,
        reader: &CheckedReader,
        plan: &RowPlan,
    ) -> Result<RowPlan, EngineError> {
        let (leaves, ids) = leaves(&reader.footer, self.shape.schema.primary_key().to_vec());
        let rows = self.row_reader(reader.clone(), leaves, plan, Pace::ALONE, self.memory.bytes);
        let mut open_file = OpenFile { rows, ids, covered: false, _extra: None };
        let mut kept = Vec::new();
        let mut at = 0;
        while let Some(batch) = open_file.rows.next().await? {
            let keys = self.keys(&open_file, &batch)?;
            let found = self.ranges.rows(&self.shape.codec, &keys, batch.num_rows())?;
            kept.extend(found.into_iter().map(|rows| at + rows.start..at + rows.end));
            at += batch.num_rows();
        }
        Ok(plan.pick(&kept))
    }

    fn needed_columns(&self, covered: bool) -> Vec<ColumnId> {
        let mut ids = self.carried.ids.to_vec();
        if self.merged || !covered {
            ids.extend(self.shape.schema.primary_key());
        }
        if self.reads_sequences() && self.file.stamp.is_none() {
            ids.push(SEQUENCE_ID);
        }
        if self.file.deletes > 0 {
            ids.push(OP_ID);
        }
        if self.reads_epochs() || self.is_bounded() && self.file.stamp.is_none() {
            ids.push(EPOCH_ID);
        }
        ids
    }
}

/// Returns the leaves of those columns that the file has, in order, with their ids.
fn leaves(footer: &Footer, needed: Vec<ColumnId>) -> (Vec<usize>, Vec<ColumnId>) {
    let mut leaves: Vec<(usize, ColumnId)> = needed
        .into_iter()
        .filter_map(|id| footer.leaves.get(&id).map(|leaf| (*leaf, id)))
        .collect();
    leaves.sort_unstable();
    leaves.dedup();
    leaves.into_iter().unzip()
}
