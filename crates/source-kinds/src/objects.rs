//! The source kinds `parquet`, `csv` and `ndjson`: all objects of a format below a prefix.
//!
//! Configuration: `{"url": "s3://bucket/prefix", "endpoint": "https://host:port", "allow_http": false, "region": "..",
//! "credentials_file": "/absolute/path", "account": "..", "delimiter": ";", "nulls": ["NA"]}`; only the URL is required,
//! and `account`, the name of the storage account, for `az://`. The URL is `file:///absolute/directory`, `s3://`, `gs://`
//! or `az://`. `endpoint` and `allow_http` are for remote stores, `region` and `credentials_file` for S3, `delimiter` and
//! `nulls` for CSV.
//!
//! Without a credentials file, requests are anonymous: the environment of a node has the credentials of the cluster's own
//! store, which no source uses. The file is below the node's secret directory, and has the lines `access_key_id=..`,
//! `secret_access_key=..`, `bucket=..` and, if the source has an endpoint, `endpoint=..`: keys are for one bucket (`*`: all)
//! of one server. Local directories are below the node's source directory.
//!
//! # Terms
//!
//! - **Prefix**: what the URL names. An object belongs to the source if it is below the prefix and has an
//!   extension of the format, and no part of its name below the prefix begins with `_` or `.`.
//! - **Pin**: what identifies the content of an object: its size, with its entity tag and version if the
//!   store has them, otherwise with the time of its last change.
//! - **Spool**: a remote object as a temporary file without a name, during its read.
//!
//! # Layout
//!
//! - `format`: formats, and the objects that belong to them (pure). `config`: configurations (pure).
//!   `pin`: pins (pure). `listing`: listings (pure). `access_keys`: files of credentials (pure).
//! - `store`: opens a remote store. `client`: sends requests to it. `store_error`: its errors, for people. `remote`: lists
//!   and fetches objects. `spool`: temporary files.
//! - `local`: lists and opens files. `rows`: reads a file's rows.

mod access_keys;
mod client;
mod config;
mod format;
mod listing;
mod local;
mod pin;
mod remote;
mod rows;
mod spool;
mod store;
mod store_error;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde_json::Value;

use self::config::ObjectsConfig;
pub(crate) use self::config::Place;
use self::format::ObjectFormat;
use self::local::LocalObjects;
use self::remote::RemoteObjects;
pub(crate) use self::remote::TIMEOUT;
use self::rows::RowReader;
use self::spool::Spool;
pub(crate) use self::store::open as open_store;
pub(crate) use self::store_error::store_error;
use crate::{
    Listing, RowSender, Source, SourceAccess, SourceError, SourceKind, SourceTable, Split,
};

/// A source kind for the objects of one format.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    /// Format of the objects.
    pub(crate) format: ObjectFormat,
    /// Permissions of sources on this node.
    pub(crate) access: SourceAccess,
    /// Directory of temporary files. It is created when it is used.
    pub(crate) spool_dir: PathBuf,
}

impl Objects {
    /// Returns the kinds of all formats.
    pub(crate) fn all(access: &SourceAccess, spool_dir: &Path) -> [Self; 3] {
        [ObjectFormat::Parquet, ObjectFormat::Csv, ObjectFormat::Ndjson].map(|format| Self {
            format,
            access: access.clone(),
            spool_dir: spool_dir.to_owned(),
        })
    }
}

#[async_trait]
impl SourceKind for Objects {
    fn kind(&self) -> &'static str {
        self.format.kind()
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        ObjectsConfig::read(config, self.format).map(drop)
    }

    fn server(&self, config: &Value) -> String {
        let kind = self.kind();
        match ObjectsConfig::read(config, self.format).map(|config| config.place) {
            Ok(Place::Local(directory)) => {
                // Without a slash at its end.
                let directory: PathBuf = directory.components().collect();
                format!("{kind} file://{}", directory.display())
            }
            Ok(Place::Remote(location)) => location.server(),
            Err(_) => kind.to_owned(),
        }
    }

    async fn open(
        &self,
        config: &Value,
        table: SourceTable,
    ) -> Result<Box<dyn Source>, SourceError> {
        let config = ObjectsConfig::read(config, self.format).map_err(SourceError::BadConfig)?;
        let reader = RowReader {
            format: self.format,
            table,
            delimiter: config.delimiter,
            nulls: config.nulls.into(),
        };
        let place = match config.place {
            Place::Local(directory) => {
                self.access.source_dir()?;
                let access = self.access.clone();
                ObjectPlace::Local(LocalObjects { access, directory, format: self.format })
            }
            Place::Remote(location) => {
                let access = self.access.clone();
                let name = location.url.clone();
                let store = blocking(move || store::open(&location, &access)).await?;
                let spool = Spool::new(self.spool_dir.clone(), self.access.free_bytes());
                ObjectPlace::Remote(RemoteObjects { store, name, format: self.format, spool })
            }
        };
        Ok(Box::new(ObjectsSource { place, reader }))
    }
}

/// Place of the objects of a source.
enum ObjectPlace {
    Local(LocalObjects),
    Remote(RemoteObjects),
}

/// An opened source of objects.
struct ObjectsSource {
    place: ObjectPlace,
    reader: RowReader,
}

#[async_trait]
impl Source for ObjectsSource {
    async fn list(&self) -> Result<Listing, SourceError> {
        match &self.place {
            ObjectPlace::Local(local) => {
                let local = local.clone();
                blocking(move || local.list()).await
            }
            ObjectPlace::Remote(remote) => remote.list().await,
        }
    }

    async fn read(&self, split: &Split, rows: RowSender) -> Result<(), SourceError> {
        let split = split.clone();
        let reader = self.reader.clone();
        match &self.place {
            ObjectPlace::Local(local) => {
                let local = local.clone();
                blocking(move || {
                    let file = local.open(&split)?;
                    let read = reader.read(&file, &split, &rows);
                    if rows.is_closed() {
                        return Ok(());
                    }
                    // An error in rows of a file that has changed is not one of the listed file.
                    local.check(&file, &split)?;
                    read
                })
                .await
            }
            ObjectPlace::Remote(remote) => {
                let file = remote.fetch(&split).await?;
                blocking(move || reader.read(&file, &split, &rows)).await
            }
        }
    }
}

/// Runs blocking work outside of the asynchronous runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(SourceError::Unreadable(format!("the read was aborted: {error}"))),
    }
}

#[cfg(test)]
mod tests;
