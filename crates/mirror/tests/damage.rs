//! A mirror with anything missing or altered leads to another question, never to a wrong file.

mod common;

use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use common::{Room, STEPS, Server, assert_equals_full, origin};
use edge_sync_mirror::{Links, Mirror, Offer, build};
use proptest::prelude::*;

/// What happened to one file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Removed,
    Cut,
    Longer,
    Flipped,
    Folder,
    /// The same bytes at another time, as from a backup: no damage.
    Touched,
}

fn harm(path: &std::path::Path, damage: Damage) {
    let length = fs::metadata(path).unwrap().len();
    let open = || File::options().write(true).open(path).unwrap();
    match damage {
        Damage::Removed => fs::remove_file(path).unwrap(),
        Damage::Cut => open().set_len(length.saturating_sub(1)).unwrap(),
        Damage::Longer => open().set_len(length + 1).unwrap(),
        Damage::Flipped if length == 0 => fs::remove_file(path).unwrap(),
        Damage::Flipped => {
            use std::os::unix::fs::FileExt;
            let at = length / 2;
            let mut byte = [0];
            File::open(path)
                .unwrap()
                .read_exact_at(&mut byte, at)
                .unwrap();
            open().write_all_at(&[byte[0] ^ 1], at).unwrap();
        }
        Damage::Folder => {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }
        Damage::Touched => {}
    }
    // A write sets the time; here it may come within the file system's tick.
    if path.is_file() {
        let later = SystemTime::now() + Duration::from_secs(1);
        open().set_modified(later).unwrap();
    }
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        Just(Damage::Removed),
        Just(Damage::Cut),
        Just(Damage::Longer),
        Just(Damage::Flipped),
        Just(Damage::Folder),
        Just(Damage::Touched),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_harmed_mirror_leads_to_the_servers_files(
        from in 0..STEPS.len() - 1,
        // Mostly to the next step but one at most: there most files are kept.
        by in 1..3_usize,
        harmed in prop::collection::vec((any::<prop::sample::Index>(), any_damage()), 0..12),
        // Before the mirror is looked at, or between that and the answer.
        late in any::<bool>(),
        links in any::<bool>(),
    ) {
        let room = Room::new();
        let (from, to) = (from, (from + by).min(STEPS.len() - 1));
        let (_, mirror) = Server::at(STEPS[from]).pull(&room, Offer::everything());
        let harm_all = |mirror: &Mirror| {
            let files: Vec<_> = mirror
                .segments()
                .iter()
                .flat_map(|(segment, record)| {
                    record.files.keys().map(move |file| mirror.path(segment, file))
                })
                .collect();
            for (at, damage) in &harmed {
                let path = at.get(&files);
                if path.is_file() {
                    harm(path, *damage);
                }
            }
        };
        let offer = if late {
            let offer = Offer::of(mirror.clone(), &origin());
            harm_all(&mirror);
            offer
        } else {
            harm_all(&mirror);
            Offer::of(mirror.clone(), &origin())
        };
        let server = Server::at(STEPS[to]);
        if server.answer(&offer.manifest()).is_none() {
            // 304: the offer is of all of the mirror, so what was harmed came too late.
            prop_assert!(offer.is_whole());
            return Ok(());
        }
        let (rounds, next) = server.pull(&room, offer);
        prop_assert!(rounds <= 3);
        assert_equals_full(&next.folder().join("segments"), &server.full);
        prop_assert!(Offer::of(next.clone(), &origin()).is_whole());
        let segments = room.fresh("segments");
        build(&next, &segments, if links { Links::Try } else { Links::Never }).unwrap();
        assert_equals_full(&segments, &server.full);
        let loaded = Mirror::load(next.folder()).unwrap();
        prop_assert_eq!(loaded.as_ref(), Some(&next));
    }

    /// What a manifest says of a file that was left out: kept only if it says the same.
    #[test]
    fn other_versions_never_keep_a_file(
        file in any::<prop::sample::Index>(),
        version in prop_oneof![Just(None), (0..20_u64).prop_map(Some)],
    ) {
        use common::{Parts, recorded};
        use edge_sync_mirror::Outcome;
        const SEGMENT: &str = "f413efea-a665-47b8-b694-96d7394ab33d";
        let room = Room::new();
        let (_, before) = Server::at("05-overwrite-in-indexed").pull(&room, Offer::everything());
        let record = &before.segments()[SEGMENT].manifest;
        let files: Vec<_> = record.files().collect();
        let file = *file.get(&files);
        let mut answer = Parts::of(&recorded("06-payload-in-indexed", "answer.tar.gz").unwrap());
        let sent = answer.has(&format!("segments/{SEGMENT}/files/{file}"));
        answer.edit(&format!("segments/{SEGMENT}/files/segment_manifest.json"), |manifest| {
            manifest["file_versions"][file] = version.into();
        });
        let now = version.unwrap_or(10);
        let same = record.effective_version(file) == Some(now);
        let offer = Offer::of(before, &origin());
        match room.apply(&offer, &answer.to_archive()).unwrap() {
            Outcome::Applied { .. } => prop_assert!(sent || same),
            Outcome::Again { .. } => prop_assert!(!sent && !same),
            Outcome::Everything { why, .. } => prop_assert!(false, "{}", why),
        }
    }
}
