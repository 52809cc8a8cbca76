//! Commands on what waits for upload and on what the server refused.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use edge_sync_host::{
    DirectoryLock, EdgeSync, Error, Peek, Peeked, RejectedOperation, RetryReport, WaitingOperation,
};
use serde_json::{Value, json};

use crate::arguments::{Chosen, Page, Queue, Rejected, Skip};
use crate::output::{bytes, counted, describe, exit_code, grouped, print_part};
use crate::session::Session;
use crate::status::{ago, holder_text, queue_json, queue_text, refusal};

/// Refused operations of a list for people, unless they ask for more.
const LISTED: u32 = 20;

/// Operations asked for at once.
const PAGE: u32 = 500;

/// Longest body that is shown to people as it is.
const SHOWN_BYTES: usize = 2000;

impl Session {
    /// Reads the shard's logs beside whatever process has the directory.
    pub fn peek(&self) -> Result<Peek, Error> {
        Peek::open(
            &self.component()?,
            self.settings.data_dir(),
            &self.shard_options(),
        )
    }

    /// [`Session::peek`], and a note of who has the directory, if somebody has it.
    fn peek_beside(&self) -> Result<Peek, Error> {
        let peek = self.peek()?;
        match DirectoryLock::check(self.settings.data_dir()) {
            Ok(()) => {}
            Err(locked @ Error::Locked { .. }) => self.output.note(&format!(
                "read beside {}, which has the directory",
                holder_text(&locked)
            )),
            Err(error) => return Err(error),
        }
        Ok(peek)
    }

    pub fn queue(&self, command: &Queue) -> Result<u8, Error> {
        match command {
            Queue::Show(page) => self.queue_show(page),
            Queue::Skip(arguments) => self.queue_skip(arguments),
        }
    }

    fn queue_show(&self, page: &Page) -> Result<u8, Error> {
        let peek = self.peek_beside()?;
        let Peeked { queue, .. } = peek.status()?;
        let waiting = waiting_page(page.after, page.limit.unwrap_or(1), |after, count| {
            peek.waiting(after, count)
        })?;
        let mut value = queue_json(&queue);
        value["operations"] = waiting.iter().map(waiting_json).collect();
        let mut lines = vec![queue_text(&queue)];
        lines.extend(waiting.iter().map(waiting_text));
        self.output.say(&value, &lines.join("\n"))?;
        Ok(0)
    }

    fn queue_skip(&self, arguments: &Skip) -> Result<u8, Error> {
        let edge = self.open()?;
        let head = edge.shard().waiting(0, 1)?;
        let Some(head) = head.first() else {
            self.close(edge)?;
            self.output
                .say(&json!({ "skipped": 0 }), "nothing waits for upload")?;
            return Ok(0);
        };
        if !arguments.yes && !self.is_agreed(head, arguments.count)? {
            self.close(edge)?;
            self.output
                .say(&json!({ "skipped": 0 }), "nothing was skipped")?;
            return Ok(0);
        }
        let skipped = edge.skip(arguments.count)?;
        self.output.say(
            &json!({ "skipped": skipped, "first": head.sequence }),
            &format!(
                "moved {} from sequence {} on to the rejected log; \
                 `edge-sync rejected retry` queues {} again",
                counted(skipped.into(), "operation"),
                head.sequence,
                if skipped == 1 { "it" } else { "them" },
            ),
        )?;
        self.close(edge)?;
        Ok(0)
    }

    /// Asks a person. Where there is none, it has to be said beforehand.
    fn is_agreed(&self, head: &WaitingOperation, count: u32) -> Result<bool, Error> {
        if self.output.json || !std::io::stdin().is_terminal() {
            return Err(Error::Setting {
                name: "--yes",
                message: "what is skipped does not reach the server until it is queued again; \
                          give --yes if that is meant"
                    .to_owned(),
            });
        }
        eprintln!("{}", waiting_text(head));
        eprint!(
            "move {} to the rejected log? [y/N] ",
            if count == 1 {
                "it".to_owned()
            } else {
                format!("it and up to {} after it", grouped(u64::from(count) - 1))
            }
        );
        let _ = std::io::stderr().flush();
        let mut answer = String::new();
        std::io::stdin()
            .lock()
            .read_line(&mut answer)
            .map_err(|source| Error::Io {
                operation: "read the answer from",
                path: "stdin".into(),
                source,
            })?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }

    pub fn rejected(&self, command: &Rejected) -> Result<u8, Error> {
        match command {
            Rejected::List(page) => self.rejected_list(page),
            Rejected::Retry(chosen) => self.rejected_retry(chosen),
            Rejected::Drop(chosen) => self.rejected_drop(chosen),
        }
    }

    /// For people some, for programs all, as one array on one line; neither is held as a whole.
    fn rejected_list(&self, page: &Page) -> Result<u8, Error> {
        let peek = self.peek_beside()?;
        let default = if self.output.json { u32::MAX } else { LISTED };
        let mut left = page.limit.unwrap_or(default);
        let mut after = page.after;
        let mut shown = 0_u64;
        while left > 0 {
            let listed = peek.rejected(after, left.min(PAGE))?;
            let Some(last) = listed.last() else { break };
            after = last.sequence;
            left = left.saturating_sub(u32::try_from(listed.len()).unwrap_or(u32::MAX));
            for one in &listed {
                if self.output.json {
                    let separator = if shown == 0 { "[" } else { "," };
                    print_part(&format!("{separator}{}", rejected_json(one)))?;
                } else {
                    self.output.say(&Value::Null, &rejected_text(one))?;
                }
                shown += 1;
            }
        }
        if self.output.json {
            print_part(if shown == 0 { "[]\n" } else { "]\n" })?;
            return Ok(0);
        }
        if shown == 0 && page.after == 0 {
            let text = if peek.status()?.queue.rejected == 0 {
                "the rejected log is empty"
            } else {
                "none listed"
            };
            self.output.say(&Value::Null, text)?;
        } else if !peek.rejected(after, 1)?.is_empty() {
            let all = peek.status()?.queue.rejected;
            let more = match all.saturating_sub(shown) {
                more if page.after == 0 && more > 0 => format!("and {} more", grouped(more)),
                _ => "and more".to_owned(),
            };
            self.output.say(
                &Value::Null,
                &format!("{more}: `edge-sync rejected list --after {after}`"),
            )?;
        }
        Ok(0)
    }

    fn rejected_retry(&self, chosen: &Chosen) -> Result<u8, Error> {
        check_choice(chosen)?;
        let edge = self.open()?;
        let report = retry(&edge, chosen)?;
        let count = report.sequences.len() as u64;
        let mut text = format!("queued {} again", counted(count, "operation"));
        for (sequence, why) in &report.failures {
            text.push_str(&format!("\n{sequence} stays, the shard refuses it: {why}"));
        }
        self.output.say(&retry_json(&report), &text)?;
        self.close(edge)?;
        Ok(report.failures.first().map_or(0, |(_, why)| exit_code(why)))
    }

    fn rejected_drop(&self, chosen: &Chosen) -> Result<u8, Error> {
        check_choice(chosen)?;
        let edge = self.open()?;
        let count = forget(&edge, chosen)?;
        self.output.say(
            &json!({ "dropped": count }),
            &format!("dropped {}", counted(count, "operation")),
        )?;
        self.close(edge)?;
        Ok(0)
    }
}

/// Refuses a choice of what is not there, before anything is done with the rest.
fn check_all(edge: &EdgeSync, chosen: &Chosen) -> Result<(), Error> {
    for sequence in &chosen.sequences {
        let next = edge.shard().rejected(sequence.saturating_sub(1), 1)?;
        if next.first().is_none_or(|found| found.sequence != *sequence) {
            return Err(Error::NotFound(format!(
                "no rejected operation has the sequence {sequence}; nothing was done"
            )));
        }
    }
    Ok(())
}

/// Refuses a choice of nothing: for all of it there is a word.
fn check_choice(chosen: &Chosen) -> Result<(), Error> {
    if chosen.all || !chosen.sequences.is_empty() {
        return Ok(());
    }
    Err(Error::Setting {
        name: "sequences",
        message: "name operations by their sequences, as `edge-sync rejected list` shows them, or \
                  give --all"
            .to_owned(),
    })
}

/// Queues what is chosen again; with an error, nothing after the one that it is about.
pub fn retry(edge: &EdgeSync, chosen: &Chosen) -> Result<RetryReport, Error> {
    if chosen.all {
        return edge.shard().retry_all_rejected();
    }
    check_all(edge, chosen)?;
    let mut report = RetryReport::default();
    for sequence in &chosen.sequences {
        edge.shard().retry_rejected(*sequence)?;
        report.sequences.push(*sequence);
    }
    Ok(report)
}

/// Forgets what is chosen. How many there were.
pub fn forget(edge: &EdgeSync, chosen: &Chosen) -> Result<u64, Error> {
    if chosen.all {
        return edge.shard().drop_rejected_up_to(u64::MAX);
    }
    check_all(edge, chosen)?;
    for sequence in &chosen.sequences {
        edge.shard().drop_rejected(*sequence)?;
    }
    Ok(chosen.sequences.len() as u64)
}

pub fn retry_json(report: &RetryReport) -> Value {
    let failures = report.failures.iter();
    json!({
        "retried": report.sequences,
        "refused": failures
            .map(|(sequence, why)| json!({ "sequence": sequence, "error": describe(why) }))
            .collect::<Vec<_>>(),
    })
}

/// Up to `count` operations that wait, by as many calls as that takes.
pub fn waiting_page(
    mut after: u64,
    count: u32,
    read: impl Fn(u64, u32) -> Result<Vec<WaitingOperation>, Error>,
) -> Result<Vec<WaitingOperation>, Error> {
    let mut all: Vec<WaitingOperation> = Vec::new();
    loop {
        let left = (count as usize).saturating_sub(all.len());
        let page = read(after, u32::try_from(left).unwrap_or(PAGE).min(PAGE))?;
        let Some(last) = page.last().filter(|_| left > 0) else {
            return Ok(all);
        };
        after = last.sequence;
        all.extend(page);
    }
}

pub fn waiting_json(operation: &WaitingOperation) -> Value {
    json!({
        "sequence": operation.sequence,
        "logged_ms": operation.logged_ms,
        "bytes": operation.bytes,
        "method": operation.request.method,
        "path": operation.request.path,
        "body": text_json(&operation.request.body),
    })
}

fn waiting_text(operation: &WaitingOperation) -> String {
    format!(
        "{} ({}, {}): {} {}\n    {}",
        operation.sequence,
        ago(operation.logged_ms),
        bytes(operation.bytes),
        operation.request.method,
        operation.request.path,
        shortened(&operation.request.body)
    )
}

pub fn rejected_json(operation: &RejectedOperation) -> Value {
    json!({
        "sequence": operation.sequence,
        "status": operation.status,
        "message": operation.message,
        "rejected_ms": operation.rejected_ms,
        "operation": text_json(&operation.operation),
    })
}

fn rejected_text(operation: &RejectedOperation) -> String {
    format!(
        "{} ({}) {}\n    {}",
        operation.sequence,
        ago(operation.rejected_ms),
        refusal(operation),
        shortened(&operation.operation)
    )
}

/// JSON text as the value that it is; null for no text.
fn text_json(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

fn shortened(text: &str) -> String {
    if text.len() <= SHOWN_BYTES {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(SHOWN_BYTES);
    format!(
        "{}... ({}; --json shows all)",
        &text[..end],
        bytes(text.len() as u64)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_between_characters() {
        let text = "ä".repeat(SHOWN_BYTES);
        let shown = shortened(&text);
        assert!(
            shown.len() < text.len() && shown.contains("--json"),
            "{shown}"
        );
        assert_eq!(shortened("{}"), "{}");
    }
}
