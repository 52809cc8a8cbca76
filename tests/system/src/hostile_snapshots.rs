//! Archives that no server makes: refused by the component, and nothing of them is left.

use std::fs;
use std::path::Path;

use edge_sync_host::{Cancel, RestoreSource};
use tar::{Builder, EntryType, Header};

use crate::support::{CONFIG, all_points, component, point};

const SEGMENT_STATE: &str = "segments/4467b705-9417-4429-ac16-f4ddba505d74/files/segment.json";

/// An archive with an entry that a snapshot has, and others.
fn archive(file: &Path, add: impl FnOnce(&mut Builder<fs::File>)) {
    let mut builder = Builder::new(fs::File::create(file).expect("a file"));
    entry(&mut builder, SEGMENT_STATE, EntryType::Regular, |_| ());
    add(&mut builder);
    builder.into_inner().expect("written");
}

/// An empty entry, with a name that the tar crate would refuse to write.
fn entry(
    builder: &mut Builder<fs::File>,
    name: &str,
    kind: EntryType,
    change: impl FnOnce(&mut Header),
) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(0o644);
    change(&mut header);
    header.set_cksum();
    builder.append(&header, &[][..]).expect("written");
}

#[test]
fn hostile_archives_leave_the_generation_in_force_and_nothing_behind() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = edge_sync_host::EdgeSync::builder(component(), &data)
        .create(CONFIG)
        .expect("a shard");
    edge.shard().upsert(vec![point(1)]).expect("a write");
    let before = all_points(&edge);
    let file = folder.path().join("hostile.snapshot");
    let refused = |what: &str| {
        let source = RestoreSource::File(file.clone());
        let error = edge
            .restore(&source, &Cancel::new(), |_| {})
            .expect_err(what);
        assert_eq!(error.kind(), "bad-snapshot", "{what}: {error}");
        assert_eq!(all_points(&edge), before, "{what}");
        assert_eq!(edge.shard().info().expect("info").generation, 1, "{what}");
        let names = |folder: &str| -> Vec<_> {
            fs::read_dir(data.join(folder))
                .expect("a folder")
                .map(|entry| entry.expect("an entry").file_name())
                .collect()
        };
        assert_eq!(names("generations"), ["1"], "{what}");
        assert!(names("staging").is_empty(), "{what}");
        let beside = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(beside, 2, "{what}: something escaped");
    };
    for (name, kind) in [
        ("/escaped", EntryType::Regular),
        ("../../../../escaped", EntryType::Regular),
        ("segments/../../../../../escaped", EntryType::Regular),
        ("wal/link", EntryType::Symlink),
        ("wal/link", EntryType::Link),
        ("wal/device", EntryType::Block),
        ("wal/device", EntryType::Char),
        ("wal/pipe", EntryType::Fifo),
    ] {
        archive(&file, |builder| entry(builder, name, kind, |_| ()));
        refused(&format!("{name}, {kind:?}"));
    }
    archive(&file, |builder| {
        entry(builder, "wal/huge", EntryType::GNUSparse, |header| {
            let gnu = header.as_gnu_mut().expect("a GNU header");
            // 2^60 bytes, in the binary form of large numbers, and all of it a hole.
            gnu.realsize = [0x80, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0];
            gnu.sparse[0].offset = gnu.realsize;
            gnu.sparse[0].numbytes[..11].copy_from_slice(b"00000000000");
        });
    });
    refused("a sparse file of an exabyte");
    // More entries than any shard has; what comes after them is not looked at.
    archive(&file, |builder| {
        for number in 0..100_001 {
            entry(
                builder,
                &format!("wal/{number}"),
                EntryType::Regular,
                |_| (),
            );
        }
    });
    refused("a hundred thousand entries");
}
