//! A server of PostgreSQL in a temporary directory.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidewater_common::granted_dirs::DirectoryGrants;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_postgres::{Client, NoTls};

use super::super::testing::source_table;
use super::super::{Postgres, SPLIT};
use crate::{Listing, Source, SourceAccess, SourceError, SourceHosts, SourceKind, Split};

pub(super) const PASSWORD: &str = "s3cr3t pass";

/// Time in which a server starts, also on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Time in which it ends.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// A running server, which ends with the value.
pub(super) struct TestServer {
    child: Child,
    dir: TempDir,
    port: u16,
}

/// Columns of a table: name, type, and whether it may be null. The first is the key.
pub(super) type Columns<'a> = &'a [(&'a str, &'a str, bool)];

impl TestServer {
    /// Starts a server.
    pub(super) async fn start() -> Self {
        let bin = installed().expect("PostgreSQL is installed: scripts/test does it");
        let account = account();
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let secrets = dir.path().join("secrets");
        fs::create_dir(&secrets).unwrap();
        let passwords =
            ["127.0.0.1", "nowhere.invalid"].map(|host| format!("{host}:*:*:*:{PASSWORD}\n"));
        fs::write(secrets.join("password"), passwords.concat()).unwrap();
        fs::write(secrets.join("wrong"), "127.0.0.1:*:*:*:wrong").unwrap();
        fs::write(secrets.join("plain"), PASSWORD).unwrap();
        fs::write(secrets.join("other"), format!("db.example.org:*:*:*:{PASSWORD}")).unwrap();
        certificate(dir.path());
        if let Some((user, group)) = account {
            for path in ["", "secrets", "secrets/plain", "key.pem", "certificate.pem"] {
                chown(dir.path().join(path), Some(user), Some(group)).unwrap();
            }
        }
        let command = |name: &str| {
            let mut command = Command::new(bin.join(name));
            command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((user, group)) = account {
                command.uid(user).gid(group);
            }
            command.arg("-D").arg(&data);
            command
        };
        let created = command("initdb")
            .args(["--username=postgres", "--auth=scram-sha-256", "--pwfile=secrets/plain"])
            .args(["--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"])
            .status()
            .unwrap();
        assert!(created.success(), "initdb failed");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // In the file, so that a test can change it while the server runs.
        let settings = data.join("postgresql.conf");
        let mut settings = fs::OpenOptions::new().append(true).open(settings).unwrap();
        writeln!(settings, "ssl = on").unwrap();
        for (name, file) in [("ssl_cert_file", "certificate.pem"), ("ssl_key_file", "key.pem")] {
            writeln!(settings, "{name} = '{}'", dir.path().join(file).display()).unwrap();
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let child = command("postgres")
            .arg("-p")
            .arg(port.to_string())
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .args(["-c", "fsync=off", "-c", "max_connections=20"])
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { child, dir, port };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        while self.connect().await.is_err() {
            let log = || fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < START_TIMEOUT, "the server does not start: {}", log());
            assert!(self.child.try_wait().unwrap().is_none(), "the server has ended: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn connect(&self) -> Result<Client, Box<dyn std::error::Error>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let mut config = tokio_postgres::Config::new();
        config.user("postgres").dbname("postgres").password(PASSWORD);
        config.ssl_mode(tokio_postgres::config::SslMode::Disable);
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs statements as the administrator.
    pub(super) async fn execute(&self, statements: &str) {
        let client = self.connect().await.unwrap();
        client.batch_execute(statements).await.unwrap_or_else(|e| panic!("{statements}: {e:?}"));
    }

    /// Returns the configuration of a source with this query.
    pub(super) fn config(&self, query: &str) -> Value {
        json!({
            "host": "127.0.0.1",
            "port": self.port,
            "database": "postgres",
            "user": "postgres",
            "password_file": self.dir.path().join("secrets/password"),
            "query": query,
        })
    }

    /// Path of a file of passwords.
    pub(super) fn secret(&self, name: &str) -> PathBuf {
        self.dir.path().join("secrets").join(name)
    }

    /// Lets the server request the password of a role in cleartext. It reads the file a little later.
    pub(super) async fn request_cleartext(&self, role: &str) {
        let file = self.dir.path().join("data/pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("host all {role} 127.0.0.1/32 password\n{rules}")).unwrap();
        self.execute("SELECT pg_reload_conf()").await;
    }

    /// Opens a source on a node that permits loopback addresses.
    pub(super) async fn open(&self, config: Value, columns: Columns<'_>) -> Box<dyn Source> {
        let hosts = SourceHosts::new(vec!["127.0.0.0/8".parse().unwrap()]);
        self.open_on(hosts, config, columns).await
    }

    /// Opens a source on a node that permits these hosts.
    pub(super) async fn open_on(
        &self,
        hosts: SourceHosts,
        config: Value,
        columns: Columns<'_>,
    ) -> Box<dyn Source> {
        let secrets = self.dir.path().join("secrets");
        let mut grants = DirectoryGrants::new(&[]);
        let access = SourceAccess::new(None, Some(&secrets), &mut grants).unwrap();
        let kind = Postgres { access: access.with_hosts(hosts) };
        kind.check(&config).unwrap();
        kind.open(&config, source_table(columns)).await.unwrap()
    }

    /// Lists the source of a query.
    pub(super) async fn list(
        &self,
        query: &str,
        columns: Columns<'_>,
    ) -> Result<Listing, SourceError> {
        self.open(self.config(query), columns).await.list().await
    }

    /// Reads all rows of a query.
    pub(super) async fn read(
        &self,
        query: &str,
        columns: Columns<'_>,
    ) -> Result<Vec<RecordBatch>, SourceError> {
        read_all(self.open(self.config(query), columns).await).await
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &id]).status();
        let begun = Instant::now();
        while begun.elapsed() < END_TIMEOUT {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Split of each listing.
pub(super) fn split() -> Split {
    Split { name: SPLIT.to_owned(), pin: Default::default(), bytes: 0 }
}

/// Reads all rows of a source.
pub(super) async fn read_all(source: Box<dyn Source>) -> Result<Vec<RecordBatch>, SourceError> {
    let (sender, mut receiver) = mpsc::channel(2);
    let reading = tokio::spawn(async move { source.read(&split(), sender).await });
    let mut batches = Vec::new();
    while let Some(batch) = receiver.recv().await {
        batches.push(batch);
    }
    reading.await.unwrap().map(|()| batches)
}

/// Directory of the newest installed release.
fn installed() -> Option<PathBuf> {
    let releases = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = releases.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    bins.filter(|bin| bin.join("initdb").exists()).max()
}

/// User and group of the server: it does not run as root. `None`: those of the test.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let line = accounts.lines().find(|line| line.starts_with("postgres:")).unwrap();
    let ids: Vec<u32> = line.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
    Some((ids[0], ids[1]))
}

/// Creates a certificate that the server signs itself.
fn certificate(dir: &Path) {
    let created = Command::new("openssl")
        .current_dir(dir)
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-keyout", "key.pem", "-out", "certificate.pem"])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(created.success(), "openssl failed");
    fs::set_permissions(dir.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}
