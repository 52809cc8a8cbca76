//! One of the shards that are pulled, and the answer for it.

use edge_sync_mirror::{Archive, Mirror, Offer, Origin};

use crate::bindings::restore as wit;
use crate::directory::Directory;
use crate::error::Result;

/// One of the shards that are pulled.
pub struct PulledShard {
    pub origin: Origin,
    pub offer: Offer,
    pub doubts: Vec<String>,
}

impl PulledShard {
    /// Looks at the mirror in `generation`, if there is one.
    pub fn begin(directory: &Directory, generation: Option<u64>, origin: Origin) -> Result<Self> {
        let mut doubts = Vec::new();
        let offer = match generation {
            None => Offer::everything(),
            Some(generation) => {
                match Mirror::load(&directory.mirror(generation, origin.shard)) {
                    Ok(Some(mirror)) => {
                        if mirror.origin() != &origin {
                            doubts.push(format!("what is here came from {}", mirror.origin()));
                        }
                        Offer::of(mirror, &origin)
                    }
                    Ok(None) => Offer::everything(),
                    // Without a mirror everything is fetched.
                    Err(
                        error @ (edge_sync_mirror::Error::Corrupt { .. }
                        | edge_sync_mirror::Error::UnknownVersion { .. }),
                    ) => {
                        doubts.push(error.to_string());
                        Offer::everything()
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        let withheld = offer.withheld().iter();
        doubts.extend(withheld.map(|(segment, why)| format!("segment {segment}: {why}")));
        Ok(Self {
            origin,
            offer,
            doubts,
        })
    }

    /// What to ask with.
    pub fn to_wit(&self) -> wit::Offer {
        wit::Offer {
            manifest: self.offer.manifest().to_json(),
            whole: self.offer.is_whole(),
            settled: self.offer.is_settled(),
            doubts: self.doubts.clone(),
        }
    }
}

/// An answer and what it answers.
pub struct Answer<'a> {
    pub shard: &'a PulledShard,
    /// None: nothing is new.
    pub archive: Option<&'a Archive>,
    /// The server did not optimize while it sent the files.
    pub settled: bool,
}
