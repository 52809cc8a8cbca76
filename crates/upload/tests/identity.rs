//! Whether a collection is the one that it was: random histories of a device, of others who write to
//! the collection, and of what may happen to it. No false alarm, and nothing written to another one.

#![allow(missing_docs)]

mod world;

use proptest::prelude::*;
use serde_json::json;
use world::{Collection, End, Fault, Op, World};

#[derive(Clone, Debug)]
enum Event {
    /// The device writes so many times, to one point each time.
    Write(u8),
    /// The device deletes its own points.
    DeleteOwn,
    /// The device changes a point that is not there.
    ChangeMissing,
    Sync,
    /// A run that ends without a word after so many steps; the process starts anew.
    Killed(u8),
    Restart,
    /// Somebody looks at the collection, as a service does.
    Look,
    OthersWrite(u8),
    OthersDelete,
    /// So many exchanges are cut, before or after they were applied.
    Cuts(u8, bool),
    TakeBackup,
    GoBack,
    MakeAnew {
        as_device: bool,
    },
    Vanish,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (1_u8..12).prop_map(Event::Write),
        2 => Just(Event::DeleteOwn),
        1 => Just(Event::ChangeMissing),
        6 => Just(Event::Sync),
        3 => (1_u8..20).prop_map(Event::Killed),
        2 => Just(Event::Restart),
        1 => Just(Event::Look),
        2 => (1_u8..10).prop_map(Event::OthersWrite),
        1 => Just(Event::OthersDelete),
        2 => (1_u8..10, any::<bool>()).prop_map(|(times, after)| Event::Cuts(times, after)),
        2 => Just(Event::TakeBackup),
        1 => Just(Event::GoBack),
        1 => any::<bool>().prop_map(|as_device| Event::MakeAnew { as_device }),
        1 => Just(Event::Vanish),
    ]
}

struct History {
    world: World,
    backup: Option<Collection>,
    others: u64,
    /// The collection is not the one that it was, and the device can tell.
    lost: bool,
}

impl History {
    fn collection(&mut self) -> Option<&mut Collection> {
        self.world.qdrant().collections.get_mut("c")
    }

    /// The highest number that the device knows: the stored one may be older than that of the
    /// process, which is gone with the process.
    fn known(&self) -> Option<u64> {
        let stored = self.world.device.binding.as_ref()?.operation;
        stored.max(self.world.uploader.binding().operation)
    }

    /// Whether the identity that the device knows is that of a collection.
    fn has_known_id(&self, collection: &Collection) -> bool {
        let binding = self.world.device.binding.as_ref();
        binding
            .and_then(|binding| binding.id.as_deref())
            .is_none_or(|id| {
                let metadata = &collection.metadata;
                metadata["edge-sync"]["id"] == id || metadata[format!("edge-sync:{id}")] == true
            })
    }

    fn replace(&mut self, new: Collection) {
        let writes = 0;
        let new = Collection { writes, ..new };
        self.world.qdrant().collections.insert("c".to_owned(), new);
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Write(times) => {
                let at = self.world.device.log.len() as u64;
                let op = |n: u64| {
                    if n.is_multiple_of(2) {
                        Op::upsert(1 + n % 7, n)
                    } else {
                        Op::set(&[1 + n % 7], n)
                    }
                };
                self.world
                    .device
                    .log
                    .extend((at..at + u64::from(*times)).map(op));
            }
            Event::DeleteOwn => {
                let ids = (1..=7).collect();
                self.world.device.log.push(Op::Delete { ids });
            }
            Event::ChangeMissing => self.world.device.log.push(Op::set(&[99], 1)),
            Event::Sync => self.sync(),
            Event::Killed(steps) => {
                self.world.network.now += 300_000;
                self.world.network.busy = 0;
                for _ in 0..*steps {
                    self.world.step();
                }
                self.world.restart();
            }
            Event::Restart => self.world.restart(),
            Event::Look => {
                self.world.network.busy = 0;
                let world = &mut self.world;
                let Ok(_) = world
                    .uploader
                    .prepare(&mut world.device, &mut world.network, false);
            }
            Event::OthersWrite(times) => {
                self.others += 1;
                let id = 1_000_000 + self.others;
                if let Some(collection) = self.collection() {
                    collection.next_operation += u64::from(*times);
                    let point = (json!([1, 1]), serde_json::Map::new());
                    collection.state.points.insert(id, point);
                }
            }
            Event::OthersDelete => {
                if let Some(collection) = self.collection() {
                    collection.next_operation += 1;
                    collection.state.points.clear();
                }
            }
            Event::Cuts(times, after) => {
                let fault = if *after {
                    Fault::CutAfter
                } else {
                    Fault::CutBefore
                };
                let faults = std::iter::repeat_n(Some(fault), usize::from(*times));
                self.world.network.proxy.faults.extend(faults);
            }
            Event::TakeBackup => self.backup = self.collection().cloned(),
            Event::GoBack => {
                let (Some(backup), Some(known)) = (self.backup.clone(), self.known()) else {
                    return;
                };
                // A probe gets the next number.
                self.lost |= backup.next_operation < known || !self.has_known_id(&backup);
                self.replace(backup);
            }
            Event::MakeAnew { as_device } => {
                let Some(known) = self.known() else {
                    return;
                };
                let metadata = json!({"edge-sync": {"id": "another"}});
                let mut new = Collection::default();
                if *as_device {
                    new.metadata = metadata;
                }
                self.lost |= known > 0;
                self.replace(new);
            }
            Event::Vanish => {
                if self.known().is_none() {
                    return;
                }
                self.world.qdrant().collections.clear();
                self.lost = true;
                let created = self.world.qdrant().created;
                // Gone: nothing is made in its place.
                self.sync();
                assert_eq!(self.world.qdrant().created, created);
                self.replace(Collection::default());
            }
        }
    }

    fn sync(&mut self) {
        let waits = self.world.device.acknowledged < self.world.device.log.len() as u64;
        let end = self.world.run();
        if self.lost && waits {
            assert!(matches!(end, End::Stopped(_)), "{end:?}");
        } else if !self.lost {
            // Cuts may last longer than the patience of a run; they never end in a stop.
            assert!(!matches!(end, End::Stopped(_)), "a false alarm: {end:?}");
        }
        if self.lost {
            assert_eq!(self.collection().map_or(0, |it| it.writes), 0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..ProptestConfig::with_cases(1_500)
    })]

    #[test]
    fn no_false_alarm_and_no_write_to_another_collection(
        events in proptest::collection::vec(event(), 1..40),
        forgets_metadata in any::<bool>(),
        operations in 1_u32..11,
        // Others have made the collection, and written to it.
        used in proptest::option::of((0_u64..20, 0_u64..5)),
    ) {
        let mut world = World::new(Vec::new());
        world.options.limits.operations = operations;
        world.restart();
        world.qdrant().forgets_metadata = forgets_metadata;
        if let Some((operations, points)) = used {
            let used = Collection::used(operations + points, points);
            world.qdrant().collections.insert("c".to_owned(), used);
        }
        let mut history = History { world, backup: None, others: 0, lost: false };
        for event in &events {
            let bound = history.known().unwrap_or(0);
            history.happens(event);
            // A process that ended took what it knew alone with it.
            let bound = bound.min(history.known().unwrap_or(0));
            // Others may write so much that nothing tells any more, unless it was found before.
            let found = history.world.device.binding.as_ref().is_some_and(|it| it.lost.is_some());
            let number = history.collection().map_or(0, |it| it.next_operation);
            // An identity in the metadata tells one made anew, but not a backup.
            let binding = history.world.device.binding.as_ref();
            let has_identity = binding.is_some_and(|it| it.id.is_some());
            let numbers_tell = !has_identity || history.backup.is_some();
            if history.lost && !found && number >= bound && numbers_tell {
                return Ok(());
            }
        }
        // What is told stays told, until a person decides.
        history.world.network.proxy.faults.clear();
        history.world.device.log.push(Op::upsert(1, 1));
        history.sync();
        if history.lost {
            history.world.permit(false, true);
            prop_assert_eq!(history.world.run(), End::Done);
        }
    }
}
