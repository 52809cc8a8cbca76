//! What a file that should be a snapshot is, by its first bytes, and reading the archive in it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;
use tar::Header;

use super::limits::SnapshotLimits;
use crate::error::{Error, Result};

/// How much is looked at; an error that came instead of a snapshot is shorter.
const HEAD_BYTES: u64 = 64 << 10;

/// How much of a text is told.
const SHOWN_CHARS: usize = 200;

/// A compressed archive may always decode to this much: an empty shard is half a GiB of zeros.
const DECODED_AT_LEAST: u64 = 4 << 30;

/// Beyond [`DECODED_AT_LEAST`], this many bytes for each compressed one: vectors hardly compress.
const DECODED_RATIO: u64 = 200;

const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";

/// Formats that are named and not decoded.
const FOREIGN: &[(&[u8], &str)] = &[
    (b"\xfd7zXZ\0", "an xz file"),
    (b"BZh", "a bzip2 file"),
    (b"PK\x03\x04", "a zip file"),
    (b"\x04\x22\x4d\x18", "an lz4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file"),
];

/// Opens the archive in `path`, decoding it where it is compressed.
///
/// Errors: [`Error::BadSnapshot`] names what the file is if it is no archive; [`Error::Storage`].
/// What the reader yields: errors of the operating system, which [`io::Error::raw_os_error`] tells,
/// and errors of the decoder.
pub(super) fn open_archive(path: &Path, limits: SnapshotLimits) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(|error| Error::storage("open", path, &error))?;
    let size = file
        .metadata()
        .map_err(|error| Error::storage("examine", path, &error))?
        .len();
    let file = BufReader::with_capacity(1 << 16, file);
    let (head, file) = peek(file).map_err(|error| unreadable(path, &error))?;
    let limit = limits
        .decoded_bytes
        .min(DECODED_AT_LEAST.max(size.saturating_mul(DECODED_RATIO)));
    let (format, decoded): (_, Box<dyn Read>) = if head.starts_with(GZIP) {
        ("gzip", Box::new(MultiGzDecoder::new(file)))
    } else if head.starts_with(ZSTD) {
        let decoder = zstd::stream::read::Decoder::with_buffer(file).map_err(|error| {
            Error::bad_snapshot(format!(
                "compressed with zstd, which does not begin: {error}"
            ))
        })?;
        ("zstd", Box::new(decoder))
    } else if is_archive(&head) {
        return Ok(Box::new(file));
    } else {
        return Err(Error::bad_snapshot(format!("it is {}", named(&head))));
    };
    let decoded = BufReader::with_capacity(
        1 << 16,
        Bounded {
            decoded,
            limit,
            left: limit,
        },
    );
    let (head, decoded) = peek(decoded).map_err(|error| match error.raw_os_error() {
        Some(_) => unreadable(path, &error),
        None => Error::bad_snapshot(format!("it is compressed ({format}) and damaged: {error}")),
    })?;
    if !is_archive(&head) {
        return Err(Error::bad_snapshot(format!(
            "it is {format}, and in that {}",
            named(&head)
        )));
    }
    Ok(Box::new(decoded))
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    Error::storage("read", path, error)
}

/// The first bytes, and a reader that still has them.
fn peek<R: BufRead>(mut reader: R) -> io::Result<(Vec<u8>, impl BufRead)> {
    let mut head = Vec::new();
    (&mut reader).take(HEAD_BYTES).read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// A decoder's output up to a limit.
struct Bounded {
    decoded: Box<dyn Read>,
    limit: u64,
    left: u64,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoded.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!("it decodes to more than {} bytes", self.limit))
        })?;
        Ok(read)
    }
}

/// Whether this is the beginning of a tar archive: a header whose checksum is right. An empty
/// archive is one too.
fn is_archive(head: &[u8]) -> bool {
    let Some(block) = head.first_chunk::<512>() else {
        return false;
    };
    *block == [0; 512] || block.get(257..262) == Some(b"ustar") || sum_is_right(block)
}

/// Whether a header's checksum is that of its bytes.
pub(super) fn sum_is_right(block: &[u8; 512]) -> bool {
    // The checksum counts itself as spaces.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            u32::from(if (148..156).contains(&at) {
                b' '
            } else {
                *byte
            })
        })
        .sum();
    Header::from_byte_slice(block)
        .cksum()
        .is_ok_and(|stated| stated == sum)
}

/// What a file that begins with `head` is, for a person.
fn named(head: &[u8]) -> String {
    if head.is_empty() {
        return "empty".to_owned();
    }
    if head.starts_with(GZIP) || head.starts_with(ZSTD) {
        return "another compressed file".to_owned();
    }
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return (*name).to_owned();
    }
    let Some(text) = text(head) else {
        return "no archive of any kind".to_owned();
    };
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with('<') && lower.contains("<html") {
        return match between(text, &lower, "<title>", "</title>") {
            Some(title) => format!("an HTML page (\"{}\")", shown(title)),
            None => "an HTML page".to_owned(),
        };
    }
    if text.starts_with(['{', '[']) {
        let words = serde_json::from_str::<Value>(text)
            .ok()
            .and_then(|json| Some(json.pointer("/status/error")?.as_str()?.to_owned()));
        return match words {
            Some(words) => format!("JSON: {}", shown(&words)),
            None => format!("JSON: {}", shown(text)),
        };
    }
    format!("text: {}", shown(text))
}

/// The text that a file begins with, if it is text.
fn text(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head ends within a character.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(head.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let odd = |c: char| c.is_control() && !c.is_whitespace();
    (!text.contains(odd)).then_some(text)
}

/// The part of `text` between two marks, which are looked for in its lower-case twin.
fn between<'a>(text: &'a str, lower: &str, from: &str, to: &str) -> Option<&'a str> {
    let start = lower.find(from)? + from.len();
    let length = lower.get(start..)?.find(to)?;
    text.get(start..start + length)
}

/// One line, not too long.
fn shown(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_archive_is_named() {
        let cases: [(&[u8], &str); 10] = [
            (b"", "empty"),
            (b"\xfd7zXZ\0\0", "an xz file"),
            (b"PK\x03\x04....", "a zip file"),
            (
                b"<!DOCTYPE html><html><head><title>Log in\n please</title>",
                "an HTML page (\"Log in please\")",
            ),
            (b"<html><h1>502 Bad Gateway</h1></html>", "an HTML page"),
            (
                br#"{"status":{"error":"Not found: shard 9 not found"},"time":0.0}"#,
                "JSON: Not found: shard 9 not found",
            ),
            (br#"{"result":true}"#, r#"JSON: {"result":true}"#),
            (
                b"Not found: shard 99 not found",
                "text: Not found: shard 99 not found",
            ),
            (b"\x1f\x8b\x08", "another compressed file"),
            (b"\0\x01\x02\xff", "no archive of any kind"),
        ];
        for (head, expected) in cases {
            assert_eq!(named(head), expected);
            assert!(!is_archive(head));
        }
        let long = "x".repeat(10_000);
        assert_eq!(
            named(long.as_bytes()).len(),
            "text: ...".len() + SHOWN_CHARS
        );
    }
}
