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
use crate::input::{self, Body, Incoming, Source, Spot};
use crate::output::{FILE_BAR, SPINNER, counted, exit, grouped, rate};
use crate::shard::receipt_json;

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
                    outcome = self.write(edge.shard(), batch, &mut total).and(refused);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            bar.show(total.points);
        }
        bar.bar.finish_and_clear();
        if let Err(Error::Cancelled) = outcome {
            self.output.interrupted(&total.kept());
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
            // A program is told at least once.
            true if total.points == 0 => self
                .output
                .say(&json!({ "operations": 0, "points": 0 }), ""),
            true => Ok(()),
            false => self.output.say(&Value::Null, &text),
        }
    }

    /// Writes a batch and, with `--json`, prints its receipt: what is printed is in the log.
    fn write(&self, shard: &Shard, batch: Batch, total: &mut Total) -> Result<(), Error> {
        let Batch { points, spots, .. } = batch;
        if points.is_empty() {
            return Ok(());
        }
        match shard.upsert(points.clone()) {
            Ok(receipt) => self.wrote(receipt, &spots, total),
            Err(error) => {
                let Some((index, error)) = blame_point(&error, &spots) else {
                    return Err(error);
                };
                // As with a line that cannot be read, what came before it is written.
                if let (Some(points), Some(spots @ [_, ..])) =
                    (points.get(..index), spots.get(..index))
                {
                    let receipt = shard.upsert(points.to_vec())?;
                    self.wrote(receipt, spots, total)?;
                }
                Err(error)
            }
        }
    }

    fn wrote(&self, receipt: Receipt, spots: &[Spot], total: &mut Total) -> Result<(), Error> {
        let count = spots.len() as u64;
        total.points += count;
        total.sequence = receipt.sequence;
        total.last = spots.last().copied();
        if self.output.json {
            let mut value = receipt_json(receipt);
            value["points"] = json!(count);
            let line = |spot: Option<&Spot>| spot.map(|spot| spot.line);
            value["lines"] = json!([line(spots.first()), line(spots.last())]);
            self.output.say(&value, "")?;
        }
        Ok(())
    }
}

/// Points on their way, and where they came from.
#[derive(Default)]
struct Batch {
    points: Vec<Point>,
    spots: Vec<Spot>,
    /// What is wrong with the point after them.
    refused: Option<Error>,
}

#[derive(Default)]
struct Total {
    points: u64,
    sequence: u64,
    /// Where the last of them stood.
    last: Option<Spot>,
}

impl Total {
    /// What an interrupt leaves, and up to where.
    fn kept(&self) -> String {
        let kept = match self.points {
            0 => return "nothing was written".to_owned(),
            1 => "1 point is kept".to_owned(),
            points => format!("{} are kept", counted(points, "point")),
        };
        match self.last {
            Some(Spot {
                element: Some(element),
                ..
            }) => format!("{kept}, the last is points[{element}]"),
            Some(Spot { unit, line, .. }) => {
                format!("{kept}, the last is on {unit} {}", grouped(line))
            }
            None => kept,
        }
    }
}

/// Reads on a thread of its own: a pipe that gives nothing must not keep an interrupt waiting.
fn read(incoming: Incoming, size: usize) -> Receiver<Batch> {
    let (sender, batches) = sync_channel(READ_AHEAD);
    std::thread::spawn(move || send(incoming, size, &sender));
    batches
}

fn send(incoming: Incoming, size: usize, sender: &SyncSender<Batch>) {
    let mut batch = Batch::default();
    for (spot, point) in incoming.points {
        match point {
            Ok(point) => {
                batch.points.push(point);
                batch.spots.push(spot);
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

/// Turns `points[3].vectors.a` of a batch into where the point came from; also its index.
fn blame_point(error: &Error, spots: &[Spot]) -> Option<(usize, Error)> {
    let Error::InvalidInput { field, message } = error else {
        return None;
    };
    let (index, rest) = input::point_index(field)?;
    let inner = Error::InvalidInput {
        field: rest.to_owned(),
        message: message.clone(),
    };
    Some((index, spots.get(index)?.blame(inner)))
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
        let lines = [10, 12, 13].map(|line| Spot::line("line", line));
        let (index, error) = blame_point(&refused("points[1].vectors.a"), &lines).unwrap();
        assert_eq!(index, 1);
        assert_eq!(
            error.to_string(),
            "line 12: vectors.a: expected 4 values, got 3"
        );
        assert!(blame_point(&refused("points[9]"), &lines).is_none());
        assert!(blame_point(&refused("filter"), &lines).is_none());
        let of_a_list = [Spot {
            column: 9,
            element: Some(36),
            ..lines[0]
        }];
        let (_, error) = blame_point(&refused("points[0].vectors.a"), &of_a_list).unwrap();
        assert_eq!(
            error.to_string(),
            "line 10: points[36].vectors.a: expected 4 values, got 3"
        );
    }

    #[test]
    fn an_interrupt_says_up_to_where_points_are_kept() {
        let kept = |points, last| {
            let total = Total {
                points,
                sequence: points,
                last,
            };
            total.kept()
        };
        let line = Spot::line("line", 83_100);
        assert_eq!(kept(0, None), "nothing was written");
        assert_eq!(
            kept(83_100, Some(line)),
            "83,100 points are kept, the last is on line 83,100"
        );
        let element = Spot {
            element: Some(0),
            ..line
        };
        assert_eq!(
            kept(1, Some(element)),
            "1 point is kept, the last is points[0]"
        );
    }
}
