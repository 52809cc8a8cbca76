//! How long a server may take, and how much it may answer.

use std::time::Duration;

use crate::setters::setters;

/// Time-outs and size limits of requests to the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HttpLimits {
    /// Longest wait for a connection. Default: 10 s.
    pub connect: Duration,
    /// Longest time from the connection to the first byte of the answer, sending the request
    /// included. Default: 60 s.
    pub first_byte: Duration,
    /// Same for a snapshot, which the server makes first; and the longest silence between the head of
    /// that answer and its body, while the server is busy with a snapshot for somebody else.
    /// Default: 15 minutes.
    pub snapshot_first_byte: Duration,
    /// Longest silence within an answer. Default: 30 s.
    pub between_bytes: Duration,
    /// Largest answer, in bytes. Default: 16 MiB, which is the most that the component reads.
    pub response_bytes: u64,
    /// Largest snapshot, in bytes. Default: 64 GiB.
    pub snapshot_bytes: u64,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(60),
            snapshot_first_byte: Duration::from_secs(900),
            between_bytes: Duration::from_secs(30),
            response_bytes: 16 << 20,
            snapshot_bytes: 64 << 30,
        }
    }
}

setters!(HttpLimits {
    connect: Duration,
    first_byte: Duration,
    snapshot_first_byte: Duration,
    between_bytes: Duration,
    response_bytes: u64,
    snapshot_bytes: u64,
});
