//! Bytes behind an answer that has no body.
//!
//! The server (1.19) answers 304 with the words of an error, without their length, and sends them
//! nevertheless: a client that keeps the connection finds them in front of the next answer. HTTP
//! libraries do not do that, so it is done below them.

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

/// A connection on which a 304 is followed by what was put, in the same piece as on the server.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    stray: Stray,
    /// A head and what is behind it, not sent yet.
    held: Bytes,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, stray: Stray) -> Self {
        Self {
            stream,
            stray,
            held: Bytes::new(),
        }
    }
}

impl<S: Write + Unpin> Connection<S> {
    fn send_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.held.split_to(written);
        }
        Poll::Ready(Ok(()))
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

/// Not vectored, so that a head is one write.
impl<S: Write + Unpin> Write for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_held(context))?;
        if bytes.starts_with(HEAD) {
            let words = self.stray.take();
            if !words.is_empty() {
                self.held = [bytes, &words].concat().into();
                return Poll::Ready(Ok(bytes.len()));
            }
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_held(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_held(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
