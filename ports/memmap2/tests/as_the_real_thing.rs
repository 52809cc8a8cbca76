//! Random lives of mapped files, compared with real maps of other files step by step.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use memmap2::file_io;
use proptest::prelude::*;

const FILES: usize = 3;
const PAGE: usize = 4096;

#[derive(Clone, Debug)]
enum Step {
    Map {
        file: usize,
        writable: bool,
    },
    MapStart {
        file: usize,
        length: prop::sample::Index,
    },
    Lengthen {
        map: usize,
        by: prop::sample::Index,
    },
    Write {
        map: usize,
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Zero {
        map: usize,
        at: prop::sample::Index,
        length: usize,
    },
    Flush {
        map: usize,
    },
    FlushRange {
        map: usize,
        at: prop::sample::Index,
        length: usize,
    },
    Drop {
        map: usize,
    },
    HandleWrite {
        file: usize,
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Append {
        file: usize,
        bytes: Vec<u8>,
    },
    Grow {
        file: usize,
        by: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Remove {
        file: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let file = 0..FILES;
    let bytes = || prop::collection::vec(any::<u8>(), 1..300);
    let at = any::<prop::sample::Index>;
    let step = prop_oneof![
        4 => (file.clone(), any::<bool>()).prop_map(|(file, writable)| Step::Map { file, writable }),
        2 => (file.clone(), at()).prop_map(|(file, length)| Step::MapStart { file, length }),
        2 => (0..8_usize, at()).prop_map(|(map, by)| Step::Lengthen { map, by }),
        6 => (0..8_usize, at(), bytes()).prop_map(|(map, at, bytes)| Step::Write { map, at, bytes }),
        1 => (0..8_usize, at(), 1..9000_usize)
            .prop_map(|(map, at, length)| Step::Zero { map, at, length }),
        2 => (0..8_usize).prop_map(|map| Step::Flush { map }),
        2 => (0..8_usize, at(), 0..9000_usize)
            .prop_map(|(map, at, length)| Step::FlushRange { map, at, length }),
        3 => (0..8_usize).prop_map(|map| Step::Drop { map }),
        3 => (file.clone(), at(), bytes())
            .prop_map(|(file, at, bytes)| Step::HandleWrite { file, at, bytes }),
        2 => (file.clone(), bytes()).prop_map(|(file, bytes)| Step::Append { file, bytes }),
        3 => (file.clone(), 1..40_000_usize).prop_map(|(file, by)| Step::Grow { file, by }),
        1 => (file.clone(), file.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => file.prop_map(|file| Step::Remove { file }),
    ];
    prop::collection::vec(step, 1..60)
}

/// A file of each kind. Kept open, as are the handles of a process.
struct Pair {
    ours: File,
    real: File,
    /// Which of the maps wrote last.
    last_writer: Option<usize>,
}

enum Map<M, R> {
    Read(R),
    Write(M),
}

struct Maps {
    number: usize,
    /// Index into `World::inodes`.
    inode: usize,
    ours: Map<memmap2::MmapMut, memmap2::Mmap>,
    real: Map<reference::MmapMut, reference::Mmap>,
}

impl Maps {
    fn ours(&self) -> &[u8] {
        match &self.ours {
            Map::Read(map) => map,
            Map::Write(map) => map,
        }
    }

    fn real(&self) -> &[u8] {
        match &self.real {
            Map::Read(map) => map,
            Map::Write(map) => map,
        }
    }
}

struct World {
    folder: tempfile::TempDir,
    /// Every file that there ever was, with a name or without.
    inodes: Vec<Pair>,
    /// The files by name.
    names: [usize; FILES],
    maps: Vec<Maps>,
    next_map: usize,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            inodes: Vec::new(),
            names: [0; FILES],
            maps: Vec::new(),
            next_map: 0,
        };
        for name in 0..FILES {
            world.create(name);
        }
        world
    }

    fn path(&self, kind: &str, name: usize) -> PathBuf {
        self.folder.path().join(format!("{kind}-{name}"))
    }

    fn create(&mut self, name: usize) {
        let open = |path: PathBuf| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
                .unwrap()
        };
        self.names[name] = self.inodes.len();
        self.inodes.push(Pair {
            ours: open(self.path("ours", name)),
            real: open(self.path("real", name)),
            last_writer: None,
        });
    }

    fn apply(&mut self, step: &Step) {
        match step {
            Step::Map { file, writable } => self.map(*file, *writable, None),
            Step::MapStart { file, length } => match self.length(*file) {
                0 => {}
                of => self.map(*file, true, Some(1 + length.index(of))),
            },
            Step::Lengthen { map, by } => self.lengthen(*map, *by),
            Step::Write { map, at, bytes } => self.write(*map, *at, bytes),
            Step::Zero { map, at, length } => self.write(*map, *at, &vec![0; *length]),
            Step::Flush { map } => {
                if let Some(index) = self.map_index(*map)
                    && let Map::Write(map) = &self.maps[index].ours
                {
                    map.flush().unwrap();
                    let (inode, length) = (self.maps[index].inode, map.len());
                    self.compare_maps(inode, length);
                    self.compare_range(inode, 0, length);
                }
            }
            Step::FlushRange { map, at, length } => {
                if let Some(index) = self.map_index(*map)
                    && let Map::Write(map) = &self.maps[index].ours
                    && !map.is_empty()
                {
                    let start = at.index(map.len());
                    let length = (*length).min(map.len() - start);
                    map.flush_range(start, length).unwrap();
                    self.compare_range(self.maps[index].inode, start, length);
                }
            }
            Step::Drop { map } => {
                if let Some(index) = self.map_index(*map) {
                    let inode = self.maps.remove(index).inode;
                    if !self.is_mapped(inode) {
                        self.compare_files(inode);
                    }
                }
            }
            Step::HandleWrite { file, at, bytes } => {
                let length = self.length(*file);
                let at = at.index(length + 1);
                self.handle_write(*file, at, bytes);
            }
            Step::Append { file, bytes } => self.handle_write(*file, self.length(*file), bytes),
            Step::Grow { file, by } => {
                let length = (self.length(*file) + by) as u64;
                let pair = &self.inodes[self.names[*file]];
                file_io::set_length(pair.ours.as_raw_fd(), length, || pair.ours.set_len(length))
                    .unwrap();
                pair.real.set_len(length).unwrap();
            }
            Step::Rename { from, to } if from != to => {
                for kind in ["ours", "real"] {
                    fs::rename(self.path(kind, *from), self.path(kind, *to)).unwrap();
                }
                self.names[*to] = self.names[*from];
                self.create(*from);
            }
            Step::Rename { .. } => {}
            Step::Remove { file } => {
                for kind in ["ours", "real"] {
                    fs::remove_file(self.path(kind, *file)).unwrap();
                }
                self.create(*file);
            }
        }
        for file in 0..FILES {
            self.compare_reads(self.names[file]);
        }
    }

    fn map(&mut self, file: usize, writable: bool, length: Option<usize>) {
        if self.maps.len() >= 8 {
            return;
        }
        let inode = self.names[file];
        let pair = &self.inodes[inode];
        // Opened anew, and closed while mapped.
        let open = |kind| {
            OpenOptions::new()
                .read(true)
                .write(writable)
                .open(self.path(kind, file))
                .unwrap()
        };
        let (ours, real) = (open("ours"), open("real"));
        // SAFETY: nobody else changes these files.
        let (ours, real) = unsafe {
            if writable {
                let length = length.unwrap_or_else(|| self.length(file));
                (
                    Map::Write(
                        memmap2::MmapOptions::new()
                            .len(length)
                            .map_mut(&ours)
                            .unwrap(),
                    ),
                    Map::Write(
                        reference::MmapOptions::new()
                            .len(length)
                            .map_mut(&real)
                            .unwrap(),
                    ),
                )
            } else {
                (
                    Map::Read(memmap2::Mmap::map(&ours).unwrap()),
                    Map::Read(reference::Mmap::map(&real).unwrap()),
                )
            }
        };
        assert_eq!(
            pair.ours.metadata().unwrap().len(),
            pair.real.metadata().unwrap().len()
        );
        let maps = Maps {
            number: self.next_map,
            inode,
            ours,
            real,
        };
        self.next_map += 1;
        assert!(
            maps.ours() == maps.real(),
            "a new map of file {file} differs"
        );
        assert!(maps.ours().as_ptr().addr().is_multiple_of(PAGE));
        self.maps.push(maps);
    }

    fn lengthen(&mut self, map: usize, by: prop::sample::Index) {
        let Some(index) = self.map_index(map) else {
            return;
        };
        let inode = self.maps[index].inode;
        // What older maps have changed shows in it from their next flush on.
        for maps in &self.maps {
            if let (true, Map::Write(map)) = (maps.inode == inode, &maps.ours) {
                map.flush_async().unwrap();
            }
        }
        let in_file = contents(&self.inodes[inode].real).len();
        let maps = &mut self.maps[index];
        if let (Map::Write(ours), Map::Write(real)) = (&mut maps.ours, &mut maps.real)
            && ours.len() < in_file
            // The reference makes no map of nothing longer.
            && !ours.is_empty()
        {
            let length = ours.len() + 1 + by.index(in_file - ours.len());
            // SAFETY: nothing refers to the maps.
            unsafe {
                let options = memmap2::RemapOptions::new().may_move(true);
                ours.remap(length, options).unwrap();
                let options = reference::RemapOptions::new().may_move(true);
                real.remap(length, options).unwrap();
            }
            assert!(maps.ours() == maps.real(), "a lengthened map differs");
            assert!(maps.ours().as_ptr().addr().is_multiple_of(PAGE));
        }
    }

    fn write(&mut self, map: usize, at: prop::sample::Index, bytes: &[u8]) {
        let Some(index) = self.map_index(map) else {
            return;
        };
        let (number, inode) = (self.maps[index].number, self.maps[index].inode);
        if self.inodes[inode]
            .last_writer
            .is_some_and(|last| last != number)
        {
            // Of one byte that two maps write between two flushes, either may win.
            for maps in &self.maps {
                if let (true, Map::Write(map)) = (maps.inode == inode, &maps.ours) {
                    map.flush_async().unwrap();
                }
            }
        }
        let maps = &mut self.maps[index];
        if let (Map::Write(ours), Map::Write(real)) = (&mut maps.ours, &mut maps.real)
            && !ours.is_empty()
        {
            let start = at.index(ours.len());
            let end = (start + bytes.len()).min(ours.len());
            ours[start..end].copy_from_slice(&bytes[..end - start]);
            real[start..end].copy_from_slice(&bytes[..end - start]);
            self.inodes[inode].last_writer = Some(number);
        }
    }

    fn handle_write(&mut self, file: usize, at: usize, bytes: &[u8]) {
        let pair = &self.inodes[self.names[file]];
        file_io::write(pair.ours.as_raw_fd(), bytes, Some(at as u64), || {
            pair.ours.write_at(bytes, at as u64)
        })
        .unwrap();
        pair.real.write_all_at(bytes, at as u64).unwrap();
    }

    fn map_index(&self, map: usize) -> Option<usize> {
        (!self.maps.is_empty()).then(|| map % self.maps.len())
    }

    fn is_mapped(&self, inode: usize) -> bool {
        self.maps.iter().any(|maps| maps.inode == inode)
    }

    fn length(&self, file: usize) -> usize {
        let pair = &self.inodes[self.names[file]];
        usize::try_from(pair.real.metadata().unwrap().len()).unwrap()
    }

    /// What handles read, whatever has been flushed.
    fn compare_reads(&self, inode: usize) {
        let pair = &self.inodes[inode];
        assert!(
            read(&pair.ours).unwrap() == contents(&pair.real),
            "a handle of file {inode} reads something else"
        );
    }

    /// What is in the files, without any help.
    fn compare_files(&self, inode: usize) {
        let pair = &self.inodes[inode];
        assert!(
            contents(&pair.ours) == contents(&pair.real),
            "file {inode} holds something else"
        );
    }

    fn compare_range(&self, inode: usize, start: usize, length: usize) {
        let pair = &self.inodes[inode];
        let (ours, real) = (contents(&pair.ours), contents(&pair.real));
        assert_eq!(ours.len(), real.len());
        let end = (start + length).min(ours.len());
        assert!(ours[start.min(end)..end] == real[start.min(end)..end]);
    }

    fn compare_maps(&self, inode: usize, length: usize) {
        for maps in self.maps.iter().filter(|maps| maps.inode == inode) {
            let length = length.min(maps.real().len());
            assert!(
                maps.ours()[..length] == maps.real()[..length],
                "map {} differs",
                maps.number
            );
        }
    }
}

fn contents(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let position = file_io::read_position(file.as_raw_fd(), Some(0))?;
    let mut bytes = contents(file);
    if let Some(position) = position {
        position.overlay(&mut bytes)?;
    }
    Ok(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn as_the_real_thing(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.maps.clear();
        for inode in 0..world.inodes.len() {
            world.compare_files(inode);
        }
    }
}
