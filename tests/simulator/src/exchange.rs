//! What is sent to the server, and what comes back.

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Path and query.
    pub uri: &'a str,
    /// The header field of that name.
    pub content_type: Option<&'a str>,
    /// Where the part begins that the header field `range` asks for.
    pub range_from: Option<u64>,
    /// The body.
    pub body: &'a [u8],
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}
