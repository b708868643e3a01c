//! Every command there is, against real processes: its exit status, and the JSON that scripts rely
//! on.

mod operators;
mod refused;
mod rows;
mod standalone;
mod tables;

use serde_json::Value;
use tidewater_cluster_tests::cluster::Cluster;
use tidewater_cluster_tests::{HarnessError, Result};

/// Runs a command that must succeed, with `--output json`; what it says.
async fn json(cluster: &Cluster, args: &[&str]) -> Result<Value> {
    let args = [args, &["--output", "json"]].concat();
    cluster.run(&args).await?.ok()?.json()
}

/// The same for a list, each entry of which must have these fields.
async fn list(cluster: &Cluster, args: &[&str], fields: &[&str]) -> Result<Vec<Value>> {
    let said = json(cluster, args).await?;
    let Value::Array(entries) = said else {
        return Err(HarnessError::violated(format!("{args:?} gives no list: {said}")));
    };
    for entry in &entries {
        has(entry, fields)?;
    }
    Ok(entries)
}

/// All of these fields must be there, whatever is in them.
fn has(value: &Value, fields: &[&str]) -> Result<()> {
    let missing: Vec<_> = fields.iter().filter(|field| value.get(**field).is_none()).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(HarnessError::violated(format!("{value} lacks {missing:?}")))
    }
}

/// What is must be what should be.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<()> {
    if is == should {
        Ok(())
    } else {
        let cut = |value: String| value.chars().take(2_000).collect::<String>();
        let (is, should) = (cut(format!("{is:?}")), cut(format!("{should:?}")));
        Err(HarnessError::violated(format!("{what}: {is}, not {should}")))
    }
}

/// What must hold.
fn holds(what: &str, is: bool) -> Result<()> {
    if is { Ok(()) } else { Err(HarnessError::violated(what)) }
}

/// A file in the cluster's folder; its path.
fn file(cluster: &Cluster, name: &str, bytes: impl AsRef<[u8]>) -> Result<String> {
    let path = cluster.folder().join(name);
    std::fs::write(&path, bytes).map_err(HarnessError::io(format!("write {name}")))?;
    Ok(path.display().to_string())
}

/// A path in the cluster's folder at which nothing is yet.
fn path(cluster: &Cluster, name: &str) -> String {
    cluster.folder().join(name).display().to_string()
}

fn read(path: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(HarnessError::io(format!("read {path}")))
}
