//! What must hold between a device and a real Qdrant with everything that stands in front of one,
//! sentence by sentence.

#![allow(missing_docs)]

mod world;

use std::time::Duration;

use edge_sync_upload::uploader::{MOST_ALIKE, MOST_REFUSED};
use edge_sync_upload::{Step, Uploader};
use world::{End, Fault, Op, Rule, State, World, page};

fn upserts(count: u64) -> Vec<Op> {
    (1..=count).map(|id| Op::upsert(id, id)).collect()
}

fn with_text(id: u64, text: &str) -> Op {
    Op::Upsert {
        id,
        value: 1,
        text: text.to_owned(),
    }
}

/// A world whose collection is there, has `points`, and got `log` queued afterwards.
fn in_step(points: u64, log: Vec<Op>) -> World {
    let mut world = World::new(upserts(points));
    assert_eq!(world.run(), End::Done);
    world.device.log.extend(log);
    world.restart();
    world
}

fn rule(text: &str, fault: Fault) -> Rule {
    Rule {
        text: text.to_owned(),
        fault,
        outage: 0,
    }
}

// --- Only Qdrant's envelope condemns; an acknowledgement is earned ---

#[test]
fn nothing_is_put_aside_or_acknowledged_while_nothing_passes() {
    let pages: [(u16, &str); 18] = [
        (200, "<html>hotel</html>"),
        (200, "[]"),
        (200, "false"),
        (200, "\"login page\""),
        (200, "{\"result\": null}"),
        (200, "{\"result\": null, \"status\": \"ok\"}"),
        (200, "{\"result\": true, \"status\": \"ok\"}"),
        (
            200,
            "{\"result\": [{\"operation_id\": 1, \"status\": \"completed\"}]}",
        ),
        (
            202,
            "{\"result\": [{\"operation_id\": 1, \"status\": \"completed\"}], \"status\": \"ok\"}",
        ),
        (204, ""),
        (400, "<html>no</html>"),
        (404, ""),
        (405, "<html>no</html>"),
        (411, "<html>length</html>"),
        (413, "<html>large</html>"),
        (421, "<html>no</html>"),
        (451, "<html>no</html>"),
        (502, "<html>bad gateway</html>"),
    ];
    for (status, body) in pages {
        let mut world = in_step(
            3,
            vec![
                Op::upsert(7, 1),
                Op::set(&[1], 2),
                Op::Delete { ids: vec![2] },
            ],
        );
        let fault = Fault::Page {
            status,
            body: body.to_owned(),
        };
        world.network.proxy.all_writes = Some(fault);
        world.patience = 40;
        for _ in 0..3 {
            let end = world.run();
            assert!(matches!(end, End::Waiting(_)), "{status} {body}: {end:?}");
            world.restart();
        }
        assert_eq!(world.device.acknowledged, 3, "{status} {body}");
        assert_eq!(world.device.rejected(), [0; 0], "{status} {body}");
        world.network.proxy.all_writes = None;
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.points(), [1, 3, 7]);
        assert_eq!(world.device.rejected(), [0; 0], "{status} {body}");
    }
}

#[test]
fn a_portal_is_passing_and_its_target_is_named() {
    let mut world = in_step(1, upserts(2));
    world.network.proxy.all_writes = Some(Fault::Portal);
    let failure = world.run().wait();
    assert!(failure.message.contains("http://portal.hotel/login"));
    assert_eq!(world.device.acknowledged, 1);
    // The same before the collection has been looked at.
    world.network.proxy.all_reads = Some(Fault::Portal);
    world.restart();
    let failure = world.run().wait();
    assert!(failure.message.contains("http://portal.hotel/login"));
}

#[test]
fn a_refused_key_stops_with_words_and_keeps_the_queue() {
    for (status, body) in [
        (
            401,
            "Must provide an API key or an Authorization bearer token",
        ),
        (403, "Invalid API key or JWT"),
        (
            403,
            r#"{"status": {"error": "Forbidden: Write access is required"}}"#,
        ),
        (
            507,
            r#"{"status": {"error": "Insufficient storage: quota"}}"#,
        ),
    ] {
        let mut world = in_step(1, upserts(20));
        let body = body.to_owned();
        world.network.proxy.all_writes = Some(Fault::Page { status, body });
        let words = world.run().stop();
        let ways = ["Check the API key", "Make room on the server"];
        assert!(ways.iter().any(|way| words.contains(way)), "{words}");
        assert_eq!(
            (world.device.acknowledged, world.device.rejected().len()),
            (1, 0)
        );
    }
}

#[test]
fn a_write_that_is_only_taken_is_looked_after_not_believed() {
    let mut world = in_step(1, upserts(12));
    world.qdrant().slow = 3;
    let mut taken = false;
    world.step_until(|step| {
        taken |= matches!(step, Step::Wait { failure, .. } if failure.message.contains("taken"));
        *step == Step::Done
    });
    assert!(taken);
    assert_eq!(world.points().len(), 12);
}

#[test]
fn where_acknowledged_is_all_one_gets_reading_confirms() {
    let ops = vec![
        Op::CreateIndex { field: "a".into() },
        Op::CreateVector { name: "b".into() },
        Op::set(&[1, 2, 3], 4),
        Op::UpdateVectors { id: 2, value: 5 },
        Op::Delete { ids: vec![3] },
        Op::DropIndex { field: "a".into() },
        Op::DropVector { name: "b".into() },
    ];
    let mut world = in_step(3, ops);
    world.qdrant().never_confirms = true;
    assert_eq!(world.run(), End::Done);
    world.check_state(&State::default());
    assert!(world.device.rejected().is_empty());
}

#[test]
fn facts_that_hold_before_a_batch_do_not_confirm_what_fails_in_it() {
    let mut world = World::new(vec![
        Op::upsert(1, 1),
        Op::UpdateVectors { id: 5, value: 1 },
        Op::Delete { ids: vec![1, 5] },
    ]);
    world.step();
    world.qdrant().slow = 2;
    assert_eq!(world.go_on(), End::Done);
    world.qdrant().settle("c");
    assert_eq!(world.points(), [0; 0]);
    // The queue deletes the point that the second one misses.
    assert!(world.device.rejected().is_empty());
}

// --- 404 ---

#[test]
fn a_missing_point_concerns_one_operation_and_the_points_that_are_there_get_the_change() {
    let mut world = in_step(3, vec![Op::set(&[9, 2, 1, 8], 7), Op::upsert(6, 6)]);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [4]);
    assert!(world.device.words(4).contains("No point with id 9 found"));
    let state = world.state();
    assert_eq!(state.points[&1].1["s"], 7);
    assert_eq!(state.points[&2].1["s"], 7);
    assert_eq!(world.points(), [1, 2, 3, 6]);
}

#[test]
fn many_changes_of_missing_points_do_not_stop_the_queue() {
    let mut log: Vec<Op> = (10..40).map(|id| Op::set(&[id], 1)).collect();
    log.push(Op::upsert(50, 1));
    let mut world = in_step(1, log);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected().len(), 30);
    assert_eq!(world.points(), [1, 50]);
}

#[test]
fn a_gone_collection_is_not_a_missing_point() {
    let mut world = in_step(3, vec![Op::set(&[1], 7)]);
    world.step(); // The collection is looked at, and is there.
    world.qdrant().collections.clear();
    let words = world.go_on().stop();
    assert!(
        words.contains("deleted") && words.contains("--resend"),
        "{words}"
    );
    assert_eq!((world.device.acknowledged, world.qdrant().created), (3, 1));
}

#[test]
fn names_and_indexes_that_are_gone_already_are_done() {
    let ops = vec![
        Op::DropVector {
            name: "gone".into(),
        },
        Op::DropIndex {
            field: "gone".into(),
        },
        Op::upsert(2, 2),
    ];
    let mut world = in_step(1, ops);
    assert_eq!(world.run(), End::Done);
    assert!(world.device.rejected().is_empty());
}

#[test]
fn a_route_that_an_older_server_has_not_concerns_one_operation() {
    let mut world = in_step(
        1,
        vec![Op::CreateVector { name: "b".into() }, Op::upsert(2, 2)],
    );
    let body = String::new();
    let fault = Fault::Page { status: 404, body };
    world.network.proxy.rules.push(rule("\"dense\"", fault));
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [2]);
    assert_eq!(world.points(), [1, 2]);
}

#[test]
fn a_change_that_was_applied_and_then_deleted_by_the_queue_is_not_refused() {
    // The batch is applied up to the bad one, and sent again in parts.
    let ops = vec![
        Op::set(&[1], 5),
        Op::set(&[1, 2], 6),
        Op::Delete { ids: vec![1] },
        Op::BadUpsert { id: 9 },
        Op::upsert(4, 4),
    ];
    let mut world = in_step(2, ops);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [6]);
    assert_eq!(world.points(), [2, 4]);
    assert_eq!(world.state().points[&2].1["s"], 6);
}

// --- Refusals of everything ---

#[test]
fn a_refusal_of_every_upsert_stops_after_a_few_and_retry_sends_them_all() {
    // New points and changes to them in turn, and among them what passes.
    let log = (10..60)
        .flat_map(|id| [Op::upsert(id, 1), Op::set(&[id], 2), Op::set(&[1], id)])
        .collect();
    let mut world = in_step(1, log);
    world.qdrant().refuse_upserts = vec!["Bad request: not today".to_owned()];
    let words = world.run().stop();
    assert!(
        words.contains("rejected retry --all") && words.contains("not today"),
        "{words}"
    );
    let upserts = |world: &World| {
        let rejected = world.device.rejected();
        let is_upsert = |at: &&u64| matches!(world.device.op(**at), Some(Op::Upsert { .. }));
        rejected.iter().filter(is_upsert).count()
    };
    assert_eq!(upserts(&world), MOST_ALIKE as usize);
    // Again and again, as a service would.
    for _ in 0..5 {
        world.run().stop();
    }
    assert_eq!(upserts(&world), MOST_ALIKE as usize);
    world.qdrant().refuse_upserts.clear();
    // `rejected retry --all`
    let again: Vec<Op> = world
        .device
        .rejected()
        .into_iter()
        .map(|at| world.device.op(at).unwrap().clone())
        .collect();
    world.device.log.extend(again);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.points().len(), 51);
}

#[test]
fn refusals_whose_words_take_turns_stop_the_queue_too() {
    for (words, most) in [
        (2, 2 * MOST_ALIKE),
        (3, 3 * MOST_ALIKE),
        (100, MOST_REFUSED),
    ] {
        let mut world = in_step(1, (10..90).map(|id| Op::upsert(id, 1)).collect());
        // As of strict mode, whose limits on vectors and on payloads are both passed.
        world.qdrant().refuse_upserts = (0..words)
            .map(|n| format!("Bad request: Max storage of {} exceeded", "I".repeat(n + 1)))
            .collect();
        let stopped = world.run().stop();
        assert!(stopped.contains("rejected retry --all"), "{stopped}");
        assert_eq!(world.device.rejected().len(), most as usize, "{words}");
        // Again and again, by another process each time, which knows the last words.
        for _ in 0..5 {
            world.restart();
            world.run().stop();
            if words > 3 {
                break;
            }
        }
        let rejected = world.device.rejected().len();
        assert!(rejected < 60, "{words}: {rejected}");
        world.qdrant().refuse_upserts.clear();
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.points().len(), 81 - rejected);
    }
}

#[test]
fn a_row_of_refusals_is_known_to_the_next_process() {
    let mut world = in_step(
        1,
        (10..60)
            .flat_map(|id| [Op::upsert(id, 1), Op::set(&[id], 2)])
            .collect(),
    );
    world.qdrant().max_points = Some(1);
    for _ in 0..6 {
        world.run().stop();
        world.restart();
    }
    let full = world.device.rejected();
    let full = full
        .iter()
        .filter(|at| world.device.words(**at).contains("Max points"));
    assert_eq!(full.count(), MOST_ALIKE as usize);
}

#[test]
fn bad_operations_among_good_ones_do_not_stop_the_queue() {
    let log = (10..60)
        .flat_map(|id| [Op::BadUpsert { id }, Op::upsert(id + 100, 1)])
        .collect();
    let mut world = in_step(1, log);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected().len(), 50);
    assert_eq!(world.points().len(), 51);
}

#[test]
fn a_missing_shard_key_stops_before_anything_is_sent() {
    let mut world = in_step(1, upserts(500));
    let collection = world.qdrant().collections.get_mut("c").unwrap();
    collection.custom_sharding = true;
    let before = world.writes();
    assert!(world.run().stop().contains("sharded by keys"));
    assert_eq!((world.writes(), world.device.rejected().len()), (before, 0));
}

#[test]
fn a_server_that_refuses_the_least_of_writes_stops_the_queue() {
    // A firewall's page for one operation, while Qdrant refuses every write.
    let mut world = in_step(1, vec![with_text(5, "DROP TABLE")]);
    world.step();
    world
        .network
        .proxy
        .rules
        .push(rule("DROP TABLE", page(403)));
    world
        .qdrant()
        .collections
        .get_mut("c")
        .unwrap()
        .custom_sharding = true;
    assert!(world.go_on().stop().contains("refuses every write"));
    assert!(world.device.rejected().is_empty());
}

// --- Firewalls, sizes, rates ---

#[test]
fn a_page_for_one_payloads_text_sets_that_operation_aside() {
    for status in [200, 302, 400, 403, 404, 405, 411, 413, 421, 451, 500] {
        let mut log = upserts(20);
        log[7] = with_text(8, "DROP TABLE");
        let mut world = in_step(0, log);
        world
            .network
            .proxy
            .rules
            .push(rule("DROP TABLE", page(status)));
        assert_eq!(world.run(), End::Done, "{status}");
        assert_eq!(world.device.rejected(), [8], "{status}");
        assert_eq!(world.points().len(), 19, "{status}");
        let words = world.device.words(8);
        assert!(
            status == 302 || words.contains(&format!("<html>{status} no")),
            "{words}"
        );
    }
}

#[test]
fn one_page_in_passing_sets_nothing_aside() {
    for status in [200, 400, 404, 413, 421, 451, 500] {
        for at in 0..12 {
            let mut world = in_step(1, upserts(3));
            world.options.limits.operations = 1;
            world.restart();
            let quiet = std::iter::repeat_n(None, at);
            world.network.proxy.faults = quiet.chain([Some(page(status))]).collect();
            assert_eq!(world.run(), End::Done);
            assert!(world.device.rejected().is_empty(), "{status} {at}");
        }
    }
}

#[test]
fn one_bad_server_of_several_that_take_turns_sets_nothing_aside() {
    for servers in 2..5 {
        for fault in [
            page(200),
            page(403),
            page(404),
            page(413),
            page(500),
            Fault::CutBefore,
        ] {
            for at in 0..servers {
                let mut world = in_step(1, upserts(12));
                world.options.limits.operations = 1;
                world.restart();
                let mut backends = vec![None; servers];
                backends[at] = Some(fault.clone());
                world.network.proxy.backends = backends.into();
                // A page of a firewall may stop the queue, which a person starts again.
                for _ in 0..40 {
                    if world.run() == End::Done {
                        break;
                    }
                }
                assert_eq!(world.run(), End::Done, "{servers} {fault:?}");
                assert_eq!(world.device.rejected(), [0; 0], "{servers} {fault:?}");
                assert_eq!(world.points().len(), 12);
            }
        }
    }
}

#[test]
fn a_network_that_fails_every_other_time_at_random_sets_nothing_aside() {
    let mut random: u32 = 7;
    let mut fails = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 31 == 1
    };
    for fault in [page(404), page(413), Fault::Internal] {
        let mut world = in_step(1, upserts(100));
        world.options.limits.operations = 1;
        world.options.most_operations = 1;
        world.restart();
        world.network.proxy.faults = (0..2_000).map(|_| fails().then(|| fault.clone())).collect();
        assert_eq!(world.run(), End::Done, "{fault:?}");
        assert!(world.device.rejected().is_empty(), "{fault:?}");
    }
}

#[test]
fn an_outage_that_ends_between_an_operation_and_the_proof_sets_nothing_aside() {
    for length in 1..40 {
        let mut world = in_step(1, upserts(2));
        world.options.limits.operations = 1;
        world.restart();
        world.step();
        world.network.proxy.faults = vec![Some(Fault::CutBefore); length].into();
        assert_eq!(world.run(), End::Done);
        assert!(world.device.rejected().is_empty(), "{length}");
    }
}

#[test]
fn passing_failures_of_one_operation_between_proofs_that_pass_set_nothing_aside() {
    let kinds = || [Fault::CutBefore, Fault::CutAfter, Fault::Internal];
    for (third, at) in kinds()
        .into_iter()
        .flat_map(|it| (0..8).map(move |at| (it.clone(), at)))
    {
        let mut world = in_step(1, upserts(3));
        world.options.limits.operations = 1;
        world.restart();
        let quiet = std::iter::repeat_n(None, at);
        // The proof passes after the second failure and after the third.
        let cut = || Some(Fault::CutBefore);
        let row = [cut(), cut(), None, Some(third.clone()), None, Some(third)];
        world.network.proxy.faults = quiet.chain(row).collect();
        assert_eq!(world.run(), End::Done);
        assert!(world.device.rejected().is_empty(), "{at}");
    }
}

/// Failures of one operation alone, no two in a row alike, with proofs that pass after each: one and
/// two by turns.
fn mixed(count: usize) -> impl Iterator<Item = Option<Fault>> {
    (0..count).flat_map(|n| {
        let failure = Some(page(if n % 2 == 0 { 405 } else { 421 }));
        std::iter::once(failure).chain(std::iter::repeat_n(None, 1 + n % 2))
    })
}

#[test]
fn failures_that_differ_set_an_operation_aside_only_if_there_are_many() {
    let after = |failures: usize, at: usize| {
        let mut world = in_step(1, upserts(3));
        world.options.limits.operations = 1;
        world.restart();
        let quiet = std::iter::repeat_n(None, at);
        world.network.proxy.faults = quiet.chain(mixed(failures)).collect();
        assert_eq!(world.run(), End::Done, "{at}");
        world.device.rejected().len()
    };
    for at in 0..8 {
        assert_eq!(after(8, at), 0, "{at}");
    }
    // No operation holds up the others for ever.
    assert!((0..8).any(|at| after(12, at) == 1));
}

#[test]
fn an_operation_that_fails_alone_is_put_aside_in_a_run_of_few_attempts() {
    let mut log = upserts(5);
    log[2] = with_text(3, "POISON");
    let mut world = in_step(0, log);
    world.options.attempts = 3;
    world.restart();
    world.network.proxy.rules.push(rule("POISON", page(403)));
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [3]);
}

#[test]
fn a_rate_limit_smaller_than_a_batch_lets_everything_pass_in_smaller_ones() {
    let mut world = in_step(0, upserts(40));
    world.qdrant().capacity = Some(3);
    let ids: Vec<u64> = (1..=40).collect();
    world.device.log.push(Op::set(&ids, 9));
    world.device.log.push(Op::Delete {
        ids: ids[..20].to_vec(),
    });
    assert_eq!(world.run(), End::Done);
    assert!(world.device.rejected().is_empty());
    assert_eq!(world.points().len(), 20);
    assert!(
        world
            .state()
            .points
            .values()
            .all(|(_, payload)| payload["s"] == 9)
    );
}

#[test]
fn a_rate_limit_that_passes_is_waited_for_with_a_smaller_batch() {
    let mut world = in_step(0, upserts(10));
    world.step();
    world.network.proxy.faults = [Some(Fault::RateLimit(Some("7".to_owned())))].into();
    assert!(matches!(world.step(), Step::Wait { .. }));
    assert_eq!(world.step(), Step::Uploaded { operations: 5 });
    assert_eq!(world.go_on(), End::Done);
}

#[test]
fn a_rate_limit_below_one_point_stops_with_its_name() {
    let mut world = in_step(1, upserts(3));
    world.qdrant().capacity = Some(0);
    let words = world.run().stop();
    assert!(
        words.contains("write_rate_limit") && words.contains("raise"),
        "{words}"
    );
    assert!(world.device.rejected().is_empty());
}

#[test]
fn retry_after_has_a_cap_and_a_run_in_the_foreground_says_when_to_come_back() {
    for (value, seconds, gives_up) in [
        ("7", 7, false),
        ("60", 60, false),
        ("86400", 3600, true),
        ("18446744073709551615", 3600, true),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600, true),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0, false),
        ("-1", 0, false),
        ("1.5", 0, false),
    ] {
        let mut world = in_step(1, upserts(2));
        world.step();
        world.network.proxy.faults = [Some(Fault::RateLimit(Some(value.to_owned())))].into();
        let mut step = world.step();
        if step == Step::Again {
            world.network.proxy.faults = [Some(Fault::RateLimit(Some(value.to_owned())))].into();
            step = world.step();
        }
        let Step::Wait { after, .. } = step else {
            assert_eq!(seconds, 0, "{value}");
            continue;
        };
        let (least, most) = (
            Duration::from_secs(seconds),
            Duration::from_secs(seconds + 31),
        );
        assert!(after >= least && after <= most, "{value}: {after:?}");
        assert_eq!(
            world.uploader.gives_up(after),
            gives_up,
            "{value}: {after:?}"
        );
    }
}

#[test]
fn a_large_operation_ends_aside_with_its_size_and_the_small_ones_pass() {
    for by_proxy in [true, false] {
        let log = vec![Op::upsert(1, 1), with_text(2, "LARGE"), Op::upsert(3, 1)];
        let mut world = in_step(0, log);
        if by_proxy {
            world.network.proxy.max_bytes = Some(1_000);
        } else {
            world.qdrant().max_bytes = Some(1_000);
        }
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.device.rejected(), [2]);
        let words = world.device.words(2);
        assert!(
            words.contains("the operation has 3") && words.contains("bytes"),
            "{words}"
        );
        assert_eq!(world.points(), [1, 3]);
    }
}

#[test]
fn large_operations_do_not_shrink_the_requests_of_small_ones() {
    let mut log: Vec<Op> = (1..=4).map(|id| with_text(id, "LARGE")).collect();
    log.extend((10..200).map(|id| Op::upsert(id, 1)));
    let mut world = in_step(0, log);
    world.qdrant().max_bytes = Some(2_500);
    assert_eq!(world.run(), End::Done);
    let requests = world.network.exchanges.len();
    assert!(requests < 80, "{requests} requests");
}

#[test]
fn a_million_ids_go_out_in_pieces() {
    let ids: Vec<u64> = (1..=1_000_000).collect();
    let mut world = in_step(
        0,
        vec![Op::upsert(5, 5), Op::Delete { ids }, Op::upsert(6, 6)],
    );
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.points(), [6]);
    assert!(world.device.rejected().is_empty());
    let most = world
        .network
        .exchanges
        .iter()
        .map(|(request, _)| request.body.len());
    assert!(most.max().unwrap() <= 10_000 * 9);
}

#[test]
fn ids_that_a_filter_may_not_have_are_split_too() {
    let ids: Vec<u64> = (1..=50).collect();
    let mut world = in_step(20, vec![Op::set(&ids, 4)]);
    world.qdrant().condition_max_size = Some(3);
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [21]);
    assert!(world.device.words(21).contains("No point with id"));
    assert!(
        world
            .state()
            .points
            .values()
            .all(|(_, payload)| payload["s"] == 4)
    );
}

// --- Heads that never pass ---

#[test]
fn a_head_that_always_fails_does_not_hold_up_the_others() {
    for (fault, outage) in [
        (Fault::Internal, 0),
        (Fault::CutBefore, 0),
        (Fault::CutBefore, 2),
        (Fault::CutBefore, 7),
        (Fault::Starting, 0),
    ] {
        let mut log = upserts(30);
        log[0] = with_text(1, "POISON");
        log[17] = with_text(18, "POISON");
        let mut world = in_step(0, log);
        let text = "POISON".to_owned();
        world.network.proxy.rules.push(Rule {
            text,
            fault,
            outage,
        });
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.device.rejected(), [1, 18]);
        assert_eq!(world.points().len(), 28);
    }
}

#[test]
fn writes_that_are_applied_and_always_time_out_make_progress() {
    let mut world = in_step(
        1,
        vec![
            Op::upsert(2, 2),
            Op::set(&[1, 2], 3),
            Op::Delete { ids: vec![1] },
        ],
    );
    world.step();
    world.network.proxy.all_writes = Some(Fault::CutAfter);
    assert_eq!(world.go_on(), End::Done);
    world.check_state(&State::default());
    assert!(world.device.rejected().is_empty());
    // The same from the first look at the collection on.
    world.restart();
    world.device.log.push(Op::set(&[2], 8));
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.state().points[&2].1["s"], 8);
}

#[test]
fn a_time_limit_that_the_server_does_not_take_is_not_the_operations_fault() {
    let mut world = in_step(1, upserts(5));
    world.qdrant().max_timeout = Some(3);
    world.network.proxy.faults =
        vec![None, None, None, Some(Fault::TimeOut), Some(Fault::TimeOut)].into();
    assert_eq!(world.run(), End::Done);
    assert!(world.device.rejected().is_empty());
}

// --- Which collection ---

/// What may happen to a collection that a device was in step with.
fn replaced(world: &mut World, how: &str) {
    let metadata = serde_json::json!({"edge-sync": {"id": "somebody"}});
    let old = world.qdrant().collections["c"].clone();
    let new = match how {
        "made anew by a device" => world::Collection {
            metadata,
            ..world::Collection::default()
        },
        "made anew without metadata" => world::Collection::default(),
        "gone" => {
            world.qdrant().collections.clear();
            return;
        }
        "an alias now" => {
            let metadata = old.metadata.clone();
            world::Collection {
                metadata,
                ..world::Collection::used(3, 3)
            }
        }
        other => panic!("{other}"),
    };
    world.qdrant().collections.insert("c".to_owned(), new);
}

#[test]
fn a_collection_that_is_another_is_never_written_and_the_finding_stays() {
    for how in [
        "made anew by a device",
        "made anew without metadata",
        "gone",
        "an alias now",
    ] {
        for forgets in [false, true] {
            let mut world = World::new(upserts(10));
            world
                .device
                .log
                .extend((0..10).map(|value| Op::set(&[1], value)));
            world.qdrant().forgets_metadata = forgets;
            assert_eq!(world.run(), End::Done);
            world.device.log.extend(upserts(3));
            replaced(&mut world, how);
            world.restart();
            let before = world.writes();
            let words = world.run().stop();
            assert!(words.contains("--resend"), "{how}: {words}");
            assert_eq!(world.device.acknowledged, 20, "{how}");
            let writes = if how == "gone" { 0 } else { world.writes() };
            assert!(writes == 0 || writes == before, "{how}");
            assert_eq!(world.qdrant().created, 1, "{how}");
            if how == "gone" {
                // It comes back as another one.
                replaced_later(&mut world);
                world.restart();
                assert!(world.run().stop().contains("--resend"));
            }
            // Others write, and it looks right again.
            let catch_up = world::Collection {
                metadata: world.qdrant().collections["c"].metadata.clone(),
                ..world::Collection::used(1_000, 10)
            };
            world.qdrant().collections.insert("c".to_owned(), catch_up);
            for _ in 0..20 {
                world.restart();
                world.run().stop();
            }
            assert_eq!(world.writes(), 0, "{how}");
            // A person decides.
            world.device.log.extend(upserts(10));
            world.permit(false, true);
            assert_eq!(world.run(), End::Done);
            assert_eq!(world.device.binding.clone().unwrap().lost, None);
            world.restart();
            world.device.log.push(Op::upsert(11, 1));
            assert_eq!(world.run(), End::Done);
        }
    }
}

fn replaced_later(world: &mut World) {
    let new = world::Collection::default();
    world.qdrant().collections.insert("c".to_owned(), new);
}

#[test]
fn a_collection_that_was_replaced_while_nothing_went_up_is_not_written() {
    let mut world = in_step(3, (0..10).map(|value| Op::set(&[1], value)).collect());
    assert_eq!(world.run(), End::Done);
    // The same process, a while later.
    replaced(&mut world, "made anew without metadata");
    world.device.log.push(Op::upsert(9, 9));
    world.run().stop();
    assert_eq!(world.qdrant().collections["c"].writes, 0);
}

/// Writes every ten seconds for `seconds`; how the queue was stopped, if it was.
fn busy(world: &mut World, seconds: u64) -> Option<String> {
    for at in 0..seconds / 10 {
        world.network.now += 10_000;
        world.device.log.push(Op::set(&[1], at));
        let mut end = None;
        world.step_until(|step| {
            if let Step::Stop(failure) = step {
                end = Some(failure.message.clone());
            }
            *step == Step::Done || end.is_some()
        });
        if end.is_some() {
            return end;
        }
    }
    None
}

#[test]
fn what_was_replaced_under_a_busy_worker_is_noticed_within_a_minute() {
    for aliased in [true, false] {
        let mut world = World::new(upserts(3));
        if aliased {
            let there = world::Collection::default();
            world.qdrant().collections.insert("a".to_owned(), there);
            world.qdrant().aliases.insert("c".into(), "a".into());
        }
        assert_eq!(world.run(), End::Done);
        let before = world.network.exchanges.len();
        assert_eq!(busy(&mut world, 600), None);
        // It was looked at once a minute, not for each write.
        let exchanges = &world.network.exchanges[before..];
        let looks = exchanges
            .iter()
            .filter(|(request, _)| request.method == "GET" && request.path.is_empty())
            .count();
        assert!((5..=10).contains(&looks), "{looks} looks in ten minutes");

        // Its operations have higher numbers, and no write fails.
        let mut other = world::Collection::used(100_000, 3);
        let point = other.state.points.values().next().unwrap().clone();
        other.state.points.insert(1, point);
        if aliased {
            world.qdrant().collections.insert("b".to_owned(), other);
            world.qdrant().aliases.insert("c".into(), "b".into());
        } else {
            other.metadata = serde_json::json!({"edge-sync": {"id": "somebody"}});
            world.qdrant().collections.insert("c".to_owned(), other);
        }
        let words = busy(&mut world, 600).expect("a stop");
        let says = if aliased {
            "leads to the collection `b`"
        } else {
            "another identity"
        };
        assert!(words.contains(says), "{words}");
        let name = if aliased { "b" } else { "c" };
        let writes = world.qdrant().collections[name].writes;
        assert!(writes <= 7, "{writes} writes to another collection");
    }
}

#[test]
fn a_collection_of_others_gets_an_identity_that_tells_it_from_one_made_anew() {
    for may_not_manage in [false, true] {
        let mut world = World::new(upserts(3));
        let theirs = world::Collection {
            metadata: serde_json::json!({"owner": "others"}),
            ..world::Collection::used(10, 4)
        };
        world.qdrant().collections.insert("c".to_owned(), theirs);
        world.qdrant().may_not_manage = may_not_manage;
        assert_eq!(world.run(), End::Done);
        let metadata = world.qdrant().collections["c"].metadata.clone();
        assert_eq!(metadata["owner"], "others");
        assert_eq!(metadata.as_object().unwrap().len() == 1, may_not_manage);
        // Another device finds it there, and takes none away.
        let mut other = World::new(vec![Op::upsert(77, 1)]);
        std::mem::swap(&mut other.network, &mut world.network);
        assert_eq!(other.run(), End::Done);
        std::mem::swap(&mut other.network, &mut world.network);
        assert_eq!(world.qdrant().collections["c"].metadata, metadata);
        if may_not_manage {
            assert_eq!(world.device.binding.as_ref().unwrap().id, None);
            // A key that may is all that lacks.
            world.qdrant().may_not_manage = false;
            world.restart();
            world.device.log.push(Op::upsert(1, 2));
            assert_eq!(world.run(), End::Done);
        }
        let id = world.device.binding.as_ref().unwrap().id.clone();
        assert!(id.is_some());
        // Somebody makes it anew and writes more than there was.
        let mut anew = world::Collection::used(1_000, 10);
        anew.metadata = serde_json::json!({"owner": "others"});
        world.qdrant().collections.insert("c".to_owned(), anew);
        world.device.log.push(Op::upsert(2, 3));
        world.restart();
        let words = world.run().stop();
        assert!(words.contains("another identity"), "{words}");
        assert_eq!(world.qdrant().collections["c"].writes, 0);
    }
}

#[test]
fn two_devices_that_give_an_identity_at_once_both_keep_one() {
    let mut world = World::new(upserts(3));
    world
        .qdrant()
        .collections
        .insert("c".to_owned(), world::Collection::used(10, 4));
    assert_eq!(world.run(), End::Done);
    // The other one had looked before the first one wrote.
    let metadata = &mut world.qdrant().collections.get_mut("c").unwrap().metadata;
    metadata["edge-sync:00000000-0000-4000-8000-000000000000"] = true.into();
    world.device.log.push(Op::upsert(9, 1));
    assert_eq!(world.run(), End::Done);
    world.restart();
    world.device.log.push(Op::upsert(9, 2));
    assert_eq!(world.run(), End::Done);
}

#[test]
fn an_identity_tells_what_numbers_do_not() {
    let mut world = in_step(3, vec![Op::upsert(4, 4)]);
    let metadata = serde_json::json!({"edge-sync": {"id": "somebody"}});
    let new = world::Collection {
        metadata,
        ..world::Collection::used(1_000, 10)
    };
    world.qdrant().collections.insert("c".to_owned(), new);
    assert!(world.run().stop().contains("another identity"));
    assert_eq!(world.qdrant().collections["c"].writes, 0);
}

#[test]
fn a_backup_with_the_same_identity_and_as_many_points_is_found_before_a_write() {
    let mut world = in_step(10, vec![Op::set(&[1], 1)]);
    let backup = world.qdrant().collections["c"].clone();
    assert_eq!(world.run(), End::Done);
    world.device.log.push(Op::set(&[2], 2));
    assert_eq!(world.run(), End::Done);
    world
        .qdrant()
        .collections
        .insert("c".to_owned(), backup.clone());
    world.device.log.push(Op::set(&[3], 3));
    world.restart();
    let words = world.run().stop();
    assert!(
        words.contains("went back to a backup") && words.contains("restore --force"),
        "{words}"
    );
    assert_eq!(world.qdrant().collections["c"].writes, backup.writes);
}

#[test]
fn a_collection_is_made_only_if_nothing_was_ever_acknowledged_or_restored() {
    let mut world = World::new(upserts(2));
    assert_eq!(world.step(), Step::Collection { created: true });
    assert_eq!(world.qdrant().collections["c"].shards, 1);
    for by_itself in [true, false] {
        let mut world = World::new(upserts(2));
        if by_itself {
            world.device.acknowledge_by_itself(1);
        } else {
            world.device.restored = true;
        }
        assert!(world.run().stop().contains("Nothing was created"));
        assert_eq!(world.qdrant().created, 0);
        if !by_itself {
            // Somebody makes one of the name: it is not what this shard was restored from.
            replaced_later(&mut world);
            world.restart();
            assert!(world.run().stop().contains("--resend"));
            assert_eq!(world.writes(), 0);
            world.qdrant().collections.clear();
        }
        world.permit(false, true);
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.qdrant().created, 1);
    }
    let mut world = World::new(Vec::new());
    let Ok(step) = world
        .uploader
        .prepare(&mut world.device, &mut world.network, false);
    let Step::Stop(failure) = step else {
        panic!("{step:?}")
    };
    assert!(failure.message.contains("`sync` creates it"));
    assert_eq!(world.qdrant().created, 0);
}

#[test]
fn what_was_put_aside_or_skipped_does_not_keep_a_collection_from_being_made() {
    let mut world = World::new(upserts(3));
    world.device.skip();
    let Ok(()) = edge_sync_upload::Queue::reject(&mut world.device, 2, 400, "Wrong input: no");
    // A service looks before anything may be made; that must leave nothing behind.
    let Ok(step) = world
        .uploader
        .prepare(&mut world.device, &mut world.network, false);
    assert!(matches!(step, Step::Stop(_)), "{step:?}");
    assert_eq!(world.device.binding, None);
    world.restart();
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.qdrant().created, 1);
    assert_eq!(world.device.rejected(), [1, 2]);
    assert_eq!(world.points(), [3]);
}

#[test]
fn a_binding_that_names_no_place_takes_any_and_makes_none() {
    let mut world = World::new(upserts(2));
    world.device.acknowledge_by_itself(1);
    assert!(world.device.binding.clone().unwrap().names_no_place());
    world.network.collection = "d".to_owned();
    world.restart();
    let words = world.run().stop();
    assert!(words.contains("Nothing was created"), "{words}");
    assert!(world.device.binding.clone().unwrap().names_no_place());
    let there = world::Collection::used(7, 3);
    world.qdrant().collections.insert("d".to_owned(), there);
    world.restart();
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.qdrant().created, 0);
    let bound = world.device.binding.clone().unwrap();
    assert_eq!((bound.collection.as_str(), bound.points), ("d", 4));
}

#[test]
fn resend_alone_does_not_lead_to_another_place() {
    let mut world = in_step(10, vec![Op::upsert(11, 1)]);
    let there = world::Collection::used(7, 0);
    world.qdrant().collections.insert("d".to_owned(), there);
    world.network.collection = "d".to_owned();
    world.restart();
    world.permit(false, true);
    let words = world.run().stop();
    assert!(words.contains("--rebind --resend"), "{words}");
    assert_eq!(world.qdrant().collections["d"].writes, 0);
    world.permit(true, true);
    assert_eq!(world.run(), End::Done);
    assert!(world.qdrant().collections["d"].writes > 0);
    assert_eq!(world.device.binding.clone().unwrap().collection, "d");
}

#[test]
fn deletions_by_others_before_the_first_number_are_no_loss() {
    // What this device wrote is refused, or cut off before it is confirmed; the points are others'.
    for refused in [true, false] {
        let mut world = World::new(vec![Op::set(&[99], 1)]);
        let used = world::Collection::used(10, 10);
        world.qdrant().collections.insert("c".to_owned(), used);
        if refused {
            assert_eq!(world.run(), End::Done);
        } else {
            world.step();
            world.restart();
            world.step();
        }
        let collection = world.qdrant().collections.get_mut("c").unwrap();
        collection.state.points.clear();
        collection.next_operation += 1;
        world.restart();
        world.device.log.push(Op::upsert(1, 1));
        assert_eq!(world.run(), End::Done);
    }
}

#[test]
fn a_process_remembers_a_number_that_is_not_stored() {
    let mut world = in_step(3, Vec::new());
    let backup = world.qdrant().collections["c"].clone();
    let Ok(step) = world
        .uploader
        .prepare(&mut world.device, &mut world.network, true);
    assert_eq!(step, Step::Collection { created: false });
    assert!(world.uploader.binding().operation > world.device.binding.clone().unwrap().operation);
    world.qdrant().collections.insert("c".to_owned(), backup);
    world.device.log.push(Op::upsert(1, 9));
    let words = world.run().stop();
    assert!(words.contains("went back to a backup"), "{words}");
}

#[test]
fn two_devices_that_make_one_collection_share_it() {
    let mut world = World::new(upserts(2));
    // The other one is faster, between the look and the making.
    replaced_later(&mut world);
    world.network.proxy.faults = [Some(Fault::Page {
        status: 404,
        body: r#"{"status": {"error": "Not found: Collection `c` doesn't exist!"}}"#.to_owned(),
    })]
    .into();
    assert_eq!(world.run(), End::Done);
    assert_eq!((world.qdrant().created, world.points().len()), (0, 2));
}

#[test]
fn an_alias_that_moves_is_found_and_one_that_cannot_be_read_is_kept() {
    let aliased = || {
        let mut world = World::new(upserts(2));
        world
            .qdrant()
            .collections
            .insert("a".into(), world::Collection::default());
        world.qdrant().aliases.insert("c".into(), "a".into());
        assert_eq!(world.run(), End::Done);
        world.device.log.push(Op::upsert(9, 9));
        world.restart();
        world
    };
    let mut world = aliased();
    world
        .qdrant()
        .collections
        .insert("b".into(), world::Collection::used(500, 5));
    world.qdrant().aliases.insert("c".into(), "b".into());
    assert!(world.run().stop().contains("leads to the collection `b`"));
    assert_eq!(world.qdrant().collections["b"].writes, 0);

    let mut world = aliased();
    world.qdrant().aliases.clear();
    world
        .qdrant()
        .collections
        .insert("c".into(), world::Collection::used(500, 5));
    assert!(world.run().stop().contains("is none now"));
    assert_eq!(world.qdrant().collections["c"].writes, 0);

    // Cut while the aliases are asked for: asked again, and not forgotten.
    for fault in [Fault::CutBefore, page(404)] {
        let mut world = aliased();
        world.network.proxy.faults = vec![None, Some(fault)].into();
        assert_eq!(world.run(), End::Done);
        assert_eq!(world.device.binding.unwrap().alias_of.as_deref(), Some("a"));
    }
}

/// Operations of replicas are numbered by each; how many points there are is all that tells.
fn replicated(points: u64) -> World {
    let mut world = World::new(upserts(points));
    world.qdrant().collections.insert(
        "c".to_owned(),
        world::Collection {
            replicas: 2,
            ..world::Collection::default()
        },
    );
    assert_eq!(world.run(), End::Done);
    world.restart();
    world
}

#[test]
fn without_numbers_many_fewer_points_stop_the_queue_and_the_finding_stays() {
    let mut world = replicated(10);
    world.device.log.push(Op::upsert(1, 1));
    let kept = world.qdrant().collections["c"].clone();
    world
        .qdrant()
        .collections
        .get_mut("c")
        .unwrap()
        .state
        .points
        .retain(|id, _| *id < 3);
    let words = world.run().stop();
    assert!(words.contains("holds 2 points where it held 10"), "{words}");
    world.qdrant().collections.insert("c".to_owned(), kept);
    world.restart();
    world.run().stop();
    assert_eq!(world.device.acknowledged, 10);
    // A person says that it is the same.
    world.permit(true, false);
    assert_eq!(world.run(), End::Done);
}

#[test]
fn a_devices_own_deletions_are_no_alarm_even_if_the_run_was_not_concluded() {
    let mut world = replicated(10);
    world.device.log.push(Op::Delete {
        ids: (1..=9).collect(),
    });
    world.step_until(|step| *step == Step::Done);
    // Killed here.
    world.restart();
    world.device.log.push(Op::upsert(5, 5));
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.points(), [5, 10]);
}

#[test]
fn deletions_by_other_devices_are_no_alarm_where_operations_are_numbered() {
    let mut world = in_step(10, vec![Op::upsert(1, 1)]);
    let collection = world.qdrant().collections.get_mut("c").unwrap();
    collection.state.points.clear();
    world.restart();
    assert_eq!(world.run(), End::Done);
}

#[test]
fn looking_every_few_minutes_raises_no_alarm_and_writes_nothing() {
    let mut world = in_step(10, Vec::new());
    let (bound, writes) = (world.device.bound, world.writes());
    for _ in 0..50 {
        let Ok(step) = world
            .uploader
            .prepare(&mut world.device, &mut world.network, false);
        assert_eq!(step, Step::Collection { created: false });
        world.network.busy = 0;
    }
    assert_eq!((world.device.bound, world.writes()), (bound, writes));
}

#[test]
fn another_place_needs_rebind_and_a_mistaken_one_says_nothing_against_the_old() {
    let mut world = in_step(10, vec![Op::upsert(11, 1)]);
    world
        .qdrant()
        .collections
        .insert("d".to_owned(), world::Collection::used(7, 0));
    world.network.collection = "d".to_owned();
    world.restart();
    assert!(world.run().stop().contains("--rebind"));
    world.permit(true, false);
    let words = world.run().stop();
    assert!(words.contains("--rebind --resend"), "{words}");
    assert_eq!(world.qdrant().collections["d"].writes, 0);
    // The settings are put right.
    world.network.collection = "c".to_owned();
    world.restart();
    assert_eq!(world.run(), End::Done);
}

#[test]
fn a_collection_that_moved_counts_from_the_beginning() {
    let mut world = in_step(10, vec![Op::upsert(11, 1)]);
    let mut moved = world.qdrant().collections["c"].clone();
    moved = world::Collection {
        metadata: moved.metadata.take(),
        state: moved.state,
        ..world::Collection::default()
    };
    world.qdrant().collections.insert("d".to_owned(), moved);
    world.network.collection = "d".to_owned();
    world.restart();
    world.permit(true, false);
    assert_eq!(world.run(), End::Done);
    world.device.log.push(Op::upsert(12, 1));
    world.restart();
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.points().len(), 12);
}

#[test]
fn a_rebinding_to_a_collection_that_counts_anew_is_stored_with_the_look() {
    for writes in [0, 1, 2] {
        let mut world = in_step(10, (0..5).map(|value| Op::set(&[1], value)).collect());
        assert_eq!(world.run(), End::Done);
        // The same identity and as many points; only its operations are numbered from the beginning.
        world
            .qdrant()
            .collections
            .get_mut("c")
            .unwrap()
            .next_operation = 0;
        world
            .device
            .log
            .extend((0..5).map(|value| Op::set(&[2], value)));
        world.options.limits.operations = 1;
        world.restart();
        world.permit(true, false);
        for _ in 0..=writes {
            let step = world.step();
            assert!(!matches!(step, Step::Stop(_)), "{step:?}");
        }
        // The process ends without a word; the next one needs no permission.
        world.restart();
        assert_eq!(world.run(), End::Done, "after {writes} writes");
        assert_eq!(world.device.acknowledged, 20);
    }
}

#[test]
fn what_a_check_before_a_restore_finds_stays() {
    let mut world = in_step(10, (0..20).map(|value| Op::set(&[1], value)).collect());
    assert_eq!(world.run(), End::Done);
    let metadata = world.qdrant().collections["c"].metadata.clone();
    let backup = world::Collection {
        metadata,
        ..world::Collection::used(5, 9)
    };
    world.qdrant().collections.insert("c".to_owned(), backup);
    for _ in 0..20 {
        let Ok(standing) = edge_sync_upload::Queue::standing(&mut world.device);
        let Ok(check) = world
            .uploader
            .check_restore(Some(&standing), &mut world.network, false);
        assert!(
            matches!(check, edge_sync_upload::RestoreCheck::Stop(_)),
            "{check:?}"
        );
        let Ok(()) = world.uploader.keep_finding(&mut world.device);
    }
    world.device.log.push(Op::upsert(1, 1));
    assert!(world.run().stop().contains("restore --force"));
    let Ok(standing) = edge_sync_upload::Queue::standing(&mut world.device);
    let Ok(check) = world
        .uploader
        .check_restore(Some(&standing), &mut world.network, true);
    assert!(
        matches!(check, edge_sync_upload::RestoreCheck::Ready(_)),
        "{check:?}"
    );
}

#[test]
fn a_drain_before_a_restore_knows_the_row_of_refusals() {
    let mut world = in_step(1, (10..40).map(|id| Op::upsert(id, 1)).collect());
    world.qdrant().refuse_upserts = vec!["Bad request: not today".to_owned()];
    for _ in 0..4 {
        world.restart();
        let Ok(standing) = edge_sync_upload::Queue::standing(&mut world.device);
        let Ok(check) = world
            .uploader
            .check_restore(Some(&standing), &mut world.network, false);
        let edge_sync_upload::RestoreCheck::Ready(binding) = check else {
            panic!("{check:?}")
        };
        let Ok(()) = world.uploader.accept(&mut world.device, &binding);
        world.run().stop();
    }
    assert_eq!(world.device.rejected().len(), MOST_ALIKE as usize);
}

#[test]
fn numbers_of_a_run_that_stopped_are_kept() {
    let mut world = in_step(1, (0..30).map(|at| Op::set(&[1], at)).collect());
    world
        .device
        .log
        .extend((10..20).map(|id| Op::BadUpsert { id }));
    world.run().stop();
    let operation = world.device.binding.clone().unwrap().operation.unwrap();
    assert!(operation >= 31, "{operation}");
}

#[test]
fn a_collection_replaced_in_mid_run_gets_one_request_at_most() {
    let mut world = in_step(1, upserts(100));
    for _ in 0..10 {
        if world.device.acknowledged < 40 {
            world.step();
        }
    }
    replaced(&mut world, "made anew without metadata");
    let words = world.go_on().stop();
    assert!(words.contains("made anew"), "{words}");
    assert_eq!(world.qdrant().collections["c"].writes, 1);
    let acknowledged = world.device.acknowledged;
    world.restart();
    world.run().stop();
    assert_eq!(world.device.acknowledged, acknowledged);
    assert_eq!(world.qdrant().collections["c"].writes, 1);
}

// --- The queue changes under the machine ---

#[test]
fn an_operation_behind_one_that_was_skipped_is_sent_as_it_is() {
    let mut world = in_step(
        3,
        vec![Op::set(&[1, 9], 7), Op::set(&[2, 8], 7), Op::upsert(4, 4)],
    );
    world.options.limits.operations = 1;
    world.restart();
    // The first is about to be sent to those points that are there.
    world.step_until(|step| *step == Step::Again);
    world.device.skip();
    assert_eq!(world.go_on(), End::Done);
    assert_eq!(world.device.rejected(), [4, 5]);
    assert!(world.device.words(5).contains("No point with id 8"));
}

#[test]
fn pieces_that_another_collection_got_are_sent_again() {
    let ids: Vec<u64> = (1..=10).collect();
    let mut world = in_step(10, vec![Op::set(&ids, 7)]);
    world.options.limits.points = 4;
    world.restart();
    world.step_until(|step| matches!(step, Step::Uploaded { operations: 0 }));
    let Ok(standing) = edge_sync_upload::Queue::standing(&mut world.device);
    world
        .qdrant()
        .collections
        .insert("c".to_owned(), world::Collection::used(900, 0));
    let collection = world.qdrant().collections.get_mut("c").unwrap();
    let point = || (serde_json::json!([1, 1]), serde_json::Map::new());
    collection
        .state
        .points
        .extend((1..=10).map(|id| (id, point())));
    let Ok(check) = world
        .uploader
        .check_restore(Some(&standing), &mut world.network, true);
    let edge_sync_upload::RestoreCheck::Ready(binding) = check else {
        panic!("{check:?}")
    };
    let Ok(()) = world.uploader.accept(&mut world.device, &binding);
    assert_eq!(world.run(), End::Done);
    let state = world.state();
    assert!(ids.iter().all(|id| state.points[id].1["s"] == 7));
}

#[test]
fn a_process_that_ends_between_pieces_begins_the_operation_anew() {
    let ids: Vec<u64> = (1..=9).chain([99]).collect();
    let mut world = in_step(9, vec![Op::set(&ids, 7)]);
    world.options.limits.points = 2;
    for _ in 0..3 {
        world.restart();
        world.step_until(|step| matches!(step, Step::Uploaded { operations: 0 }));
    }
    assert_eq!(world.run(), End::Done);
    assert_eq!(world.device.rejected(), [10]);
    assert!(
        world
            .state()
            .points
            .values()
            .all(|(_, payload)| payload["s"] == 7)
    );
}

/// Operations of each upload request.
fn sent(world: &World) -> Vec<usize> {
    let is_batch = |request: &edge_sync_upload::Request| request.path.starts_with("/points/batch");
    let exchanges = world.network.exchanges.iter();
    let requests = exchanges.filter(|(request, _)| is_batch(request));
    requests
        .map(|(request, _)| world::tags(request).len())
        .filter(|operations| *operations > 0)
        .collect()
}

#[test]
fn requests_grow_while_the_server_is_quick_and_shrink_when_it_is_slow() {
    let run = |delay| {
        let mut world = World::new(upserts(200));
        world.options.most_operations = 64;
        world.network.delay = delay;
        world.restart();
        assert_eq!(world.run(), End::Done);
        sent(&world)
    };
    assert_eq!(run(20), [10, 20, 40, 64, 64, 2]);
    // The link bears no more than this within a second.
    assert_eq!(run(1_500), [10; 20]);
    let mut world = World::new(upserts(200));
    world.options.most_operations = 64;
    world.restart();
    world.step_until(|step| matches!(step, Step::Uploaded { operations: 40 }));
    world.network.delay = 6_000;
    world.step_until(|step| matches!(step, Step::Uploaded { .. }));
    world.network.delay = 2_000;
    assert_eq!(world.run(), End::Done);
    assert_eq!(sent(&world)[..5], [10, 20, 40, 64, 32]);
}

#[test]
fn two_machines_of_one_seed_wait_alike() {
    let machine = || {
        let target = edge_sync_upload::Target::new("http://h", "c");
        Uploader::new(target, edge_sync_upload::Options::default(), 5)
    };
    let waits = |mut machine: Uploader| {
        let mut world = World::new(upserts(1));
        world.network.proxy.faults = vec![Some(Fault::Unreached); 5].into();
        (0..5)
            .map(|_| {
                let Ok(step) = machine.step(&mut world.device, &mut world.network, None);
                step
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(waits(machine()), waits(machine()));
}
