//! Connections of QUIC whose clients move, through the balancer: engines of one fleet are the origins, and connection ids say which of them knows a client.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{Folder, Sharing, Tool, python, quic, run, script};

use crate::clients::{Fleet, QUIC_PORT, pools_of_fleet, vips_of_fleet, ways};
use crate::town::Town;

/// What a run may take on a machine that does other things too.
const RUN_MAX: Duration = Duration::from_secs(60);
const CONTENT: usize = 60_000;
/// Of the answer, when its client moves.
const MOVES_AT: usize = 20_000;
/// Clients of each VIP.
const CLIENTS: usize = 6;

/// A town before a fleet that has one secret; `line` is in each VIP of it.
fn before_a_fleet(mode: &str, folder: &Folder, line: &str) -> Option<(Town, Fleet)> {
    let secrets = folder.write("secrets", format!("1 {}\n", "5a".repeat(32)));
    let shared = |secrets: &Path| format!("quic.secrets = {:?}", secrets.display().to_string());
    let numbered = if line.is_empty() { |_| String::new() } else { |number| format!(" server={number}") };
    let engine = if line.is_empty() { String::new() } else { shared(&secrets) };
    let town = Town::with(mode, &engine, &(pools_of_fleet(numbered) + &vips_of_fleet(line)))?;
    town.route_with_room("lb1");
    let fleet = Fleet::start(&town, |number| format!("{}\nquic.server = {number}", shared(&secrets)));
    Some((town, fleet))
}

/// Some clients of each VIP, each of which goes on from another port in the midst of its download: how each ended that did not end well.
fn move_about(fleet: &Fleet, vips: &[SocketAddr], moved: impl Fn()) -> Vec<String> {
    let config = quic::config(&fleet.authority, 8 << 10);
    let all = vips.iter().flat_map(|vip| (0..CLIENTS).map(move |_| *vip));
    let mut visitors: Vec<_> = all.map(|vip| (vip, quic::Visitor::connect(vip, &config), false)).collect();
    let (begun, mut told) = (Instant::now(), false);
    while begun.elapsed() < RUN_MAX && visitors.iter().any(|(_, visitor, _)| visitor.ended.is_none()) {
        for (_, visitor, has_moved) in visitors.iter_mut().filter(|(_, visitor, _)| visitor.ended.is_none()) {
            visitor.turn(&format!("/bytes/{CONTENT}"));
            if visitor.received > MOVES_AT && !*has_moved {
                visitor.move_on();
                *has_moved = true;
            }
        }
        if !told && visitors.iter().all(|(.., has_moved)| *has_moved) {
            moved();
            told = true;
        }
    }
    let lost = visitors.iter().filter_map(|(vip, visitor, has_moved)| match &visitor.ended {
        Some(Ok(())) if visitor.received > CONTENT && *has_moved => None,
        ended => Some(format!("{vip}: {ended:?} after {} bytes", visitor.received)),
    });
    lost.collect()
}

fn clients_that_move_stay_with_their_origin(mode: &'static str) {
    run(Sharing::Shared, move || {
        let folder = Folder::new();
        let Some((town, fleet)) = before_a_fleet(mode, &folder, "quic = true") else { return };
        let vips: Vec<_> = ways(QUIC_PORT).map(|(_, vip, _)| vip).collect();
        let lost = town.street.at("client", || move_about(&fleet, &vips, || ()));
        assert_eq!(lost, Vec::<String>::new(), "of {}, these were lost", vips.len() * CLIENTS);
        let sums = town.of(0, |engine| engine.metrics());
        assert!(sums.sum("vip_by_id_total") > 500, "{} packets by id", sums.sum("vip_by_id_total"));
        assert_eq!(sums.sum("vip_elsewhere_total"), 0);
        let served = fleet.sums(&town, "h3_connections_total");
        assert!(served.iter().all(|count| *count > 0), "all of them serve: {served:?}");
        assert_eq!(served.iter().sum::<u64>(), (vips.len() * CLIENTS) as u64, "{served:?}");
    });
}

#[test]
fn clients_that_move_stay_with_their_origin_native() {
    clients_that_move_stay_with_their_origin("native");
}

#[test]
fn clients_that_move_stay_with_their_origin_generic() {
    clients_that_move_stay_with_their_origin("generic");
}

/// What it is for: where nobody reads ids, most of those that move come to an origin that does not know them.
#[test]
fn clients_that_move_are_lost_where_nobody_reads_ids() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let Some((town, fleet)) = before_a_fleet("generic", &folder, "") else { return };
        let vips: Vec<_> = ways(QUIC_PORT).filter(|(forward, ..)| *forward == "ipip").map(|(_, vip, _)| vip).collect();
        let lost = town.street.at("client", || move_about(&fleet, &vips, || ()));
        let all = vips.len() * CLIENTS;
        assert!((2..=all).contains(&lost.len()), "{} of {all} were lost: {lost:?}", lost.len());
    });
}

/// aioquic's own migration, by itself and on purpose; the second balancer, which has seen nothing of it, takes over with the next one.
#[test]
fn aioquic_moves_through_it() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let Some((town, fleet)) = before_a_fleet("generic", &folder, "quic = true") else { return };
        for balancer in ["lb1", "lb2"] {
            town.route_with_room(balancer);
            for (forward, vip, _) in ways(QUIC_PORT) {
                let words = [script("h3_client.py").display().to_string(), "moves".to_owned(), vip.to_string()];
                let ran = town.street.at("client", || Tool::new(python(), 80).args(words).run());
                assert_eq!(ran.text().lines().last(), Some("all well"), "{forward} {vip}: {}{}", ran.text(), ran.err);
            }
        }
        assert_eq!(fleet.sums(&town, "h3_connections_total").iter().sum::<u64>(), 16);
    });
}

/// Balancers that read ids are of one mind about connections that neither the flow nor the slot leads to: clients go on by the other one, from another port.
#[test]
fn a_connection_goes_on_by_the_other_balancer() {
    run(Sharing::Shared, || {
        let folder = Folder::new();
        let Some((town, fleet)) = before_a_fleet("generic", &folder, "quic = true") else { return };
        let vips: Vec<_> = ways(QUIC_PORT).filter(|(forward, ..)| *forward != "nat").map(|(_, vip, _)| vip).collect();
        let lost = town.street.at("client", || move_about(&fleet, &vips, || town.route_with_room("lb2")));
        assert_eq!(lost, Vec::<String>::new());
    });
}
