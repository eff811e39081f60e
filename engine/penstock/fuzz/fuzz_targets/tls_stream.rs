//! TLS of either role, and bytes of a stranger: the same story however they are cut, and never content.
#![no_main]

#[path = "../../tests/handshakes/mod.rs"]
mod handshakes;

use std::sync::LazyLock;

use handshakes::{SORTS, World, cut, listen};
use libfuzzer_sys::fuzz_target;

static WORLDS: LazyLock<[World; 4]> = LazyLock::new(|| SORTS.map(World::new));

fuzz_target!(|input: (u8, bool, u64, &[u8])| {
    let (sort, client, seed, stream) = input;
    let world = &WORLDS[usize::from(sort) % WORLDS.len()];
    let whole = listen(world, client, std::iter::once(stream));
    assert!(whole.0.is_empty());
    assert_eq!(listen(world, client, cut(stream, seed)), whole);
});
