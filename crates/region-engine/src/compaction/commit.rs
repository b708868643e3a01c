//! The commit of a job: swaps its inputs for its outputs in one delta authored by the job.
//!
//! The manifest's rules decide, at the tail: all inputs must be live with the same clip, so no drop
//! and no truncation touched them, and nobody merged them before. Otherwise the outputs are garbage
//! (`InputsGone`).

use tidewater_common::ids::ManifestVersion;

use super::job::CompactionJob;
use crate::EngineError;
use crate::file_meta::FileMeta;
use crate::manifest::{ActionKind, Author, Change, Edit, ManifestContext, ManifestState, Void};

/// How often a commit of unknown outcome is asked for again before the caller is told so; each time
/// the manifest pauses and tries as often as it is told to.
const SETTLES: u32 = 3;

/// What a job changes in the manifest.
pub(crate) fn change(job: &CompactionJob, outputs: &[FileMeta]) -> Change {
    let edit = Edit {
        add: outputs.to_vec(),
        remove: job.inputs.iter().map(FileMeta::reference).collect(),
        since: Some(job.since),
        window_ms: job.window_ms,
        ..Edit::default()
    };
    Change::new(Author::Job(job.job_id), vec![ActionKind::Edit(edit)])
}

/// Commits the outputs of a job; doing it again is harmless. Returns the version at which they are
/// known to stand.
///
/// # Errors
/// [`EngineError::Refused`] with the rule that was broken: the outputs are garbage.
/// [`EngineError::Unknown`]: the next call, or the next look at the manifest, finds out.
pub(crate) async fn commit(
    manifest: &ManifestContext,
    job: &CompactionJob,
    outputs: &[FileMeta],
) -> Result<ManifestVersion, EngineError> {
    let (mut tried, mut in_doubt) = (0, None);
    loop {
        match manifest.update_manifest(change(job, outputs)).await {
            Err(EngineError::Unknown { version, .. }) if tried < SETTLES => {
                // Asked with the same change, the manager settles what is pending.
                tried += 1;
                in_doubt = Some(version);
            }
            Err(EngineError::Refused { reason, .. })
                if matches!(reason, Void::InputsGone { .. } | Void::FileKnown { .. })
                    && committed(&manifest.state(), outputs) =>
            {
                return Ok(manifest.state().version);
            }
            // Without outputs there is nothing in the state to know it by; and another call may have
            // settled it, which takes it out of what the manager holds pending.
            Err(error @ EngineError::Refused { reason: Void::InputsGone { .. }, .. }) => {
                return match in_doubt {
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

/// Nobody else has files of these names, so whoever finds them in the manifest has committed them.
fn committed(state: &ManifestState, outputs: &[FileMeta]) -> bool {
    !outputs.is_empty()
        && outputs.iter().all(|file| {
            let reference = file.reference();
            state.live.contains_key(&reference) || state.removed.contains_key(&reference)
        })
}
