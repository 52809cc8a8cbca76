//! Drives an uploader over a device and a server, and looks at every step.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use edge_sync_upload::uploader::MOST_ALIKE;
use edge_sync_upload::{
    Answer, Failure, NoAnswer, Options, Permissions, Request, Server, Step, Target, Uploader,
    same_words,
};
use serde_json::{Value, json};

use super::device::{Device, Fate, Op, spelt_out};
use super::proxy::Proxy;
use super::qdrant::{Point, Qdrant, State, tags};

/// So many exchanges may follow one another without a wait and without an operation that is done
/// with: the halvings of the largest batch and of the largest piece, and what is asked beside them.
const MOST_EXCHANGES: u32 = 80;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    Done,
    Stopped(Failure),
    /// Gave up, as in the foreground.
    Waiting(Failure),
}

impl End {
    /// The words of a stop.
    pub fn stop(self) -> String {
        match self {
            Self::Stopped(failure) => failure.message,
            other => panic!("{other:?}"),
        }
    }

    pub fn wait(self) -> Failure {
        match self {
            Self::Waiting(failure) => failure,
            other => panic!("{other:?}"),
        }
    }
}

/// The network as the uploader sees it, and what it was used for.
pub struct Network {
    pub qdrant: Qdrant,
    pub proxy: Proxy,
    pub collection: String,
    /// Every request, and the status of its answer.
    pub exchanges: Vec<(Request, Option<u16>)>,
    /// Milliseconds since 1970.
    pub now: u64,
    /// Exchanges since the last wait or progress.
    pub busy: u32,
    /// Milliseconds that an exchange takes.
    pub delay: u64,
    /// Answers that confirmed a write, or said that the server has taken it.
    confirmed: u32,
    /// Operations whose refusal by Qdrant itself, of a request with nothing else, has arrived.
    refused: BTreeSet<u64>,
    /// By operation: confirmed writes at its first failure alone, and how many those were.
    alone: BTreeMap<u64, (u32, u32)>,
}

impl Server for Network {
    type Error = Infallible;

    fn exchange(&mut self, request: &Request) -> Result<Result<Answer, NoAnswer>, Infallible> {
        self.busy += 1;
        self.now += self.delay;
        assert!(
            self.busy <= MOST_EXCHANGES,
            "{} exchanges without a wait; the last: {:?}",
            self.busy,
            &self.exchanges[self.exchanges.len() - 12..]
        );
        let collection = self.collection.clone();
        let answer = self.proxy.exchange(&mut self.qdrant, &collection, request);
        let status = answer.as_ref().ok().map(|answer| answer.status);
        let read = request.method == "GET" || request.path == "/points";
        if !read {
            let tags = tags(request);
            let qdrants = answer.as_ref().is_ok_and(|answer| {
                matches!(
                    answer.envelope(),
                    edge_sync_upload::answer::Envelope::Error(_)
                )
            });
            let taken = answer.as_ref().is_ok_and(|answer| {
                let says = ["completed", "acknowledged", "wait_timeout"];
                answer.status == 200
                    && answer.encoding().is_none()
                    && says.iter().any(|status| answer.body.contains(status))
            });
            if taken {
                self.confirmed += 1;
            } else if let (1, Some(tag)) = (tags.len(), tags.first()) {
                if qdrants && matches!(status, Some(400..=499)) {
                    self.refused.insert(*tag);
                }
                self.alone.entry(*tag).or_insert((self.confirmed, 0)).1 += 1;
            }
        }
        self.exchanges.push((request.clone(), status));
        Ok(answer)
    }

    fn now_ms(&self) -> u64 {
        self.now
    }

    fn fresh_id(&mut self) -> String {
        format!("fresh-{}", self.exchanges.len())
    }
}

/// A device, its way and its server.
pub struct World {
    pub device: Device,
    pub network: Network,
    pub options: Options,
    pub uploader: Uploader,
    pub url: String,
    /// Steps after which the process is started anew.
    pub restarts: BTreeSet<u32>,
    /// Waits that a run does before it gives up.
    pub patience: u32,
    steps: u32,
    seed: u64,
}

impl World {
    pub fn new(log: Vec<Op>) -> Self {
        let url = "http://server.example:6333".to_owned();
        // Requests of one size, which scenarios count; others let them grow.
        let options = Options {
            most_operations: 10,
            ..Options::default()
        };
        Self {
            device: Device::new(log),
            network: Network {
                qdrant: Qdrant::default(),
                proxy: Proxy::default(),
                collection: "c".to_owned(),
                exchanges: Vec::new(),
                now: 1_700_000_000_000,
                busy: 0,
                delay: 0,
                confirmed: 0,
                refused: BTreeSet::new(),
                alone: BTreeMap::new(),
            },
            uploader: Uploader::new(Target::new(&url, "c"), options.clone(), 1),
            options,
            url,
            restarts: BTreeSet::new(),
            patience: 200,
            steps: 0,
            seed: 1,
        }
    }

    /// The process ends without a word and is started again.
    pub fn restart(&mut self) {
        self.seed += 1;
        let target = Target::new(&self.url, &self.network.collection);
        self.uploader = Uploader::new(target, self.options.clone(), self.seed);
    }

    pub fn permit(&mut self, rebind: bool, resend: bool) {
        self.uploader.permit(Permissions {
            rebind,
            resend,
            ..Permissions::default()
        });
    }

    pub fn qdrant(&mut self) -> &mut Qdrant {
        &mut self.network.qdrant
    }

    pub fn state(&mut self) -> State {
        let name = self.network.collection.clone();
        self.network.qdrant.state(&name)
    }

    /// Data writes that any collection has applied.
    pub fn writes(&self) -> u32 {
        let collections = self.network.qdrant.collections.values();
        collections.map(|collection| collection.writes).sum()
    }

    pub fn points(&mut self) -> Vec<u64> {
        self.state().points.keys().copied().collect()
    }

    /// One step, looked at.
    pub fn step(&mut self) -> Step {
        self.steps += 1;
        if self.restarts.contains(&self.steps) {
            self.restart();
        }
        self.device.news.clear();
        let before = self.network.exchanges.len();
        let Ok(step) = self
            .uploader
            .step(&mut self.device, &mut self.network, None);
        self.check_news();
        match &step {
            Step::Uploaded { .. } | Step::Rejected { .. } | Step::Stop(_) => self.network.busy = 0,
            Step::Wait { after, .. } => {
                self.network.busy = 0;
                self.network.now += u64::try_from(after.as_millis()).unwrap();
            }
            _ => {}
        }
        if let Step::Collection { .. } = &step {
            // Reading, making the collection, and the write that changes nothing.
            for (request, _) in &self.network.exchanges[before..] {
                let harmless = request.method == "GET"
                    || (["PUT", "PATCH"].contains(&&*request.method) && request.path.is_empty())
                    || tags(request).is_empty();
                assert!(harmless, "before the check: {request:?}");
            }
        }
        if let Step::Stop(failure) = &step {
            let says = [
                "--resend",
                "--rebind",
                "queue skip",
                "rejected retry",
                "API key",
                "configure",
                "raise",
                "Make room",
                "sync",
            ];
            assert!(
                says.iter().any(|way| failure.message.contains(way)),
                "a stop that tells nobody what to do: {failure:?}"
            );
        }
        step
    }

    /// Steps up to one.
    pub fn step_until(&mut self, mut is_it: impl FnMut(&Step) -> bool) {
        for _ in 0..500 {
            if is_it(&self.step()) {
                return;
            }
        }
        panic!("it never came");
    }

    /// Steps to the end of a run. Waits cost nothing.
    pub fn run(&mut self) -> End {
        // The last one was a while ago.
        self.network.now += 300_000;
        self.go_on()
    }

    /// Steps to the end of the run that is under way.
    pub fn go_on(&mut self) -> End {
        self.uploader.begin();
        self.network.busy = 0;
        let mut waits = 0;
        let most = 2_000 + 200 * self.device.log.len() as u32;
        for _ in 0..most {
            match self.step() {
                Step::Done => {
                    let Ok(()) = self.uploader.conclude(&mut self.device, &mut self.network);
                    return End::Done;
                }
                Step::Stop(failure) => {
                    let Ok(()) = self.uploader.conclude(&mut self.device, &mut self.network);
                    return End::Stopped(failure);
                }
                Step::Wait { failure, .. } => {
                    waits += 1;
                    if waits > self.patience {
                        return End::Waiting(failure);
                    }
                }
                _ => waits = 0,
            }
        }
        panic!("no end after {most} steps");
    }

    /// What was decided in this step was earned.
    fn check_news(&mut self) {
        for sequence in self.device.news.clone() {
            let fate = self.device.fates[&sequence].clone();
            let op = self.device.op(sequence).expect("an operation").clone();
            match fate {
                Fate::Acknowledged => self.check_acknowledged(sequence, &op),
                Fate::Rejected { message, .. } => {
                    let (confirmed, failures) =
                        self.network.alone.get(&sequence).copied().unwrap_or((0, 0));
                    assert!(
                        self.network.refused.contains(&sequence)
                            || (failures >= 2 && self.network.confirmed > confirmed),
                        "{sequence} ({op:?}) was put aside without a reason: {message}"
                    );
                }
            }
        }
        self.check_rows();
    }

    fn check_acknowledged(&mut self, sequence: u64, op: &Op) {
        let name = self.network.collection.clone();
        let applied = &self.network.qdrant.applied;
        let missing: Vec<u64> = if op.ids().is_empty() {
            vec![0]
        } else {
            op.ids()
        };
        let missing = missing
            .into_iter()
            .filter(|id| !applied.contains(&(sequence, *id)));
        let missing: Vec<u64> = missing.collect();
        if missing.is_empty() {
            return;
        }
        // Nothing would change.
        let now = self.network.qdrant.state(&name);
        let mut then = now.clone();
        apply(&mut then, op, &missing);
        let later_deletion = |id: &u64| {
            let mut later = self.device.log[usize::try_from(sequence).unwrap()..].iter();
            later.any(|op| matches!(op, Op::Delete { ids } if ids.contains(id)))
                && !now.points.contains_key(id)
        };
        assert!(
            then == now || missing.iter().all(later_deletion),
            "{sequence} ({op:?}) was acknowledged, and {missing:?} of it never applied"
        );
    }

    /// No more than [`MOST_ALIKE`] put aside in a row for one reason.
    fn check_rows(&self) {
        let (mut row, mut words) = (0, String::new());
        for (sequence, fate) in &self.device.fates {
            let op = &self.device.log[usize::try_from(*sequence).unwrap() - 1];
            match fate {
                Fate::Acknowledged => row = 0,
                Fate::Rejected {
                    status: 404,
                    message,
                } if message.contains("No point with id") => {
                    // The other points got their change, by a write that was confirmed.
                    if op.ids().len() > 1 {
                        row = 0;
                    }
                }
                Fate::Rejected { message, .. } if message.contains("by hand") => row = 0,
                Fate::Rejected { message, .. } => {
                    row = if same_words(message, &words) {
                        row + 1
                    } else {
                        1
                    };
                    words.clone_from(message);
                    assert!(row <= MOST_ALIKE, "{row} put aside in a row: {message}");
                }
            }
        }
    }

    /// Changes of points that were there in their turn were not put aside for want of them.
    pub fn check_missing(&self, start: &State) {
        let mut state = start.clone();
        for (at, op) in self.device.log.iter().enumerate() {
            let missed = match op {
                Op::SetPayload { ids, .. } => ids.iter().any(|id| !state.points.contains_key(id)),
                Op::UpdateVectors { id, .. } => !state.points.contains_key(id),
                _ => false,
            };
            if let Fate::Rejected { message, .. } = &self.device.fates[&(at as u64 + 1)] {
                if !message.contains("No point with id") {
                    // What was put aside for another reason may be there or not.
                    return;
                }
                assert!(missed, "{op:?} was in its turn put aside: {message}");
            }
            apply(&mut state, op, &op.ids());
        }
    }

    /// The server holds what the operations make of `start`, in their order.
    pub fn check_state(&mut self, start: &State) {
        let state = self.state();
        let mut ids: BTreeSet<u64> = state.points.keys().copied().collect();
        ids.extend(start.points.keys());
        ids.extend(self.device.log.iter().flat_map(Op::ids));
        for id in ids {
            let possible = self.possible(id, start.points.get(&id).cloned());
            let held = state.points.get(&id).cloned();
            assert!(
                possible.contains(&held),
                "point {id} is {held:?}, not one of {possible:?}"
            );
        }
    }

    /// What the point may be after all operations.
    fn possible(&self, id: u64, start: Option<Point>) -> Vec<Option<Point>> {
        let mut possible = vec![start];
        let mut earlier: Vec<(u64, &Op)> = Vec::new();
        for (at, op) in self.device.log.iter().enumerate() {
            let sequence = at as u64 + 1;
            if !op.ids().contains(&id) {
                continue;
            }
            if self.is_put_aside(sequence) {
                // A batch that was refused further back may have applied the operation. The batch
                // then came again from one of the earlier operations on.
                if self.network.qdrant.applied.contains(&(sequence, id)) {
                    let applied = after(&possible, op, id);
                    for from in 0..=earlier.len() {
                        let mut again = applied.clone();
                        for (sequence, op) in &earlier[from..] {
                            let changed = after(&again, op, id);
                            if self.is_put_aside(*sequence) {
                                again.extend(changed);
                            } else {
                                again = changed;
                            }
                        }
                        possible.extend(again);
                    }
                }
            } else {
                possible = after(&possible, op, id);
            }
            let mut distinct = Vec::new();
            for point in possible {
                if !distinct.contains(&point) {
                    distinct.push(point);
                }
            }
            possible = distinct;
            earlier.push((sequence, op));
        }
        possible
    }

    /// Whether the operation was put aside, and may or may not be applied. One that named a missing
    /// point changed the others.
    fn is_put_aside(&self, sequence: u64) -> bool {
        matches!(
            &self.device.fates[&sequence],
            Fate::Rejected { message, .. } if !message.contains("No point with id")
        )
    }
}

/// What an operation makes of each of these states of one point.
fn after(points: &[Option<Point>], op: &Op, id: u64) -> Vec<Option<Point>> {
    let changed = |point: &Option<Point>| {
        let mut one = State::default();
        one.points.extend(point.clone().map(|point| (id, point)));
        apply(&mut one, op, &[id]);
        one.points.remove(&id)
    };
    points.iter().map(changed).collect()
}

/// What an operation does to points that are there.
fn apply(state: &mut State, op: &Op, ids: &[u64]) {
    match op {
        Op::Upsert { id, value, text } => {
            let payload = json!({"v": value, "text": spelt_out(text)});
            let payload = payload.as_object().unwrap().clone();
            state.points.insert(*id, (json!([value, 1]), payload));
        }
        Op::BadUpsert { .. } => {}
        Op::Delete { .. } => ids.iter().for_each(|id| {
            state.points.remove(id);
        }),
        Op::SetPayload { value, text, .. } => {
            for id in ids {
                if let Some((_, payload)) = state.points.get_mut(id) {
                    payload.insert("s".to_owned(), json!(value));
                    payload.insert("t".to_owned(), json!(spelt_out(text)));
                }
            }
        }
        Op::UpdateVectors { id, value } => {
            if let Some(point) = state.points.get_mut(id) {
                point.0 = json!([value, 1]);
            }
        }
        Op::CreateIndex { field } => {
            state.indexes.insert(field.clone());
        }
        Op::DropIndex { field } => {
            state.indexes.remove(field);
        }
        Op::CreateVector { name } => {
            state.vectors.insert(name.clone());
        }
        Op::DropVector { name } => {
            state.vectors.remove(name);
        }
    }
}
