//! What streams tell of being ready, and how bytes go from one to another through a pipe.

use std::io;

use super::{Rig, pattern};
use crate::driver::{Request, Wait};

/// What is asked of a stream beside its receives and sends takes nothing away from them.
pub(super) fn streams_tell_what_they_are_ready_for(rig: &mut Rig) {
    let pair = rig.pair();
    for byte in 0..3 {
        let waiting = rig.submit(Request::Readable { fd: pair.far });
        rig.turn(Wait::None);
        assert_eq!(rig.send(pair.near, &[byte]), 1);
        assert!(rig.result(waiting) > 0);
        // It says so again while nobody has received.
        let again = rig.submit(Request::Readable { fd: pair.far });
        assert!(rig.result(again) > 0);
        assert_eq!(rig.recv(pair.far, 10), Ok(vec![byte]));
        let room = rig.submit(Request::Writable { fd: pair.far });
        assert!(rig.result(room) > 0);
        assert_eq!(rig.send(pair.far, &[byte]), 1);
        assert_eq!(rig.recv(pair.near, 10), Ok(vec![byte]));
    }
    let cancelled = rig.submit(Request::Readable { fd: pair.far });
    rig.turn(Wait::None);
    rig.cancel(cancelled);
    assert_eq!(rig.result(cancelled), -libc::ECANCELED);
    // A receive and a send that wait are still told.
    let mut memory = [0; 4];
    let waiting = rig.submit(Request::Recv { fd: pair.far, ptr: memory.as_mut_ptr(), len: 4 });
    let large = pattern(rig.large);
    let filling = rig.submit(Request::Send { fd: pair.far, ptr: large.as_ptr(), len: large.len() as u32 });
    rig.turn(Wait::None);
    assert_eq!(rig.send(pair.near, b"x"), 1);
    assert_eq!(rig.result(waiting), 1);
    assert!(rig.recv_exact(pair.near, large.len()) == large);
    assert_eq!(rig.result(filling), large.len() as i32);
    let ending = rig.submit(Request::Readable { fd: pair.far });
    rig.turn(Wait::None);
    rig.driver.shutdown(pair.near, false);
    assert!(rig.result(ending) > 0);
    assert_eq!(rig.recv(pair.far, 10), Ok(vec![]));
    rig.close(pair);
}

/// More than fits on the way goes from one connection to another through a pipe, to a reader that begins when nothing moves any more.
pub(super) fn splices_keep_order_and_wait_for_room(rig: &mut Rig) {
    let (first, second) = (rig.pair(), rig.pair());
    let large = pattern(rig.large);
    let sending = rig.submit(Request::Send { fd: first.near, ptr: large.as_ptr(), len: large.len() as u32 });
    let mut pipe = rig.driver.pipe(64 << 10, 256 << 10).unwrap();
    let (mut got, mut taken, mut waited) = (Vec::new(), 0, false);
    while taken < large.len() {
        let asked = rig.submit(Request::Readable { fd: first.far });
        assert!(rig.result(asked) > 0);
        match rig.driver.fill(&mut pipe, first.far) {
            Ok(filled) => taken += filled,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
        while pipe.held() > 0 {
            match rig.driver.drain(&mut pipe, second.near) {
                Ok(_) => continue,
                Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
            }
            waited = true;
            let room = rig.submit(Request::Writable { fd: second.near });
            while rig.live.contains(&room) && got.len() + pipe.held() < taken {
                got.extend(rig.recv(second.far, 64 << 10).unwrap());
            }
            assert!(rig.result(room) > 0);
        }
    }
    assert!(waited, "there was room for everything");
    got.extend(rig.recv_exact(second.far, large.len() - got.len()));
    assert!(got == large);
    assert_eq!(rig.result(sending), large.len() as i32);
    rig.driver.shutdown(first.near, false);
    let ending = rig.submit(Request::Readable { fd: first.far });
    assert!(rig.result(ending) > 0);
    // The end; or, in a simulation, nothing that can be spliced.
    assert_eq!(rig.driver.fill(&mut pipe, first.far).unwrap_or(0), 0);
    rig.close(second);
    rig.close(first);
}
