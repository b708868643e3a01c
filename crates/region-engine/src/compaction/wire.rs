//! Conversion of plans and results to and from protobuf.

use tidewater_common::ids::{Epoch, JobId};
use tidewater_common::schema::SchemaError;
use tidewater_proto::compaction::v1::{self, ColumnStatistics, CompactionOutput, FooterStatistics};
use tidewater_proto::v1 as wire;
use uuid::Uuid;

use super::job::OutputOptions;
use super::pick::CompactionReason;
use super::plan::CompactionPlan;
use super::progress::ProgressSnapshot;
use crate::file_meta::FileRef;
use crate::hooks::{HookSpec, SstFileInfo};
use crate::layout::RegionDir;
use crate::manifest::CodecError;

/// Reasons why a message is invalid.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A field is missing or malformed.
    #[error("{field} {value:?} is missing or malformed")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value of the field.
        value: String,
    },
    /// A file or a directory is invalid.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Columns or options are invalid.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

impl WireError {
    fn field(field: &'static str, value: impl ToString) -> Self {
        Self::Field { field, value: value.to_string() }
    }
}

impl From<&CompactionPlan> for v1::CompactionPlan {
    fn from(plan: &CompactionPlan) -> Self {
        Self {
            job_id: plan.job_id.to_string(),
            dir: Some(plan.dir.into()),
            inputs: plan.inputs.iter().map(Into::into).collect(),
            since: plan.since.get(),
            now_ms: plan.now_ms,
            level: plan.output.level,
            target_file_bytes: plan.output.target_file_bytes as u64,
            window_ms: plan.window_ms,
            why: plan.why.as_str().to_owned(),
        }
    }
}

impl TryFrom<v1::CompactionPlan> for CompactionPlan {
    type Error = WireError;

    fn try_from(plan: v1::CompactionPlan) -> Result<Self, WireError> {
        let dir = plan.dir.ok_or_else(|| WireError::field("the plan's region", ""))?;
        let inputs = plan.inputs.into_iter().map(FileRef::try_from).collect::<Result<_, _>>()?;
        let bytes = plan.target_file_bytes;
        Ok(Self {
            job_id: job_id(&plan.job_id)?,
            dir: RegionDir::from(dir),
            inputs,
            since: Epoch(plan.since),
            now_ms: plan.now_ms,
            output: OutputOptions {
                level: plan.level,
                target_file_bytes: usize::try_from(bytes)
                    .map_err(|_| WireError::field("target_file_bytes", bytes))?,
            },
            window_ms: plan.window_ms,
            why: CompactionReason::from_name(&plan.why)
                .ok_or_else(|| WireError::field("why", plan.why))?,
        })
    }
}

/// Parses a job id.
///
/// # Errors
/// When the text is not a UUIDv7.
pub fn job_id(text: &str) -> Result<JobId, WireError> {
    let version_7 = |id: &Uuid| id.get_version_num() == 7;
    let id = text.parse().ok().filter(version_7);
    id.map(JobId).ok_or_else(|| WireError::field("job id (a UUIDv7)", text))
}

impl From<&HookSpec> for v1::PluginSpec {
    fn from(spec: &HookSpec) -> Self {
        Self {
            name: spec.name.clone(),
            kind: spec.kind.clone(),
            config: spec.config.to_string(),
            generation: spec.generation,
        }
    }
}

impl TryFrom<v1::PluginSpec> for HookSpec {
    type Error = WireError;

    fn try_from(spec: v1::PluginSpec) -> Result<Self, WireError> {
        let config = serde_json::from_str(&spec.config).map_err(|error| WireError::Field {
            field: "configuration of hook",
            value: format!("{} ({error})", spec.name),
        })?;
        let v1::PluginSpec { name, kind, generation, .. } = spec;
        Ok(Self { name, kind, config, durable: false, generation })
    }
}

impl From<ProgressSnapshot> for wire::CompactionProgress {
    fn from(done: ProgressSnapshot) -> Self {
        Self {
            rows_read: done.rows_read,
            bytes_read: done.bytes_read,
            rows_written: done.rows_written,
            bytes_written: done.bytes_written,
            files_written: done.files_written,
            steps: done.steps,
            passes: 0,
        }
    }
}

impl From<wire::CompactionProgress> for ProgressSnapshot {
    fn from(done: wire::CompactionProgress) -> Self {
        Self {
            rows_read: done.rows_read,
            bytes_read: done.bytes_read,
            rows_written: done.rows_written,
            bytes_written: done.bytes_written,
            files_written: done.files_written,
            steps: done.steps,
        }
    }
}

impl From<&SstFileInfo> for CompactionOutput {
    fn from(file: &SstFileInfo) -> Self {
        Self { file: Some((&file.meta).into()), footer: Some(statistics(file)) }
    }
}

/// Sums the statistics of a footer's row groups.
fn statistics(file: &SstFileInfo) -> FooterStatistics {
    let positive = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let footer = &file.sst.footer;
    let mut columns: Vec<ColumnStatistics> = Vec::new();
    for group in footer.row_groups() {
        for (at, chunk) in group.columns().iter().enumerate() {
            if columns.len() == at {
                let name = chunk.column_path().string();
                columns.push(ColumnStatistics { name, nulls: Some(0), ..Default::default() });
            }
            let column = &mut columns[at];
            column.uncompressed_bytes += positive(chunk.uncompressed_size());
            column.compressed_bytes += positive(chunk.compressed_size());
            let nulls = chunk.statistics().and_then(|all| all.null_count_opt());
            column.nulls = column.nulls.zip(nulls).map(|(sum, more)| sum + more);
        }
    }
    FooterStatistics {
        rows: positive(footer.file_metadata().num_rows()),
        row_groups: u32::try_from(footer.num_row_groups()).unwrap_or(u32::MAX),
        uncompressed_bytes: columns.iter().map(|column| column.uncompressed_bytes).sum(),
        compressed_bytes: columns.iter().map(|column| column.compressed_bytes).sum(),
        columns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::samples::{DIR, file, file_id};

    fn plan() -> CompactionPlan {
        CompactionPlan {
            job_id: JobId(file_id(1_000, 7).0),
            dir: DIR,
            inputs: vec![file(1).reference(), file(2).reference()],
            since: Epoch(3),
            now_ms: 4,
            output: OutputOptions { level: 2, target_file_bytes: 5 },
            window_ms: Some(6),
            why: CompactionReason::Window,
        }
    }

    #[test]
    fn plan_round_trips_through_protobuf() {
        for why in [
            CompactionReason::Tier,
            CompactionReason::Small,
            CompactionReason::Window,
            CompactionReason::Expired,
            CompactionReason::Asked,
        ] {
            let plan = CompactionPlan { why, ..plan() };
            assert_eq!(CompactionPlan::try_from(v1::CompactionPlan::from(&plan)).unwrap(), plan);
        }
    }

    #[test]
    fn error_names_the_missing_or_malformed_field() {
        let good = v1::CompactionPlan::from(&plan());
        let mut no_clip = good.clone();
        no_clip.inputs[1].clip = None;
        let v4 = Uuid::from_u128(0x1111_1111_1111_4111_8111_1111_1111_1111).to_string();
        let bad = [
            (v1::CompactionPlan { job_id: "x".into(), ..good.clone() }, "job id"),
            (v1::CompactionPlan { job_id: v4, ..good.clone() }, "job id"),
            (v1::CompactionPlan { dir: None, ..good.clone() }, "region"),
            (v1::CompactionPlan { why: "because".into(), ..good.clone() }, "why \"because\""),
            (no_clip, "clip"),
        ];
        for (message, named) in bad {
            let error = CompactionPlan::try_from(message).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let spec = v1::PluginSpec { name: "p".into(), config: "{".into(), ..Default::default() };
        let error = HookSpec::try_from(spec).unwrap_err().to_string();
        assert!(error.contains("\"p (EOF"), "{error}");
    }
}
