//! Where input comes from.

use std::fs::File;
use std::io::{Cursor, ErrorKind, IsTerminal, Read};
use std::path::{Path, PathBuf};

use edge_sync_host::Error;

use crate::arguments::Format;

/// Where a command's input is.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Stdin,
    File(PathBuf),
    /// JSON as an argument of the command.
    Inline(String),
}

/// What a message says about where something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Input of many lines, whose number helps.
    Lines,
    /// An argument, which is one line to whoever typed it.
    Argument,
}

impl Source {
    /// What `argument` names: JSON if it begins with `{` or `[`, else a file; standard input for
    /// none and `-`.
    pub fn new(argument: Option<&Path>) -> Source {
        let Some(path) = argument.filter(|path| *path != Path::new("-")) else {
            return Source::Stdin;
        };
        match path.to_str().filter(|text| is_json(text)) {
            Some(json) => Source::Inline(json.to_owned()),
            None => Source::File(path.to_owned()),
        }
    }

    pub fn place(&self) -> Place {
        match self {
            Source::Inline(_) => Place::Argument,
            Source::Stdin | Source::File(_) => Place::Lines,
        }
    }

    /// What its name says it holds.
    pub fn format(&self) -> Format {
        let extension = match self {
            Source::File(path) => path.extension().and_then(|extension| extension.to_str()),
            Source::Stdin | Source::Inline(_) => None,
        };
        match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("csv") => Format::Csv,
            Some("tsv") => Format::Tsv,
            Some("parquet") => Format::Parquet,
            _ => Format::Json,
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Source::Stdin => "standard input".to_owned(),
            Source::File(path) => path.display().to_string(),
            Source::Inline(_) => "the argument".to_owned(),
        }
    }

    /// Bytes in it, where that is known beforehand.
    pub fn bytes(&self) -> Option<u64> {
        match self {
            Source::Stdin => None,
            Source::File(path) => {
                let metadata = std::fs::metadata(path).ok()?;
                metadata.is_file().then_some(metadata.len())
            }
            Source::Inline(text) => Some(text.len() as u64),
        }
    }

    /// Errors: [`Error::InvalidInput`] for a folder and for a name that no file has; [`Error::Io`].
    pub fn open(&self) -> Result<Box<dyn Read + Send>, Error> {
        match self {
            Source::Stdin => {
                if std::io::stdin().is_terminal() {
                    eprintln!("reading from the terminal; end with Ctrl-D");
                }
                Ok(Box::new(std::io::stdin()))
            }
            Source::File(path) => {
                if path.is_dir() {
                    return Err(Error::InvalidInput {
                        field: path.display().to_string(),
                        message: "that is a folder; expected a file".to_owned(),
                    });
                }
                let file = File::open(path).map_err(|source| not_opened(path, source))?;
                Ok(Box::new(file))
            }
            Source::Inline(text) => Ok(Box::new(Cursor::new(text.clone().into_bytes()))),
        }
    }

    /// All of it as text, without a byte order mark.
    ///
    /// Errors: as [`Source::open`]; [`Error::InvalidInput`] for what is not UTF-8.
    pub fn read(&self) -> Result<String, Error> {
        let mut bytes = Vec::new();
        self.open()?
            .read_to_end(&mut bytes)
            .map_err(|source| self.read_error(source))?;
        if bytes.starts_with(UTF8_MARK) {
            bytes.drain(..UTF8_MARK.len());
        }
        text(bytes).map_err(|message| Error::InvalidInput {
            field: self.name(),
            message,
        })
    }

    pub fn read_error(&self, source: std::io::Error) -> Error {
        Error::Io {
            operation: "read",
            path: self.name().into(),
            source,
        }
    }
}

/// Why a file that somebody named cannot be opened: a wrong name is no failure of the disk.
pub fn not_opened(path: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Error::InvalidInput {
            field: path.display().to_string(),
            message: "there is no such file".to_owned(),
        },
        _ => Error::Io {
            operation: "open",
            path: path.to_owned(),
            source,
        },
    }
}

/// The byte order mark that some editors begin UTF-8 with.
pub const UTF8_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Whether an argument is JSON and not the name of a file.
pub fn is_json(argument: &str) -> bool {
    argument.trim_start().starts_with(['{', '['])
}

/// The bytes as text; the error is the message.
pub fn text(bytes: Vec<u8>) -> Result<String, String> {
    if let Some(why) = utf16(&bytes) {
        return Err(why);
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("not UTF-8: byte {} is in another encoding", at + 1)
    })
}

/// What PowerShell's `>` writes by default.
pub fn utf16(bytes: &[u8]) -> Option<String> {
    (bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF"))
        .then(|| "this is UTF-16; expected UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_json_a_file_or_standard_input() {
        let source = |argument: &str| Source::new(Some(Path::new(argument)));
        assert_eq!(source(" {\"a\": 1}"), Source::Inline(" {\"a\": 1}".into()));
        assert_eq!(source("[1]"), Source::Inline("[1]".into()));
        assert_eq!(source("a.json"), Source::File("a.json".into()));
        assert_eq!(source("-"), Source::Stdin);
        assert_eq!(Source::new(None), Source::Stdin);
    }

    #[test]
    fn what_other_systems_write_is_read_or_named() {
        let folder = tempfile::tempdir().unwrap();
        let read = |bytes: &[u8]| {
            let file = folder.path().join("body.json");
            std::fs::write(&file, bytes).unwrap();
            Source::File(file).read().map_err(|error| error.to_string())
        };
        assert_eq!(read(b"\xEF\xBB\xBF{}\r\n").unwrap(), "{}\r\n");
        assert!(read(b"\xFF\xFE{\0}\0").unwrap_err().contains("UTF-16"));
        assert!(read(b"{\"a\": \"\xE4\"}").unwrap_err().contains("byte 8"));
        let folder = Source::File(folder.path().to_owned());
        let refused = folder.read().unwrap_err().to_string();
        assert!(refused.contains("is a folder"), "{refused}");
        let missing = Source::File("no such folder/no such file".into());
        let refused = missing.read().unwrap_err();
        assert_eq!(refused.kind(), "invalid-input", "{refused}");
    }
}
