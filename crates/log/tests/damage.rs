//! What opening and reading make of files that were cut, zeroed or changed, at every byte.

use std::fs;
use std::path::{Path, PathBuf};

use edge_sync_log::{Durability, Error, Log, LogOptions, OpenReport, Record, follow};
use tempfile::tempdir;

const HEADER: usize = 48;
const RECORD: usize = 40;

/// Payloads of the calls that the tests' log holds.
const CALLS: [&[&str]; 4] = [
    &["one"],
    &["two", "three", "four"],
    &["five", ""],
    &["seven"],
];

/// A log of one segment, and where each call ends.
fn write_log(directory: &Path, durability: Durability) -> (PathBuf, Vec<usize>) {
    let (mut log, _) = open(directory, durability).expect("opens");
    let mut ends = vec![HEADER];
    for call in CALLS {
        log.append(call).expect("appends");
        let bytes: usize = call.iter().map(|payload| RECORD + payload.len()).sum();
        ends.push(ends[ends.len() - 1] + bytes);
    }
    let file = directory.join("00000000000000000001.log");
    assert_eq!(fs::read(&file).expect("reads").len(), ends[CALLS.len()]);
    (file, ends)
}

fn open(directory: &Path, durability: Durability) -> edge_sync_log::Result<(Log, OpenReport)> {
    let options = LogOptions {
        durability,
        ..LogOptions::default()
    };
    Log::open(directory, options)
}

fn read(log: &Log) -> edge_sync_log::Result<Vec<Record>> {
    log.read(0).collect()
}

/// Checks that the log holds the first `calls` calls.
fn assert_holds(log: &Log, calls: usize, context: &str) {
    let expected: Vec<_> = CALLS[..calls].concat();
    let found = read(log).expect("reads");
    let found: Vec<_> = found
        .iter()
        .map(|record| record.payload.as_slice())
        .collect();
    assert!(
        expected
            .iter()
            .map(|text| text.as_bytes())
            .eq(found.iter().copied()),
        "{context}"
    );
    assert_eq!(log.last(), expected.len() as u64, "{context}");
}

/// The whole calls that end at or before `byte`.
fn calls_before(ends: &[usize], byte: usize) -> usize {
    ends.iter().filter(|end| **end <= byte).count() - 1
}

#[test]
fn a_file_cut_anywhere_keeps_its_whole_calls() {
    let directory = tempdir().expect("temporary directory");
    let (file, ends) = write_log(directory.path(), Durability::Always);
    let bytes = fs::read(&file).expect("reads");
    for cut in HEADER..=bytes.len() {
        fs::write(&file, &bytes[..cut]).expect("writes");
        let (mut log, report) = open(directory.path(), Durability::Always).expect("opens");
        let calls = calls_before(&ends, cut);
        assert_holds(&log, calls, &format!("cut at {cut}"));
        match report.torn {
            None => assert_eq!(cut, ends[calls]),
            Some(torn) => {
                assert_eq!(torn.file, file);
                assert_eq!(torn.offset, ends[calls] as u64);
                assert_eq!(torn.bytes, (cut - ends[calls]) as u64);
                assert!(torn.bytes > 0);
            }
        }
        log.append(&["more"]).expect("appends");
        let (log, report) = open(directory.path(), Durability::Always).expect("opens");
        assert_eq!(report, OpenReport::default());
        assert_eq!(read(&log).expect("reads").len() as u64, log.last());
    }
}

#[test]
fn a_first_segment_without_its_header_is_begun_again_only_if_it_had_no_records() {
    let directory = tempdir().expect("temporary directory");
    let (file, _) = write_log(directory.path(), Durability::Always);
    let bytes = fs::read(&file).expect("reads");
    for cut in 0..HEADER {
        for zeros in [0, HEADER - cut, HEADER + 1 - cut] {
            let mut left = bytes[..cut].to_vec();
            left.resize(cut + zeros, 0);
            fs::write(&file, &left).expect("writes");
            let opened = open(directory.path(), Durability::Always);
            if left.len() >= HEADER && left[..HEADER] == bytes[..HEADER] {
                opened.expect("zeros that were zeros");
            } else if left.len() > HEADER {
                assert!(
                    matches!(opened, Err(Error::Corrupt { offset: 0, .. })),
                    "{opened:?}"
                );
                assert_eq!(fs::read(&file).expect("reads"), left);
            } else {
                let (mut log, report) = opened.expect("opens");
                assert_eq!(report.leftovers, std::slice::from_ref(&file));
                assert_eq!(log.append(&["x"]).expect("appends"), 1..2);
            }
        }
    }
}

#[test]
fn a_changed_byte_is_an_error_unless_only_a_crash_can_be_ruled_in() {
    for durability in [Durability::Always, Durability::Os] {
        let directory = tempdir().expect("temporary directory");
        let (file, ends) = write_log(directory.path(), durability);
        let bytes = fs::read(&file).expect("reads");
        for at in 0..bytes.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= mask;
                fs::write(&file, &changed).expect("writes");
                let context = format!("{durability:?}, byte {at} xor {mask}");
                let opened = open(directory.path(), durability);
                if at < HEADER {
                    match opened.expect_err(&context) {
                        Error::Corrupt { offset: 0, .. } => {}
                        Error::UnknownVersion { .. } => assert!((8..12).contains(&at)),
                        other => panic!("{context}: {other}"),
                    }
                    assert_eq!(fs::read(&file).expect("reads"), changed, "{context}");
                    continue;
                }
                let call = calls_before(&ends, at);
                // Without an fsync between the calls, each of them may be what a crash left.
                if call + 1 < CALLS.len() && durability == Durability::Always {
                    match opened.expect_err(&context) {
                        Error::Corrupt {
                            file: found,
                            offset,
                            ..
                        } => {
                            assert_eq!(found, file);
                            let offset = offset as usize;
                            assert!((ends[call]..=at).contains(&offset), "{context}: {offset}");
                        }
                        other => panic!("{context}: {other}"),
                    }
                    assert_eq!(fs::read(&file).expect("reads"), changed, "{context}");
                } else {
                    let (log, report) = opened.expect(&context);
                    assert_holds(&log, call, &context);
                    let torn = report.torn.expect(&context);
                    assert_eq!(torn.bytes, (bytes.len() - ends[call]) as u64);
                }
            }
        }
    }
}

#[test]
fn a_lost_stretch_is_damage_exactly_if_a_later_call_proves_it() {
    let directory = tempdir().expect("temporary directory");
    let (file, ends) = write_log(directory.path(), Durability::Always);
    let bytes = fs::read(&file).expect("reads");
    // Opening syncs, and all stretches would take minutes.
    for from in (HEADER..bytes.len()).step_by(7) {
        for to in (from + 1..=bytes.len()).step_by(11) {
            let mut changed = bytes.clone();
            changed[from..to].fill(0);
            if changed == bytes {
                continue;
            }
            fs::write(&file, &changed).expect("writes");
            let first_changed = (from..to).find(|at| bytes[*at] != 0).expect("one changed");
            let last_changed = (from..to).rfind(|at| bytes[*at] != 0).expect("one changed");
            let lost = calls_before(&ends, first_changed);
            // Any record of a later call will do, even one of a call that is not whole.
            let mut start = 0;
            let mut survives = false;
            for (call, payloads) in CALLS.iter().enumerate() {
                for payload in *payloads {
                    let begin = HEADER + start;
                    let end = begin + RECORD + payload.len();
                    start += RECORD + payload.len();
                    survives |= call > lost && bytes[begin..end] == changed[begin..end];
                }
            }
            let context = format!("zeroed {from}..{to}, {last_changed}");
            match open(directory.path(), Durability::Always) {
                Err(Error::Corrupt { offset, .. }) => {
                    assert!(survives, "{context}");
                    assert!(offset as usize <= first_changed, "{context}");
                    assert_eq!(fs::read(&file).expect("reads"), changed, "{context}");
                }
                Err(other) => panic!("{context}: {other}"),
                Ok((log, _)) => {
                    assert!(!survives, "{context}");
                    assert_holds(&log, lost, &context);
                }
            }
        }
    }
}

#[test]
fn an_end_before_what_was_known_to_be_durable_is_damage() {
    let directory = tempdir().expect("temporary directory");
    let (file, ends) = write_log(directory.path(), Durability::Always);
    let bytes = fs::read(&file).expect("reads");
    let options = |durable_to| LogOptions {
        durable_to,
        ..LogOptions::default()
    };
    Log::open(directory.path(), options(7)).expect("all of it is there");
    let cut = &bytes[..bytes.len() - 1];
    fs::write(&file, cut).expect("writes");
    let error = Log::open(directory.path(), options(7)).expect_err("a record is missing");
    let end = ends[3] as u64;
    assert!(
        matches!(error, Error::Corrupt { offset, .. } if offset == end),
        "{error}"
    );
    assert_eq!(fs::read(&file).expect("reads"), cut);
    let (log, report) = Log::open(directory.path(), options(6)).expect("a torn call");
    assert!(report.torn.is_some());
    assert_holds(&log, 3, "torn");

    let empty = tempdir().expect("temporary directory");
    let error = Log::open(empty.path(), options(1)).expect_err("the log is gone");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

/// A log of several segments: their files.
fn write_segments(directory: &Path) -> Vec<PathBuf> {
    let options = LogOptions {
        segment_bytes: 4096,
        ..LogOptions::default()
    };
    let (mut log, _) = Log::open(directory, options).expect("opens");
    for fill in 0..12 {
        log.append(&[[fill; 1000], [fill; 1000]]).expect("appends");
    }
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("lists")
        .map(|entry| entry.expect("lists").path())
        .collect();
    files.sort();
    assert!(files.len() > 3);
    files
}

#[test]
fn damage_in_a_closed_segment_is_an_error_when_it_is_read() {
    let directory = tempdir().expect("temporary directory");
    let files = write_segments(directory.path());
    let bytes = fs::read(&files[1]).expect("reads");
    for at in (HEADER..bytes.len()).step_by(37) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        fs::write(&files[1], &changed).expect("writes");
        let (log, report) = open(directory.path(), Durability::Always).expect("opens");
        assert_eq!(report, OpenReport::default());
        let mut before = 0;
        let failure = log.read(0).find_map(|record| {
            before += 1;
            record.err()
        });
        match failure.expect("is noticed") {
            Error::Corrupt { file, offset, .. } => {
                assert_eq!(file, files[1]);
                assert!(offset as usize <= at && at < offset as usize + RECORD + 1000);
            }
            other => panic!("{other}"),
        }
        assert!(before > 1, "the records before it can be read");
        assert_eq!(fs::read(&files[1]).expect("reads"), changed);
        let followed = follow(directory.path(), 0).find_map(Result::err);
        assert!(
            matches!(followed, Some(Error::Corrupt { .. })),
            "{followed:?}"
        );
    }
}

#[test]
fn a_missing_or_shortened_segment_is_an_error_at_once() {
    let directory = tempdir().expect("temporary directory");
    let files = write_segments(directory.path());
    let bytes = fs::read(&files[1]).expect("reads");

    for len in [bytes.len() - 1, bytes.len() - 2080, HEADER, HEADER - 1, 0] {
        fs::write(&files[1], &bytes[..len]).expect("writes");
        let error = open(directory.path(), Durability::Always).expect_err("shortened");
        assert!(
            matches!(&error, Error::Corrupt { file, .. } if *file == files[1]),
            "{error}"
        );
    }
    fs::remove_file(&files[1]).expect("removes");
    let error = open(directory.path(), Durability::Always).expect_err("missing");
    assert!(
        matches!(&error, Error::Corrupt { file, .. } if *file == files[1]),
        "{error}"
    );

    fs::write(&files[1], &bytes).expect("writes");
    fs::copy(&files[2], &files[3]).expect("copies");
    let error = open(directory.path(), Durability::Always).expect_err("under another's name");
    assert!(
        matches!(&error, Error::Corrupt { file, .. } if *file == files[3]),
        "{error}"
    );
}

#[test]
fn a_new_segment_that_a_crash_interrupted_is_removed() {
    let directory = tempdir().expect("temporary directory");
    let files = write_segments(directory.path());
    let (log, _) = open(directory.path(), Durability::Always).expect("opens");
    let expected = read(&log).expect("reads");
    let next = directory.path().join(format!("{:020}.log", log.next()));
    let header = fs::read(&files[2]).expect("reads")[..HEADER].to_vec();
    for torn in [&[][..], &header[..20], &[0; HEADER]] {
        fs::write(&next, torn).expect("writes");
        let (log, report) = open(directory.path(), Durability::Always).expect("opens");
        assert_eq!(report.leftovers, std::slice::from_ref(&next));
        assert_eq!(report.torn, None);
        assert_eq!(read(&log).expect("reads"), expected);
        assert!(!next.exists());
    }
    // The segment before was synced before the new one was begun: damage, not a torn tail.
    let last = &files[files.len() - 1];
    let mut bytes = fs::read(last).expect("reads");
    let end = bytes.len() - 1;
    bytes[end] ^= 1;
    fs::write(last, &bytes).expect("writes");
    fs::write(&next, []).expect("writes");
    let error = open(directory.path(), Durability::Always).expect_err("damaged");
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_later_format_is_named_and_left_alone() {
    let directory = tempdir().expect("temporary directory");
    let (file, _) = write_log(directory.path(), Durability::Always);
    let mut bytes = fs::read(&file).expect("reads");
    bytes[8] = 2;
    for len in [bytes.len(), HEADER] {
        fs::write(&file, &bytes[..len]).expect("writes");
        let error = open(directory.path(), Durability::Always).expect_err("a later format");
        assert!(
            matches!(
                error,
                Error::UnknownVersion {
                    found: 2,
                    supported: 1,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(fs::read(&file).expect("reads"), bytes[..len]);
    }
}

#[test]
fn limits_are_refused_with_their_names() {
    let directory = tempdir().expect("temporary directory");
    let (mut log, _) = open(directory.path(), Durability::Os).expect("opens");
    let limit = edge_sync_log::MAX_RECORD_BYTES as usize;
    let error = log
        .append(&[vec![], vec![0; limit + 1]])
        .expect_err("too large");
    let text = error.to_string();
    assert!(
        text.contains("record 1") && text.contains("67108864"),
        "{text}"
    );
    assert_eq!(log.last(), 0);
    log.append(&[vec![1; limit]]).expect("the limit itself");
    let (log, _) = open(directory.path(), Durability::Os).expect("opens");
    assert_eq!(read(&log).expect("reads")[0].payload.len(), limit);

    let options = LogOptions {
        segment_bytes: 4095,
        ..LogOptions::default()
    };
    let error = Log::open(directory.path(), options).expect_err("too small");
    assert!(error.to_string().contains("segment_bytes"), "{error}");
}
