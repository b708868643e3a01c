//! `bench compact`

mod merge;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::merge::Layout;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{Output, fact};

/// Options of `bench compact`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater bench compact --dir /tmp/merge --output json")]
pub(crate) struct Options {
    /// Working directory: empty, or prepared by an earlier --prepare
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Rows to compact
    #[arg(long, value_name = "N", default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,

    /// Files to spread the rows over
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..))]
    files: u64,

    /// Distribution of the rows over the files
    #[arg(long, value_enum, default_value_t = LayoutArg::Slices)]
    layout: LayoutArg,

    /// Write the files and exit
    #[arg(long)]
    prepare: bool,

    /// Output format
    #[arg(long, value_enum, default_value = "table", env = "TIDEWATER_OUTPUT")]
    output: Output,
}

/// Distribution of the rows over the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayoutArg {
    /// Each file holds one time slice of every series
    Slices,
    /// Rows are dealt to the files in turn
    Interleaved,
}

/// Measurement of one compaction. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Figures {
    bench: &'static str,
    files_in: usize,
    files_out: usize,
    rows: u64,
    bytes_in: u64,
    bytes_out: u64,
    seconds: f64,
    rows_per_second: f64,
    peak_memory_bytes: Option<u64>,
}

impl Figures {
    fn text(&self) -> String {
        let peak = self
            .peak_memory_bytes
            .map_or_else(String::new, |bytes| format!("; peak memory {}", bytes_text(bytes)));
        format!(
            "compact: {} rows in {} files in {:.2} s, {} rows per second{peak}",
            grouped(self.rows),
            self.files_in,
            self.seconds,
            grouped(self.rows_per_second as u64)
        )
    }
}

/// Writes overlapping files, compacts them, and prints the duration of the compaction.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| Failure::other(error.to_string());
    let layout = match options.layout {
        LayoutArg::Slices => Layout::Slices,
        LayoutArg::Interleaved => Layout::Interleaved,
    };
    if options.prepare {
        return merge::prepare(&options.dir, options.rows, options.files, layout)
            .await
            .map_err(failed);
    }
    if !options.dir.join("t1").exists() {
        prepare_in_child_process(&options)?;
    }
    let (report, elapsed) = merge::compact(&options.dir).await.map_err(failed)?;
    let seconds = elapsed.as_secs_f64();
    let figures = Figures {
        bench: "compact",
        files_in: report.files_in,
        files_out: report.files_out,
        rows: report.done.rows_read,
        bytes_in: report.bytes_in,
        bytes_out: report.done.bytes_written,
        seconds,
        rows_per_second: (report.done.rows_read as f64 / seconds.max(1e-9)).round(),
        peak_memory_bytes: peak_memory(),
    };
    fact(options.output, &figures, Figures::text)
}

/// Writes the files in a child process, so that generating the rows does not count towards the peak
/// memory of the compaction.
fn prepare_in_child_process(options: &Options) -> Result<(), Failure> {
    let layout = match options.layout {
        LayoutArg::Slices => "slices",
        LayoutArg::Interleaved => "interleaved",
    };
    let run = |program: PathBuf| {
        Command::new(program)
            .args(["bench", "compact", "--prepare", "--layout", layout, "--dir"])
            .arg(&options.dir)
            .args(["--rows", &options.rows.to_string(), "--files", &options.files.to_string()])
            .stdin(Stdio::null())
            .status()
    };
    match std::env::current_exe().and_then(run) {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::other(format!("failed to write the files: {status}"))),
        Err(error) => Err(Failure::other(format!("failed to write the files: {error}"))),
    }
}

/// Peak resident memory of this process in bytes; `None` where the system does not report it.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compaction_figures_have_stable_json_fields() {
        let figures = Figures {
            bench: "compact",
            files_in: 8,
            files_out: 2,
            rows: 100,
            bytes_in: 10,
            bytes_out: 9,
            seconds: 2.0,
            rows_per_second: 50.0,
            peak_memory_bytes: Some(7),
        };
        assert_eq!(
            serde_json::to_string(&figures).unwrap(),
            r#"{"bench":"compact","files_in":8,"files_out":2,"rows":100,"bytes_in":10,"bytes_out":9,"seconds":2.0,"rows_per_second":50.0,"peak_memory_bytes":7}"#
        );
    }

    #[tokio::test]
    async fn both_layouts_compact_all_rows() {
        for layout in [Layout::Slices, Layout::Interleaved] {
            let dir = tempfile::tempdir().unwrap();
            merge::prepare(dir.path(), 4_000, 4, layout).await.unwrap();
            let (report, _) = merge::compact(dir.path()).await.unwrap();
            assert_eq!((report.files_in, report.done.rows_written), (4, 4_000));
        }
    }
}
