//! The price of a call: what is left of it when next to nothing is to be done.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use edge_sync_host::{Durability, ShardOptions};
use serde::Serialize;
use serde_json::json;

use crate::contestants::{Contestant, Contestants, Hosted, Record, Result, Shape};
use crate::data::{Data, Dataset};
use crate::engines::order;
use crate::figures::{Figure, Measured};
use crate::report::{Row, Samples, Table, Times, Unit, machine, median};
use crate::served::{COLLECTION, Served};

/// What was measured. Samples are medians of a repetition's calls.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calls {
    /// Processor and number of cores.
    pub machine: String,
    /// Dimensions of the one point's vector.
    pub dimensions: usize,
    /// Calls of each kind a repetition.
    pub calls: usize,
    /// Calls that all contestants have.
    pub rows: Vec<Row>,
    /// Calls of the component alone.
    pub own: Vec<(&'static str, Samples)>,
}

impl Measured for Calls {
    fn figures(&self) -> Vec<Figure> {
        let own = self
            .own
            .iter()
            .filter_map(|(name, samples)| samples.figure(format!("{name}, seconds")));
        self.rows.iter().flat_map(Row::figures).chain(own).collect()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "A shard of one point of {} dimensions; {}\n",
            self.dimensions, self.machine
        )?;
        writeln!(f, "{}", Table(&self.rows))?;
        writeln!(f, "| the component alone | time |\n| --- | --- |")?;
        for (name, samples) in &self.own {
            writeln!(f, "| {name} | {} |", samples.show(Unit::Microseconds))?;
        }
        Ok(())
    }
}

/// Asks shards of one point `calls` times, `repetitions` times over.
///
/// # Errors
/// Whatever fails first.
pub fn measure(
    contestants: &Contestants,
    folder: &Path,
    (dimensions, calls): (usize, usize),
    repetitions: usize,
) -> Result<Calls> {
    let data = Data::make(Dataset::Random, 1, dimensions, 1, 1);
    let (Some(record), Some(query)) = (data.records.first(), data.queries.first()) else {
        return Err("there is no point".into());
    };
    let kinds = contestants.kinds();
    let options = ShardOptions::default().durability(Durability::Os);
    let mut shards = Vec::new();
    for kind in &kinds {
        let folder = folder.join(format!("{kind:?}"));
        std::fs::create_dir(&folder)?;
        let shard = contestants.create(*kind, &folder, Shape::of(dimensions), &options)?;
        shard.upsert(std::slice::from_ref(record))?;
        shards.push(shard);
    }
    let own = Variants::create(contestants, folder, record)?;
    let (mut search, mut upsert) = (Times::default(), Times::default());
    let mut of_own: Vec<(&'static str, Samples)> = Vec::new();
    for repetition in 0..repetitions.max(1) {
        let take_turns = |call: &dyn Fn(&dyn Contestant) -> Result<Duration>| {
            let mut times = vec![Vec::new(); shards.len()];
            for number in 0..calls {
                for n in order(shards.len(), repetition + number) {
                    times[n].push(call(&*shards[n])?.as_secs_f64());
                }
            }
            Ok::<_, Box<dyn std::error::Error>>(
                times.iter().map(|times| median(times)).collect::<Vec<_>>(),
            )
        };
        search.add(
            &kinds,
            &take_turns(&|one| Ok(one.search(query, 1, true)?.elapsed))?,
        );
        upsert.add(
            &kinds,
            &take_turns(&|one| one.upsert(std::slice::from_ref(record)))?,
        );
        let timed = own.measure(query, record, calls)?;
        of_own.resize_with(timed.len(), || ("", Samples::default()));
        for (of, (name, seconds)) in of_own.iter_mut().zip(timed) {
            of.0 = name;
            of.1.add(seconds);
        }
    }
    Ok(Calls {
        machine: machine(),
        dimensions,
        calls,
        rows: vec![
            search.row(
                "search among one point, payload included",
                Unit::Microseconds,
            ),
            upsert.row("upsert of one point, durability `os`", Unit::Microseconds),
        ],
        own: of_own,
    })
}

/// The component in other clothes.
struct Variants {
    logs_os: Hosted,
    logs_always: Hosted,
    served: Served,
}

impl Variants {
    fn create(contestants: &Contestants, folder: &Path, record: &Record) -> Result<Self> {
        let shape = Shape::of(record.vector.len());
        let create = |name: &str, durability| {
            let options = ShardOptions::default().durability(durability);
            let folder = folder.join(name);
            let shard = Hosted::create(contestants.component()?, &folder, shape, options)?;
            shard.upsert(std::slice::from_ref(record))?;
            Ok::<_, Box<dyn std::error::Error>>(shard)
        };
        let served = Served::start(&folder.join("served"), &[])?;
        let client = served.client();
        client.result("PUT", COLLECTION, Some(&shape.config()));
        let point = json!({"id": record.id, "vector": record.vector, "payload": record.payload});
        let path = format!("{COLLECTION}/points?wait=true");
        client.result("PUT", &path, Some(&json!({"points": [point]})));
        Ok(Self {
            logs_os: create("own-os", Durability::Os)?,
            logs_always: create("own-always", Durability::Always)?,
            served,
        })
    }

    /// Median seconds of each kind of call.
    fn measure(
        &self,
        query: &[f32],
        record: &Record,
        calls: usize,
    ) -> Result<Vec<(&'static str, f64)>> {
        let shard = self.logs_os.shard()?;
        let client = self.served.client();
        let one = std::slice::from_ref(record);
        let body = json!({"query": query, "limit": 1, "with_payload": true});
        let path = format!("{COLLECTION}/points/query");
        let rest = json!({"query": query, "limit": 1, "with_payload": true}).to_string();
        let answer = || -> Result<Duration> {
            let started = Instant::now();
            let (status, answer) = client.call("POST", &path, Some(&body))?;
            match status {
                200 => Ok(started.elapsed()),
                _ => Err(format!("{status}: {answer}").into()),
            }
        };
        let timed = |call: &dyn Fn() -> Result<()>| -> Result<Duration> {
            let started = Instant::now();
            call()?;
            Ok(started.elapsed())
        };
        type Call<'a> = (&'static str, &'a dyn Fn() -> Result<Duration>);
        let all: [Call<'_>; 6] = [
            ("a call that asks the log where it stands", &|| {
                timed(&|| Ok(shard.queue_status().map(drop)?))
            }),
            ("count", &|| timed(&|| Ok(shard.count(None).map(drop)?))),
            ("search by its REST form", &|| {
                timed(&|| Ok(shard.request("POST", "/points/query", &rest).map(drop)?))
            }),
            ("search through `serve`, its client included", &answer),
            ("upsert of one point, durability `os`", &|| {
                self.logs_os.upsert(one)
            }),
            ("upsert of one point, durability `always`", &|| {
                self.logs_always.upsert(one)
            }),
        ];
        let mut medians = Vec::new();
        for (name, call) in all {
            let times = (0..calls).map(|_| Ok(call()?.as_secs_f64()));
            medians.push((name, median(&times.collect::<Result<Vec<f64>>>()?)));
        }
        Ok(medians)
    }
}
