//! What `engine.af_xdp` must mean.

use super::Meaning;
use super::vip::differ;
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
            ("shield", &document.shield.interfaces, document.shield.mode),
            ("balance", &document.balance.interfaces, document.balance.mode),
            ("decap", &document.decap.interfaces, document.decap.mode),
        ];
        let another =
            |(_, theirs, mode): &&(_, &Vec<String>, _)| theirs.contains(interface) && differ(*mode, af_xdp.mode);
        if let Some((other, ..)) = others.iter().find(another) {
            let message = format!("`{interface}` has [{other}] in another mode, and one program hands on to the other");
            let advice = format!("write the mode that [{other}] has");
            self.report(Code::Conflict, path!["engine", "af_xdp", "mode"], message, advice);
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
