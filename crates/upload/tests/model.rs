//! The upload machine against a strict server and everything that stands in front of one: random
//! queues, faults and restarts. Each step is checked in `world::drive`.

#![allow(missing_docs)]

mod world;

use proptest::prelude::*;
use world::{End, Fault, Op, State, World};

fn op() -> impl Strategy<Value = Op> {
    let id = 1_u64..9;
    let value = 1_u64..6;
    let ids = proptest::collection::btree_set(1_u64..9, 1..6)
        .prop_map(|ids| ids.into_iter().collect::<Vec<_>>());
    let text = prop_oneof![
        12 => Just(String::new()),
        1 => Just("DROP TABLE".to_owned()),
        1 => Just("POISON".to_owned()),
        1 => Just("LARGE".to_owned()),
    ];
    prop_oneof![
        8 => (id.clone(), value.clone(), text.clone())
            .prop_map(|(id, value, text)| Op::Upsert { id, value, text }),
        1 => id.clone().prop_map(|id| Op::BadUpsert { id }),
        3 => ids.clone().prop_map(|ids| Op::Delete { ids }),
        4 => (ids, value.clone(), text)
            .prop_map(|(ids, value, text)| Op::SetPayload { ids, value, text }),
        2 => (id, value).prop_map(|(id, value)| Op::UpdateVectors { id, value }),
        1 => "[ab]".prop_map(|field| Op::CreateIndex { field }),
        1 => "[ab]".prop_map(|field| Op::DropIndex { field }),
        1 => "[ab]".prop_map(|name| Op::CreateVector { name }),
        1 => "[ab]".prop_map(|name| Op::DropVector { name }),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let status = proptest::sample::select(vec![
        200_u16, 202, 204, 302, 304, 400, 403, 404, 405, 411, 413, 421, 429, 451, 500, 502, 504,
    ]);
    let body = proptest::sample::select(vec![
        "<html>hotel</html>",
        "",
        "[]",
        "false",
        "\"login page\"",
        "{\"result\": null}",
        "{\"result\": null, \"status\": \"ok\"}",
        "{\"result\": true, \"status\": \"ok\"}",
        "{\"result\": [{\"status\": \"completed\"}]}",
    ]);
    let retry_after = proptest::option::of(proptest::sample::select(vec![
        "1",
        "-1",
        "1.5",
        "86400",
        "18446744073709551615",
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ]));
    prop_oneof![
        4 => (status, body).prop_map(|(status, body)| Fault::Page { status, body: body.to_owned() }),
        1 => Just(Fault::Portal),
        1 => Just(Fault::Unreached),
        2 => Just(Fault::CutBefore),
        2 => Just(Fault::CutAfter),
        2 => Just(Fault::TimeOut),
        1 => Just(Fault::Compressed),
        2 => Just(Fault::Slow),
        1 => Just(Fault::Internal),
        1 => retry_after.prop_map(|it| Fault::RateLimit(it.map(str::to_owned))),
        1 => Just(Fault::Starting),
        1 => Just(Fault::ShortAnswer),
    ]
}

/// Faults for so many exchanges each, with quiet in between.
fn faults() -> impl Strategy<Value = Vec<Option<Fault>>> {
    let phase = (proptest::option::weighted(0.7, fault()), 1_usize..12);
    proptest::collection::vec(phase, 0..8).prop_map(|phases| {
        let exchanges = phases
            .into_iter()
            .flat_map(|(fault, times)| std::iter::repeat_n(fault, times));
        exchanges.collect()
    })
}

/// What lasts: the server's settings, and rules on the way.
#[derive(Clone, Debug)]
struct Settings {
    capacity: Option<usize>,
    max_bytes: Option<usize>,
    pages_above: Option<usize>,
    max_timeout: Option<u64>,
    condition_max_size: Option<usize>,
    refuse_upserts: bool,
    max_points: Option<usize>,
    no_numbers: bool,
    forgets_metadata: bool,
    never_confirms: bool,
    replicas: u64,
    waf: Option<u16>,
    /// 0: none; 1: always 500; 2: cut; 3: takes the server down.
    poison: u8,
    operations: u32,
    most_operations: u32,
    /// Milliseconds that an exchange takes.
    delay: u64,
    bytes: u32,
    points: u32,
}

fn settings() -> impl Strategy<Value = Settings> {
    let maybe = |range: std::ops::Range<usize>| proptest::option::weighted(0.2, range);
    let server = (
        maybe(1..6),
        maybe(900..2_500),
        maybe(900..2_500),
        proptest::option::weighted(0.2, 3_u64..60),
        maybe(1..4),
        prop::bool::weighted(0.1),
        maybe(1..8),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    );
    let way = (
        1_u64..3,
        proptest::option::weighted(
            0.4,
            proptest::sample::select(vec![200_u16, 302, 400, 403, 404, 405, 451]),
        ),
        0_u8..4,
        1_u32..12,
        prop_oneof![Just(8_u32 << 20), 200_u32..2_000],
        prop_oneof![Just(10_000_u32), 1_u32..5],
        (1_u32..60, proptest::sample::select(vec![0_u64, 800])),
    );
    (server, way).prop_map(|(server, way)| Settings {
        capacity: server.0,
        max_bytes: server.1,
        pages_above: server.2,
        max_timeout: server.3,
        condition_max_size: server.4,
        refuse_upserts: server.5,
        max_points: server.6,
        no_numbers: server.7,
        forgets_metadata: server.8,
        never_confirms: server.9,
        replicas: way.0,
        waf: way.1,
        poison: way.2,
        operations: way.3,
        bytes: way.4,
        points: way.5,
        most_operations: way.6.0,
        delay: way.6.1,
    })
}

impl Settings {
    fn world(&self, log: Vec<Op>) -> World {
        let mut world = World::new(log);
        world.options.limits.operations = self.operations;
        world.options.most_operations = self.most_operations;
        world.network.delay = self.delay;
        world.options.limits.bytes = self.bytes;
        world.options.limits.points = self.points;
        world.restart();
        let qdrant = world.qdrant();
        if self.replicas > 1 {
            let replicas = self.replicas;
            let collection = world::Collection {
                replicas,
                ..world::Collection::default()
            };
            qdrant.collections.insert("c".to_owned(), collection);
        }
        qdrant.capacity = self.capacity;
        qdrant.max_bytes = self.max_bytes;
        qdrant.max_timeout = self.max_timeout;
        qdrant.condition_max_size = self.condition_max_size;
        qdrant.max_points = self.max_points;
        qdrant.no_numbers = self.no_numbers;
        qdrant.forgets_metadata = self.forgets_metadata;
        qdrant.never_confirms = self.never_confirms;
        if self.refuse_upserts {
            qdrant.refuse_upserts = vec!["Bad request: no upserts today".to_owned()];
        }
        let proxy = &mut world.network.proxy;
        proxy.max_bytes = self.pages_above;
        if let Some(status) = self.waf {
            proxy.rules.push(world::Rule {
                text: "DROP TABLE".to_owned(),
                fault: world::page(status),
                outage: 0,
            });
        }
        let (fault, outage) = match self.poison {
            1 => (Fault::Internal, 0),
            2 => (Fault::CutBefore, 0),
            _ => (Fault::CutBefore, 3),
        };
        if self.poison > 0 {
            proxy.rules.push(world::Rule {
                text: "POISON".to_owned(),
                fault,
                outage,
            });
        }
        world
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 4_000, ..ProptestConfig::with_cases(2_000) })]

    /// Whatever happens on the way: what is acknowledged is there, what is put aside was refused,
    /// the order holds, and the queue is never stuck.
    #[test]
    fn an_upload_ends_with_everything_where_it_belongs(
        log in proptest::collection::vec(op(), 1..40),
        faults in faults(),
        restarts in proptest::collection::btree_set(1_u32..120, 0..4),
        settings in settings(),
    ) {
        let mut world = settings.world(log);
        world.restarts = restarts;
        world.network.proxy.faults = faults.into();
        let mut stops = 0;
        // Somebody runs `sync` again and again.
        for _ in 0..400 {
            let quiet = world.network.proxy.is_quiet();
            match world.run() {
                End::Done => break,
                End::Stopped(failure) => {
                    prop_assert!(
                        world.device.binding.as_ref().is_none_or(|it| it.lost.is_none()),
                        "a false alarm: {failure:?}"
                    );
                    if !quiet {
                        continue;
                    }
                    // A person does what the words say.
                    stops += 1;
                    prop_assert!(stops < 200, "{failure:?}");
                    let row = failure.message.contains("in a row were refused");
                    let never = failure.message.contains("does not say that it has applied it");
                    prop_assert!(row || never, "{failure:?}");
                    prop_assert!(never <= settings.never_confirms, "{failure:?}");
                    world.device.skip();
                }
                End::Waiting(failure) => {
                    prop_assert!(!quiet, "stuck: {failure:?}");
                }
            }
        }
        prop_assert_eq!(world.run(), End::Done);
        world.qdrant().settle("c");
        world.check_state(&State::default());
        world.check_missing(&State::default());
        prop_assert!(world.qdrant().created <= 1);
    }
}
