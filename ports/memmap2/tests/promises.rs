//! What the README promises, one by one.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use memmap2::{Mmap, MmapMut, MmapOptions, MmapRaw, file_io};

fn create(path: &Path, length: u64) -> File {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path)
        .unwrap();
    file_io::set_length(file.as_raw_fd(), length, || file.set_len(length)).unwrap();
    file
}

fn map(file: &File) -> Mmap {
    // SAFETY: nobody else changes the tests' files.
    unsafe { Mmap::map(file).unwrap() }
}

fn map_mut(file: &File) -> MmapMut {
    // SAFETY: nobody else changes the tests' files.
    unsafe { MmapMut::map_mut(file).unwrap() }
}

#[test]
fn maps_of_a_file_share_their_memory_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let mut writer = map_mut(&create(&path, 10_000));
    let reader = map(&File::open(&path).unwrap());
    writer[9_999] = 7;
    assert_eq!(reader[9_999], 7);
    assert_eq!(writer.as_ptr(), reader.as_ptr());
}

#[test]
fn a_renamed_file_gets_the_changes_and_its_successor_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (folder.path().join("file"), folder.path().join("elsewhere"));
    let mut old = map_mut(&create(&path, 8_192));
    fs::rename(&path, &elsewhere).unwrap();
    let mut new = map_mut(&create(&path, 8_192));
    old[0] = 1;
    new[0] = 2;
    drop((old, new));
    assert_eq!(fs::read(&elsewhere).unwrap()[0], 1);
    assert_eq!(fs::read(&path).unwrap()[0], 2);
}

#[test]
fn a_read_only_map_does_not_see_the_file_that_got_its_inode() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [1; 5_000]).unwrap();
    let old = map(&File::open(&path).unwrap());
    for round in 2..20 {
        fs::remove_file(&path).unwrap();
        let file = create(&path, 0);
        let bytes = [round; 5_000];
        file_io::write(file.as_raw_fd(), &bytes, Some(0), || {
            file.write_at(&bytes, 0)
        })
        .unwrap();
        assert!(map(&file).iter().all(|&byte| byte == round));
        assert!(old.iter().all(|&byte| byte == 1));
    }
}

/// Writes a file behind the maps' back, as of `time`.
fn write_as_of(path: &Path, byte: u8, time: SystemTime) {
    fs::write(path, [byte; 5_000]).unwrap();
    File::open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_file_that_was_not_written_since_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    write_as_of(&path, 1, long_ago);
    let first = map(&File::open(&path).unwrap());
    // Nobody can see this write, which shows that nobody looks.
    write_as_of(&path, 2, long_ago);
    let again = map(&File::open(&path).unwrap());
    assert_eq!((again[0], again.as_ptr()), (1, first.as_ptr()));
    write_as_of(&path, 3, long_ago + Duration::from_secs(50));
    let other = map(&File::open(&path).unwrap());
    assert_eq!((first[0], other[0]), (1, 3));
}

#[test]
fn a_file_that_was_just_written_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let now = SystemTime::now();
    write_as_of(&path, 1, now);
    let first = map(&File::open(&path).unwrap());
    // Within one tick of a file system's clock, a second write has the time of the first.
    write_as_of(&path, 2, now);
    let second = map(&File::open(&path).unwrap());
    assert_eq!((first[0], second[0]), (1, 2));
}

#[test]
fn a_file_grows_while_an_older_map_lives() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = create(&path, 4_096);
    let mut old = map_mut(&file);
    old[17] = 1;
    // In the way of lengthening the buffer where it lies.
    let others: Vec<_> = (0..3)
        .map(|n| map_mut(&create(&folder.path().join(format!("{n}")), 4_096)))
        .collect();
    file.set_len(1 << 20).unwrap();
    let mut new = map_mut(&file);
    assert_eq!(new[17], 1);
    new[18] = 2;
    old[19] = 3;
    new.flush().unwrap();
    assert_eq!((old[18], new[19]), (2, 3));
    drop((old, new, others));
    assert_eq!(fs::read(&path).unwrap()[17..20], [1, 2, 3]);
}

#[test]
fn handles_and_maps_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 100);
    let mut map = map_mut(&file);
    map[0] = 1;
    file_io::write(file.as_raw_fd(), b"xyz", Some(50), || {
        file.write_at(b"xyz", 50)
    })
    .unwrap();
    assert_eq!(&map[50..53], b"xyz");
    let mut bytes = [9; 100];
    let position = file_io::read_position(file.as_raw_fd(), Some(0))
        .unwrap()
        .unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes[0], 0, "not flushed yet");
    position.overlay(&mut bytes).unwrap();
    assert_eq!(bytes[..], map[..]);
}

#[test]
fn what_is_cut_off_comes_back_as_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 20_000);
    let mut map = map_mut(&file);
    map.fill(5);
    let fd = file.as_raw_fd();
    file_io::set_length(fd, 6_000, || file.set_len(6_000)).unwrap();
    file_io::set_length(fd, 20_000, || file.set_len(20_000)).unwrap();
    assert!(map[..6_000].iter().all(|&byte| byte == 5));
    assert!(map[6_000..].iter().all(|&byte| byte == 0));
    map.flush().unwrap();
    assert_eq!(fs::read(folder.path().join("file")).unwrap()[..], map[..]);
}

#[test]
fn holes_stay_holes() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 64 << 20);
    let mut map = map_mut(&file);
    map[32 << 20] = 1;
    map.flush().unwrap();
    drop(map);
    assert!(file.metadata().unwrap().blocks() * 512 <= 64 * 1024);
    let reopened = self::map(&file);
    assert_eq!(reopened[32 << 20], 1);
    assert_eq!(reopened.len(), 64 << 20);
}

#[test]
fn only_changed_pages_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, vec![1; 5 * 4_096]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let mut map = map_mut(&file);
    map[4_096] = 2;
    // Unseen by the emulation, as if another page's write-back could overwrite it.
    file.write_all_at(&[9], 3 * 4_096).unwrap();
    map.flush().unwrap();
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes[4_096], bytes[3 * 4_096]), (2, 9));
}

#[test]
fn writable_maps_need_a_file_open_for_both() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    create(&path, 10);
    let error = MmapRaw::map_raw(&File::open(&path).unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn what_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 10);
    // SAFETY: no map is made.
    let error = unsafe { MmapOptions::new().len(usize::MAX - 4_096).map(&file) }.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    // SAFETY: no map is made.
    let error = unsafe { MmapOptions::new().offset(11).map(&file) }.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let map = map_mut(&file);
    assert!(map.flush_range(5, 6).is_err());
    let error = MmapOptions::new()
        .map_raw_read_only(&File::open(folder.path()).unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_private_map_keeps_its_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, b"abc").unwrap();
    // SAFETY: nobody else changes the tests' files.
    let mut copy = unsafe { MmapOptions::new().map_copy(&File::open(&path).unwrap()) }.unwrap();
    copy[0] = b'z';
    copy.flush().unwrap();
    drop(copy);
    assert_eq!(fs::read(&path).unwrap(), b"abc");
}

#[test]
fn an_empty_file_can_be_mapped() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 0);
    let empty = map_mut(&file);
    assert!(empty.is_empty());
    empty.flush().unwrap();
    file.set_len(5).unwrap();
    assert_eq!(map(&file)[..], [0; 5]);
}

#[test]
fn a_page_that_is_again_as_it_was_overwrites_what_a_handle_wrote_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = create(&path, 8_192);
    let mut writer = map_mut(&file);
    writer[1] = 1;
    file_io::write(file.as_raw_fd(), &[1], Some(2), || file.write_at(&[1], 2)).unwrap();
    writer[1..3].fill(0);
    writer.flush().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 8_192]);
}

#[test]
fn a_map_of_the_start_of_a_file_takes_its_share_of_memory_and_grows_with_what_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let file = create(&path, 64 << 20);
    file_io::write(file.as_raw_fd(), b"data", Some(10_000), || {
        file.write_at(b"data", 10_000)
    })
    .unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    assert_eq!(memmap2::known_data_length(&file).unwrap(), Some(10_004));
    let data = memmap2::data_length(&file).unwrap();
    assert_eq!(data, 10_004);
    let length = usize::try_from(data).unwrap();
    // SAFETY: nobody else changes the file.
    let mut map = unsafe { MmapOptions::new().len(length).map_mut(&file).unwrap() };
    map[0] = 1;
    // Changed through a map, and perhaps not in the file: all of it may hold data.
    assert_eq!(memmap2::data_length(&file).unwrap(), 64 << 20);
    let options = memmap2::RemapOptions::new().may_move(true);
    // SAFETY: nothing refers to the map.
    unsafe { map.remap(20 << 20, options).unwrap() };
    assert_eq!((map[0], &map[10_000..10_005]), (1, b"data\0".as_slice()));
    map[15 << 20] = 2;
    let known = memmap2::known_data_length(&file).unwrap().unwrap();
    assert!(((15 << 20) + 1..64 << 20).contains(&known), "{known}");
    drop(map);
    assert_eq!(memmap2::data_length(&file).unwrap(), (15 << 20) + 1);
    let bytes = fs::read(&path).unwrap();
    assert_eq!((bytes[0], bytes[15 << 20], bytes.len()), (1, 2, 64 << 20));
}

/// What is told of a file is believed, until it is written.
#[test]
fn data_is_looked_for_from_where_zeros_are_noted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    fs::write(&path, [vec![1; 10_000], vec![0; 10 << 20]].concat()).unwrap();
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true).open(&path).unwrap()
    };
    let file = open();
    assert_eq!(memmap2::known_data_length(&file).unwrap(), None);
    memmap2::note_data_length(&file, 12_000).unwrap();
    assert_eq!(memmap2::known_data_length(&file).unwrap(), Some(12_000));
    assert_eq!(memmap2::data_length(&file).unwrap(), 10_000);

    file_io::write(file.as_raw_fd(), b"more", Some(5 << 20), || {
        file.write_at(b"more", 5 << 20)
    })
    .unwrap();
    assert_eq!(memmap2::data_length(&file).unwrap(), (5 << 20) + 4);
    let map = map_mut(&file);
    assert_eq!(map[..10_000], [1; 10_000]);
    assert_eq!(&map[5 << 20..][..5], b"more\0");
    // What is mapped has been read.
    memmap2::note_data_length(&file, 1).unwrap();
    let known = memmap2::known_data_length(&file).unwrap().unwrap();
    assert!(known > 5 << 20, "{known}");
}

#[test]
fn only_maps_that_are_written_grow_and_none_shrinks() {
    let folder = tempfile::tempdir().unwrap();
    let file = create(&folder.path().join("file"), 10_000);
    let options = memmap2::RemapOptions::new().may_move(true);
    let mut map = map_mut(&file);
    // SAFETY: nothing refers to the map.
    let shorter = unsafe { map.remap(100, options) };
    assert_eq!(shorter.unwrap_err().kind(), io::ErrorKind::Unsupported);
    // SAFETY: as above.
    let in_place = unsafe { map.remap(20_000, memmap2::RemapOptions::new()) };
    assert_eq!(in_place.unwrap_err().kind(), io::ErrorKind::Unsupported);
    assert_eq!(map.len(), 10_000);
    let mut read_only = MmapOptions::new().len(10).map_raw_read_only(&file).unwrap();
    // SAFETY: as above.
    let longer = unsafe { read_only.remap(20, options) };
    assert_eq!(longer.unwrap_err().kind(), io::ErrorKind::Unsupported);
}
