//! Reads request bodies, as fast as they have to come and no more of them than there is room for.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use flate2::read::{GzDecoder, ZlibDecoder};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, timeout_at};

use crate::load::{Load, too_slow};
use crate::room::Reservation;
use crate::{Error, Result};

/// Bytes of an encoded body that are decoded in one go.
const DECODED_AT_ONCE: u64 = 256 << 10;

/// Bytes a second that a body has to come with, after its grace.
const LEAST_RATE: u64 = 64 * 1024;

/// Reads a body of up to `limit` bytes. What it holds of the room is returned with it.
///
/// # Errors
/// [`Error::Malformed`] if it is longer, as the server says it; [`Error::Overloaded`] if there is no
/// room; [`Error::Refused`] with 408 if it comes too slowly.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    limit: usize,
    load: Option<&Load>,
) -> Result<(Vec<u8>, Reservation)> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    let length = announced.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if let Some(length) = length
        && length > limit
    {
        // The server answers 400, not 413.
        return Err(Error::Malformed(format!(
            "Payload error: JSON payload ({length} bytes) is larger than allowed (limit: {limit} bytes)."
        )));
    }
    let mut pace = Pace::new(load.map(|load| load.limits.body_grace));
    let mut held = Reservation::default();
    let mut bytes = Vec::new();
    let mut refused = None;
    if let (Some(load), Some(length)) = (load, length)
        && load.room.is_large(length)
        && let Err(error) = load.room.hold(&mut held, length)
    {
        load.count_body();
        if headers.contains_key(header::EXPECT) {
            // The client holds the body back until it has an answer.
            return Err(error);
        }
        refused = Some(error);
    }
    if refused.is_none() {
        bytes.reserve_exact(length.unwrap_or_default());
    }
    let mut come = 0_usize;
    while let Some(frame) = pace.keeps(body.frame()).await.inspect_err(|_| {
        if let Some(load) = load {
            load.counts.slow_bodies.fetch_add(1, Ordering::Relaxed);
        }
    })? {
        let frame = frame.map_err(|error| Error::Malformed(format!("Payload error: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        come = come.saturating_add(data.len());
        if come > limit {
            return Err(too_long(limit));
        }
        pace.came(data.len());
        if refused.is_some() {
            // Read to its end all the same: a client that is still sending does not see the answer.
            continue;
        }
        let needed = come.max(held.large_bytes());
        if let Some(load) = load
            && let Err(error) = load.room.hold(&mut held, needed)
        {
            load.count_body();
            refused = Some(error);
            bytes = Vec::new();
            held = Reservation::default();
            continue;
        }
        bytes.extend_from_slice(&data);
    }
    match refused {
        Some(error) => Err(error),
        None => decoded(headers, bytes, held, limit, load).await,
    }
}

/// Undoes the encoding of a body, as the server does; what comes of it has up to `limit` bytes.
async fn decoded(
    headers: &HeaderMap,
    bytes: Vec<u8>,
    mut held: Reservation,
    limit: usize,
    load: Option<&Load>,
) -> Result<(Vec<u8>, Reservation)> {
    let encoding = headers
        .get(header::CONTENT_ENCODING)
        .map(|value| value.as_bytes().to_ascii_lowercase());
    let mut decoder: Box<dyn Read + Send + '_> = match encoding.as_deref() {
        Some(b"gzip") => Box::new(GzDecoder::new(&*bytes)),
        Some(b"deflate") => Box::new(ZlibDecoder::new(&*bytes)),
        // The server takes what it does not know for a plain body.
        _ => return Ok((bytes, held)),
    };
    let mut plain = Vec::new();
    loop {
        let before = plain.len();
        decoder
            .by_ref()
            .take(DECODED_AT_ONCE)
            .read_to_end(&mut plain)
            .map_err(|error| Error::Malformed(format!("Payload error: {error}")))?;
        if plain.len() == before {
            drop(decoder);
            return Ok((plain, held));
        }
        if plain.len() > limit {
            return Err(too_long(limit));
        }
        if let Some(load) = load {
            let needed = (bytes.len() + plain.len()).max(held.large_bytes());
            load.room
                .hold(&mut held, needed)
                .inspect_err(|_| load.count_body())?;
        }
        // Others may go on meanwhile.
        tokio::task::yield_now().await;
    }
}

fn too_long(limit: usize) -> Error {
    Error::Malformed(format!(
        "Payload error: JSON payload has exceeded limit ({limit} bytes)."
    ))
}

/// By when a body has to have come, as far as it has: slower, and it is given up.
struct Pace {
    until: Option<Instant>,
    /// Bytes that have not moved the end yet.
    uncounted: u64,
}

impl Pace {
    fn new(grace: Option<Duration>) -> Self {
        Self {
            until: grace.map(|grace| Instant::now() + grace),
            uncounted: 0,
        }
    }

    /// What `next` gives, unless it comes too late.
    async fn keeps<T>(&self, next: impl Future<Output = T>) -> Result<T> {
        match self.until {
            None => Ok(next.await),
            Some(until) => timeout_at(until, next).await.map_err(|_| too_slow()),
        }
    }

    fn came(&mut self, bytes: usize) {
        self.uncounted += bytes as u64;
        let milliseconds = self.uncounted * 1000 / LEAST_RATE;
        self.uncounted -= milliseconds * LEAST_RATE / 1000;
        if let Some(until) = &mut self.until {
            *until += Duration::from_millis(milliseconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use axum::http::HeaderValue;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    async fn read_encoded(encoding: &'static str, body: Vec<u8>, limit: usize) -> Result<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        let (bytes, _) = read(&headers, Body::from(body), limit, None).await?;
        Ok(bytes)
    }

    #[tokio::test]
    async fn an_encoded_body_is_read_up_to_its_limit() {
        let text = vec![b' '; 3 << 20];
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&text).unwrap();
        let packed = encoder.finish().unwrap();
        let limit = text.len();
        assert_eq!(
            read_encoded("gzip", packed.clone(), limit).await.unwrap(),
            text
        );
        assert_eq!(
            read_encoded("identity", text.clone(), limit).await.unwrap(),
            text
        );
        for (encoding, body) in [
            ("gzip", packed.clone()),
            ("gzip", packed[..packed.len() / 2].to_vec()),
            ("deflate", packed),
        ] {
            let refused = read_encoded(encoding, body, limit - 1).await;
            assert!(matches!(refused, Err(Error::Malformed(_))), "{encoding}");
        }
    }
}
