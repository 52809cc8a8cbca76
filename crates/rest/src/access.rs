//! Who may ask, and what is logged of it.

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;
use subtle::ConstantTimeEq as _;

use crate::{Error, envelope};

/// Paths that need no key, as on the server: they say only that it is there.
const OPEN_PATHS: [&str; 4] = ["/", "/healthz", "/livez", "/readyz"];

/// Turns away requests without the right key.
pub(crate) async fn require_key(
    State(key): State<Arc<str>>,
    request: Request,
    next: Next,
) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    // In plain text, as the server does it.
    match presented_key(request.headers()) {
        None => envelope::plain_failure(&Error::Unauthorized(
            "Must provide an API key or an Authorization bearer token".to_owned(),
        )),
        Some(presented) if presented.as_bytes().ct_eq(key.as_bytes()).into() => {
            next.run(request).await
        }
        Some(_) => {
            envelope::plain_failure(&Error::Unauthorized("Invalid API key or JWT".to_owned()))
        }
    }
}

/// `api-key` wins over `Authorization: Bearer`.
fn presented_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    text("api-key")
        .or_else(|| text(header::AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer ")))
}

/// Turns away requests that were meant for another host. A browser sends the name that the page
/// was loaded from, so this stops pages whose name was made to resolve to a loopback address.
pub(crate) async fn require_local_host(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .map(|value| value.to_str().unwrap_or("?"))
        .or_else(|| request.uri().authority().map(Authority::as_str));
    match host {
        Some(host) if !is_local(host) => Error::Forbidden(format!(
            "this endpoint answers programs on its own machine only, and `{host}` is not a name of it"
        ))
        .into_response(),
        // HTTP/1.0 needs no host, and browsers do not speak it.
        _ => next.run(request).await,
    }
}

/// True for `localhost`, names below it, and loopback addresses, with or without a port.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let address = name.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// One line for each request: what was asked for and how it was answered, no content.
pub(crate) async fn log(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(%method, path, status, milliseconds, "request");
    response
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn local_names_are_told_from_others() {
        for host in [
            "localhost",
            "LocalHost:6333",
            "localhost.:80",
            "edge.localhost",
            "127.0.0.1:6333",
            "127.8.9.1",
            "[::1]:6333",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "example.com",
            "localhost.example.com:6333",
            "notlocalhost",
            "10.0.0.1:6333",
            "0.0.0.0",
            "[::2]:6333",
            "127.0.0.1.example.com",
            "",
            "a b",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }
}
