//! What faults do to the body of an answer.

use std::pin::Pin;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use http_body::Body as _;

use crate::Fault;

/// How long a cut waits, so that what was sent before it leaves the server.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// Pieces a second that a throttled body is sent in.
const PIECES_PER_SECOND: u64 = 20;

#[derive(Debug, Clone, Default)]
pub(super) struct Shape {
    pub(super) bytes_per_second: Option<u64>,
    cut_after: Option<u64>,
    truncate_to: Option<u64>,
    corrupt: Option<std::ops::Range<u64>>,
}

impl Shape {
    pub(super) fn of(fault: Option<&Fault>) -> Self {
        let mut shape = Self::default();
        match fault {
            Some(Fault::CutBody { after }) => shape.cut_after = Some(*after),
            Some(Fault::TruncateBody { to }) => shape.truncate_to = Some(*to),
            Some(Fault::CorruptBody { at, bytes }) => {
                shape.corrupt = Some(*at..at.saturating_add(*bytes));
            }
            Some(Fault::Throttle { bytes_per_second }) => {
                shape.bytes_per_second = Some(*bytes_per_second);
            }
            _ => {}
        }
        shape
    }

    fn is_plain(&self) -> bool {
        self.bytes_per_second.is_none()
            && self.cut_after.is_none()
            && self.truncate_to.is_none()
            && self.corrupt.is_none()
    }

    pub(super) fn apply(self, response: Response) -> Response {
        if self.is_plain() {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let length = body.size_hint().exact();
        let cut_at_end = self
            .cut_after
            .is_some_and(|after| length.is_some_and(|length| after >= length));
        // A client that knows the length would see no end before, or no cut after, all of it.
        if self.truncate_to.is_some() || cut_at_end {
            parts.headers.remove(axum::http::header::CONTENT_LENGTH);
        }
        let state = Shaping {
            body: Box::pin(body.into_data_stream()),
            piece: Bytes::new(),
            sent: 0,
            shape: self,
        };
        let body = Body::from_stream(stream::unfold(Some(state), Shaping::next));
        Response::from_parts(parts, body)
    }
}

type Pieces = Pin<Box<dyn Stream<Item = Result<Bytes, axum::Error>> + Send>>;

struct Shaping {
    body: Pieces,
    /// What was read and is not sent yet.
    piece: Bytes,
    sent: u64,
    shape: Shape,
}

impl Shaping {
    /// The next piece and what remains; the state is gone after the last.
    async fn next(state: Option<Self>) -> Option<(Result<Bytes, axum::Error>, Option<Self>)> {
        let mut state = state?;
        if state.shape.truncate_to.is_some_and(|end| state.sent >= end) {
            return None;
        }
        if state.shape.cut_after.is_some_and(|end| state.sent >= end) {
            tokio::time::sleep(BEFORE_CUT).await;
            let cut = axum::Error::new(std::io::Error::other("scripted cut"));
            return Some((Err(cut), None));
        }
        while state.piece.is_empty() {
            match state.body.next().await {
                Some(Ok(piece)) => state.piece = piece,
                Some(Err(error)) => return Some((Err(error), None)),
                // The body is over before the cut: close the connection all the same.
                None if state.shape.cut_after.is_some() => {
                    tokio::time::sleep(BEFORE_CUT).await;
                    let cut = axum::Error::new(std::io::Error::other("scripted cut"));
                    return Some((Err(cut), None));
                }
                None => return None,
            }
        }
        let limits = [state.shape.cut_after, state.shape.truncate_to];
        let mut length = state.piece.len();
        for end in limits.into_iter().flatten() {
            length = length.min(usize::try_from(end - state.sent).unwrap_or(usize::MAX));
        }
        if let Some(rate) = state.shape.bytes_per_second {
            let rate = rate.max(1);
            let piece = (rate / PIECES_PER_SECOND).max(1);
            length = length.min(usize::try_from(piece).unwrap_or(usize::MAX));
            let seconds = length as f64 / rate as f64;
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        }
        let piece = state.piece.split_to(length);
        let piece = state.corrupted(piece);
        state.sent += length as u64;
        Some((Ok(piece), Some(state)))
    }

    fn corrupted(&self, piece: Bytes) -> Bytes {
        let Some(range) = &self.shape.corrupt else {
            return piece;
        };
        let mut changed = BytesMut::from(piece);
        for (byte, at) in changed.iter_mut().zip(self.sent..) {
            if range.contains(&at) {
                *byte ^= 0x55;
            }
        }
        changed.freeze()
    }
}
