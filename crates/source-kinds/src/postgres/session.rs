//! One transaction on a server.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, Connection, Error, NoTls};

use super::batches::{BatchBuilder, RowError};
use super::columns::QueryColumn;
use super::config::PostgresConfig;
use super::copy_format::CopyDecoder;
use super::error::ServerPlace;
use super::transport::{self, Transport, TransportError};
use crate::SourceError;
use crate::hosts::{HostError, SourceHosts};

/// A server that runs a long query notices a closed connection within this time, not when it sends the first row.
/// Servers before version 14 and on some systems reject the setting.
const NOTICE_CLOSED: &str = "SET client_connection_check_interval = '2s'";

/// Text before the query in the statement that sends its rows.
const COPY_BEGIN: &str = "COPY (\n";
/// Text after it. The line break ends a comment at the end of the query.
const COPY_END: &str = "\n) TO STDOUT (FORMAT binary)";
/// Text before the query in the statement that checks it.
const EXPLAIN_BEGIN: &str = "EXPLAIN (COSTS OFF)\n";

/// An open connection, with a transaction.
pub(super) struct Session {
    client: Client,
    link: Link,
    place: ServerPlace,
    /// Version of the server, as it reports it.
    version: String,
}

impl Session {
    /// Connects to an address that `hosts` permits, and begins the transaction.
    ///
    /// # Errors
    /// [`SourceError::Unreadable`] and [`SourceError::NotPermitted`] have the server, the problem and the remedy.
    pub(super) async fn begin(
        config: &PostgresConfig,
        hosts: &SourceHosts,
        password: Option<&str>,
    ) -> Result<Self, SourceError> {
        let place = ServerPlace::from(config);
        let login = Box::pin(log_in(config, hosts, password, &place));
        let mut session = match tokio::time::timeout(config.connect_timeout, login).await {
            Ok(session) => session?,
            Err(_) => {
                let seconds = config.connect_timeout.as_secs();
                return Err(place.unreachable(format!("no connection within {seconds} s")));
            }
        };
        let Self { client, link, .. } = &mut session;
        // A lost connection is reported by the next statement.
        let _ = link.run(client.batch_execute(NOTICE_CLOSED)).await;
        let begin = begin_statements(config.statement_timeout);
        let begun = link.run(client.batch_execute(&begin)).await;
        begun.map_err(|error| place.statement_error(link.cause(&error), 0))?;
        Ok(session)
    }

    /// Version of the server, for people.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Returns the columns of a query.
    ///
    /// # Errors
    /// [`SourceError`] has PostgreSQL's message and its position in the query.
    pub(super) async fn columns(&mut self, query: &str) -> Result<Vec<QueryColumn>, SourceError> {
        let prepared = self.link.run(self.client.prepare(query)).await;
        let statement =
            prepared.map_err(|error| self.place.statement_error(self.link.cause(&error), 0))?;
        if !statement.params().is_empty() {
            return Err(SourceError::BadConfig(format!(
                "{}: the query has parameters such as $1: replace them by values",
                self.place
            )));
        }
        let column = |column: &tokio_postgres::Column| QueryColumn {
            name: column.name().to_owned(),
            data_type: column.type_().clone(),
        };
        Ok(statement.columns().iter().map(column).collect())
    }

    /// Checks the rights that a query needs: the server does so when it begins to run the query.
    ///
    /// # Errors
    /// As [`columns`](Self::columns).
    pub(super) async fn check_rights(&mut self, query: &str) -> Result<(), SourceError> {
        let explain = format!("{EXPLAIN_BEGIN}{query}");
        let explained = self.link.run(self.client.query(&explain, &[])).await;
        explained.map(|_| ()).map_err(|error| {
            self.place.statement_error(self.link.cause(&error), EXPLAIN_BEGIN.len())
        })
    }

    /// Sends the rows of a query as batches, and ends the transaction. Ends early without an error if the receiver is
    /// closed. `fields` is the number of columns of the query.
    ///
    /// # Errors
    /// [`SourceError`] has PostgreSQL's message, or names the column and row that does not fit.
    pub(super) async fn send_rows(
        self,
        query: &str,
        fields: usize,
        batches: BatchBuilder,
        rows: &mpsc::Sender<RecordBatch>,
    ) -> Result<(), SourceError> {
        let Self { client, mut link, place, .. } = self;
        let result = link.run(copy_rows(&client, query, fields, batches, rows)).await;
        match result {
            Ok(()) | Err(CopyFailure::ReceiverClosed) => Ok(()),
            Err(CopyFailure::Row(RowError::Damaged(problem))) => Err(place.damaged(problem)),
            Err(CopyFailure::Row(RowError::Mismatch(problem))) => {
                Err(SourceError::Mismatch(format!("{place}: {problem}")))
            }
            Err(CopyFailure::Sql(error)) => {
                Err(place.statement_error(link.cause(&error), COPY_BEGIN.len()))
            }
        }
    }
}

#[derive(Debug)]
enum CopyFailure {
    Sql(Error),
    Row(RowError),
    ReceiverClosed,
}

impl From<Error> for CopyFailure {
    fn from(error: Error) -> Self {
        Self::Sql(error)
    }
}

impl From<RowError> for CopyFailure {
    fn from(error: RowError) -> Self {
        Self::Row(error)
    }
}

async fn copy_rows(
    client: &Client,
    query: &str,
    fields: usize,
    mut batches: BatchBuilder,
    rows: &mpsc::Sender<RecordBatch>,
) -> Result<(), CopyFailure> {
    let statement = format!("{COPY_BEGIN}{query}{COPY_END}");
    let mut chunks = pin!(client.copy_out(&statement).await?);
    let mut decoder = CopyDecoder::new(fields);
    while let Some(chunk) = chunks.next().await {
        decoder.decode(&chunk?, |row| batches.append(row))?;
        if batches.is_full() {
            send(&mut batches, rows).await?;
        }
    }
    decoder.finish().map_err(RowError::from)?;
    send(&mut batches, rows).await?;
    // A server that fails after the last row reports it here.
    client.batch_execute("COMMIT").await?;
    Ok(())
}

async fn send(
    batches: &mut BatchBuilder,
    rows: &mpsc::Sender<RecordBatch>,
) -> Result<(), CopyFailure> {
    let Some(batch) = batches.finish()? else { return Ok(()) };
    rows.send(batch).await.map_err(|_| CopyFailure::ReceiverClosed)
}

fn begin_statements(statement_timeout: Duration) -> String {
    format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
         SET LOCAL statement_timeout = {}; \
         SET LOCAL client_min_messages = error",
        statement_timeout.as_millis()
    )
}

async fn log_in(
    config: &PostgresConfig,
    hosts: &SourceHosts,
    password: Option<&str>,
    place: &ServerPlace,
) -> Result<Session, SourceError> {
    let opened = transport::open(config, hosts).await;
    let transport = opened.map_err(|error| match error {
        TransportError::Host(HostError::Refused(refused)) => place.not_permitted(refused),
        error => place.unreachable(error),
    })?;
    let mut login = Config::new();
    login.user(&config.user).dbname(&config.database).application_name("tidewater");
    // The transport is encrypted already, if at all.
    login.ssl_mode(SslMode::Disable).channel_binding(ChannelBinding::Disable);
    if let Some(password) = password {
        login.password(password);
    }
    let (client, connection) =
        login.connect_raw(transport, NoTls).await.map_err(|error| place.login_error(&error))?;
    let version = connection.parameter("server_version").unwrap_or("of unknown version").to_owned();
    let link = Link { connection: Some(connection), end: None };
    Ok(Session { client, link, place: place.clone(), version })
}

/// The half of a connection that moves bytes. It works while a statement waits, without a task of its own: a dropped
/// read closes the connection.
struct Link {
    /// `None`: the connection has ended.
    connection: Option<Connection<Transport, NoTlsStream>>,
    /// The error that ended it.
    end: Option<Error>,
}

impl Link {
    async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            loop {
                if let Poll::Ready(output) = work.as_mut().poll(cx) {
                    return Poll::Ready(output);
                }
                // The end of the connection fails the work, which has yet to notice it.
                if self.connection.is_none() || self.poll_connection(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await
    }

    /// Returns the error that ended the connection, if that made a statement fail.
    fn cause<'a>(&'a self, error: &'a Error) -> &'a Error {
        self.end.as_ref().filter(|_| error.is_closed()).unwrap_or(error)
    }

    /// Ready: the connection has ended.
    fn poll_connection(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(connection) = &mut self.connection else { return Poll::Ready(()) };
        loop {
            match connection.poll_message(cx) {
                Poll::Pending => return Poll::Pending,
                // Notices of the server, which no component needs.
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(error))) => {
                    self.end = Some(error);
                    break;
                }
                Poll::Ready(None) => break,
            }
        }
        self.connection = None;
        Poll::Ready(())
    }
}
