//! Measures Penstock against its rivals on the same cores, with the same origin, in interleaved rounds.
//!
//! The proxy under test has one CPU, load and origin share another. What counts is the proxy's CPU time per request, which the kernel counts in
//! nanoseconds and which noise moves less than anything else; figures of one run are compared with each other, never with another day's.
//!
//! One binary holds every part, as hidden subcommands, so that each part is a process of its own whose CPU time can be told apart.

#![forbid(unsafe_code)]

mod afxdp;
mod attacks;
mod calendar;
mod chaos;
mod echo;
mod far;
mod flags;
mod flood;
mod floors;
mod grpc;
mod l4;
mod load;
mod measure;
mod meter;
mod origin;
mod process;
mod qos;
mod reload;
mod report;
mod rivals;
mod scenario;
mod spaces;
mod stats;
mod strace;
mod suite;
mod tls;
mod ws;
mod xdp;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask bench h1 [options]      HTTP/1.1: CPU time per request of each proxy, and latency at a fixed rate

  --rivals LIST       of nginx, haproxy, envoy, caddy, epoll-relay, tokio-uring-relay (default nginx,haproxy);
                      penstock-bare and penstock-full tell what balancing, breaker, retries, limits and probes cost
  --scenarios LIST    of c1, c64, c512 (100 B), browser (64, with a browser's heads), 16k (64 connections), 1m (16), close (one request each), latency (default all)
  --rounds N          interleaved rounds a scenario (default 8)
  --seconds N         a round's length (default 3)
  --load own|wrk      load generator of the closed loops (default own); the latency scenario is always ours
  --origin own|nginx  what all proxies stand before (default own)
  --json FILE         every raw round
  --proxy-cpu N, --load-cpu N    (default 1 and 0)
  --steal-max PERCENT            rounds with more stolen time are discarded (default 1)
  --foreign-max PERCENT          rounds in which others used more of the machine are discarded (default: told, not judged)
  --no-syscalls       leave out the rounds under strace
  --without-penstock  measure rivals only
  --smoke             one second with 64 connections: proves that the machinery works, measures nothing

cargo xtask bench samehost [options]    HTTP/1.1 to an origin on this host, without TCP in between (penstock-same-host) and with it

  --scenarios LIST    of c64, c1 (100 B), 16k (64 connections), 1m (16) (default all); otherwise as for h1

cargo xtask bench tls [options]     HTTP/1.1 over TLS: CPU time per request, and per handshake
cargo xtask bench h2 [options]      HTTP/2 over TLS to an origin that speaks HTTP/1.1
cargo xtask bench h3 [options]      HTTP/3 to an origin that speaks HTTP/1.1; nginx and HAProxy come from Debian's unstable release, into target/sid
cargo xtask bench grpc [options]    unary gRPC over HTTP/2 without TLS, on both sides; every proxy's answers are read to their trailers too

  --rivals LIST       of nginx, haproxy, h2o (default all of them); h3: of nginx, haproxy, envoy, caddy (default the first two);
                      grpc: of nginx, haproxy, envoy
  --scenarios LIST    tls: of c64 (100 B), 1m (16 connections), handshake, resumed (a connection per request);
                      h2: of 16x16 (connections × streams, 100 B), 1x1, 1m (4 × 4); h3: those, 64x1, handshake, far (20 ms there and back, 1 % lost); grpc: of 16x16, 1x1 (default all)
  --load own|h2load   h3 only (default own); h2load has to speak HTTP/3, and to be on PATH as h2load-h3
  otherwise as for h1; h2load is the load generator, our own for handshakes and for HTTP/3

cargo xtask bench ws [options]      WebSockets over TLS, each with a message now and then: delivery, opening, CPU time per message

  --rivals LIST       of nginx, haproxy (default both)
  --connections N     (default 5000)   --open-rate R   opened a second (default 500)
  --rate R            messages a second on each, every one answered (default 1)
  --seconds N         for how long (default 10; 300 with --upheaval)
  --rounds N          interleaved rounds, each with new connections (default 5)
  --upheaval          ours alone, with two workers; a third of the way in the certificate is swapped, after two thirds one of two endpoints drained;
                      fails if a connection is lost, or a promise of time is not kept
  --proxy-cpus LIST, --load-cpu N, --steal-max PERCENT, --without-penstock, --seed N, --json FILE, --smoke    as for h1

cargo xtask bench l4 [options]      bytes over TCP and datagrams over UDP passed through: CPU time per message there and back

  --rivals LIST       of nginx (its stream module), haproxy (TCP alone) (default both)
  --scenarios LIST    of tcp-64 (64 connections, 100 B), tcp-1m (4, 1 MiB), udp-64 (64 flows, 100 B), udp-16x32 (16 flows, 32 datagrams of
                      1,200 B each under way) (default all)
  --rounds N          (default 6)      --seconds N     (default 2)
  --proxy-cpu N, --load-cpu N, --steal-max PERCENT, --without-penstock, --seed N, --json FILE, --smoke    as for h1

cargo xtask bench attacks [options] attacks over HTTP/2 and HTTP/3: how much longer a client that behaves waits beside each, through each proxy

  --rivals LIST       of nginx, haproxy, h2o (default nginx,haproxy)
  --attacks LIST      of rapid-reset, reset-by-…, continuation, hpack-bomb, settings, ping, window-update, empty-data, slow-readers; over HTTP/3 initials,
                      handshakes, stream-resets, stop-sending, qpack-bomb, qpack-blocked, declared-lengths, tiny-windows (default all)
  --rounds N          (default 5)      --seconds N     of each half of a round: alone, and beside the attack (default 2)
  --rate R            requests a second of the client that behaves (default 500)
  --proxy-cpu N, --load-cpu N, --without-penstock, --seed N, --json FILE, --smoke    as for h1

cargo xtask bench flood [options]   SYNs from made-up addresses: what standing and new connections notice, in network namespaces (needs root)

  --rivals LIST       of nginx (default it)      --modes LIST    of native, generic: how the shield stands (default both)
  --rate N            SYNs a second (default 200000)              --seconds N     (default 10)
  --strict            fail unless, behind the shield, p99 is at most 1.5 times what it was, and 99 % of new connections are served
  --proxy-cpu N, --load-cpu N, --without-penstock, --json FILE, --smoke    as for h1

cargo xtask bench pushdown [options] CPU of the proxy for a client that asks a hundred times as often as it may: answered, and dropped by the shield (needs root)

  --rivals LIST       of nginx, with limit_req (default it)      --modes LIST    of native, generic: how the shield stands (default both)
  --limit N           requests a second that it may make (default 100)      --times N    (default 100)      --seconds N    (default 5)
  --strict            fail unless it costs a tenth or less, dropped by the shield
  --proxy-cpu N, --load-cpu N, --json FILE, --smoke    as for h1

cargo xtask bench xdp [options]     the XDP programs over made-up packets (BPF_PROG_TEST_RUN): ns a packet, over the floor

  --samples N         of each case and of the floor, in turn; the median counts (default 400)
  --strict            fail where a bar is missed
  --smoke             a few samples: proves that the machinery works

cargo xtask bench afxdp [options]   datagrams past the kernel (AF_XDP) beside its sockets, over a cable between two network namespaces: an echo, and HTTP/3

  --scenarios LIST    of udp-1, udp-64 (100 B), udp-16x16 (1,200 B), h3-16x16 (100 B), h3-1m (4 × 4) (default all)
  --rounds N, --seconds N, --proxy-cpu N, --load-cpu N, --smoke    as for h1 (default 6 and 2)

cargo xtask bench chaos [options]   faults of five origins under load: what clients notice of them, through each proxy

  --rivals LIST       of nginx, haproxy (default both)
  --seconds N         how long a fault lasts (default 5); the last phase has five turns of it
  --phases LIST       of calm, dead, hanging, slow, failing, refusing, broken, resetting, mute, flapping, dns, all (default all of them)
  --seed N            which origin suffers when, and what is asked (default 1)
  --connections N     (default 64)     --think-ms N    mean pause of a client between requests (default 10)
  --penstock-config FILE   instead of `serve` with its defaults; {listen}, {admin}, {origins} and {cores} are filled in
  --proxy-cpus LIST, --load-cpu N    (default 1 and 0); a proxy gets a worker per CPU
  --json FILE  --verbose (prints every configuration)  --without-penstock  --without-direct
  --fresh             a new proxy for each phase: none suffers from what an earlier one left behind
  --strict            fail unless, through Penstock, no GET fails or takes over a second, and at most 0.1 % of POSTs fail, none executed twice
  --smoke             everything in less than ten seconds, Penstock only

cargo xtask bench reload [options]  a configuration that changes again and again: requests lost, connections closed, processes and memory left over

  --rivals LIST       of nginx, haproxy (default both)
  --reloads N         (default 20)     --every-ms N    (default 500)
  --clients N         that ask one thing after another (default 32)       --parked N    connections that lie idle meanwhile (default 64)
  --strict            fail where a client of Penstock's notices anything
  --without-penstock, --json FILE, --smoke    as for h1

cargo xtask bench sharing [µs]      what it costs a request that workers share what they know of endpoints, beside endpoints of their own; as a
                                    share of so many µs of CPU time a request, as h1 tells them (default 8.3). Alone on two CPUs, or under chrt -f 10

cargo xtask bench qos [options]     classes, shaping, rate limits, the spread over endpoints and reuse, with two workers

  --parts LIST        of classes, shaping, limits, spread, reuse (default all)
  --seconds N         how long each figure is measured, after a second to settle (default 10)
  --proxy-cpus LIST, --load-cpus LIST    (default 0,1 for both); a worker per CPU
  --json FILE
  --strict            fail where a promise is not kept
  --smoke             everything in less than ten seconds: proves that the machinery works
";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (what, rest) = words.split_first().map_or(("help", &[][..]), |(what, rest)| (what.as_str(), rest));
    let outcome = match what {
        "h1" => suite::run(scenario::H1, rest),
        "samehost" => suite::run(scenario::SAME_HOST, rest),
        "tls" => suite::run(scenario::TLS, rest),
        "h2" => suite::run(scenario::H2, rest),
        "h3" => suite::run(scenario::H3, rest),
        "grpc" => suite::run(scenario::GRPC, rest),
        "chaos" => chaos::run(rest),
        "qos" => qos::run(rest),
        "reload" => reload::run(rest),
        "ws" => ws::run(rest),
        "l4" => l4::run(rest),
        "attacks" => attacks::run(rest),
        "flood" => flood::run(rest),
        "pushdown" => flood::pushdown::run(rest),
        "xdp" => xdp::run(rest),
        "afxdp" => afxdp::run(rest),
        "pinned" => process::pinned(rest),
        "load" => load::own::main(rest),
        "h3-load" => load::h3::main(rest),
        "far" => far::main(rest),
        "attacker" => attacks::attacker::main(rest),
        "handshakes" => load::handshakes::main(rest),
        "calls" => grpc::calls::main(rest),
        "origin" => origin::main(rest),
        "flood-clients" => flood::clients_main(rest),
        "flood-syns" => flood::syns_main(rest),
        "pushdown-client" => flood::pushdown::main(rest),
        "l4-load" => l4::load::main(rest),
        "afxdp-echo" => afxdp::echo::main(rest),
        "l4-origin" => l4::origin::main(rest),
        "ws-load" => ws::load::main(rest),
        "ws-origin" => ws::origin::main(rest),
        "grpc-origin" => grpc::origin::main(rest),
        "echo-origin" => echo::origin::main(rest),
        "epoll-relay" => floors::main(rest, floors::epoll::run),
        "tokio-uring-relay" => floors::main(rest, floors::tokio_uring::run),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("there is no benchmark `{other}`\n\n{HELP}")),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench {what}: {why}");
            ExitCode::FAILURE
        }
    }
}
