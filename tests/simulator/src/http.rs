//! `wasi:http` without a network: every exchange goes to the simulated server.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use wasmtime_wasi_http::{Error as HttpError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::exchange::{Answer, Request};
use crate::faults::{CallKind, Fault, HttpFault};
use crate::front;
use crate::server::refusal;
use crate::world::{Shared, Stopped};

/// How much of an answer the component gets at once.
const FRAME_BYTES: usize = 64 << 10;

/// The way to the server.
pub struct Wire {
    world: Shared,
}

impl Wire {
    /// A wire of an instance in `world`.
    pub fn new(world: Shared) -> Wire {
        Wire { world }
    }
}

type Sent = Result<
    (
        http::Response<WasiBody>,
        Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ),
    HttpError,
>;

impl WasiHttpHooks for Wire {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HttpError>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let world = self.world.clone();
        Box::new(async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let range_from = parts
                .headers
                .get("range")
                .and_then(|range| {
                    range
                        .to_str()
                        .ok()?
                        .strip_prefix("bytes=")?
                        .strip_suffix('-')
                })
                .and_then(|from| from.parse().ok());
            let content_type = parts.headers.get("content-type");
            let asked = Request {
                method: parts.method.as_str(),
                uri: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
                content_type: content_type.and_then(|value| value.to_str().ok()),
                range_from,
                body: &body,
            };
            let (answer, cut) = exchange(&world, &asked)?;
            let mut builder = http::Response::builder().status(answer.status);
            for (name, value) in &answer.headers {
                builder = builder.header(*name, value);
            }
            let body = Body {
                bytes: answer.body.into(),
                cut,
            };
            let response = builder
                .body(body.boxed_unsync())
                .map_err(|error| HttpError::InternalError(Some(error.to_string())))?;
            let connection: Box<dyn Future<Output = Result<(), HttpError>> + Send> =
                Box::new(async { Ok(()) });
            Ok((response, connection))
        })
    }
}

/// One exchange: the answer, and whether it is cut off at its end.
fn exchange(world: &Shared, asked: &Request<'_>) -> Result<(Answer, bool), HttpError> {
    // The instance is stopped at its next call: an exchange runs beside it and cannot trap.
    let stopped = |Stopped| HttpError::ConnectionTerminated;
    let mut world = world.lock();
    let (call, fault) = world
        .begin(
            CallKind::Http,
            "outgoing-handler.handle",
            &format!("{} {}", asked.method, asked.uri),
        )
        .map_err(stopped)?;
    let denies = world.habits.denies_requests;
    let http_fault = match fault {
        Some(Fault::Http(fault)) => Some(fault),
        Some(Fault::Fail(_) | Fault::Short(..)) => Some(HttpFault::DropRequest),
        _ => None,
    };
    let outcome = match http_fault {
        _ if denies => Err(HttpError::HttpRequestDenied),
        Some(HttpFault::DropRequest) => Err(HttpError::ConnectionRefused),
        Some(HttpFault::Refuse(status)) => Ok((refusal(status, "simulated failure"), false)),
        Some(HttpFault::TooMany) => {
            let mut answer = refusal(429, "simulated overload");
            answer.headers.push(("retry-after", "1".to_owned()));
            Ok((answer, false))
        }
        Some(HttpFault::Page(status)) => Ok((front::page(status), false)),
        Some(HttpFault::Portal) => Ok((front::portal(), false)),
        fault => {
            let mut answer = world.server.answer(asked);
            match fault {
                _ if answer.status == 304 && world.server.loses_304 => {
                    Err(HttpError::ConnectionTerminated)
                }
                Some(HttpFault::DropAnswer) => Err(HttpError::ConnectionTerminated),
                Some(HttpFault::Duplicate) => {
                    // The answer that arrives is the first one's; the second finds what is there.
                    let snapshots = world.server.snapshots.len();
                    let _ = world.server.answer(asked);
                    if world.server.snapshots.len() > snapshots {
                        // The last is the one that arrives.
                        world.server.snapshots.swap(snapshots - 1, snapshots);
                    }
                    Ok((answer, false))
                }
                Some(HttpFault::Delay(milliseconds)) => {
                    world.pass(u64::from(milliseconds) * 1_000_000);
                    Ok((answer, false))
                }
                Some(HttpFault::CutBody(thousandths)) => {
                    let kept = answer.body.len() * usize::from(thousandths) / 1000;
                    answer.body.truncate(kept);
                    Ok((answer, true))
                }
                _ => Ok((answer, false)),
            }
        }
    };
    world.end(call, fault).map_err(stopped)?;
    outcome
}

/// A body in memory, in frames, that may end with an error.
struct Body {
    bytes: Bytes,
    cut: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, HttpError>>> {
        if self.bytes.is_empty() {
            let cut = std::mem::take(&mut self.cut);
            return Poll::Ready(cut.then_some(Err(HttpError::ConnectionTerminated)));
        }
        let length = self.bytes.len().min(FRAME_BYTES);
        Poll::Ready(Some(Ok(http_body::Frame::data(
            self.bytes.split_to(length),
        ))))
    }
}
