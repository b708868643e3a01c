//! The `tidewater` command: all node roles and all client commands.
//!
//! # Layout
//!
//! - [`app`]: the command tree, one enum with a line for each command.
//! - [`commands`]: a noun is a directory; a verb is a file with its options and one function.
//! - [`settings`]: settings from flags, environment variables and a TOML file, in this precedence.
//! - [`server`]: shared parts of all roles: listener, health, reflection, metrics, shutdown.
//! - [`load`]: inference of columns, verification of rows and keys, standard input.
//! - [`text`]: parsers of option values and arguments.
//! - [`query`]: sorted rows and aggregates of `scan`.
//! - [`output`]: lists, rows, amounts and progress.
//! - [`exit`]: mapping from errors to messages and exit statuses.

mod app;
mod commands;
mod exit;
mod load;
mod output;
mod query;
mod server;
mod settings;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;

use crate::app::App;
use crate::commands::completions::{self, VARIABLE};
use crate::exit::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<ExitCode, Failure> {
    if std::env::var_os(VARIABLE).is_some() {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        if completions::complete(&arguments, |words| {
            settings::with_defaults_of(App::command(), words)
        })? {
            return Ok(ExitCode::SUCCESS);
        }
    }
    let app: App = match settings::parse(std::env::args_os())? {
        settings::Parsed::Command(app) => *app,
        // Help, the version, or a usage error: clap decides on the stream and the status.
        settings::Parsed::Message(message) => {
            let status = u8::try_from(message.exit_code()).unwrap_or(2);
            message.print().map_err(|error| Failure::writing("the output", &error))?;
            return Ok(ExitCode::from(status));
        }
    };
    // Configure the allocator before threads start: the limit does not apply to existing threads.
    if let Some(limit) = app.memory_limit() {
        server::allocator::limit_arenas(limit);
    }
    if app.is_compactor() {
        server::allocator::return_large_allocations();
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Tokio's own variable takes precedence.
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none()
        && let Some(workers) =
            app.worker_threads(std::thread::available_parallelism().map_or(1, Into::into))
    {
        runtime.worker_threads(workers);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::other(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(Box::pin(app.run()));
    // No caller waits for the tasks that still run.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}
