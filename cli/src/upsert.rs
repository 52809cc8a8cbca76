//! `upsert`: points from a file or a pipe, batch by batch.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use edge_sync_host::{Error, Receipt, Shard};
use indicatif::ProgressBar;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Upsert;
use crate::input::{self, Body, Incoming, Position, Source, Spot};
use crate::output::{FILE_BAR, SPINNER, counted, exit, grouped, rate};
use crate::session::Session;
use crate::shard::receipt_json;

/// Batches that are read ahead of the one that is written.
const READ_AHEAD: usize = 2;

/// Most bytes of the points of a batch, unless it is one point. A request has at most 32 MiB, and takes
/// several times as much memory while it is read.
const BATCH_BYTES: usize = 4 << 20;

/// The body of `PUT /points` around the points. Each of them begins a line.
const BODY: (&str, &str, &str) = ("{\"points\":[\n", ",\n", "\n]}");

/// What that body has and a point has not.
const BODY_FIELDS: [&str; 5] = [
    "batch",
    "update_mode",
    "update_filter",
    "shard_key",
    "points",
];

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
                    let written = self.write(edge.shard(), &batch.points, &batch.spots, &mut total);
                    outcome = written.and(refused);
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

    /// Writes points and, with `--json`, prints their receipt: what is printed is in the log. If one of
    /// them is refused, those before it are written, as with a line that cannot be read.
    fn write(
        &self,
        shard: &Shard,
        points: &[String],
        spots: &[Spot],
        total: &mut Total,
    ) -> Result<(), Error> {
        if points.is_empty() {
            return Ok(());
        }
        match put(shard, points) {
            Ok(receipt) => self.wrote(receipt, spots, total),
            Err(error) => {
                let Some((index, error)) = blame_point(&error, points, spots) else {
                    return Err(error);
                };
                // Among those before it may be one that is refused for another reason: the shard reads
                // all points before it looks at what the collection takes.
                self.write(shard, &points[..index], &spots[..index], total)?;
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

/// Points on their way as JSON text, and where they came from.
#[derive(Default)]
struct Batch {
    points: Vec<String>,
    spots: Vec<Spot>,
    /// Of the points.
    bytes: usize,
    /// What is wrong with the point after them.
    refused: Option<Error>,
}

impl Batch {
    fn has_room_for(&self, point: &str) -> bool {
        self.points.is_empty() || self.bytes + point.len() <= BATCH_BYTES
    }

    fn push(&mut self, point: String, spot: Spot) {
        self.bytes += point.len();
        self.points.push(point);
        self.spots.push(spot);
    }
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
    // False once nobody listens any more.
    let hand_over = |batch: &mut Batch| sender.send(std::mem::take(batch)).is_ok();
    for (spot, point) in incoming.points {
        match point {
            Ok(point) => {
                if !batch.has_room_for(&point) && !hand_over(&mut batch) {
                    return;
                }
                batch.push(point, spot);
            }
            Err(error) => {
                // After a mistake nobody knows where the next point begins.
                batch.refused = Some(error);
                break;
            }
        }
        if batch.points.len() >= size && !hand_over(&mut batch) {
            return;
        }
    }
    hand_over(&mut batch);
}

/// What the shard answers to a write.
#[derive(Deserialize)]
struct Written {
    /// The sequence of the last operation.
    operation_id: u64,
}

/// Writes points as one request.
fn put(shard: &Shard, points: &[String]) -> Result<Receipt, Error> {
    let result = shard.request("PUT", "/points", &body(points))?;
    let written: Written = serde_json::from_str(&result)
        .map_err(|error| Error::Internal(format!("result: {error}")))?;
    Ok(Receipt {
        sequence: written.operation_id,
        // One for each point.
        operations: u32::try_from(points.len()).unwrap_or(u32::MAX),
    })
}

fn body(points: &[String]) -> String {
    let (begin, between, end) = BODY;
    let bytes: usize = points.iter().map(|point| point.len() + between.len()).sum();
    let mut body = String::with_capacity(begin.len() + bytes + end.len());
    body.push_str(begin);
    for (index, point) in points.iter().enumerate() {
        if index > 0 {
            body.push_str(between);
        }
        body.push_str(point);
    }
    body.push_str(end);
    body
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

/// The point of a batch that the shard refuses, and why, with where that is in the input.
fn blame_point(error: &Error, points: &[String], spots: &[Spot]) -> Option<(usize, Error)> {
    let (field, message) = match error {
        Error::InvalidInput { field, message } => (field.as_str(), message.as_str()),
        Error::Unsupported(why) => why.split_once(": ")?,
        _ => return None,
    };
    let (index, field, message, at) = if let Some((index, field)) = input::point_index(field) {
        let at = input::position_of(points.get(index)?, field);
        (index, field, message, at)
    } else if field.is_empty() {
        // The body as a whole: one with a number that no float holds is no JSON to the shard.
        let (message, at) = input::split_position(message);
        match (at, points) {
            (Some(at), _) => {
                let (index, at) = in_point(points, at)?;
                (index, field, message, Some(at))
            }
            (None, [_]) => (0, field, message, None),
            (None, _) => return None,
        }
    } else {
        return None;
    };
    let message = match BODY_FIELDS.contains(&field) {
        true => format!(
            "`{field}` belongs to a whole body of `PUT /points`, which `upsert --body` takes"
        ),
        false => message.to_owned(),
    };
    let field = spots.get(index)?.of_field(&named(field), at);
    let blamed = match error {
        Error::Unsupported(_) => Error::Unsupported(format!("{field}: {message}")),
        _ => Error::InvalidInput { field, message },
    };
    Some((index, blamed))
}

/// The point that a place of [`body`] is in, and the place in its text.
fn in_point(points: &[String], at: Position) -> Option<(usize, Position)> {
    let mut line = at.line.checked_sub(1).filter(|line| *line > 0)?;
    for (index, point) in points.iter().enumerate() {
        let lines = 1 + point.bytes().filter(|byte| *byte == b'\n').count() as u64;
        if line <= lines {
            return Some((index, Position { line, ..at }));
        }
        line -= lines;
    }
    None
}

/// A path without the default vector's name, which is empty.
fn named(field: &str) -> Cow<'_, str> {
    match field.strip_prefix("vector.") {
        Some(rest) if rest.is_empty() || rest.starts_with(['[', '.']) => {
            Cow::Owned(format!("vector{rest}"))
        }
        _ => Cow::Borrowed(field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Columns, Format};

    /// Points as they are read, and where they stand.
    fn batch(input: &str, format: Format) -> Batch {
        let arguments = Upsert {
            file: None,
            body: None,
            format: Some(format),
            columns: Columns {
                id_column: "id".into(),
                text_columns: Vec::new(),
            },
            batch_size: 100,
        };
        let incoming = input::incoming(&Source::Inline(input.into()), &arguments).unwrap();
        let batch = read(incoming, 100).recv().unwrap();
        assert!(batch.refused.is_none(), "{:?}", batch.refused);
        batch
    }

    fn blamed(input: &str, format: Format, error: &Error) -> Option<(usize, String)> {
        let Batch { points, spots, .. } = batch(input, format);
        blame_point(error, &points, &spots).map(|(index, error)| (index, error.to_string()))
    }

    fn refused(field: &str, message: &str) -> Error {
        Error::InvalidInput {
            field: field.into(),
            message: message.into(),
        }
    }

    #[test]
    fn a_refused_point_is_blamed_on_its_place() {
        let good = "{\"id\":1,\"vector\":[1]}\n";
        let finite = "expected a finite 32-bit number";
        for (bad, field, message, told) in [
            (
                "{\"id\":2}",
                "vector",
                "missing field `vector`",
                "line 2: vector: missing field `vector`",
            ),
            (
                "{\"id\":2,\"vector\":[1,\"a\"]}",
                "vector[1]",
                finite,
                "line 2, column 21: vector[1]: expected a finite 32-bit number",
            ),
            (
                "{\"id\":2,\n \"vector\":\n [1,\n null]}",
                "vector[1]",
                finite,
                "line 5, column 2: vector[1]: expected a finite 32-bit number",
            ),
            (
                "{\"id\":2,\"vector\":{\"\":[1,null]}}",
                "vector.[1]",
                finite,
                "line 2, column 25: vector[1]: expected a finite 32-bit number",
            ),
            (
                "{\"id\":2,\"vector\":[1],\"update_mode\":\"x\"}",
                "update_mode",
                "unknown field `update_mode`, expected one of `id`, `vector`, `payload`",
                "line 2, column 36: update_mode: `update_mode` belongs to a whole body of `PUT /points`, \
                 which `upsert --body` takes",
            ),
        ] {
            let error = refused(&format!("points[1].{field}"), message);
            let found = blamed(&format!("{good}{bad}"), Format::Json, &error);
            assert_eq!(found, Some((1, told.to_owned())), "{bad}");
        }
        // On one line, where the line tells nothing.
        for (input, field, told) in [
            (
                "[{\"id\":1,\"vector\":[1]}, {\"id\":2,\"vector\":[1,\"x\"]}]",
                "vector[1]",
                "line 1, column 45: points[1].vector[1]: no",
            ),
            (
                "[{\"id\":1,\"vector\":[1]}, {\"id\":-2,\"vector\":[1]}]",
                "id",
                "line 1, column 31: points[1].id: no",
            ),
        ] {
            let error = refused(&format!("points[1].{field}"), "no");
            let found = blamed(input, Format::Json, &error);
            assert_eq!(found, Some((1, told.to_owned())), "{input}");
        }
        let whole = "{\"batch\": {\"ids\": [1], \"vectors\": [[1]]}}";
        let found = blamed(whole, Format::Json, &refused("points[0].batch", "unknown"));
        assert!(found.unwrap().1.contains("upsert --body"));
        for elsewhere in ["points[9]", "filter", "points", ""] {
            let found = blamed(
                &format!("{good}{good}"),
                Format::Json,
                &refused(elsewhere, "no"),
            );
            assert_eq!(found, None, "{elsewhere}");
        }
    }

    #[test]
    fn a_text_that_nothing_embeds_is_blamed_on_its_place() {
        let input = "{\"id\":1,\"vector\":[1]}\n{\"id\":2,\"vector\":{\"a\":{\"text\":\"x\",\"model\":\"m\"}}}";
        let why = "points[1].vector.a: embedding with model \"m\"; embed before calling";
        assert_eq!(
            blamed(input, Format::Json, &Error::Unsupported(why.into())),
            Some((
                1,
                "not supported: line 2, column 23: vector.a: embedding with model \"m\"; embed before \
                 calling"
                    .to_owned()
            ))
        );
        let elsewhere = Error::Unsupported("PUT /points: no".into());
        assert_eq!(blamed(input, Format::Json, &elsewhere), None);
    }

    #[cfg(feature = "csv")]
    #[test]
    fn a_refused_row_is_blamed_on_its_column() {
        let table = "id,vector,vector.m\n1,\"[1]\",\"[2]\"\n\n2,\"[1,null]\",\"[2]\"\n";
        for (field, told) in [
            ("vector.[1]", "line 4: vector[1]: no"),
            ("vector.", "line 4: vector: no"),
            ("vector", "line 4: vector: no"),
            ("vector..indices", "line 4: vector.indices: no"),
            ("vector.m[0]", "line 4: vector.m[0]: no"),
            ("id", "line 4: id: no"),
        ] {
            let error = refused(&format!("points[1].{field}"), "no");
            let found = blamed(table, Format::Csv, &error);
            assert_eq!(found, Some((1, told.to_owned())), "{field}");
        }
    }

    #[test]
    fn what_is_no_json_to_the_shard_is_blamed_on_its_place() {
        let input = "{\"id\":1,\n\"vector\":[1]}\n  {\"id\":2,\n \"payload\":1e400}\n{\"id\":3}";
        let Batch { points, spots, .. } = batch(input, Format::Json);
        let body = body(&points);
        let error = serde_json::from_str::<Value>(&body).unwrap_err();
        let error = refused("", &format!("not JSON: {error}"));
        let (index, error) = blame_point(&error, &points, &spots).unwrap();
        assert_eq!(index, 1);
        assert_eq!(
            error.to_string(),
            "line 4, column 16: not JSON: number out of range"
        );
        let too_long = refused("", "JSON payload (33554433 bytes) is larger than allowed");
        assert!(blame_point(&too_long, &points, &spots).is_none());
        let (index, error) = blame_point(&too_long, &points[..1], &spots[..1]).unwrap();
        assert_eq!(index, 0);
        assert!(error.to_string().starts_with("line 1: JSON payload "));
    }

    #[test]
    fn a_body_has_the_points_as_they_are() {
        let points = ["{\"id\": 1}", "{\n\"id\":2}"].map(str::to_owned);
        assert_eq!(
            body(&points),
            "{\"points\":[\n{\"id\": 1},\n{\n\"id\":2}\n]}"
        );
    }

    #[test]
    fn a_batch_is_bounded_in_points_and_in_bytes() {
        let long = "x".repeat(BATCH_BYTES / 8 * 3);
        let points = ["a", "b", "c", &long, &long, &long, "d"].map(str::to_owned);
        let points = points.into_iter().enumerate();
        let incoming = Incoming {
            points: Box::new(points.map(|(at, point)| (Spot::row("row", at as u64), Ok(point)))),
            read: Arc::default(),
        };
        let batches: Vec<(usize, usize)> = read(incoming, 3)
            .iter()
            .map(|batch| (batch.points.len(), batch.spots.len()))
            .collect();
        assert_eq!(batches, [(3, 3), (2, 2), (2, 2)]);
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
        let line = Spot::row("line", 83_100);
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
