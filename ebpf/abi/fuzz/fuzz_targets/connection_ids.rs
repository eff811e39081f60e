//! Datagrams as they come: read without a panic, routed the same way each time, and no made-up id passes for ours.
#![no_main]

use abi::{ConnectionIds, Form, Place, Route, destination};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Place3, Vec<u8>)| {
    let (config, (server, generation, worker), datagram) = input;
    let ids = ConnectionIds::new(config, b"a secret of ours");
    let route = ids.route(&datagram);
    assert_eq!(route, ids.route(&datagram));
    match destination(&datagram) {
        None => assert_eq!(route, Route::Stranger),
        Some(found) => assert_eq!(found.form == Form::Long, datagram[0] >= 0x80),
    }
    let place = Place { server, generation: generation % 64, worker: worker % 1024 };
    let random = std::array::from_fn(|at| datagram.get(at).copied().unwrap_or(0));
    let id = ids.encode(place, random);
    assert_eq!(ids.decode(&id), Some(place));
    // What goes with it in the datagram does not matter.
    let behind = [&[datagram.len() as u8 & 0x7f], &id[..], &datagram].concat();
    assert_eq!(ids.route(&behind), Route::Place(place));
});

type Place3 = (u16, u8, u16);
