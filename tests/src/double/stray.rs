//! Bytes behind an answer that has no body.
//!
//! The server (1.19) answers 304 with the words of an error, without their length, and sends them
//! nevertheless: a client that keeps the connection finds them in front of the next answer. HTTP
//! libraries do not do that, so it is done below.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};

/// How the head begins that the words follow.
const HEAD: &[u8] = b"HTTP/1.1 304 ";

/// What goes out behind the next 304 of a connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Stray(Arc<Mutex<Bytes>>);

impl Stray {
    pub(super) fn put(&self, words: Bytes) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    fn take(&self) -> Bytes {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A connection on which a 304 is followed by what was put.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    stray: Stray,
    /// What is being sent behind a head.
    behind: Bytes,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, stray: Stray) -> Self {
        Self {
            stream,
            stray,
            behind: Bytes::new(),
        }
    }
}

impl<S: Read + Unpin> Read for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

/// Not vectored, so that a head is one write, and flushed only when all of it is written.
impl<S: Write + Unpin> Write for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        if written > 0 && bytes.starts_with(HEAD) {
            self.behind = self.stray.take();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.behind.is_empty() {
            let Self { stream, behind, .. } = &mut *self;
            let written = ready!(Pin::new(stream).poll_write(context, behind))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = behind.split_to(written);
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
