//! `gc`

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use tidewater_proto::v1::{GarbageObject, GarbageReport};

use crate::commands::client::ClientArgs;
use crate::exit::Failure;
use crate::output::amount::{bytes_text, grouped};
use crate::output::{fact, table};

/// Objects listed in a table; JSON lists all.
const MAX_LISTED: usize = 50;

/// Options of `gc`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidewater gc --dry-run\n  tidewater gc --table flights\n\n\
                        Only objects that have been unreferenced for longer than `meta --gc-grace` \
                        (default 6 hours) are deleted. The cluster does the same automatically, every \
                        `meta --gc-every`.")]
pub(crate) struct Options {
    /// Delete objects of this table only
    #[arg(long, value_name = "NAME")]
    table: Option<String>,

    /// List the objects that would be deleted, with the reason, and delete nothing
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    client: ClientArgs,
}

/// Result of a garbage collection pass or of its dry run. The JSON field names are stable.
#[derive(Debug, Serialize)]
struct Collected {
    deleted: u64,
    bytes: u64,
    kept: u64,
    /// Number of kept objects by reason.
    kept_because: BTreeMap<String, u64>,
    failed: u64,
    /// Regions whose manifests cannot be read: objects that they may refer to were kept.
    unreadable: Vec<String>,
    objects: Vec<Object>,
    #[serde(skip)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Object {
    path: String,
    why: String,
    bytes: u64,
}

impl Collected {
    fn new(report: GarbageReport, objects: Vec<GarbageObject>, dry_run: bool) -> Self {
        let object = |object: GarbageObject| Object {
            path: object.path,
            why: object.why,
            bytes: object.bytes,
        };
        let kept_because: BTreeMap<String, u64> =
            report.kept.into_iter().map(|kept| (kept.why, kept.objects)).collect();
        Self {
            deleted: report.deleted,
            bytes: report.bytes,
            kept: kept_because.values().sum(),
            kept_because,
            failed: report.failed,
            unreadable: report.unreadable,
            objects: objects.into_iter().map(object).collect(),
            dry_run,
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.objects.is_empty() {
            let rows = self.objects.iter().take(MAX_LISTED).map(|object| {
                vec![object.path.clone(), object.why.clone(), bytes_text(object.bytes)]
            });
            text = table(&["PATH", "WHY", "SIZE"], rows);
            text.push('\n');
        }
        if self.objects.len() > MAX_LISTED {
            let more = (self.objects.len() - MAX_LISTED) as u64;
            text.push_str(&format!("and {} more: `--output json` lists all\n", grouped(more)));
        }
        let verb = if self.dry_run { "would be deleted" } else { "deleted" };
        text.push_str(&format!(
            "{} objects of {} {verb}, {} kept",
            grouped(self.deleted),
            bytes_text(self.bytes),
            grouped(self.kept)
        ));
        for (why, objects) in &self.kept_because {
            text.push_str(&format!("\n  {why}: {}", grouped(*objects)));
        }
        if self.failed > 0 {
            let failed = grouped(self.failed);
            text.push_str(&format!("\n{failed} could not be deleted: the next pass retries them"));
        }
        for region in &self.unreadable {
            text.push_str(&format!("\nskipped, manifest cannot be read: {region}"));
        }
        text
    }
}

/// Deletes unreferenced objects.
pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let client = options.client.connect().await?;
    let mut objects = Vec::new();
    let report = client
        .collect_garbage(options.table.as_deref(), options.dry_run, |object| objects.push(object))
        .await?;
    fact(options.client.output, &Collected::new(report, objects, options.dry_run), Collected::text)
}

#[cfg(test)]
mod tests {
    use tidewater_proto::v1::KeptObjects;

    use super::*;

    #[test]
    fn gc_report_has_stable_json_fields() {
        let kept = |why: &str, objects| KeptObjects { why: why.to_owned(), objects };
        let report = GarbageReport {
            deleted: 1,
            bytes: 10,
            kept: vec![kept("live", 3), kept("manifest", 4)],
            failed: 1,
            unreadable: vec!["t1/r2-1: damaged".to_owned()],
            floor_ms: 5,
            node_id: 101,
            ..GarbageReport::default()
        };
        let object = GarbageObject { path: "t1/r1-1/x".into(), bytes: 10, why: "orphan".into() };
        let collected = Collected::new(report, vec![object], true);
        let json = serde_json::to_value(&collected).unwrap();
        assert_eq!(json["kept"], 7);
        assert_eq!(json["kept_because"]["manifest"], 4);
        assert_eq!(json["objects"][0]["path"], "t1/r1-1/x");
        assert_eq!(json["objects"][0]["why"], "orphan");
        for field in ["deleted", "bytes", "failed", "unreadable"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        let text = collected.text();
        for words in ["1 objects of 10 B would be deleted", "live: 3", "1 could not", "t1/r2-1"] {
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
