//! The next mirror, from an answer and the mirror that it answers to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::archive::Archive;
use crate::durable::Unsynced;
use crate::error::{Error, Result};
use crate::files::{self, Links, Placed, Placing};
use crate::mirror::{Mirror, Origin, Recorded, SegmentRecord, segment_folder};
use crate::offer::Offer;
use crate::plan::{self, Doubt, Plan, Source};

/// What the caller knows of an answer, and how it wants the files.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The shard that was asked for.
    pub origin: Origin,
    /// Whether the server optimized neither before nor after the answer.
    pub settled: bool,
    /// Whether kept files may be links.
    pub links: Links,
}

/// What became of an answer.
#[derive(Debug)]
pub enum Outcome {
    /// The next mirror is there. It is in force once `unsynced` is synced and the caller has
    /// switched to it.
    Applied {
        /// The next mirror.
        mirror: Mirror,
        /// What arrived and what was kept.
        report: Report,
        /// What is not durable yet.
        unsynced: Unsynced,
    },
    /// Segments are in doubt; ask again with `offer`, in which they are not. Nothing is there.
    Again {
        /// What to ask with.
        offer: Offer,
        /// The segments and the reasons.
        why: BTreeMap<String, String>,
    },
    /// All is in doubt; ask again with `offer`, which is of nothing. Nothing is there.
    Everything {
        /// What to ask with.
        offer: Offer,
        /// The reason.
        why: String,
    },
}

/// What an answer brought.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The answer's length as an archive.
    pub received_bytes: u64,
    /// Files that came.
    pub received_files: u64,
    /// Files that did not have to come.
    pub kept_files: u64,
    /// Their data, holes left out.
    pub kept_bytes: u64,
    /// Of the kept files, those that had to be copied because links were refused.
    pub copied_files: u64,
    /// Segments of which files were kept.
    pub segments_kept: u64,
    /// Segments that came whole.
    pub segments_fetched: u64,
    /// Segments of the mirror that are gone.
    pub segments_removed: u64,
}

/// Builds the next mirror in `target`, which must not be there or be empty: files that came out of
/// `archive`, files that were kept as links to those of the offered mirror, which stays as it is.
/// The cost follows what came, apart from a look at each kept file's size and time, and a link.
///
/// Whatever fails, the mirror that was offered is untouched, and `target` is the caller's to remove;
/// it holds a mirror only if it was applied.
///
/// # Errors
/// [`Error::BadSnapshot`] if the answer is of no use, though nothing was offered;
/// [`Error::Io`].
pub fn apply(
    offer: &Offer,
    archive: &Archive,
    target: &Path,
    settings: &Settings,
) -> Result<Outcome> {
    let plan = match plan::plan(offer, archive)? {
        Ok(plan) => plan,
        Err(Doubt::Lineage(why)) => {
            return Ok(Outcome::Everything {
                offer: Offer::everything(),
                why,
            });
        }
        Err(Doubt::Segments(why)) => return again(offer, why),
    };
    let next = Recorded {
        origin: settings.origin.clone(),
        lineage: archive.lineage().cloned(),
        settled: settings.settled,
        segments: BTreeMap::new(),
    };
    lay_out(offer, Some(archive), &plan, next, target, settings.links)
}

/// Builds a mirror in `target` that is the same as the offered one, where the server said that
/// nothing is new: links to all of its files. `target` and `settled` are as in [`apply`]; that nothing
/// is new while no optimization runs settles a mirror that was not.
///
/// # Errors
/// [`Error::BadSnapshot`] if not all of a mirror was offered, so that the answer cannot be one;
/// [`Error::Io`].
pub fn carry(offer: &Offer, target: &Path, settled: bool, links: Links) -> Result<Outcome> {
    let Some(mirror) = offer.mirror().filter(|_| offer.is_whole()) else {
        return Err(Error::bad(
            "the server says that nothing is new, and was not asked with all that is here",
        ));
    };
    let next = Recorded {
        segments: BTreeMap::new(),
        settled,
        ..(*mirror.content).clone()
    };
    lay_out(offer, None, &plan::of_mirror(mirror), next, target, links)
}

fn lay_out(
    offer: &Offer,
    archive: Option<&Archive>,
    plan: &Plan<'_>,
    mut next: Recorded,
    target: &Path,
    links: Links,
) -> Result<Outcome> {
    let mut building = Building {
        target,
        links,
        report: Report {
            received_bytes: archive.map_or(0, Archive::bytes),
            ..Report::default()
        },
        unsynced: Unsynced::default(),
        segments: BTreeMap::new(),
    };
    match building.build(offer, archive, plan) {
        Ok(()) => {}
        Err(Stop::Failed(error)) => return Err(error),
        Err(Stop::Damaged(why)) => {
            match fs::remove_dir_all(target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", target, error));
                }
                _ => {}
            }
            return again(offer, why);
        }
    }
    let mut unsynced = building.unsynced;
    let mut report = building.report;
    if let Some(before) = offer.mirror() {
        report.segments_removed = before
            .segments()
            .keys()
            .filter(|segment| !building.segments.contains_key(*segment))
            .count() as u64;
    }
    next.segments = building.segments;
    let mirror = Mirror {
        folder: target.to_path_buf(),
        content: Box::new(next),
    };
    // Last, so that a folder without it is no mirror.
    unsynced.file(mirror.store()?);
    Ok(Outcome::Applied {
        mirror,
        report,
        unsynced,
    })
}

/// What to ask with after these segments turned out to be in doubt.
fn again(offer: &Offer, why: BTreeMap<String, String>) -> Result<Outcome> {
    let reasons = || {
        why.iter()
            .map(|(segment, why)| format!("segment {segment}: {why}"))
            .collect::<Vec<_>>()
            .join("; ")
    };
    match offer.without(why.clone()) {
        None => Err(Error::bad(reasons())),
        Some(offer) if offer.is_everything() => Ok(Outcome::Everything {
            offer,
            why: reasons(),
        }),
        Some(offer) => Ok(Outcome::Again { offer, why }),
    }
}

/// Why building stopped.
enum Stop {
    Damaged(BTreeMap<String, String>),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

struct Building<'a> {
    target: &'a Path,
    links: Links,
    report: Report,
    unsynced: Unsynced,
    segments: BTreeMap<String, SegmentRecord>,
}

impl Building<'_> {
    fn build(
        &mut self,
        offer: &Offer,
        archive: Option<&Archive>,
        plan: &Plan<'_>,
    ) -> Result<(), Stop> {
        let mut unpacking = archive.map(Archive::unpacking).transpose()?;
        for (segment, planned) in &plan.segments {
            let folder = segment_folder(self.target, segment);
            let mut records = BTreeMap::new();
            let mut kept = false;
            for (file, source) in &planned.files {
                let to = folder.join(file);
                make_parents(self.target, &to, &mut self.unsynced)?;
                let record = match source {
                    Source::Received(entry) => {
                        let unpacking = unpacking.as_mut().ok_or_else(|| {
                            Error::bad("a file is to come from an answer that is none")
                        })?;
                        let record = unpacking.unpack(entry, &to)?;
                        self.report.received_files += 1;
                        self.unsynced.file(to);
                        record
                    }
                    Source::Kept(record) => {
                        let from = offer
                            .mirror()
                            .map(|mirror| mirror.path(segment, file))
                            .unwrap_or_default();
                        kept = true;
                        self.report.kept_files += 1;
                        self.report.kept_bytes += record.data();
                        match files::link_or_copy(&from, &to, record, self.links) {
                            Ok(Placed::Linked) => (*record).clone(),
                            Ok(Placed::Copied(copied)) => {
                                self.report.copied_files += 1;
                                self.unsynced.file(to);
                                copied
                            }
                            Err(Placing::Failed(error)) => return Err(error.into()),
                            Err(Placing::Damaged(why)) => {
                                let why = format!("{file}: {why}");
                                return Err(Stop::Damaged([((*segment).to_owned(), why)].into()));
                            }
                        }
                    }
                };
                records.insert((*file).to_owned(), record);
            }
            if kept {
                self.report.segments_kept += 1;
            } else {
                self.report.segments_fetched += 1;
            }
            self.segments.insert(
                (*segment).to_owned(),
                SegmentRecord {
                    manifest: planned.manifest.clone(),
                    files: records,
                },
            );
        }
        Ok(())
    }
}

/// Makes the folders of a file below `root`, and notes them, `root` included, as not durable.
pub(crate) fn make_parents(root: &Path, file: &Path, unsynced: &mut Unsynced) -> Result<()> {
    let Some(parent) = file.parent() else {
        return Ok(());
    };
    if unsynced.has_folder(parent) {
        return Ok(());
    }
    fs::create_dir_all(parent).map_err(|source| Error::io("create folder", parent, source))?;
    let mut folder: PathBuf = parent.to_path_buf();
    while folder.starts_with(root) && !unsynced.has_folder(&folder) {
        unsynced.folder(folder.clone());
        if !folder.pop() {
            break;
        }
    }
    Ok(())
}
