//! Limits of the messages that a server may send.
//!
//! - **Length**: the client library collects a message before it passes it on. A length of 2 GiB, which the protocol
//!   permits, would exhaust the memory of the node.
//! - **Cleartext**: the client library sends the password itself to each server that requests it. A server that is not
//!   verified may be another one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tidewater_common::rows::MAX_WRITE_BYTES;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Maximum length of a message, and so of a row, in bytes. Tables store rows of at most [`MAX_WRITE_BYTES`]; the binary
/// format of PostgreSQL needs less than twice that.
pub(in crate::postgres) const MAX_MESSAGE_BYTES: usize = 2 * MAX_WRITE_BYTES;

/// Tag of a message that requests an authentication, and whose content begins with a code.
const AUTHENTICATION: u8 = b'R';
/// Code of the request of the password itself.
const CLEARTEXT_PASSWORD: u32 = 3;
/// Bytes of tag and length.
const HEADER_BYTES: usize = 5;
/// Bytes of tag, length and code.
const AUTHENTICATION_HEADER_BYTES: usize = 9;

/// A message that is not passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::postgres) enum FrameError {
    /// The message is above the limit.
    #[error("a message of {bytes} bytes is above the limit of {MAX_MESSAGE_BYTES}")]
    TooLarge {
        /// Length of the message.
        bytes: u32,
    },
    /// The server requests the password in cleartext, and is not verified.
    #[error("the server requests the password in cleartext")]
    Cleartext,
}

/// Progress through the sent messages: a tag, a length of 32 bits that includes itself, and the content.
#[derive(Debug)]
struct Frames {
    /// Received bytes of tag and length, with the code of an authentication.
    header: Vec<u8>,
    /// Remaining bytes of the content.
    remaining: usize,
    /// The server may request the password itself.
    permits_cleartext: bool,
}

impl Frames {
    fn new(permits_cleartext: bool) -> Self {
        Self {
            header: Vec::with_capacity(AUTHENTICATION_HEADER_BYTES),
            remaining: 0,
            permits_cleartext,
        }
    }

    fn check(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let skipped = self.remaining.min(bytes.len());
            self.remaining -= skipped;
            bytes = &bytes[skipped..];
            bytes = self.take_header(bytes, HEADER_BYTES);
            if self.header.first() == Some(&AUTHENTICATION) {
                bytes = self.take_header(bytes, AUTHENTICATION_HEADER_BYTES);
            }
            if let Some(content) = self.content()? {
                self.header.clear();
                self.remaining = content;
            }
        }
        Ok(())
    }

    /// Moves bytes to the header until it has this length. Returns the others.
    fn take_header<'a>(&mut self, bytes: &'a [u8], length: usize) -> &'a [u8] {
        let missing = length.saturating_sub(self.header.len()).min(bytes.len());
        let (taken, others) = bytes.split_at(missing);
        self.header.extend_from_slice(taken);
        others
    }

    /// Checks a complete header. Returns the number of bytes that follow it; `None` if it is incomplete.
    fn content(&self) -> Result<Option<usize>, FrameError> {
        let Some((&tag, rest)) = self.header.split_first() else { return Ok(None) };
        let Some((length, code)) = rest.split_first_chunk() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length as usize > MAX_MESSAGE_BYTES {
            return Err(FrameError::TooLarge { bytes: length });
        }
        // The client library rejects a length below 4.
        let content = (length as usize).saturating_sub(4);
        if tag != AUTHENTICATION {
            return Ok(Some(content));
        }
        let Some(code) = code.first_chunk() else { return Ok(None) };
        if u32::from_be_bytes(*code) == CLEARTEXT_PASSWORD && !self.permits_cleartext {
            return Err(FrameError::Cleartext);
        }
        // It also rejects an authentication without a code.
        Ok(Some(content.saturating_sub(4)))
    }
}

/// A connection whose reads fail at a message that is not permitted.
#[derive(Debug)]
pub(in crate::postgres) struct LimitedStream<S> {
    inner: S,
    frames: Frames,
}

impl<S> LimitedStream<S> {
    /// Wraps a connection before its first message. `permits_cleartext`: the server may receive the password itself.
    pub(super) fn new(inner: S, permits_cleartext: bool) -> Self {
        Self { inner, frames: Frames::new(permits_cleartext) }
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

    /// A request of an authentication, with bytes after its code.
    fn authentication(code: u32, more: &[u8]) -> Vec<u8> {
        let length = u32::try_from(more.len() + 8).unwrap();
        [&b"R"[..], &length.to_be_bytes(), &code.to_be_bytes(), more].concat()
    }

    /// Result of the messages in parts of this size.
    fn check(bytes: &[u8], size: usize, permits_cleartext: bool) -> Result<Frames, FrameError> {
        let mut frames = Frames::new(permits_cleartext);
        bytes.chunks(size).try_for_each(|part| frames.check(part))?;
        Ok(frames)
    }

    #[test]
    fn messages_pass_however_they_are_cut() {
        // Requests of a salted digest and of SCRAM, and the success.
        let logins =
            [authentication(5, b"salt"), authentication(10, b"SCRAM"), authentication(0, b"")];
        let messages = [message(0), message(1), message(300), message(0)];
        let bytes = [logins.concat(), messages.concat()].concat();
        for size in 1..bytes.len() {
            let frames = check(&bytes, size, false).unwrap();
            assert_eq!((frames.header.len(), frames.remaining), (0, 0), "parts of {size} bytes");
        }
    }

    #[test]
    fn message_beyond_the_limit_is_an_error() {
        let large = u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap();
        for tag in [b"d", b"R"] {
            let bytes = [&message(3), &tag[..], &large.to_be_bytes()].concat();
            for size in 1..bytes.len() {
                let error = check(&bytes, size, true).unwrap_err();
                assert_eq!(error, FrameError::TooLarge { bytes: large }, "parts of {size} bytes");
            }
        }
    }

    #[test]
    fn cleartext_request_is_refused_unless_permitted() {
        let bytes = [authentication(10, b"SCRAM"), authentication(3, b"")].concat();
        for size in 1..=bytes.len() {
            let refused = check(&bytes, size, false).map(drop);
            assert_eq!(refused, Err(FrameError::Cleartext), "parts of {size} bytes");
            check(&bytes, size, true).unwrap();
        }
    }

    #[tokio::test]
    async fn read_fails_at_a_refused_message() {
        let large = [&message(3), &b"d\x7f\xff\xff\xff"[..]].concat();
        let cleartext = authentication(3, b"");
        for (bytes, expected) in [
            (large, FrameError::TooLarge { bytes: 0x7fff_ffff }),
            (cleartext, FrameError::Cleartext),
        ] {
            let mut read = Vec::new();
            let error = LimitedStream::new(bytes.as_slice(), false).read_to_end(&mut read).await;
            let error = error.unwrap_err();
            let found = error.get_ref().and_then(|error| error.downcast_ref::<FrameError>());
            assert_eq!(found, Some(&expected));
            assert!(read.is_empty(), "{read:?}");
        }
    }
}
