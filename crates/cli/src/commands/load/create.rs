//! `load --create`: infers the columns, checks all rows, creates the table.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use tidewater_client::{Client, ClientError};
use tidewater_common::keys::KeyCodec;
use tidewater_common::schema::{TableOptions, TableSchema};
use tidewater_proto::v1::Reason;

use super::plan::{Plan, Wanted, plan};
use super::{Options, blocking};
use crate::exit::{Exit, Failure};
use crate::load::infer::InferOptions;
use crate::load::infer::scan::infer_all;
use crate::load::keys::{MAX_KEYS, UniqueKeys};
use crate::load::verify::verify_all;
use crate::output::amount::grouped;
use crate::output::progress::Progress;
use crate::output::terminal::note;
use crate::text::columns::ColumnSpecs;
use tidewater_readers::ReadOptions;
use tidewater_readers::input::Input;

/// Options of `--create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Create the table, with columns inferred from all rows of the files
    #[arg(long, conflicts_with = "unchecked")]
    create: bool,

    /// Columns of the primary key, in order; without it, the table is append-only
    #[arg(long, value_name = "COLUMN", value_delimiter = ',', requires = "create")]
    primary_key: Vec<String>,

    /// Column with the time of a row
    #[arg(long, value_name = "COLUMN", requires = "create")]
    time_column: Option<String>,

    /// Names and types of columns that are not inferred: 'x int32, y utf8 not null'
    #[arg(long, value_name = "COLUMNS", requires = "create")]
    columns: Option<ColumnSpecs>,
}

impl CreateArgs {
    /// Returns true if the table is to be created.
    pub(super) fn is_wanted(&self) -> bool {
        self.create
    }

    fn wanted(&self, options: &Options) -> Wanted {
        Wanted {
            name: options.name.clone(),
            primary_key: self.primary_key.iter().map(|name| name.trim().to_owned()).collect(),
            time_column: self.time_column.clone(),
            given: self.columns.clone().map(|columns| columns.0).unwrap_or_default(),
            skip_bad: options.skip_bad,
        }
    }
}

/// Creates the table for the inputs. Creates nothing when a row does not fit.
pub(super) async fn run(
    options: &Options,
    client: &Client,
    inputs: &[Input],
) -> Result<(), Failure> {
    check_name_is_free(client, &options.name).await?;
    let wanted = options.create.wanted(options);
    let plan = infer(options, wanted.clone(), inputs.to_vec()).await.map_err(nothing_created)?;
    note(&format!("{}\n\n{}", plan.text(), plan.command()));
    if wanted.primary_key.is_empty() {
        eprintln!(
            "Without --primary-key, the table is append-only: rows are sorted by `{}` and not replaced.",
            plan.table.primary_key.join(", ")
        );
    }
    let check_keys = !wanted.primary_key.is_empty();
    verify(options, plan.schema.clone(), check_keys, inputs.to_vec())
        .await
        .map_err(nothing_created)?;
    let created = client.create_table(plan.table).await;
    created.map_err(|error| match error.refusal().map(|refusal| refusal.reason) {
        Some(Reason::TableExists) => exists(&options.name),
        _ => error.into(),
    })?;
    eprintln!("table {} created", options.name);
    Ok(())
}

async fn check_name_is_free(client: &Client, name: &str) -> Result<(), Failure> {
    match client.table(name).await {
        Ok(_) => Err(exists(name)),
        Err(ClientError::TableNotFound(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn exists(name: &str) -> Failure {
    Failure::new(
        Exit::Conflict,
        format!("table {name:?} exists already: leave out --create to load into it"),
    )
}

fn nothing_created(failure: Failure) -> Failure {
    Failure::new(failure.exit, format!("{}\n  no table was created", failure.message))
}

async fn infer(options: &Options, wanted: Wanted, inputs: Vec<Input>) -> Result<Plan, Failure> {
    let infer_options = InferOptions {
        nulls: options.nulls.clone().into(),
        delimiter: options.delimiter,
        given: Arc::new(
            wanted.given.iter().map(|column| column.name.clone()).collect::<HashSet<_>>(),
        ),
        skip_bad: options.skip_bad,
    };
    blocking(move || -> Result<Plan, Failure> {
        let mut passes = Pass::start("inferring", &inputs);
        let read = Arc::clone(&passes.read);
        let columns = infer_all(&inputs, &infer_options, &read, &mut |rows| passes.update(rows));
        passes.finish();
        Ok(plan(&wanted, &columns?)?)
    })
    .await?
}

async fn verify(
    options: &Options,
    schema: TableSchema,
    check_keys: bool,
    inputs: Vec<Input>,
) -> Result<(), Failure> {
    let skip_bad = options.skip_bad;
    let codec = KeyCodec::new(&schema, &TableOptions::upsert())
        .map_err(|error| Failure::usage(format!("--primary-key: {error}")))?;
    let read_options = options.read_options(schema, codec);
    blocking(move || verify_blocking(&inputs, &read_options, skip_bad, check_keys)).await?
}

fn verify_blocking(
    inputs: &[Input],
    options: &ReadOptions,
    skip_bad: u64,
    check_keys: bool,
) -> Result<(), Failure> {
    let keys = check_keys.then(|| UniqueKeys::new(&options.table, MAX_KEYS)).transpose();
    let mut keys = keys.map_err(|error| Failure::usage(format!("--primary-key: {error}")))?;
    let mut pass = Pass::start("checking", inputs);
    let read = Arc::clone(&pass.read);
    let verified =
        verify_all(inputs, options, skip_bad, &mut keys, &read, &mut |rows| pass.update(rows));
    pass.finish();
    verified?;
    if keys.is_some_and(|keys| !keys.is_complete()) {
        eprintln!(
            "note: the uniqueness of the primary key was checked for the first {} rows only; of \
             several rows with one key, the last one remains",
            grouped(MAX_KEYS as u64)
        );
    }
    Ok(())
}

/// Progress of one pass over all inputs.
struct Pass {
    progress: Progress,
    read: Arc<AtomicU64>,
    total: u64,
}

impl Pass {
    fn start(activity: &str, inputs: &[Input]) -> Self {
        let total = inputs.iter().map(|input| input.size).sum();
        Self { progress: Progress::start(activity), read: Arc::default(), total }
    }

    fn update(&mut self, rows: u64) {
        let read = self.read.load(Ordering::Relaxed).min(self.total);
        self.progress.update(rows, (read, self.total));
    }

    fn finish(self) {
        self.progress.finish();
    }
}
