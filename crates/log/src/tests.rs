//! Tests that need the inside: faults at every step, and the worked example of the format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use std::{fs, iter, thread};

use tempfile::tempdir;

use crate::files::faults;
use crate::record;
use crate::segment::{self, HEADER_BYTES};
use crate::{
    Current, Durability, Error, Log, LogOptions, MIN_SEGMENT_BYTES, Refusals, Rejected,
    RejectedOperation, RejectedView, SKIPPED_BY_HAND, View, follow,
};

fn options(durability: Durability) -> LogOptions {
    LogOptions {
        durability,
        segment_bytes: MIN_SEGMENT_BYTES,
        durable_to: 0,
    }
}

fn contents(log: &Log) -> BTreeMap<u64, Vec<u8>> {
    log.read(0)
        .map(|record| record.expect("readable"))
        .map(|record| (record.sequence, record.payload))
        .collect()
}

/// What a log must and may hold after a life with faults.
#[derive(Default)]
struct Model {
    must: BTreeMap<u64, Vec<u8>>,
    may: BTreeMap<u64, Vec<u8>>,
    /// Sequences at which a log may begin.
    boundaries: BTreeSet<u64>,
}

impl Model {
    fn append(&mut self, log: &mut Log, count: u64, length: usize) {
        let first = log.next();
        let before = contents(log);
        let payloads: Vec<_> = (0..count)
            .map(|index| vec![(first + index) as u8; length + index as usize])
            .collect();
        let call = (first..).zip(payloads.iter().cloned());
        match log.append(&payloads) {
            Ok(sequences) => {
                assert_eq!(sequences, first..first + count);
                self.may.retain(|sequence, _| *sequence < first);
                self.must.extend(call);
                self.boundaries.insert(sequences.end);
            }
            // Refused before anything was written.
            Err(Error::Poisoned { .. }) => {}
            Err(_) if is_poisoned(log) => {
                self.may.extend(call);
                self.boundaries.insert(first + count);
            }
            Err(_) => {
                assert_eq!(log.next(), first);
                assert!(contents(log) == before, "a failed call left something");
            }
        }
    }

    fn forget(&mut self, result: crate::Result<()>, which: impl Fn(u64) -> bool) {
        let gone: Vec<_> = self.must.extract_if(.., |at, _| which(*at)).collect();
        match result {
            Ok(()) => self.may.retain(|at, _| !which(*at)),
            Err(_) => self.may.extend(gone),
        }
    }

    fn check(&self, log: &Log) {
        let found = contents(log);
        for (sequence, payload) in &self.must {
            assert_eq!(found.get(sequence), Some(payload), "lost {sequence}");
        }
        for (sequence, payload) in &found {
            let known = self.must.get(sequence).or(self.may.get(sequence));
            assert_eq!(Some(payload), known, "{sequence} was never written");
        }
        let first = found.keys().next().copied().unwrap_or(log.next());
        assert!(found.keys().copied().eq(first..log.next()));
        assert!(self.boundaries.contains(&log.next()) || found.is_empty());
    }
}

fn is_poisoned(log: &mut Log) -> bool {
    matches!(log.append::<&[u8]>(&[]), Err(Error::Poisoned { .. }))
}

/// A life that uses every operation.
fn live(directory: &Path, durability: Durability) -> Model {
    let mut model = Model::default();
    let Ok((mut log, _)) = Log::open(directory, options(durability)) else {
        return model;
    };
    model.boundaries.insert(1);
    model.append(&mut log, 1, 10);
    model.append(&mut log, 3, 700);
    model.append(&mut log, 2, 1500);
    let _ = log.sync();
    model.append(&mut log, 4, 900);
    model.append(&mut log, 1, 5000);
    model.append(&mut log, 2, 10);
    let at = log.last().saturating_sub(2);
    if model.boundaries.contains(&(at + 1)) {
        let result = log.truncate_after(at);
        model.forget(result, |sequence| sequence > at);
    }
    model.append(&mut log, 2, 20);
    if model.must.contains_key(&6) {
        let result = log.truncate_after(6);
        model.forget(result, |sequence| sequence > 6);
    }
    model.append(&mut log, 2, 4000);
    model.append(&mut log, 2, 30);
    let up_to = log.last().saturating_sub(2);
    let result = log.reclaim(up_to);
    model.forget(
        result.and(Err(Error::Invalid {
            field: "",
            message: String::new(),
        })),
        |at| at <= up_to,
    );
    if let Ok((reopened, _)) = Log::open(directory, options(durability)) {
        log = reopened;
        model.check(&log);
        model.must = contents(&log);
    }
    let next = log.next() + 5;
    let result = log.restart(next);
    if result.is_ok() {
        model.boundaries.insert(next);
    }
    model.forget(result, |_| true);
    model.append(&mut log, 2, 40);
    model
}

#[test]
fn every_fault_at_every_step_leaves_what_was_acknowledged() {
    let all = [
        Durability::Always,
        Durability::Interval(Duration::ZERO),
        Durability::Os,
    ];
    // Most of the time goes into waiting for fsync, and faults are a thread's own.
    let visited: u64 = thread::scope(|scope| {
        let threads: Vec<_> = all
            .into_iter()
            .flat_map(|durability| [(durability, false), (durability, true)])
            .map(|(durability, for_good)| scope.spawn(move || sweep(durability, for_good)))
            .collect();
        let visited = threads.into_iter().map(|thread| thread.join());
        visited.map(|steps| steps.expect("the sweep holds")).sum()
    });
    assert!(visited > 200, "the life has become too short: {visited}");
}

/// Fails each step of the life once. Answers how many there are.
fn sweep(durability: Durability, for_good: bool) -> u64 {
    for step in 0.. {
        let directory = tempdir().expect("temporary directory");
        let path = directory.path().join("log");
        faults::fail_after(step, for_good);
        let before = faults::steps();
        let model = live(&path, durability);
        let taken = faults::steps() - before;
        faults::clear();

        let (mut log, _) = Log::open(&path, options(durability)).expect("opens again");
        model.check(&log);
        let sequences = log.append(&[b"goes on"]).expect("appends");
        let (log, report) = Log::open(&path, options(durability)).expect("opens again");
        assert_eq!(report, Default::default());
        assert_eq!(log.last(), sequences.start);
        if taken <= step {
            return step;
        }
    }
    0
}

#[test]
fn a_failed_fsync_poisons_and_the_call_is_taken_back() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    log.append(&[b"kept"]).expect("appends");
    // The write succeeds, its fsync fails.
    faults::fail_after(1, false);
    let before = faults::steps();
    assert!(matches!(log.append(&[b"failed"]), Err(Error::Io { .. })));
    // The cut is synced as well: a power cut must not bring the call back that has failed.
    assert_eq!(faults::steps() - before, 4, "write, fsync, cut, fsync");
    assert!(matches!(
        log.append(&[b"more"]),
        Err(Error::Poisoned { .. })
    ));
    assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
    assert!(matches!(log.reclaim(1), Err(Error::Poisoned { .. })));
    assert_eq!(contents(&log), BTreeMap::from([(1, b"kept".to_vec())]));
    let (mut log, report) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    assert_eq!(report, Default::default());
    assert_eq!(log.append(&[b"next"]).expect("appends"), 2..3);
}

#[test]
fn a_full_disk_leaves_the_log_usable() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    log.append(&[b"kept"]).expect("appends");
    faults::fail_after(0, false);
    let error = log.append(&[b"too much"]).expect_err("no space");
    assert!(matches!(
        error,
        Error::Io {
            operation: "append to log segment",
            ..
        }
    ));
    assert_eq!(log.append(&[b"space again"]).expect("appends"), 2..3);
    assert_eq!(contents(&log).len(), 2);
}

#[test]
fn a_log_of_which_everything_is_forgotten_keeps_no_bytes() {
    let directory = tempdir().expect("a directory");
    let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("a log");
    for record in 0..3_u8 {
        log.append(&[vec![record; 200]]).expect("appended");
    }
    let full = log.disk_bytes();
    log.reclaim(2).expect("reclaimed");
    assert_eq!((log.first(), log.disk_bytes()), (1, full));
    // There is no room for an empty segment: nothing is lost, and nothing gained.
    faults::fail_after(0, false);
    log.reclaim(3).expect("reclaimed");
    faults::clear();
    assert_eq!((log.first(), log.disk_bytes()), (1, full));
    log.reclaim(3).expect("reclaimed");
    assert_eq!((log.first(), log.disk_bytes()), (4, HEADER_BYTES));
    assert_eq!((log.records_after(3), log.records_after(u64::MAX)), (0, 0));
    drop(log);
    let (mut log, report) =
        Log::open(directory.path(), options(Durability::Always)).expect("a log");
    assert_eq!(report.notes(), Vec::<String>::new());
    assert_eq!(log.append(&[b"next"]).expect("appended"), 4..5);
    assert_eq!(log.records_after(3), 1);
    let read = log.read(4).next().expect("one").expect("readable");
    assert_eq!(log.time_of(4).expect("known"), Some(read.time_ms));
}

#[test]
fn what_the_next_opening_has_no_use_for_is_put_behind_it() {
    let directory = tempdir().expect("a directory");
    let segments = || segment::list(directory.path()).expect("segments");
    let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("a log");
    log.append(&[b"little"]).expect("appended");
    log.begin_segment_if_worth_it().expect("nothing to do");
    assert_eq!(segments(), [1]);
    for record in 2..5_u8 {
        log.append(&[vec![record; 200]]).expect("appended");
    }
    // There is no room for an empty segment: nothing is lost.
    faults::fail_after(0, false);
    log.begin_segment_if_worth_it().expect("another time");
    faults::clear();
    assert_eq!(segments(), [1]);
    log.begin_segment_if_worth_it().expect("a segment");
    log.begin_segment_if_worth_it().expect("nothing to do");
    assert_eq!(segments(), [1, 5]);
    drop(log);

    // Damage of what was put behind is found when it is read.
    let first = segment::path(directory.path(), 1);
    let mut bytes = std::fs::read(&first).expect("readable");
    let sound = bytes.clone();
    *bytes.last_mut().expect("a byte") ^= 1;
    std::fs::write(&first, bytes).expect("written");
    let (log, report) = Log::open(directory.path(), options(Durability::Always)).expect("a log");
    assert_eq!(report.notes(), Vec::<String>::new());
    assert!(log.read(1).any(|record| record.is_err()));
    drop(log);
    std::fs::write(&first, sound).expect("written");
    let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("a log");
    assert_eq!(log.append(&[b"next"]).expect("appended"), 5..6);
    assert_eq!(contents(&log).len(), 5);
    log.truncate_after(3).expect("cut");
    assert_eq!(segments(), [1]);
    assert_eq!(contents(&log).len(), 3);
}

#[test]
fn a_call_costs_one_write_and_one_fsync() {
    let directory = tempdir().expect("temporary directory");
    let steps = |durability: Durability, calls: u64| {
        let path = directory.path().join(format!("{durability:?}"));
        let options = LogOptions {
            durability,
            ..LogOptions::default()
        };
        let (mut log, _) = Log::open(&path, options).expect("opens");
        let before = faults::steps();
        for _ in 0..calls {
            log.append(&vec![[7; 100]; 50]).expect("appends");
        }
        faults::steps() - before
    };
    assert_eq!(steps(Durability::Always, 3), 6);
    assert_eq!(steps(Durability::Interval(Duration::ZERO), 3), 6);
    assert_eq!(steps(Durability::Interval(Duration::MAX), 3), 3);
    assert_eq!(steps(Durability::Os, 3), 3);
}

#[test]
fn storing_positions_is_all_or_nothing_at_every_step() {
    let old = Current {
        generation: 1,
        applied: 5,
        ..Current::default()
    };
    let new = Current {
        generation: 2,
        acknowledged: 7,
        barrier: 7,
        ..Current::default()
    };
    for step in 0.. {
        let directory = tempdir().expect("temporary directory");
        old.store(directory.path()).expect("stores");
        faults::fail_after(step, true);
        let stored = new.store(directory.path());
        faults::clear();
        let loaded = Current::recover(directory.path())
            .expect("loads")
            .expect("is there");
        if stored.is_ok() {
            assert_eq!(loaded, new);
            assert_eq!(
                step, 5,
                "create, write, sync, rename, sync of the directory"
            );
            break;
        }
        assert!(loaded == old || loaded == new);
        let names: Vec<_> = fs::read_dir(directory.path())
            .expect("lists")
            .map(|entry| entry.expect("lists").file_name())
            .collect();
        assert_eq!(names, ["CURRENT"], "something was left behind");
    }
}

fn operation(sequence: u64) -> RejectedOperation {
    RejectedOperation {
        sequence,
        status: 400,
        message: format!("wrong vector in {sequence}"),
        rejected_ms: 1_700_000_000_000 + sequence,
        operation: vec![sequence as u8; 100],
    }
}

#[test]
fn the_rejected_log_survives_a_stop_at_every_step() {
    const COMPACT_BYTES: u64 = 600;
    let listed = |rejected: &Rejected| -> BTreeSet<u64> {
        let list = rejected.list().expect("lists");
        assert!(list.iter().all(|entry| *entry == operation(entry.sequence)));
        assert_eq!(list.len() as u64, rejected.len());
        list.iter().map(|entry| entry.sequence).collect()
    };
    let mut compacted = false;
    for step in 0.. {
        let directory = tempdir().expect("temporary directory");
        let mut must = BTreeSet::new();
        let mut may = BTreeSet::new();
        let before = faults::steps();
        faults::fail_after(step, true);
        if let Ok((mut rejected, _)) = Rejected::open_with(directory.path(), words, COMPACT_BYTES) {
            for sequence in 1..=12 {
                match rejected.add(&operation(sequence)) {
                    Ok(()) => must.insert(sequence),
                    Err(_) => may.insert(sequence),
                };
                if sequence % 5 != 0 && must.remove(&sequence) {
                    if rejected.remove(sequence).is_err() {
                        may.insert(sequence);
                    } else {
                        assert!(!rejected.contains(sequence));
                    }
                }
            }
        }
        let taken = faults::steps() - before;
        faults::clear();
        let (mut rejected, _) =
            Rejected::open_with(directory.path(), words, COMPACT_BYTES).expect("opens");
        let found = listed(&rejected);
        assert!(must.is_subset(&found), "{must:?} {found:?}");
        assert!(found.iter().all(|at| must.contains(at) || may.contains(at)));
        rejected.add(&operation(99)).expect("adds");
        assert_eq!(rejected.get(99).expect("reads"), Some(operation(99)));
        if taken <= step {
            let (rejected, _) =
                Rejected::open_with(directory.path(), words, COMPACT_BYTES).expect("opens");
            assert_eq!(listed(&rejected), BTreeSet::from([5, 10, 99]));
            let bytes: u64 = fs::read_dir(directory.path())
                .expect("lists")
                .map(|entry| {
                    entry
                        .and_then(|entry| entry.metadata())
                        .expect("there")
                        .len()
                })
                .sum();
            compacted = bytes < 12 * 200;
            break;
        }
    }
    assert!(compacted, "12 entries and 10 tombstones are still there");
}

#[test]
fn a_rejected_log_without_entries_keeps_no_bytes() {
    let directory = tempdir().expect("temporary directory");
    let (mut rejected, _) = Rejected::open(directory.path(), words).expect("opens");
    for sequence in 1..=3 {
        rejected.add(&operation(sequence)).expect("adds");
    }
    for sequence in 1..=3 {
        assert!(rejected.remove(sequence).expect("removes"));
        assert!(!rejected.remove(sequence).expect("removes"));
    }
    let lengths: Vec<_> = fs::read_dir(directory.path())
        .expect("lists")
        .map(|entry| {
            entry
                .and_then(|entry| entry.metadata())
                .expect("there")
                .len()
        })
        .collect();
    assert_eq!(lengths, [HEADER_BYTES]);
}

/// The bytes of the example in `docs/log-format.md`, made by the code.
fn example() -> Vec<u8> {
    let header = segment::Header {
        first: 7,
        salt: 0x0123_4567_89ab_cdef,
        previous_first: 1,
        previous_bytes: 400,
    };
    let mut bytes = header.encode().to_vec();
    let calls: [&[&str]; 2] = [&["upsert 1", "delete 2"], &["!"]];
    let mut sequence = 7;
    for call in calls {
        let synced = bytes.len() as u64;
        for (index, payload) in call.iter().enumerate() {
            let record = record::Header {
                length: payload.len() as u32,
                sequence,
                time_ms: 1_700_000_000_000,
                synced,
                index: index as u32,
                left: (call.len() - index - 1) as u32,
            };
            let offset = bytes.len() as u64;
            bytes.extend(record.encode(header.seed(), offset, payload.as_bytes()));
            bytes.extend(payload.bytes());
            sequence += 1;
        }
    }
    bytes
}

/// Hex digits of the first code block after `heading` in the specification; text after `|` is
/// explanation.
fn specified(heading: &str) -> Vec<u8> {
    let text = include_str!("../../../docs/log-format.md");
    let (_, text) = text.split_once(heading).expect("heading");
    let block = text.split("```").nth(1).expect("code block");
    let digits: String = block
        .lines()
        .skip(1)
        .filter_map(|line| line.split('|').next())
        .flat_map(|line| line.split_whitespace().skip(1))
        .collect();
    let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    (0..digits.len()).step_by(2).map(digit).collect()
}

#[test]
fn the_worked_example_is_what_the_code_writes_and_reads() {
    let bytes = example();
    let dump: Vec<_> = bytes
        .chunks(8)
        .map(|chunk| format!("{chunk:02x?}"))
        .collect();
    assert_eq!(specified("## A worked example"), bytes, "{dump:#?}");

    let directory = tempdir().expect("temporary directory");
    fs::write(segment::path(directory.path(), 7), &bytes).expect("writes");
    let (log, report) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    assert_eq!(report, Default::default());
    let records: Vec<_> = log.read(0).map(|record| record.expect("reads")).collect();
    let texts: Vec<_> = records
        .iter()
        .map(|record| (record.sequence, String::from_utf8_lossy(&record.payload)))
        .collect();
    assert_eq!(
        texts,
        [
            (7, "upsert 1".into()),
            (8, "delete 2".into()),
            (9, "!".into())
        ]
    );
    assert!(
        records
            .iter()
            .all(|record| record.time_ms == 1_700_000_000_000)
    );
}

#[test]
fn the_positions_example_is_what_the_code_writes_and_reads() {
    let current = Current {
        generation: 2,
        checkpoint: 17,
        applied: 1040,
        acknowledged: 1021,
        barrier: 998,
    };
    let directory = tempdir().expect("temporary directory");
    current.store(directory.path()).expect("stores");
    let stored = fs::read_to_string(directory.path().join("CURRENT")).expect("reads");
    let text = include_str!("../../../docs/log-format.md");
    assert!(text.contains(&stored), "{stored}");
    assert_eq!(
        Current::load(directory.path()).expect("loads"),
        Some(current)
    );
}

#[test]
fn a_payload_that_looks_like_a_proof_is_none() {
    // A torn call whose payload holds the bytes of a later record must be cut off, not refused.
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    log.append(&[b"first"]).expect("appends");
    let path = segment::path(directory.path(), 1);
    let end = fs::metadata(&path).expect("there").len();
    let forged = record::Header {
        length: 1,
        sequence: 3,
        time_ms: 0,
        synced: end + 1,
        index: 0,
        left: 0,
    };
    let at = end + record::HEADER_BYTES;
    for seed in [0, 1] {
        let mut payload = forged.encode(seed, at, b"x").to_vec();
        payload.extend(iter::repeat_n(b'x', 9));
        log.append(&[payload]).expect("appends");
        drop(log);
        let mut bytes = fs::read(&path).expect("reads");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).expect("writes");
        let report;
        (log, report) = Log::open(directory.path(), LogOptions::default()).expect("opens");
        assert_eq!(report.torn.expect("a torn tail").offset, end);
        assert_eq!(contents(&log).len(), 1);
    }
}

#[test]
fn a_follower_never_sees_a_call_that_is_taken_back() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    log.append(&[b"first"]).expect("appends");
    log.append(&[b"again"]).expect("appends");
    let mut follower = follow(directory.path(), 0);
    let mut poll = || -> Vec<_> {
        let records = follower.by_ref().map(|record| record.expect("reads"));
        records.map(|record| record.payload).collect()
    };
    assert_eq!(poll(), [b"first"]);
    log.truncate_after(1).expect("cuts");
    // As long as what was there: the same offsets, the same sequences.
    log.append(&[b"other"]).expect("appends");
    assert!(poll().is_empty());
    faults::fail_after(1, false);
    log.append(&[b"never"]).expect_err("its fsync fails");
    assert!(poll().is_empty());
    let (mut log, _) = Log::open(directory.path(), LogOptions::default()).expect("opens");
    log.append(&[b"third"]).expect("appends");
    log.append(&[b"forth"]).expect("appends");
    assert_eq!(poll(), [b"other", b"third"]);
}

#[test]
fn a_follower_that_is_told_what_returned_sees_all_of_that_and_nothing_else() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("opens");
    let mut follower = follow(directory.path(), 1);
    let mut poll = |returned: u64| -> Vec<_> {
        follower.has_returned(returned);
        let records = follower.by_ref().map(|record| record.expect("reads"));
        records.map(|record| record.payload).collect()
    };
    log.append(&[b"first", b"again"]).expect("appends");
    assert_eq!(poll(2), [b"first", b"again"]);
    // The last call too, as soon as it has returned; another has begun before that.
    log.append(&[b"third"]).expect("appends");
    log.append(&[b"forth"]).expect("appends");
    assert_eq!(poll(3), [b"third"]);
    assert!(poll(3).is_empty());
    // What is taken back was never seen, also in a segment of its own.
    log.truncate_after(3).expect("cuts");
    log.append(&[b"other"]).expect("appends");
    assert_eq!(poll(4), [b"other"]);
    let large = vec![7; usize::try_from(MIN_SEGMENT_BYTES).expect("fits")];
    log.append(&[&large]).expect("appends");
    log.append(&[b"sixth"]).expect("appends");
    log.append(&[b"never"]).expect("appends");
    assert_eq!(poll(6), [large, b"sixth".to_vec()]);
    log.truncate_after(6).expect("cuts");
    log.append(&[b"eight"]).expect("appends");
    assert_eq!(poll(7), [b"eight"]);
}

/// What the follower has not seen begins a segment: nothing is missing.
#[test]
fn a_follower_outlives_a_segment_that_is_reclaimed_after_it_was_read() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("opens");
    log.append(&[b"first"]).expect("appends");
    log.append(&[b"again"]).expect("appends");
    let mut follower = follow(directory.path(), 0);
    let seen = follower.next().expect("is visible").expect("reads");
    assert_eq!(seen.payload, b"first");
    assert!(follower.next().is_none());

    log.truncate_after(1).expect("cuts");
    let large = vec![7; usize::try_from(MIN_SEGMENT_BYTES).expect("fits")];
    log.append(&[&large]).expect("appends");
    log.append(&[b"third"]).expect("appends");
    log.reclaim(1).expect("reclaims");
    assert_eq!(log.first(), 2);
    let seen = follower.next().expect("is visible").expect("reads");
    assert_eq!(seen.payload, large);
}

/// File systems fill the rest of a block with zeros when a file is cut, and that may be durable
/// when the new length is not.
#[test]
fn a_power_cut_while_calls_are_removed_leaves_no_damage() {
    const SECTOR: usize = 512;
    let mut lengths: Vec<usize> = Vec::new();
    for stop in 0.. {
        let directory = tempdir().expect("temporary directory");
        let (mut log, _) = Log::open(directory.path(), options(Durability::Always)).expect("opens");
        for call in 0..6_u8 {
            let payloads = [vec![call; 100], vec![call; 300 * usize::from(call)]];
            log.append(&payloads).expect("appends");
        }
        let path = segment::path(directory.path(), 1);
        let whole = fs::read(&path).expect("reads");
        faults::fail_after(stop, true);
        let finished = log.truncate_after(4).is_ok();
        faults::clear();
        if finished {
            assert_eq!(log.last(), 4);
            assert!(lengths.len() > 3, "it was cut at once");
            break;
        }
        let cut = fs::read(&path).expect("reads").len();
        if lengths.last() != Some(&cut) {
            lengths.push(cut);
        }
        // The cut before this one was synced.
        let before = lengths
            .len()
            .checked_sub(2)
            .map_or(whole.len(), |at| lengths[at]);
        let zeroed_to = [cut, cut.next_multiple_of(SECTOR), before];
        for zeroed_to in zeroed_to.map(|end| end.min(before)) {
            let mut bytes = whole[..before].to_vec();
            bytes[cut..zeroed_to].fill(0);
            fs::write(&path, &bytes).expect("writes");
            let (log, _) = Log::open(directory.path(), options(Durability::Always))
                .unwrap_or_else(|error| panic!("cut at {cut}, zeros to {zeroed_to}: {error}"));
            assert!(log.last() >= 4, "more than was asked for is gone");
        }
    }
}

#[test]
fn what_is_in_force_is_made_to_stay_before_it_is_relied_on() {
    let directory = tempdir().expect("temporary directory");
    let current = Current {
        generation: 1,
        ..Current::default()
    };
    current.store(directory.path()).expect("stores");
    faults::fail_after(0, false);
    let recovered = Current::recover(directory.path());
    faults::clear();
    assert!(matches!(recovered, Err(Error::Io { .. })), "{recovered:?}");
    let recovered = Current::recover(directory.path()).expect("recovers");
    assert_eq!(recovered, Some(current));
}

#[test]
fn several_are_rejected_and_removed_as_a_whole_at_every_step() {
    const COMPACT_BYTES: u64 = 600;
    let all: BTreeSet<u64> = (1..=12).collect();
    let some: Vec<u64> = (1..=8).collect();
    let rest: BTreeSet<u64> = (9..=12).collect();
    let listed = |rejected: &Rejected| -> BTreeSet<u64> {
        let list = rejected.list().expect("lists");
        assert!(list.iter().all(|entry| *entry == operation(entry.sequence)));
        list.iter().map(|entry| entry.sequence).collect()
    };
    for step in 0.. {
        let directory = tempdir().expect("temporary directory");
        let operations: Vec<_> = all.iter().map(|at| operation(*at)).collect();
        let before = faults::steps();
        faults::fail_after(step, true);
        let (mut added, mut removed) = (false, false);
        if let Ok((mut rejected, _)) = Rejected::open_with(directory.path(), words, COMPACT_BYTES) {
            added = rejected.add_all(&operations).is_ok();
            if added {
                removed = rejected.remove_all(&some).is_ok_and(|count| count == 8);
            }
        }
        let taken = faults::steps() - before;
        faults::clear();
        // Whoever looks in beside the owner sees what the owner will find, and changes nothing.
        let seen = RejectedView::look(directory.path(), u64::MAX - 1, words).expect("looks");
        let seen: BTreeSet<u64> = (seen.page(0, 100, u64::MAX).expect("reads").iter())
            .map(|entry| entry.sequence)
            .collect();
        let (rejected, _) =
            Rejected::open_with(directory.path(), words, COMPACT_BYTES).expect("opens");
        let found = listed(&rejected);
        assert_eq!(seen, found, "at step {step}");
        let whole = [BTreeSet::new(), all.clone(), rest.clone()];
        assert!(whole.contains(&found), "{found:?} at step {step}");
        if removed {
            assert_eq!(found, rest);
        } else if added {
            assert!(!found.is_empty());
        }
        if taken <= step {
            assert!(removed);
            break;
        }
    }
}

#[test]
fn a_page_of_the_rejected_log_is_as_long_as_asked() {
    let directory = tempdir().expect("temporary directory");
    let (mut rejected, _) = Rejected::open(directory.path(), words).expect("opens");
    let operations: Vec<_> = (1..=200).map(operation).collect();
    rejected.add_all(&operations).expect("adds");
    // Out of the file's order, and with gaps of all lengths.
    rejected.add(&operation(3)).expect("adds");
    rejected
        .remove_all(&(20..=150).collect::<Vec<_>>())
        .expect("removes");
    let sequences = |after, limit, bytes| -> Vec<u64> {
        let page = rejected.page(after, limit, bytes).expect("reads");
        assert!(page.iter().all(|entry| *entry == operation(entry.sequence)));
        page.iter().map(|entry| entry.sequence).collect()
    };
    assert_eq!(sequences(0, 4, u64::MAX), [1, 2, 3, 4]);
    assert_eq!(sequences(18, 3, u64::MAX), [19, 151, 152]);
    assert_eq!(sequences(198, 9, u64::MAX), [199, 200]);
    assert_eq!(sequences(200, 9, u64::MAX), [0; 0]);
    assert_eq!(sequences(0, 0, u64::MAX), [0; 0]);
    // An entry has some 150 bytes.
    assert_eq!(sequences(4, 9, 0), [5]);
    assert_eq!(sequences(4, 9, 320), [5, 6]);
    assert_eq!(
        rejected.page(0, u32::MAX, u64::MAX).expect("reads").len(),
        69
    );
}

/// Words up to a digit are one saying, but for those about a point.
fn words(message: &str) -> Option<u64> {
    let says = message.split(|c: char| c.is_ascii_digit()).next()?;
    (!says.starts_with("No point")).then(|| says.bytes().map(u64::from).sum())
}

#[test]
fn refusals_in_a_row_are_neighbours_in_the_words_of_the_last_one() {
    let directory = tempdir().expect("temporary directory");
    let (mut rejected, _) = Rejected::open(directory.path(), words).expect("opens");
    let refused = |sequence, message: &str| RejectedOperation {
        message: message.to_owned(),
        status: if message == SKIPPED_BY_HAND { 0 } else { 400 },
        ..operation(sequence)
    };
    let mut count = |sequence, message: &str| {
        rejected.add(&refused(sequence, message)).expect("adds");
        let seen = RejectedView::look(directory.path(), sequence, words).expect("looks");
        let seen = seen.refusals(sequence).expect("reads");
        let refusals = rejected.refusals(sequence).expect("reads");
        assert_eq!(seen, refusals);
        if refusals.in_a_row > 0 && words(message).is_some() {
            assert_eq!((&*refusals.words, refusals.status), (message, 400));
        }
        refusals.in_a_row
    };
    assert_eq!(count(2, "Limit 2 reached"), 1);
    assert_eq!(count(3, "Limit 3 reached"), 2);
    assert_eq!(count(4, "Shard key not specified"), 1);
    assert_eq!(count(5, "Limit 5 reached"), 3);
    // 6 was taken.
    assert_eq!(count(7, "Shard key not specified"), 1);
    assert_eq!(count(8, SKIPPED_BY_HAND), 0);
    assert_eq!(count(9, "Shard key not specified"), 1);
    // 10 was taken.
    let refusals = |rejected: &Rejected, at| rejected.refusals(at).expect("reads");
    assert_eq!(refusals(&rejected, 10), Refusals::default());
    // What is beyond the acknowledged position is undecided.
    let seen = RejectedView::look(directory.path(), 5, words).expect("looks");
    assert_eq!(
        (seen.len(), seen.refusals(5).expect("reads").in_a_row),
        (4, 3)
    );
    assert_eq!(seen.refusals(5).expect("reads").words, "Limit 5 reached");
    rejected.remove(9).expect("removes");
    assert_eq!(refusals(&rejected, 9), Refusals::default());
    // A new point and the change to it are refused in turn.
    for sequence in 21..=30 {
        let message = match sequence % 2 {
            0 => format!("No point with id {sequence} found"),
            _ => format!("Limit {sequence} reached"),
        };
        rejected.add(&refused(sequence, &message)).expect("adds");
        let row = refusals(&rejected, sequence);
        assert_eq!(u64::from(row.in_a_row), (sequence - 19) / 2);
        assert_eq!(
            row.words,
            format!("Limit {} reached", (sequence - 1) / 2 * 2 + 1)
        );
        let seen = RejectedView::look(directory.path(), sequence, words).expect("looks");
        assert_eq!(seen.refusals(sequence).expect("reads"), row);
    }
    let (rejected, _) = Rejected::open(directory.path(), words).expect("opens");
    assert_eq!(refusals(&rejected, 5).in_a_row, 3);
    assert_eq!(refusals(&rejected, 30).in_a_row, 5);
}

#[test]
fn a_view_sees_whole_calls_and_changes_nothing() {
    let directory = tempdir().expect("temporary directory");
    let none = View::look(&directory.path().join("none")).expect("looks");
    assert_eq!((none.first(), none.last()), (1, 0));
    let options = LogOptions {
        segment_bytes: MIN_SEGMENT_BYTES,
        ..LogOptions::default()
    };
    let (mut log, _) = Log::open(directory.path(), options).expect("opens");
    for n in 0..40_u8 {
        log.append(&[vec![n; 300], vec![n; 10]]).expect("appends");
        let view = View::look(directory.path()).expect("looks");
        assert_eq!((view.first(), view.last()), (log.first(), log.last()));
        for from in [0, 1, log.last() / 2, log.last()] {
            assert_eq!(
                view.bytes_after(from).expect("counts"),
                log.bytes_after(from).expect("counts")
            );
            assert_eq!(
                view.time_of(from).expect("reads"),
                log.time_of(from).expect("reads")
            );
            if from >= view.first() {
                let seen: Result<Vec<_>, _> = view.read(from).collect();
                let there: Result<Vec<_>, _> = log.read(from).collect();
                assert_eq!(seen.expect("reads"), there.expect("reads"));
            }
        }
        if n == 25 {
            log.reclaim(30).expect("reclaims");
            assert!(log.first() > 1);
        }
    }
    // A call of which only some is written.
    let last = fs::read_dir(directory.path())
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .max()
        .expect("a segment");
    let bytes = fs::read(&last).expect("reads");
    let whole = log.last();
    for cut in 1..200 {
        fs::write(&last, &bytes[..bytes.len() - cut]).expect("writes");
        let view = View::look(directory.path()).expect("looks");
        assert_eq!(view.last(), whole - 2);
        assert_eq!(fs::read(&last).expect("reads").len(), bytes.len() - cut);
    }
}
