//! What `tls` must mean. Whether certificates and keys are any good is seen when they are loaded.

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::schema::{ListenDoc, PoolDoc, PoolProtocol, Protocol, ProxyProtocol, Transparency};
use crate::snapshot::text::Step;

impl Meaning<'_> {
    pub(super) fn listener_tls(&mut self, at: usize, door: &ListenDoc) {
        let tls = &door.tls;
        for (given, missing, key) in [(&tls.cert, &tls.key, ["cert", "key"]), (&tls.key, &tls.cert, ["key", "cert"])] {
            if given.is_some() && missing.is_none() && !self.written(path!["listen", at, "tls", key[1]]) {
                let message = format!("`tls.{}` without `tls.{}`", key[0], key[1]);
                self.report(Code::MissingKey, path!["listen", at, "tls", key[0]], message, "write the paths of both");
            }
        }
        if !tls.is_on() {
            let why = |key: &str| format!("`tls.{key}` has no effect without a certificate");
            let keys = ["ocsp", "client_ca", "client_auth", "client_cert_field", "min", "early_data", "strict_sni"];
            self.idle(path!["listen", at, "tls"], &keys, why, "add `cert` and `key`");
            if self.written(path!["listen", at, "timeout", "handshake"]) {
                let message = "a time for TLS, and the listener speaks without it";
                let path = path!["listen", at, "timeout", "handshake"];
                self.report(Code::NoEffect, path, message, "add `tls`, or leave it out");
            }
        }
        if tls.client_ca.is_none() && tls.is_on() {
            let why = |key: &str| format!("`tls.{key}` has no effect: no client is asked for a certificate");
            self.idle(path!["listen", at, "tls"], &["client_auth", "client_cert_field"], why, "add `client_ca`");
        }
        if tls.client_cert_field && door.protocol == Protocol::Tcp {
            let message = "a tcp listener has no requests to put a field into";
            self.report(Code::NoEffect, path!["listen", at, "tls", "client_cert_field"], message, "leave it out");
        }
        if tls.early_data && door.protocol != Protocol::Http {
            let message = "only requests can be told apart from what must not come twice";
            self.report(Code::NoEffect, path!["listen", at, "tls", "early_data"], message, "leave it out");
        } else if tls.early_data && tls.client_ca.is_some() {
            let message = "early data comes before a client has proven anew who it is";
            let advice = "leave out `early_data` or `client_ca`";
            self.report(Code::Conflict, path!["listen", at, "tls", "early_data"], message, advice);
        }
        if tls.certificates.len() > limits::CERTIFICATES_MAX {
            let message = format!("{} certificates", tls.certificates.len());
            let advice = format!("at most {} are supported", limits::CERTIFICATES_MAX);
            self.report(Code::BadValue, path!["listen", at, "tls", "certificates"], message, advice);
        }
        for (key, path) in [("cert", &tls.cert), ("key", &tls.key), ("ocsp", &tls.ocsp), ("client_ca", &tls.client_ca)]
        {
            self.tls_file(path.as_deref(), path!["listen", at, "tls", key]);
        }
        for (number, one) in tls.certificates.iter().enumerate() {
            for (key, path) in [("cert", Some(&one.cert)), ("key", Some(&one.key)), ("ocsp", one.ocsp.as_ref())] {
                let path = path.map(String::as_str).filter(|path| !path.is_empty());
                self.tls_file(path, path!["listen", at, "tls", "certificates", number, key]);
            }
        }
    }

    pub(super) fn pool_tls(&mut self, at: usize, pool: &PoolDoc) {
        let tls = &pool.tls;
        let with = pool.endpoints.iter().filter(|endpoint| endpoint.0.tls).count();
        if let Some(plain) = pool.endpoints.iter().position(|endpoint| !endpoint.0.tls)
            && with > 0
            && tls.ca.is_none()
        {
            let message = "some endpoints are `https://` and this one is not";
            let advice = "TLS is the whole pool's: write `https://` everywhere, or make two pools";
            self.report(Code::Conflict, path!["pool", at, "endpoints", plain], message, advice);
        }
        let is_on = with > 0 || tls.ca.is_some();
        if !is_on {
            let why = |key: &str| format!("`tls.{key}` has no effect without TLS");
            let advice = "write endpoints as `https://…`, or add ca = \"system\"";
            self.idle(
                path!["pool", at, "tls"],
                &["verify", "sni", "pin", "transparency", "logs", "cert", "key"],
                why,
                advice,
            );
        }
        if tls.cert.is_some() != tls.key.is_some() {
            let message = "a certificate and its key go together";
            let key = if tls.cert.is_some() { "cert" } else { "key" };
            self.report(Code::MissingKey, path!["pool", at, "tls", key], message, "write the paths of both");
        }
        if tls.transparency != Transparency::Off && tls.logs.is_none() {
            let message = "`tls.transparency` without `tls.logs`: nobody knows which logs are believed";
            let advice = "write the path of a log_list.json";
            self.report(Code::MissingKey, path!["pool", at, "tls", "transparency"], message, advice);
        }
        if tls.transparency == Transparency::Off && is_on {
            let why = |key: &str| format!("`tls.{key}` has no effect without `tls.transparency`");
            self.idle(path!["pool", at, "tls"], &["logs"], why, "add transparency = \"warn\", or leave it out");
        }
        if let Some(name) = &tls.sni
            && rustls::pki_types::ServerName::try_from(name.as_str()).is_err()
        {
            let message = format!("`{name}` is no name that a certificate could have");
            self.report(Code::BadValue, path!["pool", at, "tls", "sni"], message, "write a host's name or address");
        }
        if pool.protocol != PoolProtocol::Http11 && pool.proxy_protocol != ProxyProtocol::Off {
            let message = "a PROXY header tells of one client, and a connection of HTTP/2 or HTTP/3 carries many";
            self.report(Code::Conflict, path!["pool", at, "proxy_protocol"], message, "leave one of the two out");
        }
        if pool.protocol == PoolProtocol::Auto && !is_on {
            let message = "without TLS there is nothing to choose by";
            let advice = "write protocol = \"h2\" or \"http/1.1\", or endpoints as `https://…`";
            self.report(Code::NoEffect, path!["pool", at, "protocol"], message, advice);
        }
        if pool.protocol == PoolProtocol::Http11 && is_on && pool.health.grpc.is_some() {
            let message = "gRPC is spoken over HTTP/2, and over TLS this pool offers HTTP/1.1 alone";
            self.report(Code::Conflict, path!["pool", at, "health", "grpc"], message, "write protocol = \"h2\"");
        }
        if pool.protocol == PoolProtocol::Http3 && !is_on {
            let message = "HTTP/3 is never without TLS";
            let advice = "write endpoints as `https://…`, or add tls = { ca = \"system\" }";
            self.report(Code::Conflict, path!["pool", at, "protocol"], message, advice);
        }
        for (key, written) in [("expect", pool.health.expect.is_some()), ("grpc", pool.health.grpc.is_some())] {
            if written && pool.protocol == PoolProtocol::Http3 {
                let message = format!("probes by `{key}` do not go over HTTP/3");
                self.report(Code::Conflict, path!["pool", at, "health", key], message, "probe with http = \"/…\"");
            }
        }
        let ca = tls.ca.as_deref().filter(|ca| *ca != "system" && tls.verify);
        let (cert, key, logs) = (tls.cert.as_deref(), tls.key.as_deref(), tls.logs.as_deref());
        for (key, path) in [("ca", ca), ("logs", logs), ("cert", cert), ("key", key)] {
            self.tls_file(path, path!["pool", at, "tls", key]);
        }
    }

    /// A file that TLS needs must be there to be read.
    fn tls_file(&mut self, file: Option<&str>, path: &[Step<'_>]) {
        if let Some(file) = file
            && let Err(error) = (self.files)(file)
        {
            self.report(
                Code::BadValue,
                path,
                format!("`{file}` cannot be read: {error}"),
                "paths are relative to this file",
            );
        }
    }
}
