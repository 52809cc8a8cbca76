//! What a device's life must have led to: on the device, on the server, in the rejected log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::disk::{Content, Disk, Inode};
use crate::model::{Point, STAMP, State, Write};
use crate::server::Snapshot;

/// Something that must not be.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// A write of one point that the server refuses.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// Its place in the log.
    pub(super) sequence: u64,
    id: u64,
    point: Point,
}

/// A change of what is expected.
#[derive(Clone, Debug)]
enum Change {
    /// A write, with its last sequence.
    Written(u64, Arc<Write>),
    /// Another device's writes and deletions.
    Others(Vec<(u64, Point)>, Vec<u64>),
    /// A payload index that somebody made or removed on the server.
    Index(String, Option<String>),
}

/// What must be there.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Whether the shard was created.
    pub exists: bool,
    /// What the shard holds.
    pub local: State,
    /// What the server holds once all is uploaded.
    pub server: State,
    /// The log's last sequence.
    pub logged: u64,
    /// This device's writes, each with its last sequence.
    pub writes: Vec<(u64, Arc<Write>)>,
    /// The snapshot that waits to be staged or is: its barrier, and what it holds.
    pub snapshot: Option<(u64, Arc<Snapshot>)>,
    /// The files of the mirror in force, which nobody may write to.
    pub(super) mirror: Option<Arc<BTreeMap<Inode, Content>>>,
    /// The points of which the server refuses upserts.
    pub(super) refused_ids: Vec<u64>,
    /// The writes that are in the rejected log, or will be once they are uploaded.
    pub(super) refused: Vec<Refused>,
    /// Stamps of all that was ever refused: it arrives late, or never.
    pub(super) refused_stamps: Vec<u64>,
    /// What was expected when all that was logged was last known to be on disk; `None`: nothing.
    durable: Option<Arc<Expected>>,
    /// What came since. Without durability `always`, a power cut may take the shard back to any of
    /// these writes.
    since: Vec<Change>,
}

pub(super) fn write_others(state: &mut State, points: &[(u64, Point)], deleted: &[u64]) {
    state.points.extend(points.iter().cloned());
    state.points.retain(|id, _| !deleted.contains(id));
}

impl Expected {
    /// Notes a write that took effect.
    pub fn write(&mut self, write: &Write, logged: u64) {
        write.apply(&mut self.local);
        match write {
            Write::Upsert(points) => {
                // One operation for each point.
                let first = (logged + 1).saturating_sub(points.len() as u64);
                for (sequence, (id, point)) in (first..).zip(points) {
                    let (id, point) = (*id, point.clone());
                    if self.refused_ids.contains(&id) {
                        let stamp = point.payload.get(STAMP).and_then(Value::as_u64);
                        self.refused_stamps.extend(stamp);
                        let refused = Refused {
                            sequence,
                            id,
                            point,
                        };
                        self.refused.push(refused);
                    } else {
                        self.server.points.insert(id, point);
                    }
                }
            }
            write => write.apply(&mut self.server),
        }
        self.logged = logged;
        let write = Arc::new(write.clone());
        self.writes.push((logged, Arc::clone(&write)));
        self.since.push(Change::Written(logged, write));
    }

    /// Notes what another device wrote.
    pub(super) fn others(&mut self, points: &[(u64, Point)], deleted: &[u64]) {
        write_others(&mut self.server, points, deleted);
        let change = Change::Others(points.to_vec(), deleted.to_vec());
        self.since.push(change);
    }

    /// Notes that somebody made or removed a payload index on the server.
    pub(super) fn index(&mut self, field: &str, schema: Option<&str>) {
        match schema {
            Some(schema) => {
                let indexes = &mut self.server.indexes;
                indexes.insert(field.to_owned(), schema.to_owned());
            }
            None => {
                self.server.indexes.remove(field);
            }
        }
        let change = Change::Index(field.to_owned(), schema.map(str::to_owned));
        self.since.push(change);
    }

    pub(super) fn last_refused(&self, id: u64) -> Option<&Refused> {
        self.refused.iter().rfind(|refused| refused.id == id)
    }

    /// Notes that the write `sequence` was tried again: the shard's point goes out, or, if a restore
    /// has taken it, the write itself.
    pub(super) fn retry(&mut self, sequence: u64) {
        let Some(place) = self
            .refused
            .iter()
            .position(|refused| refused.sequence == sequence)
        else {
            return;
        };
        let Refused { id, point, .. } = self.refused.remove(place);
        let point = self.local.points.entry(id).or_insert(point).clone();
        self.server.points.insert(id, point);
        self.logged += 1;
    }

    /// Notes that all that was refused was tried again, each point once.
    pub(super) fn retry_all(&mut self) {
        let mut seen = BTreeSet::new();
        for Refused { id, point, .. } in std::mem::take(&mut self.refused) {
            if !seen.insert(id) {
                continue;
            }
            let point = self.local.points.entry(id).or_insert(point).clone();
            self.server.points.insert(id, point);
            self.logged += 1;
        }
    }

    /// Notes that all that was logged is on disk.
    pub(super) fn note_durable(&mut self) {
        self.durable = None;
        self.since.clear();
        self.durable = Some(Arc::new(self.clone()));
    }

    /// What is expected if the writes after `logged` are lost; `None` if they must not be, or if a
    /// part of one would be.
    pub(super) fn without_writes_after(&self, logged: u64) -> Option<Expected> {
        let mut left = Expected {
            exists: self.exists,
            snapshot: None,
            refused_ids: self.refused_ids.clone(),
            durable: self.durable.clone(),
            ..self.durable.as_deref().cloned().unwrap_or_default()
        };
        for change in &self.since {
            match change {
                Change::Written(sequence, write) if *sequence <= logged => {
                    left.write(write, *sequence);
                }
                Change::Written(..) => {}
                Change::Others(points, deleted) => left.others(points, deleted),
                Change::Index(field, schema) => left.index(field, schema.as_deref()),
            }
        }
        (left.logged == logged).then_some(left)
    }

    /// The operations that change payloads of these points.
    pub(super) fn changes_of(&self, points: &BTreeSet<u64>) -> BTreeSet<u64> {
        let changes = self.writes.iter().filter(|(_, write)| match &**write {
            Write::SetPayload(ids, _) => ids.iter().any(|id| points.contains(id)),
            _ => false,
        });
        changes.map(|(sequence, _)| *sequence).collect()
    }

    /// The shard after a restore from a snapshot, or a pull: the operations above the barrier are done
    /// to what the server held.
    pub(super) fn restored(&self, barrier: u64, snapshot: &State) -> State {
        let mut state = snapshot.clone();
        for (last, write) in &self.writes {
            if *last > barrier {
                write.apply_after(barrier, *last, &mut state);
            }
        }
        state
    }

    /// The same, where `found` decides which points came that were deleted while the optimizer ran. True
    /// if any did.
    pub(super) fn restored_as_found(
        &self,
        barrier: u64,
        snapshot: &Snapshot,
        found: &State,
    ) -> (State, bool) {
        let mut state = self.restored(barrier, &snapshot.state);
        let mut with_ghosts = (*snapshot.state).clone();
        for (id, ghost) in snapshot.ghosts.iter() {
            with_ghosts.points.insert(*id, ghost.clone());
        }
        let with_ghosts = self.restored(barrier, &with_ghosts);
        let mut came = false;
        for id in snapshot.ghosts.keys() {
            let (ghost, found) = (with_ghosts.points.get(id), found.points.get(id));
            if let Some(ghost) = ghost
                && Some(ghost) == found
                && state.points.get(id) != Some(ghost)
            {
                state.points.insert(*id, ghost.clone());
                came = true;
            }
        }
        (state, came)
    }

    /// Notes the files of the mirror in force. They are the server's, byte for byte, but for the
    /// versions of points that are deleted.
    pub(super) fn note_mirror(
        &mut self,
        disk: &Disk,
        snapshot: &Snapshot,
    ) -> Result<(), Violation> {
        self.mirror = None;
        let Some(files) = &snapshot.files else {
            return Ok(());
        };
        let mut mirror = BTreeMap::new();
        let mut missing: BTreeSet<&str> = files.contents().keys().map(String::as_str).collect();
        let in_force = in_force(disk)?;
        for (path, inode) in disk.files() {
            // Another generation may be left over.
            let Some(name) =
                path.strip_prefix(&format!("/generations/{in_force}/mirror/0/segments/"))
            else {
                continue;
            };
            let Some((sent, content)) = files.contents().get_key_value(name) else {
                return Err(Violation(format!("{path} is no file of the server's")));
            };
            let alike = |held: &&Content| {
                *held == content || is_the_same_but_for_deleted(name, held, files.contents())
            };
            let Some(held) = disk.content(inode).filter(alike) else {
                return Err(Violation(format!("{path} is not what the server has")));
            };
            missing.remove(sent.as_str());
            mirror.insert(inode, held.clone());
        }
        if let Some(name) = missing.first() {
            return Err(Violation(format!("the mirror lacks the server's {name}")));
        }
        self.mirror = Some(Arc::new(mirror));
        Ok(())
    }

    /// Whether there is a mirror.
    pub fn has_mirror(&self) -> bool {
        self.mirror.is_some()
    }

    /// Nothing is known of the mirror any more: somebody has written to it.
    pub fn forget_mirror(&mut self) {
        self.mirror = None;
    }

    /// The mirror's files are what they were when they came, whatever was done since.
    pub(super) fn check_mirror(&self, disk: &Disk) -> Result<(), Violation> {
        let Some(mirror) = &self.mirror else {
            return Ok(());
        };
        for (path, inode) in disk.files() {
            if let Some(came) = mirror.get(&inode)
                && path.contains("/mirror/")
                && disk.content(inode) != Some(came)
            {
                return Err(Violation(format!(
                    "{path} is not what came from the server"
                )));
            }
        }
        Ok(())
    }
}

/// Whether a file that is not the server's differs only in the versions of points that are deleted. The
/// engine sets them to 0 when it loads a segment, and no number of a manifest tells of that.
fn is_the_same_but_for_deleted(
    name: &str,
    held: &Content,
    server: &BTreeMap<String, Content>,
) -> bool {
    let Some(segment) = name.strip_suffix("/id_tracker.versions") else {
        return false;
    };
    let deleted = server.get(&format!("{segment}/id_tracker.deleted"));
    let (Some(told), Some(deleted)) = (server.get(name), deleted) else {
        return false;
    };
    let all = |content: &Content| content.read(0, content.len() as usize);
    let (held, told, deleted) = (all(held), all(told), all(deleted));
    let is_deleted = |point: usize| {
        let byte = deleted.get(point / 8);
        byte.is_some_and(|byte| byte >> (point % 8) & 1 == 1)
    };
    let mut points = held.chunks(8).zip(told.chunks(8)).enumerate();
    held.len() == told.len()
        && points.all(|(point, (held, told))| held == told || is_deleted(point))
}

/// The generation that `CURRENT` names.
fn in_force(disk: &Disk) -> Result<u64, Violation> {
    let text = disk
        .find("CURRENT")
        .and_then(|inode| disk.read(inode, 0, usize::MAX));
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    let current: Option<Value> = text
        .lines()
        .next()
        .and_then(|it| serde_json::from_str(it).ok());
    current
        .and_then(|current| current["generation"].as_u64())
        .ok_or_else(|| Violation(format!("no generation is in force: {text}")))
}

/// What is in the rejected log.
pub(super) struct Rejected {
    /// How far the queue was uploaded or refused.
    pub(super) acknowledged: u64,
    /// The operations', oldest first.
    pub(super) sequences: Vec<u64>,
}

impl Rejected {
    /// What is in the log is what was to be refused, and may be changes of points that were not there
    /// when the change came (`missed`).
    pub(super) fn check(
        &self,
        expected: &Expected,
        missed: &BTreeSet<u64>,
    ) -> Result<(), Violation> {
        let late = expected.changes_of(missed);
        let sequences: Vec<u64> = self
            .sequences
            .iter()
            .copied()
            .filter(|sequence| !late.contains(sequence))
            .collect();
        let expected: Vec<u64> = expected
            .refused
            .iter()
            .map(|refused| refused.sequence)
            .filter(|sequence| *sequence <= self.acknowledged)
            .collect();
        if sequences != expected {
            return Err(Violation(format!(
                "the rejected log holds the operations {:?}, expected {expected:?} up to {}",
                self.sequences, self.acknowledged
            )));
        }
        Ok(())
    }
}
