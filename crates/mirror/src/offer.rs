//! What a server is asked with: the mirror, without what is in doubt.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::Result;
use crate::files;
use crate::manifest::SnapshotManifest;
use crate::mirror::{Mirror, Origin, segment_folder};

/// The part of a mirror that the server need not send again, and how often the answer to it was
/// of no use.
///
/// What is in doubt costs bytes and never data: a segment in doubt is left out and so comes whole;
/// if that does not help, everything comes; if that does not help either, it is the server's fault.
#[derive(Debug, Clone)]
pub struct Offer {
    mirror: Option<Arc<Mirror>>,
    withheld: BTreeMap<String, String>,
    narrowed: bool,
}

impl Offer {
    /// Offers nothing: the server sends everything.
    pub fn everything() -> Self {
        Self {
            mirror: None,
            withheld: BTreeMap::new(),
            narrowed: false,
        }
    }

    /// Offers what is intact of `mirror`, if it is of `origin` and says from which moment it is;
    /// else nothing. Looks at the size and the time of every file; reads a file only if its time
    /// is not what it was.
    pub fn of(mut mirror: Mirror, origin: &Origin) -> Self {
        if mirror.origin() != origin || mirror.lineage().is_none() {
            return Self::everything();
        }
        let Mirror { folder, content } = &mut mirror;
        let mut withheld = BTreeMap::new();
        for (segment, record) in &mut content.segments {
            let in_segment = segment_folder(folder, segment);
            for (file, record) in &mut record.files {
                match files::check(&in_segment.join(file), record) {
                    // So that what had to be read is not read again.
                    Ok(modified) => record.modified = modified,
                    Err(wrong) => {
                        withheld.insert(segment.clone(), format!("{file}: {wrong}"));
                        break;
                    }
                }
            }
        }
        Self {
            mirror: Some(Arc::new(mirror)),
            withheld,
            narrowed: false,
        }
        .or_everything()
    }

    /// The body of the request.
    pub fn manifest(&self) -> SnapshotManifest {
        let Some(mirror) = &self.mirror else {
            return SnapshotManifest::default();
        };
        mirror
            .segments()
            .iter()
            .filter(|(segment, _)| !self.withheld.contains_key(*segment))
            .map(|(_, record)| record.manifest.clone())
            .collect()
    }

    /// True if nothing is offered, so that everything is asked for.
    pub fn is_everything(&self) -> bool {
        self.mirror.is_none()
    }

    /// True if all of a mirror is offered. Only then does 304 say that the mirror is up to date.
    pub fn is_whole(&self) -> bool {
        self.mirror.is_some() && self.withheld.is_empty()
    }

    /// True if there is a mirror, and it is known to be what the server held.
    pub fn is_settled(&self) -> bool {
        self.mirror.as_ref().is_some_and(|mirror| mirror.settled())
    }

    /// See [`Mirror::settle`]; does nothing without a mirror.
    ///
    /// # Errors
    /// Those of [`Mirror::settle`].
    pub fn settle(&mut self) -> Result<()> {
        match &mut self.mirror {
            Some(mirror) => Arc::make_mut(mirror).settle(),
            None => Ok(()),
        }
    }

    /// The segments that are in the mirror and not in the offer, and why.
    pub fn withheld(&self) -> &BTreeMap<String, String> {
        &self.withheld
    }

    /// What to ask with after the answer showed that these segments (name and reason) are in
    /// doubt: the offer without them; after that did not help, nothing. None if nothing was
    /// offered already.
    pub fn without(&self, doubts: impl IntoIterator<Item = (String, String)>) -> Option<Self> {
        if self.is_everything() {
            return None;
        }
        if self.narrowed {
            return Some(Self::everything());
        }
        let mut next = self.clone();
        next.withheld.extend(doubts);
        next.narrowed = true;
        Some(next.or_everything())
    }

    /// The mirror that is offered.
    pub(crate) fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_deref()
    }

    /// True if the server was told that this segment's files are here.
    pub(crate) fn has(&self, segment: &str) -> bool {
        !self.withheld.contains_key(segment)
            && self
                .mirror
                .as_ref()
                .is_some_and(|mirror| mirror.segments().contains_key(segment))
    }

    /// An offer of no segment is none: then the lineage does not matter either.
    fn or_everything(self) -> Self {
        let empty = self.mirror.as_ref().is_some_and(|mirror| {
            mirror
                .segments()
                .keys()
                .all(|segment| self.withheld.contains_key(segment))
        });
        let mirror = self.mirror.filter(|_| !empty);
        Self { mirror, ..self }
    }
}
