//! `load --create` and `load -` against a standalone process: inferred tables, and bad inputs that
//! change nothing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tidewater_cluster_tests::command::{CommandOutput, run_with_stdin};
use tidewater_cluster_tests::{HarnessError, Result, binary};

use crate::commands::standalone::Standalone;
use crate::commands::{check, check_equal, file};

/// Planes without the full data set: values missing in two columns.
const PLANES: &str = "tailnum,year,type,engines,speed\nN10156,2004,Fixed wing,2,NA\n\
                      N102UW,NA,Fixed wing,2,NA\nN103US,1999,Rotorcraft,1,90\n";

fn demo(name: &str) -> String {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo-data");
    demo.join(name).display().to_string()
}

/// Runs a command with the bytes of a file as stdin.
async fn pipe(node: &Standalone, args: &[&str], input: &str) -> Result<CommandOutput> {
    let stdin = File::open(input).map_err(HarnessError::io(format!("open {input}")))?;
    let args = [args, &["--meta", &node.address]].concat();
    run_with_stdin(&binary::tidewater()?, &args, &[], Stdio::from(stdin)).await
}

async fn rows(node: &Standalone, table: &str) -> Result<String> {
    Ok(node.run(&["scan", table, "--format", "csv"]).await?.ok()?.stdout)
}

async fn finish(mut node: Standalone) -> Result<()> {
    node.node.terminate().await?;
    check("no panic", !node.node.log().text()?.contains("panicked at"))?;
    node.cluster.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn created_flights_equal_those_of_a_defined_table() -> Result<()> {
    let node = Standalone::start().await?;
    let flights = demo("flights-sample.csv.gz");
    let columns = std::fs::read_to_string(demo("flights.columns"))
        .map_err(HarnessError::io("read flights.columns"))?;
    let key = "time_hour,carrier,flight";
    let create = ["table", "create", "defined", "--columns", columns.trim(), "--primary-key", key];
    node.run(&create).await?.ok()?;
    node.run(&["load", "defined", &flights, "--null", "NA"]).await?.ok()?;
    let create = ["--null", "NA", "--create", "--primary-key", key, "--time-column", "time_hour"];
    let output = node.run(&[&["load", "inferred", &flights], &create[..]].concat()).await?.ok()?;
    let words = [
        "dep_time        int64              null",
        "tidewater table create inferred --columns 'year int64, month int64",
        "time_hour timestamp(s, UTC)",
        "--primary-key time_hour,carrier,flight --time-column time_hour",
    ];
    output.expect_stderr(&words)?;
    let defined = rows(&node, "defined").await?;
    check_equal("lines", defined.lines().count(), 1 + 5_027)?;
    check("the rows are equal", rows(&node, "inferred").await? == defined)?;

    // The same through stdin, as files and published together.
    let again = [&["load", "piped", "-"], &create[..], &["--atomic"]].concat();
    pipe(&node, &again, &flights).await?.ok()?;
    check("the piped rows are equal", rows(&node, "piped").await? == defined)?;
    finish(node).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn printed_command_creates_the_same_table() -> Result<()> {
    let node = Standalone::start().await?;
    let full: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/planes.csv");
    let (planes, count) = if full.is_file() {
        (full.display().to_string(), 3_322)
    } else {
        (file(&node.cluster, "planes.csv", PLANES)?, 3)
    };
    let create = ["--null", "NA", "--create", "--primary-key", "tailnum"];
    let given = ["--columns", "engines int16 not null"];
    let load = [&["load", "planes", &planes], &create[..], &given].concat();
    let output = node.run(&load).await?.ok()?;
    let command = output.stderr.lines().find(|line| line.starts_with("tidewater table create"));
    let command = command.ok_or_else(|| HarnessError::violated(output.stderr.clone()))?;
    check(command, command.contains("engines int16 not null"))?;
    let described = |name: &'static str| {
        let node = &node;
        async move {
            let output = node.run(&["table", "describe", name, "--output", "json"]).await?;
            let mut table = output.ok()?.json()?;
            let fields = table.as_object_mut().ok_or_else(|| HarnessError::violated("no table"))?;
            Ok::<_, HarnessError>(fields.remove("columns"))
        }
    };
    let inferred = described("planes").await?;
    let before = rows(&node, "planes").await?;
    check_equal("lines", before.lines().count(), 1 + count)?;

    node.run(&["table", "drop", "planes"]).await?.ok()?;
    let binary = binary::tidewater()?.display().to_string();
    let script = format!("{} --meta {}", command.replacen("tidewater", &binary, 1), node.address);
    let created = run_with_stdin(Path::new("sh"), &["-c", &script], &[], Stdio::null()).await?;
    created.ok()?;
    check_equal("columns", described("planes").await?, inferred)?;
    node.run(&["load", "planes", &planes, "--null", "NA"]).await?.ok()?;
    check("the rows are equal", rows(&node, "planes").await? == before)?;
    finish(node).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ndjson_from_stdin_creates_a_table() -> Result<()> {
    let node = Standalone::start().await?;
    let text = "{\"id\": 2, \"zip\": \"12\", \"at\": \"2013-01-01T10:00:00.5Z\"}\n\
                {\"id\": 1, \"score\": 1.5}\n{\"id\": 3, \"score\": 7, \"ok\": true}\n";
    let input = file(&node.cluster, "trips", text)?;
    let create = ["load", "trips", "-", "--create", "--primary-key", "id"];
    let output = pipe(&node, &create, &input).await?.ok()?;
    let columns = "'id int64, zip utf8, at timestamp(ms, UTC), score float64, ok bool'";
    output.expect_stderr(&[columns, "table trips created"])?;
    let expected = "id,zip,at,score,ok\n1,,,1.5,\n2,12,2013-01-01T10:00:00.500Z,,\n3,,,7.0,true\n";
    check_equal("rows", rows(&node, "trips").await?.as_str(), expected)?;

    // Into the existing table, with another delimiter.
    let tabs = file(&node.cluster, "tabs", "id\tzip\n4\t007\n")?;
    pipe(&node, &["load", "trips", "-", "--delimiter", "tab"], &tabs).await?.ok()?;
    let count = node.run(&["scan", "trips", "--count"]).await?.ok()?.stdout;
    check_equal("rows after another load", count.as_str(), "4\n")?;

    // Without a key, equal rows remain.
    let equal = file(&node.cluster, "equal", "a,b\n1,x\n1,x\n1,y\n")?;
    let output = pipe(&node, &["load", "log", "-", "--create"], &equal).await?.ok()?;
    output.expect_stderr(&["--primary-key a --append-only", "sorted by `a`"])?;
    check_equal("equal rows", rows(&node, "log").await?.as_str(), "a,b\n1,x\n1,x\n1,y\n")?;
    finish(node).await
}

/// A bad input: name, bytes, further arguments, exit status, words of the message.
type Case = (&'static str, Vec<u8>, &'static [&'static str], i32, &'static [&'static str]);

fn cases() -> Vec<Case> {
    const KEY: &[&str] = &["--create", "--primary-key", "id"];
    const CREATE: &[&str] = &["--create"];
    let repeated = b"id,x\n1,1\n2,1\n1,2\n".to_vec();
    vec![
        ("empty.csv", Vec::new(), KEY, 1, &["the file is empty"]),
        ("none.csv", b"id,x\n1,\n".to_vec(), KEY, 1, &["column `x` has no value", "'x utf8'"]),
        (
            "mixed.ndjson",
            b"{\"id\":1}\n{\"id\":\"x\"}\n".to_vec(),
            KEY,
            1,
            &["`id`", "line 1 has a number", "line 2 has a text"],
        ),
        ("nested.ndjson", b"{\"id\":1,\"x\":[1]}\n".to_vec(), KEY, 1, &["line 1", "`x`", "nested"]),
        ("key.csv", b"a,b\n1,2\n".to_vec(), KEY, 2, &["`id` is not among the columns", "a, b"]),
        ("null.csv", b"id,x\n1,1\n,2\n".to_vec(), KEY, 1, &["line 3", "`id`", "value is missing"]),
        ("twice.csv", repeated, KEY, 1, &["line 2", "line 4", "(id) = (1)", "append-only"]),
        ("float.csv", b"id\n1.5\n".to_vec(), KEY, 2, &["float64"]),
        ("semicolon.csv", b"id;x\n1;2\n".to_vec(), KEY, 1, &["--delimiter ';'"]),
        ("tab.csv", b"id\tx\n1\t2\n".to_vec(), &[], 1, &["--delimiter 'tab'"]),
        ("quote.csv", b"id,x\n1,\"a\n2,b\n".to_vec(), KEY, 1, &["line 2", "does not end"]),
        ("cells.csv", b"id,x\n1\n".to_vec(), KEY, 1, &["line 2", "found 1 values"]),
        ("cut.csv.gz", b"\x1f\x8b\x08\x00\x00".to_vec(), KEY, 1, &["damaged or truncated"]),
        ("cut.zip", b"PK\x03\x04 and no more".to_vec(), KEY, 1, &["not a complete zip"]),
        ("cut.parquet", b"PAR1 and no more".to_vec(), KEY, 1, &["not a complete parquet"]),
        ("sort.csv", b"a,b\n1.5,\n2.5,1\n".to_vec(), CREATE, 1, &["a column to sort by"]),
        (
            "given.csv",
            b"id,x\n1,1\n2,300\n".to_vec(),
            &["--create", "--primary-key", "id", "--columns", "x uint8"],
            1,
            &["line 3", "`x`", "overflows uint8"],
        ),
        ("exists.csv", b"id\n1\n".to_vec(), KEY, 4, &["\"kept\" exists", "leave out --create"]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_of_a_created_table_changes_nothing() -> Result<()> {
    let node = Standalone::start().await?;
    let kept = file(&node.cluster, "kept.csv", "id,x\n1,a\n2,b\n")?;
    node.run(&["load", "kept", &kept, "--create", "--primary-key", "id"]).await?.ok()?;
    let state = || async {
        let tables = node.run(&["table", "list", "--output", "json"]).await?.ok()?.stdout;
        Ok::<_, HarnessError>(tables + &rows(&node, "kept").await?)
    };
    let before = state().await?;
    for (name, bytes, args, status, words) in cases() {
        let path = file(&node.cluster, name, bytes)?;
        let table = if name.starts_with("exists") || args.is_empty() { "kept" } else { "new" };
        let from_file = [&["load", table, &path], args].concat();
        node.run(&from_file).await?.status(status)?.expect_stderr(words)?;
        let from_stdin = [&["load", table, "-"], args].concat();
        let output = pipe(&node, &from_stdin, &path).await?.status(status)?;
        output.expect_stderr(words)?;
        check_equal(&format!("state after {name}"), state().await?, before.clone())?;
    }
    let twice = ["load", "new", "-", "-", "--create"];
    pipe(&node, &twice, &kept).await?.status(2)?.expect_stderr(&["only once"])?;
    let other = file(&node.cluster, "other.csv", "id,y\n1,a\n")?;
    let differ = ["load", "new", &kept, &other, "--create"];
    node.run(&differ).await?.status(1)?.expect_stderr(&["lacks column `x`", "adds column `y`"])?;
    check_equal("state after all", state().await?, before)?;
    finish(node).await
}
