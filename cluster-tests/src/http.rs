//! Minimal HTTP client over a plain socket, for control URLs and metrics.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{HarnessError, Result};

/// Limit for one request, which may wait for a request in progress.
const LIMIT: Duration = Duration::from_secs(20);

/// Sends a request without a body and returns the body of the response.
pub(crate) async fn request(address: SocketAddr, method: &str, path: &str) -> Result<String> {
    let what = format!("{method} {path} at {address}");
    let answer = tokio::time::timeout(LIMIT, exchange(address, method, path))
        .await
        .map_err(|_| HarnessError::violated(format!("{what}: no response within {LIMIT:?}")))?
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
