//! Keys and numbers of rows of a region and of staged files, without reading rows of files.

use std::sync::Arc;

use super::ChangeError;
use super::split_keys::KeySample;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::memtable::run::{Run, key_columns};
use crate::read::shape::TableShape;
use crate::region::Region;
use crate::sst::footer::Footer;
use crate::sst::format::PAGE_ROWS;
use crate::sst::plan::group_rows;
use crate::sst::source::FileAccess;

impl Region {
    /// Returns a key of about every page of the region's files and runs, and of the staged files.
    pub(super) async fn key_samples(
        &self,
        shape: &Arc<TableShape>,
        staged: &[FileMeta],
    ) -> Result<Vec<KeySample>, ChangeError> {
        let pinned = self.pin(None, Some(shape.clone()))?;
        let mut samples = Vec::new();
        for run in &pinned.runs {
            sample_run(run, shape, &mut samples)?;
        }
        let own = pinned.version.files.iter().map(AsRef::as_ref);
        let access = FileAccess::new(&self.env, 0);
        for file in own.chain(staged) {
            let footer = access.footer(file).await?;
            samples.extend(pages(&footer).filter(|page| file.clip.contains(&page.key)));
        }
        Ok(samples)
    }
}

fn sample_run(
    run: &Run,
    shape: &TableShape,
    samples: &mut Vec<KeySample>,
) -> Result<(), EngineError> {
    for batch in run.batches() {
        let keys = key_columns(&batch, &shape.schema);
        for row in (0..batch.rows()).step_by(PAGE_ROWS) {
            let rows = PAGE_ROWS.min(batch.rows() - row) as u64;
            samples.push(KeySample { key: shape.codec.row_key(&keys, row)?, rows });
        }
    }
    Ok(())
}

/// Returns the first key of each page of a file.
fn pages(footer: &Footer) -> impl Iterator<Item = KeySample> + '_ {
    let groups = 0..footer.metadata.metadata().num_row_groups();
    let page_rows = groups.flat_map(|group| {
        let rows = group_rows(footer, group);
        (0..rows).step_by(PAGE_ROWS).map(move |row| PAGE_ROWS.min(rows - row) as u64)
    });
    footer.key_index.iter().zip(page_rows).map(|(key, rows)| KeySample { key: key.clone(), rows })
}
