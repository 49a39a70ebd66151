//! Leases on virtual time, against fleets that do what they like.

use super::*;
use proptest::prelude::*;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn place(node: usize, worker: usize) -> Place {
    (NodeId::new(format!("gpu-{node:02}")).unwrap(), WorkerId::new(format!("w{worker}")).unwrap())
}

fn ask(id: u64, worker: usize, ready: bool) -> Ask {
    Ask { id, worker: place(0, worker).1, cause: Cause::Wedged, ready }
}

/// A fleet of so many nodes of one worker each, of which the first so many are ready.
fn fleet(nodes: usize, ready: usize) -> Fleet {
    Fleet {
        known: (0..nodes).map(|node| place(node, 0)).collect(),
        ready: (0..ready).map(|node| place(node, 0)).collect(),
    }
}

/// After the first life, when the limit is what the fleet's size says.
fn settled() -> Leases {
    Leases::new(Duration::ZERO)
}

const LATER: Duration = Duration::from_secs(3_600);

fn granted(answer: &Answer) -> bool {
    matches!(answer, Answer::Granted(_))
}

fn reason(answer: Answer) -> String {
    match answer {
        Answer::Denied { reason, retry_after } => {
            assert!(retry_after >= secs(1) && retry_after <= RETRY);
            reason
        }
        Answer::Granted(_) => panic!("granted"),
    }
}

#[test]
fn in_a_fleet_of_three_one_may_go_at_a_time_and_two_stay() {
    let mut leases = settled();
    let (first, second) = (place(0, 0).0, place(1, 0).0);
    assert_eq!(leases.ask(&first, &ask(1, 0, true), &fleet(3, 3), LATER), Answer::Granted(LIFE));
    // The newest values do not know of it yet.
    let said = reason(leases.ask(&second, &ask(1, 0, true), &fleet(3, 3), LATER));
    assert_eq!(said, "without it 1 of 3 workers would be ready, and 2 have to be");
    leases.give_back(&first, 1);
    assert!(granted(&leases.ask(&second, &ask(2, 0, true), &fleet(3, 3), LATER)));
}

#[test]
fn a_fleet_of_one_may_be_restarted_and_of_two_the_last_that_is_ready_may_not() {
    let node = place(0, 0).0;
    assert!(granted(&settled().ask(&node, &ask(1, 0, true), &fleet(1, 1), LATER)));
    assert!(granted(&settled().ask(&node, &ask(1, 0, true), &Fleet::default(), LATER)), "nor one of nobody");
    assert!(granted(&settled().ask(&node, &ask(1, 0, true), &fleet(2, 2), LATER)));
    let said = reason(settled().ask(&node, &ask(1, 0, true), &fleet(2, 1), LATER));
    assert_eq!(said, "without it 0 of 2 workers would be ready, and 1 have to be");
}

#[test]
fn the_floor_never_refuses_a_worker_that_is_not_ready() {
    for (nodes, ready) in [(1, 0), (2, 0), (3, 1), (40, 3)] {
        let node = place(nodes - 1, 0).0;
        assert!(granted(&settled().ask(&node, &ask(1, 0, false), &fleet(nodes, ready), LATER)));
    }
}

#[test]
fn so_many_go_at_a_time_as_the_fleet_is_large_and_one_for_a_life_after_a_start() {
    for (nodes, limit) in [(1, 1), (9, 1), (19, 1), (20, 2), (57, 5)] {
        let mut leases = settled();
        let grants = |leases: &mut Leases, now| {
            let fleet = fleet(nodes, 0);
            let mut answers =
                (0..nodes).map(|node| leases.ask(&place(node, 0).0, &ask(1, 0, false), &fleet, now));
            answers.by_ref().filter(granted).count()
        };
        assert_eq!(grants(&mut leases, secs(1)), 1, "{nodes} after a start");
        let mut leases = settled();
        assert_eq!(grants(&mut leases, LATER), limit, "{nodes}");
        assert_eq!(leases.counts().held, limit as u64);
    }
}

#[test]
fn a_node_has_one_lease_and_is_told_whose() {
    let mut leases = settled();
    let node = place(0, 0).0;
    assert!(granted(&leases.ask(&node, &ask(1, 0, false), &fleet(40, 40), LATER)));
    let said = reason(leases.ask(&node, &ask(2, 1, false), &fleet(40, 40), LATER));
    assert_eq!(said, "worker `w0` of this node is being restarted");
}

#[test]
fn a_lease_is_the_nodes_until_its_one_life_is_over_whoever_asks_again() {
    let mut leases = settled();
    let (node, other) = (place(0, 0).0, place(1, 0).0);
    assert!(granted(&leases.ask(&node, &ask(1, 0, false), &fleet(3, 3), LATER)));
    // An agent that was started again, with new numbers, after its connection was lost.
    let again = leases.ask(&node, &ask(77, 0, false), &fleet(3, 2), LATER + secs(200));
    assert_eq!(again, Answer::Granted(LIFE - secs(200)), "no longer than it was");
    leases.give_back(&node, 1);
    let said = reason(leases.ask(&other, &ask(1, 0, false), &fleet(3, 2), LATER + secs(300)));
    assert!(said.contains("gpu-00/w0"), "{said}");
    assert!(granted(&leases.ask(&other, &ask(2, 0, false), &fleet(3, 2), LATER + LIFE)));
    assert_eq!(leases.counts(), Counts { held: 1, granted: 2, denied: 1, expired: 1 });
}

#[test]
fn who_is_not_ready_comes_before_who_is_and_who_stops_asking_holds_nobody_up() {
    let mut leases = settled();
    let [holder, planned, broken] = [0, 1, 2].map(|node| place(node, 0).0);
    let fleet = fleet(5, 5);
    assert!(granted(&leases.ask(&holder, &ask(1, 0, false), &fleet, LATER)));
    reason(leases.ask(&planned, &ask(1, 0, true), &fleet, LATER));
    reason(leases.ask(&broken, &ask(1, 0, false), &fleet, LATER + secs(1)));
    leases.give_back(&holder, 1);
    let said = reason(leases.ask(&planned, &ask(2, 0, true), &fleet, LATER + secs(2)));
    assert!(said.ends_with("before it: 1 nodes"), "{said}");
    assert!(granted(&leases.clone().ask(&broken, &ask(2, 0, false), &fleet, LATER + secs(3))));
    assert!(granted(&leases.ask(&planned, &ask(3, 0, true), &fleet, LATER + secs(1) + PATIENCE)));
}

#[test]
fn known_is_what_was_heard_and_ready_what_is_said_now() {
    use diarwatch_shared::frame::{Body, Group};
    use diarwatch_shared::reading::Missing;
    use diarwatch_shared::schema::{GroupDef, Schema, SeriesDef, SeriesKey};
    let at = UnixMicros(1_764_826_335_000_000);
    let mut memory = Memory::new(secs(900), &[]);
    let workers = [("a", Ok(1.0)), ("b", Ok(0.0)), ("c", Err(Missing::NotYet)), ("no name", Ok(1.0))];
    let def = |worker: &str| SeriesDef::of(SeriesKey::new("worker_ready", &[("worker", worker)]));
    let series = workers.iter().map(|(worker, _)| def(worker)).collect();
    let schema = Schema::new(vec![GroupDef { name: "w".into(), series }]);
    let columns = workers.iter().map(|(_, reading)| vec![*reading]).collect();
    let body = Body { groups: vec![Group { times: vec![at], columns }] };
    let node = place(0, 0).0;
    memory.nodes.entry(node.clone()).or_default();
    memory.head.insert(&node, &schema, &body, at, true);
    let sending = BTreeSet::from([node.to_string()]);
    let seen = Fleet::of(&memory, &sending, at);
    let names = |places: &BTreeSet<Place>| -> Vec<String> {
        places.iter().map(|(_, worker)| worker.to_string()).collect()
    };
    assert_eq!(
        (names(&seen.known), names(&seen.ready)),
        (vec!["a".into(), "b".into(), "c".into()], vec!["a".into()])
    );
    let late = Fleet::of(&memory, &sending, at.plus(secs(60)));
    assert_eq!((late.known.len(), late.ready.len()), (3, 0), "an old value is not the present");
    assert_eq!(Fleet::of(&memory, &BTreeSet::new(), at).ready.len(), 0, "nor is that of a silent node");
}

/// What a fleet does to the leases.
#[derive(Clone, Debug)]
enum Step {
    Ask { node: usize, worker: usize, ready: bool },
    GiveBack { node: usize },
    Turn { node: usize, worker: usize, ready: bool },
    Wait(u64),
}

fn step(nodes: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..nodes, 0..2_usize, any::<bool>())
            .prop_map(|(node, worker, ready)| Step::Ask { node, worker, ready }),
        2 => (0..nodes).prop_map(|node| Step::GiveBack { node }),
        3 => (0..nodes, 0..2_usize, any::<bool>())
            .prop_map(|(node, worker, ready)| Step::Turn { node, worker, ready }),
        2 => (1..400_u64).prop_map(Step::Wait),
    ]
}

/// A fleet of so many nodes of two workers, and what it does.
fn lives() -> impl Strategy<Value = (usize, Vec<Step>)> {
    (1..30_usize).prop_flat_map(|nodes| (Just(nodes), prop::collection::vec(step(nodes), 1..300)))
}

proptest! {
    #[test]
    fn there_are_never_too_many_leases_and_no_grant_breaks_the_floor((nodes, steps) in lives()) {
        let mut leases = settled();
        let mut now = Duration::ZERO;
        let known: BTreeSet<Place> = (0..nodes).flat_map(|node| [place(node, 0), place(node, 1)]).collect();
        let mut fleet = Fleet { ready: known.clone(), known };
        let (mut id, mut last) = (0, BTreeMap::new());
        for step in steps {
            match step {
                Step::Ask { node, worker, ready } => {
                    id += 1;
                    let place = place(node, worker);
                    let had = leases.held.contains_key(&place.0);
                    let answer = leases.ask(&place.0, &ask(id, worker, ready), &fleet, now);
                    let Answer::Granted(life) = answer else { continue };
                    last.insert(node, id);
                    prop_assert!(life <= LIFE && life > Duration::ZERO);
                    let most = if now < LIFE { 1 } else { limit(nodes * 2) };
                    prop_assert!(leases.held.len() <= most);
                    if ready && !had {
                        let away = |place: &&Place| leases.held.get(&place.0).is_none_or(|held| held.worker != place.1);
                        let stay = fleet.ready.iter().filter(away).count();
                        prop_assert!(stay >= floor(nodes * 2), "{stay} of {}", nodes * 2);
                    }
                }
                Step::GiveBack { node } => {
                    leases.give_back(&place(node, 0).0, last.get(&node).copied().unwrap_or_default());
                }
                Step::Turn { node, worker, ready: true } => drop(fleet.ready.insert(place(node, worker))),
                Step::Turn { node, worker, ready: false } => drop(fleet.ready.remove(&place(node, worker))),
                Step::Wait(seconds) => now += secs(seconds),
            }
        }
        leases.expire(now + LIFE);
        prop_assert_eq!(leases.counts().held, 0, "all leases end");
        prop_assert!(leases.waiting.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Nobody gives anything back, everybody asks as often as it is told to, and ready workers ask before.
    #[test]
    fn a_worker_that_is_not_ready_waits_for_those_before_it_and_no_longer(
        nodes in 1..24_usize,
        planned in 0..12_usize,
        jitter in prop::collection::vec(0..3_000_u64, 36),
    ) {
        let mut leases = settled();
        let all = nodes + planned;
        let fleet = fleet(all, all);
        let mut next: BTreeMap<usize, Duration> =
            (0..all).map(|node| (node, LATER + Duration::from_millis(jitter[node]))).collect();
        let mut got = BTreeMap::new();
        // The first `nodes` are not ready, the rest are.
        while (0..nodes).any(|node| !got.contains_key(&node)) {
            let (&node, &now) = next.iter().min_by_key(|(_, at)| **at).unwrap();
            match leases.ask(&place(node, 0).0, &ask(1, 0, node >= nodes), &fleet, now) {
                Answer::Granted(_) => {
                    got.insert(node, now);
                    next.remove(&node);
                }
                Answer::Denied { retry_after, .. } => drop(next.insert(node, now + retry_after)),
            }
            let rounds = u32::try_from(nodes.div_ceil(limit(all)) + 1).unwrap();
            prop_assert!(now - LATER <= (LIFE + RETRY * 2) * rounds, "{node} still waits at {now:?}");
        }
    }
}
