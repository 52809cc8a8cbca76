//! Commands on the link to the server: sync, restore.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use edge_sync_host::{
    Direction, EdgeSync, Error, Progress, PullReport, RestoreProgress, RestoreReport,
    RestoreSource, SnapshotSource, SourceShard, SyncOptions, SyncPermissions, SyncRecord,
    SyncReport, SyncerOptions, WorkerState,
};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::arguments::{Restore, Sync};
use crate::input;
use crate::output::{
    BYTES_BAR, BYTES_COUNTER, COUNT_BAR, SPINNER, bytes, counted, describe, exit, grouped,
    set_style, wait,
};
use crate::session::Session;
use crate::shard::opened_json;
use crate::status::{again, merge, record_json, shards_text};

/// How often `sync --watch` looks for news to print.
const WATCH_TICK: Duration = Duration::from_millis(500);

/// A wait that is told where there is no terminal to show it.
const LONG_WAIT: Duration = Duration::from_secs(10);

impl Session {
    pub fn sync(&self, arguments: &Sync) -> Result<u8, Error> {
        let mut builder = EdgeSync::builder(self.component()?, self.settings.data_dir())
            .options(self.shard_options())
            .server(self.server(self.settings.server()?))
            .sync_options(self.settings.sync_options());
        if arguments.watch {
            let pull_interval = match arguments.push {
                true => None,
                false => arguments.every.or(SyncerOptions::default().pull_interval),
            };
            builder = builder.background(SyncerOptions::default().pull_interval(pull_interval));
        }
        if arguments.watch && (arguments.rebind || arguments.resend || arguments.create_shard_key) {
            return Err(Error::Setting {
                name: "--watch",
                message:
                    "--rebind, --resend and --create-shard-key are for one sync; run that first"
                        .to_owned(),
            });
        }
        let edge = builder.open()?;
        self.notes(&edge);
        self.stop_on_interrupt()?;
        if arguments.watch {
            return self.watch(edge, !arguments.push);
        }
        let bar = self.output.bar(COUNT_BAR);
        bar.set_message("uploading");
        let permissions = SyncPermissions::default()
            .rebind(arguments.rebind)
            .resend(arguments.resend)
            .create_shard_key(arguments.create_shard_key);
        let direction = match (arguments.push, arguments.pull) {
            (true, _) => Direction::Push,
            (_, true) => Direction::Pull,
            _ => Direction::Both,
        };
        let report = edge.sync_permitted(direction, permissions, &self.cancel, |step| {
            self.show_upload(&bar, &step);
        });
        bar.finish_and_clear();
        let said = report.and_then(|report| {
            if let Some(pulled) = &report.pulled {
                for note in pull_notes(pulled) {
                    self.output.note(&note);
                }
            }
            let text = sync_text(&report, direction);
            if self.output.json || !text.is_empty() {
                self.output.say(&sync_json(&report), &text)?;
            }
            match report.failure {
                Some(Error::Cancelled) => {
                    self.output.interrupted(&match report.remaining {
                        0 => "everything is uploaded; the shard is as it was".to_owned(),
                        1 => "1 operation waits in the queue, which is kept".to_owned(),
                        more => format!(
                            "{} operations wait in the queue, which is kept",
                            grouped(more)
                        ),
                    });
                    Ok(exit::CANCELLED)
                }
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
                set_style(bar, COUNT_BAR);
                bar.set_message("uploading");
                bar.set_length(*total);
                bar.set_position(*done);
            }
            Progress::Rejected { sequence, failure } => {
                let note = format!("the server refuses operation {sequence}: {failure}");
                bar.suspend(|| self.output.note(&note));
            }
            Progress::Waiting { after, failure } => self.show_wait(bar, *after, failure),
            Progress::Pulling(step) => self.show_restore(bar, step),
            _ => {}
        }
    }

    /// On a terminal, why it waits. What it gives up for in the end is the command's error, and is
    /// not printed before; elsewhere a long wait alone is told.
    fn show_wait(&self, bar: &ProgressBar, after: Duration, failure: &Error) {
        set_style(bar, SPINNER);
        bar.set_message(format!("{failure}; trying again in {}", wait(after)));
        if bar.is_hidden() && after >= LONG_WAIT {
            self.output
                .note(&format!("waiting {} before the next attempt", wait(after)));
        }
    }

    /// Prints what the worker does whenever it changes, until interrupted: that is how it ends, and no
    /// failure. `pulls`: it fetches too.
    fn watch(&self, edge: EdgeSync, pulls: bool) -> Result<u8, Error> {
        let mut shown = None;
        while !self.cancel.is_cancelled() {
            self.notes(&edge);
            let record = edge.sync_record();
            let queued = edge.shard().queue_status()?.queued;
            let error = record
                .last_error
                .as_ref()
                .map(|error| error.message.clone());
            let pull_error = record
                .last_pull_error
                .as_ref()
                .map(|error| error.message.clone());
            let now = (
                (record.worker, queued, error, record.next_attempt_ms),
                (record.last_pull_ms, pull_error),
            );
            if shown.as_ref() != Some(&now) {
                let mut value = record_json(&record);
                value["queued"] = json!(queued);
                let text = watch_text(&record, queued, pulls);
                self.output.say(&value, &text)?;
                shown = Some(now);
            }
            std::thread::sleep(WATCH_TICK);
        }
        // Ends the worker before the shard is closed.
        let shard = edge.shard().clone();
        drop(edge);
        let queued = shard.queue_status()?.queued;
        let said = self.output.say(
            &json!({ "stopped": true, "queued": queued }),
            &match queued {
                0 => "stopped: everything is uploaded".to_owned(),
                1 => "stopped: 1 operation waits in the queue, which is kept".to_owned(),
                more => format!(
                    "stopped: {} operations wait in the queue, which is kept",
                    grouped(more)
                ),
            },
        );
        shard.close()?;
        for note in shard.notes() {
            self.output.note(&note);
        }
        said.map(|()| 0)
    }

    pub fn restore(&self, arguments: &Restore) -> Result<u8, Error> {
        let mut builder = EdgeSync::builder(self.component()?, self.settings.data_dir())
            .options(self.shard_options())
            .sync_options(
                self.settings.sync_options().settle(
                    arguments
                        .settle
                        .map_or(SyncOptions::default().settle, Duration::from_secs),
                ),
            );
        let source = match &arguments.snapshot {
            Some(file) => {
                // Before a restore begins that would be remembered as one that failed.
                File::open(file).map_err(|source| input::not_opened(file, source))?;
                RestoreSource::File(file.clone())
            }
            None => {
                builder = builder.server(self.server(self.settings.server()?));
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
        if let Err(Error::Cancelled) = report {
            self.output.interrupted("the shard is as it was");
            return self.close_after(Ok(exit::CANCELLED), edge);
        }
        let said = report.and_then(|report| {
            let points = edge.shard().info()?.points;
            for note in restore_notes(&report) {
                self.output.note(&note);
            }
            self.output.say(
                &restore_json(&report, points),
                &restore_text(&report, points, self.settings.data_dir()),
            )
        });
        self.close_after(said.map(|()| 0), edge)
    }

    fn show_restore(&self, bar: &ProgressBar, step: &RestoreProgress<'_>) {
        let style = |template| set_style(bar, template);
        match step {
            RestoreProgress::Uploading(step) => {
                style(COUNT_BAR);
                self.show_upload(bar, step);
            }
            RestoreProgress::Settling { waited, limit } => {
                style(SPINNER);
                bar.set_message(format!(
                    "waiting for the server's optimizer, {} of at most {} s",
                    waited.as_secs(),
                    limit.as_secs()
                ));
            }
            RestoreProgress::StoredInstead => {
                let note = "the server is busy with another snapshot; it was asked to store one, as \
                            with --stored";
                bar.suspend(|| self.output.note(note));
            }
            RestoreProgress::Downloading { bytes, total } => {
                style(if total.is_some() {
                    BYTES_BAR
                } else {
                    BYTES_COUNTER
                });
                bar.set_message("downloading");
                bar.set_length(total.unwrap_or_default());
                bar.set_position(*bytes);
            }
            RestoreProgress::Waiting { after, failure } => self.show_wait(bar, *after, failure),
            RestoreProgress::Staging => {
                style(SPINNER);
                bar.set_message("unpacking and checking");
            }
            RestoreProgress::Switching => bar.set_message("switching"),
            _ => {}
        }
    }
}

fn sync_json(report: &SyncReport) -> Value {
    json!({
        "uploaded": report.uploaded,
        "requests": report.requests,
        "rejected": report.rejected,
        "remaining": report.remaining,
        "created_collection": report.created_collection,
        "pulled": report.pulled.as_ref().map(pull_json),
        "failure": report.failure.as_ref().map(describe),
    })
}

fn pull_json(report: &PullReport) -> Value {
    json!({
        "changed": report.changed(),
        "generation": report.opened.as_ref().map(|opened| opened.generation),
        "points_before": report.points_before,
        "points": report.points,
        "replayed": report.replayed,
        "received_bytes": report.bytes,
        "shards": report.shards,
        "peer": report.peer,
        "elsewhere": report.elsewhere,
        "received_files": report.pulled.map(|pulled| pulled.received_files),
        "kept_bytes": report.pulled.map(|pulled| pulled.kept_bytes),
        "kept_files": report.pulled.map(|pulled| pulled.kept_files),
        "segments_kept": report.pulled.map(|pulled| pulled.segments_kept),
        "segments_fetched": report.pulled.map(|pulled| pulled.segments_fetched),
        "segments_removed": report.pulled.map(|pulled| pulled.segments_removed),
        "reasons": report.reasons,
        "duplicates_removed": report.duplicates_removed,
        "deletes_applied": report.deletes_applied,
        "unsettled": report.unsettled,
        "elapsed_ms": u64::try_from(report.elapsed.as_millis()).unwrap_or(u64::MAX),
    })
}

fn sync_text(report: &SyncReport, direction: Direction) -> String {
    let mut lines = Vec::new();
    let has_done = report.requests > 0 || report.rejected > 0 || report.created_collection;
    // That nothing came of it says the error.
    if direction != Direction::Pull && (has_done || report.failure.is_none()) {
        lines.push(upload_text(report));
    }
    if let Some(pulled) = &report.pulled {
        lines.push(pull_text(pulled));
    }
    if (direction == Direction::Pull || lines.is_empty()) && report.remaining > 0 {
        lines.push(format!(
            "{} still waiting for upload",
            counted(report.remaining, "operation")
        ));
    }
    lines.join("\n")
}

fn pull_text(report: &PullReport) -> String {
    if !report.changed() {
        return "the server has nothing new".to_owned();
    }
    let mut text = format!(
        "received {}, {} before and {} after",
        bytes(report.bytes),
        counted(report.points_before, "point"),
        grouped(report.points)
    );
    if let Some(pulled) = &report.pulled {
        text.push_str(&format!(
            "; kept {} in {}, fetched {} whole",
            bytes(pulled.kept_bytes),
            counted(pulled.segments_kept, "segment"),
            counted(pulled.segments_fetched, "segment")
        ));
    }
    text.push_str(&sources_text(&report.shards, report.peer));
    text.push_str(&format!(" ({})", wait(report.elapsed)));
    text
}

/// Which shards something came from, and of which peer, where that needs words.
fn sources_text(shards: &[SourceShard], peer: Option<u64>) -> String {
    let shards = shards.iter().map(|it| (it.shard, it.shard_key.as_deref()));
    shards_text(shards, peer).map_or_else(String::new, |shards| format!("; from {shards}"))
}

/// What a person should know of points that went to shards that the device does not follow.
fn elsewhere_note(elsewhere: u64) -> Option<String> {
    (elsewhere > 0).then(|| {
        format!(
            "{} {} to other shards of the collection than the one that is followed: the server has \
             {}, and this shard no longer",
            counted(elsewhere, "point"),
            if elsewhere == 1 { "belongs" } else { "belong" },
            if elsewhere == 1 { "it" } else { "them" },
        )
    })
}

fn pull_notes(report: &PullReport) -> Vec<String> {
    let mut notes: Vec<String> = report
        .reasons
        .iter()
        .map(|reason| format!("fetched more than changed: {reason}"))
        .collect();
    notes.extend(elsewhere_note(report.elsewhere));
    notes.extend(repair_notes(
        report.duplicates_removed,
        report.deletes_applied,
        report.unsettled.as_deref(),
        "sync",
    ));
    notes
}

fn upload_text(report: &SyncReport) -> String {
    let mut text = format!(
        "uploaded {} in {}",
        counted(report.uploaded, "operation"),
        counted(report.requests, "request")
    );
    if report.created_collection {
        text.push_str(", created the collection");
    }
    if report.rejected > 0 {
        text.push_str(&format!(
            ", the server refused {}: see `edge-sync rejected list`",
            grouped(report.rejected)
        ));
    }
    if report.remaining > 0 {
        text.push_str(&format!(", {} still waiting", grouped(report.remaining)));
    }
    text
}

fn restore_json(report: &RestoreReport, points: u64) -> Value {
    let mut value = json!({
        "points": points,
        "snapshot_bytes": report.snapshot_bytes,
        "shards": report.shards,
        "peer": report.peer,
        "elsewhere": report.elsewhere,
        "uploaded": report.uploaded,
        "replayed_while_staging": report.replayed,
        "duplicates_removed": report.duplicates_removed,
        "deletes_applied": report.deletes_applied,
        "unsettled": report.unsettled,
    });
    merge(&mut value, opened_json(&report.opened));
    value
}

/// What a person should know of a snapshot that was not sound.
fn restore_notes(report: &RestoreReport) -> Vec<String> {
    let mut notes = repair_notes(
        report.duplicates_removed,
        report.deletes_applied,
        report.unsettled.as_deref(),
        "restore",
    );
    notes.extend(elsewhere_note(report.elsewhere));
    notes
}

/// `verb`: what brings right what is unsettled.
fn repair_notes(
    duplicates_removed: u64,
    deletes_applied: u64,
    unsettled: Option<&str>,
    verb: &str,
) -> Vec<String> {
    let mut notes = Vec::new();
    if duplicates_removed > 0 {
        notes.push(format!(
            "{} old cop{} of points, which the snapshot held beside the newest, {} removed",
            grouped(duplicates_removed),
            if duplicates_removed == 1 { "y" } else { "ies" },
            if duplicates_removed == 1 {
                "was"
            } else {
                "were"
            },
        ));
    }
    if deletes_applied > 0 {
        notes.push(format!(
            "{} came back with the snapshot and {} deleted again",
            counted(deletes_applied, "deleted point"),
            if deletes_applied == 1 { "was" } else { "were" },
        ));
    }
    if let Some(why) = unsettled {
        notes.push(format!(
            "unsettled: {why}; points that others deleted may be here until the next {verb}"
        ));
    }
    notes
}

fn restore_text(report: &RestoreReport, points: u64, directory: &Path) -> String {
    format!(
        "restored {} from {} into {}, generation {}{}",
        counted(points, "point"),
        bytes(report.snapshot_bytes),
        directory.display(),
        report.opened.generation,
        sources_text(&report.shards, report.peer)
    )
}

fn watch_text(record: &SyncRecord, queued: u64, pulls: bool) -> String {
    let is_drained = queued == 0;
    let queued = grouped(queued);
    let doing = match record.worker {
        Some(WorkerState::Idle) if pulls && record.last_pull_error.is_some() => {
            "uploaded, but what others wrote is not fetched".to_owned()
        }
        Some(WorkerState::Idle) if pulls && record.last_pull_ms.is_none() => "uploaded".to_owned(),
        Some(WorkerState::Idle) => "in step with the server".to_owned(),
        Some(WorkerState::Uploading) | None if is_drained => "asking the server".to_owned(),
        Some(WorkerState::Uploading) | None => "uploading".to_owned(),
        Some(WorkerState::Waiting) => format!("trying again {}", again(record)),
        Some(WorkerState::Stopped) => {
            format!(
                "stopped, the server refuses; trying again {}",
                again(record)
            )
        }
        Some(WorkerState::Paused) => "paused".to_owned(),
    };
    let error = record
        .last_error
        .as_ref()
        .or(record.last_pull_error.as_ref().filter(|_| pulls));
    match error {
        Some(error) => format!("{doing}, {queued} queued: {}", error.message),
        None => format!("{doing}, {queued} queued"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_sync_host::FailureNote;

    #[test]
    fn a_pull_that_failed_is_not_in_step() {
        let mut record = SyncRecord::default();
        record.worker = Some(WorkerState::Idle);
        record.last_pull_ms = Some(1);
        assert_eq!(
            watch_text(&record, 0, true),
            "in step with the server, 0 queued"
        );
        record.last_pull_error = Some(FailureNote {
            message: "the collection is gone".to_owned(),
            ..FailureNote::default()
        });
        let told = watch_text(&record, 0, true);
        assert!(
            told.contains("not fetched") && told.ends_with("is gone"),
            "{told}"
        );
        // Of an earlier process; this one does not pull.
        assert_eq!(
            watch_text(&record, 0, false),
            "in step with the server, 0 queued"
        );
    }
}
