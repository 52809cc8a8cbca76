//! Where the shards of a collection are: what `GET /collections/{c}/cluster` says, and which of them
//! hold what the device is in step with.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::routing::{Routing, ShardKey};

/// The state of a replica that has everything and takes every write.
const ACTIVE: &str = "Active";

/// The shards of a collection, as the peer that answered knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// The peer that answered.
    pub peer: Option<u64>,
    /// Its shards and those of others, by number.
    pub shards: BTreeMap<u32, PlacedShard>,
    /// Shards are being moved, or points are on their way from shard to shard.
    pub moving: bool,
}

/// One shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacedShard {
    /// Its key, in a collection that is sharded by keys.
    pub key: Option<ShardKey>,
    /// Points in it, if the peer that answered has it.
    pub points: Option<u64>,
    /// The state that it has at the peer that answered, if it is there.
    pub here: Option<String>,
    /// Other peers that have it, and in which state.
    pub elsewhere: BTreeMap<u64, String>,
}

/// What a device downloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Whole shards.
    Shards(Vec<u32>),
    /// The points of a tenant, from shards that hold those of others as well.
    TenantsPoints,
}

impl PlacedShard {
    fn is_active(&self) -> bool {
        self.here.as_deref() == Some(ACTIVE) || self.elsewhere.values().any(|it| it == ACTIVE)
    }
}

impl Placement {
    /// Reads the `result` of `GET /collections/{c}/cluster`.
    ///
    /// # Errors
    /// A sentence that says what is missing.
    pub fn read(result: &Value) -> Result<Self, String> {
        let list = |name: &str| result.get(name).and_then(Value::as_array);
        let mut shards: BTreeMap<u32, PlacedShard> = BTreeMap::new();
        let local = list("local_shards").ok_or("the answer lists no `local_shards`")?;
        let remote = list("remote_shards").map_or(&[][..], Vec::as_slice);
        for (told, is_here) in
            (local.iter().map(|it| (it, true))).chain(remote.iter().map(|it| (it, false)))
        {
            let number = told
                .get("shard_id")
                .and_then(Value::as_u64)
                .and_then(|number| u32::try_from(number).ok())
                .ok_or("a shard in the answer has no `shard_id`")?;
            let shard = shards.entry(number).or_default();
            if let Some(key) = told.get("shard_key").filter(|key| !key.is_null()) {
                let key = serde_json::from_value(key.clone());
                shard.key = Some(key.map_err(|_| "a shard key is neither a name nor a number")?);
            }
            let state = told.get("state").and_then(Value::as_str);
            let state = state.unwrap_or(ACTIVE).to_owned();
            if is_here {
                shard.here = Some(state);
                shard.points = told.get("points_count").and_then(Value::as_u64);
            } else if let Some(peer) = told.get("peer_id").and_then(Value::as_u64) {
                shard.elsewhere.insert(peer, state);
            }
        }
        let any = |name: &str| list(name).is_some_and(|list| !list.is_empty());
        Ok(Self {
            peer: result.get("peer_id").and_then(Value::as_u64),
            shards,
            moving: any("shard_transfers") || any("resharding_operations"),
        })
    }

    /// So many shards without keys, taken to be at whichever peer is asked.
    pub fn numbered(count: u32) -> Self {
        let here = PlacedShard {
            here: Some(ACTIVE.to_owned()),
            ..PlacedShard::default()
        };
        Self {
            shards: (0..count).map(|number| (number, here.clone())).collect(),
            ..Self::default()
        }
    }

    /// Whether there are shards of this key.
    pub fn has_key(&self, key: &ShardKey) -> bool {
        self.shards_of(key).next().is_some()
    }

    fn shards_of<'a>(
        &'a self,
        key: &'a ShardKey,
    ) -> impl Iterator<Item = (&'a u32, &'a PlacedShard)> {
        (self.shards.iter()).filter(move |(_, shard)| shard.key.as_ref() == Some(key))
    }

    /// What to download to hold what `routing` says of a collection that has shard keys (`keyed`) or
    /// not.
    ///
    /// # Errors
    /// A sentence for people: a shard that is not there, or not at the peer that answered.
    pub fn parts(&self, routing: &Routing, keyed: bool) -> Result<Parts, String> {
        if !keyed {
            return match (routing.tenant(), routing.shard()) {
                (Some(_), _) => Ok(Parts::TenantsPoints),
                (None, Some(shard)) => self.at_this_peer([shard]),
                (None, None) => self.at_this_peer(self.shards.keys().copied()),
            };
        }
        let own = routing.own_key().ok_or_else(names_no_key)?;
        // A server takes a tenant's own key once all of its shards are active.
        let is_promoted =
            self.has_key(&own) && self.shards_of(&own).all(|(_, shard)| shard.is_active());
        match routing.shared_key() {
            Some(shared) if !is_promoted => match self.has_key(&shared) {
                true => Ok(Parts::TenantsPoints),
                false => Err(format!(
                    "the collection has no shard key {own}, nor {shared}, which tenants without a \
                     key of their own share"
                )),
            },
            _ if self.has_key(&own) => {
                self.at_this_peer(self.shards_of(&own).map(|(number, _)| *number))
            }
            _ => Err(format!("the collection has no shard key {own}")),
        }
    }

    fn at_this_peer(&self, wanted: impl IntoIterator<Item = u32>) -> Result<Parts, String> {
        let wanted: Vec<u32> = wanted.into_iter().collect();
        if wanted.is_empty() {
            return Err("the server lists no shard of the collection".to_owned());
        }
        let there: Vec<String> = self.shards.keys().map(u32::to_string).collect();
        for number in &wanted {
            let Some(shard) = self.shards.get(number) else {
                return Err(format!(
                    "the collection has no shard {number}; its shards are: {}",
                    there.join(", ")
                ));
            };
            if shard.here.as_deref() == Some(ACTIVE) {
                continue;
            }
            let peers: Vec<String> = shard
                .elsewhere
                .iter()
                .map(|(peer, state)| format!("peer {peer} ({state})"))
                .collect();
            let at = match peers.is_empty() {
                true => "at no other".to_owned(),
                false => format!("at {}", peers.join(", ")),
            };
            let key = match &shard.key {
                Some(key) => format!(" (shard key {key})"),
                None => String::new(),
            };
            let peer = match self.peer {
                Some(peer) => format!("peer {peer}"),
                None => "the peer".to_owned(),
            };
            return Err(match &shard.here {
                Some(state) => format!(
                    "shard {number}{key} is not ready ({state}) at {peer}, which answered; it is \
                     {at}"
                ),
                None => format!(
                    "shard {number}{key} is not at {peer}, which answered, but {at}; only a peer \
                     that has a shard sends its snapshot. Name that peer in the URL, or replicate \
                     the shard to this one"
                ),
            });
        }
        Ok(Parts::Shards(wanted))
    }
}

/// Why nothing can be done with a collection that has shard keys.
pub(crate) fn names_no_key() -> String {
    "the collection is sharded by keys (sharding_method: custom): name the one whose shard this \
     device is in step with (`shard_key`), or its tenant (`tenant`)"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn local(number: u32, key: Value, state: &str) -> Value {
        json!({"shard_id": number, "shard_key": key, "points_count": 3, "state": state})
    }

    fn placement(local: Value, remote: Value) -> Placement {
        Placement::read(&json!({
            "peer_id": 5, "shard_count": 9, "local_shards": local, "remote_shards": remote,
            "shard_transfers": [], "new in 2.0": 1,
        }))
        .unwrap()
    }

    fn keyed(key: &str) -> Routing {
        Routing::new(Some(key.parse().unwrap()), None, None).unwrap()
    }

    fn tenant(text: &str) -> Routing {
        Routing::new(None, Some(text.parse().unwrap()), None).unwrap()
    }

    fn of_shard(number: Option<u32>) -> Routing {
        Routing::new(None, None, number).unwrap()
    }

    #[test]
    fn a_key_leads_to_its_shards() {
        let shards = json!([
            local(1, json!("a"), "Active"),
            local(2, json!(7), "Active"),
            local(4, json!("a"), "Active"),
        ]);
        let placement = placement(shards, json!([]));
        let parts = |key: &str| placement.parts(&keyed(key), true);
        assert_eq!(parts("a"), Ok(Parts::Shards(vec![1, 4])));
        assert_eq!(parts("7"), Ok(Parts::Shards(vec![2])));
        assert!(parts("\"7\"").unwrap_err().contains("no shard key \"7\""));
        assert!(placement.parts(&Routing::default(), true).is_err());
    }

    #[test]
    fn a_tenant_has_shards_once_it_is_promoted() {
        let parts = |shards| placement(shards, json!([])).parts(&tenant("user=a"), true);
        let shared = local(1, json!("default"), "Active");
        let own = |state: &str| local(2, json!("a"), state);
        assert_eq!(parts(json!([shared])), Ok(Parts::TenantsPoints));
        assert_eq!(
            parts(json!([shared, own("Partial")])),
            Ok(Parts::TenantsPoints)
        );
        assert_eq!(
            parts(json!([shared, own("Active")])),
            Ok(Parts::Shards(vec![2]))
        );
        assert_eq!(parts(json!([own("Active")])), Ok(Parts::Shards(vec![2])));
        assert!(parts(json!([])).is_err());
    }

    #[test]
    fn the_whole_of_a_collection_is_all_of_its_shards() {
        let shards = json!([
            local(0, Value::Null, "Active"),
            local(1, Value::Null, "Active")
        ]);
        let placement = placement(shards, json!([]));
        let parts = |number| placement.parts(&of_shard(number), false);
        assert_eq!(parts(None), Ok(Parts::Shards(vec![0, 1])));
        assert_eq!(parts(Some(1)), Ok(Parts::Shards(vec![1])));
        assert!(
            parts(Some(2))
                .unwrap_err()
                .contains("no shard 2; its shards are: 0, 1")
        );
        assert_eq!(
            placement.parts(&tenant("user=a"), false),
            Ok(Parts::TenantsPoints)
        );
    }

    #[test]
    fn a_shard_elsewhere_is_told_with_where_it_is() {
        let remote = json!([{"shard_id": 1, "peer_id": 9, "state": "Active"}]);
        let here = json!([local(0, Value::Null, "Active")]);
        let words = placement(here, remote.clone())
            .parts(&of_shard(None), false)
            .unwrap_err();
        assert!(words.contains("shard 1 is not at peer 5"), "{words}");
        assert!(words.contains("at peer 9 (Active)"), "{words}");
        let here = json!([
            local(0, Value::Null, "Active"),
            local(1, Value::Null, "Partial")
        ]);
        let words = placement(here, remote)
            .parts(&of_shard(None), false)
            .unwrap_err();
        assert!(words.contains("not ready (Partial)"), "{words}");
    }
}
