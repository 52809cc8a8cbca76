//! What the command prints, and its exit codes.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use console::style;
use edge_sync_host::{Error, FailureClass, ServerFailure, failure_class_name};
use indicatif::{
    HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::input::placed;

/// Exit codes, as the README and `--help` list them.
pub mod exit {
    /// A bug, a limit (memory, time), or a component that cannot be used.
    pub const INTERNAL: u8 = 1;
    /// Wrong flags or settings.
    pub const USAGE: u8 = 2;
    /// Refused input: malformed JSON, wrong dimension, what the engine cannot do.
    pub const INPUT: u8 = 3;
    /// No such shard, vector or operation.
    pub const NOT_FOUND: u8 = 4;
    /// The file system failed, or stored bytes are damaged.
    pub const STORAGE: u8 = 5;
    /// The server cannot be reached or is busy; the queue is kept, try again.
    pub const UNREACHABLE: u8 = 6;
    /// The server refuses: wrong key, wrong collection; the queue is kept.
    pub const REFUSED: u8 = 7;
    /// Another process has the data directory.
    pub const LOCKED: u8 = 8;
    /// The snapshot cannot be restored; nothing was changed.
    pub const BAD_SNAPSHOT: u8 = 9;
    /// The sync is done, but the server refused some operations: see `edge-sync rejected list`.
    pub const REJECTED: u8 = 10;
    /// A restore would drop many points, so a person has to decide; nothing was changed.
    pub const UNDECIDED: u8 = 11;
    /// Interrupted.
    pub const CANCELLED: u8 = 130;
    /// Whoever read the output has gone away, as of a process that `SIGPIPE` ended.
    pub const CLOSED_PIPE: u8 = 141;
}

/// The exit code that an error ends the command with.
pub fn exit_code(error: &Error) -> u8 {
    match error {
        Error::Setting { .. } | Error::ComponentMissing { .. } => exit::USAGE,
        Error::InvalidInput { .. } | Error::AlreadyExists(_) | Error::Unsupported(_) => exit::INPUT,
        Error::NotFound(_) => exit::NOT_FOUND,
        Error::Storage(_) | Error::Corrupt(_) => exit::STORAGE,
        Error::Server(ServerFailure {
            class: FailureClass::Retry | FailureClass::Unclear,
            ..
        }) => exit::UNREACHABLE,
        Error::Server(_) | Error::LostOperations(_) => exit::REFUSED,
        Error::NotLoaded(cause) => exit_code(cause),
        Error::Locked { .. } => exit::LOCKED,
        Error::BadSnapshot(_) => exit::BAD_SNAPSHOT,
        Error::WouldDrop { .. } => exit::UNDECIDED,
        Error::Cancelled => exit::CANCELLED,
        error if is_closed_pipe(error) => exit::CLOSED_PIPE,
        Error::Io { .. } => exit::STORAGE,
        _ => exit::INTERNAL,
    }
}

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON value a line, on stdout and stderr.
    pub json: bool,
    /// Notes and errors are events of the log, which is JSON.
    pub to_log: bool,
}

/// Under which name notes and errors are in the log.
pub const LOG_TARGET: &str = "edge_sync";

impl Output {
    /// A REST `result`: as one line with `--json`, indented otherwise.
    pub fn rest(self, result: &str) -> Result<(), Error> {
        if self.json && !result.contains('\n') {
            return print(result);
        }
        let value: Value = serde_json::from_str(result)
            .map_err(|error| Error::Internal(format!("result is not JSON: {error}")))?;
        if self.json {
            return print(&value.to_string());
        }
        print(&format!("{value:#}"))
    }

    /// `value` with `--json`, `text` otherwise.
    pub fn say(self, value: &impl Serialize, text: &str) -> Result<(), Error> {
        if !self.json {
            return print(&printable(text));
        }
        print(
            &serde_json::to_string(value)
                .map_err(|error| Error::Internal(format!("output: {error}")))?,
        )
    }

    /// Something that a person should know, on stderr.
    pub fn note(self, note: &str) {
        if self.to_log {
            tracing::info!(target: LOG_TARGET, "{note}");
        } else if self.json {
            complain(&json!({ "note": note }).to_string());
        } else {
            let note = printable(note);
            complain(&format!("{} {note}", style("note:").for_stderr().cyan()));
        }
    }

    /// That somebody stopped the command, and what stays of what it did.
    pub fn interrupted(self, kept: &str) {
        if self.to_log {
            tracing::error!(target: LOG_TARGET, kind = Error::Cancelled.kind(), "interrupted: {kept}");
        } else if self.json {
            let message = format!("interrupted: {kept}");
            let error = json!({ "kind": Error::Cancelled.kind(), "message": message });
            complain(&json!({ "error": error }).to_string());
        } else {
            complain(&format!(
                "{} {kept}",
                style("interrupted:").for_stderr().yellow()
            ));
        }
    }

    /// Asks a person on the terminal. False without one, and with `--json`.
    pub fn confirm(self, question: &str) -> Result<bool, Error> {
        if self.json || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return Ok(false);
        }
        eprint!("{question} [y/N] ");
        let mut answer = String::new();
        std::io::stdin()
            .read_line(&mut answer)
            .map_err(|source| Error::Io {
                operation: "read the answer from",
                path: "the terminal".into(),
                source,
            })?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    /// Wrong flags, as `--json` shows them.
    pub fn usage_error(message: &str) {
        let error = json!({ "kind": "usage", "message": message });
        complain(&json!({ "error": error }).to_string());
    }

    /// A failure, on stderr. `has_shard`: whether there is one that something may wait in.
    pub fn error(self, error: &Error, has_shard: bool) {
        if is_closed_pipe(error) {
            return;
        }
        if matches!(error, Error::Cancelled) {
            return self.interrupted("nothing was changed");
        }
        if self.to_log {
            tracing::error!(target: LOG_TARGET, kind = error.kind(), "{error}");
        } else if self.json {
            complain(&json!({ "error": describe(error) }).to_string());
        } else {
            complain(&format!(
                "{} {}",
                style("error:").for_stderr().red().bold(),
                printable(&error.to_string())
            ));
            if let Some(hint) = hint(error, has_shard) {
                complain(&format!("  {hint}"));
            }
        }
    }

    /// A progress bar on stderr; hidden with `--json` and in a pipe.
    pub fn bar(self, template: &str) -> ProgressBar {
        let bar = ProgressBar::new(0);
        if self.json || self.to_log || !std::io::stderr().is_terminal() {
            bar.set_draw_target(ProgressDrawTarget::hidden());
            return bar;
        }
        set_style(&bar, template);
        bar.enable_steady_tick(Duration::from_millis(120));
        bar
    }
}

/// Changes what a bar shows.
pub fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(
            style
                .progress_chars("━╸─")
                .with_key(
                    "rate",
                    |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = write!(out, "{}/s", rate(state.per_sec()));
                    },
                )
                .with_key(
                    "left",
                    |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = write!(out, "{:#} left", HumanDuration(state.eta()));
                    },
                ),
        );
    }
}

/// Counted things.
pub const COUNT_BAR: &str = "{msg:12} {bar:32} {percent:>3}% {human_pos}/{human_len} {rate} {left}";
/// Bytes.
pub const BYTES_BAR: &str =
    "{msg:12} {bar:32} {percent:>3}% {bytes}/{total_bytes} {bytes_per_sec} {left}";
/// Bytes of unknown number.
pub const BYTES_COUNTER: &str = "{spinner} {msg} {bytes} {bytes_per_sec}";
/// Bytes of a file that points are read from; the message counts the points.
pub const FILE_BAR: &str = "{bar:32} {percent:>3}% {msg} {left}";
/// Work of unknown size.
pub const SPINNER: &str = "{spinner} {msg} {elapsed}";

/// A rate in three digits or whole numbers: `0.52`, `9.1`, `15,858`.
pub fn rate(per_second: f64) -> String {
    if per_second < 1.0 {
        format!("{per_second:.2}")
    } else if per_second < 10.0 {
        format!("{per_second:.1}")
    } else {
        // A rate is far below what a float counts exactly.
        grouped(per_second.round() as u64)
    }
}

/// Text without what a terminal takes for a command: a server's words, a cell of a table, the name of
/// a file may hold that.
fn printable(text: &str) -> Cow<'_, str> {
    let is_command = |character: char| character.is_control() && !matches!(character, '\n' | '\t');
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match is_command(character) {
            true => plain.extend(character.escape_default()),
            false => plain.push(character),
        }
    }
    Cow::Owned(plain)
}

/// A line on stderr, if anybody reads there.
fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

const STDOUT: &str = "stdout";

/// Whether whoever read the output has gone away.
fn is_closed_pipe(error: &Error) -> bool {
    matches!(
        error,
        Error::Io { path, source, .. }
            if source.kind() == std::io::ErrorKind::BrokenPipe && path.as_os_str() == STDOUT
    )
}

/// A line on stdout, flushed: whoever reads it knows that what it says has happened. A reader that
/// has gone away ends the command.
fn print(line: &str) -> Result<(), Error> {
    print_part(&format!("{line}\n"))
}

/// A part of what is printed, as it is; see [`print`].
pub fn print_part(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|source| Error::Io {
            operation: "write to",
            path: STDOUT.into(),
            source,
        })
}

/// An error as `--json` shows it.
pub fn describe(error: &Error) -> Value {
    let mut value = json!({ "kind": error.kind(), "message": error.to_string() });
    let mut add = |name: &str, detail: Value| {
        if let Some(fields) = value.as_object_mut() {
            fields.insert(name.to_owned(), detail);
        }
    };
    match error {
        Error::InvalidInput { field, .. } => {
            let place = placed(field);
            add("field", json!(place.field));
            for (name, number) in [
                ("line", place.line),
                ("row", place.row),
                ("column", place.column),
            ] {
                if let Some(number) = number {
                    add(name, json!(number));
                }
            }
        }
        Error::Storage(failure) => {
            add("operation", json!(failure.operation));
            add("path", json!(failure.path));
            add("no_space", json!(error.is_no_space()));
        }
        Error::Corrupt(corruption) => {
            add("path", json!(corruption.file));
            add("offset", json!(corruption.offset));
        }
        Error::Server(failure) => {
            add("class", json!(failure_class_name(failure.class)));
            add("status", json!(failure.status));
            add("request", json!(failure.request));
            add("retry_after_ms", json!(failure.retry_after_ms));
        }
        Error::Locked { directory, holder } => {
            add("path", json!(directory));
            add("process", json!(holder.as_ref().map(|holder| holder.pid)));
            let details = holder.as_ref();
            add(
                "command",
                json!(details.and_then(|holder| holder.command.as_deref())),
            );
            add(
                "since_ms",
                json!(details.and_then(|holder| holder.since_ms)),
            );
        }
        Error::NoMemory(shortage) => {
            add("needed_bytes", json!(shortage.needed_bytes));
            add("free_bytes", json!(shortage.free_bytes));
            add("limit_bytes", json!(shortage.limit_bytes));
        }
        Error::LostOperations(lost) => {
            add("first", json!(lost.first));
            add("last", json!(lost.last));
        }
        Error::NotLoaded(cause) => add("cause", describe(cause)),
        Error::Setting { name, .. } => add("setting", json!(name)),
        _ => {}
    }
    value
}

/// What a person can do about it.
fn hint(error: &Error, has_shard: bool) -> Option<Cow<'static, str>> {
    let hint = match error {
        Error::NotFound(what) if what.starts_with("there is no shard") => {
            "make one with `edge-sync create` or `edge-sync restore`"
        }
        Error::Server(failure) if !has_shard => {
            return matches!(failure.class, FailureClass::Retry | FailureClass::Unclear)
                .then_some(Cow::Borrowed("nothing was changed; try again"));
        }
        Error::Server(failure) => match (failure.class, failure.retry_after_ms) {
            (FailureClass::Retry | FailureClass::Unclear, Some(after)) if after >= LONG_WAIT_MS => {
                return Some(Cow::Owned(format!(
                    "the server asks to come back in {}; what waits for upload is kept, and \
                     `edge-sync sync` goes on then",
                    duration(after)
                )));
            }
            (FailureClass::Unclear, _) if failure.status == Some(404) => {
                "what waits for upload is kept; is the URL right, with the path behind the host?"
            }
            (FailureClass::Retry | FailureClass::Unclear, _) => {
                "what waits for upload is kept; `edge-sync sync` goes on"
            }
            // The other reasons to stop say what to do.
            (FailureClass::Stop, _) if matches!(failure.status, Some(401 | 403)) => {
                "what waits for upload is kept; check the URL and the API key"
            }
            (FailureClass::Stop, _) => "what waits for upload is kept",
            _ => return None,
        },
        Error::WouldDrop { .. } => "if that is meant: `edge-sync restore --force`",
        Error::MemoryLimit { .. } | Error::NoMemory(_) => {
            "give it more with --memory-mib, up to 4096; reads, deletes and `sync` go on"
        }
        Error::NotLoaded(cause) => return hint(cause, has_shard),
        Error::LostOperations(_) => {
            "`edge-sync sync --resend` queues everything again that the shard holds"
        }
        Error::Storage(_) if error.is_no_space() => {
            "reads, deletes and `sync` go on; writes do once there is room"
        }
        Error::Locked { holder, .. } => {
            let command = holder.as_ref().and_then(|holder| holder.command.as_deref());
            if command == Some("edge-sync serve") {
                "`status`, `rejected list` and `queue show` work beside it; everything else goes \
                 through its REST API"
            } else {
                "`status`, `rejected list` and `queue show` work beside it; everything else can be \
                 done once it has ended"
            }
        }
        _ => return None,
    };
    Some(Cow::Borrowed(hint))
}

/// A wait that a person is told of.
const LONG_WAIT_MS: u64 = 10_000;

/// `0.4 seconds`, `5 minutes`, for people.
pub fn wait(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        return format!("{:.1} seconds", time.as_secs_f64());
    }
    duration(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// `3 minutes`, for people.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    let (count, unit) = match seconds {
        0 => return "less than a second".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", plural(count))
}

/// `12.3 MiB`, for people.
pub fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// `83,100`: how counts are shown to people. What is typed back (a sequence, an id) is not grouped.
pub fn grouped(count: u64) -> String {
    HumanCount(count).to_string()
}

/// `1 point`, `83,100 points`.
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), plural(count))
}

/// The ending of a noun that is counted.
pub fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_failure_have_their_exit_codes() {
        let server = |class| {
            Error::Server(ServerFailure {
                class,
                status: None,
                request: String::new(),
                message: String::new(),
                retry_after_ms: None,
            })
        };
        assert_eq!(exit_code(&server(FailureClass::Retry)), 6);
        assert_eq!(exit_code(&server(FailureClass::Stop)), 7);
        assert_eq!(exit_code(&Error::BadSnapshot(String::new())), 9);
        assert_eq!(exit_code(&Error::Internal(String::new())), 1);
        let locked = Error::Locked {
            directory: "d".into(),
            holder: None,
        };
        assert_eq!(exit_code(&locked), 8);
        assert_eq!(describe(&locked)["process"], Value::Null);
    }

    #[test]
    fn a_server_that_asks_for_a_day_is_told_as_such() {
        let failure = |retry_after_ms| {
            Error::Server(ServerFailure {
                class: FailureClass::Retry,
                status: Some(429),
                request: String::new(),
                message: String::new(),
                retry_after_ms,
            })
        };
        let long = hint(&failure(Some(86_400_000)), true).unwrap();
        assert!(long.contains("in 1 day"), "{long}");
        let short = hint(&failure(Some(500)), true).unwrap();
        assert!(!short.contains("come back") && short.contains("is kept"));
        // Where there is no shard, nothing waits.
        let without = hint(&failure(Some(500)), false).unwrap();
        assert!(!without.contains("is kept"), "{without}");
        assert_eq!(wait(Duration::from_millis(1250)), "1.2 seconds");
        assert_eq!(wait(Duration::from_secs(3600)), "1 hour");
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(counted(1, "point"), "1 point");
        assert_eq!(counted(0, "point"), "0 points");
        assert_eq!(counted(83_100, "point"), "83,100 points");
        assert_eq!(rate(15_857.980_5), "15,858");
        assert_eq!(rate(9.07), "9.1");
        assert_eq!(rate(0.518), "0.52");
    }

    #[test]
    fn a_reader_that_has_gone_away_is_no_failure_of_the_disk() {
        let closed = |path: &str| Error::Io {
            operation: "write to",
            path: path.into(),
            source: std::io::ErrorKind::BrokenPipe.into(),
        };
        assert_eq!(exit_code(&closed("stdout")), exit::CLOSED_PIPE);
        assert_eq!(exit_code(&closed("points.jsonl")), exit::STORAGE);
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        assert_eq!(
            printable("two\nlines\tof text, \u{e4}"),
            "two\nlines\tof text, \u{e4}"
        );
        assert_eq!(printable("\u{1b}[31mred\r"), "\\u{1b}[31mred\\r");
        assert_eq!(printable("\u{9b}2J"), "\\u{9b}2J");
    }

    #[test]
    fn who_is_beside_serve_is_sent_to_its_api() {
        let hint = |command: Option<&str>| {
            let holder = json!({ "pid": 1, "command": command });
            let locked = Error::Locked {
                directory: "d".into(),
                holder: serde_json::from_value(holder).unwrap(),
            };
            super::hint(&locked, true).unwrap()
        };
        assert!(hint(Some("edge-sync serve")).contains("REST"));
        assert!(!hint(Some("edge-sync upsert")).contains("REST"));
        assert!(!hint(None).contains("REST"));
    }

    #[test]
    fn durations_for_people() {
        assert_eq!(duration(999), "less than a second");
        assert_eq!(duration(61_000), "1 minute");
        assert_eq!(duration(7_200_000), "2 hours");
    }
}
