//! Connections to a server: TCP to a permitted address, and TLS as configured.

mod frames;
mod tls;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::frames::LimitedStream;
pub(super) use self::frames::{FrameError, MAX_MESSAGE_BYTES};
use self::tls::{TlsError, client_config};
use super::config::{PostgresConfig, SslMode};
use crate::hosts::{HostError, SourceHosts};

/// Request of TLS, which precedes all messages: its length and a code.
const TLS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// A connection without an answer of the peer fails after about two minutes. A read without a statement timeout
/// would otherwise wait for a server that has lost its network.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Reason why a connection cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransportError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the server does not offer TLS")]
    TlsNotOffered,
    #[error("the server answers the request of TLS with the byte {0:#x}")]
    UnknownAnswer(u8),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// A connection.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Connection for S {}

/// A connection whose messages are limited.
pub(super) type Transport = LimitedStream<Box<dyn Connection>>;

/// Opens a connection to an address that `hosts` permits. The caller has a timeout. A server whose certificate is not
/// verified cannot request the password itself.
pub(super) async fn open(
    config: &PostgresConfig,
    hosts: &SourceHosts,
) -> Result<Transport, TransportError> {
    // The connection goes to an address that was checked: the name may have another one a moment later.
    let addresses = hosts.resolve(&config.host, config.port).await?;
    let mut stream = TcpStream::connect(addresses.as_slice()).await?;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    if config.sslmode == SslMode::Disable || !is_tls_offered(&mut stream).await? {
        if matches!(config.sslmode, SslMode::Require | SslMode::VerifyFull) {
            return Err(TransportError::TlsNotOffered);
        }
        return Ok(LimitedStream::new(Box::new(stream), false));
    }
    let is_verified = config.sslmode == SslMode::VerifyFull;
    let tls = client_config(is_verified).await?;
    let name = match ServerName::try_from(config.host.clone()) {
        Ok(name) => name,
        Err(_) if is_verified => {
            return Err(TlsError::NotAName(config.host.clone()).into());
        }
        // Names of containers and of private networks have characters that certificates do not allow.
        Err(_) => ServerName::from(stream.peer_addr()?.ip()),
    };
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await?;
    Ok(LimitedStream::new(Box::new(stream), is_verified))
}

/// Requests TLS. Reads one byte only: bytes after it would not be encrypted.
async fn is_tls_offered(stream: &mut TcpStream) -> Result<bool, TransportError> {
    stream.write_all(&TLS_REQUEST).await?;
    match stream.read_u8().await? {
        b'S' => Ok(true),
        b'N' => Ok(false),
        other => Err(TransportError::UnknownAnswer(other)),
    }
}
