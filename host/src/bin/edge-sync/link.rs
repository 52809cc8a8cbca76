//! Commands on the link to the server: sync, restore, status, rejected.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edge_sync_host::{
    EdgeSync, Error, Progress, QueueStatus, RejectedOperation, RestoreProgress, RestoreReport,
    RestoreSource, Shard, SnapshotSource, SyncPermissions, SyncRecord, SyncReport, SyncerOptions,
    WorkerState,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::Session;
use crate::arguments::{Chosen, Rejected, Restore, Sync};
use crate::data::opened_json;
use crate::output::{BYTES_BAR, COUNT_BAR, SPINNER, bytes, describe, duration, exit, plural};

/// How often `sync --watch` looks for news to print.
const WATCH_TICK: Duration = Duration::from_millis(500);

impl Session {
    pub fn sync(&self, arguments: &Sync) -> Result<u8, Error> {
        let mut builder = EdgeSync::builder(self.settings.component()?, self.settings.data_dir())
            .options(self.settings.shard_options())
            .server(self.settings.server()?)
            .sync_options(self.settings.sync_options());
        if arguments.watch {
            builder = builder.background(SyncerOptions::default());
        }
        if arguments.watch && (arguments.rebind || arguments.resend) {
            return Err(Error::Setting {
                name: "watch",
                message: "--rebind and --resend are for one sync; run that first".to_owned(),
            });
        }
        let edge = builder.open()?;
        self.notes(&edge);
        self.stop_on_interrupt()?;
        if arguments.watch {
            return self.watch(edge);
        }
        let bar = self.output.bar(COUNT_BAR);
        bar.set_message("uploading");
        let permissions = SyncPermissions {
            rebind: arguments.rebind,
            resend: arguments.resend,
        };
        let report = edge.sync_permitted(permissions, &self.cancel, |step| {
            self.show_upload(&bar, &step);
        });
        bar.finish_and_clear();
        let said = report.and_then(|report| {
            self.output.say(&sync_json(&report), &sync_text(&report))?;
            match report.failure {
                Some(failure) => Err(failure),
                None if report.rejected > 0 => Ok(exit::REJECTED),
                None => Ok(0),
            }
        });
        self.close_after(said, edge)
    }

    fn show_upload(&self, bar: &ProgressBar, step: &Progress<'_>) {
        match step {
            Progress::Uploaded { done, total } => {
                bar.set_message("uploading");
                bar.set_length(*total);
                bar.set_position(*done);
            }
            Progress::Rejected { sequence, failure } => {
                let note = format!("the server refuses operation {sequence}: {failure}");
                bar.suspend(|| self.output.note(&note));
            }
            Progress::Waiting { after, failure } => {
                bar.set_message("waiting");
                let note = format!("{failure}; trying again in {:.1} s", after.as_secs_f64());
                bar.suspend(|| self.output.note(&note));
            }
            _ => {}
        }
    }

    /// Prints what the worker does whenever it changes, until interrupted.
    fn watch(&self, edge: EdgeSync) -> Result<u8, Error> {
        let mut shown = None;
        while !self.cancel.is_cancelled() {
            self.notes(&edge);
            let record = edge.sync_record();
            let queued = edge.shard().queue_status()?.queued;
            let error = record
                .last_error
                .as_ref()
                .map(|error| error.message.clone());
            let now = (record.worker, queued, error);
            if shown.as_ref() != Some(&now) {
                let mut value = record_json(&record);
                value["queued"] = json!(queued);
                self.output.say(&value, &watch_text(&record, queued))?;
                shown = Some(now);
            }
            std::thread::sleep(WATCH_TICK);
        }
        // Ends the worker before the shard is closed.
        let shard = edge.shard().clone();
        drop(edge);
        shard.close()?;
        for note in shard.notes() {
            self.output.note(&note);
        }
        Ok(0)
    }

    pub fn restore(&self, arguments: &Restore) -> Result<u8, Error> {
        let mut builder = EdgeSync::builder(self.settings.component()?, self.settings.data_dir())
            .options(self.settings.shard_options())
            .sync_options(self.settings.sync_options());
        let source = match &arguments.snapshot {
            Some(file) => RestoreSource::File(file.clone()),
            None => {
                builder = builder.server(self.settings.server()?);
                RestoreSource::Server(if arguments.stored {
                    SnapshotSource::Stored
                } else {
                    SnapshotSource::Stream
                })
            }
        };
        let edge = builder.attach()?;
        self.notes(&edge);
        self.stop_on_interrupt()?;
        let bar = self.output.bar(SPINNER);
        bar.set_message("asking for the snapshot");
        let run = |force| {
            let show = |step: RestoreProgress<'_>| self.show_restore(&bar, &step);
            let report = if force {
                edge.restore_forced(&source, &self.cancel, show)
            } else {
                edge.restore(&source, &self.cancel, show)
            };
            bar.finish_and_clear();
            report
        };
        let report = match run(arguments.force) {
            Err(error @ Error::WouldDrop { .. }) => self
                .output
                .confirm(&format!("{error}. Restore all the same?"))
                .and_then(|agreed| if agreed { run(true) } else { Err(error) }),
            outcome => outcome,
        };
        let said = report.and_then(|report| {
            let points = edge.shard().info()?.points;
            self.output.say(
                &restore_json(&report, points),
                &restore_text(&report, points, self.settings.data_dir()),
            )
        });
        self.close_after(said.map(|()| 0), edge)
    }

    fn show_restore(&self, bar: &ProgressBar, step: &RestoreProgress<'_>) {
        let style = |template| {
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸─"));
            }
        };
        match step {
            RestoreProgress::Uploading(step) => {
                style(COUNT_BAR);
                self.show_upload(bar, step);
            }
            RestoreProgress::Downloading { bytes, total } => {
                style(if total.is_some() {
                    BYTES_BAR
                } else {
                    "{spinner} {msg} {bytes} {bytes_per_sec}"
                });
                bar.set_message("downloading");
                bar.set_length(total.unwrap_or_default());
                bar.set_position(*bytes);
            }
            RestoreProgress::Waiting { after, failure } => {
                let note = format!("{failure}; trying again in {:.1} s", after.as_secs_f64());
                bar.suspend(|| self.output.note(&note));
            }
            RestoreProgress::Staging => {
                style(SPINNER);
                bar.set_message("unpacking and checking");
            }
            RestoreProgress::Switching => bar.set_message("switching"),
            _ => {}
        }
    }

    pub fn status(&self) -> Result<u8, Error> {
        let directory = self.settings.data_dir();
        let edge = match self.open() {
            Ok(edge) => edge,
            Err(error @ Error::Locked { .. }) => return self.status_of_locked(directory, &error),
            Err(error) => return Err(error),
        };
        let said = self.status_of(&edge);
        self.close_after(said.map(|()| 0), edge)
    }

    fn status_of(&self, edge: &EdgeSync) -> Result<(), Error> {
        let directory = self.settings.data_dir();
        // Of a shard that cannot be loaded, the queue can be told all the same.
        let (info, not_loaded) = match edge.shard().info() {
            Ok(info) => (Some(info), None),
            Err(error @ Error::NotLoaded(_)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let queue = edge.shard().queue_status()?;
        let rejected = edge.shard().rejected()?;
        let record = edge.sync_record();
        let server = self.settings.server_name();
        let next = next_step(&queue, &record, server.is_some());
        let mut value = json!({
            "data_dir": directory,
            "generation": info.as_ref().map(|info| info.generation),
            "points": info.as_ref().map(|info| info.points),
            "indexed_vectors": info.as_ref().map(|info| info.indexed_vectors),
            "segments": info.as_ref().map(|info| info.segments),
            "memory_bytes": info.as_ref().map(|info| info.memory_bytes),
            "not_loaded": not_loaded.as_ref().map(describe),
            "logged": queue.logged,
            "applied": queue.applied,
            "acknowledged": queue.acknowledged,
            "queued": queue.queued,
            "queued_bytes": queue.queued_bytes,
            "oldest_queued_ms": queue.oldest_queued_ms,
            "rejected": queue.rejected,
            "server": server,
            "next": next,
        });
        merge(&mut value, record_json(&record));
        let mut lines = vec![match &info {
            Some(info) => line(
                "shard",
                &format!("{}, generation {}", directory.display(), info.generation),
            ),
            None => line("shard", &directory.display().to_string()),
        }];
        match (&info, &not_loaded) {
            (Some(info), _) => lines.push(line(
                "points",
                &format!(
                    "{} in {} segment{}, {} vector{} indexed",
                    info.points,
                    info.segments,
                    plural(info.segments.into()),
                    info.indexed_vectors,
                    plural(info.indexed_vectors)
                ),
            )),
            (None, Some(error)) => lines.push(line("points", &error.to_string())),
            (None, None) => {}
        }
        lines.extend([
            line(
                "queue",
                &queue_text(
                    queue.queued,
                    Some(queue.queued_bytes),
                    queue.oldest_queued_ms,
                ),
            ),
            line("server", server.as_deref().unwrap_or("none set")),
        ]);
        lines.extend(record_lines(&record));
        lines.extend(rejected_lines(&rejected));
        lines.push(line("next", &next));
        self.output.say(&value, &lines.join("\n"))
    }

    /// What can be said while another process has the directory.
    fn status_of_locked(&self, directory: &Path, error: &Error) -> Result<u8, Error> {
        let record = SyncRecord::load(directory);
        let next = next_of_holder(&record);
        let mut value = json!({
            "data_dir": directory,
            "locked": describe(error),
            "queued": record.queued,
            "oldest_queued_ms": record.oldest_queued_ms,
            "rejected": record.rejected,
            "as_of_ms": record.written_ms,
            "next": next,
        });
        merge(&mut value, record_json(&record));
        let mut lines = vec![
            line("shard", &error.to_string()),
            line(
                "queue",
                &format!(
                    "{} (as of {})",
                    queue_text(record.queued, None, record.oldest_queued_ms),
                    ago(record.written_ms)
                ),
            ),
        ];
        lines.extend(record_lines(&record));
        lines.push(line("rejected", &record.rejected.to_string()));
        lines.push(line("next", &next));
        self.output.say(&value, &lines.join("\n"))?;
        Ok(0)
    }

    pub fn rejected(&self, command: &Rejected) -> Result<u8, Error> {
        let edge = self.open()?;
        let said = self.on_rejected(command, edge.shard());
        self.close_after(said.map(|()| 0), edge)
    }

    fn on_rejected(&self, command: &Rejected, shard: &Shard) -> Result<(), Error> {
        let chosen = |chosen: &Chosen| -> Result<Vec<u64>, Error> {
            if chosen.all {
                return Ok(shard.rejected()?.iter().map(|one| one.sequence).collect());
            }
            Ok(chosen.sequences.clone())
        };
        let (value, text) = match command {
            Rejected::List => {
                let list = shard.rejected()?;
                (
                    list.iter().map(rejected_json).collect(),
                    rejected_text(&list),
                )
            }
            Rejected::Retry(which) => {
                let sequences = chosen(which)?;
                for sequence in &sequences {
                    shard.retry_rejected(*sequence)?;
                }
                let count = sequences.len() as u64;
                (
                    json!({ "retried": sequences }),
                    format!("queued {count} operation{} again", plural(count)),
                )
            }
            Rejected::Drop(which) => {
                let sequences = chosen(which)?;
                for sequence in &sequences {
                    shard.drop_rejected(*sequence)?;
                }
                let count = sequences.len() as u64;
                (
                    json!({ "dropped": sequences }),
                    format!("dropped {count} operation{}", plural(count)),
                )
            }
        };
        self.output.say(&value, &text)
    }
}

fn sync_json(report: &SyncReport) -> Value {
    json!({
        "uploaded": report.uploaded,
        "requests": report.requests,
        "rejected": report.rejected,
        "remaining": report.remaining,
        "created_collection": report.created_collection,
        "failure": report.failure.as_ref().map(describe),
    })
}

fn sync_text(report: &SyncReport) -> String {
    let mut text = format!(
        "uploaded {} operation{} in {} request{}",
        report.uploaded,
        plural(report.uploaded),
        report.requests,
        plural(report.requests)
    );
    if report.created_collection {
        text.push_str(", created the collection");
    }
    if report.rejected > 0 {
        text.push_str(&format!(
            ", the server refused {}: see `edge-sync rejected list`",
            report.rejected
        ));
    }
    if report.remaining > 0 {
        text.push_str(&format!(", {} still waiting", report.remaining));
    }
    text
}

fn restore_json(report: &RestoreReport, points: u64) -> Value {
    let mut value = json!({
        "points": points,
        "snapshot_bytes": report.snapshot_bytes,
        "uploaded": report.uploaded,
        "replayed_while_staging": report.replayed,
    });
    merge(&mut value, opened_json(&report.opened));
    value
}

fn restore_text(report: &RestoreReport, points: u64, directory: &Path) -> String {
    format!(
        "restored {points} point{} from {} into {}, generation {}",
        plural(points),
        bytes(report.snapshot_bytes),
        directory.display(),
        report.opened.generation
    )
}

fn record_json(record: &SyncRecord) -> Value {
    json!({
        "last_sync_ms": record.last_sync_ms,
        "last_error": record.last_error,
        "last_restore_ms": record.last_restore_ms,
        "next_attempt_ms": record.next_attempt_ms,
        "worker": record.worker,
    })
}

fn rejected_json(operation: &RejectedOperation) -> Value {
    json!({
        "sequence": operation.sequence,
        "status": operation.status,
        "message": operation.message,
        "rejected_ms": operation.rejected_ms,
        "operation": serde_json::from_str(&operation.operation)
            .unwrap_or(Value::String(operation.operation.clone())),
    })
}

fn rejected_text(list: &[RejectedOperation]) -> String {
    if list.is_empty() {
        return "the server has refused nothing".to_owned();
    }
    list.iter()
        .map(|one| {
            format!(
                "{} ({}): status {}: {}\n    {}",
                one.sequence,
                ago(one.rejected_ms),
                one.status,
                one.message,
                one.operation
            )
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn watch_text(record: &SyncRecord, queued: u64) -> String {
    let doing = match record.worker {
        Some(WorkerState::Idle) => "in step with the server",
        Some(WorkerState::Uploading) | None => "uploading",
        Some(WorkerState::Waiting) => "waiting to try again",
        Some(WorkerState::Stopped) => "stopped: the server refuses",
        Some(WorkerState::Paused) => "paused",
    };
    match &record.last_error {
        Some(error) => format!("{doing}, {queued} queued: {}", error.message),
        None => format!("{doing}, {queued} queued"),
    }
}

fn next_step(queue: &QueueStatus, record: &SyncRecord, has_server: bool) -> String {
    let stopped = record
        .last_error
        .as_ref()
        .is_some_and(|error| error.class.as_deref() == Some("stop"));
    if queue.queued > 0 && !has_server {
        return "nothing is uploaded until a server is set (--url, --collection)".to_owned();
    }
    if queue.queued > 0 && stopped {
        return "put the settings right, then run `edge-sync sync`".to_owned();
    }
    if queue.queued > 0 {
        return "`edge-sync sync` uploads the queue".to_owned();
    }
    if queue.rejected > 0 {
        return "`edge-sync rejected list`, then `retry` or `drop`".to_owned();
    }
    "nothing to do".to_owned()
}

/// What the process that has the directory does next, as far as it has told.
fn next_of_holder(record: &SyncRecord) -> String {
    let again = || {
        let wait = record.next_attempt_ms.unwrap_or_default();
        match wait.saturating_sub(now_ms()) {
            0 => "soon".to_owned(),
            left => format!("in {}", duration(left)),
        }
    };
    match record.worker {
        Some(WorkerState::Waiting) => format!("that process tries again {}", again()),
        Some(WorkerState::Stopped) => format!(
            "put the settings right and start that process again; as it is, it tries again {}",
            again()
        ),
        Some(WorkerState::Paused) => "that process uploads after its restore".to_owned(),
        Some(WorkerState::Idle) => "that process uploads what is written".to_owned(),
        Some(WorkerState::Uploading) => "that process is uploading".to_owned(),
        None => "that process does not upload by itself".to_owned(),
    }
}

fn line(name: &str, text: &str) -> String {
    format!("{name:<12}{text}")
}

fn queue_text(queued: u64, queued_bytes: Option<u64>, oldest_ms: Option<u64>) -> String {
    if queued == 0 {
        return "empty".to_owned();
    }
    let mut text = format!("{queued} operation{}", plural(queued));
    if let Some(count) = queued_bytes {
        text.push_str(&format!(", {}", bytes(count)));
    }
    if let Some(oldest) = oldest_ms {
        text.push_str(&format!(", the oldest from {}", ago(oldest)));
    }
    text
}

fn record_lines(record: &SyncRecord) -> Vec<String> {
    let mut lines = vec![line(
        "last sync",
        &record.last_sync_ms.map_or("never".to_owned(), ago),
    )];
    if let Some(restored) = record.last_restore_ms {
        lines.push(line("restored", &ago(restored)));
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

fn rejected_lines(rejected: &[RejectedOperation]) -> Vec<String> {
    let Some(first) = rejected.first() else {
        return vec![line("rejected", "none")];
    };
    let count = rejected.len() as u64;
    vec![line(
        "rejected",
        &format!(
            "{count} operation{}; first: {} with status {}: {}",
            plural(count),
            first.sequence,
            first.status,
            first.message
        ),
    )]
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

fn ago(milliseconds: u64) -> String {
    format!("{} ago", duration(now_ms().saturating_sub(milliseconds)))
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}
