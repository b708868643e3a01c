//! Limit of the messages that a server may send.
//!
//! The client library collects a message before it passes it on. A length of 2 GiB, which the protocol permits, would
//! exhaust the memory of the node.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tidewater_common::rows::MAX_WRITE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum length of a message, and so of a row, in bytes. Tables store rows of at most [`MAX_WRITE_BYTES`]; the binary
/// format of PostgreSQL needs less than twice that.
pub(super) const MAX_MESSAGE_BYTES: usize = 2 * MAX_WRITE_BYTES;

/// A message above the limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a message of {bytes} bytes is above the limit of {MAX_MESSAGE_BYTES}")]
pub(super) struct MessageTooLarge {
    /// Length of the message.
    pub(super) bytes: u32,
}

/// Progress through the sent messages: a tag, a length of 32 bits that includes itself, and the content.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes of tag and length that were received.
    header: Vec<u8>,
    /// Remaining bytes of the content.
    remaining: usize,
}

impl Frames {
    fn check(&mut self, mut bytes: &[u8]) -> Result<(), MessageTooLarge> {
        while !bytes.is_empty() {
            let skipped = self.remaining.min(bytes.len());
            self.remaining -= skipped;
            bytes = &bytes[skipped..];
            let missing = 5_usize.saturating_sub(self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            let Some(length) = self.header.last_chunk().filter(|_| self.header.len() == 5) else {
                return Ok(());
            };
            let length = u32::from_be_bytes(*length);
            self.header.clear();
            if length as usize > MAX_MESSAGE_BYTES {
                return Err(MessageTooLarge { bytes: length });
            }
            // The client library rejects a length below 4.
            self.remaining = (length as usize).saturating_sub(4);
        }
        Ok(())
    }
}

/// A connection whose reads fail at a message above [`MAX_MESSAGE_BYTES`].
#[derive(Debug)]
pub(super) struct LimitedStream<S> {
    inner: S,
    frames: Frames,
}

impl<S> LimitedStream<S> {
    /// Wraps a connection before its first message.
    pub(super) fn new(inner: S) -> Self {
        Self { inner, frames: Frames::default() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LimitedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let checked = self.frames.check(&buf.filled()[before..]);
        if checked.is_err() {
            // A read that fails has read nothing: callers rely on it.
            buf.set_filled(before);
        }
        Poll::Ready(checked.map_err(io::Error::other))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LimitedStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    fn message(content: usize) -> Vec<u8> {
        let length = u32::try_from(content + 4).unwrap();
        [&b"d"[..], &length.to_be_bytes(), &vec![b'x'; content]].concat()
    }

    #[test]
    fn messages_pass_however_they_are_cut() {
        let bytes = [message(0), message(1), message(300), message(0)].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            for part in bytes.chunks(size) {
                frames.check(part).unwrap();
            }
            assert_eq!((frames.header.len(), frames.remaining), (0, 0), "parts of {size} bytes");
        }
    }

    #[test]
    fn message_beyond_the_limit_is_an_error() {
        let large = u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap();
        let bytes = [&message(3), &b"d"[..], &large.to_be_bytes()].concat();
        for size in 1..bytes.len() {
            let mut frames = Frames::default();
            let result = bytes.chunks(size).try_for_each(|part| frames.check(part));
            assert_eq!(result, Err(MessageTooLarge { bytes: large }), "parts of {size} bytes");
        }
    }

    #[tokio::test]
    async fn read_fails_at_a_large_message() {
        let bytes = [&message(3), &b"d\x7f\xff\xff\xff"[..]].concat();
        let error = LimitedStream::new(bytes.as_slice()).read_to_end(&mut Vec::new()).await;
        let error = error.unwrap_err();
        let found = error.get_ref().and_then(|error| error.downcast_ref::<MessageTooLarge>());
        assert_eq!(found, Some(&MessageTooLarge { bytes: 0x7fff_ffff }));
    }
}
