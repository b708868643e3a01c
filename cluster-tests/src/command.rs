//! Runs a client command of the binary and keeps what it said.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::{HarnessError, Result};

/// No client command of a scenario may take longer.
const LIMIT: Duration = Duration::from_secs(240);

/// What a command said.
#[derive(Debug, Clone)]
pub struct Said {
    /// The arguments, joined.
    pub command: String,
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Said {
    /// The same, when the command succeeded.
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn ok(self) -> Result<Self> {
        self.status(0)
    }

    /// The same, when the command ended with `status`.
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn status(self, status: i32) -> Result<Self> {
        if self.status == Some(status) { Ok(self) } else { Err(self.unexpected(status)) }
    }

    /// The same, when stderr contains all of `words` (in any case).
    ///
    /// # Errors
    /// [`HarnessError::Command`] otherwise.
    pub fn complains(self, words: &[&str]) -> Result<Self> {
        let stderr = self.stderr.to_lowercase();
        match words.iter().find(|word| !stderr.contains(&word.to_lowercase())) {
            None => Ok(self),
            Some(word) => Err(self.unexpected(format!("a message with {word:?}"))),
        }
    }

    /// stdout as JSON.
    ///
    /// # Errors
    /// [`HarnessError::Command`] when it is not JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.stdout)
            .map_err(|error| self.clone().unexpected(format!("JSON ({error})")))
    }

    /// stdout as one JSON object a line.
    ///
    /// # Errors
    /// [`HarnessError::Command`] when a line is not JSON.
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
            stdout: cut(self.stdout),
            stderr: cut(self.stderr),
        }
    }
}

fn cut(text: String) -> String {
    match text.char_indices().nth(4_000) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

/// Runs `binary args`, with stdin closed.
///
/// # Errors
/// When it cannot be started or takes longer than four minutes.
pub async fn run(binary: &Path, args: &[&str], env: &[(String, String)]) -> Result<Said> {
    let command = args.join(" ");
    let child = Command::new(binary)
        .args(args)
        .envs(env.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
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
    Ok(Said {
        command,
        status: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
