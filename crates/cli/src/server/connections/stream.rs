//! A socket that reports its end when the connection is idle.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tonic::transport::server::Connected;

use super::calls::{CallActivity, ConnectionInfo};
use super::limits::{ConnectionTimes, NextStep, next_step};
use super::table::ConnectionSlot;

/// An accepted socket with its place among the connections of the process.
#[derive(Debug)]
pub(crate) struct LimitedStream {
    socket: TcpStream,
    info: ConnectionInfo,
    opened: Instant,
    last_byte: Instant,
    bytes_read: u64,
    decide: Pin<Box<Sleep>>,
    _slot: ConnectionSlot,
}

impl LimitedStream {
    pub(super) fn new(socket: TcpStream, peer: SocketAddr, slot: ConnectionSlot) -> Self {
        let now = Instant::now();
        let info =
            ConnectionInfo { local: socket.local_addr().ok(), peer, calls: CallActivity::new(now) };
        Self {
            socket,
            info,
            opened: now,
            last_byte: now,
            bytes_read: 0,
            decide: Box::pin(sleep(Duration::ZERO)),
            _slot: slot,
        }
    }

    fn times(&self, now: Instant) -> ConnectionTimes {
        ConnectionTimes {
            open_for: now.duration_since(self.opened),
            bytes_read: self.bytes_read,
            silent_for: now.duration_since(self.last_byte),
            unused_for: self.info.calls.unused_for(now),
        }
    }

    /// Resolves when the connection must end.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.decide.as_mut().poll(context));
            let now = Instant::now();
            match next_step(&self.times(now)) {
                NextStep::End => return Poll::Ready(()),
                NextStep::DecideIn(time) => self.decide.as_mut().reset(now + time),
            }
        }
    }

    fn record_written(&mut self, result: &Poll<io::Result<usize>>) {
        if matches!(result, Poll::Ready(Ok(bytes)) if *bytes > 0) {
            self.last_byte = Instant::now();
        }
    }
}

impl AsyncRead for LimitedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.socket).poll_read(context, buffer);
        if read.is_ready() {
            let bytes = buffer.filled().len().saturating_sub(before) as u64;
            if bytes > 0 {
                self.bytes_read = self.bytes_read.saturating_add(bytes);
                self.last_byte = Instant::now();
            }
            return read;
        }
        // The end of the input, as if the peer had closed the connection.
        self.poll_end(context).map(Ok)
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(context, bytes);
        self.record_written(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(context, slices);
        self.record_written(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl Connected for LimitedStream {
    type ConnectInfo = ConnectionInfo;

    fn connect_info(&self) -> ConnectionInfo {
        self.info.clone()
    }
}
