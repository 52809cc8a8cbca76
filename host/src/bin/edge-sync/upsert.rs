//! `upsert`: points from a file or a pipe, batch by batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use edge_sync_host::{Error, Point, Receipt, Shard};
use indicatif::ProgressBar;
use serde_json::{Value, json};

use crate::Session;
use crate::arguments::Upsert;
use crate::data::receipt_json;
use crate::input::{self, Body, Incoming, Source};
use crate::output::{FILE_BAR, SPINNER, counted, exit, rate};

/// Batches that are read ahead of the one that is written.
const READ_AHEAD: usize = 2;

/// How often a wait for input looks whether it is interrupted.
const TICK: Duration = Duration::from_millis(100);

impl Session {
    pub fn upsert(&self, arguments: &Upsert) -> Result<u8, Error> {
        if let Some(file) = &arguments.body {
            return self.upsert_body(&Body::read(Some(file))?);
        }
        let source = Source::new(arguments.file.as_deref());
        let incoming = input::incoming(&source, arguments)?;
        let edge = self.open()?;
        self.stop_on_interrupt()?;
        let unit = incoming.unit;
        let bar = Bar::new(self, &source, Arc::clone(&incoming.read));
        let mut total = Total::default();
        let mut outcome = Ok(());
        let batches = read(incoming, arguments.batch_size as usize);
        while outcome.is_ok() {
            if self.cancel.is_cancelled() {
                outcome = Err(Error::Cancelled);
                break;
            }
            match batches.recv_timeout(TICK) {
                // What came before a bad line is written; the error is about that line alone.
                Ok(mut batch) => {
                    let refused = batch.refused.take().map_or(Ok(()), Err);
                    outcome = self
                        .write(edge.shard(), batch, unit, &mut total)
                        .and(refused);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            bar.show(total.points);
        }
        bar.bar.finish_and_clear();
        if let Err(Error::Cancelled) = outcome {
            self.output.interrupted(&match total.points {
                0 => "nothing was written".to_owned(),
                1 => "1 point is kept".to_owned(),
                points => format!("{} are kept", counted(points, "point")),
            });
            return self.close_after(Ok(exit::CANCELLED), edge);
        }
        let said = self.say_total(&total, outcome.is_ok(), &source);
        self.close_after(outcome.and(said).map(|()| 0), edge)
    }

    /// With `--json`, the receipts have told it.
    fn say_total(&self, total: &Total, is_whole: bool, source: &Source) -> Result<(), Error> {
        let text = match total.points {
            0 if is_whole => format!("nothing to upsert: there is no point in {}", source.name()),
            0 => return Ok(()),
            points => format!(
                "upserted {}, up to sequence {}",
                counted(points, "point"),
                total.sequence
            ),
        };
        match self.output.json {
            true => Ok(()),
            false => self.output.say(&Value::Null, &text),
        }
    }

    /// Writes a batch and, with `--json`, prints its receipt: what is printed is in the log.
    fn write(
        &self,
        shard: &Shard,
        batch: Batch,
        unit: &str,
        total: &mut Total,
    ) -> Result<(), Error> {
        let Batch { points, lines, .. } = batch;
        if points.is_empty() {
            return Ok(());
        }
        match shard.upsert(points.clone()) {
            Ok(receipt) => self.wrote(receipt, &lines, total),
            Err(error) => {
                let Some((index, error)) = blame_line(&error, unit, &lines) else {
                    return Err(error);
                };
                // As with a line that cannot be read, what came before it is written.
                if let (Some(points), Some(lines @ [_, ..])) =
                    (points.get(..index), lines.get(..index))
                {
                    let receipt = shard.upsert(points.to_vec())?;
                    self.wrote(receipt, lines, total)?;
                }
                Err(error)
            }
        }
    }

    fn wrote(&self, receipt: Receipt, lines: &[u64], total: &mut Total) -> Result<(), Error> {
        let count = lines.len() as u64;
        total.points += count;
        total.sequence = receipt.sequence;
        if self.output.json {
            let mut value = receipt_json(receipt);
            value["points"] = json!(count);
            value["lines"] = json!([lines.first(), lines.last()]);
            self.output.say(&value, "")?;
        }
        Ok(())
    }
}

/// Points on their way, and the lines they came from.
#[derive(Default)]
struct Batch {
    points: Vec<Point>,
    lines: Vec<u64>,
    /// What is wrong with the point after them.
    refused: Option<Error>,
}

#[derive(Default)]
struct Total {
    points: u64,
    sequence: u64,
}

/// Reads on a thread of its own: a pipe that gives nothing must not keep an interrupt waiting.
fn read(incoming: Incoming, size: usize) -> Receiver<Batch> {
    let (sender, batches) = sync_channel(READ_AHEAD);
    std::thread::spawn(move || send(incoming, size, &sender));
    batches
}

fn send(incoming: Incoming, size: usize, sender: &SyncSender<Batch>) {
    let mut batch = Batch::default();
    for (line, point) in incoming.points {
        match point {
            Ok(point) => {
                batch.points.push(point);
                batch.lines.push(line);
            }
            Err(error) => batch.refused = Some(error),
        }
        let is_over = batch.refused.is_some();
        if is_over || batch.points.len() >= size {
            let is_heard = sender.send(std::mem::take(&mut batch)).is_ok();
            // After a mistake nobody knows where the next point begins.
            if is_over || !is_heard {
                return;
            }
        }
    }
    let _ = sender.send(batch);
}

/// Percent of a file, or a count where nobody knows how much is to come.
struct Bar {
    bar: ProgressBar,
    read: Arc<AtomicU64>,
    since: Instant,
}

impl Bar {
    fn new(session: &Session, source: &Source, read: Arc<AtomicU64>) -> Bar {
        let bytes = source.bytes();
        let bar = session.output.bar(match bytes {
            Some(_) => FILE_BAR,
            None => SPINNER,
        });
        bar.set_length(bytes.unwrap_or_default());
        bar.set_message("upserting");
        Bar {
            bar,
            read,
            since: Instant::now(),
        }
    }

    fn show(&self, points: u64) {
        let per_second = points as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        self.bar.set_position(self.read.load(Ordering::Relaxed));
        self.bar.set_message(format!(
            "{} {}/s",
            counted(points, "point"),
            rate(per_second)
        ));
    }
}

/// Turns `points[3].vectors.a` into the line that the point came from; also its index.
fn blame_line(error: &Error, unit: &str, lines: &[u64]) -> Option<(usize, Error)> {
    let Error::InvalidInput { field, message } = error else {
        return None;
    };
    let (index, rest) = input::point_index(field)?;
    let inner = Error::InvalidInput {
        field: rest.to_owned(),
        message: message.clone(),
    };
    Some((index, input::on_line(inner, unit, *lines.get(index)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_point_is_blamed_on_its_line() {
        let refused = |field: &str| Error::InvalidInput {
            field: field.into(),
            message: "expected 4 values, got 3".into(),
        };
        let (index, error) =
            blame_line(&refused("points[1].vectors.a"), "line", &[10, 12, 13]).unwrap();
        assert_eq!(index, 1);
        assert_eq!(
            error.to_string(),
            "line 12: vectors.a: expected 4 values, got 3"
        );
        assert!(blame_line(&refused("points[9]"), "line", &[10]).is_none());
        assert!(blame_line(&refused("filter"), "line", &[10]).is_none());
    }
}
