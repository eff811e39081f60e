use policy::Class;

use super::super::list::Maker;
use super::super::{Admin, AdminState, EndpointShared};
use super::*;

fn member(name: &str, weight: u32) -> Member {
    let addresses = [ring::Address::Inet(name.parse().unwrap())].into();
    Member {
        name: name.into(),
        authority: name.into(),
        addresses,
        weight,
        tier: 0,
        limits: snapshot::EndpointLimits::default(),
        server: None,
        shared: Arc::new(EndpointShared::new(1, Now::ZERO)),
    }
}

fn pool() -> snapshot::Pool {
    let text = "[[listen]]\nname = \"l\"\naddr = \":1\"\n[[pool]]\nname = \"p\"\nendpoints = [\"a:1\"]\nbalance = \"round-robin\"\n";
    snapshot::read("test", text).unwrap_or_else(|report| panic!("{}", report.render())).snapshot.pools[0].clone()
}

fn list<const N: usize>(pool: &snapshot::Pool, members: [Member; N]) -> Members {
    Maker::new(pool, 1).make(members.to_vec())
}

fn pick(cluster: &Cluster, tried: &Tried) -> Option<Rc<Endpoint>> {
    pick_at(Now::from_secs(1), cluster, tried)
}

fn pick_at(now: Now, cluster: &Cluster, tried: &Tried) -> Option<Rc<Endpoint>> {
    let choice = Choice { tried, affinity: &Affinity::default(), repeatable: true, once: false };
    cluster.pick(&choice, now, &Counters::default()).ok()
}

fn picks(cluster: &Cluster, tried: &Tried) -> Vec<String> {
    let now = Now::from_secs(1);
    let mut names: Vec<String> = (0..6)
        .filter_map(|_| pick(cluster, tried))
        .map(|endpoint| {
            cluster.record(&endpoint, now, &Outcome::answered(Duration::from_millis(1), 200));
            endpoint.name.to_string()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

const A: &str = "10.0.0.1:1";
const B: &str = "10.0.0.2:1";
const C: &str = "10.0.0.3:1";

#[test]
fn a_breaker_that_opened_stays_open_in_a_new_list() {
    let (pool, counters) = (pool(), Counters::default());
    let (a, c) = (member(A, 1), member(C, 1));
    let cluster = Cluster::new(&pool, None, &list(&pool, [a.clone(), member(B, 1)]), (0, 1), 1);
    let now = Now::from_secs(1);
    let mut tried = Tried::default();
    let other = cluster.endpoints()[1].clone();
    tried.add(&other);
    for _ in 0..5 {
        let picked = pick(&cluster, &tried).unwrap();
        assert_eq!(&*picked.name, A);
        cluster.record(&picked, now, &Outcome::new(Duration::ZERO, Class::Refused));
    }
    assert_eq!(picks(&cluster, &Tried::default()), [B]);
    cluster.follow(&pool, &list(&pool, [c.clone(), a.clone()]), &counters);
    assert_eq!(picks(&cluster, &Tried::default()), [C]);
    assert_eq!((a.shared.sums().open, a.shared.sums().requests), (1, 5));
    // What left and came back has the name only.
    cluster.follow(&pool, &list(&pool, [c.clone()]), &counters);
    cluster.follow(&pool, &list(&pool, [c, member(A, 1)]), &counters);
    assert_eq!(picks(&cluster, &Tried::default()), [A, C]);
}

#[test]
fn a_request_avoids_the_endpoints_it_failed_at_wherever_they_stand_now() {
    let (pool, counters) = (pool(), Counters::default());
    let (a, b, c) = (member(A, 1), member(B, 1), member(C, 1));
    let cluster = Cluster::new(&pool, None, &list(&pool, [a.clone(), b.clone(), c.clone()]), (0, 1), 1);
    let mut tried = Tried::default();
    tried.add(&cluster.endpoints()[0].clone());
    assert_eq!(picks(&cluster, &tried), [B, C]);
    cluster.follow(&pool, &list(&pool, [b.clone(), a]), &counters);
    assert_eq!(picks(&cluster, &tried), [B]);
    cluster.follow(&pool, &list(&pool, [c, b]), &counters);
    assert_eq!(picks(&cluster, &tried), [B, C]);
}

#[test]
fn what_is_in_flight_at_one_that_left_still_ends_there() {
    let (pool, counters) = (pool(), Counters::default());
    let (a, b) = (member(A, 1), member(B, 1));
    let cluster = Cluster::new(&pool, None, &list(&pool, [a.clone()]), (0, 1), 1);
    let now = Now::from_secs(1);
    let picked = pick(&cluster, &Tried::default()).unwrap();
    cluster.follow(&pool, &list(&pool, [b]), &counters);
    assert_eq!((a.shared.sums().in_flight, picked.is_retired()), (1, true));
    assert!(cluster.pick_again(Rc::clone(&picked)).is_none());
    cluster.record(&picked, now, &Outcome::answered(Duration::from_millis(1), 200));
    assert_eq!((a.shared.sums().in_flight, a.shared.sums().requests), (0, 1));
    assert_eq!(picks(&cluster, &Tried::default()), [B]);
}

#[test]
fn no_more_wait_than_may() {
    let (pool, a) = (pool(), member(A, 1));
    let cluster = Cluster::new(&pool, None, &list(&pool, [a]), (0, 1), 1);
    let since = ring::Now::from_nanos(1_000_000_000);
    assert!(cluster.wait(&Tried::default(), since).is_none(), "there is nothing to wait for");
    for _ in 0..5 {
        let endpoint = pick(&cluster, &Tried::default()).expect("its breaker is closed");
        cluster.record(&endpoint, policy_now(since), &Outcome::new(Duration::ZERO, Class::Refused));
    }
    let wait = || cluster.wait(&Tried::default(), since);
    let mut waiting: Vec<_> = (0..limits::WAITING_MAX).map_while(|_| wait()).collect();
    assert_eq!(waiting.len(), limits::WAITING_MAX as usize);
    assert!(wait().is_none());
    waiting.pop();
    assert!(wait().is_some());
}

#[test]
fn weights_change_live_and_a_drained_endpoint_gets_nothing() {
    let (pool, counters) = (pool(), Counters::default());
    let (a, b) = (member(A, 1), member(B, 1));
    let cluster = Cluster::new(&pool, None, &list(&pool, [a.clone(), b.clone()]), (0, 1), 1);
    b.shared.set_admin(Admin { state: AdminState::Drain, ..Admin::default() });
    assert_eq!(picks(&cluster, &Tried::default()), [A]);
    b.shared.set_admin(Admin::default());
    cluster.follow(&pool, &list(&pool, [Member { weight: 0, ..a }, b]), &counters);
    assert_eq!(picks(&cluster, &Tried::default()), [B]);
    cluster.follow(&pool, &list(&pool, []), &counters);
    assert!(picks(&cluster, &Tried::default()).is_empty());
}

/// Two workers at an endpoint that takes one request at a time: one of them may find it full at any moment, but never gone, however the
/// other's comes and goes between two looks of its.
#[test]
fn a_place_that_moves_between_two_looks_is_no_endpoint_lost() {
    let mut pool = pool();
    pool.division.requests_max = Some(1);
    let shared = Arc::new(EndpointShared::new(2, Now::ZERO));
    let members = [Member { shared: Arc::clone(&shared), ..member(A, 1) }];
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (pool, members) = (&pool, members.clone());
            scope.spawn(move || {
                let (now, counters) = (Now::from_secs(1), Counters::default());
                let cluster = Cluster::new(pool, None, &Maker::new(pool, 2).make(members.to_vec()), (worker, 2), 1);
                for _ in 0..200_000 {
                    let choice = Choice {
                        tried: &Tried::default(),
                        affinity: &Affinity::default(),
                        repeatable: true,
                        once: false,
                    };
                    match cluster.pick(&choice, now, &counters) {
                        Ok(picked) => cluster.record(&picked, now, &Outcome::answered(Duration::from_millis(1), 200)),
                        Err(why) => assert_eq!(why, NoPick::Full),
                    }
                }
            });
        }
    });
    assert_eq!(shared.sums().in_flight, 0);
}

/// Two workers with two requests each under way at five endpoints: no endpoint has two while another one has none, where they share what they know. As
/// silos, each of them would be as even, and both together would not.
#[test]
fn shared_load_is_even_where_silos_collide() {
    let text = "[[listen]]\nname = \"l\"\naddr = \":1\"\n[[pool]]\nname = \"p\"\nendpoints = [\"a:1\"]\n\
                balance = \"least-requests\"\nspread.choices = 5\n";
    let pool = &snapshot::read("test", text).unwrap_or_else(|report| panic!("{}", report.render())).snapshot.pools[0];
    let five = |workers| {
        (1..=5).map(move |number| Member {
            shared: Arc::new(EndpointShared::new(workers, Now::ZERO)),
            ..member(&format!("10.0.0.{number}:1"), 1)
        })
    };
    let collisions = |lists: [Members; 2], workers: usize| {
        let mut worker = 0;
        let clusters = lists.map(|members| {
            worker += 1;
            Cluster::new(pool, None, &members, ((worker - 1) % workers, workers), worker as u64)
        });
        let mut under_way: [Vec<Rc<Endpoint>>; 2] = Default::default();
        let collided = |under_way: &[Vec<Rc<Endpoint>>; 2]| {
            let mut names: Vec<_> = under_way.iter().flatten().map(|endpoint| &endpoint.name).collect();
            names.sort();
            names.windows(2).any(|two| two[0] == two[1])
        };
        (0..1_000_usize)
            .filter(|step| {
                let (cluster, own) = (&clusters[step % 2], &mut under_way[step % 2]);
                // Time enough between two of them to hear of the first one.
                let now = Now::from_nanos(1_000_000_000 + *step as u64 * 150_000);
                if own.len() == 2 {
                    let ended = own.remove(step / 2 * 7 % 3 % 2);
                    cluster.record(&ended, now, &Outcome::answered(Duration::from_millis(1), 200));
                }
                own.push(pick_at(now, cluster, &Tried::default()).expect("all are well"));
                collided(&under_way)
            })
            .count()
    };
    let shared = Maker::new(pool, 2).make(five(2).collect());
    let silos = || Maker::new(pool, 1).make(five(1).collect());
    let (shared, silos) = (collisions([shared.clone(), shared], 2), collisions([silos(), silos()], 1));
    assert_eq!(shared, 0);
    assert!(silos > 300, "{silos} of 1000: if silos do as well, nothing needs to be shared");
}

/// A request finds out about an endpoint that may be back; one that has failed already goes where nothing needs finding out.
#[test]
fn who_has_failed_once_goes_on_no_trial() {
    let pool = pool();
    let cluster = Cluster::new(&pool, None, &list(&pool, [member(A, 1), member(B, 1), member(C, 1)]), (0, 1), 1);
    let choose = |tried: &Tried, now| {
        let choice = Choice { tried, affinity: &Affinity::default(), repeatable: true, once: false };
        cluster.pick(&choice, now, &Counters::default()).expect("somebody").name.to_string()
    };
    let [a, b] = [0, 1].map(|at| cluster.endpoints()[at].clone());
    let now = Now::from_secs(1);
    for _ in 0..5 {
        a.begin(now);
        cluster.record(&a, now, &Outcome::new(Duration::ZERO, Class::Refused));
    }
    let later = Now::from_secs(90);
    assert!(cluster.has_hope(&Tried::default(), later) && a.is_on_trial(later));
    let mut tried = Tried::default();
    tried.add(&b);
    assert_eq!(choose(&tried, later), C);
    assert_eq!(choose(&Tried::default(), later), A, "the first try of another one is its trial");
    tried.add(&a);
    assert!(!cluster.has_hope(&tried, later), "it has been there");
}
