//! Archives that no server sends: refused, without a panic and without a file elsewhere.

mod common;

use std::fs;

use common::{Parts, Room, entry, recorded, walk};
use edge_sync_mirror::{Error, Offer, Outcome};
use proptest::prelude::*;
use tar::EntryType;

const SEGMENT: &str = "f413efea-a665-47b8-b694-96d7394ab33d";

fn small() -> Parts {
    let mut parts = Parts(Vec::new());
    parts.put(
        &format!("segments/{SEGMENT}/files/segment_manifest.json"),
        format!(
            r#"{{"segment_id":"{SEGMENT}","segment_version":3,"file_versions":{{"a/b":3,"c":null}}}}"#
        )
        .as_bytes(),
    );
    for (file, text) in [
        ("a/b", "some bytes"),
        ("c", ""),
        ("segment.json", "{}"),
        ("version.info", "0.6.0"),
    ] {
        parts.put(&format!("segments/{SEGMENT}/files/{file}"), text.as_bytes());
    }
    parts.put("wal/closed-4", b"");
    parts.put("newest_clocks.json", br#"{"clocks":[]}"#);
    parts.put("replica_state.json", br#"{"this_peer_id":1}"#);
    parts
}

fn refused(parts: &Parts) -> String {
    let room = Room::new();
    match room.apply(&Offer::everything(), &parts.to_archive()) {
        Err(Error::BadSnapshot(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_small_archive_is_fine_by_itself() {
    let room = Room::new();
    let outcome = room.apply(&Offer::everything(), &small().to_archive());
    let (mirror, _) = common::applied(outcome);
    assert_eq!(
        fs::read(mirror.path(SEGMENT, "a/b")).unwrap(),
        b"some bytes"
    );
    assert_eq!(fs::read(mirror.path(SEGMENT, "c")).unwrap(), b"");
}

#[test]
fn names_that_lead_elsewhere() {
    for name in [
        "/etc/passwd",
        "../x",
        "segments/../x",
        "segments/x",
        "segments/x/files/y",
        &format!("segments/{SEGMENT}/y"),
        &format!("segments/{SEGMENT}/files/../../../x"),
        &format!("segments/{SEGMENT}/files//x"),
        &format!("segments/{SEGMENT}/files/./a/b"),
        &format!("segments/{SEGMENT}/files/a\\..\\b"),
        &format!("segments/{SEGMENT}/files/{}/../../b", "a".repeat(120)),
        &format!("segments/{SEGMENT}/files/{}", "a".repeat(2000)),
        "wal/a/b",
        "wal/../x",
        "other.json",
        "",
    ] {
        let mut parts = small();
        parts
            .0
            .push((name.to_owned(), entry(name, EntryType::Regular, b"x")));
        refused(&parts);
        let mut parts = small();
        parts
            .0
            .push((name.to_owned(), entry(name, EntryType::Directory, b"")));
        if name != "wal" {
            refused(&parts);
        }
    }
}

#[test]
fn entries_that_are_no_files() {
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::XHeader,
        EntryType::XGlobalHeader,
        EntryType::GNULongLink,
        EntryType::Continuous,
        EntryType::new(b'?'),
    ] {
        let mut parts = small();
        let name = format!("segments/{SEGMENT}/files/c");
        parts.0.push((name.clone(), entry(&name, kind, b"")));
        let why = refused(&parts);
        assert!(why.contains("no place in a snapshot"), "{why}");
    }
}

#[test]
fn names_that_come_twice() {
    for name in [
        format!("segments/{SEGMENT}/files/c"),
        format!("segments/{SEGMENT}/files/segment_manifest.json"),
        "wal/closed-4".to_owned(),
        "replica_state.json".to_owned(),
    ] {
        let mut parts = small();
        parts
            .0
            .push((name.clone(), entry(&name, EntryType::Regular, b"{}")));
        let why = refused(&parts);
        assert!(why.contains("twice"), "{why}");
    }
    // A file where others have a folder.
    let mut parts = small();
    let name = format!("segments/{SEGMENT}/files/a");
    parts
        .0
        .push((name.clone(), entry(&name, EntryType::Regular, b"x")));
    let why = refused(&parts);
    assert!(why.contains("a file and a folder"), "{why}");
}

#[test]
fn manifests_that_lead_elsewhere() {
    for files in [
        r#"{"../../../x":1}"#,
        r#"{"/x":1}"#,
        r#"{"c":1,"c/d":1}"#,
        r#"{"c":1,"c":1}"#,
    ] {
        let mut parts = small();
        parts.put(
            &format!("segments/{SEGMENT}/files/segment_manifest.json"),
            format!(r#"{{"segment_id":"{SEGMENT}","segment_version":3,"file_versions":{files}}}"#)
                .as_bytes(),
        );
        let why = refused(&parts);
        assert!(why.contains("the manifest of"), "{why}");
    }
}

#[test]
fn sizes_that_are_not_there() {
    let name = format!("segments/{SEGMENT}/files/c");
    let with_header = |change: &dyn Fn(&mut tar::Header)| {
        let mut blocks = entry(&name, EntryType::Regular, b"");
        let mut header = tar::Header::from_byte_slice(&blocks).clone();
        change(&mut header);
        header.set_cksum();
        blocks[..512].copy_from_slice(header.as_bytes());
        let mut parts = small();
        parts.remove(&name);
        parts.0.push((name.clone(), blocks));
        refused(&parts)
    };
    with_header(&|header| header.set_size(1 << 20));
    with_header(&|header| header.set_size(u64::MAX));
    with_header(&|header| header.set_size(u64::MAX - 100));
    with_header(&|header| header.as_gnu_mut().unwrap().size = *b"not a number");
    // Holes of impossible sizes.
    let sparse = |size: u64, pieces: &[(u64, u64)]| {
        let pieces = pieces.to_vec();
        with_header(&move |header| {
            header.set_entry_type(EntryType::GNUSparse);
            let gnu = header.as_gnu_mut().unwrap();
            let octal = |number: u64| -> [u8; 12] {
                let mut field = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                field[4..].copy_from_slice(&number.to_be_bytes());
                field
            };
            gnu.realsize = octal(size);
            for (slot, (at, length)) in gnu.sparse.iter_mut().zip(&pieces) {
                slot.offset = octal(*at);
                slot.numbytes = octal(*length);
            }
        })
    };
    sparse(1 << 50, &[(1 << 50, 0)]);
    sparse(u64::MAX, &[(u64::MAX, 0)]);
    sparse(100, &[(200, 0)]);
    sparse(100, &[(0, 10), (5, 10), (100, 0)]);
    sparse(u64::MAX, &[(u64::MAX - 1, 5)]);
    sparse(100, &[]);
}

#[test]
fn no_segments() {
    let mut parts = small();
    parts.0.retain(|(name, _)| !name.starts_with("segments/"));
    assert!(refused(&parts).contains("no segments"));
    assert!(refused(&Parts(Vec::new())).contains("no segments"));
    let room = Room::new();
    for bytes in [&b""[..], b"not an archive", &[0; 512], &[0xff; 4096]] {
        let outcome = room.apply(&Offer::everything(), bytes);
        assert!(matches!(outcome, Err(Error::BadSnapshot(_))), "{outcome:?}");
    }
}

/// The folder that a target is in, and nothing else, changes.
fn applies_within(answer: &[u8]) {
    let room = Room::new();
    let outside = room.fresh("outside");
    fs::write(&outside, "outside").unwrap();
    match room.apply(&Offer::everything(), answer) {
        Ok(Outcome::Applied { mirror, .. }) => {
            for (segment, record) in mirror.segments() {
                for file in record.files.keys() {
                    assert!(mirror.path(segment, file).is_file());
                }
            }
        }
        Ok(_) => panic!("nothing was offered"),
        Err(_) => {}
    }
    for name in walk(room.dir.path()).keys() {
        let top = name.split('/').next().unwrap();
        assert!(
            ["1-outside", "2-answer", "3-mirror"].contains(&top),
            "{name}"
        );
    }
    assert_eq!(fs::read(outside).unwrap(), b"outside");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Bytes anywhere, headers above all, are changed.
    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
        mend in any::<bool>(),
    ) {
        let mut answer = small().to_archive();
        for (at, byte) in changes {
            let at = at.index(answer.len());
            answer[at] = byte;
            if mend {
                // So that the change is not found by the checksum.
                let block = at / 512 * 512;
                let mut header = tar::Header::from_byte_slice(&answer[block..block + 512]).clone();
                if header.cksum().is_ok() {
                    header.set_cksum();
                    answer[block..block + 512].copy_from_slice(header.as_bytes());
                }
            }
        }
        if let Some(cut) = cut {
            answer.truncate(cut.index(answer.len()));
        }
        applies_within(&answer);
    }

    /// Names of any kind.
    #[test]
    fn any_names_never_lead_elsewhere(
        names in prop::collection::vec("(segments/|wal/|)(f413efea-a665-47b8-b694-96d7394ab33d/|\\.\\./|)(files/|)([./a\\\\:]|\\PC){0,9}", 1..4),
    ) {
        let mut parts = small();
        for name in names {
            parts.0.push((name.clone(), entry(&name, EntryType::Regular, b"x")));
        }
        applies_within(&parts.to_archive());
    }
}

/// The same with a real answer, holes and long names included.
#[test]
fn a_real_answer_with_changed_headers_never_panics() {
    let whole = recorded("06-payload-in-indexed", "answer.tar.gz").unwrap();
    let mut state = 1_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for _ in 0..60 {
        let mut answer = whole.clone();
        for _ in 0..3 {
            let block = random(answer.len() / 512) * 512;
            answer[block + random(512)] = random(256) as u8;
            let mut header = tar::Header::from_byte_slice(&answer[block..block + 512]).clone();
            if header.cksum().is_ok() {
                header.set_cksum();
                answer[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        applies_within(&answer);
    }
}
