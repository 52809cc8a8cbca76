//! What a real server sent, applied step by step, gives the files that it had.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;

use common::{
    Room, STEPS, Server, applied, assert_equals_full, fixtures, origin, recorded, settings,
    unzipped, walk,
};
use edge_sync_mirror::{
    Archive, Error, Limits, Links, Mirror, Offer, Outcome, Settings, SnapshotManifest, StreamKind,
    build, is_never_written,
};
use serde_json::Value;

/// Every file of the full snapshot of the same moment is compared, none excepted: what always
/// comes (`segment.json`, `version.info`) is as the server has it, too.
#[test]
fn each_step_gives_the_files_of_the_full_snapshot() {
    let room = Room::new();
    let mut mirror: Option<Mirror> = None;
    for step in STEPS {
        let offer = match &mirror {
            Some(mirror) => Offer::of(mirror.clone(), &origin()),
            None => Offer::everything(),
        };
        let asked: Value = serde_json::from_str(&offer.manifest().to_json()).unwrap();
        let request: Value =
            serde_json::from_slice(&recorded(step, "request.json.gz").unwrap()).unwrap();
        assert_eq!(
            asked, request,
            "{step}: what the real server was asked with"
        );

        match recorded(step, "answer.tar.gz") {
            Some(answer) => {
                let (next, report) = applied(room.apply(&offer, &answer));
                assert_eq!(report.received_bytes, answer.len() as u64);
                assert_eq!(report.segments_kept + report.segments_fetched, 2, "{step}");
                assert_eq!(report.copied_files, 0, "{step}: links work here");
                let files: u64 = next
                    .segments()
                    .values()
                    .map(|segment| segment.files.len() as u64)
                    .sum();
                assert_eq!(report.received_files + report.kept_files, files, "{step}");
                if let Some(before) = mirror.replace(next) {
                    // The one before is as it was.
                    let offer = Offer::of(before.clone(), &origin());
                    assert!(offer.is_whole(), "{step}: {:?}", offer.withheld());
                    let loaded = Mirror::load(before.folder()).unwrap();
                    assert_eq!(loaded.as_ref(), Some(&before), "{step}");
                }
            }
            None => assert!(offer.is_whole(), "{step}: 304 is about the whole mirror"),
        }
        let mirror = mirror.as_ref().unwrap();
        let full = recorded(step, "full.tar.gz").unwrap();
        assert_equals_full(&mirror.folder().join("segments"), &full);
        for (segment, record) in mirror.segments() {
            for (file, record) in &record.files {
                // Of the records, what reading can show.
                let metadata = fs::metadata(mirror.path(segment, file)).unwrap();
                assert_eq!(metadata.len(), record.length);
            }
        }
        let loaded = Mirror::load(mirror.folder()).unwrap();
        assert_eq!(loaded.as_ref(), Some(mirror), "{step}");
        assert_eq!(mirror.origin(), &origin());
        assert!(mirror.settled());
    }
}

#[test]
fn what_was_recorded_is_kept_or_fetched_as_expected() {
    let room = Room::new();
    let offer = Offer::of(room.mirror_of("05-overwrite-in-indexed"), &origin());
    let answer = recorded("06-payload-in-indexed", "answer.tar.gz").unwrap();
    let (mirror, report) = applied(room.apply(&offer, &answer));
    assert_eq!((report.segments_kept, report.segments_fetched), (2, 0));
    // 67 files a segment, of which the server sent 8 and 47.
    assert_eq!((report.received_files, report.kept_files), (55, 79));

    // A kept file is the same file; one that came is another.
    let inode = |mirror: &Mirror, file| {
        let path = mirror.path("f413efea-a665-47b8-b694-96d7394ab33d", file);
        fs::metadata(path).unwrap().ino()
    };
    let before = room.mirror_of("05-overwrite-in-indexed");
    let offer = Offer::of(before.clone(), &origin());
    let (after, _) = applied(room.apply(&offer, &answer));
    let kept = "vector_storage-v/vectors/chunk_0.mmap";
    assert_eq!(inode(&before, kept), inode(&after, kept));
    assert_ne!(
        inode(&before, "segment.json"),
        inode(&after, "segment.json")
    );
    drop(mirror);
}

#[test]
fn where_links_are_refused_the_files_are_the_same() {
    let room = Room::new();
    let settings = Settings {
        links: Links::Never,
        ..settings()
    };
    let before = room.mirror_of("05-overwrite-in-indexed");
    let offer = Offer::of(before, &origin());
    let answer = recorded("06-payload-in-indexed", "answer.tar.gz").unwrap();
    let (mirror, report) = applied(room.apply_as(&offer, &answer, &settings));
    assert_eq!(report.copied_files, report.kept_files);
    let full = recorded("06-payload-in-indexed", "full.tar.gz").unwrap();
    assert_equals_full(&mirror.folder().join("segments"), &full);
    for path in walk(mirror.folder()).values() {
        assert_eq!(fs::metadata(path).unwrap().nlink(), 1, "{}", path.display());
    }
    assert!(Offer::of(mirror.clone(), &origin()).is_whole());
    // The holes are still there: two segments of 270 MB with less than 2 MB in them.
    let blocks: u64 = walk(mirror.folder())
        .values()
        .map(|path| fs::metadata(path).unwrap().blocks() * 512)
        .sum();
    assert!(blocks < 8 << 20, "{blocks} bytes on the disk");
}

#[test]
fn an_unsettled_answer_is_kept_as_unsettled() {
    let room = Room::new();
    let answer = unzipped(&fixtures().join("real-server/unsettled/partial.tar.gz")).unwrap();
    let full = unzipped(&fixtures().join("real-server/unsettled/full.tar.gz")).unwrap();
    let settings = Settings {
        settled: false,
        ..settings()
    };
    let (mirror, _) = applied(room.apply_as(&Offer::everything(), &answer, &settings));
    assert_equals_full(&mirror.folder().join("segments"), &full);
    let loaded = Mirror::load(mirror.folder()).unwrap().unwrap();
    assert!(!loaded.settled());
}

#[test]
fn full_streams_are_told_apart_and_make_no_mirror() {
    let room = Room::new();
    for full in [
        recorded("00-all", "full.tar.gz").unwrap(),
        unzipped(&fixtures().join("qdrant-1.19-all-kinds/shard.snapshot.gz")).unwrap(),
    ] {
        assert_eq!(room.archive(&full).unwrap().kind(), StreamKind::Full);
        let refused = room.apply(&Offer::everything(), &full);
        assert!(matches!(refused, Err(Error::BadSnapshot(_))), "{refused:?}");
    }
    let answer = recorded("00-all", "answer.tar.gz").unwrap();
    let archive = room.archive(&answer).unwrap();
    assert_eq!(archive.kind(), StreamKind::WithManifests);
    let lineage = archive.lineage().unwrap();
    assert_eq!((lineage.peer, lineage.wal_next), (477_286_686_721_032, 8));
    assert_eq!(lineage.clocks.len(), 1);
    assert_eq!(lineage.clocks[0].current_tick, 4);
}

/// A stored snapshot has its segments as archives within the archive; it does not come from here.
#[test]
fn stored_snapshots_are_refused() {
    let room = Room::new();
    let mut parts = common::Parts::of(&recorded("00-all", "answer.tar.gz").unwrap());
    parts.put("segments/f413efea-a665-47b8-b694-96d7394ab33d.tar", b"");
    assert!(matches!(
        room.archive(&parts.to_archive()),
        Err(Error::BadSnapshot(_))
    ));
}

/// The server of the tests answers as the real one did, in every step of the chain.
#[test]
fn the_simulated_server_answers_as_the_real_one() {
    for step in STEPS {
        let server = Server::at(step);
        let asked = SnapshotManifest::parse(&recorded(step, "request.json.gz").unwrap()).unwrap();
        let simulated = server.answer(&asked);
        let real = recorded(step, "answer.tar.gz");
        let names = |answer: &[u8]| -> BTreeSet<String> {
            let parts = common::Parts::of(answer).0;
            parts.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            simulated.as_deref().map(names),
            real.as_deref().map(names),
            "{step}"
        );
    }
}

#[test]
fn other_shards_and_peers_start_from_nothing() {
    let room = Room::new();
    let mirror = room.mirror_of("00-all");
    for other in [
        edge_sync_mirror::Origin {
            shard: 1,
            ..origin()
        },
        edge_sync_mirror::Origin {
            collection: "d".to_owned(),
            ..origin()
        },
        edge_sync_mirror::Origin {
            url: "http://elsewhere".to_owned(),
            ..origin()
        },
    ] {
        let offer = Offer::of(mirror.clone(), &other);
        assert!(offer.is_everything());
        assert_eq!(offer.manifest().to_json(), "{}");
    }
}

#[test]
fn the_working_folder_has_the_same_files_and_shares_only_what_is_never_written() {
    let room = Room::new();
    let mirror = room.mirror_of("08-index-remade");
    let segments = room.fresh("segments");
    let working = build(&mirror, &segments, Links::Try).unwrap();
    let full = recorded("08-index-remade", "full.tar.gz").unwrap();
    assert_equals_full(&segments, &full);
    // Both segments take points, so all of it can be written.
    assert_eq!(working.linked_files, 0);
    assert_eq!(working.copied_files, 152);
    assert!(working.copied_bytes < 4 << 20, "{}", working.copied_bytes);
    for (name, path) in walk(&segments) {
        let (_, file) = name.split_once('/').unwrap();
        let shared = fs::metadata(&path).unwrap().nlink() > 1;
        assert_eq!(shared, is_never_written(file, false), "{name}");
    }
}

/// A file of the mirror that is damaged without a trace in its size or time shows when it is
/// copied, and the segment is asked for again.
#[test]
fn damage_shows_while_copying() {
    let room = Room::new();
    let mirror = room.mirror_of("06-payload-in-indexed");
    let segment = "f413efea-a665-47b8-b694-96d7394ab33d";
    let file = "payload_storage/page_0.dat";
    let path = mirror.path(segment, file);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();

    let offer = Offer::of(mirror.clone(), &origin());
    assert!(offer.is_whole());
    let error = build(&mirror, &room.fresh("segments"), Links::Try).unwrap_err();
    let Error::Damaged {
        segment: found,
        file: damaged,
        message,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((found.as_str(), damaged.as_str()), (segment, file));
    let offer = offer.without([(found, message)]).unwrap();
    let server = Server::at("06-payload-in-indexed");
    let (rounds, mirror) = server.pull(&room, offer);
    assert_eq!(rounds, 1);
    assert_equals_full(&mirror.folder().join("segments"), &server.full);
    build(&mirror, &room.fresh("segments"), Links::Try).unwrap();
}

/// What is listed as not durable is what was made: every file but links, and every folder.
#[test]
fn what_is_not_durable_is_listed() {
    let room = Room::new();
    let before = room.mirror_of("05-overwrite-in-indexed");
    let offer = Offer::of(before, &origin());
    let answer = recorded("06-payload-in-indexed", "answer.tar.gz").unwrap();
    let Ok(Outcome::Applied {
        mirror,
        unsynced,
        report,
    }) = room.apply(&offer, &answer)
    else {
        panic!();
    };
    let listed: BTreeSet<_> = unsynced.files().map(ToOwned::to_owned).collect();
    let made: BTreeSet<_> = walk(mirror.folder())
        .into_values()
        .filter(|path| fs::metadata(path).unwrap().nlink() == 1)
        .collect();
    assert_eq!(listed, made);
    assert_eq!(listed.len() as u64, report.received_files + 1);
    let mut folders: Vec<_> = unsynced.folders().collect();
    assert_eq!(folders.pop(), Some(mirror.folder()));
    for path in walk(mirror.folder()).values() {
        let parent = path.parent().unwrap();
        assert!(parent == mirror.folder() || folders.contains(&parent));
    }
    for (at, folder) in folders.iter().enumerate() {
        let outer = folder.parent().unwrap();
        let outer = folders.iter().position(|other| *other == outer);
        assert!(outer.is_none_or(|outer| outer > at), "{}", folder.display());
    }
    unsynced.sync().unwrap();

    let working = build(&mirror, &room.fresh("segments"), Links::Try).unwrap();
    assert_eq!(
        working.unsynced.files().count() as u64,
        working.copied_files
    );
    working.unsynced.sync().unwrap();
}

#[test]
fn a_damaged_record_is_no_mirror() {
    let room = Room::new();
    let mirror = room.mirror_of("00-all");
    let path = mirror.folder().join("mirror.json");
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.ends_with("\"}\n"));
    for damaged in [
        text.replace("\"settled\":true", "\"settled\":false"),
        text[..text.len() / 2].to_owned(),
        String::new(),
    ] {
        fs::write(&path, damaged).unwrap();
        let loaded = Mirror::load(mirror.folder());
        assert!(matches!(loaded, Err(Error::Corrupt { .. })), "{loaded:?}");
    }
    fs::write(&path, text.replace("{\"format\":1", "{\"format\":2")).unwrap();
    let loaded = Mirror::load(mirror.folder());
    assert!(
        matches!(loaded, Err(Error::UnknownVersion { found: 2, .. })),
        "{loaded:?}"
    );
    fs::remove_file(&path).unwrap();
    assert_eq!(Mirror::load(mirror.folder()).unwrap(), None);
}

#[test]
fn limits_hold() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("answer");
    fs::write(&path, recorded("00-all", "answer.tar.gz").unwrap()).unwrap();
    for limits in [
        Limits {
            entries: 100,
            ..Limits::default()
        },
        Limits {
            total_bytes: 100 << 20,
            ..Limits::default()
        },
        Limits {
            json_bytes: 1000,
            ..Limits::default()
        },
    ] {
        let read = Archive::read(&path, limits);
        assert!(matches!(read, Err(Error::BadSnapshot(_))), "{limits:?}");
    }
    Archive::read(&path, Limits::default()).unwrap();
}
