//! The commit of a job: replaces its inputs by its outputs in one delta authored by the job.
//!
//! The manifest's rules decide, at the tail: all inputs must be live with the same clip, so no
//! drop, truncation or other compaction has touched them. Otherwise the outputs are garbage
//! (`InputsGone`). A sealed region refuses every job (`Sealed`).

use tidewater_common::ids::ManifestVersion;

use super::job::CompactionJob;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, ManifestState, Void};

/// Repeats of a commit of unknown outcome before the caller receives the error. Within each, the
/// manifest retries with its own backoff.
const MAX_REPEATS: u32 = 3;

/// Returns the manifest change of a job.
pub(crate) fn change(job: &CompactionJob, outputs: &[FileMeta]) -> Change {
    let edit = Edit {
        add: outputs.to_vec(),
        remove: job.inputs.iter().map(FileMeta::reference).collect(),
        since: Some(job.since),
        window_ms: job.window_ms,
        expired: job.expiry().and_then(|expiry| expiry.mark(&job.inputs)).into_iter().collect(),
        ..Edit::default()
    };
    Change::new(Author::Job(job.job_id), vec![ActionKind::Edit(edit)])
}

/// Commits the outputs of a job; idempotent. Returns a version in which the outputs are committed.
///
/// # Errors
/// [`EngineError::Refused`] with the broken rule: the outputs are garbage.
/// [`EngineError::Unknown`]: the next call, or the next read of the manifest, resolves the outcome.
pub(crate) async fn commit(
    manifest: &ManifestContext,
    job: &CompactionJob,
    outputs: &[FileMeta],
) -> Result<ManifestVersion, EngineError> {
    let mut repeats = 0;
    let mut unknown = None;
    loop {
        match manifest.update_manifest(change(job, outputs)).await {
            Err(EngineError::Unknown { version, .. }) if repeats < MAX_REPEATS => {
                // Called with the same change, the manager resolves the pending delta.
                repeats += 1;
                unknown = Some(version);
            }
            Err(EngineError::Refused { reason, .. })
                if matches!(
                    reason,
                    Void::InputsGone { .. } | Void::FileKnown { .. } | Void::Sealed
                ) && has_outputs(&manifest.state(), outputs) =>
            {
                return Ok(manifest.state().version);
            }
            // Without outputs the state does not show whether the job is committed; and another
            // call may have resolved the pending delta, so that the manager no longer holds it.
            Err(
                error @ EngineError::Refused {
                    reason: Void::InputsGone { .. } | Void::Sealed, ..
                },
            ) => {
                return match unknown {
                    Some(version) if outputs.is_empty() => {
                        let ours =
                            manifest.is_committed_by(version, Author::Job(job.job_id)).await?;
                        if ours { Ok(manifest.state().version) } else { Err(error) }
                    }
                    _ => Err(error),
                };
            }
            result => return result,
        }
    }
}

/// Returns `true` if the job is committed: its output ids are unique, so only its own commit adds
/// them.
fn has_outputs(state: &ManifestState, outputs: &[FileMeta]) -> bool {
    !outputs.is_empty()
        && outputs.iter().all(|file| {
            let reference = file.reference();
            state.live.contains_key(&reference) || state.removed.contains_key(&reference)
        })
}
