//! Two devices and a server stay in step, on the handwritten digits. `cargo xtask demo`.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use edge_sync_clients::rest::Client;
use edge_sync_demo::drawing::{self, Ink, Picture};
use edge_sync_demo::neighbours::{self, Neighbour};
use edge_sync_demo::table::{Device, Table};
use edge_sync_double::{Options, QdrantDouble};
use edge_sync_fixtures::digits::{self, Digit, PIXELS, SIDE};
use edge_sync_host::{
    Cancel, Component, Direction, EdgeSync, NamedVector, Point, PointId, Progress, PullReport,
    RestoreProgress, RestoreSource, ScoredPoint, SearchRequest, Secret, Selection, ServerSettings,
    SnapshotSource, SyncPermissions, Vector,
};
use edge_sync_numbers::{self as numbers, grouped};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Two devices and a server stay in step through the edge-sync component, on real data.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask demo", version)]
struct Arguments {
    /// A Qdrant server to use in place of the double; its key is read from QDRANT_API_KEY. A
    /// collection is made there and deleted at the end.
    #[arg(long, value_name = "URL")]
    qdrant_url: Option<String>,
    /// Print the closing table as JSON, and the story to standard error.
    #[arg(long)]
    json: bool,
    /// Neighbours that vote on what a digit is.
    #[arg(long, value_name = "K", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    neighbours: u32,
    /// Searches to draw.
    #[arg(long, value_name = "N", default_value_t = 3)]
    show: usize,
    /// Points in each write.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch_size: u32,
    /// The component [default: $EDGE_SYNC_COMPONENT].
    #[arg(long, value_name = "FILE")]
    component: Option<PathBuf>,
}

type Result<T> = std::result::Result<T, Box<dyn StdError>>;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(table) => {
            let shown = if arguments.json {
                serde_json::to_string_pretty(&table).map(|json| println!("{json}"))
            } else {
                println!("\n{table}");
                Ok(())
            };
            if table.agree && shown.is_ok() {
                ExitCode::SUCCESS
            } else {
                eprintln!("demo: the devices do not agree");
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<Table> {
    let started = Instant::now();
    let digits = digits::load();
    let folder = tempfile::Builder::new()
        .prefix("edge-sync-demo-")
        .tempdir()?;
    let stage = Stage {
        tell: Narrator::new(arguments.json),
        component: load_component(arguments)?,
        server: Server::choose(arguments)?,
        folder: folder.path(),
        arguments,
        digits: &digits,
    };
    let table = stage.play(started);
    // The devices are closed by now, and the server's collection goes whatever happened.
    let cleaned = stage.server.clean_up();
    let table = table?;
    cleaned?;
    folder.close()?;
    Ok(table)
}

fn load_component(arguments: &Arguments) -> Result<Component> {
    let path = Component::find(arguments.component.as_deref())?;
    let spinner = ProgressBar::new_spinner()
        .with_message("loading the component (the first time, it is compiled)");
    spinner.enable_steady_tick(Duration::from_millis(100));
    let component = Component::load(path);
    spinner.finish_and_clear();
    Ok(component?)
}

/// Where the story goes: standard output, or standard error when that is for JSON.
struct Narrator {
    to_stderr: bool,
    ink: Ink,
}

impl Narrator {
    fn new(json: bool) -> Self {
        let is_terminal = if json {
            std::io::stderr().is_terminal()
        } else {
            std::io::stdout().is_terminal()
        };
        Self {
            to_stderr: json,
            ink: Ink::of_terminal(is_terminal),
        }
    }

    fn heading(&self, text: &str) {
        self.print(&format!("\n{text}\n"));
    }

    fn say(&self, text: &str) {
        self.print(&format!("  {text}\n"));
    }

    fn draw(&self, pictures: &[Picture]) {
        let drawn = drawing::side_by_side(pictures, self.ink, 4);
        self.print(&format!("\n{drawn}"));
    }

    fn blank_line(&self) {
        self.print("\n");
    }

    fn print(&self, text: &str) {
        // A reader that went away is no reason to stop.
        let _ = if self.to_stderr {
            std::io::stderr().write_all(text.as_bytes())
        } else {
            std::io::stdout().write_all(text.as_bytes())
        };
    }
}

/// The server's part: the double, or a real one.
struct Server {
    url: String,
    api_key: Option<String>,
    collection: String,
    double: Option<QdrantDouble>,
}

impl Server {
    fn choose(arguments: &Arguments) -> Result<Self> {
        let collection = format!("edge-sync-demo-{:08x}", fastrand::u32(..));
        Ok(match &arguments.qdrant_url {
            Some(url) => Self {
                url: url.clone(),
                api_key: std::env::var("QDRANT_API_KEY")
                    .ok()
                    .filter(|key| !key.is_empty()),
                collection,
                double: None,
            },
            None => {
                let double = QdrantDouble::start(Options {
                    down: true,
                    ..Options::default()
                })?;
                Self {
                    url: double.url(),
                    api_key: None,
                    collection,
                    double: Some(double),
                }
            }
        })
    }

    fn settings(&self) -> ServerSettings {
        let settings = ServerSettings::new(&self.url, &self.collection);
        match &self.api_key {
            Some(key) => settings.api_key(Secret::new(key)),
            None => settings,
        }
    }

    fn client(&self) -> Client {
        Client::new(&self.url, self.api_key.as_deref())
    }

    /// How many points the server says it holds.
    fn count(&self) -> Result<u64> {
        let path = format!("/collections/{}/points/count", self.collection);
        let (status, answer) = self
            .client()
            .call("POST", &path, Some(&json!({"exact": true})))?;
        answer["result"]["count"].as_u64().ok_or_else(|| {
            format!("counting the server's points: status {status}: {answer}").into()
        })
    }

    /// Deletes the collection from a server that stays; the double's goes with it.
    fn clean_up(&self) -> Result<()> {
        if self.double.is_some() {
            return Ok(());
        }
        let path = format!("/collections/{}", self.collection);
        let (status, answer) = self.client().call("DELETE", &path, None)?;
        if status >= 400 {
            return Err(format!(
                "the collection {} could not be deleted from the server: status {status}: {answer}",
                self.collection
            )
            .into());
        }
        Ok(())
    }
}

/// What every act needs.
struct Stage<'a> {
    tell: Narrator,
    component: Component,
    server: Server,
    folder: &'a Path,
    arguments: &'a Arguments,
    digits: &'a [Digit],
}

/// One search of the leave-one-out run: the nearest neighbours of a digit.
type Answers = Vec<Vec<Neighbour>>;

impl Stage<'_> {
    fn play(&self, started: Instant) -> Result<Table> {
        let mut measured_a = Device::default();
        let mut measured_b = Device::default();

        let (a, answers_a) = self.offline(&mut measured_a)?;
        let a = self.online(a, &mut measured_a)?;
        let b = self.device("b").attach()?;
        let answers_b = self.second_device(&b, &answers_a, &mut measured_b)?;
        let found = self.news(&a, &b, &mut measured_a)?;

        measured_a.points = a.shard().info()?.points;
        measured_b.points = b.shard().info()?.points;
        let server_points = self.server.count()?;
        self.tell.heading("What was measured");
        Ok(Table {
            digits: self.digits.len(),
            neighbours: self.arguments.neighbours as usize,
            server_points,
            agree: found
                && answers_a == answers_b
                && measured_a.accuracy == measured_b.accuracy
                && measured_a.points == server_points
                && measured_b.points == server_points,
            device_a: measured_a,
            device_b: measured_b,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// A device that knows the server.
    fn device(&self, name: &str) -> edge_sync_host::Builder {
        EdgeSync::builder(self.component.clone(), self.folder.join(name))
            .server(self.server.settings())
    }

    /// Device A indexes the digits and searches, without a server.
    fn offline(&self, measured: &mut Device) -> Result<(EdgeSync, Answers)> {
        let config = json!({"vectors": {"size": PIXELS, "distance": "Euclid"}}).to_string();
        let a = if self.server.double.is_some() {
            self.tell.heading("1. The server is down. Device A works.");
            self.device("a").create(&config)?
        } else {
            self.tell.heading("1. Device A is offline, and works.");
            EdgeSync::builder(self.component.clone(), self.folder.join("a")).create(&config)?
        };

        let points: Vec<Point> = self.digits.iter().map(point_of).collect();
        let (_, elapsed) = timed(|| self.upsert(&a, points))?;
        let rate = per_second(self.digits.len(), elapsed);
        measured.upserts_per_second = Some(rate);
        self.tell.say(&format!(
            "{} digits indexed in {} ({} a second), each batch of {} on disk before its call returned",
            grouped(self.digits.len() as u64),
            numbers::seconds(elapsed.as_secs_f64()),
            numbers::rate(Some(rate)),
            self.arguments.batch_size,
        ));
        self.try_to_sync(&a)?;

        for query in self.shown() {
            let found = a.shard().search(with_vectors(query.pixels, 4))?;
            // The first is the digit itself.
            let mut pictures = vec![picture(&query.pixels, [format!("query: {}", query.label)])];
            let others = found
                .iter()
                .filter(|found| !matches!(found.id, PointId::Num(id) if id == query.row));
            for neighbour in others.take(3) {
                pictures.push(picture_of(neighbour)?);
            }
            self.tell.draw(&pictures);
        }
        self.tell.blank_line();
        let answers = self.leave_one_out("A", &a, measured)?;
        Ok((a, answers))
    }

    /// Shows that without a server nothing is lost: the failure, and what waits.
    fn try_to_sync(&self, a: &EdgeSync) -> Result<()> {
        if self.server.double.is_some() {
            let cancel = Cancel::new();
            // The first failure tells enough.
            let report = a.sync_with(&cancel, |progress| {
                if let Progress::Waiting { .. } = progress {
                    cancel.cancel();
                }
            })?;
            let failure = report
                .failure
                .ok_or("a sync succeeded while the server was down")?;
            self.tell.say(&format!("sync fails: {failure}"));
        }
        let queue = a.shard().queue_status()?;
        self.tell.say(&format!(
            "{} operations wait in the queue on disk",
            grouped(queue.queued)
        ));
        Ok(())
    }

    /// The server comes up, and A's queue drains.
    fn online(&self, mut a: EdgeSync, measured: &mut Device) -> Result<EdgeSync> {
        match &self.server.double {
            Some(double) => {
                self.tell
                    .heading("2. The server comes up. Device A uploads.");
                double.resume()?;
            }
            None => {
                self.tell.heading("2. Device A goes online, and uploads.");
                drop(a);
                a = self.device("a").open()?;
            }
        }
        measured.uploads_per_second = Some(self.sync(&a, Direction::Push)?.0);
        self.tell.say(&format!(
            "the server holds {} points",
            grouped(self.server.count()?)
        ));
        Ok(a)
    }

    /// Device B is restored from the server and has to answer as A does.
    fn second_device(
        &self,
        b: &EdgeSync,
        answers_a: &Answers,
        measured: &mut Device,
    ) -> Result<Answers> {
        self.tell
            .heading("3. Device B is new: it restores from the server's snapshot.");
        self.restore(b, measured)?;
        let answers = self.leave_one_out("B", b, measured)?;
        let different = answers
            .iter()
            .zip(answers_a)
            .filter(|(of_b, of_a)| of_b != of_a)
            .count();
        self.tell.say(&if different == 0 {
            "every answer is A's: same ids, same distances".to_owned()
        } else {
            format!("{different} answers are NOT those of A")
        });
        Ok(answers)
    }

    /// B writes, both sync, and A has to find it. True if it does.
    fn news(&self, a: &EdgeSync, b: &EdgeSync, measured_a: &mut Device) -> Result<bool> {
        self.tell
            .heading("4. Device B writes, both sync, and A has it.");
        let sources = self.shown();
        let news: Vec<New> = (self.digits.len() as u64..)
            .zip(CHANGES)
            .zip(sources.iter().cycle())
            .map(|((id, change), digit)| New::of(id, digit, change))
            .collect();
        let points: Vec<Point> = news.iter().map(New::point).collect();
        self.upsert(b, points)?;
        self.tell
            .say(&format!("B adds {} digits of its own", news.len()));
        // A rate over so few would say nothing.
        self.sync(b, Direction::Both)?;
        let (_, pulled) = self.sync(a, Direction::Both)?;
        let pulled = pulled.ok_or("a sync in both directions fetched nothing")?;
        measured_a.fetch_seconds = pulled.elapsed.as_secs_f64();
        measured_a.fetched_bytes = pulled.bytes;

        let mut all_found = true;
        for new in &news {
            let found = a.shard().search(with_vectors(new.pixels, 3))?;
            all_found &= found.first().is_some_and(|first| {
                matches!(first.id, PointId::Num(id) if id == new.id) && first.score == 0.0
            });
            let caption = [format!("query: {}", new.label), new.change.to_owned()];
            let mut pictures = vec![picture(&new.pixels, caption)];
            for neighbour in &found {
                pictures.push(picture_of(neighbour)?);
            }
            self.tell.draw(&pictures);
        }
        self.tell.blank_line();
        self.tell.say(if all_found {
            "A finds each of them"
        } else {
            "A does NOT find each of them"
        });
        Ok(all_found)
    }

    fn upsert(&self, device: &EdgeSync, points: Vec<Point>) -> Result<()> {
        let bar = self.bar("indexing", points.len() as u64);
        for batch in points.chunks(self.arguments.batch_size as usize) {
            device.shard().upsert(batch.to_vec())?;
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Uploads what waits, and fetches what others wrote if it is asked for; answers operations
    /// uploaded a second, and what came.
    fn sync(&self, device: &EdgeSync, direction: Direction) -> Result<(f64, Option<PullReport>)> {
        let bar = self.bar("uploading", device.shard().queue_status()?.queued);
        let permissions = SyncPermissions::default();
        let (report, elapsed) = timed(|| {
            let report =
                device.sync_permitted(direction, permissions, &Cancel::new(), |progress| {
                    match progress {
                        Progress::Uploaded { done, total } => {
                            bar.set_length(total);
                            bar.set_position(done);
                        }
                        Progress::Waiting { failure, .. } => bar.println(format!("  {failure}")),
                        Progress::Pulling(_) => bar.set_message("fetching"),
                        _ => {}
                    }
                });
            Ok(report?.into_result()?)
        })?;
        bar.finish_and_clear();
        let elapsed = match &report.pulled {
            Some(pulled) => elapsed.saturating_sub(pulled.elapsed),
            None => elapsed,
        };
        let rate = per_second(report.uploaded, elapsed);
        self.tell.say(&format!(
            "{} operations uploaded in {} request{} in {}",
            grouped(report.uploaded),
            grouped(report.requests),
            if report.requests == 1 { "" } else { "s" },
            numbers::seconds(elapsed.as_secs_f64()),
        ));
        if let Some(pulled) = &report.pulled {
            self.tell.say(&match &pulled.opened {
                Some(_) => format!(
                    "{} received and {} kept in {}: {} points",
                    numbers::bytes(pulled.bytes),
                    numbers::bytes(pulled.pulled.map_or(0, |pulled| pulled.kept_bytes)),
                    numbers::seconds(pulled.elapsed.as_secs_f64()),
                    grouped(pulled.points),
                ),
                None => "the server has nothing new".to_owned(),
            });
        }
        Ok((rate, report.pulled))
    }

    fn restore(&self, device: &EdgeSync, measured: &mut Device) -> Result<()> {
        let bar = self.bytes_bar();
        let source = RestoreSource::Server(SnapshotSource::Stream);
        let (report, elapsed) = timed(|| {
            let report = device.restore(&source, &Cancel::new(), |progress| match progress {
                RestoreProgress::Downloading { bytes, total } => {
                    if let Some(total) = total {
                        bar.set_length(total);
                    }
                    bar.set_position(bytes);
                }
                RestoreProgress::Waiting { failure, .. } => bar.println(format!("  {failure}")),
                RestoreProgress::Staging => bar.set_message("unpacking and checking"),
                RestoreProgress::Switching => bar.set_message("switching"),
                _ => {}
            });
            Ok(report?)
        })?;
        bar.finish_and_clear();
        measured.fetch_seconds = elapsed.as_secs_f64();
        measured.fetched_bytes = report.snapshot_bytes;
        self.tell.say(&format!(
            "snapshot of {} downloaded, checked and switched to in {}: {} points",
            numbers::bytes(report.snapshot_bytes),
            numbers::seconds(elapsed.as_secs_f64()),
            grouped(report.points),
        ));
        Ok(())
    }

    /// Asks for the neighbours of every digit, itself left out, and lets them vote.
    fn leave_one_out(
        &self,
        name: &str,
        device: &EdgeSync,
        measured: &mut Device,
    ) -> Result<Answers> {
        let k = self.arguments.neighbours;
        let bar = self.bar("searching", self.digits.len() as u64);
        let shard = device.shard();
        let (found, elapsed) = timed(|| {
            let mut found = Vec::with_capacity(self.digits.len());
            for digit in self.digits {
                // Twice as many as vote, so that points equally far are compared as a whole.
                let mut request = SearchRequest::like_point("", PointId::Num(digit.row), 2 * k);
                request.params = Some(r#"{"exact": true}"#.to_owned());
                found.push(shard.search(request)?);
                bar.inc(1);
            }
            Ok(found)
        })?;
        bar.finish_and_clear();
        let mut answers = Vec::with_capacity(found.len());
        let mut right = 0_usize;
        for (found, digit) in found.iter().zip(self.digits) {
            let neighbours = found.iter().map(neighbour_of).collect::<Result<Vec<_>>>()?;
            let neighbours = neighbours::nearest(neighbours, k as usize);
            right += usize::from(neighbours::vote(&neighbours) == Some(digit.label));
            answers.push(neighbours);
        }
        measured.accuracy = right as f64 / self.digits.len() as f64;
        measured.searches_per_second = per_second(self.digits.len(), elapsed);
        self.tell.say(&format!(
            "{name} names {} of its {} digits rightly by their {k} nearest neighbours, at {} searches a second",
            numbers::percent(measured.accuracy),
            grouped(self.digits.len() as u64),
            numbers::rate(Some(measured.searches_per_second)),
        ));
        Ok(answers)
    }

    /// The digits that are drawn: spread evenly over the data set.
    fn shown(&self) -> Vec<&Digit> {
        let wanted = self.arguments.show.clamp(1, self.digits.len());
        let step = self.digits.len() / wanted;
        self.digits
            .iter()
            .skip(step / 2)
            .step_by(step)
            .take(wanted)
            .collect()
    }

    /// Nothing is drawn where standard error is not a terminal.
    fn bar(&self, what: &'static str, length: u64) -> ProgressBar {
        ProgressBar::new(length)
            .with_style(style(
                "  {msg} {wide_bar} {human_pos}/{human_len} {per_sec}",
            ))
            .with_message(what)
    }

    fn bytes_bar(&self) -> ProgressBar {
        ProgressBar::no_length()
            .with_style(style("  {spinner} {msg} {decimal_bytes}"))
            .with_message("downloading")
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What B makes of a digit.
struct New {
    id: u64,
    label: u8,
    change: &'static str,
    pixels: [f32; PIXELS],
}

/// What B does to digits: a name, and which pixel and what shade goes to a row and column.
type Change = (&'static str, fn(&Digit, usize, usize) -> f32);

const CHANGES: [Change; 3] = [
    ("inverted", |digit, row, column| {
        16.0 - pixel(digit, row, column)
    }),
    ("shifted", |digit, row, column| {
        match column.checked_sub(1) {
            Some(left) => pixel(digit, row, left),
            None => 0.0,
        }
    }),
    ("mirrored", |digit, row, column| {
        pixel(digit, row, SIDE - 1 - column)
    }),
];

fn pixel(digit: &Digit, row: usize, column: usize) -> f32 {
    digit
        .pixels
        .get(row * SIDE + column)
        .copied()
        .unwrap_or(0.0)
}

impl New {
    fn of(id: u64, digit: &Digit, (name, shade): Change) -> Self {
        Self {
            id,
            label: digit.label,
            change: name,
            pixels: std::array::from_fn(|n| shade(digit, n / SIDE, n % SIDE)),
        }
    }

    fn point(&self) -> Point {
        Point::new(PointId::Num(self.id))
            .with_vector("", self.pixels.to_vec())
            .with_payload(json!({"digit": self.label, "change": self.change}).to_string())
    }
}

fn point_of(digit: &Digit) -> Point {
    Point::new(PointId::Num(digit.row))
        .with_vector("", digit.pixels.to_vec())
        .with_payload(json!({"digit": digit.label}).to_string())
}

fn with_vectors(pixels: [f32; PIXELS], limit: u32) -> SearchRequest {
    SearchRequest {
        selection: Selection {
            payload: Some("true".to_owned()),
            vectors: Some("true".to_owned()),
        },
        ..SearchRequest::nearest("", pixels.to_vec(), limit)
    }
}

fn payload_of(found: &ScoredPoint) -> Result<BTreeMap<String, Value>> {
    let text = found.payload.as_deref().unwrap_or("{}");
    serde_json::from_str(text).map_err(|error| format!("payload {text}: {error}").into())
}

fn neighbour_of(found: &ScoredPoint) -> Result<Neighbour> {
    let payload = payload_of(found)?;
    let label = payload.get("digit").and_then(Value::as_u64);
    match (&found.id, label.and_then(|label| u8::try_from(label).ok())) {
        (PointId::Num(id), Some(label)) => Ok(Neighbour {
            id: *id,
            distance: found.score,
            label,
        }),
        (id, _) => Err(format!("point {id:?} is no digit: {payload:?}").into()),
    }
}

fn picture(pixels: &[f32; PIXELS], caption: impl IntoIterator<Item = String>) -> Picture {
    Picture {
        pixels: *pixels,
        caption: caption.into_iter().collect(),
    }
}

/// A neighbour as the shard stores it.
fn picture_of(found: &ScoredPoint) -> Result<Picture> {
    let Some(NamedVector {
        vector: Vector::Dense(values),
        ..
    }) = found.vectors.first()
    else {
        return Err(format!("point {:?} came without its vector", found.id).into());
    };
    let pixels: [f32; PIXELS] = values
        .as_slice()
        .try_into()
        .map_err(|_| format!("point {:?} has {} dimensions", found.id, values.len()))?;
    let payload = payload_of(found)?;
    let text = |key: &str| match payload.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    let caption = [
        format!("{} at {:.1}", text("digit"), found.score),
        text("change"),
    ];
    Ok(picture(
        &pixels,
        caption.into_iter().filter(|line| !line.is_empty()),
    ))
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Duration)> {
    let started = Instant::now();
    let value = work()?;
    Ok((value, started.elapsed()))
}

fn per_second(count: impl TryInto<u64>, elapsed: Duration) -> f64 {
    let count = count.try_into().unwrap_or(u64::MAX);
    count as f64 / elapsed.as_secs_f64().max(f64::EPSILON)
}
