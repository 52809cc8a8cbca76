//! Which shards to download from; see `courier.locate`.

use edge_sync_upload::{Parts, Placement, Request};

use crate::bindings::courier as wit;
use crate::bindings::types::FailureClass;
use crate::courier::{Server, failure};
use crate::error::{Error, Result};

impl Server {
    /// Asks where the shards are.
    pub fn placement(&self) -> Result<wit::Placement> {
        let request = Request::new("GET", "/cluster", "").describe();
        let (_, collection) = self.describe()?;
        let placement = match self.call("GET", "/cluster", "") {
            Ok(told) => Placement::read(&told)
                .map_err(|message| failure(FailureClass::Unclear, None, &request, message))?,
            // A key that may read the collection only, or something in front of the server. Shards
            // without keys are numbered from 0.
            Err(Error::Server(refused))
                if !collection.shard_keys
                    && matches!(refused.status, Some(400 | 403 | 404 | 405 | 501)) =>
            {
                let count = u32::try_from(collection.shards).unwrap_or(u32::MAX);
                Placement::numbered(count)
            }
            Err(error) => return Err(error),
        };
        let parts = placement
            .parts(&self.target().routing, collection.shard_keys)
            .map_err(|message| failure(FailureClass::Stop, None, &request, message))?;
        let numbers = match &parts {
            Parts::Shards(numbers) => numbers.as_slice(),
            Parts::TenantsPoints => &[],
        };
        Ok(wit::Placement {
            peer: placement.peer,
            shards: numbers
                .iter()
                .filter_map(|number| Some((*number, placement.shards.get(number)?)))
                .map(|(shard, placed)| wit::PlacedShard {
                    shard,
                    shard_key: placed.key.as_ref().map(ToString::to_string),
                    points: placed.points,
                })
                .collect(),
            among_others: parts == Parts::TenantsPoints,
            moving: placement.moving,
        })
    }
}
