//! The positions file: what is stored is loaded, anything else is an error.

use std::fs;

use edge_sync_log::{Current, Error};
use proptest::prelude::*;
use tempfile::tempdir;

fn current() -> impl Strategy<Value = Current> {
    any::<[u64; 5]>().prop_map(
        |[generation, checkpoint, applied, acknowledged, barrier]| Current {
            generation,
            checkpoint,
            applied,
            acknowledged,
            barrier,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_stored_is_loaded(current in current()) {
        let directory = tempdir()?;
        prop_assert_eq!(Current::load(directory.path())?, None);
        current.store(directory.path())?;
        prop_assert_eq!(Current::load(directory.path())?, Some(current.clone()));
        prop_assert_eq!(Current::recover(directory.path())?, Some(current));
    }

    #[test]
    fn arbitrary_bytes_are_an_error(bytes in any::<Vec<u8>>()) {
        let directory = tempdir()?;
        fs::write(directory.path().join("CURRENT"), bytes)?;
        prop_assert!(Current::load(directory.path()).is_err());
    }
}

#[test]
fn every_changed_or_missing_byte_is_an_error() {
    let directory = tempdir().expect("temporary directory");
    let stored = Current {
        applied: 12,
        ..Current::default()
    };
    stored.store(directory.path()).expect("stores");
    let file = directory.path().join("CURRENT");
    let bytes = fs::read(&file).expect("reads");
    for at in 0..bytes.len() {
        for mask in [1, 2, 4, 8, 16, 32, 64, 128] {
            let mut changed = bytes.clone();
            changed[at] ^= mask;
            fs::write(&file, &changed).expect("writes");
            Current::load(directory.path()).expect_err("a changed byte");
        }
        fs::write(&file, &bytes[..at]).expect("writes");
        Current::load(directory.path()).expect_err("a missing byte");
    }
}

#[test]
fn a_later_format_is_named() {
    let directory = tempdir().expect("temporary directory");
    let file = directory.path().join("CURRENT");
    fs::write(&file, r#"{"format":2,"whatever":[1]}"#).expect("writes");
    let error = Current::load(directory.path()).expect_err("a later format");
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
}

#[test]
fn only_the_owner_removes_what_a_crash_left() {
    let directory = tempdir().expect("temporary directory");
    let stored = Current {
        generation: 4,
        ..Current::default()
    };
    stored.store(directory.path()).expect("stores");
    let leftover = directory.path().join("CURRENT.tmp");
    fs::write(&leftover, "half").expect("writes");
    assert_eq!(
        Current::load(directory.path()).expect("loads"),
        Some(stored.clone())
    );
    assert!(leftover.exists());
    assert_eq!(
        Current::recover(directory.path()).expect("loads"),
        Some(stored)
    );
    assert!(!leftover.exists());
}
