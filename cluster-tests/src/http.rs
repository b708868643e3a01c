//! One HTTP request over a plain socket: control addresses and metrics need no more.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{HarnessError, Result};

/// An answer may wait behind a request that is being carried out.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends a request without body and gives the answer's body.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let what = format!("{method} {path} at {address}");
    let answer = tokio::time::timeout(LIMIT, exchange(address, method, path))
        .await
        .map_err(|_| HarnessError::violated(format!("{what}: no answer within {LIMIT:?}")))?
        .map_err(HarnessError::io(what.clone()))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => Err(HarnessError::violated(format!("{what}: {answer}"))),
    }
}

async fn exchange(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
