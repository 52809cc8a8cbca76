//! From the server's files that are here and those that changed to a staged generation.
//!
//! `edge_sync_mirror` decides what to ask with, what an answer means and which files are kept;
//! `restore` makes a generation of the result. `docs/pull.md` has the invariants.

use std::collections::BTreeSet;
use std::path::PathBuf;

use edge_sync_log::Current;
use edge_sync_mirror::{Archive, Limits, Origin};

use crate::bindings::restore as wit;
use crate::bindings::types::Options;
use crate::directory::Directory;
use crate::error::{Error, Result, invalid};
use crate::pulled_shard::{Answer, PulledShard};
use crate::restore::{Prepared, Staging};

/// A pull between its offers and the answers.
pub struct Pull {
    directory: Directory,
    shards: Vec<PulledShard>,
}

impl Pull {
    /// Looks at the mirrors of the generation in force; see `restore.begin-pull`.
    pub fn begin(directory: Directory, origins: Vec<Origin>, everything: bool) -> Result<Self> {
        let numbers: BTreeSet<u32> = origins.iter().map(|origin| origin.shard).collect();
        if origins.is_empty() || numbers.len() < origins.len() {
            return Err(invalid("origins", "empty, or a shard is in it twice"));
        }
        let current = Current::load(directory.root())?.filter(|_| !everything);
        let mut generation = current.map(|current| current.generation);
        let mut left = Vec::new();
        if let Some(generation) = generation {
            left = directory.list_mirrors(generation)?;
            left.retain(|shard| !numbers.contains(shard));
        }
        if !left.is_empty() {
            // The shard is to lose what came from these, which no answer of the others brings about.
            generation = None;
        }
        let mut shards = origins
            .into_iter()
            .map(|origin| PulledShard::begin(&directory, generation, origin))
            .collect::<Result<Vec<_>>>()?;
        if let (Some(shard), false) = (shards.first_mut(), left.is_empty()) {
            let left: Vec<String> = left.iter().map(u32::to_string).collect();
            shard.doubts.push(format!(
                "shards that are not followed any more: {}",
                left.join(", ")
            ));
        }
        Ok(Self { directory, shards })
    }

    /// What to ask with, for each shard.
    pub fn offers(&self) -> Vec<wit::Offer> {
        self.shards.iter().map(PulledShard::to_wit).collect()
    }

    /// True if a shard does not go on from its mirror, so that what it lacks may be a mistake.
    pub fn starts_over(&self) -> bool {
        self.shards.iter().any(|shard| shard.offer.is_everything())
    }

    /// The server has nothing new of any shard, and does not optimize: what is here is what it holds.
    pub fn settle(&mut self) -> Result<()> {
        for shard in &mut self.shards {
            shard.offer.settle()?;
        }
        Ok(())
    }

    /// Makes a generation of the answers; `None` among them says that nothing is new. None: they are
    /// in doubt, and [`Pull::offers`] is what to ask with now.
    pub fn stage(
        &mut self,
        snapshots: &[Option<PathBuf>],
        barrier: u64,
        settled: bool,
        options: Options,
    ) -> Result<Option<(Staging, wit::Staged)>> {
        if snapshots.len() != self.shards.len() {
            return Err(invalid("snapshots", "not one for each offer"));
        }
        let archives = snapshots
            .iter()
            .map(|snapshot| {
                let read = |path: &PathBuf| Archive::read(path, Limits::default());
                snapshot.as_ref().map(read).transpose()
            })
            .collect::<std::result::Result<Vec<_>, _>>()?;
        let answers: Vec<Answer<'_>> = self
            .shards
            .iter()
            .zip(&archives)
            .map(|(shard, archive)| Answer {
                shard,
                archive: archive.as_ref(),
                settled,
            })
            .collect();
        match Staging::stage_pull(self.directory.clone(), &answers, barrier, options)? {
            Prepared::Staged(staging, staged) => Ok(Some((*staging, staged))),
            Prepared::Again(at, offer, doubts) => {
                if let Some(shard) = self.shards.get_mut(at) {
                    shard.offer = offer;
                    shard.doubts = doubts;
                }
                Ok(None)
            }
        }
    }
}

impl From<edge_sync_mirror::Error> for Error {
    fn from(error: edge_sync_mirror::Error) -> Self {
        use edge_sync_mirror::Error as Mirrored;
        match error {
            Mirrored::BadSnapshot(what) => Error::BadSnapshot(what),
            Mirrored::Io {
                operation,
                path,
                source,
            } => crate::error::storage(operation, &path, &source),
            Mirrored::Corrupt { file, message } => crate::error::corrupt(&file, None, message),
            Mirrored::UnknownVersion { .. } => Error::Unsupported(error.to_string()),
            // `Damaged`: its segment is fetched again where it can be.
            error => Error::BadSnapshot(error.to_string()),
        }
    }
}
