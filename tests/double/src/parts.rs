//! The shards of a collection that has several: each point is in the whole, which answers requests,
//! and in the shard that its id belongs to, of which snapshots are made.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;

use edge_sync_engine::{CollectionConfig, Error, Operation, PointId, Result, Shard};
use edge_sync_rest::ShardState;

/// The shards beside the whole; none if there is one shard.
#[derive(Debug, Default)]
pub(super) struct Parts(Vec<Shard>);

impl Parts {
    fn folder(directory: &Path, number: usize) -> std::path::PathBuf {
        directory.join(format!("shard-{number}"))
    }

    /// Makes as many shards as the configuration says.
    pub(super) fn create(directory: &Path, config: &CollectionConfig) -> Result<Parts> {
        let json = config.to_json();
        let count = match json["sharding_method"].as_str() {
            Some("custom") => 0,
            _ => json["shard_number"].as_u64().unwrap_or(1),
        };
        if count < 2 {
            return Ok(Parts::default());
        }
        (0..usize::try_from(count).unwrap_or(usize::MAX))
            .map(|number| Shard::create(&Self::folder(directory, number), config))
            .collect::<Result<_>>()
            .map(Parts)
    }

    /// Loads the shards that are in a collection's folder.
    pub(super) fn load(directory: &Path) -> Result<Parts> {
        let mut shards = Vec::new();
        while Self::folder(directory, shards.len()).is_dir() {
            shards.push(Shard::load(&Self::folder(directory, shards.len()))?);
        }
        Ok(Parts(shards))
    }

    pub(super) fn get(&self, number: u32) -> Option<&Shard> {
        self.0.get(usize::try_from(number).ok()?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Points of each, by number.
    pub(super) fn states(&self) -> Result<Vec<ShardState>> {
        (0..)
            .zip(&self.0)
            .map(|(number, shard)| {
                Ok(ShardState {
                    number,
                    key: None,
                    points: shard.info()?.points,
                })
            })
            .collect()
    }

    /// Merges segments and builds indexes in each.
    pub(super) fn optimize(&self) -> Result<()> {
        self.0
            .iter()
            .try_for_each(|shard| shard.optimize().map(drop))
    }

    /// Does to each what concerns its points.
    pub(super) fn apply(&self, operations: &[Operation]) -> Result<()> {
        for (number, shard) in self.0.iter().enumerate() {
            let own = |id: &PointId| place(id, self.0.len()) == number;
            let operations: Vec<_> = operations
                .iter()
                .filter_map(|operation| only(operation, own))
                .collect();
            shard.apply(operations)?;
        }
        Ok(())
    }

    /// Closes the shards without storing what is in memory.
    pub(super) fn discard(&mut self) {
        for shard in self.0.drain(..) {
            shard.discard();
        }
    }
}

/// The shard that an id belongs to. A server has a ring of its own for that, on which nobody may
/// rely.
fn place(id: &PointId, shards: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    id.to_json().to_string().hash(&mut hasher);
    usize::try_from(hasher.finish() % shards as u64).unwrap_or(0)
}

/// The operation on those of its points that `own` takes; none if there are none.
fn only(operation: &Operation, own: impl Fn(&PointId) -> bool) -> Option<Operation> {
    let mut operation = operation.clone();
    match &mut operation {
        Operation::UpsertPoint(point) | Operation::UpsertPointIf { point, .. } => {
            return own(&point.id).then_some(operation);
        }
        Operation::UpdateVectors { id, .. } => return own(id).then_some(operation),
        Operation::DeletePoints { ids }
        | Operation::DeleteVectors { ids, .. }
        | Operation::SetPayload { ids, .. }
        | Operation::OverwritePayload { ids, .. }
        | Operation::DeletePayload { ids, .. }
        | Operation::ClearPayload { ids } => {
            ids.retain(own);
            if ids.is_empty() {
                return None;
            }
        }
        Operation::CreatePayloadIndex { .. }
        | Operation::DeletePayloadIndex { .. }
        | Operation::CreateVectorName { .. }
        | Operation::DeleteVectorName { .. } => {}
    }
    Some(operation)
}

/// The error for a shard that is not there.
pub(super) fn no_shard(number: u32) -> Error {
    Error::NotFound(format!("shard {number} not found"))
}
