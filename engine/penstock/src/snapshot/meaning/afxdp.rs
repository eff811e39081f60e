//! What `engine.af_xdp` must mean.

use super::Meaning;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{AfXdpDoc, Protocol};

impl Meaning<'_> {
    pub(super) fn af_xdp(&mut self) {
        let document = self.document;
        let af_xdp = &document.engine.af_xdp;
        let Some(interface) = &af_xdp.interface else {
            if *af_xdp != AfXdpDoc::default() {
                let message = "AF_XDP stands nowhere: `interface` names none";
                self.report(Code::NoEffect, path!["engine", "af_xdp"], message, "write interface = \"eth0\"");
            }
            return;
        };
        self.interface(interface, path!["engine", "af_xdp", "interface"]);
        let others = [
            ("shield", &document.shield.interfaces),
            ("balance", &document.balance.interfaces),
            ("decap", &document.decap.interfaces),
        ];
        for (other, _) in others.iter().filter(|(_, theirs)| theirs.contains(interface)) {
            let message = format!("`{interface}` has the program of [{other}] already: an interface has one");
            let advice = format!("take it out of engine.af_xdp or of [{other}]");
            self.report(Code::Conflict, path!["engine", "af_xdp", "interface"], message, advice);
        }
        let has_datagrams = |door: &crate::snapshot::schema::ListenDoc| {
            let has_tls = door.tls.cert.is_some() || !door.tls.certificates.is_empty();
            door.protocol == Protocol::Udp || door.protocol == Protocol::Http && door.http3.enabled && has_tls
        };
        if !document.listen.iter().any(has_datagrams) {
            let message = "no listener is of `udp` or has HTTP/3, so no datagrams come";
            self.report(Code::NoEffect, path!["engine", "af_xdp"], message, "give a listener `tls`");
        }
    }
}
