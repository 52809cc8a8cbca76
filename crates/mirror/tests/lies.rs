//! Answers that are not what they say: each costs bytes, none puts a wrong file in the mirror.
//!
//! The answer that is changed is a recorded one: a payload was set, one segment did not change
//! (57 of its 65 listed files were not sent), the other did (18 were not sent).

mod common;

use common::{Parts, Room, Server, applied, assert_equals_full, origin, recorded, settings};
use edge_sync_mirror::{Error, Links, Mirror, Offer, Outcome, Settings};
use serde_json::{Value, json};

const BEFORE: &str = "05-overwrite-in-indexed";
const STEP: &str = "06-payload-in-indexed";
/// The segment that did not change.
const UNCHANGED: &str = "f413efea-a665-47b8-b694-96d7394ab33d";
const CHANGED: &str = "47c73603-d316-479a-ae50-720681f6bb18";

struct Case {
    room: Room,
    before: Mirror,
    offer: Offer,
    answer: Parts,
}

impl Case {
    fn new() -> Self {
        let room = Room::new();
        let (_, before) = Server::at(BEFORE).pull(&room, Offer::everything());
        let offer = Offer::of(before.clone(), &origin());
        assert!(offer.is_whole());
        let answer = Parts::of(&recorded(STEP, "answer.tar.gz").unwrap());
        Self {
            room,
            before,
            offer,
            answer,
        }
    }

    fn apply(&self) -> Result<Outcome, Error> {
        self.room.apply(&self.offer, &self.answer.to_archive())
    }

    /// The answer puts these segments in doubt; the right answer to the next question is applied.
    fn expect_again(&self, segments: &[&str], reason: &str) {
        match self.apply() {
            Ok(Outcome::Again { offer, why }) => {
                let doubted: Vec<_> = why.keys().map(String::as_str).collect();
                assert_eq!(doubted, segments);
                for why in why.values() {
                    assert!(why.contains(reason), "{why}");
                }
                let manifest = offer.manifest();
                assert_eq!(manifest.segments().count(), 2 - segments.len());
                for (segment, _) in manifest.segments() {
                    assert!(!segments.contains(&segment));
                }
                self.expect_heals(offer);
                self.expect_stops(reason);
            }
            Ok(Outcome::Everything { offer, why }) => {
                assert_eq!(segments.len(), 2, "{why}");
                assert!(why.contains(reason), "{why}");
                self.expect_heals(offer);
            }
            other => panic!("{other:?}"),
        }
    }

    fn expect_everything(&self, reason: &str) {
        match self.apply() {
            Ok(Outcome::Everything { offer, why }) => {
                assert!(offer.is_everything());
                assert_eq!(offer.manifest().to_json(), "{}");
                assert!(why.contains(reason), "{why}");
                self.expect_heals(offer);
            }
            other => panic!("{other:?}"),
        }
    }

    fn expect_bad(&self, reason: &str) {
        match self.apply() {
            Err(Error::BadSnapshot(why)) => assert!(why.contains(reason), "{why}"),
            other => panic!("{other:?}"),
        }
    }

    /// The mirror that was offered is as it was, and honest answers lead to the server's files.
    fn expect_heals(&self, offer: Offer) {
        assert!(Offer::of(self.before.clone(), &origin()).is_whole());
        let server = Server::at(STEP);
        let (rounds, mirror) = server.pull(&self.room, offer);
        assert_eq!(rounds, 1);
        assert_equals_full(&mirror.folder().join("segments"), &server.full);
    }

    /// A server that gives the same answer to every question is asked three times.
    fn expect_stops(&self, reason: &str) {
        let mut offer = self.offer.clone();
        for _ in 0..2 {
            offer = match self.room.apply(&offer, &self.answer.to_archive()) {
                Ok(Outcome::Again { offer, .. } | Outcome::Everything { offer, .. }) => offer,
                other => panic!("{other:?}"),
            };
        }
        assert!(offer.is_everything());
        let last = self.room.apply(&offer, &self.answer.to_archive());
        assert!(
            matches!(last, Err(Error::BadSnapshot(_))),
            "{reason}: {last:?}"
        );
    }

    fn manifest(&mut self, segment: &str, change: impl FnOnce(&mut Value)) {
        self.answer.edit(
            &format!("segments/{segment}/files/segment_manifest.json"),
            change,
        );
    }

    fn version(&mut self, segment: &str, file: &str, version: Value) {
        self.manifest(segment, |manifest| {
            manifest["file_versions"][file] = version;
        });
    }
}

#[test]
fn the_truth_is_applied() {
    let case = Case::new();
    let (mirror, _) = applied(case.apply());
    let full = recorded(STEP, "full.tar.gz").unwrap();
    assert_equals_full(&mirror.folder().join("segments"), &full);
}

#[test]
fn a_file_that_is_not_listed() {
    let mut case = Case::new();
    case.answer
        .put(&format!("segments/{CHANGED}/files/extra.dat"), b"extra");
    case.expect_bad("does not list it");
}

#[test]
fn a_file_that_is_listed_and_neither_sent_nor_held() {
    let mut case = Case::new();
    case.version(CHANGED, "pending_changes-1.log", json!(null));
    case.expect_again(&[CHANGED], "it was not offered");
}

#[test]
fn a_file_that_was_not_sent_though_it_changed() {
    let mut case = Case::new();
    case.version(UNCHANGED, "payload_storage/page_0.dat", json!(12));
    case.expect_again(&[UNCHANGED], "its version is 12, in the mirror 10");
}

/// The server leaves a file out if its version went back; then it is another file.
#[test]
fn a_version_that_went_back() {
    let mut case = Case::new();
    case.version(UNCHANGED, "payload_storage/page_0.dat", json!(9));
    case.expect_again(&[UNCHANGED], "its version is 9, in the mirror 10");
}

#[test]
fn files_of_version_0_that_were_not_sent() {
    let mut case = Case::new();
    let file = "payload_storage/config.json";
    case.answer
        .remove(&format!("segments/{UNCHANGED}/files/{file}"));
    case.expect_again(&[UNCHANGED], "files of version 0 are always sent");
}

#[test]
fn a_segment_that_went_back() {
    let mut case = Case::new();
    case.manifest(UNCHANGED, |manifest| manifest["segment_version"] = json!(8));
    case.expect_everything("the server went back");
}

#[test]
fn another_peer() {
    let mut case = Case::new();
    case.answer.edit("replica_state.json", |state| {
        state["this_peer_id"] = json!(5)
    });
    case.expect_everything("peer 5 answered");
}

#[test]
fn fewer_operations_than_there_were() {
    let mut case = Case::new();
    case.answer.rename("wal/closed-12", "wal/closed-10");
    case.expect_everything("its next operation is 10, it was 11");
}

#[test]
fn a_clock_that_went_back() {
    let mut case = Case::new();
    case.answer.edit("newest_clocks.json", |clocks| {
        clocks["clocks"][0]["current_tick"] = json!(6);
    });
    case.expect_everything("is at 6, it was at 7");
}

#[test]
fn a_clock_that_is_gone() {
    let mut case = Case::new();
    case.answer.edit("newest_clocks.json", |clocks| {
        clocks["clocks"][0]["clock_id"] = json!(1);
    });
    case.expect_everything("is gone");
}

/// A server that was recovered from an older snapshot and reached the same number again.
#[test]
fn the_same_tick_with_another_token() {
    let mut case = Case::new();
    case.answer.edit("newest_clocks.json", |clocks| {
        clocks["clocks"][0]["current_tick"] = json!(7);
    });
    case.expect_everything("came to 7 another way");
}

#[test]
fn an_answer_that_does_not_say_where_it_is_from() {
    for file in ["newest_clocks.json", "replica_state.json", "wal/closed-12"] {
        let mut case = Case::new();
        case.answer.remove(file);
        case.expect_everything("does not say from which moment");
    }
    // Asked for everything, it is applied; the next pull asks for everything again.
    let room = Room::new();
    let mut all = Parts::of(&recorded("00-all", "answer.tar.gz").unwrap());
    all.remove("replica_state.json");
    let (mirror, _) = applied(room.apply(&Offer::everything(), &all.to_archive()));
    assert_eq!(mirror.lineage(), None);
    assert!(Offer::of(mirror, &origin()).is_everything());
}

#[test]
fn a_format_of_another_version() {
    let mut case = Case::new();
    case.answer.put(
        &format!("segments/{UNCHANGED}/files/version.info"),
        b"0.7.0",
    );
    case.expect_again(&[UNCHANGED], "another version");
}

#[test]
fn a_segment_that_was_built_anew_under_its_name() {
    let mut case = Case::new();
    case.answer.edit(
        &format!("segments/{UNCHANGED}/files/segment.json"),
        |state| state["initial_version"] = json!(3),
    );
    case.expect_everything("built anew");
}

#[test]
fn a_vector_made_again_with_other_parameters() {
    let state = format!("segments/{UNCHANGED}/files/segment.json");
    let mut case = Case::new();
    case.answer.edit(&state, |state| {
        state["config"]["vector_data"]["v"]["distance"] = json!("Dot");
    });
    case.expect_again(&[UNCHANGED], "the vector \"v\" has other parameters");

    let mut case = Case::new();
    case.answer.edit(&state, |state| {
        state["config"]["sparse_vector_data"]["s"]["index"]["datatype"] = json!("uint8");
    });
    case.expect_again(&[UNCHANGED], "the vector \"s\" has other parameters");

    let mut case = Case::new();
    case.answer.edit(&state, |state| {
        let vectors = &mut state["config"]["vector_data"];
        vectors.as_object_mut().unwrap().remove("m");
    });
    case.expect_again(&[UNCHANGED], "no vector has that name");

    // A new one that has nothing to do with what is kept.
    let mut case = Case::new();
    case.answer.edit(&state, |state| {
        let vectors = &mut state["config"]["vector_data"];
        vectors["new"] = vectors["v"].clone();
    });
    applied(case.apply());

    let mut case = Case::new();
    case.answer.put(&state, b"{}");
    case.expect_again(&[UNCHANGED], "no vector has that name");
    case.answer.put(&state, b"[");
    case.expect_again(&[UNCHANGED], "makes no sense");
}

/// After a restart the server gives the files of an index that was made again the versions of the
/// segment's first build. Its configuration came, for the segment changed.
#[test]
fn an_index_made_again_with_another_schema() {
    let config = format!("segments/{CHANGED}/files/payload_index/config.json");
    let kept = "payload_index/26j2o8q15drkeujh90da5n3j-city-map/page_0.dat";
    // As it is in a segment that was built by the optimizer: the index has its build's version.
    let case_with = |change: &dyn Fn(&mut Value)| {
        let mut case = Case::new();
        let room = &case.room;
        let mut all = Parts::of(
            &Server::at(BEFORE)
                .answer(&Offer::everything().manifest())
                .unwrap(),
        );
        let manifest = format!("segments/{CHANGED}/files/segment_manifest.json");
        all.edit(&manifest, |manifest| {
            manifest["file_versions"][kept] = json!(3)
        });
        let (mirror, _) = applied(room.apply(&Offer::everything(), &all.to_archive()));
        case.offer = Offer::of(mirror, &origin());
        case.version(CHANGED, kept, json!(3));
        case.answer
            .remove(&format!("segments/{CHANGED}/files/{kept}"));
        case.answer.edit(&config, change);
        case
    };

    applied(case_with(&|_| {}).apply());
    // Another field's index is no matter.
    applied(
        case_with(&|config| {
            config["indexed_fields"]["x"] = json!("keyword");
            config["indexed_fields"]["n"] = json!("float");
        })
        .apply(),
    );
    let schema = case_with(&|config| config["indexed_fields"]["city"] = json!("uuid"));
    schema.expect_again(&[CHANGED], "the index of \"city\" is another");
    let kind = case_with(&|config| {
        config["indexed_types"]["city"][0]["mutability"] = json!("immutable");
    });
    kind.expect_again(&[CHANGED], "the index of \"city\" is another");
    let gone = case_with(&|config| {
        let fields = config["indexed_fields"].as_object_mut().unwrap();
        fields.remove("city");
    });
    gone.expect_again(&[CHANGED], "the index of \"city\" is another");
    let mut broken = case_with(&|_| {});
    broken.answer.put(&config, b"{");
    broken.expect_again(&[CHANGED], "makes no sense");
}

#[test]
fn the_manifest_of_another_segment() {
    let mut case = Case::new();
    case.manifest(UNCHANGED, |manifest| {
        manifest["segment_id"] = json!(CHANGED)
    });
    case.expect_bad("it is that of");
}

#[test]
fn a_segment_without_what_always_comes() {
    for file in ["segment.json", "version.info", "segment_manifest.json"] {
        let mut case = Case::new();
        case.answer
            .remove(&format!("segments/{UNCHANGED}/files/{file}"));
        case.expect_bad(if file == "segment_manifest.json" {
            "some segments have a manifest"
        } else {
            "is not there"
        });
    }
}

#[test]
fn a_cut_archive() {
    let case = Case::new();
    let whole = case.answer.to_archive();
    let ends = (0..whole.len() / 512)
        .map(|block| block * 512)
        .step_by(37)
        .chain([
            1,
            511,
            513,
            whole.len() - 512,
            whole.len() - 1024,
            whole.len() - 1,
        ]);
    for end in ends {
        let cut = case.room.apply(&case.offer, &whole[..end]);
        assert!(matches!(cut, Err(Error::BadSnapshot(_))), "{end}: {cut:?}");
    }
}

/// What is gone on the server is gone in the next mirror; a segment whole, and a file of one.
#[test]
fn what_the_server_has_no_more_is_gone() {
    let mut case = Case::new();
    let file = "payload_storage/page_0.dat";
    case.manifest(UNCHANGED, |manifest| {
        manifest["file_versions"]
            .as_object_mut()
            .unwrap()
            .remove(file);
    });
    let prefix = format!("segments/{CHANGED}/");
    case.answer.0.retain(|(name, _)| !name.starts_with(&prefix));
    let Ok(Outcome::Applied { mirror, report, .. }) = case.apply() else {
        panic!();
    };
    assert_eq!(report.segments_removed, 1);
    assert_eq!(mirror.segments().len(), 1);
    assert!(!mirror.path(UNCHANGED, file).exists());
    assert!(!mirror.folder().join("segments").join(CHANGED).exists());
    assert!(
        mirror
            .path(UNCHANGED, "payload_storage/tracker.dat")
            .exists()
    );
    let before = case.before.clone();
    assert!(before.path(UNCHANGED, file).exists());
    assert!(Offer::of(before, &origin()).is_whole());
}

/// A segment that was not offered must come whole, even if the mirror has its files.
#[test]
fn what_was_not_offered_is_not_kept() {
    let case = Case::new();
    let doubt = (UNCHANGED.to_owned(), "for the test".to_owned());
    let offer = case.offer.without([doubt]).unwrap();
    assert_eq!(offer.manifest().segments().count(), 1);
    assert!(!offer.is_whole());
    match case.room.apply(&offer, &case.answer.to_archive()) {
        Ok(Outcome::Everything { why, .. }) => assert!(why.contains("not offered"), "{why}"),
        other => panic!("{other:?}"),
    }
}

/// The record of the mirror is damaged in a way that only copying it shows.
#[test]
fn damage_that_shows_while_the_mirror_is_copied() {
    let case = Case::new();
    let before = case.before.clone();
    let path = before.path(UNCHANGED, "vector_storage-v/vectors/chunk_0.mmap");
    let time = std::fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(time).unwrap();
    let settings = Settings {
        links: Links::Never,
        ..settings()
    };
    let answer = case.answer.to_archive();
    match case.room.apply_as(&case.offer, &answer, &settings) {
        Ok(Outcome::Again { offer, why }) => {
            assert!(why[UNCHANGED].contains("checksum"), "{why:?}");
            let server = Server::at(STEP);
            let (_, mirror) = server.pull(&case.room, offer);
            assert_equals_full(&mirror.folder().join("segments"), &server.full);
        }
        other => panic!("{other:?}"),
    }
}
