//! One HTTP exchange over `wasi:http`.
//!
//! waki's own `send` writes the whole body before it looks for an answer, and takes a failing write
//! for the end of the exchange. A server that refuses a large body answers at once and closes the
//! connection, so here the answer is looked for while the body is written.

use std::time::Duration;

use edge_sync_upload::NoAnswerKind;
use waki::bindings::wasi::http::outgoing_handler;
use waki::bindings::wasi::http::types::{
    Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, InputStream, OutgoingBody,
    OutgoingRequest, OutputStream, RequestOptions, Scheme, http_error_code,
};
use waki::bindings::wasi::io::poll::poll;
use waki::bindings::wasi::io::streams::StreamError;
use waki::{ErrorCode, Method};

/// How an exchange failed before there was an answer, or within it.
#[derive(Debug, Clone)]
pub struct Broken {
    /// How far it came.
    pub kind: NoAnswerKind,
    /// What happened, for people.
    pub message: String,
}

/// Where requests go.
#[derive(Debug, Clone)]
pub struct Origin {
    /// `https` rather than `http`.
    pub secure: bool,
    /// Host and port.
    pub authority: String,
}

/// A request.
pub struct Outgoing<'a> {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: &'a str,
    /// Header fields; `content-length` is added.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The body, empty for none.
    pub body: &'a [u8],
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
}

/// An answer whose body is still to be read.
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    // Dropped in this order: a stream is a child of its body, which is one of the response.
    stream: InputStream,
    _body: IncomingBody,
    _response: IncomingResponse,
}

impl Response {
    /// HTTP status.
    pub fn status_code(&self) -> u16 {
        self.status
    }

    /// The first header field of that name, if it is text. Names are in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self
            .headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(value).ok()
    }

    /// The next bytes of the body, at most `bytes`; none at its end.
    pub fn chunk(&self, bytes: u64) -> Result<Option<Vec<u8>>, Broken> {
        match self.stream.blocking_read(bytes) {
            Ok(chunk) => Ok(Some(chunk)),
            Err(StreamError::Closed) => Ok(None),
            Err(error) => Err(broken_stream(&error)),
        }
    }
}

/// Sends a request and waits for the head of the answer.
pub fn send(origin: &Origin, outgoing: Outgoing<'_>) -> Result<Response, Broken> {
    let Outgoing {
        method,
        path,
        mut headers,
        body,
        connect_timeout,
    } = outgoing;
    if !body.is_empty() || !matches!(method, Method::Get) {
        // Proxies refuse bodies of unknown length (411), and some servers wait for their end.
        headers.push((
            "content-length".to_owned(),
            body.len().to_string().into_bytes(),
        ));
    }
    let fields = Fields::from_list(&headers).map_err(|error| denied(format!("{error:?}")))?;
    let request = OutgoingRequest::new(fields);
    let scheme = if origin.secure {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let accepted = request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&origin.authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    if accepted.is_err() {
        return Err(denied(format!(
            "no request can be made to {}{path}",
            origin.authority
        )));
    }
    let outgoing_body = request
        .body()
        .map_err(|()| denied("the request has no body".to_owned()))?;
    let options = RequestOptions::new();
    let nanoseconds = u64::try_from(connect_timeout.as_nanos()).unwrap_or(u64::MAX);
    // A host without this option has limits of its own.
    let _ = options.set_connect_timeout(Some(nanoseconds));
    let future =
        outgoing_handler::handle(request, Some(options)).map_err(|code| broken_exchange(&code))?;

    let stream = outgoing_body
        .write()
        .map_err(|()| denied("the request's body cannot be written".to_owned()))?;
    let written = write(&stream, body, &future);
    drop(stream);
    // A body that was not written whole is not finished, but the answer may be there already.
    let body_kept = match written {
        Ok(()) => {
            OutgoingBody::finish(outgoing_body, None).map_err(|code| broken_exchange(&code))?;
            None
        }
        Err(failure) => Some((outgoing_body, failure)),
    };
    let response = wait(&future);
    match (response, body_kept) {
        (Ok(response), _) => open(response),
        // Why the write failed says more than that the connection is gone.
        (Err(_), Some((_, Some(failure)))) => Err(failure),
        (Err(failure), _) => Err(failure),
    }
}

/// Writes the body, unless the answer comes first. An error without a reason: the answer is there.
fn write(
    stream: &OutputStream,
    mut body: &[u8],
    future: &FutureIncomingResponse,
) -> Result<(), Option<Broken>> {
    let failed = |error: StreamError| Some(broken_stream(&error));
    let writable = stream.subscribe();
    let answered = future.subscribe();
    let mut flushed = body.is_empty();
    while !flushed {
        let ready = poll(&[&writable, &answered]);
        // Index 0 is the stream: as long as it takes bytes, the answer can wait.
        if !ready.contains(&0) {
            return Err(None);
        }
        let permit = stream.check_write().map_err(failed)?;
        if body.is_empty() {
            flushed = true;
            continue;
        }
        let length = body
            .len()
            .min(usize::try_from(permit).unwrap_or(usize::MAX));
        let (chunk, rest) = body.split_at(length);
        stream.write(chunk).map_err(failed)?;
        body = rest;
        if body.is_empty() {
            stream.flush().map_err(failed)?;
        }
    }
    Ok(())
}

fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, Broken> {
    loop {
        match future.get() {
            Some(Ok(Ok(response))) => return Ok(response),
            Some(Ok(Err(code))) => return Err(broken_exchange(&code)),
            Some(Err(())) => return Err(cut("the answer was taken before".to_owned())),
            None => future.subscribe().block(),
        }
    }
}

fn open(response: IncomingResponse) -> Result<Response, Broken> {
    let status = response.status();
    let headers = response.headers().entries();
    let no_body = |()| cut("the answer has no body that can be read".to_owned());
    let body = response.consume().map_err(no_body)?;
    let stream = body.stream().map_err(no_body)?;
    Ok(Response {
        status,
        headers,
        stream,
        _body: body,
        _response: response,
    })
}

fn cut(message: String) -> Broken {
    Broken {
        kind: NoAnswerKind::Cut,
        message,
    }
}

fn denied(message: String) -> Broken {
    Broken {
        kind: NoAnswerKind::Denied,
        message,
    }
}

fn broken_stream(error: &StreamError) -> Broken {
    match error {
        StreamError::Closed => cut("the connection was cut".to_owned()),
        StreamError::LastOperationFailed(error) => match http_error_code(error) {
            Some(code) => broken_exchange(&code),
            None => cut("the connection was cut".to_owned()),
        },
    }
}

/// What an error of `wasi:http` means.
fn broken_exchange(code: &ErrorCode) -> Broken {
    use NoAnswerKind::{Cut, Denied, Unreached};
    let (kind, words) = match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            (Unreached, "the server's name cannot be resolved")
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            (Unreached, "there is no way to the server")
        }
        ErrorCode::DestinationIpProhibited | ErrorCode::HttpRequestDenied => {
            (Denied, "the host does not permit requests to this server")
        }
        ErrorCode::ConnectionRefused => (Unreached, "the server refuses connections"),
        ErrorCode::ConnectionTimeout => (Unreached, "the server could not be reached in time"),
        ErrorCode::ConnectionLimitReached => (Unreached, "there is no room for another connection"),
        // Neither passes by itself: somebody has to put the URL, the certificate or the trust right.
        // Wasmtime's own client says the first for all of TLS.
        ErrorCode::TlsProtocolError => (
            Denied,
            "no secure connection: there is no TLS, or its certificate is not accepted",
        ),
        ErrorCode::TlsCertificateError => (
            Denied,
            "no secure connection: the certificate is not accepted",
        ),
        ErrorCode::TlsAlertReceived(_) => (
            Denied,
            "no secure connection: the server does not accept this device",
        ),
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            (Cut, "the connection was cut")
        }
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            (Cut, "the server did not answer in time")
        }
        ErrorCode::ConnectionWriteTimeout => (Cut, "the server did not take the request in time"),
        ErrorCode::HttpProtocolError => (Cut, "the connection was cut, or the answer is not HTTP"),
        ErrorCode::HttpResponseBodySize(limit) => {
            return cut(match limit {
                Some(limit) => format!("the answer is longer than {limit} bytes"),
                None => "the answer is too long".to_owned(),
            });
        }
        ErrorCode::InternalError(Some(message)) => return cut(message.clone()),
        other => return cut(format!("the request failed: {other:?}")),
    };
    Broken {
        kind,
        message: words.to_owned(),
    }
}
