//! The `tidewater` command: every role, every admin command.
//!
//! # Layout
//!
//! - [`app`]: the command tree, one enum with a line for each command.
//! - [`commands`]: a noun is a folder, a verb a file with its options and one function.
//! - [`settings`]: flags, environment and a TOML file give the same settings, in that order.
//! - [`server`]: what all roles have in common: listening, health, reflection, metrics, stopping.
//! - [`load`]: reading files into batches of rows.
//! - [`value`] and [`text`]: what people type, and what files hold, as values.
//! - [`output`]: lists, rows and progress.
//! - [`exit`]: how the command ends: one mapping from errors to statuses.

mod app;
mod commands;
mod exit;
mod load;
mod output;
mod server;
mod settings;
mod text;
mod value;

use std::process::ExitCode;

use crate::app::App;
use crate::exit::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<ExitCode, Failure> {
    let app: App = match settings::parse(std::env::args_os())? {
        settings::Parsed::App(app) => *app,
        // Help, the version, or a usage error: clap knows where to print and which status to give.
        settings::Parsed::Told(message) => {
            let status = u8::try_from(message.exit_code()).unwrap_or(2);
            message.print().map_err(|error| Failure::writing("the output", &error))?;
            return Ok(ExitCode::from(status));
        }
    };
    // Threads come next: it does not hold for those that are there.
    if let Some(limit) = app.memory_limit() {
        server::allocator::fit(limit);
    }
    if app.only_merges() {
        server::allocator::give_back();
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Tokio's own variable comes first.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none()
        && let Some(workers) =
            app.workers(std::thread::available_parallelism().map_or(1, Into::into))
    {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("no threads can be started: {error}")))?;
    let result = runtime.block_on(Box::pin(app.run()));
    // What still runs belongs to nobody: do not wait for it.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
