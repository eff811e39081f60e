//! An engine with a door for HTTP/3, and the clients that our Python scripts are.

use rustls::ClientConfig;

use crate::driver::Driver;
use crate::engine::{Engine, Setup};
use crate::origin::Origin;
use crate::place::{Folder, python, script};
use crate::tls::{Authority, Issued, Kind};
use crate::tool::Tool;

/// An engine, and what its clients have to know of it.
pub struct H3Door {
    pub engine: Engine,
    pub authority: Authority,
    pub issued: Issued,
    pub folder: Folder,
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
        let engine = setup.listen_line(&issued.line().replace(" }", &format!("{more_tls} }}"))).start();
        Self { engine, authority, issued, folder }
    }

    /// A script, which is told what to do and where.
    pub fn script(&self, name: &str, scenario: &str) -> Tool {
        let address = self.engine.address.to_string();
        Tool::new(python(), 80).args([script(name).display().to_string(), scenario.to_owned(), address])
    }

    /// A script that has to find everything well.
    #[track_caller]
    pub fn play(&self, name: &str, scenario: &str) {
        self.passes(self.script(name, scenario), scenario);
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
    }

    /// A client's TLS that trusts the door.
    pub fn client(&self) -> ClientConfig {
        self.authority.client(None)
    }
}
