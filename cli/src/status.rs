//! What is stored, what waits, what happened last and what comes next.

use std::path::Path;

use edge_sync_clock::now_ms;
use edge_sync_host::{
    EdgeSync, Error, Exchange, FailureNote, Info, Mirror, Peeked, QueueStatus, RejectedOperation,
    SyncRecord, WorkerState,
};
use serde_json::{Value, json};

use crate::output::{bytes, counted, describe, duration, grouped};
use crate::session::Session;

impl Session {
    pub fn status(&self) -> Result<u8, Error> {
        let directory = self.settings.data_dir();
        let edge = match self.open() {
            Ok(edge) => edge,
            Err(error) if is_readable_all_the_same(&error) => {
                return self.status_beside(directory, &error);
            }
            Err(error) => return Err(error),
        };
        // Of a shard that cannot be loaded, the queue can be told all the same.
        let (info, not_loaded) = match edge.shard().info() {
            Ok(info) => (Some(info), None),
            Err(error @ Error::NotLoaded(_)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let queue = edge.shard().queue_status()?;
        let first = edge.shard().rejected(0, 1)?;
        let record = edge.sync_record();
        self.close(edge)?;
        let mirrors = self.peek()?.status()?.mirrors;
        let server = self.settings.server_name();
        let next = match self.settings.contradiction()? {
            Some(bound) => format!(
                "the settings name another collection than {bound}, which this shard is in step \
                 with: leave them out, or see `edge-sync sync --rebind`"
            ),
            None => next_step(&queue, &record, server.is_some()),
        };
        let mut value = json!({
            "data_dir": directory,
            "server": server,
            "part": self.settings.part(),
            "next": next,
        });
        if let Some(info) = &info {
            merge(&mut value, info_json(info));
        }
        value["not_loaded"] = json!(not_loaded.as_ref().map(describe));
        merge(&mut value, queue_json(&queue));
        merge(&mut value, record_json(&record));
        value["mirror"] = mirrors.first().map_or(Value::Null, mirror_json);
        value["mirrors"] = mirrors.iter().map(mirror_json).collect();
        let mut lines = Vec::new();
        if let Some(info) = &info {
            lines.push(line(
                "shard",
                &format!("{}, generation {}", directory.display(), info.generation),
            ));
            lines.push(line(
                "points",
                &format!(
                    "{} in {}, {} indexed",
                    grouped(info.points),
                    counted(info.segments.into(), "segment"),
                    counted(info.indexed_vectors, "vector")
                ),
            ));
        } else {
            lines.push(line("shard", &directory.display().to_string()));
        }
        if let Some(error) = &not_loaded {
            lines.push(line("points", &error.to_string()));
        }
        lines.push(line("queue", &queue_text(&queue)));
        lines.push(line("server", server.as_deref().unwrap_or("none set")));
        lines.extend(self.settings.part_text().map(|part| line("part", &part)));
        lines.push(line("mirror", &mirrors_text(&mirrors)));
        lines.extend(record_lines(&record));
        lines.push(line("rejected", &rejected_text(&queue, first.first())));
        lines.push(line("next", &next));
        self.output.say(&value, &lines.join("\n"))?;
        Ok(0)
    }

    /// What can be read beside the process that has the directory, or where nothing can be written.
    /// How many points there are shows only when the shard is open.
    fn status_beside(&self, directory: &Path, obstacle: &Error) -> Result<u8, Error> {
        let peek = self.peek()?;
        let Peeked {
            generation,
            mirrors,
            queue,
        } = peek.status()?;
        let first = peek.rejected(0, 1)?;
        let record = SyncRecord::load(directory);
        let locked = matches!(obstacle, Error::Locked { .. });
        let (points, next) = if locked {
            let next = next_of_holder(&queue, &record);
            ("known to that process alone", next)
        } else {
            let next = "make the directory writable".to_owned();
            ("not known: the shard cannot be opened", next)
        };
        let name = if locked { "locked" } else { "read_only" };
        let server = self.settings.server_name();
        let mut value = json!({
            "data_dir": directory,
            name: describe(obstacle),
            "generation": generation,
            "points": null,
            "server": server,
            "part": self.settings.part(),
            "next": next,
        });
        merge(&mut value, queue_json(&queue));
        merge(&mut value, record_json(&record));
        value["mirror"] = mirrors.first().map_or(Value::Null, mirror_json);
        value["mirrors"] = mirrors.iter().map(mirror_json).collect();
        let mut lines = vec![
            line(
                "shard",
                &format!("{}, generation {generation}", directory.display()),
            ),
            if locked {
                line("in use by", &holder_text(obstacle))
            } else {
                line("read only", &obstacle.to_string())
            },
            line("points", points),
            line("queue", &queue_text(&queue)),
            line("server", server.as_deref().unwrap_or("none set")),
        ];
        lines.extend(self.settings.part_text().map(|part| line("part", &part)));
        lines.push(line("mirror", &mirrors_text(&mirrors)));
        lines.extend(record_lines(&record));
        lines.push(line("rejected", &rejected_text(&queue, first.first())));
        lines.push(line("next", &next));
        self.output.say(&value, &lines.join("\n"))?;
        Ok(0)
    }
}

/// Whether the logs can be read although the shard cannot be opened.
fn is_readable_all_the_same(error: &Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error {
        Error::Locked { .. } => true,
        Error::Io { source, .. } => matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem),
        _ => false,
    }
}

/// What `status` says of an open shard that uploads to `server`, in JSON.
pub fn status_json(edge: &EdgeSync) -> Result<Value, Error> {
    let mut value = info_json(&edge.shard().info()?);
    let queue = edge.shard().queue_status()?;
    let record = edge.sync_record();
    value["next"] = json!(next_of_holder(&queue, &record));
    merge(&mut value, queue_json(&queue));
    merge(&mut value, record_json(&record));
    Ok(value)
}

fn info_json(info: &Info) -> Value {
    json!({
        "generation": info.generation,
        "points": info.points,
        "indexed_vectors": info.indexed_vectors,
        "segments": info.segments,
        "memory_bytes": info.memory_bytes,
    })
}

pub fn queue_json(queue: &QueueStatus) -> Value {
    json!({
        "logged": queue.logged,
        "applied": queue.applied,
        "acknowledged": queue.acknowledged,
        "queued": queue.queued,
        "queued_bytes": queue.queued_bytes,
        "oldest_queued_ms": queue.oldest_queued_ms,
        "rejected": queue.rejected,
        "refused_in_a_row": queue.refused_in_a_row,
    })
}

pub fn record_json(record: &SyncRecord) -> Value {
    json!({
        "last_sync_ms": record.last_sync_ms,
        "last_error": record.last_error,
        "last_restore_ms": record.last_restore_ms,
        "last_restore_error": record.last_restore_error,
        "last_pull_ms": record.last_pull_ms,
        "last_pull_error": record.last_pull_error,
        "next_pull_ms": record.next_pull_ms,
        "unsettled": record.unsettled,
        "under_way": record.under_way,
        "next_attempt_ms": record.next_attempt_ms,
        "worker": record.worker,
    })
}

fn next_step(queue: &QueueStatus, record: &SyncRecord, has_server: bool) -> String {
    let stopped = is_stop(record.last_error.as_ref());
    if queue.queued > 0 && !has_server {
        return "nothing is uploaded until a server is set (--url, --collection)".to_owned();
    }
    if stopped {
        return "do what the last error says, then run `edge-sync sync`".to_owned();
    }
    if queue.queued > 0 {
        return "`edge-sync sync` uploads the queue".to_owned();
    }
    if has_server && is_stop(record.last_pull_error.as_ref()) {
        return "do what the failed pull says, then run `edge-sync sync`".to_owned();
    }
    if has_server && record.last_pull_error.is_some() {
        return "`edge-sync sync` tries again to fetch what others wrote".to_owned();
    }
    if queue.rejected > 0 {
        return "`edge-sync rejected list`, then `retry` or `drop`".to_owned();
    }
    "nothing to do".to_owned()
}

/// Whether a person is needed.
fn is_stop(error: Option<&FailureNote>) -> bool {
    error.is_some_and(|error| error.class.as_deref() == Some("stop"))
}

/// What the process that has the directory does next, as far as it has told.
fn next_of_holder(queue: &QueueStatus, record: &SyncRecord) -> String {
    match (
        record.under_way.map(|under_way| under_way.what),
        record.worker,
    ) {
        (Some(Exchange::Restore), _) => "that process is restoring".to_owned(),
        (Some(Exchange::Sync), _) => "that process is uploading".to_owned(),
        (Some(Exchange::Pull), _) => "that process fetches what others wrote".to_owned(),
        (None, Some(WorkerState::Waiting)) => {
            format!("that process tries again {}", again(record))
        }
        (None, Some(WorkerState::Stopped)) => format!(
            "do what the last error says; as it is, that process tries again {}",
            again(record)
        ),
        (None, Some(WorkerState::Paused)) => "that process uploads after its restore".to_owned(),
        (None, Some(WorkerState::Idle)) if is_stop(record.last_pull_error.as_ref()) => {
            "do what the failed pull says; as it is, that process tries again now and then"
                .to_owned()
        }
        (None, Some(WorkerState::Idle | WorkerState::Uploading)) if queue.queued == 0 => {
            "that process uploads what is written".to_owned()
        }
        (None, Some(WorkerState::Idle | WorkerState::Uploading)) => {
            "that process is uploading".to_owned()
        }
        (None, None) => "that process does not upload by itself".to_owned(),
    }
}

/// When the worker tries again: `in 5 minutes`.
pub fn again(record: &SyncRecord) -> String {
    let due = record.next_attempt_ms.unwrap_or_default();
    // The worker counts on after the clock was set back; it does not wait longer than it said.
    let longest = due.saturating_sub(record.written_ms);
    match due.saturating_sub(now_ms()).min(longest) {
        0 => "soon".to_owned(),
        left => format!("in {}", duration(left)),
    }
}

/// `process 12, "edge-sync serve", for 5 minutes`.
pub fn holder_text(locked: &Error) -> String {
    let Error::Locked {
        holder: Some(holder),
        ..
    } = locked
    else {
        return "another process".to_owned();
    };
    match holder.since_ms.map(|since| now_ms().checked_sub(since)) {
        Some(Some(since)) => format!("{holder}, for {}", duration(since)),
        _ => holder.to_string(),
    }
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<12}{text}")
}

pub fn queue_text(queue: &QueueStatus) -> String {
    if queue.queued == 0 {
        return "empty".to_owned();
    }
    let mut text = format!(
        "{}, {}",
        counted(queue.queued, "operation"),
        bytes(queue.queued_bytes)
    );
    if let Some(oldest) = queue.oldest_queued_ms {
        text.push_str(&format!(", the oldest from {}", ago(oldest)));
    }
    text
}

/// What the next pull need not fetch of one shard.
pub fn mirror_json(mirror: &Mirror) -> Value {
    json!({
        "url": mirror.of.url,
        "collection": mirror.of.collection,
        "shard": mirror.of.shard,
        "shard_key": mirror.of.shard_key,
        "peer": mirror.peer,
        "segments": mirror.segments,
        "bytes": mirror.bytes,
        "settled": mirror.settled,
    })
}

fn mirrors_text(mirrors: &[Mirror]) -> String {
    if mirrors.is_empty() {
        return "none; a pull fetches everything".to_owned();
    }
    let segments = mirrors.iter().map(|it| u64::from(it.segments)).sum();
    let mut text = format!(
        "{} in {}",
        bytes(mirrors.iter().map(|it| it.bytes).sum()),
        counted(segments, "segment")
    );
    let shards = mirrors
        .iter()
        .map(|mirror| (mirror.of.shard, mirror.of.shard_key.as_deref()));
    let peer = mirrors.first().and_then(|mirror| mirror.peer);
    if let Some(shards) = shards_text(shards, peer) {
        text.push_str(&format!(", of {shards}"));
    }
    text.push_str("; a pull fetches what changed since");
    text
}

/// Shards of a collection on a server, by number and key, and their peer, for people. None for those
/// that need no words: none at all, and the one of a collection that has no other.
pub fn shards_text<'a>(
    shards: impl Iterator<Item = (u32, Option<&'a str>)>,
    peer: Option<u64>,
) -> Option<String> {
    let shards: Vec<_> = shards.collect();
    if matches!(shards[..], [] | [(0, None)]) {
        return None;
    }
    let texts = shards.iter().map(|(shard, key)| match key {
        Some(key) => format!("shard {shard} (key {key})"),
        None => format!("shard {shard}"),
    });
    let mut text = texts.collect::<Vec<_>>().join(", ");
    if let Some(peer) = peer {
        text.push_str(&format!(" of peer {peer}"));
    }
    Some(text)
}

fn record_lines(record: &SyncRecord) -> Vec<String> {
    let mut lines = vec![line(
        "last sync",
        &record.last_sync_ms.map_or("never".to_owned(), ago),
    )];
    lines.push(line(
        "last pull",
        &record.last_pull_ms.map_or("never".to_owned(), ago),
    ));
    if let Some(error) = &record.last_pull_error {
        lines.push(line(
            "pull",
            &format!("failed: {} ({})", error.message, ago(error.at_ms)),
        ));
    }
    if let Some(why) = &record.unsettled {
        lines.push(line("unsettled", why));
    }
    if let Some(restored) = record.last_restore_ms {
        lines.push(line("restored", &ago(restored)));
    }
    if let Some(error) = &record.last_restore_error {
        lines.push(line(
            "restore",
            &format!("failed: {} ({})", error.message, ago(error.at_ms)),
        ));
    }
    if let Some(under_way) = record.under_way {
        let what = match under_way.what {
            Exchange::Sync => "a sync",
            Exchange::Restore => "a restore",
            Exchange::Pull => "a pull",
        };
        lines.push(line(
            "under way",
            &format!("{what}, begun {}", ago(under_way.since_ms)),
        ));
    }
    lines.push(match &record.last_error {
        Some(error) => line(
            "last error",
            &format!("{} ({})", error.message, ago(error.at_ms)),
        ),
        None => line("last error", "none"),
    });
    lines
}

fn rejected_text(queue: &QueueStatus, first: Option<&RejectedOperation>) -> String {
    let Some(first) = first else {
        return "none".to_owned();
    };
    format!(
        "{}; first: {} {}",
        counted(queue.rejected, "operation"),
        first.sequence,
        refusal(first)
    )
}

/// `with status 400: words`; words alone where no answer said so.
pub fn refusal(operation: &RejectedOperation) -> String {
    match operation.status {
        0 => operation.message.clone(),
        status => format!("with status {status}: {}", operation.message),
    }
}

pub fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// `3 minutes ago`.
pub fn ago(milliseconds: u64) -> String {
    since(milliseconds, now_ms())
}

/// A time that is still to come was noted before the clock was set back.
fn since(milliseconds: u64, now: u64) -> String {
    // Clocks are put right by a little all the time.
    const LITTLE_MS: u64 = 5000;
    match now.checked_sub(milliseconds) {
        Some(passed) => format!("{} ago", duration(passed)),
        None if milliseconds - now <= LITTLE_MS => format!("{} ago", duration(0)),
        None => "before the clock was set back".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_back_makes_no_sense_of_what_was_noted_before() {
        assert_eq!(since(1_000_000, 1_000_000), "less than a second ago");
        assert_eq!(since(1_000_000, 1_061_000), "1 minute ago");
        assert_eq!(since(1_001_000, 1_000_000), "less than a second ago");
        assert_eq!(since(9_000_000, 1_000_000), "before the clock was set back");
    }

    #[test]
    fn a_pull_that_failed_is_what_comes_next() {
        let queue = QueueStatus {
            logged: 0,
            applied: 0,
            acknowledged: 0,
            queued: 0,
            queued_bytes: 0,
            oldest_queued_ms: None,
            rejected: 0,
            refused_in_a_row: 0,
            refused_words: String::new(),
        };
        let mut record = SyncRecord::default();
        assert_eq!(next_step(&queue, &record, true), "nothing to do");
        record.last_pull_error = Some(FailureNote::default());
        assert!(next_step(&queue, &record, true).contains("tries again"));
        record.last_pull_error.as_mut().unwrap().class = Some("stop".to_owned());
        assert!(next_step(&queue, &record, true).contains("failed pull says"));
        // Without a server there is nobody to pull from.
        assert_eq!(next_step(&queue, &record, false), "nothing to do");
        record.worker = Some(WorkerState::Uploading);
        assert_eq!(
            next_of_holder(&queue, &record),
            "that process uploads what is written"
        );
    }

    #[test]
    fn the_next_attempt_is_never_further_away_than_the_worker_waits() {
        let mut record = SyncRecord::default();
        assert_eq!(again(&record), "soon");
        record.written_ms = now_ms();
        record.next_attempt_ms = Some(record.written_ms + 300_500);
        assert_eq!(again(&record), "in 5 minutes");
        // Noted when the clock was a day ahead.
        record.written_ms += 86_400_000;
        record.next_attempt_ms = Some(record.written_ms + 60_500);
        assert_eq!(again(&record), "in 1 minute");
        record.written_ms = 1000;
        record.next_attempt_ms = Some(2000);
        assert_eq!(again(&record), "soon");
    }
}
