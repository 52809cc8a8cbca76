//! Random lives of a tree, stopped anywhere: it always goes back to the checkpoint in force.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use edge_sync_rollback::{Change, Entry, Journal, status};
use fastrand::Rng;

/// What a folder holds: `None` for a folder, else the bytes.
type Content = BTreeMap<PathBuf, Option<Vec<u8>>>;

fn content(tree: &Path) -> Content {
    let mut content = Content::new();
    let mut waiting = vec![tree.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(tree).unwrap().to_path_buf();
            if path.is_dir() {
                content.insert(name, None);
                waiting.push(path);
            } else {
                content.insert(name, Some(fs::read(&path).unwrap()));
            }
        }
    }
    content
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A tree whose changes are made as the WASI part makes them.
struct Life {
    tree: PathBuf,
    journals: PathBuf,
    journal: Journal,
    random: Rng,
    /// Leaves the last part of a change out, as a crash does.
    stops: bool,
}

impl Life {
    fn path(&mut self) -> PathBuf {
        let depth = self.random.usize(1..=3);
        (0..depth).fold(self.tree.clone(), |path, _| {
            path.join(["a", "b", "c"][self.random.usize(..3)])
        })
    }

    fn write(&mut self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        self.journal.before_change(&[Change {
            fd: file.as_raw_fd(),
            from: offset,
            to: offset + bytes.len() as u64,
        }])?;
        let bytes = if self.stops {
            &bytes[..bytes.len() / 2]
        } else {
            bytes
        };
        file.write_all_at(bytes, offset)
    }

    fn set_len(&mut self, path: &Path, length: u64) -> io::Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let before = file.metadata()?.len();
        if length < before {
            self.journal.before_change(&[Change {
                fd: file.as_raw_fd(),
                from: length,
                to: before,
            }])?;
        }
        if self.stops {
            return Ok(());
        }
        file.set_len(length)
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        let Some(found) = status(path)? else {
            return Ok(());
        };
        if found.is_folder {
            self.journal.before_remove_folder()?;
            fs::remove_dir(path)
        } else {
            match self.journal.before_remove_file(found)? {
                Some(trash) => fs::rename(path, trash),
                None => fs::remove_file(path),
            }
        }
    }

    fn remove_all(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            let entries: Vec<_> = fs::read_dir(path)?.collect::<Result<_, _>>()?;
            for entry in entries {
                if self.stops && self.random.bool() {
                    return Ok(());
                }
                self.remove_all(&entry.path())?;
            }
        }
        self.remove(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let Some(found) = status(from)? else {
            return Ok(());
        };
        let replaced = status(to)?;
        let stops = self.stops;
        self.journal.rename(
            Entry {
                path: from,
                status: found,
            },
            to,
            replaced,
            || {
                if stops {
                    return Err(io::Error::other("stopped"));
                }
                fs::rename(from, to)
            },
        )
    }

    /// Does anything; that it may be impossible is part of it.
    fn change(&mut self) {
        let path = self.path();
        let outcome = match self.random.u8(..12) {
            0..=1 => File::create_new(&path).map(drop),
            2 => fs::create_dir_all(&path),
            3..=6 => {
                let offset = self.random.u64(..20_000);
                let bytes = vec![self.random.u8(..3); self.random.usize(..9000)];
                self.write(&path, offset, &bytes)
            }
            7 => {
                let length = self.random.u64(..20_000);
                self.set_len(&path, length)
            }
            8 => self.remove(&path),
            9 => self.remove_all(&path),
            _ => {
                let to = self.path();
                self.rename(&path, &to)
            }
        };
        let _ = outcome;
    }
}

#[test]
fn a_tree_goes_back_to_its_checkpoint() {
    let lives = std::env::var("EDGE_SYNC_ROLLBACK_LIVES")
        .ok()
        .map_or(30, |lives| lives.parse().expect("a number"));
    let first = std::env::var("EDGE_SYNC_SEED")
        .ok()
        .map_or(0, |seed| seed.parse().expect("a number"));
    for seed in first..first + lives {
        live(seed);
    }
}

fn live(seed: u64) {
    let folder = tempfile::tempdir().unwrap();
    let (tree, journals) = (folder.path().join("tree"), folder.path().join("journals"));
    fs::create_dir(&tree).unwrap();
    let mut life = Life {
        journal: Journal::begin(&tree, &journals, 1).unwrap(),
        tree,
        journals,
        random: Rng::with_seed(seed),
        stops: false,
    };
    let mut expected = content(&life.tree);
    for round in 0..6 {
        for _ in 0..life.random.usize(..25) {
            life.change();
        }
        if life.random.bool() {
            life.stops = true;
            life.change();
            life.stops = false;
        }
        let checkpoint = life.journal.checkpoint();
        match life.random.u8(..3) {
            // A checkpoint comes into force. One cannot be made of a tree in doubt.
            0 if life.journal.check().is_ok() => {
                let next = Journal::begin(&life.tree, &life.journals, checkpoint + 1).unwrap();
                next.remove_others().unwrap();
                life.journal = next;
                expected = content(&life.tree);
            }
            // One does not.
            1 => {
                let _ = Journal::begin(&life.tree, &life.journals, checkpoint + 1).unwrap();
            }
            _ => {}
        }
        // Everything stops. The copy has other inodes, as a backup that was put back has.
        let place = folder.path().join(format!("{round}"));
        let (tree, journals) = (place.join("tree"), place.join("journals"));
        copy(&life.tree, &tree);
        copy(&life.journals, &journals);
        let checkpoint = life.journal.checkpoint();
        let (journal, _) = Journal::roll_back(&tree, &journals, checkpoint)
            .unwrap_or_else(|error| panic!("seed {seed}, round {round}: {error}"));
        assert!(
            content(&tree) == expected,
            "seed {seed}, round {round}: {:?} is not {:?}",
            content(&tree).keys(),
            expected.keys(),
        );
        // Once more changes nothing.
        drop(journal);
        let (journal, undone) = Journal::roll_back(&tree, &journals, checkpoint).unwrap();
        assert!(!undone && content(&tree) == expected, "seed {seed}");
        // Some lives go on there, the others where they were.
        if life.random.bool() || life.journal.check().is_err() {
            life = Life {
                tree,
                journals,
                journal,
                ..life
            };
        }
    }
}

#[test]
fn damage_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let (tree, journals) = (folder.path().join("tree"), folder.path().join("journals"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), [7; 10_000]).unwrap();
    drop(Journal::begin(&tree, &journals, 1).unwrap());
    let broken = |what: &dyn Fn(&Path, &Path)| {
        let place = tempfile::tempdir().unwrap();
        let (copied, copies) = (place.path().join("tree"), place.path().join("journals"));
        copy(&tree, &copied);
        copy(&journals, &copies);
        what(&copied, &copies);
        match Journal::roll_back(&copied, &copies, 1) {
            Ok(_) => panic!("nobody noticed"),
            Err(error) => error.to_string(),
        }
    };
    let found = broken(&|tree, _| fs::remove_file(tree.join("file")).unwrap());
    assert!(found.contains("file is damaged"), "{found}");
    let found = broken(&|_, journals| fs::remove_dir_all(journals.join("1")).unwrap());
    assert!(found.contains("missing"), "{found}");
    let log = |journals: &Path| journals.join("1/00000000000000000001.log");
    let found = broken(&|_, journals| {
        let file = OpenOptions::new().write(true).open(log(journals)).unwrap();
        file.write_all_at(&[0xff], 100).unwrap();
    });
    assert!(found.contains("does not say"), "{found}");
    let found = broken(&|_, journals| fs::write(log(journals), []).unwrap());
    assert!(found.contains("does not say"), "{found}");
}
