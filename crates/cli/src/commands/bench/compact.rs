//! `bench compact`

mod merge;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::{Args, ValueEnum};
use serde::Serialize;

use self::merge::Layout;
use crate::exit::Failure;
use crate::output::progress::grouped;
use crate::output::{Output, fact};

/// Options of `bench compact`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater bench compact --dir /tmp/merge --output json")]
pub(crate) struct Options {
    /// An empty directory, or one of which only the files were written so far
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,

    /// Rows to merge
    #[arg(long, value_name = "N", default_value_t = 4_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    rows: u64,

    /// Files that they lie in
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..))]
    files: u64,

    /// Which rows meet in a file
    #[arg(long, value_enum, default_value_t = Rows::Slices)]
    layout: Rows,

    /// Only write the files
    #[arg(long)]
    prepare: bool,

    /// How to print the result
    #[arg(long, value_enum, default_value = "table", env = "TIDEWATER_OUTPUT")]
    output: Output,
}

/// Which rows meet in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Rows {
    /// A stretch of time of every series
    Slices,
    /// Every so many-th row
    Interleaved,
}

/// What the merge took. The JSON field names are stable.
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
            .map_or_else(String::new, |bytes| format!("; peak of memory {} MiB", bytes >> 20));
        format!(
            "compact: {} rows of {} files in {:.2} s, {} per second{peak}",
            grouped(self.rows),
            self.files_in,
            self.seconds,
            grouped(self.rows_per_second as u64)
        )
    }
}

/// Writes files that overlap, merges them, and prints how long the merge took.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let failed =
        |error: Box<dyn std::error::Error + Send + Sync>| Failure::other(error.to_string());
    let layout = match options.layout {
        Rows::Slices => Layout::Slices,
        Rows::Interleaved => Layout::Interleaved,
    };
    if options.prepare {
        return merge::prepare(&options.dir, options.rows, options.files, layout)
            .await
            .map_err(failed);
    }
    if !options.dir.join("t1").exists() {
        prepare_apart(&options)?;
    }
    let (report, elapsed) = merge::merge(&options.dir).await.map_err(failed)?;
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

/// In a process of its own: what making the rows takes does not count as the merge's memory.
fn prepare_apart(options: &Options) -> Result<(), Failure> {
    let layout = match options.layout {
        Rows::Slices => "slices",
        Rows::Interleaved => "interleaved",
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
        Ok(status) => Err(Failure::other(format!("the files were not written: {status}"))),
        Err(error) => Err(Failure::other(format!("the files were not written: {error}"))),
    }
}

/// Peak of this process's physical memory, where the system tells.
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
    fn field_names_are_stable() {
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
    async fn both_layouts_are_written_and_merged() {
        for layout in [Layout::Slices, Layout::Interleaved] {
            let dir = tempfile::tempdir().unwrap();
            merge::prepare(dir.path(), 4_000, 4, layout).await.unwrap();
            let (report, _) = merge::merge(dir.path()).await.unwrap();
            assert_eq!((report.files_in, report.done.rows_written), (4, 4_000));
        }
    }
}
