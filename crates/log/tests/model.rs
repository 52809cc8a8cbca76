//! Random lives of a log, with power cuts, against a plain list of what was appended.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_sync_log::{Durability, Error, Follower, Log, LogOptions, Record, follow};
use proptest::prelude::*;
use tempfile::tempdir;

const HEADER: u64 = 48;
const RECORD: u64 = 40;
const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<usize>),
    Sync,
    Reopen,
    /// The power fails: what was not synced is damaged as the number says.
    PowerCut(u64),
    /// The power fails before this call returns.
    PowerCutInAppend(Vec<usize>, u64),
    /// Reclaims up to this part (of 256) of the records.
    Reclaim(u8),
    /// Takes the last call back.
    TakeBack,
    Restart(u64),
    Follow,
    /// Reads from this part (of 256) of the records.
    Read(u8),
}

fn lengths() -> impl Strategy<Value = Vec<usize>> {
    let length = prop_oneof![4 => 0..80_usize, 2 => 0..1500_usize, 1 => 4000..9000_usize];
    prop_oneof![
        4 => prop::collection::vec(length.clone(), 1..2),
        3 => prop::collection::vec(length, 0..6),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => lengths().prop_map(Step::Append),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
        2 => any::<u64>().prop_map(Step::PowerCut),
        2 => (lengths(), any::<u64>()).prop_map(|(lengths, seed)| Step::PowerCutInAppend(lengths, seed)),
        2 => any::<u8>().prop_map(Step::Reclaim),
        1 => Just(Step::TakeBack),
        1 => (0..4_u64).prop_map(Step::Restart),
        3 => Just(Step::Follow),
        2 => any::<u8>().prop_map(Step::Read),
    ]
}

fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![
        Just(Durability::Always),
        Just(Durability::Os),
        Just(Durability::Interval(Duration::ZERO)),
        Just(Durability::Interval(Duration::MAX)),
    ]
}

/// A small generator, so that one number decides all of a power cut.
struct Noise(u64);

impl Noise {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) as usize % limit
    }
}

struct World {
    directory: PathBuf,
    options: LogOptions,
    log: Log,
    /// What the log holds, by sequence.
    records: BTreeMap<u64, Vec<u8>>,
    /// The calls, as far as they are in the log.
    calls: Vec<Range<u64>>,
    /// The oldest sequence that must still be there.
    kept: u64,
    /// The active segment and how much of it is durable; the sequence after that.
    durable: (PathBuf, u64, u64),
    follower: Follower,
    /// Everything that the follower saw since it was made.
    followed: BTreeMap<u64, Vec<u8>>,
    fill: u8,
}

impl World {
    fn new(directory: &Path, durability: Durability) -> Self {
        let options = LogOptions {
            durability,
            segment_bytes: 4096,
            durable_to: 0,
        };
        let (log, _) = Log::open(directory, options).expect("opens");
        let mut world = Self {
            follower: follow(directory, 0),
            directory: directory.to_path_buf(),
            options,
            log,
            records: BTreeMap::new(),
            calls: Vec::new(),
            kept: 1,
            durable: (PathBuf::new(), 0, 1),
            followed: BTreeMap::new(),
            fill: 0,
        };
        world.note_durable();
        world
    }

    fn active(&self) -> PathBuf {
        let files = fs::read_dir(&self.directory).expect("lists");
        files
            .map(|entry| entry.expect("lists").path())
            .max()
            .expect("a segment")
    }

    fn note_durable(&mut self) {
        let active = self.active();
        if self.log.is_synced() {
            let len = fs::metadata(&active).expect("is there").len();
            self.durable = (active, len, self.log.next());
        } else if active != self.durable.0 {
            let name = active
                .file_stem()
                .and_then(|name| name.to_str())
                .expect("a name");
            let first = name.parse().expect("a number");
            self.durable = (active, HEADER, first);
        }
    }

    fn append(&mut self, lengths: &[usize]) {
        let payloads: Vec<_> = lengths
            .iter()
            .map(|length| {
                self.fill = self.fill.wrapping_add(1);
                vec![self.fill; *length]
            })
            .collect();
        let sequences = self.log.append(&payloads).expect("appends");
        assert_eq!(sequences.end - sequences.start, payloads.len() as u64);
        self.records.extend(sequences.clone().zip(payloads));
        if !sequences.is_empty() {
            self.calls.push(sequences);
        }
    }

    /// Loses and tears what was not synced, and opens what is left.
    fn power_cut(&mut self, seed: u64) {
        let (file, durable, next) = self.durable.clone();
        assert_eq!(file, self.active());
        let mut noise = Noise(seed);
        let mut bytes = fs::read(&file).expect("reads");
        let durable = durable as usize;
        if noise.below(2) == 0 {
            bytes.truncate(durable + noise.below(bytes.len() - durable + 1));
        }
        let mut at = durable;
        while at < bytes.len() {
            let end = bytes.len().min((at / SECTOR + 1) * SECTOR);
            match noise.below(3) {
                0 => bytes[at..end].fill(0),
                1 => bytes[at..end].fill_with(|| noise.below(256) as u8),
                _ => {}
            }
            at = end;
        }
        fs::write(&file, bytes).expect("writes");
        self.reopen(next);
        // Whoever followed was on the same machine.
        self.refollow();
    }

    /// Opens the log again. Everything before `durable` must be there, and the rest may be, in
    /// whole calls.
    fn reopen(&mut self, durable: u64) {
        let (log, report) = Log::open(&self.directory, self.options).expect("opens");
        self.log = log;
        let next = self.log.next();
        assert!(next >= durable, "lost what was durable: {next} {durable}");
        assert!(report.leftovers.is_empty(), "{report:?}");
        self.calls.retain(|call| call.start < next);
        self.records.retain(|sequence, _| *sequence < next);
        assert!(
            self.calls.iter().all(|call| call.end <= next),
            "a call was torn apart"
        );
        self.note_durable();
    }

    fn refollow(&mut self) {
        self.follower = follow(&self.directory, 0);
        self.followed.clear();
    }

    fn run(&mut self, step: Step) {
        match step {
            Step::Append(lengths) => self.append(&lengths),
            Step::Sync => {
                self.log.sync().expect("syncs");
                assert!(self.log.is_synced());
            }
            Step::Reopen => self.reopen(self.log.next()),
            Step::PowerCut(seed) => self.power_cut(seed),
            Step::PowerCutInAppend(lengths, seed) => {
                let before = self.durable.clone();
                self.append(&lengths);
                if self.active() == before.0 {
                    self.durable = before;
                } else {
                    // A new segment is durable before it gets records.
                    let first = self.calls.last().map_or(1, |call| call.start);
                    self.durable = (self.active(), HEADER, first);
                }
                self.power_cut(seed);
            }
            Step::Reclaim(part) => {
                let up_to = self.part(part);
                self.log.reclaim(up_to).expect("reclaims");
                self.kept = self.kept.max(up_to + 1);
            }
            Step::TakeBack => {
                if let Some(call) = self.calls.last().cloned()
                    && call.start >= self.log.first()
                    && !self.followed.contains_key(&call.start)
                {
                    if call.end - call.start > 1 {
                        let error = self.log.truncate_after(call.start).expect_err("inside");
                        assert!(matches!(error, Error::InsideCall { .. }), "{error}");
                    }
                    self.log.truncate_after(call.start - 1).expect("cuts");
                    self.calls.pop();
                    self.records.retain(|sequence, _| *sequence < call.start);
                    self.durable = (PathBuf::new(), 0, 0);
                }
            }
            Step::Restart(skip) => {
                let next = self.log.next() + skip;
                self.log.restart(next).expect("restarts");
                self.kept = next;
                self.records.clear();
                self.calls.clear();
            }
            Step::Follow => self.follow(),
            Step::Read(part) => self.read(part),
        }
        if !matches!(self.durable, (_, 0, 0)) || self.log.is_synced() {
            self.note_durable();
        }
    }

    fn part(&self, part: u8) -> u64 {
        let first = self.log.first();
        first + (self.log.next() - first) * u64::from(part) / 256
    }

    fn follow(&mut self) {
        loop {
            match self.follower.next() {
                None => break,
                Some(Ok(record)) => {
                    if let Some((last, _)) = self.followed.last_key_value() {
                        assert_eq!(record.sequence, last + 1, "a gap");
                    }
                    let Record {
                        sequence, payload, ..
                    } = record;
                    assert_eq!(Some(&payload), self.records.get(&sequence));
                    if self
                        .calls
                        .last()
                        .is_some_and(|call| call.contains(&sequence))
                    {
                        let active = fs::metadata(self.active()).expect("is there").len();
                        assert_eq!(active, HEADER, "nothing shows that the call stays");
                    }
                    self.followed.insert(sequence, payload);
                }
                Some(Err(Error::Reclaimed { .. })) => self.refollow(),
                Some(Err(error)) => panic!("{error}"),
            }
        }
        // Only the last call may be missing.
        if let [.., before_last, _] = &self.calls[..]
            && before_last.end > self.log.first()
        {
            let last = self
                .followed
                .last_key_value()
                .map(|(sequence, _)| *sequence);
            assert!(
                last >= Some(before_last.end - 1),
                "{last:?} {before_last:?}"
            );
        }
    }

    fn read(&self, part: u8) {
        let from = self.part(part);
        let read: Vec<_> = self
            .log
            .read(from)
            .map(|record| record.expect("reads"))
            .collect();
        let expected = self.records.range(from..);
        let found = read
            .iter()
            .map(|record| (&record.sequence, &record.payload));
        assert!(found.eq(expected), "read from {from}");

        let expected = self.records.range(from + 1..);
        assert_eq!(
            self.log.records_after(from),
            expected.clone().count() as u64
        );
        let bytes: u64 = expected
            .map(|(_, payload)| RECORD + payload.len() as u64)
            .sum();
        assert_eq!(self.log.bytes_after(from).expect("counts"), bytes);
        let time = self.log.time_of(from).expect("reads");
        assert_eq!(time, read.first().map(|record| record.time_ms));
    }

    /// What holds at all times.
    fn check(&mut self) {
        let first = self.log.first();
        assert!(
            first <= self.kept,
            "reclaimed too much: {first} {}",
            self.kept
        );
        self.records.retain(|sequence, _| *sequence >= first);
        self.calls.retain(|call| call.end > first);
        assert_eq!(self.log.records_after(0), self.records.len() as u64);
        assert_eq!(self.log.next(), self.log.last() + 1);
        if first > 1 {
            let refused = self.log.read(first - 1).next();
            assert!(
                matches!(refused, Some(Err(Error::Reclaimed { .. }))),
                "{refused:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(96)
    ))]

    #[test]
    fn a_log_is_what_was_appended(
        durability in durability(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let directory = tempdir()?;
        let mut world = World::new(directory.path(), durability);
        for step in steps {
            world.run(step);
            world.check();
        }
        world.read(0);
        world.reopen(world.log.next());
        world.read(0);
        world.follow();
    }

    #[test]
    fn no_file_makes_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        cut in 0..200_usize,
        prefix in any::<bool>(),
    ) {
        let directory = tempdir()?;
        let (mut log, _) = Log::open(directory.path(), LogOptions::default())?;
        log.append(&["a", "b"])?;
        let file = directory.path().join("00000000000000000001.log");
        let mut content = if prefix { fs::read(&file)? } else { Vec::new() };
        content.truncate(content.len().min(cut));
        content.extend(bytes);
        fs::write(&file, content)?;
        for record in follow(directory.path(), 0) {
            if record.is_err() {
                break;
            }
        }
        if let Ok((log, _)) = Log::open(directory.path(), LogOptions::default()) {
            prop_assert!(log.read(0).all(|record| record.is_ok()));
        }
    }
}

#[test]
fn a_follower_beside_a_writer_sees_every_call_once_and_in_order() {
    const CALLS: u64 = 400;
    let directory = tempdir().expect("temporary directory");
    let options = LogOptions {
        durability: Durability::Os,
        segment_bytes: 4096,
        ..LogOptions::default()
    };
    let (mut log, _) = Log::open(directory.path(), options).expect("opens");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for call in 0..CALLS {
                let payloads = vec![call.to_le_bytes().repeat(10); call as usize % 5 + 1];
                log.append(&payloads).expect("appends");
            }
        });
        let mut follower = follow(directory.path(), 1);
        let mut expected = 1;
        let mut seen = Vec::new();
        while seen.last() != Some(&(CALLS - 2)) {
            for record in follower.by_ref() {
                let record = record.expect("reads");
                assert_eq!(record.sequence, expected);
                expected += 1;
                let call = record
                    .payload
                    .first_chunk()
                    .copied()
                    .map(u64::from_le_bytes);
                seen.extend(call);
            }
        }
        let all = (0..CALLS - 1).flat_map(|call| (0..call % 5 + 1).map(move |_| call));
        assert!(all.eq(seen));
    });
}

#[test]
fn a_long_queue_is_read_in_batches_without_scanning_it_again() {
    let directory = tempdir().expect("temporary directory");
    let options = LogOptions {
        durability: Durability::Os,
        ..LogOptions::default()
    };
    let (mut log, _) = Log::open(directory.path(), options).expect("opens");
    let count = 20_000_u64;
    for call in 0..count / 100 {
        log.append(&vec![[call as u8; 2000]; 100]).expect("appends");
    }
    // Once with the index made while appending, once with the one made when it is needed.
    for _ in 0..2 {
        let mut from = 1;
        while from <= count {
            let batch: Vec<_> = log
                .read(from)
                .take(10)
                .map(|record| record.expect("reads"))
                .collect();
            assert_eq!(batch[0].sequence, from);
            assert_eq!(log.records_after(from - 1), count + 1 - from);
            assert_eq!(
                log.bytes_after(from - 1).expect("counts"),
                (count + 1 - from) * 2040
            );
            from += 997;
        }
        log = Log::open(directory.path(), options).expect("opens").0;
    }
}
