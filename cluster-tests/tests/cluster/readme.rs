//! The tour of README.md: its commands are run, and their output is compared with the page.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidewater_cluster_tests::binary::tidewater;
use tidewater_cluster_tests::s3::python;
use tidewater_cluster_tests::{HarnessError, Result, wait};
use tokio::process::Command;

/// A command of the tour and the output that the page shows.
struct Step {
    command: String,
    output: Vec<String>,
}

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Reads the first `console` block of the page.
fn tour() -> Result<Vec<Step>> {
    let page = std::fs::read_to_string(project().join("README.md"))
        .map_err(HarnessError::io("read README.md"))?;
    let block = page.split("```console\n").nth(1).and_then(|rest| rest.split("```").next());
    let mut steps: Vec<Step> = Vec::new();
    for line in block.unwrap_or_default().lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => {
                steps.push(Step { command: command.to_owned(), output: Vec::new() });
            }
            (None, Some(step)) => step.output.push(line.trim_end().to_owned()),
            (None, None) => return Err(HarnessError::violated("output before a command")),
        }
    }
    Ok(steps)
}

/// Replaces numbers that differ from run to run: those of times, rates, sizes and ids of files. A time may
/// be in milliseconds or seconds.
fn comparable(line: &str) -> String {
    // The first id of a list depends on when the events table is created.
    let is_listed = line.strip_prefix(' ').is_some_and(|id| id.starts_with(char::is_numeric));
    let varies = line.contains("acknowledged") || is_listed;
    let mut text = String::new();
    for character in line.trim_end().chars() {
        match character {
            '0'..='9' | ',' | '.' if varies => {
                if !text.ends_with('#') {
                    text.push('#');
                }
            }
            ' ' if varies && text.ends_with(' ') => {}
            other => text.push(other),
        }
    }
    text.replace(" # ms ", " # s ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readme_tour_prints_the_output_of_the_page() -> Result<()> {
    let steps = tour()?;
    let directory = tempfile::tempdir().map_err(HarnessError::io("create a directory"))?;
    let data = project().join("scripts");
    std::os::unix::fs::symlink(&data, directory.path().join("scripts"))
        .map_err(HarnessError::io("link scripts"))?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(HarnessError::io("bind"))?;
    let address = listener.local_addr().map_err(HarnessError::io("bind"))?.to_string();
    drop(listener);
    let bin = tidewater()?;
    let bins = [bin.parent().map(Path::to_owned), python()?.parent().map(Path::to_owned)];
    let path = std::env::var("PATH").unwrap_or_default();
    let path = bins
        .iter()
        .flatten()
        .map(|bin| bin.display().to_string())
        .chain([path])
        .collect::<Vec<_>>()
        .join(":");
    let shell = |command: &str| {
        let mut shell = Command::new("bash");
        shell
            .args(["-c", command])
            .current_dir(directory.path())
            .env("PATH", &path)
            .env("TIDEWATER_META", &address)
            .kill_on_drop(true);
        shell
    };
    let (first, rest) = steps.split_first().ok_or_else(|| HarnessError::violated("no tour"))?;
    // The page uses the default address, which may be in use.
    assert_eq!(first.command, "tidewater standalone &");
    let log =
        std::fs::File::create(directory.path().join("log")).map_err(HarnessError::io("log"))?;
    let mut standalone = shell(&format!("exec tidewater standalone --listen {address} >ready"))
        .stderr(log)
        .spawn()
        .map_err(HarnessError::io("start tidewater"))?;
    let ready = directory.path().join("ready");
    wait::until("tidewater is ready", Duration::from_secs(60), async || {
        let text = std::fs::read_to_string(&ready).unwrap_or_default();
        if text.ends_with('\n') { Ok(()) } else { Err(text) }
    })
    .await?;
    let shown = std::fs::read_to_string(&ready).unwrap_or_default();
    let expected = first.output.join("\n").replace("127.0.0.1:7400", &address);
    if shown.trim_end() != expected {
        return Err(HarnessError::violated(format!("{shown:?} instead of {expected:?}")));
    }
    for step in rest {
        let output =
            shell(&step.command).output().await.map_err(HarnessError::io("run the tour"))?;
        let stdout = String::from_utf8_lossy(&output.stdout);
        let shown: Vec<String> = stdout.lines().map(comparable).collect();
        let expected: Vec<String> = step.output.iter().map(|line| comparable(line)).collect();
        if shown != expected || !output.status.success() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            return Err(HarnessError::violated(format!(
                "{}\nprinted {shown:#?}\ninstead of {expected:#?}\n{stderr}",
                step.command
            )));
        }
    }
    standalone.kill().await.map_err(HarnessError::io("stop tidewater"))?;
    Ok(())
}
