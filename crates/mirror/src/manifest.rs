//! The server's manifests: which version each file of each segment has.
//!
//! ```json
//! { "<segment>": { "segment_id": "<segment>", "segment_version": 40,
//!                  "file_versions": { "id_tracker.mappings": 39, "id_tracker.versions": null } } }
//! ```
//!
//! A number is the operation that the file last changed with; `null` counts as the segment's
//! version. Fields that are not known here are kept, so that the manifest goes back as it came: the
//! server answers 304 only to a manifest that equals its own.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::name;

/// The manifest of a shard: the body of `POST .../snapshot/partial/create`, and the `result` of
/// `GET .../snapshot/partial/manifest`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct SnapshotManifest {
    segments: BTreeMap<String, SegmentManifest>,
}

/// The manifest of a segment: `files/segment_manifest.json` in a partial snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentManifest {
    segment_id: String,
    segment_version: u64,
    #[serde(deserialize_with = "each_key_once")]
    file_versions: BTreeMap<String, Option<u64>>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl SnapshotManifest {
    /// Reads a manifest as JSON.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`]: not a manifest, a segment that is not named by its UUID or twice in
    /// it, or one that [`SegmentManifest::parse`] would not take.
    pub fn parse(json: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Segments(
            #[serde(deserialize_with = "each_key_once")] BTreeMap<String, SegmentManifest>,
        );
        let Segments(segments) = serde_json::from_slice(json)
            .map_err(|error| Error::bad(format!("the manifest of the shard: {error}")))?;
        for (segment, manifest) in &segments {
            manifest.check(segment)?;
        }
        Ok(Self { segments })
    }

    /// The manifest as JSON. That of no segments asks for everything.
    pub fn to_json(&self) -> String {
        // A map with string keys to what came from JSON; there is nothing to refuse.
        serde_json::to_string(self).unwrap_or_else(|_| "{}".to_owned())
    }

    /// The same versions, in a manifest that no server finds equal to its own: it lists one file
    /// more, which the server does not have and so does not send. A manifest of no segments stays as it is.
    ///
    /// For the way to the server on which a 304 does not arrive. The answer then has the manifests,
    /// and no file that did not change but those of version 0.
    #[must_use]
    pub fn made_unequal(&self) -> Self {
        let mut segments = self.segments.clone();
        if let Some(segment) = segments.values_mut().next() {
            let mut name = "a-file-more".to_owned();
            while segment.file_versions.contains_key(&name) {
                name.push('-');
            }
            segment.file_versions.insert(name, None);
        }
        Self { segments }
    }

    /// True if there is no segment in it.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments in order of name.
    pub fn segments(&self) -> impl Iterator<Item = (&str, &SegmentManifest)> {
        self.segments
            .iter()
            .map(|(segment, manifest)| (segment.as_str(), manifest))
    }
}

impl FromIterator<SegmentManifest> for SnapshotManifest {
    fn from_iter<T: IntoIterator<Item = SegmentManifest>>(segments: T) -> Self {
        Self {
            segments: segments
                .into_iter()
                .map(|manifest| (manifest.segment_id.clone(), manifest))
                .collect(),
        }
    }
}

impl SegmentManifest {
    /// Reads the manifest of the segment whose folder is `segment`.
    ///
    /// # Errors
    /// [`Error::BadSnapshot`]: not a manifest, that of another segment, a file twice in it, a file
    /// name that would lead out of the segment's folder, or one that is also a folder's.
    pub fn parse(json: &[u8], segment: &str) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| Error::bad(format!("the manifest of segment {segment}: {error}")))?;
        manifest.check(segment)?;
        Ok(manifest)
    }

    pub(crate) fn check(&self, segment: &str) -> Result<()> {
        let bad = |what: String| Err(Error::bad(format!("the manifest of {segment:?}: {what}")));
        if !name::is_segment(segment) {
            return bad("not the name of a segment".to_owned());
        }
        if self.segment_id != segment {
            return bad(format!("it is that of {:?}", self.segment_id));
        }
        for file in self.file_versions.keys() {
            if let Err(why) = name::check_path(file) {
                return bad(format!("{file:?}: {why}"));
            }
            if file == name::MANIFEST {
                return bad(format!("{file:?}: a name that stands for something else"));
            }
        }
        if let Some(file) = name::file_and_folder(&self.file_versions) {
            return bad(format!("{file:?}: a file and a folder"));
        }
        Ok(())
    }

    /// The segment's name.
    pub fn segment(&self) -> &str {
        &self.segment_id
    }

    /// The operation that the segment last changed with.
    pub fn version(&self) -> u64 {
        self.segment_version
    }

    /// The files' names, in order.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.file_versions.keys().map(String::as_str)
    }

    /// True if the file is in it.
    pub fn lists(&self, file: &str) -> bool {
        self.file_versions.contains_key(file)
    }

    /// The version that a file counts with: its own, or else the segment's. None if it is not
    /// listed.
    pub fn effective_version(&self, file: &str) -> Option<u64> {
        let own = self.file_versions.get(file)?;
        Some(own.unwrap_or(self.segment_version))
    }
}

/// A map from JSON, where a key that comes twice is an error: the last one would win here, and
/// another may elsewhere.
fn each_key_once<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Entries<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Entries<T> {
        type Value = BTreeMap<String, T>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut entries = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<String, T>()? {
                if entries.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("{key:?} comes twice")));
                }
                entries.insert(key, value);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_map(Entries(std::marker::PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = "f413efea-a665-47b8-b694-96d7394ab33d";

    fn with_files(files: &str) -> String {
        format!("{{\"segment_id\":\"{SEGMENT}\",\"segment_version\":7,\"file_versions\":{files}}}")
    }

    #[test]
    fn versions_count_as_the_server_counts_them() {
        let json = with_files(r#"{"a":3,"b/c":null}"#);
        let manifest = SegmentManifest::parse(json.as_bytes(), SEGMENT).unwrap();
        assert_eq!(manifest.effective_version("a"), Some(3));
        assert_eq!(manifest.effective_version("b/c"), Some(7));
        assert_eq!(manifest.effective_version("b"), None);
    }

    #[test]
    fn what_is_not_known_goes_back_as_it_came() {
        let json = format!(
            r#"{{"{SEGMENT}":{{"segment_id":"{SEGMENT}","segment_version":18446744073709551615,
            "file_versions":{{"a":null,"b":18446744073709551615}},"later":{{"x":[1,null]}}}}}}"#
        );
        let manifest = SnapshotManifest::parse(json.as_bytes()).unwrap();
        let sent: Value = serde_json::from_str(&manifest.to_json()).unwrap();
        assert_eq!(sent, serde_json::from_str::<Value>(&json).unwrap());
    }

    #[test]
    fn a_file_more_makes_it_unequal_and_changes_no_version() {
        let json = with_files(r#"{"a":3,"a-file-more":null}"#);
        let segment = SegmentManifest::parse(json.as_bytes(), SEGMENT).unwrap();
        let manifest: SnapshotManifest = [segment].into_iter().collect();
        let unequal = manifest.made_unequal();
        assert_ne!(unequal, manifest);
        let (_, sent) = unequal.segments().next().unwrap();
        assert_eq!(
            sent.files().collect::<Vec<_>>(),
            ["a", "a-file-more", "a-file-more-"]
        );
        assert_eq!(sent.effective_version("a"), Some(3));
        assert_eq!(
            SnapshotManifest::parse(unequal.to_json().as_bytes()).unwrap(),
            unequal
        );
        let nothing = SnapshotManifest::default();
        assert_eq!(nothing.made_unequal(), nothing);
    }

    #[test]
    fn no_segment_asks_for_everything() {
        assert_eq!(SnapshotManifest::default().to_json(), "{}");
        assert!(SnapshotManifest::parse(b"{}").unwrap().is_empty());
    }

    #[test]
    fn hostile_manifests_are_refused() {
        for files in [
            r#"{"../a":1}"#,
            r#"{"/etc/passwd":1}"#,
            r#"{"a\\b":1}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"a/b":2}"#,
            r#"{"a":-1}"#,
            r#"{"a":1.5}"#,
            r#"{"a":18446744073709551616}"#,
            r#"{"a":"1"}"#,
            r#"{"segment_manifest.json":1}"#,
            r#"["a"]"#,
            "null",
        ] {
            let json = with_files(files);
            let error = SegmentManifest::parse(json.as_bytes(), SEGMENT).unwrap_err();
            assert!(matches!(error, Error::BadSnapshot(_)), "{files}: {error}");
        }
        let other = "00000000-0000-0000-0000-000000000000";
        let json = with_files("{}");
        assert!(SegmentManifest::parse(json.as_bytes(), other).is_err());
        for json in [
            format!(r#"{{"{SEGMENT}":{json},"{SEGMENT}":{json}}}"#),
            format!(r#"{{"{other}":{json}}}"#),
            format!(r#"{{"..":{json}}}"#),
            format!(r#"{{"{SEGMENT}":{{"segment_id":"{SEGMENT}"}}}}"#),
            "[]".to_owned(),
            String::new(),
            "[".repeat(100_000),
        ] {
            assert!(SnapshotManifest::parse(json.as_bytes()).is_err());
        }
    }
}
