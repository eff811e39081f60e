//! An engine with a door for HTTP/3, and the clients that our Python scripts are.

use std::net::SocketAddr;

use rustls::ClientConfig;

use crate::driver::Driver;
use crate::engine::{Engine, Setup};
use crate::netns::Net;
use crate::origin::Origin;
use crate::place::{Folder, python, quic_clients, script};
use crate::tls::{Authority, Issued, Kind};
use crate::tool::Tool;

/// An engine, and what its clients have to know of it.
pub struct H3Door {
    pub engine: Engine,
    pub authority: Authority,
    pub issued: Issued,
    pub folder: Folder,
    /// Where clients are, if they are not here: see [`Net`].
    outside: Option<String>,
}

impl H3Door {
    /// Before an origin.
    #[track_caller]
    pub fn new(driver: Driver, origin: &Origin) -> Self {
        Self::of(Setup::new(driver).origin(origin), "")
    }

    /// With more in its `tls`, as it stands in TOML.
    #[track_caller]
    pub fn of(setup: Setup, more_tls: &str) -> Self {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let outside = Net::wanted();
        let setup = if outside.is_some() { by_af_xdp(setup) } else { setup };
        let engine = setup.listen_line(&issued.line().replace(" }", &format!("{more_tls} }}"))).start();
        Self { engine, authority, issued, folder, outside }
    }

    /// A script, which is told what to do and where.
    pub fn script(&self, name: &str, scenario: &str) -> Tool {
        let address = self.engine.address.to_string();
        let tool = match &self.outside {
            Some(namespace) => Tool::new("ip", 80).args(["netns", "exec", namespace]).args([python()]),
            None => Tool::new(python(), 80),
        };
        tool.args([script(name).display().to_string(), scenario.to_owned(), address])
    }

    /// A script that has to find everything well.
    #[track_caller]
    pub fn play(&self, name: &str, scenario: &str) {
        self.passes(self.script(name, scenario), scenario);
    }

    /// By a client that somebody else wrote in Rust or C: `quiche`, `quinn`, or `h3i` with what must be rejected. False where they were not built.
    #[track_caller]
    pub fn foreign(&self, client: &str) -> bool {
        let Some(program) = quic_clients().filter(|_| self.outside.is_none()) else {
            println!("quic-clients: not available here");
            return false;
        };
        let address = self.engine.address.to_string();
        let authority = self.authority.file.display().to_string();
        self.passes(Tool::new(program, 120).args([client.to_owned(), address, authority]), client);
        true
    }

    /// By libcurl.
    #[track_caller]
    pub fn curl(&self, scenario: &str, more: &[&str]) {
        let authority = self.authority.file.display().to_string();
        self.passes(self.script("h3_curl.py", scenario).args([authority]).args(more), scenario);
    }

    #[track_caller]
    fn passes(&self, tool: Tool, what: &str) {
        let ran = tool.run();
        assert_eq!(ran.text().lines().last(), Some("all well"), "{what}: {}{}", ran.text(), ran.err);
        if self.outside.is_some() {
            let metrics = self.engine.metrics();
            let (came, went) = (metrics.sum("afxdp_received_total"), metrics.sum("afxdp_sent_total"));
            assert!(came > 0 && went > 0, "by AF_XDP {came} datagrams came and {went} went");
        }
    }

    /// Where clients that are scripts come from.
    pub fn client_address(&self) -> &'static str {
        if self.outside.is_some() { Net::OUTSIDE_V4 } else { "127.0.0.1" }
    }

    /// A client's TLS that trusts the door.
    pub fn client(&self) -> ClientConfig {
        self.authority.client(None)
    }
}

/// At an address that clients of the other namespace reach, past the kernel.
fn by_af_xdp(setup: Setup) -> Setup {
    let address = SocketAddr::new(Net::V4.parse().expect("an address"), 8_443);
    setup.at(address).engine_line(&format!("af_xdp.interface = {:?}", Net::INTERFACE))
}
