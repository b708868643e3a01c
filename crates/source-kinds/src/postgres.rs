//! The `postgres` source kind: the rows that a query returns.
//!
//! Configuration: `{"host": "db.example.org", "port": 5432, "database": "shop", "user": "reader", "password_file":
//! "/absolute/path", "query": "SELECT ...", "connect_timeout_s": 10, "statement_timeout_s": 0, "sslmode": "prefer"}`.
//! Only host, database, user and query are required. The query is one statement `SELECT`, `TABLE`, `VALUES` or `WITH`.
//! Its columns match those of the table by name; a column that it lacks is null.
//!
//! The password is in a file on each node that reads the source, so that no record of the cluster contains it. A line of
//! the file names the server that the password is for. It is never sent in cleartext to a server that is not verified.
//!
//! # Pinned content
//!
//! A listing has one split, `query`, whose pin is empty. Its read is one transaction, read only and repeatable: it sees
//! the database as it is when the query begins, and no later change. PostgreSQL drops a snapshot with the transaction
//! that has it, and a transaction with its connection, so that no snapshot of the listing could outlive it. A repeated
//! read therefore sees the database of its own time. One read is consistent in itself, and a refresh takes all rows
//! from one read.
//!
//! # Layout
//!
//! - `config`, `query`: the configuration and its statement (pure). `passwords`: files of passwords (pure). `transport`:
//!   the connection and the limits of its messages. `session`: the transaction. `error`: errors of the server, for people.
//! - `copy_format`: rows of the binary format (pure). `columns`: columns of query and table (pure). `values`: fields as
//!   values of columns (pure). `batches`: batches from rows (pure).

mod batches;
mod columns;
mod config;
mod copy_format;
mod error;
mod passwords;
mod query;
mod session;
#[cfg(test)]
mod testing;
mod transport;
mod values;

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde_json::Value;

use self::batches::BatchBuilder;
use self::columns::match_columns;
use self::config::PostgresConfig;
use self::error::ServerPlace;
use self::passwords::find_password;
use self::session::Session;
use crate::{
    Listing, RowSender, Source, SourceAccess, SourceError, SourceKind, SourceTable, Split,
};

/// Name of the split of each listing.
const SPLIT: &str = "query";

/// The `postgres` source kind.
#[derive(Debug, Clone)]
pub(crate) struct Postgres {
    /// Permissions of sources on this node.
    pub(crate) access: SourceAccess,
}

#[async_trait]
impl SourceKind for Postgres {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn check(&self, config: &Value) -> Result<(), String> {
        PostgresConfig::read(config).map(|_| ())
    }

    fn server(&self, config: &Value) -> String {
        PostgresConfig::read(config)
            .map_or_else(|_| self.kind().to_owned(), |config| config.server())
    }

    async fn open(
        &self,
        config: &Value,
        table: SourceTable,
    ) -> Result<Box<dyn Source>, SourceError> {
        let config = PostgresConfig::read(config).map_err(SourceError::BadConfig)?;
        Ok(Box::new(PostgresSource { access: self.access.clone(), config, table }))
    }
}

struct PostgresSource {
    access: SourceAccess,
    config: PostgresConfig,
    table: SourceTable,
}

#[async_trait]
impl Source for PostgresSource {
    async fn list(&self) -> Result<Listing, SourceError> {
        let mut session = self.begin().await?;
        self.prepare(&mut session).await?;
        session.check_rights(&self.config.query).await?;
        let snapshot =
            format!("PostgreSQL {}, database {:?}", session.version(), self.config.database);
        let split = Split { name: SPLIT.to_owned(), pin: BTreeMap::new(), bytes: 0 };
        Ok(Listing { snapshot, splits: vec![split] })
    }

    async fn read(&self, split: &Split, rows: RowSender) -> Result<(), SourceError> {
        if split.name != SPLIT {
            return Err(SourceError::Changed(format!(
                "a PostgreSQL source has no split {:?}: list it again",
                tidewater_common::quote::cut(&split.name)
            )));
        }
        tokio::select! {
            biased;
            result = Box::pin(self.send_rows(&rows)) => result,
            // Without this, a query that computes its first row for an hour would keep its connection.
            () = rows.closed() => Ok(()),
        }
    }
}

impl PostgresSource {
    async fn begin(&self) -> Result<Session, SourceError> {
        let password = self.password().await?;
        Session::begin(&self.config, self.access.hosts(), password.as_deref()).await
    }

    /// Reads the password for the server; `None` if the configuration names no file.
    async fn password(&self) -> Result<Option<String>, SourceError> {
        let Some(path) = self.config.password_file.clone() else { return Ok(None) };
        let file = format!("password_file {}", path.display());
        let access = self.access.clone();
        let reading = tokio::task::spawn_blocking(move || access.read_secret(&path));
        let text = reading
            .await
            .map_err(|error| SourceError::Unreadable(format!("{file} was not read: {error}")))??;
        find_password(&text, &self.config)
            .map(Some)
            .map_err(|error| SourceError::NotPermitted(format!("{file}: {error}")))
    }

    /// Returns the number of columns of the query, and the builder of batches from its rows.
    async fn prepare(&self, session: &mut Session) -> Result<(usize, BatchBuilder), SourceError> {
        let columns = session.columns(&self.config.query).await?;
        let sources = match_columns(&self.table.schema, &columns).map_err(|problems| {
            SourceError::Mismatch(format!("{}: {problems}", ServerPlace::from(&self.config)))
        })?;
        Ok((columns.len(), BatchBuilder::new(self.table.schema.clone(), sources)))
    }

    async fn send_rows(&self, rows: &RowSender) -> Result<(), SourceError> {
        let mut session = self.begin().await?;
        let (fields, batches) = self.prepare(&mut session).await?;
        session.send_rows(&self.config.query, fields, batches, rows).await
    }
}

#[cfg(test)]
mod tests;
