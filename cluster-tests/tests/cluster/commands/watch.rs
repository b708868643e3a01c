//! `cluster status --watch` while the only node stops and starts.

use std::process::Stdio;
use std::time::Duration;

use tidewater_cluster_tests::{HarnessError, Result, binary, wait};
use tokio::process::{Child, Command};

use super::standalone::Standalone;
use super::{check, check_equal, path, read};
use crate::support::SETTLED_WITHIN;

/// Starts a command with stdout and stderr in files.
fn spawn(command: &mut Command, out: &str, errors: &str) -> Result<Child> {
    let create = |path: &str| std::fs::File::create(path).map_err(HarnessError::io("create"));
    command
        .env_remove("TIDEWATER_META")
        .stdin(Stdio::null())
        .stdout(create(out)?)
        .stderr(create(errors)?)
        .kill_on_drop(true)
        .spawn()
        .map_err(HarnessError::io("start tidewater"))
}

fn text(path: &str) -> String {
    String::from_utf8_lossy(&read(path).unwrap_or_default()).into_owned()
}

/// Waits until the file contains the words after the first `from` bytes; returns its length then.
async fn appended(path: &str, from: usize, words: &str) -> Result<usize> {
    wait::until(&format!("{words:?} is printed"), SETTLED_WITHIN, || async {
        let text = text(path);
        let new = text.get(from..).unwrap_or_default();
        if new.contains(words) { Ok(text.len()) } else { Err(new.to_owned()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watched_status_continues_while_no_node_answers() -> Result<()> {
    let mut standalone = Standalone::start().await?;
    let out = path(&standalone.cluster, "watch.out");
    let errors = path(&standalone.cluster, "watch.err");
    let watch = ["cluster", "status", "--watch", "200ms", "--meta", &standalone.address];
    let mut watched = spawn(Command::new(binary::tidewater()?).args(watch), &out, &errors)?;
    let healthy = appended(&out, 0, "health   healthy").await?;
    standalone.node.kill().await?;
    let stopped = appended(&out, healthy, "NO STATUS: ").await?;
    standalone.node.start().await?;
    let again = appended(&out, stopped, "health   healthy").await?;
    appended(&out, again, "Z\ncluster  ").await?;
    check("the first line is a time", text(&out).starts_with("20"))?;
    check("nothing is redrawn", !text(&out).contains('\x1b'))?;

    let id = watched.id().unwrap_or_default().to_string();
    let kill = Command::new("sh").args(["-c", "kill -s INT \"$0\"", &id]).status().await;
    check("the signal is sent", kill.is_ok_and(|status| status.success()))?;
    let ended = tokio::time::timeout(Duration::from_secs(20), watched.wait()).await;
    let status = ended.ok().and_then(std::result::Result::ok).and_then(|status| status.code());
    check_equal("exit status", status, Some(0))?;
    check_equal("stderr", text(&errors), String::new())?;

    // A pseudo-terminal.
    let watch = watch.join(" ");
    let binary = binary::tidewater()?.display().to_string();
    let command = format!("timeout --foreground --preserve-status -s INT 2s {binary} {watch}");
    let terminal = ["-q", "-e", "-c", &command, "/dev/null"];
    let mut drawn = spawn(Command::new("script").args(terminal), &out, &errors)?;
    let ended = tokio::time::timeout(Duration::from_secs(30), drawn.wait()).await;
    let status = ended.ok().and_then(std::result::Result::ok).and_then(|status| status.code());
    check_equal("exit status on a terminal", status, Some(0))?;
    check("the status is redrawn", text(&out).matches("\x1b[H").count() >= 2)?;

    let zero = standalone.run(&["cluster", "status", "--watch", "0ms"]).await?;
    zero.status(2)?.expect_stderr(&["--watch 0ms"])?;
    standalone.node.terminate().await?;
    standalone.cluster.finish().await
}
