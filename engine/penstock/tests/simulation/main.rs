//! The whole engine under simulation: a worker on a simulated kernel, between scripted clients and origins.
//!
//! What a seed decides: the faults of the kernel and the network, who asks for what, how each answer is framed, cut into
//! pieces and delayed, and where somebody misbehaves. What is asked of every seed:
//! * A client gets the very answer that an origin gave to this request, whole; or one of our own; or a connection that is
//!   visibly cut. Never another request's, never a part that looks like the whole.
//! * A request that must not be repeated reaches an origin once at the most, whatever happens.
//! * Nobody hangs, and at the end nothing is left: no connection, operation, buffer or task, and every gauge is at zero.
//!
//! A failing seed prints the command that repeats it; `cargo xtask sim` runs as many as there is time for.

mod client;
mod ledger;
mod origin;
mod scene;
mod tunnel;
mod wire;

use ring::sim::{Faults, check};
use scene::{Scene, play};

/// Everybody is well-behaved and the network loses nothing: every exchange has to succeed.
#[test]
fn simulation_well_behaved() {
    check("simulation_well_behaved", 1_000, |seed| play(seed, &Scene { faults: harmless(seed), ..Scene::default() }));
}

/// Clients leave in the middle, read nothing or send too little; the others must not notice.
#[test]
fn simulation_rude_clients() {
    check("simulation_rude_clients", 1_000, |seed| {
        play(seed, &Scene { faults: harmless(seed), rude_clients: true, ..Scene::default() })
    });
}

/// Origins break off, reset, say what nobody asked, or nothing; some are not there.
#[test]
fn simulation_rude_origins() {
    check("simulation_rude_origins", 1_000, |seed| {
        play(seed, &Scene { faults: harmless(seed), rude_origins: true, ..Scene::default() })
    });
}

/// Everything at once, and connections break.
#[test]
fn simulation_everything_breaks() {
    check("simulation_everything_breaks", 1_000, |seed| {
        let faults = at_least_64_bytes(if seed.is_multiple_of(4) { Faults::wild() } else { Faults::from_seed(seed) });
        play(seed, &Scene { faults, rude_origins: true, rude_clients: true, tunnels: true, ..Scene::default() })
    });
}

/// The engine is told to end in the middle: what was asked before is answered.
#[test]
fn simulation_drain() {
    check("simulation_drain", 1_000, |seed| {
        play(seed, &Scene { faults: harmless(seed), drain: true, tunnels: true, ..Scene::default() })
    });
}

/// Bytes both ways that nobody reads, with half-closes; in every second seed, far ends that break off.
#[test]
fn simulation_tunnels() {
    check("simulation_tunnels", 1_000, |seed| {
        let rude_origins = seed % 2 == 1;
        play(seed, &Scene { faults: harmless(seed), web: false, tunnels: true, rude_origins, ..Scene::default() })
    });
}

fn harmless(seed: u64) -> Faults {
    at_least_64_bytes(Faults::from_seed(seed).harmless())
}

/// Below this, one answer takes longer than any timeout that an operator would set.
fn at_least_64_bytes(mut faults: Faults) -> Faults {
    faults.buffer.0 = faults.buffer.0.max(64);
    faults
}
