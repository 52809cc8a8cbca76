//! What the journal's records are; `docs/log-format.md` has the layout.

use std::path::Path;

const BEGIN: u8 = 1;
const FOLDER: u8 = 2;
const FILE: u8 = 3;
const BYTES: u8 = 4;
const ZEROS: u8 = 5;
const RENAME: u8 = 6;
const RENAMED: u8 = 7;
const FILE_WITH_ZEROS: u8 = 8;

/// A record of the journal. Paths are relative to the tree, with `/` between names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A checkpoint of so many entries follows, the first records of the journal.
    Begin { checkpoint: u64, entries: u64 },
    /// A folder of the checkpoint; those in it come later.
    Folder { path: String },
    /// A file of the checkpoint. All of it from `data_length` on is zero.
    File {
        path: String,
        length: u64,
        data_length: u64,
    },
    /// What the file of entry `entry` had at `offset`.
    Bytes {
        entry: u32,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// It had so many zeros there.
    Zeros {
        entry: u32,
        offset: u64,
        length: u64,
    },
    /// Something is about to be moved.
    Rename { from: String, to: String },
    /// It has been.
    Renamed,
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Begin {
                checkpoint,
                entries,
            } => {
                out.push(BEGIN);
                out.extend_from_slice(&checkpoint.to_le_bytes());
                out.extend_from_slice(&entries.to_le_bytes());
            }
            Self::Folder { path } => {
                out.push(FOLDER);
                out.extend_from_slice(path.as_bytes());
            }
            Self::File {
                path,
                length,
                data_length,
            } => {
                let zeros = data_length < length;
                out.push(if zeros { FILE_WITH_ZEROS } else { FILE });
                out.extend_from_slice(&length.to_le_bytes());
                if zeros {
                    out.extend_from_slice(&data_length.to_le_bytes());
                }
                out.extend_from_slice(path.as_bytes());
            }
            Self::Bytes {
                entry,
                offset,
                bytes,
            } => {
                out.reserve(13 + bytes.len());
                out.push(BYTES);
                out.extend_from_slice(&entry.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Zeros {
                entry,
                offset,
                length,
            } => {
                out.push(ZEROS);
                out.extend_from_slice(&entry.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
            }
            Self::Rename { from, to } => {
                out.push(RENAME);
                out.extend_from_slice(&(from.len() as u32).to_le_bytes());
                out.extend_from_slice(from.as_bytes());
                out.extend_from_slice(to.as_bytes());
            }
            Self::Renamed => out.push(RENAMED),
        }
        out
    }

    /// None for bytes that are no record.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let (kind, mut rest) = payload.split_first()?;
        let record = match *kind {
            BEGIN => Self::Begin {
                checkpoint: take_u64(&mut rest)?,
                entries: take_u64(&mut rest)?,
            },
            FOLDER => Self::Folder {
                path: take_path(&mut rest)?,
            },
            FILE => {
                let length = take_u64(&mut rest)?;
                Self::File {
                    length,
                    data_length: length,
                    path: take_path(&mut rest)?,
                }
            }
            FILE_WITH_ZEROS => {
                let length = take_u64(&mut rest)?;
                Self::File {
                    length,
                    data_length: take_u64(&mut rest).filter(|data| *data < length)?,
                    path: take_path(&mut rest)?,
                }
            }
            BYTES => Self::Bytes {
                entry: take_u32(&mut rest)?,
                offset: take_u64(&mut rest)?,
                bytes: std::mem::take(&mut rest).to_vec(),
            },
            ZEROS => Self::Zeros {
                entry: take_u32(&mut rest)?,
                offset: take_u64(&mut rest)?,
                length: take_u64(&mut rest)?,
            },
            RENAME => {
                let length = usize::try_from(take_u32(&mut rest)?).ok()?;
                let (mut from, to) = rest.split_at_checked(length)?;
                rest = to;
                Self::Rename {
                    from: take_path(&mut from)?,
                    to: take_path(&mut rest)?,
                }
            }
            RENAMED => Self::Renamed,
            _ => return None,
        };
        rest.is_empty().then_some(record)
    }
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_le_bytes(*bytes))
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    let (bytes, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_le_bytes(*bytes))
}

/// The rest as a path that stays below the tree.
fn take_path(rest: &mut &[u8]) -> Option<String> {
    let path = String::from_utf8(std::mem::take(rest).to_vec()).ok()?;
    is_below(&path).then_some(path)
}

/// Whether a relative path names something below where it starts.
pub(crate) fn is_below(path: &str) -> bool {
    use std::path::Component;
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let path = || "segments/a/é.dat".to_owned();
        for record in [
            Record::Begin {
                checkpoint: 7,
                entries: 1 << 40,
            },
            Record::Folder { path: path() },
            Record::File {
                path: path(),
                length: u64::MAX,
                data_length: u64::MAX,
            },
            Record::File {
                path: path(),
                length: 32 << 20,
                data_length: 4096,
            },
            Record::Bytes {
                entry: 3,
                offset: 4096,
                bytes: vec![1, 2, 3],
            },
            Record::Zeros {
                entry: 3,
                offset: 0,
                length: 4096,
            },
            Record::Rename {
                from: path(),
                to: "b".to_owned(),
            },
            Record::Renamed,
        ] {
            let encoded = record.encode();
            assert_eq!(Record::decode(&encoded).as_ref(), Some(&record));
            // A part of a record is none, unless what is cut off is of no fixed length.
            if !matches!(
                record,
                Record::Folder { .. }
                    | Record::File { .. }
                    | Record::Bytes { .. }
                    | Record::Rename { .. }
            ) {
                assert_eq!(Record::decode(&encoded[..encoded.len() - 1]), None);
            }
        }
        assert_eq!(Record::decode(&[]), None);
        assert_eq!(Record::decode(&[99]), None);
    }

    #[test]
    fn paths_stay_below_the_tree() {
        for path in ["", "/a", "../a", "a/../../b", "a/./../..", ".."] {
            let record = Record::Folder {
                path: path.to_owned(),
            };
            assert_eq!(Record::decode(&record.encode()), None, "{path}");
        }
    }
}
