//! The whole engine under simulation: a worker on a simulated kernel, between scripted clients and origins.
//!
//! What a seed decides: the faults of the kernel and the network, who asks for what, how each answer is framed, cut into
//! pieces and delayed, and where somebody misbehaves. What is asked of every seed:
//! * A client gets the very answer that an origin gave to this request, whole; or one of our own; or a connection that is
//!   visibly cut. Never another request's, never a part that looks like the whole.
//! * A request that must not be repeated reaches an origin once at the most, whatever happens.
//! * Nobody hangs, and at the end nothing is left: no connection, operation, buffer or task, and every gauge is at zero.
//!
//! The scenes take turns at the seeds, so that a number of seeds is that of all scenes together. A failing seed prints the
//! command that repeats it; `cargo xtask sim` runs as many as there is time for.

mod asker;
mod client;
mod datagrams;
mod h2;
mod h2_client;
mod h2_origin;
mod h3;
mod h3_client;
mod ledger;
mod origin;
mod scene;
mod tunnel;
mod websocket;
mod wire;

use std::time::Duration;

use ring::sim::{Faults, check};
use scene::{Scene, play};

/// Seeds of a plain `cargo test`: a thousand a scene.
const SEEDS: u64 = 11_000;
const SCENES: u64 = 11;

/// The scenes of QUIC share one turn: each costs three others.
const QUIC_SCENES: u64 = 3;

/// Everybody is well-behaved and the network loses nothing: every exchange has to succeed, while endpoints come and go too.
#[test]
fn simulation_well_behaved() {
    take_turns("simulation_well_behaved", 0, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 5 > 2,
        moves: turn % 2 == 1,
        hedges: turn % 3 == 1,
        ..Scene::default()
    });
    let (scenes, adopted) = scene::adopted();
    assert!(adopted >= 2 * scenes, "{adopted} configurations in {scenes} scenes");
}

/// Clients leave in the middle, read nothing or send too little; the others must not notice.
#[test]
fn simulation_rude_clients() {
    take_turns("simulation_rude_clients", 1, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 2 == 1,
        rude_clients: true,
        hedges: turn % 3 == 1,
        ..Scene::default()
    });
}

/// Origins break off, reset, say what nobody asked, or nothing; some are not there.
#[test]
fn simulation_rude_origins() {
    take_turns("simulation_rude_origins", 2, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 5 > 2,
        rude_origins: true,
        hedges: turn % 3 == 1,
        candidates: turn % 2 == 1,
        ..Scene::default()
    });
}

/// Everything at once, and connections break.
#[test]
fn simulation_everything_breaks() {
    take_turns("simulation_everything_breaks", 3, |faults, turn| Scene {
        faults: if turn.is_multiple_of(4) { Faults::wild() } else { faults },
        reloads: turn % 5 > 2,
        rude_origins: true,
        rude_clients: true,
        tunnels: true,
        shaped: turn % 5 == 3,
        moves: turn % 2 == 1,
        hedges: turn % 3 == 1,
        candidates: turn % 4 == 2,
        ..Scene::default()
    });
}

/// The engine is told to end in the middle: what was asked before is answered.
#[test]
fn simulation_drain() {
    take_turns("simulation_drain", 4, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 5 > 2,
        drain: Some(Duration::from_millis(turn % 400)),
        tunnels: true,
        shaped: turn % 3 == 1,
        ..Scene::default()
    });
}

/// Bytes both ways that nobody reads, with half-closes; in every second seed, far ends that break off.
#[test]
fn simulation_tunnels() {
    take_turns("simulation_tunnels", 5, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 5 > 2,
        web: false,
        tunnels: true,
        shaped: turn % 4 > 1,
        rude_origins: turn % 2 == 1,
        ..Scene::default()
    });
    let (tunnels, spliced) = scene::spliced();
    assert!(tunnels < 100 || spliced > 0, "{spliced} bytes of {tunnels} tunnels were spliced");
}

/// A tunnel that always has something to carry each way keeps to its pace, within 2 % of virtual time.
#[test]
fn simulation_paced_tunnels() {
    check("simulation_paced_tunnels", 20, |seed| {
        let faults = Faults::none();
        play(seed, &Scene { faults, web: false, shaped: true, steady: true, ..Scene::default() })
    });
}

/// Datagrams of which too many come leave at their class's pace, within 2 % of virtual time, and in their order.
#[test]
fn simulation_paced_datagrams() {
    check("simulation_paced_datagrams", 20, |seed| {
        let faults = Faults::none();
        play(seed, &Scene { faults, web: false, shaped: true, datagrams: true, ..Scene::default() })
    });
}

/// Many requests at once over HTTP/2, on one side or both, and everybody is well-behaved, though endpoints take their leave.
#[test]
fn simulation_multiplexed() {
    take_turns("simulation_multiplexed", 6, |faults, turn| Scene {
        faults: faults.harmless(),
        hedges: turn % 5 == 4,
        crowded: turn % 4 == 2,
        ..multiplexed(turn)
    });
    some_are_refused();
}

/// Clients of HTTP/2 give up, stop reading, or leave; the streams beside must not notice.
#[test]
fn simulation_multiplexed_rude_clients() {
    take_turns("simulation_multiplexed_rude_clients", 7, |faults, turn| Scene {
        faults: faults.harmless(),
        rude_clients: true,
        ..multiplexed(turn)
    });
}

/// Endpoints reset streams, refuse them, go away with some of them, or break off; in every fourth seed, connections break too.
#[test]
fn simulation_multiplexed_everything_breaks() {
    take_turns("simulation_multiplexed_everything_breaks", 8, |faults, turn| Scene {
        faults: if turn % 4 == 3 { faults } else { faults.harmless() },
        rude_origins: true,
        rude_clients: turn % 2 == 1,
        moves: turn % 5 == 1,
        hedges: turn % 5 == 4,
        ..multiplexed(turn)
    });
}

/// The engine is told to end while many streams are open: what was asked before is answered, and what is refused was not looked at.
#[test]
fn simulation_multiplexed_drain() {
    take_turns("simulation_multiplexed_drain", 9, |faults, turn| Scene {
        faults: faults.harmless(),
        drain: Some(Duration::from_millis(turn % 400)),
        ..multiplexed(turn)
    });
}

/// WebSockets over HTTP/1.1 and HTTP/2 on either side, in any pairing; some break the rules, some break off, and now and then everything does. They have
/// the seeds of other tunnels.
#[test]
fn simulation_websockets() {
    take_turns("simulation_websockets", 5, |faults, turn| Scene {
        faults: if turn % 8 == 7 { faults } else { faults.harmless() },
        web: false,
        websockets: true,
        rude_origins: turn % 3 == 1,
        drain: (turn % 5 == 4).then(|| Duration::from_millis(turn % 400)),
        ..multiplexed(turn / 2)
    });
    let [whole, closed, cut] = websocket::heard();
    assert!(whole < 100 || closed > 0 && cut > 0 && whole > closed + cut, "{whole} whole, {closed} closed, {cut} cut");
}

/// Many requests at once over HTTP/3, and no datagram is lost.
#[test]
fn simulation_quic() {
    take_turns_at_quic("simulation_quic", 0, |faults, turn| Scene {
        faults: Faults { datagram_loss: 0.0, datagram_full: 0.0, ..faults.harmless() },
        drain: (turn % 5 == 4).then(|| Duration::from_millis(turn % 400)),
        reloads: turn % 7 > 4,
        h3_clients: true,
        h2_origins: turn % 3 == 2,
        crowded: turn % 4 == 2,
        ..Scene::default()
    });
    some_are_refused();
}

/// Datagrams are lost, doubled and out of order, and clients move: nobody must notice.
#[test]
fn simulation_quic_lossy() {
    take_turns_at_quic("simulation_quic_lossy", 1, |faults, turn| Scene {
        faults: faults.harmless(),
        reloads: turn % 7 > 4,
        h3_clients: true,
        wandering: turn % 4 != 3,
        h2_origins: turn % 3 == 2,
        moves: turn % 5 == 1,
        ..Scene::default()
    });
}

/// The same while clients of HTTP/3 give up, sleep or leave, origins break off, and in some seeds the engine is told to end.
#[test]
fn simulation_quic_everything_breaks() {
    take_turns_at_quic("simulation_quic_everything_breaks", 2, |faults, turn| Scene {
        faults: if turn % 4 == 3 { faults } else { faults.harmless() },
        rude_origins: !turn.is_multiple_of(3),
        rude_clients: turn % 4 != 1,
        reloads: turn % 7 > 4,
        h3_clients: true,
        wandering: turn % 2 == 1,
        h2_origins: turn % 3 == 2,
        hedges: turn % 5 == 4,
        drain: (turn % 5 == 2).then(|| Duration::from_millis(turn % 400)),
        ..Scene::default()
    });
}

/// A worker that has as many requests under way as it may takes no more of HTTP/2 and 3.
fn some_are_refused() {
    let (requests, refused) = scene::refused();
    assert!(requests < 100 || refused > 0, "{refused} of {requests} were refused");
}

/// HTTP/2 from clients, to endpoints, or both.
fn multiplexed(turn: u64) -> Scene {
    Scene { h2_clients: turn % 3 != 1, h2_origins: !turn.is_multiple_of(3), reloads: turn % 4 > 1, ..Scene::default() }
}

/// Plays every eleventh seed; `scene` gets the seed's faults, and how many of this scene's seeds came before.
fn take_turns(name: &str, first: u64, scene: impl Fn(Faults, u64) -> Scene + Sync) {
    play_every(name, SCENES, first, scene);
}

/// The same for scenes of QUIC, which have the last turn.
fn take_turns_at_quic(name: &str, number: u64, scene: impl Fn(Faults, u64) -> Scene + Sync) {
    play_every(name, SCENES * QUIC_SCENES, SCENES * number + SCENES - 1, scene);
}

fn play_every(name: &str, every: u64, first: u64, scene: impl Fn(Faults, u64) -> Scene + Sync) {
    check(name, SEEDS, |seed| {
        if seed % every != first {
            return Ok(());
        }
        let mut scene = scene(Faults::from_seed(seed), seed / every);
        // Below this, one answer takes longer than any timeout that an operator would set.
        scene.faults.buffer.0 = scene.faults.buffer.0.max(64);
        play(seed, &scene)
    });
}
