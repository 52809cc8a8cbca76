//! The component in its host.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edge_sync_host as host;
use serde_json::{Value, json};

use super::contestant::{Contestant, Found, Record, Result, Shape, State, open, timed};

/// The component through the host library, with its log.
pub struct Hosted {
    component: host::Component,
    directory: PathBuf,
    options: host::ShardOptions,
    shard: Option<host::Shard>,
}

impl Hosted {
    /// Creates a shard.
    pub fn create(
        component: &host::Component,
        directory: &Path,
        shape: Shape,
        options: host::ShardOptions,
    ) -> Result<Self> {
        let config = shape.config().to_string();
        let shard = host::Shard::create(component, directory, &config, options.clone())?;
        Ok(Self {
            component: component.clone(),
            directory: directory.to_owned(),
            options,
            shard: Some(shard),
        })
    }

    /// Opens a shard.
    pub fn open(
        component: &host::Component,
        directory: &Path,
        options: host::ShardOptions,
    ) -> Result<Self> {
        let shard = host::Shard::open(component, directory, options.clone())?;
        Ok(Self {
            component: component.clone(),
            directory: directory.to_owned(),
            options,
            shard: Some(shard),
        })
    }

    /// The shard itself.
    pub fn shard(&self) -> Result<&host::Shard> {
        open(&self.shard)
    }

    /// Times a restore into an empty directory, the instances and the switch included.
    pub fn restore(
        component: &host::Component,
        snapshot: &Path,
        directory: &Path,
    ) -> Result<Duration> {
        let source = host::RestoreSource::File(snapshot.to_owned());
        let started = Instant::now();
        let edge = host::EdgeSync::builder(component.clone(), directory).attach()?;
        edge.restore(&source, &host::Cancel::new(), |_| {})?;
        Ok(started.elapsed())
    }
}

/// Times a search.
///
/// # Errors
/// The host library's.
pub fn search(shard: &host::Shard, request: host::SearchRequest) -> Result<Found> {
    let (found, elapsed) = timed(|| shard.search(request))?;
    let ids = found.iter().filter_map(|point| match &point.id {
        host::PointId::Num(id) => Some(*id),
        host::PointId::Uuid(_) => None,
    });
    Ok(Found {
        elapsed,
        ids: ids.collect(),
    })
}

impl Contestant for Hosted {
    fn upsert(&self, batch: &[Record]) -> Result<Duration> {
        let points = batch
            .iter()
            .map(|record| {
                host::Point::new(host::PointId::Num(record.id))
                    .with_vector("", record.vector.clone())
                    .with_payload(Value::Object(record.payload.clone()).to_string())
            })
            .collect();
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.upsert(points))?.1)
    }

    fn search(&self, vector: &[f32], limit: u32, exact: bool) -> Result<Found> {
        let mut request = host::SearchRequest::nearest("", vector.to_vec(), limit);
        request.params = Some(json!({"exact": exact}).to_string());
        search(open(&self.shard)?, request)
    }

    fn flush(&self) -> Result<Duration> {
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.flush())?.1)
    }

    fn optimize(&self) -> Result<Duration> {
        let shard = open(&self.shard)?;
        Ok(timed(|| shard.optimize())?.1)
    }

    fn reopen(&mut self) -> Result<Duration> {
        open(&self.shard)?.close()?;
        self.shard = None;
        let started = Instant::now();
        let shard = host::Shard::open(&self.component, &self.directory, self.options.clone())?;
        let elapsed = started.elapsed();
        self.shard = Some(shard);
        Ok(elapsed)
    }

    fn state(&self) -> Result<State> {
        let info = open(&self.shard)?.info()?;
        Ok(State {
            points: info.points,
            indexed: info.indexed_vectors,
            segments: info.segments.into(),
        })
    }

    fn linear_memory(&self) -> Result<Option<u64>> {
        Ok(Some(open(&self.shard)?.info()?.memory_bytes))
    }
}
