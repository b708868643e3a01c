//! The completion script of Bash, against a cluster and without one.

use std::time::{Duration, Instant};

use tidewater_cluster_tests::{HarnessError, Result, binary};
use tokio::process::Command;

use super::standalone::Standalone;
use super::{check, check_equal};

/// Completes the last of the words, which Bash has split; returns the sorted candidates.
async fn complete(meta: &str, words: &[&str]) -> Result<Vec<String>> {
    let script = r#"
        source <(tidewater completions bash) || exit 1
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9
        _clap_complete_tidewater tidewater "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let binary = binary::tidewater()?;
    let directory = binary.parent().map(|path| path.display().to_string()).unwrap_or_default();
    let path = std::env::var("PATH").unwrap_or_default();
    let output = Command::new("bash")
        .args(["--norc", "-c", script, "bash"])
        .args(words)
        .env("PATH", format!("{directory}:{path}"))
        .env("TIDEWATER_META", meta)
        .output()
        .await
        .map_err(HarnessError::io("run bash"))?;
    check_equal("stderr", String::from_utf8_lossy(&output.stderr).as_ref(), "")?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut candidates: Vec<String> =
        stdout.lines().map(|line| line.trim_end().to_owned()).collect();
    // An empty word is also completed to options.
    candidates.retain(|candidate| !candidate.is_empty() && !candidate.starts_with("--"));
    candidates.sort();
    Ok(candidates)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bash_completes_the_names_of_the_cluster() -> Result<()> {
    let mut standalone = Standalone::start().await?;
    for name in ["flights", "flags", "planes"] {
        let create = ["table", "create", name, "--columns", "id int64", "--primary-key", "id"];
        standalone.run(&create).await?.ok()?;
    }
    let path = standalone.cluster.hook_directory().join("audit.jsonl");
    let config = serde_json::json!({ "path": path }).to_string();
    let add = ["hook", "add", "audit", "--kind", "jsonl", "--config", &config];
    standalone.run(&add).await?.ok()?;

    let address = standalone.address.clone();
    let (host, port) = address.split_once(':').unwrap_or_default();
    let split = ["tidewater", "scan", "--meta", host, ":", port, "fl"];
    let cases: [(&str, &[&str], &[&str]); 8] = [
        (&address, &["tidewater", "scan", "fl"], &["flags", "flights"]),
        (&address, &["tidewater", "table", "describe", "pl"], &["planes"]),
        (&address, &["tidewater", "region", "compact", "--table", "fli"], &["flights"]),
        (&address, &["tidewater", "region", "compact", "--table", "=", "fli"], &["flights"]),
        (&address, &["tidewater", "hook", "pause", ""], &["audit"]),
        // Static values and subcommands.
        (&address, &["tidewater", "group", "transfer"], &["transfer-leader"]),
        // --meta takes precedence over the environment.
        ("127.0.0.1:1", &split, &["flags", "flights"]),
        // A new name is not completed.
        (&address, &["tidewater", "table", "create", "fl"], &[]),
    ];
    for (meta, words, expected) in cases {
        let found = complete(meta, words).await?;
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        check_equal(&format!("{words:?}"), found.as_slice(), expected)?;
    }
    let regions = complete(&address, &["tidewater", "region", "describe", ""]).await?;
    let ids = regions.iter().filter(|candidate| candidate.parse::<u64>().is_ok()).count();
    check("the ids of regions are completed", ids >= 3)?;

    // A frozen process accepts connections and does not answer.
    standalone.node.signal(tidewater_cluster_tests::node::Signal::Stop).await?;
    let begun = Instant::now();
    let found = complete(&address, &["tidewater", "scan", "fl"]).await?;
    check_equal("candidates of a frozen cluster", found, Vec::new())?;
    check("the completion ends soon", begun.elapsed() < Duration::from_secs(5))?;
    standalone.node.kill().await?;
    let found = complete(&address, &["tidewater", "scan", "fl"]).await?;
    check_equal("candidates without a cluster", found, Vec::new())?;
    standalone.cluster.finish().await
}
