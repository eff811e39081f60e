//! What `[[pool]] health` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::report::Code;
use crate::snapshot::schema::HealthDoc;

impl Meaning<'_> {
    pub(super) fn health(&mut self, at: usize, health: &HealthDoc) {
        self.one_way_to_ask(at, health);
        self.keys_that_belong_to_another_way(at, health);
        for (key, text) in [("body", &health.body), ("host", &health.host), ("expect", &health.expect)] {
            if text.as_ref().is_some_and(String::is_empty) {
                let path = path!["pool", at, "health", key];
                self.report(Code::BadValue, path, format!("`{key}` is empty: it says nothing"), "leave it out");
            }
        }
        let visible = |host: &String| host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
        if health.host.as_ref().is_some_and(|host| !visible(host)) {
            let path = path!["pool", at, "health", "host"];
            self.report(Code::BadValue, path, "`host` is not a host", "write a name like `app.example.net`");
        }
        for (key, text) in [("body", &health.body), ("expect", &health.expect), ("send", &health.send)] {
            let length = text.as_ref().map_or(0, String::len);
            self.within(path!["pool", at, "health", key], length as u64, 0, limits::PROBE_BYTES_MAX as u64);
        }
        self.within(path!["pool", at, "health", "rise"], health.rise.into(), 1, u8::MAX.into());
        self.within(path!["pool", at, "health", "fall"], health.fall.into(), 1, u8::MAX.into());
        if health.port == Some(0) {
            self.report(Code::BadValue, path!["pool", at, "health", "port"], "port 0 is none", "leave it out");
        }
        if let Some(timeout) = &health.timeout {
            self.not_zero(path!["pool", at, "health", "timeout"], timeout);
        }
        self.health_times(at, health);
        for (key, time) in [("every", Some(&health.every)), ("every_in_doubt", health.every_in_doubt.as_ref())] {
            if time.is_some_and(|time| time.0.0 < limits::PROBE_EVERY_MIN) {
                let path = path!["pool", at, "health", key];
                let least = format!("write at least \"{}ms\"", limits::PROBE_EVERY_MIN.as_millis());
                self.report(Code::BadValue, path, "so many probes would be a load of their own", least);
            }
        }
    }

    fn one_way_to_ask(&mut self, at: usize, health: &HealthDoc) {
        match ways(health).collect::<Vec<_>>().as_slice() {
            [first, second, ..] => {
                let message = format!("`{first}` and `{second}`: an endpoint is asked in one way");
                self.report(Code::Conflict, path!["pool", at, "health", *second], message, "leave one of them out");
            }
            [] if *health != HealthDoc::default() => {
                self.report(
                    Code::NoEffect,
                    path!["pool", at, "health"],
                    "nothing says how to ask: the endpoints are not probed",
                    "add http = \"/healthz\", grpc = \"\", tcp = true, or expect = \"220 \"",
                );
            }
            _ => {}
        }
    }

    fn keys_that_belong_to_another_way(&mut self, at: usize, health: &HealthDoc) {
        let probed = ways(health).next().is_some();
        let (http, grpc) = (health.http.is_some(), health.grpc.is_some());
        for (key, belongs_to, used) in [
            ("status", "http", http),
            ("body", "http", http),
            ("host", "http", http || grpc),
            ("send", "expect", health.expect.is_some()),
        ] {
            if probed && !used && self.written(path!["pool", at, "health", key]) {
                let message = format!("`{key}` belongs to `{belongs_to}`, which is not there");
                self.report(Code::NoEffect, path!["pool", at, "health", key], message, "leave it out");
            }
        }
    }
}

/// The keys that say how to ask.
fn ways(health: &HealthDoc) -> impl Iterator<Item = &'static str> {
    let HealthDoc { http, grpc, tcp, expect, .. } = health;
    [("http", http.is_some()), ("grpc", grpc.is_some()), ("tcp", *tcp), ("expect", expect.is_some())]
        .into_iter()
        .filter_map(|(way, there)| there.then_some(way))
}
