//! `region files R`

use clap::Args;
use serde::Serialize;
use tidewater_common::ids::RegionId;
use tidewater_proto::v1;

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{Listed, hex, list};

/// Options of `region files`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater region files 7 --output json")]
pub(crate) struct Options {
    /// Id of the region
    region: u64,

    #[command(flatten)]
    client: ClientArgs,
}

/// One file. The JSON field names are stable; keys are row keys in hexadecimal.
#[derive(Debug, Serialize)]
struct FileLine {
    file_id: String,
    path: String,
    level: u32,
    bytes: u64,
    rows: u64,
    min_key: String,
    max_key: String,
    min_sequence: u64,
    max_sequence: u64,
}

impl From<v1::SstFile> for FileLine {
    fn from(file: v1::SstFile) -> Self {
        Self {
            file_id: file.file_id,
            path: file.path,
            level: file.level,
            bytes: file.bytes,
            rows: file.rows,
            min_key: hex(&file.min_key),
            max_key: hex(&file.max_key),
            min_sequence: file.min_sequence,
            max_sequence: file.max_sequence,
        }
    }
}

impl Listed for FileLine {
    const HEADINGS: &'static [&'static str] =
        &["FILE", "LEVEL", "SIZE", "ROWS", "SEQUENCES", "PATH"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.file_id.clone(),
            self.level.to_string(),
            bytes_text(self.bytes),
            grouped(self.rows),
            format!("{} to {}", self.min_sequence, self.max_sequence),
            self.path.clone(),
        ]
    }
}

/// Lists the files of a region.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let files = client.region_files(RegionId(options.region)).await?;
    let lines: Vec<FileLine> = files.into_iter().map(FileLine::from).collect();
    list(options.client.output, &lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn region_file_has_stable_json_fields() {
        let file = v1::SstFile { min_key: vec![0].into(), ..Default::default() };
        assert_eq!(
            serde_json::to_string(&FileLine::from(file)).unwrap(),
            r#"{"file_id":"","path":"","level":0,"bytes":0,"rows":0,"min_key":"00","max_key":"","min_sequence":0,"max_sequence":0}"#
        );
    }
}
