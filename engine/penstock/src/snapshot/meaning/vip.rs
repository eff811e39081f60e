//! What `[balance]`, `[[vip]]` and `[decap]` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::address::{Address, Bind, Cidr};
use crate::snapshot::endpoint::{Endpoint, Source};
use crate::snapshot::literal::Listed;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{BalanceDoc, DecapDoc, Forward, Transport, VipDoc, XdpMode};
use crate::snapshot::text::Step;

/// Octets of an interface's name, its NUL left out (`IFNAMSIZ`).
const INTERFACE_NAME_MAX: usize = 15;

impl Meaning<'_> {
    pub(super) fn balance(&mut self) {
        let document = self.document;
        self.stands("balance", &document.balance.interfaces, document.balance.mode);
        match (document.balance.interfaces.is_empty(), document.vip.is_empty()) {
            (true, false) => self.report(
                Code::NoEffect,
                path!["vip", 0_usize],
                "nothing is balanced: [balance] names no interface",
                "add [balance] with interfaces = [\"eth0\"]",
            ),
            (false, true) => self.report(
                Code::NoEffect,
                path!["balance", "interfaces"],
                "there is nothing to balance",
                "add a [[vip]]",
            ),
            _ => {}
        }
        if document.balance != BalanceDoc::default() {
            self.outer_source("balance", &document.balance.source);
            self.nat();
        }
        let addresses = document.vip.iter().enumerate().flat_map(|(at, vip)| {
            let address = move |(index, addr): (usize, &Bind)| {
                (format!("{addr}/{}", vip.protocol.text()), path!["vip", at, "addr", index].to_vec())
            };
            vip.addr.0.iter().enumerate().map(address)
        });
        self.twice("the address", addresses);
        for (at, vip) in document.vip.iter().enumerate() {
            self.vip(at, vip);
        }
        self.servers();
    }

    /// Whether there is an address for each family that is rewritten, and nothing that a VIP has.
    fn nat(&mut self) {
        let document = self.document;
        let ours = &document.balance.nat.0;
        for (at, address) in ours.iter().enumerate() {
            if address.bits() != whole(address) {
                let message = format!("`{address}` is a network");
                self.report(Code::BadValue, path!["balance", "nat", at], message, "write each address");
            }
            let is_vip = |bind: &Bind| matches!(bind, Bind::Tcp(vip) if vip.ip() == address.network());
            if document.vip.iter().flat_map(|vip| &vip.addr.0).any(is_vip) {
                let message = format!("`{address}` is a VIP's");
                self.report(Code::Conflict, path!["balance", "nat", at], message, "take one that has no other use");
            }
        }
        self.twice(
            "the address",
            ours.iter().enumerate().map(|(at, address)| (address.to_string(), path!["balance", "nat", at].to_vec())),
        );
        if ours.len() > limits::NAT_ADDRESSES_MAX {
            let advice = format!("at most {} are supported", limits::NAT_ADDRESSES_MAX);
            let message = format!("{} addresses in `nat`", ours.len());
            self.report(Code::BadValue, path!["balance", "nat", limits::NAT_ADDRESSES_MAX], message, advice);
        }
        let rewritten = |vip: &&VipDoc| vip.forward == Forward::Nat;
        if !ours.is_empty() && !document.vip.iter().any(|vip| rewritten(&vip)) {
            self.report(
                Code::NoEffect,
                path!["balance", "nat"],
                "no VIP has forward = \"nat\"",
                "take `nat` out of [balance]",
            );
        }
    }

    pub(super) fn decap(&mut self) {
        let decap = &self.document.decap;
        self.stands("decap", &decap.interfaces, decap.mode);
        if *decap == DecapDoc::default() {
            return;
        }
        self.outer_source("decap", &decap.source);
        if decap.addresses.0.is_empty() {
            let message = "packets are unwrapped for nobody: `addresses` names none";
            self.report(Code::MissingKey, path!["decap"], message, "list the addresses of the balancer's VIPs");
        }
        for (at, address) in decap.addresses.0.iter().enumerate() {
            if address.bits() != whole(address) {
                let message = format!("`{address}` is a network");
                self.report(Code::BadValue, path!["decap", "addresses", at], message, "write each address");
            }
        }
    }

    /// Whether interfaces have names.
    pub(super) fn interfaces(&mut self, section: &'static str, interfaces: &[String]) {
        for (at, name) in interfaces.iter().enumerate() {
            self.interface(name, path![section, "interfaces", at]);
        }
        let names = interfaces.iter().enumerate();
        self.twice("the interface", names.map(|(at, name)| (name.clone(), path![section, "interfaces", at].to_vec())));
    }

    /// Whether an interface can have this name.
    pub(super) fn interface(&mut self, name: &str, path: &[Step<'_>]) {
        let is_name = !name.is_empty()
            && name.len() <= INTERFACE_NAME_MAX
            && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
        if !is_name {
            let message = format!("`{name}` is no interface's name");
            self.report(Code::BadValue, path, message, "`ip link` lists them");
        }
    }

    fn stands(&mut self, section: &'static str, interfaces: &[String], mode: XdpMode) {
        if interfaces.is_empty() {
            if self.written(path![section]) {
                let message = format!("[{section}] stands nowhere: `interfaces` names none");
                self.report(Code::NoEffect, path![section], message, "write interfaces = [\"eth0\"]");
            }
            return;
        }
        self.interfaces(section, interfaces);
        let document = self.document;
        for (at, name) in interfaces.iter().enumerate() {
            if section == "decap" && document.balance.interfaces.contains(name) {
                let message = format!("`{name}` has the program of [balance] already: one can stand behind the shield");
                let advice = "take it out of [decap] or of [balance]";
                self.report(Code::Conflict, path![section, "interfaces", at], message, advice);
            } else if document.shield.interfaces.contains(name) && differ(document.shield.mode, mode) {
                let message = format!("`{name}` has the shield in another mode, and one program hands on to the other");
                self.report(Code::Conflict, path![section, "mode"], message, "write the mode that [shield] has");
            }
        }
    }

    fn outer_source(&mut self, section: &'static str, source: &Listed<Cidr>) {
        let of = |is_v4: bool| source.0.iter().filter(|network| network.network().is_ipv4() == is_v4).count();
        let was_refused = source.0.is_empty() && !self.is_empty_list(path![section, "source"]);
        if [of(true), of(false)] != [1, 1] && !was_refused {
            let message = "outer headers come from one IPv4 and one IPv6 network";
            self.report(Code::BadValue, path![section, "source"], message, "[\"172.16.0.0/16\", \"100::/64\"]");
        }
    }

    fn vip(&mut self, at: usize, vip: &VipDoc) {
        if vip.addr.0.is_empty() && self.is_empty_list(path!["vip", at, "addr"]) {
            self.report(Code::BadValue, path!["vip", at, "addr"], "a VIP needs an address", "write \"192.0.2.1:443\"");
        }
        for (index, address) in vip.addr.0.iter().enumerate() {
            let is_one = matches!(address, Bind::Tcp(address) if !address.ip().is_unspecified() && address.port() != 0);
            if !is_one {
                let message = format!("`{address}` is not one address and port");
                self.report(Code::BadValue, path!["vip", at, "addr", index], message, "write \"192.0.2.1:443\"");
            }
        }
        let has = |is_v4: bool| self.document.balance.nat.0.iter().any(|ours| ours.network().is_ipv4() == is_v4);
        let lacks = |bind: &Bind| matches!(bind, Bind::Tcp(address) if !has(address.is_ipv4()));
        if vip.forward == Forward::Nat
            && let Some(address) = vip.addr.0.iter().find(|bind| lacks(bind))
        {
            let message = format!("`nat` of [balance] has no address of the family of `{address}`");
            self.report(
                Code::Conflict,
                path!["vip", at, "forward"],
                message,
                "add one: nat = [\"10.0.0.2\", \"fd00::2\"]",
            );
        }
        self.pool_exists(&vip.pool, path!["vip", at, "pool"]);
        if vip.quic {
            self.reads_ids(at, vip);
        }
        let document = self.document;
        for (pool, doc) in document.pool.iter().enumerate().filter(|(_, doc)| doc.name == vip.pool) {
            let is_socket = |source: &Source| matches!(source, Source::Address(Address::Unix(_)));
            if let Some(unix) = doc.endpoints.iter().position(|endpoint| is_socket(&endpoint.0.source)) {
                let message = format!("packets of the VIP `{}` cannot be sent to a Unix socket", vip.name);
                self.report(Code::Conflict, path!["pool", pool, "endpoints", unix], message, "write an address");
            }
        }
    }

    /// Whether there are ids, keys to read them, and somebody whom they can mean.
    fn reads_ids(&mut self, at: usize, vip: &VipDoc) {
        let path = path!["vip", at, "quic"];
        let document = self.document;
        if vip.protocol != Transport::Udp {
            self.report(Code::Conflict, path, "QUIC is spoken over UDP", "write protocol = \"udp\"");
        } else if document.engine.quic.secrets.is_none() {
            let message = "ids of connections are read with their fleet's secrets, and there are none here";
            self.report(Code::Conflict, path, message, "write [engine.quic] with secrets = \"/etc/penstock/quic\"");
        }
        let Some(pool) = document.pool.iter().find(|doc| doc.name == vip.pool) else { return };
        let may_have = |endpoint: &Endpoint| endpoint.server.is_some() || matches!(endpoint.source, Source::File(_));
        if !pool.endpoints.is_empty() && !pool.endpoints.iter().any(|endpoint| may_have(&endpoint.0)) {
            let message = format!("no endpoint of `{}` says which server it is in ids", vip.pool);
            self.report(Code::NoEffect, path, message, "write \"10.0.0.11:443 server=1\", its `engine.quic.server`");
        }
    }

    /// Numbers of servers: each once in a pool, and where somebody reads them.
    fn servers(&mut self) {
        let document = self.document;
        for (at, pool) in document.pool.iter().enumerate() {
            let named = pool.endpoints.iter().enumerate();
            let named = named.filter_map(|(index, endpoint)| {
                Some((endpoint.0.server?, path!["pool", at, "endpoints", index].to_vec()))
            });
            let named: Vec<_> = named.collect();
            let reads = |vip: &VipDoc| vip.quic && vip.pool == pool.name;
            match named.first() {
                Some((_, path)) if !document.vip.iter().any(reads) => {
                    let message = "`server` is for ids of QUIC connections, and no VIP with this pool reads them";
                    self.report(Code::NoEffect, path, message, "write quic = true in the [[vip]], or leave it out");
                }
                _ => self.twice("the server", named),
            }
        }
    }

    pub(super) fn vip_count(&mut self) {
        let (count, max) = (self.document.vip.len(), limits::VIPS_MAX);
        if count > max {
            let advice = format!("at most {max} are supported");
            self.report(Code::BadValue, path!["vip", max], format!("{count} of [[vip]]"), advice);
        }
        let (mut addresses, most) = (0, limits::VIP_ADDRESSES_MAX);
        for (at, vip) in self.document.vip.iter().enumerate() {
            let before = addresses;
            addresses += vip.addr.0.len();
            if before <= most && addresses > most {
                let message = format!("with these, VIPs have {addresses} addresses");
                self.report(Code::BadValue, path!["vip", at, "addr"], message, format!("at most {most} are supported"));
            }
        }
    }
}

/// Whether two programs of one interface are to stand in different places.
pub(super) fn differ(one: XdpMode, other: XdpMode) -> bool {
    one != other && one != XdpMode::Auto && other != XdpMode::Auto
}

/// Bits of one address.
fn whole(address: &Cidr) -> u8 {
    if address.network().is_ipv4() { 32 } else { 128 }
}
