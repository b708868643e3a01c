//! Every command against real processes: exit status, and the JSON that scripts rely on.

mod compact;
mod completion;
mod describe;
pub(crate) mod operators;
mod procedures;
mod refused;
mod rows;
pub(crate) mod standalone;
mod tables;
mod watch;

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};

/// Runs a command that must succeed with `--output json`; returns the JSON.
async fn json(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let args = [args, &["--output", "json"]].concat();
    cluster.run(&args).await?.ok()?.json()
}

/// Runs a list command; every entry must have these fields.
async fn list(cluster: &Cluster, args: &[&str], fields: &[&str]) -> Result<Vec<Value>> {
    let output = json(cluster, args).await?;
    let Value::Array(entries) = output else {
        return Err(HarnessError::violated(format!("{args:?} did not return a list: {output}")));
    };
    for entry in &entries {
        check_fields(entry, fields)?;
    }
    Ok(entries)
}

/// Verifies that a value has all of these fields.
fn check_fields(value: &Value, fields: &[&str]) -> Result<()> {
    let missing: Vec<_> = fields.iter().filter(|field| value.get(**field).is_none()).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("{value} lacks {missing:?}")))
    }
}

/// Verifies that two values are equal.
pub(crate) fn check_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> Result<()> {
    if found == expected {
        Ok(())
    } else {
        let truncate = |value: String| value.chars().take(2_000).collect::<String>();
        let found = truncate(format!("{found:?}"));
        let expected = truncate(format!("{expected:?}"));
        Err(HarnessError::violated(format!("{what}: {found}, expected {expected}")))
    }
}

/// Verifies a condition.
pub(crate) fn check(condition: &str, is_true: bool) -> Result<()> {
    if is_true { Ok(()) } else { Err(HarnessError::violated(condition)) }
}

/// Writes a file to the cluster's directory; returns its path.
pub(crate) fn file(cluster: &Cluster, name: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
    let path = cluster.directory().join(name);
    std::fs::write(&path, bytes).map_err(HarnessError::io(format!("write {name}")))?;
    Ok(path.display().to_string())
}

/// Returns a path in the cluster's directory.
fn path(cluster: &Cluster, name: &str) -> String {
    cluster.directory().join(name).display().to_string()
}

fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(HarnessError::io(format!("read {path}")))
}
