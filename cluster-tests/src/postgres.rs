//! A PostgreSQL server in a temporary directory, as the source of refreshable tables.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{HarnessError, Result, wait};

/// Password of the user `postgres`.
pub const PASSWORD: &str = "s3cr3t pass";
/// Time in which a server starts, also on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running server, which ends with the value.
#[derive(Debug)]
pub struct Postgres {
    _child: Child,
    dir: TempDir,
    bin: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts a server of the newest installed release.
    ///
    /// # Errors
    /// If none is installed, or it does not start.
    pub async fn start() -> Result<Self> {
        let bin = installed().ok_or_else(|| {
            HarnessError::violated("PostgreSQL is not installed: scripts/test installs it")
        })?;
        let account = account()?;
        let dir = tempfile::tempdir().map_err(HarnessError::io("create a directory"))?;
        let password = dir.path().join("password");
        fs::write(&password, PASSWORD).map_err(HarnessError::io("write a password"))?;
        let port = free_port()?;
        if let Some((user, group)) = account {
            for path in [dir.path(), &password] {
                let owned = chown(path, Some(user), Some(group));
                owned.map_err(HarnessError::io("change the owner of a file"))?;
            }
        }
        let command = |name: &str| {
            let mut command = std::process::Command::new(bin.join(name));
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command.arg("-D").arg(dir.path().join("data"));
            command
        };
        let created = Command::from(command("initdb"))
            .args(["--username=postgres", "--auth=scram-sha-256", "--pwfile=password"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .status()
            .await
            .map_err(HarnessError::io("run initdb"))?;
        if !created.success() {
            return Err(HarnessError::violated(format!("initdb ended with {created}")));
        }
        let child = Command::from(command("postgres"))
            .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off"])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io("start postgres"))?;
        let server = Self { _child: child, dir, bin, port };
        wait::until("PostgreSQL is ready", START_TIMEOUT, || async {
            server.query("select 1").await.map(drop).map_err(|error| error.to_string())
        })
        .await?;
        Ok(server)
    }

    /// Port of the server at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Directory that the server can read.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Runs statements as the administrator, and returns the values of the last one: fields separated by `|`, a line for
    /// each row.
    ///
    /// # Errors
    /// That of the statement.
    pub async fn query(&self, statements: &str) -> Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"])
            .args(["-d", "postgres", "-v", "ON_ERROR_STOP=1", "-q", "-t", "-A", "-c", statements])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(HarnessError::io("run psql"))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        let problem = String::from_utf8_lossy(&output.stderr);
        Err(HarnessError::violated(format!("{statements}: {problem}")))
    }
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(HarnessError::io("find a port"))?;
    Ok(listener.local_addr().map_err(HarnessError::io("find a port"))?.port())
}

/// Directory of the newest installed release.
fn installed() -> Option<PathBuf> {
    let releases = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = releases.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    bins.filter(|bin| bin.join("initdb").exists()).max()
}

/// User and group of the server: it does not run as root. `None`: those of the test.
fn account() -> Result<Option<(u32, u32)>> {
    let own = fs::metadata("/proc/self").map_err(HarnessError::io("read the own user"))?.uid();
    if own != 0 {
        return Ok(None);
    }
    let accounts = fs::read_to_string("/etc/passwd").map_err(HarnessError::io("read users"))?;
    let line = accounts.lines().find(|line| line.starts_with("postgres:")).unwrap_or_default();
    let ids: Vec<u32> = line.split(':').skip(2).take(2).filter_map(|id| id.parse().ok()).collect();
    match ids[..] {
        [user, group] => Ok(Some((user, group))),
        _ => Err(HarnessError::violated("there is no user `postgres`")),
    }
}
