//! S3 endpoint with fault injection: `s3/server.py` as a child process.

mod fault;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

pub use fault::{Fault, Mode};

use crate::{HarnessError, Result, http};

const BUCKET: &str = "tidewater";
const START_WITHIN: Duration = Duration::from_secs(60);

/// A running endpoint with one bucket and its objects in memory; stops when dropped.
#[derive(Debug)]
pub struct S3Endpoint {
    port: u16,
    _child: Child,
}

impl S3Endpoint {
    /// Starts the endpoint on a port chosen by the system.
    ///
    /// # Errors
    /// If the Python environment is missing or the server does not start.
    pub async fn start(log: &Path) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("s3/server.py");
        let log = std::fs::File::create(log)
            .map_err(HarnessError::io(format!("create {}", log.display())))?;
        let mut child = Command::new(python()?)
            .arg(&script)
            .args(["127.0.0.1", BUCKET])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(HarnessError::io(format!("start {}", script.display())))?;
        let Some(stdout) = child.stdout.take() else {
            return Err(HarnessError::violated("the S3 endpoint has no stdout"));
        };
        let mut line = String::new();
        let mut stdout = BufReader::new(stdout);
        tokio::time::timeout(START_WITHIN, stdout.read_line(&mut line))
            .await
            .map_err(|_| HarnessError::violated("the S3 endpoint did not start in time"))?
            .map_err(HarnessError::io("read from the S3 endpoint"))?;
        let port = line
            .strip_prefix("ready ")
            .and_then(|port| port.trim().parse().ok())
            .ok_or_else(|| HarnessError::violated(format!("the S3 endpoint printed {line:?}")))?;
        Ok(Self { port, _child: child })
    }

    /// Returns the object store URL of a prefix in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{BUCKET}/{prefix}")
    }

    /// Returns the environment that connects a node to the endpoint. The name of the node is its access
    /// key, so that a fault can affect it alone.
    pub fn env(&self, node: &str) -> Vec<(String, String)> {
        [
            ("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port).as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", node),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Injects a fault, which replaces the current one.
    ///
    /// # Errors
    /// If the endpoint does not answer.
    pub async fn inject(&self, fault: Fault) -> Result<()> {
        http::request(self.address(), "POST", &fault.path()).await.map(drop)
    }

    /// Removes the current fault.
    ///
    /// # Errors
    /// If the endpoint does not answer.
    pub async fn heal(&self) -> Result<()> {
        self.inject(Fault::new(Mode::None)).await
    }

    /// Returns the number of requests affected by the current fault.
    ///
    /// # Errors
    /// If the endpoint does not answer.
    pub async fn hits(&self) -> Result<u64> {
        let body = http::request(self.address(), "GET", "/_hits").await?;
        body.trim()
            .parse()
            .map_err(|_| HarnessError::violated(format!("the S3 endpoint responded with {body:?}")))
    }
}

/// Returns the Python interpreter with `moto` that `scripts/lib/python.sh` installs.
///
/// # Errors
/// [`HarnessError::Missing`] if there is no interpreter.
pub fn python() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_default();
    let path = std::env::var_os("TIDEWATER_PYTHON")
        .map_or_else(|| cache.join("tidewater/venv/bin/python"), PathBuf::from);
    if path.exists() {
        Ok(path)
    } else {
        Err(HarnessError::Missing {
            what: format!(
                "no Python at {}: run scripts/lib/python.sh, or set TIDEWATER_PYTHON to one that \
                 has moto[server]",
                path.display()
            ),
        })
    }
}
