//! Which file of the next mirror comes from where, decided before anything is written.
//!
//! The server leaves a file out if its version is no higher than in the manifest that was offered.
//! Its versions do not always tell the truth: they are in memory and start again with the server,
//! and another history has the same numbers. So a file is kept only if both manifests give it the
//! same version, the history is the same, its record is intact, and what always comes does not
//! show that it was made anew.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::archive::{Archive, ArchivedFile, ArchivedSegment, StreamKind};
use crate::error::{Error, Result};
use crate::files;
use crate::manifest::SegmentManifest;
use crate::mirror::{FileRecord, Mirror, SegmentRecord};
use crate::name;
use crate::offer::Offer;

/// Where each file of the next mirror comes from.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) segments: BTreeMap<&'a str, PlannedSegment<'a>>,
}

#[derive(Debug)]
pub(crate) struct PlannedSegment<'a> {
    pub(crate) manifest: &'a SegmentManifest,
    pub(crate) files: BTreeMap<&'a str, Source<'a>>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Received(&'a ArchivedFile),
    Kept(&'a FileRecord),
}

/// Why an answer cannot be applied to what was offered.
#[derive(Debug)]
pub(crate) enum Doubt {
    /// The history is not that of the mirror: none of its files mean anything.
    Lineage(String),
    /// These segments, and why.
    Segments(BTreeMap<String, String>),
}

/// Decides for every file. What is in doubt is a value, not an error: it is asked for again.
///
/// # Errors
/// [`Error::BadSnapshot`] if the answer has no manifests.
pub(crate) fn plan<'a>(offer: &'a Offer, archive: &'a Archive) -> Result<Result<Plan<'a>, Doubt>> {
    if archive.kind() != StreamKind::WithManifests {
        return Err(Error::bad(
            "its segments have no manifests, so the next pull would have nothing to ask with",
        ));
    }
    if let Some(mirror) = offer.mirror()
        && let Err(why) = check_lineage(mirror, archive)
    {
        return Ok(Err(Doubt::Lineage(why)));
    }
    let mut segments = BTreeMap::new();
    let mut doubts = BTreeMap::new();
    for (segment, archived) in archive.segments() {
        let held = offer
            .mirror()
            .filter(|_| offer.has(segment))
            .and_then(|mirror| Some((mirror, mirror.segments().get(segment)?)));
        match plan_segment(segment, archived, held) {
            Ok(planned) => {
                segments.insert(segment.as_str(), planned);
            }
            Err(why) => {
                doubts.insert(segment.clone(), why);
            }
        }
    }
    Ok(if doubts.is_empty() {
        Ok(Plan { segments })
    } else {
        Err(Doubt::Segments(doubts))
    })
}

/// All files of a mirror, kept.
pub(crate) fn of_mirror(mirror: &Mirror) -> Plan<'_> {
    let segments = mirror.segments().iter();
    Plan {
        segments: segments
            .map(|(segment, record)| {
                let files = record.files.iter();
                let planned = PlannedSegment {
                    manifest: &record.manifest,
                    files: files
                        .map(|(file, record)| (file.as_str(), Source::Kept(record)))
                        .collect(),
                };
                (segment.as_str(), planned)
            })
            .collect(),
    }
}

/// Whether the answer is a later moment of the mirror's history.
fn check_lineage(mirror: &Mirror, archive: &Archive) -> Result<(), String> {
    let earlier = mirror
        .lineage()
        .ok_or("the mirror does not say from which moment it is")?;
    let now = archive
        .lineage()
        .ok_or("the answer does not say from which moment it is")?;
    now.continues(earlier)?;
    for (segment, archived) in archive.segments() {
        let (Some(record), Some(manifest)) = (mirror.segments().get(segment), &archived.manifest)
        else {
            continue;
        };
        if manifest.version() < record.manifest.version() {
            return Err(format!(
                "the server went back: segment {segment} is at operation {}, it was at {}",
                manifest.version(),
                record.manifest.version()
            ));
        }
        // If the mirror's file is damaged, the segment is in doubt for that.
        let before = held_text(mirror, segment, record, name::STATE)
            .ok()
            .as_deref()
            .and_then(parse);
        let now = archived.texts.get(name::STATE).and_then(|text| parse(text));
        if let (Some(before), Some(now)) = (before, now)
            && before.get("initial_version").filter(|v| !v.is_null())
                != now.get("initial_version").filter(|v| !v.is_null())
        {
            return Err(format!(
                "segment {segment} was built anew under the same name"
            ));
        }
    }
    Ok(())
}

fn plan_segment<'a>(
    segment: &str,
    archived: &'a ArchivedSegment,
    held: Option<(&'a Mirror, &'a SegmentRecord)>,
) -> Result<PlannedSegment<'a>, String> {
    let manifest = archived
        .manifest
        .as_ref()
        .ok_or("it has no manifest in the answer")?;
    let mut sources: BTreeMap<&str, Source<'_>> = archived
        .files
        .iter()
        .map(|(file, entry)| (file.as_str(), Source::Received(entry)))
        .collect();
    let mut kept = BTreeSet::new();
    for file in manifest.files() {
        if archived.files.contains_key(file) {
            continue;
        }
        let record = keep(segment, file, manifest, held)
            .map_err(|why| format!("{file} was not sent, and {why}"))?;
        sources.insert(file, Source::Kept(record));
        kept.insert(file);
    }
    if let Some((mirror, record)) = held
        && !kept.is_empty()
    {
        compare_texts(segment, archived, mirror, record, &kept)?;
    }
    Ok(PlannedSegment {
        manifest,
        files: sources,
    })
}

/// The record of a file that the server left out, or why the one in the mirror will not do.
fn keep<'a>(
    segment: &str,
    file: &str,
    manifest: &SegmentManifest,
    held: Option<(&'a Mirror, &'a SegmentRecord)>,
) -> Result<&'a FileRecord, String> {
    let (mirror, record) = held.ok_or("the segment was not offered")?;
    let before = record
        .manifest
        .effective_version(file)
        .ok_or("it was not offered")?;
    let now = manifest.effective_version(file).unwrap_or_default();
    if before != now {
        return Err(format!("its version is {now}, in the mirror {before}"));
    }
    if now == 0 {
        return Err("files of version 0 are always sent".to_owned());
    }
    let record = record.files.get(file).ok_or("it is not in the mirror")?;
    files::check(&mirror.path(segment, file), record)?;
    Ok(record)
}

/// Compares what always comes, or came because it changed, with what the mirror has of it: files
/// that were made anew may have a version from before.
fn compare_texts(
    segment: &str,
    archived: &ArchivedSegment,
    mirror: &Mirror,
    record: &SegmentRecord,
    kept: &BTreeSet<&str>,
) -> Result<(), String> {
    let before = |file: &str| held_text(mirror, segment, record, file);
    let now = |file: &str| archived.texts.get(file).map(Vec::as_slice);

    // A server of another version changes files when it loads them.
    if now(name::VERSION) != Some(before(name::VERSION)?.as_slice()) {
        return Err("the format of its files has another version".to_owned());
    }

    let vectors = |text: &[u8]| {
        let state = parse(text).ok_or("its segment.json makes no sense")?;
        Ok::<_, String>(vector_entries(&state))
    };
    let vectors_before = vectors(&before(name::STATE)?)?;
    let vectors_now = vectors(now(name::STATE).unwrap_or_default())?;
    for file in kept
        .iter()
        .filter(|file| file.starts_with("vector_storage") || file.starts_with("vector_index"))
    {
        let of_file = |vector: &&String| is_of_vector(file, vector);
        if !vectors_now.keys().any(|vector| of_file(&vector)) {
            return Err(format!("{file} was not sent, and no vector has that name"));
        }
        let names = vectors_before.keys().chain(vectors_now.keys());
        for vector in names.filter(of_file) {
            if vectors_before.get(vector) != vectors_now.get(vector) {
                return Err(format!(
                    "{file} was not sent, and the vector {vector:?} has other parameters"
                ));
            }
        }
    }

    // Not sent: kept, under an equal version like the rest.
    let Some(fields_now) = now(name::PAYLOAD_CONFIG) else {
        return Ok(());
    };
    let kept: Vec<_> = kept
        .iter()
        .filter_map(|file| file.strip_prefix("payload_index/"))
        .collect();
    if kept.is_empty() {
        return Ok(());
    }
    let fields = |text: &[u8]| {
        let config = parse(text).ok_or("its payload_index/config.json makes no sense")?;
        Ok::<_, String>(field_entries(&config))
    };
    let fields_before = fields(&before(name::PAYLOAD_CONFIG)?)?;
    let fields_now = fields(fields_now)?;
    for file in kept {
        let mut known = false;
        let names: BTreeSet<_> = fields_before.keys().chain(fields_now.keys()).collect();
        for field in names {
            if !file.starts_with(&field_folders(field)) {
                continue;
            }
            known = true;
            if fields_before.get(field) != fields_now.get(field) {
                return Err(format!(
                    "payload_index/{file} was not sent, and the index of {field:?} is another"
                ));
            }
        }
        if !known {
            return Err(format!(
                "payload_index/{file} was not sent, and no field has that index"
            ));
        }
    }
    Ok(())
}

/// A small file of the mirror.
fn held_text(
    mirror: &Mirror,
    segment: &str,
    record: &SegmentRecord,
    file: &str,
) -> Result<Vec<u8>, String> {
    let known = record
        .files
        .get(file)
        .ok_or_else(|| format!("{file} is not in the mirror"))?;
    files::read_checked(&mirror.path(segment, file), known)
        .map_err(|why| format!("{file} in the mirror: {why}"))
}

fn parse(text: &[u8]) -> Option<Map<String, Value>> {
    serde_json::from_slice(text).ok()
}

/// The vectors in a `segment.json`, of both kinds.
fn vector_entries(state: &Map<String, Value>) -> BTreeMap<String, Value> {
    let config = state.get("config");
    ["vector_data", "sparse_vector_data"]
        .iter()
        .filter_map(|kind| Some((kind, config?.get(kind)?.as_object()?)))
        .flat_map(|(kind, vectors)| {
            vectors.iter().map(move |(name, entry)| {
                (
                    name.clone(),
                    Value::from(vec![(*kind).into(), entry.clone()]),
                )
            })
        })
        .collect()
}

/// Whether a file lies in one of the folders of a vector: `vector_storage-<name>`,
/// `vector_index-<name>`, for the vector without a name without the dash.
fn is_of_vector(file: &str, vector: &str) -> bool {
    ["vector_storage", "vector_index"].iter().any(|folder| {
        file.strip_prefix(folder)
            .and_then(|rest| match vector {
                "" => Some(rest),
                _ => rest.strip_prefix('-')?.strip_prefix(vector),
            })
            .is_some_and(|rest| rest.starts_with('/'))
    })
}

/// The fields in a `payload_index/config.json`: schema and kinds of index.
fn field_entries(config: &Map<String, Value>) -> BTreeMap<String, [Option<Value>; 2]> {
    let of = |kind: &str, field: &str| config.get(kind)?.get(field).cloned();
    config
        .get("indexed_fields")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(field, schema)| {
            let kinds = of("indexed_types", field);
            (field.clone(), [Some(schema.clone()), kinds])
        })
        .collect()
}

/// What the names of a field's index folders begin with: 24 digits of the SHA-256 of its name, and
/// the name, in lower case, as far as it fits.
fn field_folders(field: &str) -> String {
    /// Of the RFC 4648 with the extended hexadecimal alphabet, as DNSSEC has it.
    const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
    const HASHED: usize = 15;
    const NAME: usize = 8;
    let hash = Sha256::digest(field.as_bytes());
    let mut folders = String::new();
    for five in hash.get(..HASHED).unwrap_or_default().chunks(5) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        for digit in (0..8).rev() {
            let at = usize::try_from(bits >> (5 * digit) & 31).unwrap_or_default();
            folders.push(DIGITS.get(at).copied().unwrap_or_default().into());
        }
    }
    folders.push('-');
    let mut last = None;
    let name = field
        .chars()
        .map(|char| match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' => char.to_ascii_lowercase(),
            _ => '_',
        })
        .filter(|char| last.replace(*char) != Some('_') || *char != '_');
    folders.extend(name.take(NAME));
    folders.push('-');
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_the_names_of_their_folders() {
        // From a server's snapshot.
        for (field, folders) in [
            ("city", "26j2o8q15drkeujh90da5n3j-city-"),
            ("text", "j0mpsflpirqljphjuj8p9nnj-text-"),
            ("n", "3cbb3nqjhegirgvpfrdrgn5a-n-"),
            ("nested[].x", "glpthbg8mvrrgtkbds9ld2an-nested_x-"),
        ] {
            assert_eq!(field_folders(field), folders);
        }
    }

    #[test]
    fn files_are_found_by_vector() {
        assert!(is_of_vector("vector_storage/matrix.dat", ""));
        assert!(is_of_vector("vector_index-a/graph.bin", "a"));
        assert!(is_of_vector("vector_storage-a/b/matrix.dat", "a/b"));
        assert!(!is_of_vector("vector_storage-ab/matrix.dat", "a"));
        assert!(!is_of_vector("vector_storage-a/matrix.dat", ""));
        assert!(!is_of_vector("payload_storage/page_0.dat", ""));
    }
}
