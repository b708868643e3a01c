//! Memory of a file that is read: an estimate before it is opened, and what its rows need.

use super::FileSource;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::read::memory::ExtraMemory;
use crate::read::need::SourceRow;
use crate::read::shape::{Carried, TableShape, estimated_width};
use crate::sst::footer::Footer;
use crate::sst::pace::{Pace, RowBytes};
use crate::sst::plan::RowPlan;
use crate::sst::row_parts::row_bytes;

/// Estimated bytes of texts in memory for each byte of a file.
const TEXT_INFLATION: u64 = 3;
/// Stored rows above this size are estimated as they are: three times as much could exceed the memory
/// of all scans, and a row that is larger than estimated gets more when its file is opened.
const INFLATED_BYTES: u64 = 64 << 10;

/// Returns the estimated bytes of a row of a file: by the types of the columns, and for texts by the size
/// of the file. The footer, which is not read yet, has the exact ones.
pub(crate) fn estimated_row(
    shape: &TableShape,
    carried: &Carried,
    file: &FileMeta,
    merged: bool,
) -> SourceRow {
    let schema = &shape.schema;
    let rows = file.rows;
    // In a small file, the footer is most of it.
    let size = file.size.saturating_sub(file.tail.length) / rows.max(1);
    let inflation = if size <= INFLATED_BYTES { TEXT_INFLATION } else { 1 };
    let texts = size.saturating_mul(inflation);
    let width = estimated_width(schema, &carried.ids, texts);
    let keys = estimated_width(schema, schema.primary_key(), 0);
    // Decoded keys and their comparable form, and sequences.
    let decoded = if merged { width + 2 * keys + 16 } else { width };
    let held = RowBytes { decoded, stored: size.min(decoded) };
    SourceRow { held, width, rows, all_rows: rows }
}

impl FileSource {
    /// Returns the estimated bytes of a row.
    pub(crate) fn row(&self) -> SourceRow {
        estimated_row(&self.shape, &self.carried, &self.file, self.merged)
    }

    /// Returns the bytes that the source may hold, and memory above its part if that does not suffice for
    /// a single row.
    pub(super) async fn row_memory(
        &self,
        footer: &Footer,
        leaves: &[usize],
        plan: &RowPlan,
    ) -> Result<(u64, Option<ExtraMemory>), EngineError> {
        let rows = plan.0.iter().map(|rows| row_bytes(footer, rows.group, leaves));
        let least = rows.map(|row| Pace::least().bytes(row)).max().unwrap_or(0);
        let missing = least.saturating_sub(self.memory.bytes);
        if missing == 0 {
            return Ok((self.memory.bytes, None));
        }
        let extra = self.memory.excess.charge(missing, self.memory.wait).await?;
        Ok((least, extra))
    }
}
