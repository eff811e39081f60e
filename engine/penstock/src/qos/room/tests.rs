use super::*;
use crate::snapshot;
use ring::{DriverChoice, Options, Ring};
use std::future::poll_fn;

/// One worker's room of a pool with two classes: `default`, and `vip` with nine times the weight.
fn room(pool: &str) -> Rc<Room> {
    room_of("[classes.vip]\nweight = 9\n", pool)
}

fn room_of(classes: &str, pool: &str) -> Rc<Room> {
    let text = format!(
        "{classes}[[listen]]\nname = \"l\"\naddr = \":1\"\n\
         [[pool]]\nname = \"p\"\nendpoints = [\"a:1\"]\n{pool}\n"
    );
    let compiled = snapshot::read("test", &text).unwrap_or_else(|report| panic!("{}", report.render()));
    let shared = Shared::new(&compiled.snapshot, 1);
    let qos = super::super::Qos::new(shared, &compiled.snapshot, 0, 1);
    Rc::clone(qos.room(snapshot::PoolId(0)).expect("the pool is limited"))
}

fn on_a_ring(body: impl AsyncFnOnce() + 'static) {
    let options = Options { driver: DriverChoice::Epoll, ..Options::default() };
    Ring::new(options).unwrap().block_on(async move { body().await });
}

async fn enter(room: &Rc<Room>, class: u8) -> Result<Place<'_>, Refused> {
    let mut entering = room.enter(ClassId(class), None);
    let mut timer = ring::Timer::new();
    timer.set(entering.latest());
    poll_fn(|_| {
        let polled = entering.poll(ring::current_task());
        if polled.is_pending() {
            timer.poll_expired();
        }
        polled
    })
    .await
}

fn waiting(room: &Room) -> u32 {
    room.row.borrow().waiting.len()
}

#[test]
fn a_place_that_is_given_back_is_the_next_ones() {
    on_a_ring(async || {
        let room = room("concurrency = 1");
        let first = enter(&room, 0).await.expect("a place");
        let (then, served) = (Rc::clone(&room), Rc::new(Cell::new(0)));
        for class in [0, 1, 0, 1] {
            let (room, served) = (Rc::clone(&then), Rc::clone(&served));
            ring::spawn(async move {
                let place = enter(&room, class).await.expect("its turn comes");
                served.set(served.get() * 10 + i32::from(class) + 1);
                ring::sleep(Duration::from_millis(2)).await;
                drop(place);
            });
        }
        ring::sleep(Duration::from_millis(5)).await;
        assert_eq!((waiting(&room), served.get()), (4, 0));
        drop(first);
        ring::sleep(Duration::from_millis(100)).await;
        assert_eq!((waiting(&room), room.inside.get()), (0, 0));
        assert_eq!(served.get(), 2_211, "who has nine times the weight can pay first");
    });
}

#[test]
fn a_strict_class_goes_first_and_takes_no_more_than_its_share() {
    on_a_ring(async || {
        let text = "[classes.a-strict]\nstrict = true\n[classes.heavy]\nweight = 1000\n";
        let room = room_of(text, "concurrency = 1\nqueue = { len = 200, for = \"60s\", target = \"50s\" }");
        let (default, strict, heavy) = (ClassId(0), ClassId(1), ClassId(2));
        let mut held = enter(&room, 0).await.ok();
        let task = ring::current_task();
        let come = |class: ClassId| {
            let mut entering = room.enter(class, None);
            assert!(entering.poll(task).is_pending());
            (class, Some(entering))
        };
        let mut row: Vec<_> = (0..20).flat_map(|_| [come(heavy), come(default)]).collect();
        row.extend((0..200).map(|_| come(strict)));
        let mut served = Vec::new();
        while served.len() < row.len() {
            drop(held.take());
            let next = row.iter_mut().find_map(|(class, entering)| match entering.as_mut()?.poll(task) {
                Poll::Ready(place) => Some((*class, place.expect("nobody is sent away"), entering.take())),
                Poll::Pending => None,
            });
            let (class, place, _) = next.expect("somebody is served");
            served.push(class);
            held = Some(place);
        }
        // Each is thought to cost a millisecond: a hundred are what the strict class may be ahead.
        assert!(served[..100].iter().all(|class| *class == strict), "{served:?}");
        let later = &served[100..210];
        let others = later.iter().filter(|class| **class != strict).count();
        assert!((10..=12).contains(&others), "{others} of {} others: a tenth", later.len());
    });
}

#[test]
fn who_waits_too_long_or_finds_no_seat_is_told_so() {
    on_a_ring(async || {
        let room = room("concurrency = 1\nqueue = { len = 1, for = \"30ms\" }");
        let _held = enter(&room, 0).await.expect("a place");
        let other = Rc::clone(&room);
        ring::spawn(async move {
            let refused = enter(&other, 0).await.expect_err("nobody leaves");
            assert_eq!((refused.reason, refused.retry_secs), (Reason::Deadline, 1));
        });
        ring::sleep(Duration::from_millis(5)).await;
        assert_eq!(enter(&room, 0).await.expect_err("one seat").reason, Reason::Full);
        ring::sleep(Duration::from_millis(60)).await;
        let cells = room.told.class(0);
        assert_eq!((waiting(&room), cells.full.get(), cells.deadline.get()), (0, 1, 1));
        assert_eq!(room.row.borrow().free, 0, "its seat is free again");
    });
}

#[test]
fn who_leaves_holds_nothing_even_when_it_was_just_let_in() {
    on_a_ring(async || {
        let room = room("concurrency = 1");
        let first = enter(&room, 0).await.expect("a place");
        let task = ring::current_task();
        let mut leaves = room.enter(ClassId(0), None);
        let mut stays = room.enter(ClassId(0), None);
        let mut served = room.enter(ClassId(0), None);
        assert!(leaves.poll(task).is_pending() && served.poll(task).is_pending() && stays.poll(task).is_pending());
        drop(leaves);
        assert_eq!(waiting(&room), 2);
        drop(first);
        assert_eq!(waiting(&room), 1);
        drop(served);
        assert!(matches!(stays.poll(task), Poll::Ready(Ok(_))));
        assert_eq!((waiting(&room), room.inside.get()), (0, 0));
        assert_eq!(room.told.class(0).left.get(), 2);
    });
}

#[test]
fn where_endpoints_are_full_nobody_is_let_in() {
    on_a_ring(async || {
        let room = room("limits = { requests = 1 }");
        let free = Rc::new(Cell::new(true));
        let seen = Rc::clone(&free);
        room.attend(move || seen.get());
        let first = enter(&room, 0).await.expect("a place");
        free.set(false);
        let task = ring::current_task();
        let mut waits = room.enter(ClassId(0), None);
        assert!(waits.poll(task).is_pending());
        free.set(true);
        let let_in = ring::until(ring::now() + Duration::from_secs(5), poll_fn(|_| waits.poll(task))).await;
        assert!(matches!(let_in, Some(Ok(_))), "another worker's gave it back");
        drop(first);
    });
}

#[test]
fn a_found_limit_lets_more_in_as_it_grows() {
    on_a_ring(async || {
        let room = room("concurrency = \"auto\"");
        let places: Vec<_> = [enter(&room, 0).await, enter(&room, 0).await].into_iter().collect();
        assert!(places.iter().all(Result::is_ok));
        let mut third = room.enter(ClassId(0), None);
        assert!(third.poll(ring::current_task()).is_pending());
        for place in places.into_iter().flatten() {
            place.end(Duration::from_millis(1), Verdict::Success);
        }
        assert!(matches!(third.poll(ring::current_task()), Poll::Ready(Ok(_))));
    });
}

/// Rooms of one pool on two workers, which here take turns on one ring.
fn two_rooms(classes: &str, pool: &str) -> [Rc<Room>; 2] {
    let text = format!(
        "{classes}[[listen]]\nname = \"l\"\naddr = \":1\"\n\
         [[pool]]\nname = \"p\"\nendpoints = [\"a:1\"]\n{pool}\n"
    );
    let compiled = snapshot::read("test", &text).unwrap_or_else(|report| panic!("{}", report.render()));
    let shared = Shared::new(&compiled.snapshot, 2);
    [0, 1].map(|worker| {
        let qos = super::super::Qos::new(Arc::clone(&shared), &compiled.snapshot, worker, 1);
        Rc::clone(qos.room(snapshot::PoolId(0)).expect("the pool is limited"))
    })
}

/// Its worker has as many places as it is entitled to, and none of them comes free: the next one of the other worker is its.
#[test]
fn a_strict_class_has_the_next_place_of_another_worker() {
    on_a_ring(async || {
        let classes = "[classes.vip]\nstrict = true\n";
        let [bulk, own] = two_rooms(classes, "concurrency = 4\nqueue = { for = \"60s\", target = \"50s\" }");
        let (default, strict) = (0, 1);
        let mut long = Vec::new();
        for _ in 0..2 {
            long.push(enter(&own, default).await.expect("a place"));
        }
        let served = Rc::new(Cell::new(0));
        for _ in 0..60 {
            let (bulk, served) = (Rc::clone(&bulk), Rc::clone(&served));
            ring::spawn(async move {
                let place = enter(&bulk, default).await.expect("its turn comes");
                ring::sleep(Duration::from_millis(10)).await;
                served.set(served.get() + 1);
                drop(place);
            });
        }
        ring::sleep(Duration::from_millis(15)).await;
        for _ in 0..3 {
            let (begun, before) = (super::super::now(), served.get());
            let place = enter(&own, strict).await.expect("its turn comes");
            let (took, behind) = (super::super::now().since(begun), served.get() - before);
            // One of two places comes free every 10 ms; both may in one turn.
            assert!(behind <= 2, "behind {behind} of the other worker, {took:?}");
            drop(place);
        }
        assert!(served.get() < 40, "the others wait still");
    });
}
