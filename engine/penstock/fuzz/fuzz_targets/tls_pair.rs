//! Two ends of TLS that mean it, and somebody between them: what is read is what was sealed, or an error.
#![no_main]

#[path = "../../tests/handshakes/mod.rs"]
mod handshakes;

use std::sync::LazyLock;

use handshakes::{SORTS, World, tell};
use libfuzzer_sys::fuzz_target;

static WORLDS: LazyLock<[World; 4]> = LazyLock::new(|| SORTS.map(World::new));

fuzz_target!(|input: (u8, &[u8])| {
    let (sort, script) = input;
    tell(&WORLDS[usize::from(sort) % WORLDS.len()], script);
});
