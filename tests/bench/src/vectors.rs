//! Searches of every kind of vector and quantization that has vector instructions. There is no graph,
//! so that a search is little but distances.

use std::fmt;
use std::fs;
use std::path::Path;

use edge_sync_engine as engine;
use edge_sync_host::{self as host, Component, Durability, ShardOptions};
use edge_sync_numbers::grouped;
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contestants::{self, Found, Result};
use crate::engines::{LIMIT, order, overlap};
use crate::figures::{Figure, Measured};
use crate::report::{Ratio, Samples, Unit, machine, median};

/// Points in each write.
const BATCH: u64 = 500;

/// Name of the sparse vectors.
const SPARSE: &str = "sparse";

/// Values of a sparse vector, and how many different indices there are.
const SPARSE_VALUES: usize = 40;
const SPARSE_INDICES: u32 = 10_000;

/// How much is asked of every kind.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Points of each shard.
    pub points: u64,
    /// Dimensions of dense vectors.
    pub dimensions: usize,
    /// Searches a repetition.
    pub searches: usize,
    /// Repetitions.
    pub repetitions: usize,
    /// Of the vectors.
    pub seed: u64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Vectors {
    /// Processor and number of cores.
    pub machine: String,
    /// Points of each shard.
    pub points: u64,
    /// Dimensions of dense vectors.
    pub dimensions: usize,
    /// Searches a repetition.
    pub searches: usize,
    /// Repetitions.
    pub repetitions: usize,
    /// One a kind.
    pub rows: Vec<Row>,
}

/// One kind of vector. Times are seconds a search, the median of each repetition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// As the table calls it.
    pub what: &'static str,
    /// The engine behind this project's REST layer, natively.
    pub native: Samples,
    /// The component in its host.
    pub component: Samples,
    /// How many times as long as `native` the component takes.
    pub ratio: Option<Ratio>,
    /// Share of what the native engine found that the component found too.
    pub agreement: f64,
}

impl Measured for Vectors {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| Some(row.ratio?.figure(format!("{}, × native", row.what)));
        self.rows.iter().filter_map(of).collect()
    }
}

impl fmt::Display for Vectors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points, dense vectors of {} dimensions, sparse ones of {SPARSE_VALUES} values, the {LIMIT} nearest; {}; {} repetitions, median (min to max).\n",
            grouped(self.points),
            self.dimensions,
            self.machine,
            self.repetitions,
        )?;
        writeln!(
            f,
            "| vectors | native | component | × native | found by both |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let ratio = row
                .ratio
                .map_or_else(|| "-".to_owned(), |it| it.to_string());
            writeln!(
                f,
                "| {} | {} | {} | {ratio} | {:.1} % |",
                row.what,
                row.native.show(Unit::Microseconds),
                row.component.show(Unit::Microseconds),
                row.agreement * 100.0
            )?;
        }
        Ok(())
    }
}

/// What the numbers of a vector are.
#[derive(Debug, Clone, Copy)]
enum Numbers {
    /// -0.5 to 0.5.
    Fractions,
    /// 0 to 255, whole.
    Bytes,
    /// Few of many, positive.
    Sparse,
}

struct Case {
    what: &'static str,
    numbers: Numbers,
    /// Of the dense vector, or of the sparse vector's index.
    params: Value,
}

/// Every kind.
fn cases() -> Vec<Case> {
    let case = |what, numbers, params| Case {
        what,
        numbers,
        params,
    };
    let float = |what, distance| case(what, Numbers::Fractions, json!({ "distance": distance }));
    let bytes = |what, distance| {
        let params = json!({ "distance": distance, "datatype": "uint8" });
        case(what, Numbers::Bytes, params)
    };
    let quantized = |what, quantization: Value| {
        let params = json!({ "distance": "Dot", "quantization_config": quantization });
        case(what, Numbers::Fractions, params)
    };
    let turbo = |what, bits| quantized(what, json!({ "turbo": { "bits": bits } }));
    let sparse = |what, datatype| case(what, Numbers::Sparse, json!({ "datatype": datatype }));
    vec![
        float("`float32`, dot", "Dot"),
        float("`float32`, cosine", "Cosine"),
        float("`float32`, Euclid", "Euclid"),
        float("`float32`, Manhattan", "Manhattan"),
        case(
            "`float16`, dot",
            Numbers::Fractions,
            json!({ "distance": "Dot", "datatype": "float16" }),
        ),
        bytes("`uint8`, dot", "Dot"),
        bytes("`uint8`, cosine", "Cosine"),
        quantized(
            "scalar quantization",
            json!({ "scalar": { "type": "int8" } }),
        ),
        quantized(
            "product quantization, x16",
            json!({ "product": { "compression": "x16" } }),
        ),
        quantized(
            "binary quantization, query of bits",
            json!({ "binary": {} }),
        ),
        quantized(
            "binary quantization, query of 8 bits",
            json!({ "binary": { "query_encoding": "scalar8bits" } }),
        ),
        turbo("turbo quantization, 4 bits", "bits4"),
        turbo("turbo quantization, 2 bits", "bits2"),
        turbo("turbo quantization, 1 bit", "bits1"),
        sparse("sparse, `float32`", "float32"),
        sparse("sparse, `float16`", "float16"),
    ]
}

impl Case {
    /// The body of `PUT /collections/{c}`.
    fn config(&self, dimensions: usize) -> Value {
        let mut config = json!({ "optimizers_config": {
            "default_segment_number": 1,
            "indexing_threshold": 1,
        } });
        if let Numbers::Sparse = self.numbers {
            config["vectors"] = json!({});
            config["sparse_vectors"] = json!({ SPARSE: { "index": self.params } });
        } else {
            let mut params = self.params.clone();
            params["size"] = json!(dimensions);
            // No graph.
            params["hnsw_config"] = json!({ "m": 0 });
            config["vectors"] = params;
        }
        config
    }

    fn name(&self) -> &'static str {
        match self.numbers {
            Numbers::Sparse => SPARSE,
            Numbers::Fractions | Numbers::Bytes => "",
        }
    }

    fn vector(&self, random: &mut Rng, dimensions: usize) -> engine::Vector {
        let mut dense = |number: &dyn Fn(&mut Rng) -> f32| {
            engine::Vector::Dense((0..dimensions).map(|_| number(random)).collect())
        };
        match self.numbers {
            Numbers::Fractions => dense(&|random| random.f32() - 0.5),
            Numbers::Bytes => dense(&|random| f32::from(random.u8(..))),
            Numbers::Sparse => {
                let mut indices: Vec<u32> = (0..SPARSE_VALUES)
                    .map(|_| random.u32(..SPARSE_INDICES))
                    .collect();
                indices.sort_unstable();
                indices.dedup();
                let values = indices.iter().map(|_| random.f32()).collect();
                engine::Vector::Sparse { indices, values }
            }
        }
    }
}

/// The same shard twice.
struct Pair {
    native: engine::Shard,
    component: host::Shard,
}

impl Pair {
    fn create(component: &Component, folder: &Path, config: &Value) -> Result<Self> {
        let (natively, hosted) = (folder.join("native"), folder.join("component"));
        fs::create_dir_all(&natively)?;
        fs::create_dir_all(&hosted)?;
        let native = engine::CollectionConfig::from_value(config)?;
        let options = ShardOptions::default().durability(Durability::Os);
        Ok(Self {
            native: engine::Shard::create(&natively, &native)?,
            component: host::Shard::create(component, &hosted, &config.to_string(), options)?,
        })
    }

    fn upsert(&self, name: &str, points: Vec<(u64, engine::Vector)>) -> Result<()> {
        let hosted = points
            .iter()
            .map(|(id, vector)| {
                host::Point::new(host::PointId::Num(*id)).with_vector(name, hosted(vector.clone()))
            })
            .collect();
        self.component.upsert(hosted)?;
        let natively = points
            .into_iter()
            .map(|(id, vector)| engine::Point {
                id: engine::PointId::Num(id),
                vectors: [(name.to_owned(), vector)].into(),
                payload: None,
            })
            .collect();
        self.native.apply(self.native.prepare_upsert(natively)?)?;
        Ok(())
    }

    /// Quantizes, and builds sparse indexes.
    fn optimize(&self) -> Result<()> {
        self.native.optimize()?;
        self.component.optimize()?;
        Ok(())
    }

    fn search_natively(&self, name: &str, vector: engine::Vector, params: &Value) -> Result<Found> {
        let name = name.to_owned();
        let request = engine::SearchRequest {
            target: engine::Target::Vector { name, vector },
            filter: None,
            params: Some(params.clone()),
            limit: LIMIT as usize,
            offset: 0,
            score_threshold: None,
            selection: engine::Selection::default(),
        };
        contestants::engine::search(&self.native, request)
    }

    fn search_hosted(&self, name: &str, vector: engine::Vector, params: &Value) -> Result<Found> {
        let mut request = host::SearchRequest::nearest(name, hosted(vector), LIMIT);
        request.params = Some(params.to_string());
        request.selection = host::Selection::none();
        contestants::hosted::search(&self.component, request)
    }
}

fn hosted(vector: engine::Vector) -> host::Vector {
    match vector {
        engine::Vector::Dense(values) => host::Vector::Dense(values),
        engine::Vector::Sparse { indices, values } => {
            host::Vector::Sparse(host::SparseVector { indices, values })
        }
        engine::Vector::Multi(rows) => host::Vector::Multi(rows),
    }
}

/// Makes a shard of each kind, twice, in `folder`, and searches both in turns.
///
/// # Errors
/// Whatever fails first.
pub fn measure(component: &Component, folder: &Path, amount: Amount) -> Result<Vectors> {
    let mut rows = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        eprintln!("bench: {}", case.what);
        let folder = folder.join(number.to_string());
        let row = one(case, component, &folder, amount)
            .map_err(|error| format!("{}: {error}", case.what))?;
        rows.push(row);
        fs::remove_dir_all(&folder)?;
    }
    Ok(Vectors {
        machine: machine(),
        points: amount.points,
        dimensions: amount.dimensions,
        searches: amount.searches,
        repetitions: amount.repetitions,
        rows,
    })
}

fn one(case: &Case, component: &Component, folder: &Path, amount: Amount) -> Result<Row> {
    let mut random = Rng::with_seed(amount.seed);
    let pair = Pair::create(component, folder, &case.config(amount.dimensions))?;
    let name = case.name();
    for first in (0..amount.points).step_by(BATCH as usize) {
        let ids = first..amount.points.min(first + BATCH);
        let points = ids.map(|id| (id, case.vector(&mut random, amount.dimensions)));
        pair.upsert(name, points.collect())?;
    }
    pair.optimize()?;
    let params = json!({ "quantization": { "rescore": false } });
    let mut times = [Samples::default(), Samples::default()];
    let mut ids = [Vec::new(), Vec::new()];
    for repetition in 0..amount.repetitions {
        let mut seconds = [Vec::new(), Vec::new()];
        for number in 0..amount.searches {
            let query = case.vector(&mut random, amount.dimensions);
            for turn in order(2, repetition + number) {
                let query = query.clone();
                let answer = match turn {
                    0 => pair.search_natively(name, query, &params)?,
                    _ => pair.search_hosted(name, query, &params)?,
                };
                seconds[turn].push(answer.elapsed.as_secs_f64());
                ids[turn].push(answer.ids);
            }
        }
        for (samples, seconds) in times.iter_mut().zip(seconds) {
            samples.add(median(&seconds));
        }
    }
    let [native, component] = times;
    let [reference, found] = ids;
    Ok(Row {
        what: case.what,
        ratio: Ratio::of(&native, &component),
        native,
        component,
        agreement: overlap(&reference, &found),
    })
}
