//! Who serves, as the balancer is told.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Engine;
use crate::balance::Origin;
use crate::upstream::{AdminState, Health, Member, Members};

impl Engine {
    /// Tells the balancer who serves, where that has changed.
    pub fn follow_vips(&mut self) {
        let pools: Vec<_> = self.balance.vips().iter().map(|vip| vip.pool).collect();
        for (vip, pool) in pools.into_iter().enumerate() {
            if let Some(news) = self.balance.follow(vip, origins(&self.roster.members(pool))) {
                eprintln!("penstock: {news}");
            }
        }
    }
}

/// A pool's endpoints as packets see them: each has one address, and new flows go to the first tier of which anybody serves.
fn origins(members: &Members) -> Vec<Origin> {
    let reached = members.iter().filter_map(|member| {
        let address = member.addresses.iter().find_map(ring::Address::inet)?;
        Some((member, address, member.shared.admits() && member.weight > 0))
    });
    let reached: Vec<_> = reached.collect();
    let tier = reached.iter().filter(|(_, _, serves)| *serves).map(|(member, ..)| member.tier).min();
    let origin = |(member, address, serves): (&Member, SocketAddr, bool)| Origin {
        name: Arc::clone(&member.name),
        address,
        weight: if serves && Some(member.tier) == tier { member.weight } else { 0 },
        server: member.server,
        keeps: member.shared.admin().state != AdminState::Maint && member.shared.health() != Health::Down,
    };
    reached.into_iter().map(origin).collect()
}
