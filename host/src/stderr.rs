//! What the component writes to stderr: logged, and the end of it kept for trap messages.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};

/// Enough for a panic message with its location.
const KEPT_BYTES: usize = 4096;

/// Who is told how far the building of a graph is: points that are indexed, and of how many.
pub(crate) type OnIndexed = Box<dyn Fn(u64, u64) + Send>;

/// The last bytes written. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct StderrTail(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    kept: VecDeque<u8>,
    on_indexed: Option<OnIndexed>,
}

impl StderrTail {
    fn lock(&self) -> MutexGuard<'_, Written> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was written since the last call, as far as it was kept.
    pub(crate) fn take(&self) -> String {
        let bytes: Vec<u8> = self.lock().kept.drain(..).collect();
        String::from_utf8_lossy(&bytes).trim().to_owned()
    }

    /// From now on, lines that tell how far a graph is go there, and are not kept.
    pub(crate) fn on_indexed(&self, told: Option<OnIndexed>) {
        self.lock().on_indexed = told;
    }

    fn write(&self, bytes: &[u8]) {
        let mut written = self.lock();
        if let Some(told) = &written.on_indexed
            && let Some((done, total)) = indexed(bytes)
        {
            return told(done, total);
        }
        tracing::debug!(target: "edge_sync::guest", "{}", String::from_utf8_lossy(bytes).trim_end());
        written.kept.extend(bytes);
        let excess = written.kept.len().saturating_sub(KEPT_BYTES);
        written.kept.drain(..excess);
    }
}

/// A line as `restore.stage-optimize` writes it, which is written whole:
/// `edge-sync: indexed 1200 of 20000 points`.
fn indexed(bytes: &[u8]) -> Option<(u64, u64)> {
    let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
    let counts = line
        .strip_prefix("edge-sync: indexed ")?
        .strip_suffix(" points")?;
    let (done, total) = counts.split_once(" of ")?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

impl IsTerminal for StderrTail {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for StderrTail {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl AsyncWrite for StderrTail {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_end() {
        let tail = StderrTail::default();
        tail.write(&[b'a'; 10_000]);
        tail.write(b"panicked at x.rs\n");
        let text = tail.take();
        assert!(text.len() <= KEPT_BYTES && text.ends_with("aapanicked at x.rs"));
        assert_eq!(tail.take(), "");
    }

    #[test]
    fn progress_goes_to_who_asked_for_it_and_all_else_is_kept() {
        let tail = StderrTail::default();
        let (told, progress) = std::sync::mpsc::channel();
        tail.on_indexed(Some(Box::new(move |done, total| {
            told.send((done, total)).unwrap();
        })));
        tail.write(b"edge-sync: indexed 32 of 2000 points\n");
        tail.write(b"edge-sync: indexed nothing of 5 points\n");
        assert_eq!(progress.try_recv(), Ok((32, 2000)));
        assert!(progress.try_recv().is_err());
        assert_eq!(tail.take(), "edge-sync: indexed nothing of 5 points");
        tail.on_indexed(None);
        tail.write(b"edge-sync: indexed 1 of 2 points\n");
        assert_eq!(tail.take(), "edge-sync: indexed 1 of 2 points");
    }
}
