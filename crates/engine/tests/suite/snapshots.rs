//! Archives that must not be unpacked, and snapshots that must.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::common::{created, read, restored, snapshot_file, write};
use edge_sync_engine::{Error, Shard, SnapshotLimits, unpack_snapshot};
use edge_sync_snapshots::{Layout, create};
use serde_json::json;
use tar::{Builder, EntryType, Header};

const STATE: &str = "segments/4467b705-9417-4429-ac16-f4ddba505d74/files/segment.json";

/// An archive with one good entry and what `add` adds.
fn archive(dir: &Path, add: impl FnOnce(&mut Builder<Vec<u8>>)) -> PathBuf {
    let mut builder = Builder::new(Vec::new());
    entry(&mut builder, STATE, EntryType::Regular, b"{}");
    add(&mut builder);
    let path = dir.join("archive.tar");
    fs::write(&path, builder.into_inner().expect("in memory")).expect("written");
    path
}

fn entry(builder: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, data: &[u8]) {
    raw_entry(builder, name, kind, data, |_| ());
}

/// An entry with a name that the tar crate would refuse to write.
fn raw_entry(
    builder: &mut Builder<Vec<u8>>,
    name: &str,
    kind: EntryType,
    data: &[u8],
    change: impl FnOnce(&mut Header),
) {
    let mut header = Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    field[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    change(&mut header);
    header.set_cksum();
    builder.append(&header, data).expect("in memory");
}

fn refused(file: &Path, limits: SnapshotLimits) -> String {
    let target = file.with_extension("out");
    match unpack_snapshot(file, &target, limits) {
        Err(Error::BadSnapshot(message)) => {
            assert!(!target.exists(), "something was written: {message}");
            message
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn hostile_entries_are_refused_by_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let segment = "segments/4467b705-9417-4429-ac16-f4ddba505d74";
    for (name, kind) in [
        ("/etc/passwd", EntryType::Regular),
        ("../escaped", EntryType::Regular),
        ("segments/../../escaped", EntryType::Regular),
        ("segments/./x", EntryType::Regular),
        ("segments//x", EntryType::Regular),
        ("", EntryType::Regular),
        ("elsewhere", EntryType::Regular),
        ("edge_config.json", EntryType::Regular),
        ("segments/x\\..\\y", EntryType::Regular),
        ("C:/x", EntryType::Regular),
        ("segments/0.tar", EntryType::Regular),
        (
            "segments/4467b705-9417-4429-ac16-f4ddba505d74.tar/x",
            EntryType::Regular,
        ),
        (
            "segments/4467b705-9417-4429-ac16-f4ddba505d74.x.tar",
            EntryType::Regular,
        ),
        (
            "segments/4467b705-9417-4429-ac16-f4ddba505d74.tar",
            EntryType::GNUSparse,
        ),
        ("segments/not-a-segment/x", EntryType::Regular),
        ("wal/link", EntryType::Symlink),
        ("wal/link", EntryType::Link),
        ("wal/device", EntryType::Block),
        ("wal/device", EntryType::Char),
        ("wal/pipe", EntryType::Fifo),
        ("wal/pax", EntryType::XHeader),
        ("wal/pax", EntryType::XGlobalHeader),
        ("wal/link", EntryType::GNULongLink),
        ("newest_clocks.json", EntryType::Directory),
        (STATE, EntryType::Regular),
        (STATE, EntryType::Directory),
    ] {
        let file = archive(dir.path(), |builder| entry(builder, name, kind, b""));
        let message = refused(&file, SnapshotLimits::default());
        let shown = name.escape_debug().to_string();
        assert!(message.contains(&shown), "{name:?}, {kind:?}: {message}");
    }
    let below = format!("{STATE}/below");
    let file = archive(dir.path(), |builder| {
        entry(builder, &below, EntryType::Regular, b"");
    });
    assert!(refused(&file, SnapshotLimits::default()).contains("below a file"));
    let file = archive(dir.path(), |builder| {
        entry(builder, &format!("{segment}/a/b"), EntryType::Regular, b"");
        entry(builder, &format!("{segment}/a"), EntryType::Regular, b"");
    });
    assert!(refused(&file, SnapshotLimits::default()).contains("a file and a directory"));
    let file = archive(dir.path(), |builder| {
        entry(builder, "wal", EntryType::Directory, b"data");
    });
    assert!(refused(&file, SnapshotLimits::default()).contains("with contents"));
}

#[test]
fn limits_hold_before_anything_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let limits = SnapshotLimits {
        entries: 10,
        total_bytes: 1 << 20,
        ..SnapshotLimits::default()
    };
    let file = archive(dir.path(), |builder| {
        for number in 0..20 {
            entry(builder, &format!("wal/{number}"), EntryType::Regular, b"");
        }
    });
    assert!(refused(&file, limits).contains("more than 10 entries"));

    // A file of a few bytes that claims to be one of exabytes.
    for size in ["77777777777", "00004000001"] {
        let file = archive(dir.path(), |builder| {
            raw_entry(builder, "wal/huge", EntryType::GNUSparse, b"", |header| {
                let gnu = header.as_gnu_mut().expect("a GNU header");
                gnu.realsize[..11].copy_from_slice(size.as_bytes());
                gnu.sparse[0].offset[..11].copy_from_slice(size.as_bytes());
                gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
            });
        });
        assert!(refused(&file, limits).contains("wal/huge: the files are larger"));
    }
    // Maps of holes that contradict themselves.
    for (real, pieces) in [
        ("00000002000", vec![("00000000000", "00000001000")]),
        ("00000000010", vec![("00000000000", "00000001000")]),
        (
            "00000001000",
            vec![
                ("00000000400", "00000000400"),
                ("00000000000", "00000000400"),
            ],
        ),
        (
            "77777777777",
            vec![
                ("77777777777", "77777777777"),
                ("77777777777", "77777777777"),
            ],
        ),
    ] {
        let file = archive(dir.path(), |builder| {
            raw_entry(
                builder,
                "wal/odd",
                EntryType::GNUSparse,
                &[1; 512],
                |header| {
                    let gnu = header.as_gnu_mut().expect("a GNU header");
                    gnu.realsize[..11].copy_from_slice(real.as_bytes());
                    for (slot, (offset, length)) in gnu.sparse.iter_mut().zip(&pieces) {
                        slot.offset[..11].copy_from_slice(offset.as_bytes());
                        slot.numbytes[..11].copy_from_slice(length.as_bytes());
                    }
                },
            );
        });
        let message = refused(&file, SnapshotLimits::default());
        assert!(message.contains("wal/odd"), "{message}");
    }
    // A name that would fill the memory.
    let file = archive(dir.path(), |builder| {
        raw_entry(
            builder,
            "././@LongLink",
            EntryType::GNULongName,
            &[b'a'; 4096],
            |_| (),
        );
    });
    assert!(refused(&file, SnapshotLimits::default()).contains("too long"));
}

#[test]
fn what_is_no_shard_snapshot_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("x");
    for bytes in [
        &b""[..],
        b"not a tar archive",
        &[0; 1024],
        &[b'x'; 4096],
        b"{\"status\":{\"error\":\"Not found\"}}",
    ] {
        fs::write(&file, bytes).expect("written");
        refused(&file, SnapshotLimits::default());
    }
    assert!(matches!(
        unpack_snapshot(
            &dir.path().join("nowhere"),
            dir.path(),
            SnapshotLimits::default()
        ),
        Err(Error::Storage { .. })
    ));
}

#[test]
fn a_cut_or_damaged_archive_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let whole = fs::read(snapshot_file(dir.path())).expect("the fixture");
    let file = dir.path().join("cut");
    for keep in [
        100,
        512,
        whole.len() / 3,
        whole.len() / 2 / 512 * 512,
        whole.len() - 1024,
        whole.len() - 512,
    ] {
        fs::write(&file, &whole[..keep]).expect("written");
        refused(&file, SnapshotLimits::default());
    }
    // One bit in a header. Contents carry no checksum in this format.
    let mut damaged = whole.clone();
    damaged[10] ^= 1;
    fs::write(&file, &damaged).expect("written");
    assert!(refused(&file, SnapshotLimits::default()).contains("checksum"));
}

#[test]
fn a_snapshot_holds_what_the_shard_held() {
    let (dir, shard) = created(&json!({
        "vectors": { "size": 3, "distance": "Euclid" },
        "sparse_vectors": { "words": { "modifier": "idf" } },
    }));
    let points: Vec<_> = (0..500_u32)
        .map(|id| {
            json!({
                "id": id,
                "vector": {
                    "": [id, id / 2, 1],
                    "words": { "indices": [id % 7, 100 + id % 5], "values": [1, 0.5] },
                },
                "payload": { "n": id, "odd": id % 2 == 1 },
            })
        })
        .collect();
    write(&shard, "PUT", "/points", &json!({ "points": points })).expect("upserts");
    write(
        &shard,
        "PUT",
        "/index",
        &json!({ "field_name": "n", "field_schema": "integer" }),
    )
    .expect("an index");
    write(
        &shard,
        "POST",
        "/points/delete",
        &json!({ "filter": { "must": [{ "key": "n", "range": { "lt": 100 } }] } }),
    )
    .expect("deletes");
    let all = json!({ "limit": 1000, "with_vector": true });
    let before = read(&shard, "POST", "/points/scroll", &all).expect("scrolls");
    assert_eq!(before["points"].as_array().map(Vec::len), Some(400));

    let file = dir.path().join("snapshot");
    create(&shard, &file, Layout::Streamed).expect("a snapshot");
    let target = dir.path().join("other");
    unpack_snapshot(&file, &target, SnapshotLimits::default()).expect("unpacks");
    assert!(!target.join("wal").exists(), "a log without entries");
    let other = Shard::load(&target).expect("loads");
    assert_eq!(
        read(&other, "POST", "/points/scroll", &all).expect("scrolls"),
        before
    );
    let (ours, theirs) = (other.info().expect("info"), shard.info().expect("info"));
    assert_eq!(ours.payload_schema, theirs.payload_schema);
    other
        .config()
        .check_same_vectors(&shard.config())
        .expect("the same vectors");

    // The restored shard goes on: its numbering is past what it holds.
    write(
        &other,
        "POST",
        "/points/payload",
        &json!({ "points": [200], "payload": { "n": -1 } }),
    )
    .expect("a write");
    drop(other);
    let other = Shard::load(&target).expect("loads");
    let found = read(&other, "GET", "/points/200", &json!(null)).expect("a point");
    assert_eq!(found["payload"], json!({ "n": -1, "odd": false }));
}

/// Only a write-ahead log that is known to have no entries is left out.
#[test]
fn entries_of_the_write_ahead_log_are_unpacked() {
    let dir = tempfile::tempdir().expect("a directory");
    let wal = |format: &[u8], entry: &[u8]| {
        let mut bytes = [format, b"seed", entry].concat();
        bytes.resize(64, 0);
        bytes
    };
    let empty = wal(b"wal\0", b"");
    let unpacked = |files: &[(&str, &[u8])]| {
        let file = archive(dir.path(), |builder| {
            for (name, data) in files {
                entry(builder, &format!("wal/{name}"), EntryType::Regular, data);
            }
        });
        let target = tempfile::tempdir().expect("a directory");
        unpack_snapshot(&file, target.path(), SnapshotLimits::default()).expect("unpacks");
        let found: Vec<_> = files
            .iter()
            .filter(|(name, data)| {
                let file = target.path().join("wal").join(name);
                fs::read(file).is_ok_and(|found| found == *data)
            })
            .collect();
        assert!(found.is_empty() || found.len() == files.len(), "{found:?}");
        !found.is_empty()
    };
    assert!(!unpacked(&[("closed-7", &empty)]));
    assert!(!unpacked(&[
        ("closed-7", &empty),
        ("open-1", &empty),
        ("first-index", b"{\"ack_index\":7}"),
    ]));

    let one_byte = wal(b"wal\0", &[1, 0, 0, 0, 0, 0, 0, 0, 9]);
    assert!(unpacked(&[("closed-7", &one_byte)]));
    assert!(unpacked(&[("closed-7", &empty), ("open-1", &one_byte)]));
    let without_bytes = wal(b"wal\0", &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    assert!(unpacked(&[("closed-7", &without_bytes)]));
    let later_version = wal(b"wal\x01", b"");
    assert!(unpacked(&[("closed-7", &later_version)]));
    assert!(unpacked(&[("closed-7", b"wal\0")]));
}

/// The tar command reads what is written, names and holes included.
#[test]
fn other_tools_read_the_archive() {
    let (dir, shard) = restored();
    let file = dir.path().join("snapshot");
    create(&shard, &file, Layout::Streamed).expect("a snapshot");
    let out = dir.path().join("out");
    fs::create_dir(&out).expect("a directory");
    let status = std::process::Command::new("tar")
        .arg("xf")
        .arg(&file)
        .arg("-C")
        .arg(&out)
        .status();
    let Ok(status) = status else {
        let _ = writeln!(std::io::stderr(), "no tar command here; skipped");
        return;
    };
    assert!(status.success());
    for segment in fs::read_dir(out.join("segments")).expect("segments") {
        let path = segment.expect("an entry").path();
        let name = path.file_name().expect("a name").to_owned();
        same_tree(
            &path.join("files"),
            &dir.path().join("shard/segments").join(name),
        );
    }
}

fn same_tree(one: &Path, other: &Path) {
    for entry in fs::read_dir(one).expect("a directory") {
        let path = entry.expect("an entry").path();
        let twin = other.join(path.file_name().expect("a name"));
        if path.is_dir() {
            same_tree(&path, &twin);
        } else {
            assert!(
                fs::read(&path).expect("a file") == fs::read(&twin).expect("its twin"),
                "{}",
                path.display()
            );
        }
    }
}

/// A stored snapshot of the server: segments are archives within the archive.
fn stored(snapshot: &Path, inner: &str) -> Vec<u8> {
    let mut segments: BTreeMap<String, Builder<Vec<u8>>> = BTreeMap::new();
    let mut outer = Builder::new(Vec::new());
    let mut archive = tar::Archive::new(fs::File::open(snapshot).expect("a snapshot"));
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").into_owned();
        let mut data = Vec::new();
        // Holes are read as zeros.
        std::io::Read::read_to_end(&mut entry, &mut data).expect("contents");
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        let (builder, name) = match parts.as_slice() {
            [top, segment, _, rest @ ..] if top == "segments" => {
                let builder = segments
                    .entry(format!("segments/{segment}.tar"))
                    .or_insert_with(|| Builder::new(Vec::new()));
                (builder, format!("{inner}{}", rest.join("/")))
            }
            _ if entry.header().entry_type() == EntryType::Directory => continue,
            _ => (&mut outer, path.display().to_string()),
        };
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, name, data.as_slice())
            .expect("in memory");
    }
    for (name, builder) in segments {
        let data = builder.into_inner().expect("in memory");
        let mut header = Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        outer
            .append_data(&mut header, name, data.as_slice())
            .expect("in memory");
    }
    outer.into_inner().expect("in memory")
}

#[test]
fn stored_snapshots_have_archives_within() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_kept, shard) = created(&json!({ "vectors": { "size": 2, "distance": "Dot" } }));
    let points = json!({ "points": [
        { "id": 1, "vector": [1, 2], "payload": { "n": 1 } },
        { "id": 2, "vector": [3, 4] },
    ] });
    write(&shard, "PUT", "/points", &points).expect("upserts");
    let all = json!({ "limit": 10, "with_vector": true });
    let expected = read(&shard, "POST", "/points/scroll", &all).expect("scrolls");
    let streamed = dir.path().join("streamed");
    create(&shard, &streamed, Layout::Streamed).expect("a snapshot");
    // As the server writes them, and as it did long ago.
    for inner in ["snapshot/files/", ""] {
        let file = dir.path().join("stored");
        fs::write(&file, stored(&streamed, inner)).expect("written");
        let target = tempfile::tempdir().expect("a directory");
        let target = target.path().join("shard");
        unpack_snapshot(&file, &target, SnapshotLimits::default()).expect("unpacks");
        let other = Shard::load(&target).expect("loads");
        assert_eq!(
            read(&other, "POST", "/points/scroll", &all).expect("scrolls"),
            expected
        );
    }
}

#[test]
fn archives_within_are_checked_like_the_outer_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let segment = "segments/00000000-0000-4000-8000-000000000001.tar";
    let within = |name: &str, kind: EntryType| {
        let mut inner = Builder::new(Vec::new());
        raw_entry(&mut inner, name, kind, b"", |_| ());
        let inner = inner.into_inner().expect("in memory");
        archive(dir.path(), |builder| {
            entry(builder, segment, EntryType::Regular, &inner);
        })
    };
    for (name, kind) in [
        ("../escaped", EntryType::Regular),
        ("/etc/passwd", EntryType::Regular),
        ("snapshot/../../x", EntryType::Regular),
        ("snapshot/files/link", EntryType::Symlink),
        ("snapshot/files/device", EntryType::Block),
    ] {
        let message = refused(&within(name, kind), SnapshotLimits::default());
        assert!(message.contains(segment), "{name}: {message}");
    }
    // Cut off within, and no archive at all.
    for contents in [&[0; 512][..], &[b'x'; 2048]] {
        let file = archive(dir.path(), |builder| {
            entry(builder, segment, EntryType::Regular, contents);
        });
        assert!(refused(&file, SnapshotLimits::default()).contains(segment));
    }
    let limits = SnapshotLimits {
        entries: 5,
        total_bytes: 1 << 20,
        ..SnapshotLimits::default()
    };
    let mut inner = Builder::new(Vec::new());
    for number in 0..20 {
        entry(
            &mut inner,
            &format!("files/{number}"),
            EntryType::Regular,
            b"",
        );
    }
    let inner = inner.into_inner().expect("in memory");
    let file = archive(dir.path(), |builder| {
        entry(builder, segment, EntryType::Regular, &inner);
    });
    assert!(refused(&file, limits).contains("more than 5 entries"));
}
