//! Which collection the device's acknowledged writes are in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::routing::{FollowedShards, NamedPart, Routing};

/// What was acknowledged is in this collection and in no other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Binding {
    /// The server's URL, without a slash at its end.
    pub url: String,
    /// The collection, as it was asked for: a name or an alias.
    pub collection: String,
    /// The shard key that the settings named, as [`crate::ShardKey`] reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard_key: Option<String>,
    /// The tenant, as [`crate::Tenant`] reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The only shard that is followed, where the settings named one. Writes go to the whole
    /// collection all the same, so that another number is no other place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shard: Option<u32>,
    /// The collection that the alias led to; none if it is no alias, or the server did not say.
    pub alias_of: Option<String>,
    /// The identity in the collection's metadata, if an edge-sync created it.
    pub id: Option<String>,
    /// The highest number that the server gave an operation of this device, or that it was asked
    /// for. A collection made anew, or taken back to a backup, counts from below.
    pub operation: Option<u64>,
    /// Points that the server counted when it was last asked.
    pub points: u64,
    /// Why the collection is not the one that it was, once that was found. Nothing is uploaded until
    /// a person has decided.
    pub lost: Option<String>,
}

impl Binding {
    /// What a host that sends the requests by itself leaves, or a restore from a file: something was
    /// confirmed or restored, and nobody said from which collection.
    pub fn names_no_place(&self) -> bool {
        self.url.is_empty()
    }

    /// The binding to a place of which nothing else is known.
    pub fn to(target: &Target) -> Self {
        Self {
            url: target.url.clone(),
            collection: target.collection.clone(),
            shard_key: target.routing.named_key().map(ToString::to_string),
            tenant: target.routing.tenant().map(ToString::to_string),
            shard: target.routing.shard(),
            ..Self::default()
        }
    }

    /// The part of the collection, as settings name one.
    pub fn named_part(&self) -> NamedPart {
        NamedPart {
            shard: self.shard.map(FollowedShards::One),
            shard_key: self.shard_key.clone(),
            tenant: self.tenant.clone(),
        }
    }

    /// The part of the collection. What cannot be read is no part.
    pub fn routing(&self) -> Routing {
        Routing::read(self.shard_key.as_deref(), self.tenant.as_deref(), None).unwrap_or_default()
    }

    /// Whether this is the place that the settings name.
    pub fn is_at(&self, target: &Target) -> bool {
        self.url == target.url
            && self.collection == target.collection
            && self.routing().part() == target.routing.part()
    }
}

/// The place that the settings name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The server's URL, as [`Target::new`] left it.
    pub url: String,
    /// The collection, or an alias of one.
    pub collection: String,
    /// Which part of it.
    pub routing: Routing,
}

impl Target {
    /// Slashes at the end of the URL, and the case of scheme and host, do not make another place.
    pub fn new(url: &str, collection: &str) -> Self {
        let url = url.trim().trim_end_matches('/');
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let url = format!("{}://{}{path}", scheme.to_lowercase(), host.to_lowercase());
        Self {
            url,
            collection: collection.to_owned(),
            routing: Routing::default(),
        }
    }

    /// The same place, but only a part of the collection.
    #[must_use]
    pub fn routed(self, routing: Routing) -> Self {
        Self { routing, ..self }
    }
}

/// For people.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(
            f,
            &self.collection,
            self.routing.part().as_deref(),
            &self.url,
        )
    }
}

/// For people.
impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        named(
            f,
            &self.collection,
            self.routing().part().as_deref(),
            &self.url,
        )
    }
}

fn named(
    f: &mut fmt::Formatter<'_>,
    collection: &str,
    part: Option<&str>,
    url: &str,
) -> fmt::Result {
    write!(f, "`{collection}`")?;
    if let Some(part) = part {
        write!(f, ", {part},")?;
    }
    write!(f, " at {url}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_that_is_followed_is_kept_and_is_no_place() {
        let of = |shard| {
            let routing = Routing::new(None, None, shard).unwrap();
            Target::new("http://host:6333", "c").routed(routing)
        };
        let binding = Binding::to(&of(Some(1)));
        let stored = serde_json::to_string(&binding).unwrap();
        assert_eq!(serde_json::from_str::<Binding>(&stored).unwrap(), binding);
        assert_eq!(binding.shard, Some(1));
        assert!(binding.is_at(&of(None)) && binding.is_at(&of(Some(2))));
        // What an earlier version wrote.
        let before = r#"{"url":"http://host:6333","collection":"c","points":3}"#;
        assert_eq!(serde_json::from_str::<Binding>(before).unwrap().shard, None);
    }

    #[test]
    fn one_place_has_several_spellings() {
        let place = Target::new("http://host:6333/Prefix", "c");
        for url in ["HTTP://HOST:6333/Prefix/", " http://host:6333/Prefix// "] {
            assert_eq!(Target::new(url, "c"), place);
        }
        assert_ne!(Target::new("http://host:6333/prefix", "c"), place);
        assert_ne!(Target::new("http://host:6333/Prefix", "d"), place);
    }
}
