//! A plan names the files to compact and describes the outputs. The manifest supplies the rest:
//! [`resolve`] makes a job of both, on the node that executes it.

use std::collections::BTreeSet;

use tidewater_common::ids::{Epoch, FileId, JobId, RegionId, Sequence};

use super::job::{CompactionJob, OlderRows, OutputOptions};
use super::pick::{CompactionReason, WINDOWS_MS};
use crate::file_meta::{FileMeta, FileRef};
use crate::layout::RegionDir;
use crate::manifest::ManifestState;
use crate::region::RegionSpec;

/// Maximum number of files in a plan.
pub const MAX_INPUTS: usize = 4_096;
/// Greatest time, in milliseconds, by which a plan may be ahead of the clock of the node that executes
/// it.
const MAX_CLOCK_SKEW_MS: u64 = 3_600_000;
/// Maximum target size of a file in bytes.
const MAX_FILE_BYTES: usize = 16 << 30;

/// A compaction as a plain value: it can be logged, stored, sent and executed again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionPlan {
    /// Id of the job; UUIDv7.
    pub job_id: JobId,
    /// Directory of the region.
    pub dir: RegionDir,
    /// The input files, each within its clip.
    pub inputs: Vec<FileRef>,
    /// Versions at or below this epoch are dropped, except the newest of each key.
    pub since: Epoch,
    /// The current time for expiry of rows, milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// Level and target size of the outputs.
    pub output: OutputOptions,
    /// The time window in use, in milliseconds; recorded in the manifest.
    pub window_ms: Option<u64>,
    /// Reason of the choice of files.
    pub why: CompactionReason,
}

/// Reasons why a plan is not executed; nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The plan is for another region.
    #[error("the plan is for region {plan}, but region {opened} was opened")]
    OtherRegion {
        /// Region of the plan.
        plan: RegionId,
        /// Region that was opened.
        opened: RegionId,
    },
    /// The plan names no file or too many.
    #[error("a plan must name 1 to {MAX_INPUTS} files; this one names {files}")]
    Inputs {
        /// Number of files in the plan.
        files: usize,
    },
    /// The file is not live, or not with this clip: it was compacted, truncated or dropped since,
    /// or never belonged to the region.
    #[error("file {file} is not live in region {region} with this clip")]
    NotLive {
        /// Id of the file that is not live.
        file: FileId,
        /// Id of the region.
        region: RegionId,
    },
    /// Two of the references show the same rows.
    #[error("the plan names rows of file {file} twice")]
    Overlap {
        /// Id of the file.
        file: FileId,
    },
    /// The level or the file size of the outputs is invalid.
    #[error(
        "invalid outputs: level {level} must be at most one above the inputs' level {inputs}, \
         file size {bytes} must be 1 to {MAX_FILE_BYTES} bytes"
    )]
    Output {
        /// Level of the outputs.
        level: u32,
        /// Target size of an output in bytes.
        bytes: usize,
        /// Highest level of the inputs.
        inputs: u32,
    },
    /// The time window is not supported.
    #[error("unsupported time window: {window_ms} ms")]
    Window {
        /// Length in milliseconds.
        window_ms: u64,
    },
    /// The plan's time is in the future: rows that have not expired would be dropped.
    #[error("the plan's time is {} s ahead of this node's clock; synchronize the clocks of both nodes", (plan_ms - now_ms) / 1_000)]
    Time {
        /// Time of the plan, milliseconds since the Unix epoch.
        plan_ms: u64,
        /// Time of the node that received the plan, milliseconds since the Unix epoch.
        now_ms: u64,
    },
    /// The plan would drop versions that reads may still need.
    #[error("the plan drops versions up to epoch {plan}, but at most epoch {opened} is allowed")]
    Since {
        /// Epoch of the plan.
        plan: Epoch,
        /// Epoch with which the region was opened.
        opened: Epoch,
    },
}

/// Makes a job of a plan and the state in which it is executed. The schema is that of the manifest,
/// so no file has a newer one. `spec`: description of the region by that state. `now_ms`: the clock of
/// this node.
///
/// # Errors
/// [`PlanError`]; [`PlanError::NotLive`] also when another compaction was faster.
pub(crate) fn resolve(
    plan: &CompactionPlan,
    state: &ManifestState,
    spec: RegionSpec,
    now_ms: u64,
) -> Result<CompactionJob, PlanError> {
    let region = state.dir.region_id;
    if plan.dir != state.dir {
        return Err(PlanError::OtherRegion { plan: plan.dir.region_id, opened: region });
    }
    let plan_ms = plan.now_ms;
    if plan_ms > now_ms.saturating_add(MAX_CLOCK_SKEW_MS) {
        return Err(PlanError::Time { plan_ms, now_ms });
    }
    let files = plan.inputs.len();
    if files == 0 || files > MAX_INPUTS {
        return Err(PlanError::Inputs { files });
    }
    let live = |file: &FileRef| {
        let not_live = PlanError::NotLive { file: file.file_id, region };
        state.live.get(file).cloned().ok_or(not_live)
    };
    let inputs = plan.inputs.iter().map(live).collect::<Result<Vec<_>, _>>()?;
    if let Some(file) = shown_twice(&inputs) {
        return Err(PlanError::Overlap { file });
    }
    let highest = inputs.iter().map(|file| file.level).max().unwrap_or(0);
    let level = plan.output.level;
    let bytes = plan.output.target_file_bytes;
    if level > highest.saturating_add(1) || !(1..=MAX_FILE_BYTES).contains(&bytes) {
        return Err(PlanError::Output { level, bytes, inputs: highest });
    }
    let known = |window: &u64| state.window_ms == Some(*window) || WINDOWS_MS.contains(window);
    if let Some(window_ms) = plan.window_ms.filter(|window| !known(window)) {
        return Err(PlanError::Window { window_ms });
    }
    Ok(CompactionJob {
        job_id: plan.job_id,
        dir: plan.dir,
        schema: spec.schema,
        options: spec.options,
        older: older(state, &inputs),
        inputs,
        since: plan.since.max(state.since),
        now_ms: plan.now_ms,
        expired: state.expired.clone(),
        gc_floor_ms: state.gc_floor_ms,
        output: plan.output,
        window_ms: plan.window_ms,
        why: plan.why,
    })
}

/// Returns a file of which two references show the same key. Sorted references to one file are
/// adjacent, in order of their clips.
fn shown_twice(inputs: &[FileMeta]) -> Option<FileId> {
    let mut references: Vec<FileRef> = inputs.iter().map(FileMeta::reference).collect();
    references.sort();
    let overlap = |pair: &&[FileRef]| {
        let [before, after] = pair else { return false };
        let reaches = before.clip_end.as_ref().is_none_or(|end| *end > after.clip_start);
        before.file_id == after.file_id && reaches
    };
    references.windows(2).find(overlap).map(|pair| pair[0].file_id)
}

/// Returns the rows outside of a job that its deletes may have to hide: in files that have older
/// rows, and in memory while the inputs have a row newer than all flushed rows.
fn older(state: &ManifestState, inputs: &[FileMeta]) -> Vec<OlderRows> {
    let input_refs: BTreeSet<FileRef> = inputs.iter().map(FileMeta::reference).collect();
    let newest = inputs.iter().map(FileMeta::max_sequence).max().unwrap_or_default();
    let keys: Vec<(&[u8], &[u8])> = inputs.iter().filter_map(FileMeta::shown_keys).collect();
    let low = keys.iter().map(|(low, _)| *low).min();
    let high = keys.iter().map(|(_, high)| *high).max();
    let (Some(first), Some(last)) = (low, high) else { return Vec::new() };
    let mut older: Vec<OlderRows> = state
        .live
        .iter()
        .filter(|(reference, file)| {
            file.min_sequence() < newest && !input_refs.contains(*reference)
        })
        .filter_map(|(_, file)| Some((file, file.shown_keys()?)))
        .filter(|(_, (low, high))| *low <= last && *high >= first)
        .map(|(file, (low, high))| OlderRows {
            low: low.to_vec(),
            high: high.to_vec(),
            min_sequence: file.min_sequence(),
        })
        .collect();
    if newest > state.flushed {
        older.push(OlderRows {
            low: first.to_vec(),
            high: last.to_vec(),
            min_sequence: Sequence(0),
        });
    }
    older
}

#[cfg(test)]
mod tests {
    use tidewater_common::keys::KeyRange;
    use tidewater_common::schema::TableOptions;
    use uuid::Uuid;

    use super::*;
    use crate::manifest::samples::{DIR, file, schema};

    const NOW: u64 = 1_000;

    fn state(files: &[FileMeta]) -> ManifestState {
        let live = files.iter().map(|file| (file.reference(), file.clone())).collect();
        ManifestState { live, flushed: Sequence(1_000), ..ManifestState::empty(DIR) }
    }

    fn spec() -> RegionSpec {
        RegionSpec {
            region_id: DIR.region_id,
            table_id: DIR.table_id,
            incarnation: DIR.incarnation,
            schema: schema(1),
            options: TableOptions::append_only(),
            range: KeyRange::whole(),
            parents: Vec::new(),
        }
    }

    fn plan(files: &[&FileMeta]) -> CompactionPlan {
        CompactionPlan {
            job_id: JobId(Uuid::from_u128(7)),
            dir: DIR,
            inputs: files.iter().map(|file| file.reference()).collect(),
            since: Epoch(0),
            now_ms: 0,
            output: OutputOptions { level: 1, target_file_bytes: 1 << 20 },
            window_ms: None,
            why: CompactionReason::Tier,
        }
    }

    #[test]
    fn plan_that_does_not_match_the_manifest_is_refused() {
        let one = file(1);
        let two = file(2);
        let whole = state(&[one.clone(), two.clone()]);
        let good = plan(&[&one, &two]);
        let refused = |plan: &CompactionPlan| resolve(plan, &whole, spec(), NOW).unwrap_err();
        assert_eq!(resolve(&good, &whole, spec(), NOW).unwrap().inputs, [one.clone(), two.clone()]);

        let region = DIR.region_id;
        let other_dir = RegionDir { region_id: RegionId(99), ..DIR };
        let other = PlanError::OtherRegion { plan: RegionId(99), opened: region };
        assert_eq!(refused(&CompactionPlan { dir: other_dir, ..good.clone() }), other);
        assert_eq!(refused(&plan(&[])), PlanError::Inputs { files: 0 });
        let many = vec![&one; MAX_INPUTS + 1];
        assert_eq!(refused(&plan(&many)), PlanError::Inputs { files: MAX_INPUTS + 1 });
        let gone = file(3);
        let not_live = PlanError::NotLive { file: gone.file_id, region };
        assert_eq!(refused(&plan(&[&one, &gone])), not_live);
        let clipped = one.clipped(&KeyRange::new(b"b".to_vec(), Some(b"c".to_vec())));
        let not_live = PlanError::NotLive { file: one.file_id, region };
        assert_eq!(refused(&plan(&[&clipped])), not_live, "live, with another clip");
        assert_eq!(refused(&plan(&[&one, &one])), PlanError::Overlap { file: one.file_id });
        for (level, bytes) in [(2, 1), (1, 0), (0, MAX_FILE_BYTES + 1)] {
            let output = OutputOptions { level, target_file_bytes: bytes };
            let expected = PlanError::Output { level, bytes, inputs: 0 };
            assert_eq!(refused(&CompactionPlan { output, ..good.clone() }), expected);
        }
        let at = |now_ms| CompactionPlan { now_ms, ..good.clone() };
        assert!(resolve(&at(NOW + MAX_CLOCK_SKEW_MS), &whole, spec(), NOW).is_ok());
        let plan_ms = NOW + MAX_CLOCK_SKEW_MS + 1;
        assert_eq!(refused(&at(plan_ms)), PlanError::Time { plan_ms, now_ms: NOW });
        let windowed = |window_ms| CompactionPlan { window_ms: Some(window_ms), ..good.clone() };
        assert_eq!(refused(&windowed(7)), PlanError::Window { window_ms: 7 });
        assert!(resolve(&windowed(WINDOWS_MS[1]), &whole, spec(), NOW).is_ok());
        let seven = ManifestState { window_ms: Some(7), ..whole.clone() };
        assert!(resolve(&windowed(7), &seven, spec(), NOW).is_ok(), "as the region has it");
    }

    #[test]
    fn plan_may_name_disjoint_parts_of_one_file() {
        let part = |start: &str, end: Option<&str>| {
            let end = end.map(|end| end.as_bytes().to_vec());
            FileMeta { clip: KeyRange::new(start.as_bytes(), end), ..file(1) }
        };
        let whole = state(&[part("", Some("c")), part("c", None), part("b", Some("d"))]);
        let inputs_of = |parts: &[FileMeta]| {
            let parts: Vec<&FileMeta> = parts.iter().collect();
            resolve(&plan(&parts), &whole, spec(), NOW).map(|job| job.inputs.len())
        };
        assert_eq!(inputs_of(&[part("c", None), part("", Some("c"))]), Ok(2));
        let overlap = Err(PlanError::Overlap { file: file(1).file_id });
        assert_eq!(inputs_of(&[part("", Some("c")), part("b", Some("d"))]), overlap);
        assert_eq!(inputs_of(&[part("c", None), part("b", Some("d"))]), overlap);
    }
}
