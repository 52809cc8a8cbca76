//! One test for each thing that must hold between a device and a real Qdrant.

#![allow(missing_docs)]

mod world;

use world::{End, Fault, Op, Rule, World};

#[test]
fn debug() {
    let mut world = World::new(vec![
        Op::upsert(1, 1),
        Op::upsert(1, 1),
        Op::Upsert {
            id: 1,
            value: 1,
            text: "POISON".into(),
        },
        Op::upsert(2, 1),
    ]);
    world.options.limits.operations = 1;
    world.restart();
    world.network.proxy.rules.push(Rule {
        text: "POISON".into(),
        fault: Fault::CutBefore,
        outage: 3,
    });
    for _ in 0..40 {
        let before = world.network.exchanges.len();
        let step = world.step();
        println!(
            "{step:?}\n   {:?}",
            world.network.exchanges[before..]
                .iter()
                .map(|(r, s)| (r.path.clone(), r.body.len(), *s))
                .collect::<Vec<_>>()
        );
    }
    panic!();
}
