//! From the server's files that are here and those that changed to a staged generation.
//!
//! `edge_sync_mirror` decides what to ask with, what an answer means and which files are kept;
//! `restore` makes a generation of the result. `docs/pull.md` has the invariants.

use std::path::Path;

use edge_sync_log::Current;
use edge_sync_mirror::{Archive, Limits, Mirror, Offer, Origin};

use crate::bindings::restore as wit;
use crate::bindings::types::Options;
use crate::directory::Directory;
use crate::error::{Error, Result};
use crate::restore::{Prepared, Staging};

/// A pull between its offer and the answer.
pub struct Pull {
    directory: Directory,
    origin: Origin,
    offer: Offer,
    doubts: Vec<String>,
}

impl Pull {
    /// Looks at the mirror of the generation in force; see `restore.begin-pull`.
    pub fn begin(directory: Directory, origin: Origin, everything: bool) -> Result<Self> {
        let mut doubts = Vec::new();
        let offer = match Current::load(directory.root())? {
            Some(current) if !everything => {
                let folder = directory.mirror(current.generation, origin.shard);
                match Mirror::load(&folder) {
                    Ok(Some(mirror)) => {
                        if mirror.origin() != &origin {
                            doubts.push(format!(
                                "what is here came from shard {} of `{}` at {}",
                                mirror.origin().shard,
                                mirror.origin().collection,
                                mirror.origin().url
                            ));
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
            _ => Offer::everything(),
        };
        doubts.extend(
            offer
                .withheld()
                .iter()
                .map(|(segment, why)| format!("segment {segment}: {why}")),
        );
        Ok(Self {
            directory,
            origin,
            offer,
            doubts,
        })
    }

    /// What to ask with.
    pub fn offer(&self) -> wit::Offer {
        wit::Offer {
            manifest: self.offer.manifest().to_json(),
            whole: self.offer.is_whole(),
            settled: self.offer.is_settled(),
            doubts: self.doubts.clone(),
        }
    }

    /// True if the answer has to bring everything.
    pub fn is_of_nothing(&self) -> bool {
        self.offer.is_everything()
    }

    /// Makes a generation of the answer in `snapshot`. None: it is in doubt, and [`Pull::offer`] is
    /// what to ask with now.
    pub fn stage(
        &mut self,
        snapshot: &Path,
        barrier: u64,
        settled: bool,
        options: Options,
    ) -> Result<Option<(Staging, wit::Staged)>> {
        let archive = Archive::read(snapshot, Limits::default())?;
        let answer = Answer {
            offer: &self.offer,
            origin: &self.origin,
            archive: &archive,
            settled,
        };
        match Staging::stage_pull(self.directory.clone(), &answer, barrier, options)? {
            Prepared::Staged(staging, staged) => Ok(Some((*staging, staged))),
            Prepared::Again(offer, doubts) => {
                self.offer = offer;
                self.doubts = doubts;
                Ok(None)
            }
        }
    }
}

/// An answer and what it answers.
pub struct Answer<'a> {
    pub offer: &'a Offer,
    pub origin: &'a Origin,
    pub archive: &'a Archive,
    /// The server did not optimize while it sent the files.
    pub settled: bool,
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
