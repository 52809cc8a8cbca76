//! The guard hears of every change before it is made, and can refuse it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use memmap2::guard::{self, Change, Guard};
use memmap2::{MmapMut, file_io};

#[derive(Default)]
struct Told {
    /// The files it concerns.
    files: Vec<RawFd>,
    changes: Vec<Vec<Change>>,
    failures: usize,
    refuses: bool,
}

struct Recorder(Mutex<Told>);

static RECORDER: Recorder = Recorder(Mutex::new(Told {
    files: Vec::new(),
    changes: Vec::new(),
    failures: 0,
    refuses: false,
}));

impl Guard for Recorder {
    fn concerns(&self, fd: RawFd) -> bool {
        self.0.lock().unwrap().files.contains(&fd)
    }

    fn before_change(&self, changes: &[Change]) -> io::Result<()> {
        let mut told = self.0.lock().unwrap();
        told.changes.push(changes.to_vec());
        if told.refuses {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn failed(&self, _: RawFd, _: &io::Error) {
        self.0.lock().unwrap().failures += 1;
    }
}

fn told() -> Vec<Vec<Change>> {
    std::mem::take(&mut RECORDER.0.lock().unwrap().changes)
}

fn file(path: &Path, length: u64) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file.set_len(length).unwrap();
    RECORDER.0.lock().unwrap().files.push(file.as_raw_fd());
    file
}

fn map_mut(file: &File) -> MmapMut {
    // SAFETY: nobody else changes the tests' files.
    unsafe { MmapMut::map_mut(file).unwrap() }
}

/// The descriptor that a map's write-back uses is the map's own, so files are told apart by what
/// changes in them.
fn ranges(changes: &[Change]) -> Vec<(u64, u64)> {
    changes
        .iter()
        .map(|change| (change.from, change.to))
        .collect()
}

// One test, for there is one guard a process.
#[test]
fn the_guard_hears_of_changes_first_and_can_refuse_them() {
    assert!(guard::set_guard(&RECORDER));
    assert!(!guard::set_guard(&RECORDER), "for good");
    // Natively a map's descriptor is a duplicate, whose number is not known in advance.
    RECORDER.0.lock().unwrap().files.extend(3..64);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let handle = file(&path, 20_000);
    let write = |bytes: &'static [u8], at: u64| {
        file_io::write(handle.as_raw_fd(), bytes, Some(at), || {
            handle.write_at(bytes, at)
        })
    };

    // Handles.
    write(b"abc", 100).unwrap();
    assert_eq!(
        told(),
        [[Change {
            fd: handle.as_raw_fd(),
            from: 100,
            to: 103
        }]]
    );
    file_io::set_length(handle.as_raw_fd(), 16_384, || handle.set_len(16_384)).unwrap();
    assert_eq!(ranges(&told().concat()), [(16_384, 20_000)]);
    file_io::set_length(handle.as_raw_fd(), 30_000, || handle.set_len(30_000)).unwrap();
    assert!(told().is_empty(), "longer: nothing is lost");

    // Maps: neighbouring pages together, and before they are in the file.
    let mut map = map_mut(&handle);
    map[0] = 1;
    map[5_000] = 1;
    map[29_999] = 1;
    RECORDER.0.lock().unwrap().refuses = true;
    assert_eq!(map.flush().unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(ranges(&told().concat()), [(0, 8_192), (28_672, 30_000)]);
    assert_eq!(fs::read(&path).unwrap()[0], 0, "refused");
    assert!(write(b"abc", 0).is_err());
    let cut = file_io::set_length(handle.as_raw_fd(), 1, || handle.set_len(1));
    assert!(cut.is_err());
    assert_eq!(fs::metadata(&path).unwrap().len(), 30_000);
    RECORDER.0.lock().unwrap().refuses = false;
    told();

    // All files at once.
    let other = file(&folder.path().join("other"), 4_096);
    let mut other_map = map_mut(&other);
    other_map[7] = 7;
    memmap2::announce_changes().unwrap();
    let announced = told();
    assert_eq!(announced.len(), 1);
    assert_eq!(
        ranges(&announced[0]),
        [(0, 8_192), (28_672, 30_000), (0, 4_096)]
    );
    map.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap()[29_999], 1);
    told();

    // Failures.
    let failed = file_io::write(handle.as_raw_fd(), b"x", Some(0), || {
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(failed.is_err());
    assert_eq!(RECORDER.0.lock().unwrap().failures, 1);

    // What passes by.
    told();
    guard::unguarded(|| write(b"z", 50)).unwrap();
    assert!(told().is_empty());

    // Given up: nothing of it reaches the file, and a new map is another.
    map[0] = 9;
    memmap2::abandon_changes();
    let fresh = map_mut(&handle);
    assert_eq!((map[0], fresh[0]), (9, 1));
    map.flush().unwrap();
    drop((map, other_map));
    assert_eq!(fs::read(&path).unwrap()[0], 1);
    assert_eq!(fs::read(folder.path().join("other")).unwrap()[7], 0);
}
