//! Segments of a request's path.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::{Error, Result};

/// Undoes the percent-encoding of a path segment.
pub(crate) fn decoded(segment: &str) -> Result<String> {
    // The library would leave what is no encoding as it is.
    let begins_with_two_digits = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !segment.split('%').skip(1).all(begins_with_two_digits) {
        return Err(Error::invalid("path", "bad percent-encoding"));
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| Error::invalid("path", "not UTF-8"))
}

/// What RFC 3986 leaves as it is (section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Percent-encodes a segment of a path.
pub fn encode_segment(segment: &str) -> String {
    utf8_percent_encode(segment, UNRESERVED).to_string()
}
