//! Uploads compressed on their way, where the server takes it.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A smaller body gains nothing worth the time.
const LEAST_BYTES: u64 = 1024;

/// Whether request bodies go out as gzip.
#[derive(Debug, Default)]
pub(crate) struct Compression {
    /// Whoever answers does not read them.
    refused: AtomicBool,
}

impl Compression {
    /// Whether the body of a request with these headers is to be compressed.
    pub(crate) fn is_for(&self, headers: &HeaderMap) -> bool {
        let is_json = headers
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        is_json
            && length.is_some_and(|length| length >= LEAST_BYTES)
            && !headers.contains_key(CONTENT_ENCODING)
            && !self.refused.load(Ordering::Relaxed)
    }

    /// The body compressed, and the headers that say so; none if that makes it no smaller.
    pub(crate) fn pack(&self, headers: &HeaderMap, body: &[u8]) -> Option<(HeaderMap, Bytes)> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
        encoder.write_all(body).ok()?;
        let packed = encoder.finish().ok()?;
        if packed.len() >= body.len() {
            return None;
        }
        let mut headers = headers.clone();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(packed.len()));
        Some((headers, packed.into()))
    }

    /// Whether an answer may be about the encoding. Qdrant, and what stands in front of it, speak of
    /// a body that they cannot read as of one that is wrong; no operation is judged by that.
    pub(crate) fn may_be_meant(status: StatusCode) -> bool {
        matches!(status.as_u16(), 400 | 403 | 406 | 411 | 415 | 422 | 501)
    }

    /// The same body passed as it is: no other is compressed.
    pub(crate) fn give_up(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn headers(length: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        headers
    }

    #[test]
    fn a_body_of_some_size_is_compressed_until_that_is_refused() {
        let compression = Compression::default();
        assert!(!compression.is_for(&headers(1000)));
        assert!(!compression.is_for(&HeaderMap::new()));
        assert!(compression.is_for(&headers(5000)));
        let body = "[0.25,0.5]".repeat(500);
        let (packed_headers, packed) = compression.pack(&headers(5000), body.as_bytes()).unwrap();
        assert!(packed.len() < 500);
        assert_eq!(packed_headers[CONTENT_LENGTH], packed.len().to_string());
        assert!(!compression.is_for(&packed_headers));
        let mut read = String::new();
        flate2::read::GzDecoder::new(&*packed)
            .read_to_string(&mut read)
            .unwrap();
        assert_eq!(read, body);
        let noise: Vec<u8> = (0..5000).map(|_| fastrand::u8(..)).collect();
        assert!(compression.pack(&headers(5000), &noise).is_none());
        compression.give_up();
        assert!(!compression.is_for(&headers(5000)));
    }
}
