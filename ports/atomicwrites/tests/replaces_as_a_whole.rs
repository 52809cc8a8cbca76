//! Each case runs against this crate and against the package that it stands in for.

use std::fs;
use std::io::Write;
use std::path::Path;

macro_rules! for_both {
    ($($name:ident($krate:ident, $folder:ident) $body:block)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn stand_in() {
                use atomicwrites as $krate;
                let folder = tempfile::tempdir().unwrap();
                let $folder = folder.path();
                $body
                assert_eq!(left_overs($folder), Vec::<String>::new());
            }

            #[test]
            fn real() {
                use reference as $krate;
                let folder = tempfile::tempdir().unwrap();
                let $folder = folder.path();
                $body
                assert_eq!(left_overs($folder), Vec::<String>::new());
            }
        }
    )*};
}

for_both! {
    creates(krate, folder) {
        let target = folder.join("target");
        let file = krate::AtomicFile::new(&target, krate::AllowOverwrite);
        let length = file.write(|f| f.write_all(b"new").map(|()| 3)).unwrap();
        assert_eq!(length, 3);
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    replaces(krate, folder) {
        let target = folder.join("target");
        fs::write(&target, b"something longer").unwrap();
        krate::AtomicFile::new(&target, krate::AllowOverwrite)
            .write(|f| f.write_all(b"new"))
            .unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"new");
    }

    keeps_the_target_when_the_callback_fails(krate, folder) {
        let target = folder.join("target");
        fs::write(&target, b"old").unwrap();
        let error = krate::AtomicFile::new(&target, krate::AllowOverwrite)
            .write(|f| {
                f.write_all(b"half").unwrap();
                Err::<(), &str>("no more")
            })
            .unwrap_err();
        assert!(matches!(error, krate::Error::User("no more")));
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }

    does_not_overwrite_when_told_not_to(krate, folder) {
        let target = folder.join("target");
        fs::write(&target, b"old").unwrap();
        let error = krate::AtomicFile::new(&target, krate::DisallowOverwrite)
            .write(|f| f.write_all(b"new"))
            .unwrap_err();
        assert_eq!(
            std::io::Error::from(error).kind(),
            std::io::ErrorKind::AlreadyExists
        );
        assert_eq!(fs::read(&target).unwrap(), b"old");
    }

    fails_without_the_folder(krate, folder) {
        let target = folder.join("missing/target");
        let error = krate::AtomicFile::new(&target, krate::AllowOverwrite)
            .write(|_| Ok::<(), std::io::Error>(()))
            .unwrap_err();
        assert!(matches!(error, krate::Error::Internal(_)));
        assert!(!target.exists());
    }
}

#[test]
fn steps_over_what_a_crash_left() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..64 {
        fs::write(
            folder.path().join(format!(".atomicwrite{number:08x}.tmp")),
            b"",
        )
        .unwrap();
    }
    let target = folder.path().join("target");
    atomicwrites::AtomicFile::new(&target, atomicwrites::AllowOverwrite)
        .write(|f| f.write_all(b"new"))
        .unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
}

fn left_overs(folder: &Path) -> Vec<String> {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "target")
        .collect()
}
