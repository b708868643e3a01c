//! Runs a client command of the binary and captures its output.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{HarnessError, Result};

/// Limit for one client command.
const LIMIT: Duration = Duration::from_secs(240);

/// Output and exit status of a command.
#[derive(Debug, Clone)]
pub struct CommandOutput {
    /// Arguments, joined by blanks.
    pub command: String,
    /// Exit status; `None` if a signal ended the process.
    pub status: Option<i32>,
    /// Complete stdout.
    pub stdout: String,
    /// Complete stderr.
    pub stderr: String,
}

impl CommandOutput {
    /// Returns the output if the command succeeded.
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn ok(self) -> Result<Self> {
        self.status(0)
    }

    /// Returns the output if the command exited with `status`.
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn status(self, status: i32) -> Result<Self> {
        if self.status == Some(status) { Ok(self) } else { Err(self.unexpected(status)) }
    }

    /// Returns the output if stderr contains all `words`, ignoring case.
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn expect_stderr(self, words: &[&str]) -> Result<Self> {
        let stderr = self.stderr.to_lowercase();
        match words.iter().find(|word| !stderr.contains(&word.to_lowercase())) {
            None => Ok(self),
            Some(word) => Err(self.unexpected(format!("a message with {word:?}"))),
        }
    }

    /// Parses stdout as JSON.
    ///
    /// # Errors
    /// [`HarnessError::Command`] if stdout is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| self.clone().unexpected(format!("JSON ({error})")))
    }

    /// Parses stdout as one JSON object per line.
    ///
    /// # Errors
    /// [`HarnessError::Command`] if a line is not JSON.
    pub fn json_lines(&self) -> Result<Vec<serde_json::Value>> {
        self.stdout
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .map_err(|error| self.clone().unexpected(format!("JSON lines ({error})")))
    }

    fn unexpected(self, expected: impl ToString) -> HarnessError {
        HarnessError::Command {
            command: self.command,
            status: self.status.map_or("a signal".to_owned(), |status| status.to_string()),
            expected: expected.to_string(),
            stdout: truncate(self.stdout),
            stderr: truncate(self.stderr),
        }
    }
}

fn truncate(text: String) -> String {
    match text.char_indices().nth(4_000) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// Runs `binary args`, with stdin closed.
///
/// # Errors
/// If the command cannot be started or takes longer than four minutes.
pub async fn run(binary: &Path, args: &[&str], env: &[(String, String)]) -> Result<CommandOutput> {
    run_with_stdin(binary, args, env, Stdio::null()).await
}

/// Runs `binary args` with this stdin.
///
/// # Errors
/// If the command cannot be started or takes longer than four minutes.
pub async fn run_with_stdin(
    binary: &Path,
    args: &[&str],
    env: &[(String, String)],
    stdin: Stdio,
) -> Result<CommandOutput> {
    let command = args.join(" ");
    let child = Command::new(binary)
        .args(args)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(HarnessError::io(format!("start {} {command}", binary.display())))?;
    let output = tokio::time::timeout(LIMIT, child.wait_with_output())
        .await
        .map_err(|_| HarnessError::Timeout {
            what: format!("tidewater {command} ends"),
            limit: LIMIT,
            last: "still running".to_owned(),
        })?
        .map_err(HarnessError::io(format!("run {command}")))?;
    Ok(CommandOutput {
        command,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
