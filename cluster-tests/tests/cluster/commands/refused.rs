//! Invalid input: the exit status, a message with the problem and the remedy, and no change.

use std::io::Write;
use std::path::Path;

use tidewater_cluster_tests::cluster::{Cluster, ClusterPlan};
use tidewater_cluster_tests::{HarnessError, Result};

use super::{check_equal, file, json, path, read};

/// More rows than the batches in flight contain.
const MANY: usize = 60_000;

/// Starts a cluster with table `t`, which has two rows in files and one in memory, and the append-only
/// table `log`.
async fn filled() -> Result<Cluster> {
    let cluster = ClusterPlan::default().nodes(1, 1, 0).start().await?;
    let columns = "id int64, name utf8, score int32, at timestamp(ms, UTC)";
    let create = ["table", "create", "t", "--columns", columns, "--primary-key", "id"];
    cluster.run(&create).await?.ok()?;
    let create = ["table", "create", "log", "--columns", "id int64", "--primary-key", "id"];
    cluster.run(&[&create[..], &["--append-only"]].concat()).await?.ok()?;
    for (name, text) in [("a.csv", "id,name\n1,ann\n2,bob\n"), ("b.csv", "id,name\n3,cid\n")] {
        cluster.run(&["load", "t", &file(&cluster, name, text)?]).await?.ok()?;
        if name == "a.csv" {
            cluster.run(&["region", "flush", "--table", "t"]).await?.ok()?;
        }
    }
    Ok(cluster)
}

/// Returns the state that a failed command must not change: rows, tables, members, files.
async fn state(cluster: &Cluster) -> Result<String> {
    let mut state = cluster.run(&["scan", "t", "--format", "csv"]).await?.ok()?.stdout;
    for list in [["table", "list"], ["route", "list"], ["meta-member", "list"], ["node", "list"]] {
        let mut output = json(cluster, &list).await?;
        // The log grows independently of the command.
        for entry in output.as_array_mut().into_iter().flatten() {
            entry.as_object_mut().map(|entry| entry.remove("matched_index"));
        }
        state.push_str(&format!("{output}\n"));
    }
    let mut files = Vec::new();
    walk(&cluster.objects(), &mut files)?;
    files.sort();
    Ok(state + &files.join("\n"))
}

fn walk(dir: &Path, files: &mut Vec<String>) -> Result<()> {
    let io = |what: &Path| HarnessError::io(format!("inspect {}", what.display()));
    for entry in std::fs::read_dir(dir).map_err(io(dir))? {
        let path = entry.map_err(io(dir))?.path();
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            let bytes = path.metadata().map_err(io(&path))?.len();
            files.push(format!("{} {bytes}", path.display()));
        }
    }
    Ok(())
}

/// A command, its expected exit status, and words in its message.
type Case<'a> = (&'a [&'a str], i32, &'a [&'a str]);

async fn check_rejected(cluster: &Cluster, cases: &[Case<'_>]) -> Result<()> {
    let before = state(cluster).await?;
    for (args, status, words) in cases {
        let output = cluster.run(args).await?.status(*status)?.expect_stderr(words)?;
        check_equal("stderr of a panic", output.stderr.contains("panicked"), false)?;
        check_equal(&format!("the state after {args:?}"), state(cluster).await?, before.clone())?;
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let io = HarnessError::io("compress");
    packed.write_all(bytes).and_then(|()| packed.finish()).map_err(io)
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.start_file("rows.csv", stored).expect("in memory");
    writer.write_all(bytes).expect("in memory");
    writer.finish().expect("in memory").into_inner()
}

/// Returns a CSV file of many good rows followed by `last`.
fn many(last: &str) -> String {
    let lines: String = (10..10 + MANY).map(|id| format!("{id},n{id},1,\n")).collect();
    format!("id,name,score,at\n{lines}{last}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_of_damaged_file_changes_nothing() -> Result<()> {
    let cluster = filled().await?;
    let whole = path(&cluster, "whole.parquet");
    cluster.run(&["scan", "t", "--format", "parquet", "--out", &whole]).await?.ok()?;
    let parquet = read(&whole)?;
    let text = many("");
    let gz = gzip(text.as_bytes())?;
    let zip = zipped(text.as_bytes());
    let mut changed = zip.clone();
    let at = changed.len() / 2;
    changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
    let cut = |bytes: &[u8], less: usize| bytes[..bytes.len() - less].to_vec();
    let cases = [
        ("empty.csv", Vec::new(), "empty"),
        ("cut.zip", cut(&zip, 40), "not a complete zip archive"),
        ("changed.zip", changed, "damaged"),
        ("cut.csv.gz", cut(&gz, 1_000), "damaged or truncated"),
        ("cut.parquet", cut(&parquet, 6), "not a complete parquet file"),
        (
            "footer.parquet",
            [cut(&parquet, 12), vec![0xff; 8], b"PAR1".to_vec()].concat(),
            "not a complete parquet file",
        ),
        ("none.zip", b"PK\x05\x06".to_vec(), "not a complete zip archive"),
    ];
    let missing = path(&cluster, "missing.csv");
    check_rejected(
        &cluster,
        &[
            (&["load", "t", &missing], 3, &["missing.csv", "no such file", "check the path"]),
            (&["load", "t", &cluster.directory().display().to_string()], 1, &["directory"]),
        ],
    )
    .await?;
    for (name, bytes, word) in cases {
        let bad = file(&cluster, name, bytes)?;
        check_rejected(&cluster, &[(&["load", "t", &bad], 1, &[name, word])]).await?;
    }
    cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_of_invalid_rows_changes_nothing() -> Result<()> {
    let cluster = filled().await?;
    // Detected before rows are read.
    let columns: [(&str, &str, &[&str]); 3] = [
        ("header.csv", "1,ann\n2,bob\n", &["no header", "1,ann", "id, name, score"]),
        ("other.csv", "id,nmae\n9,x\n", &["no column `nmae`", "remove it"]),
        ("lacks.csv", "name\nx\n", &["lacks column `id`", "add it"]),
    ];
    for (name, text, words) in columns {
        let bad = file(&cluster, name, text)?;
        let words = [&[name], words].concat();
        check_rejected(&cluster, &[(&["load", "t", &bad], 1, &words)]).await?;
    }
    let late = late_line(3);
    let rows: [(&str, Vec<u8>, &[&str]); 8] = [
        ("utf8.csv", b"id,name\n8,x\n9,\xff\xfe\n".to_vec(), &["line 3, column `name`", "utf-8"]),
        ("value.csv", many("8,x,2,\n9,x,many,\n").into(), &[&late, "column `score`", "`many`"]),
        ("over.csv", many("8,x,2,\n9,x,2147483648,\n").into(), &[&late, "overflows int32"]),
        ("time.csv", b"id,at\n9,2013-02-30T00:00:00Z\n".to_vec(), &["line 2, column `at`"]),
        ("key.csv", many("8,x,1,\n,x,1,\n").into(), &[&late, "primary key value is missing"]),
        ("cells.csv", b"id,name\n9\n".to_vec(), &["line 2: found 1 values"]),
        // Longer than the limit of a message, and so of a record.
        ("long.csv", format!("id,name\n8,x\n9,{}\n", "x".repeat(33 << 20)).into(), &["line 3"]),
        ("a.ndjson", b"{\"id\":8}\n{\"id\":9,\"score\":\"x\"}\n".to_vec(), &["line 2", "`score`"]),
    ];
    for (name, bytes, words) in rows {
        let bad = file(&cluster, name, bytes)?;
        let words = [&[name, "nothing was written"], words].concat();
        check_rejected(&cluster, &[(&["load", "t", &bad], 1, &words)]).await?;
    }
    skipping(&cluster).await?;
    unchecked(&cluster).await?;
    cluster.finish().await
}

/// Returns the name of line `number` after the good rows of [`many`].
fn late_line(number: usize) -> String {
    format!("line {}", MANY + number)
}

/// Verifies that bad rows are skipped up to the limit, and that one more prevents the load.
async fn skipping(cluster: &Cluster) -> Result<()> {
    let bad = file(cluster, "some.csv", "id,score\n10,x\n11,1\n,1\n12,1\n13,y\n")?;
    let within = ["load", "t", &bad, "--skip-bad", "3"];
    let beyond = ["load", "t", &bad, "--skip-bad", "2"];
    let words = ["line 6, column `score`", "2 bad rows", "--skip-bad", "nothing was written"];
    check_rejected(cluster, &[(&beyond, 1, &words)]).await?;
    let output = cluster.run(&[&within[..], &["--output", "json"]].concat()).await?.ok()?;
    let summary = output.clone().expect_stderr(&["line 2", "line 4", "line 6"])?.json()?;
    let counts = (summary["acknowledged"].as_u64(), summary["skipped"].as_u64());
    check_equal("rows", counts, (Some(2), Some(3)))?;
    check_equal("rows in the table", cluster.count("t").await?, 5)
}

/// Verifies that a load without the check writes the rows before a bad row and reports their number.
async fn unchecked(cluster: &Cluster) -> Result<()> {
    let bad = file(cluster, "late.csv", many("x,x,1,\n"))?;
    let output = cluster.run(&["load", "t", &bad, "--unchecked"]).await?.status(1)?;
    let written = cluster.count_where("t", Some("id >= 10")).await?;
    output.expect_stderr(&[
        &late_line(2),
        &format!("{written} rows before it were written"),
        "again",
    ])?;
    check_equal("rows were written", written > 0, true)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_with_invalid_names_or_values_change_nothing() -> Result<()> {
    let cluster = filled().await?;
    let good = file(&cluster, "good.csv", "id\n9\n")?;
    let out = path(&cluster, "never.csv");
    let create =
        |columns, key| ["table", "create", "new", "--columns", columns, "--primary-key", key];
    let nowhere: &[&str] = &["nowhere", "table list"];
    let no_region: &[&str] = &["no region 999", "region list"];
    let cases: [Case<'_>; 37] = [
        (
            &["table", "create", "t", "--columns", "id int64", "--primary-key", "id"],
            4,
            &["\"t\"", "table drop"],
        ),
        (&create("id int64, x varchar", "id"), 2, &["`varchar` is not a type", "utf8"]),
        (&create("id int64", "x"), 2, &["`x` is not among the columns: id"]),
        (&create("id int64, id utf8", "id"), 2, &["twice"]),
        (&create("id float64", "id"), 2, &["id"]),
        (&["table", "create", "", "--columns", "id int64", "--primary-key", "id"], 2, &["name"]),
        (&["table", "describe", "nowhere"], 3, nowhere),
        (&["table", "drop", "nowhere"], 3, nowhere),
        (&["load", "nowhere", &good], 3, nowhere),
        (&["scan", "nowhere"], 3, nowhere),
        (&["scan", "nowhere", "--count"], 3, nowhere),
        (&["scan", "nowhere", "--format", "csv", "--out", &out], 3, nowhere),
        (&["get", "nowhere", "1"], 3, nowhere),
        (&["delete", "nowhere", "1"], 3, nowhere),
        (&["route", "list", "--table", "nowhere"], 3, nowhere),
        (&["region", "list", "--table", "nowhere"], 3, nowhere),
        (&["region", "flush", "--table", "nowhere"], 3, nowhere),
        (&["bench", "scan", "--table", "nowhere"], 3, nowhere),
        (&["scan", "t", "--columns", "nope"], 3, &["nope", "id, name, score, at"]),
        (&["scan", "t", "--where", "nope = 1"], 3, &["nope", "character 1"]),
        (&["scan", "t", "--where", "score > many"], 2, &["character 9", "many"]),
        (&["scan", "t", "--where", "score > 1 or id = 2"], 2, &["only `and`"]),
        (&["get", "t", "1,2"], 2, &["2 values", "1 columns: id"]),
        (&["get", "t", "one"], 2, &["column `id`", "`one`"]),
        (&["delete", "t", "99999999999999999999"], 2, &["overflows int64"]),
        (&["delete", "log", "1"], 2, &["append-only"]),
        (&["region", "describe", "999"], 3, no_region),
        (&["region", "flush", "999"], 3, no_region),
        (&["region", "files", "999"], 3, no_region),
        (&["region", "manifest", "999"], 3, no_region),
        (&["group", "transfer-leader", "999", "--to", "101"], 3, &["999", "group list"]),
        (&["group", "transfer-leader", "1", "--to", "999"], 3, &["999"]),
        (&["node", "log-level", "999", "info"], 3, &["no node 999", "node list"]),
        (&["node", "log-level", "101", "a=b=c"], 2, &["a=b=c"]),
        (&["meta-member", "promote", "9"], 3, &["node 9", "meta-member list"]),
        (&["meta-member", "remove", "9"], 3, &["node 9", "meta-member list"]),
        (
            &["meta-member", "replace", "9", "--with", "8", "--address", "127.0.0.1:1"],
            3,
            &["node 9"],
        ),
    ];
    crate::support::wait_for_level(&cluster).await?;
    check_rejected(&cluster, &cases).await?;
    let unused = [cluster.spare_address()?.to_string(), cluster.spare_address()?.to_string()];
    let metas = unused.join(",");
    for command in [&["load", "t", &good][..], &["scan", "t"], &["table", "list"]] {
        let args = [command, &["--meta", &metas, "--timeout", "5s"]].concat();
        cluster
            .run_bare(&args)
            .await?
            .status(5)?
            .expect_stderr(&[&unused[0], &unused[1], "--meta"])?;
    }
    check_equal("the output file of a failed scan", Path::new(&out).exists(), false)?;
    cluster.finish().await
}
