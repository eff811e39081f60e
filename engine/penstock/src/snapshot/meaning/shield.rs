//! What `[shield]` must mean.

use super::Meaning;
use crate::limits;
use crate::snapshot::address::read_networks;
use crate::snapshot::limit::LimitKey;
use crate::snapshot::report::Code;

impl Meaning<'_> {
    pub(super) fn shield(&mut self) {
        let shield = &self.document.shield;
        if shield.interfaces.is_empty() {
            if self.written(path!["shield"]) {
                let message = "the shield stands nowhere: `interfaces` names none";
                self.report(Code::NoEffect, path!["shield"], message, "write interfaces = [\"eth0\"]");
            }
            return;
        }
        self.interfaces("shield", &shield.interfaces);
        for (key, rate) in [("packets", &shield.packets), ("syns", &shield.syns), ("initials", &shield.initials)] {
            self.shield_rate(key, rate.rate.is_some(), rate.burst);
        }
        self.shield_rate("over_limit", shield.over_limit.rate.is_some(), shield.over_limit.burst);
        self.over_limit();
        self.deny_files();
    }

    fn shield_rate(&mut self, key: &str, has_rate: bool, burst: Option<u32>) {
        // One that cannot be read has been reported.
        if !has_rate && self.written(path!["shield", key]) && !self.written(path!["shield", key, "rate"]) {
            let message = format!("`{key}` has no `rate`, so it limits nothing");
            self.report(Code::NoEffect, path!["shield", key], message, "add rate = \"100/s\"");
        }
        if let Some(burst) = burst {
            self.within(path!["shield", key, "burst"], burst.into(), 1, u64::from(u32::MAX));
        }
    }

    fn over_limit(&mut self) {
        let over_limit = &self.document.shield.over_limit;
        if over_limit.rate.is_none() {
            return;
        }
        self.not_zero(path!["shield", "over_limit", "for"], &over_limit.deny_for);
        let by_client = |key: &LimitKey| *key == LimitKey::Client;
        if !self.document.route.iter().any(|route| route.limit.iter().any(|limit| by_client(&limit.key.0))) {
            self.report(
                Code::NoEffect,
                path!["shield", "over_limit"],
                "no route has a limit by client address, so nobody is ever over it",
                "add limit = [{ rate = \"100/s\" }] to a [[route]]",
            );
        }
    }

    fn deny_files(&mut self) {
        for (at, file) in self.document.shield.deny_files.iter().enumerate() {
            let path = path!["shield", "deny_files", at];
            let wrong = match (self.files)(file) {
                Err(error) => format!("`{file}` cannot be read: {error}"),
                Ok(bytes) if bytes.len() as u64 > limits::SHIELD_FILE_BYTES_MAX => {
                    format!("`{file}` has more than {} bytes", limits::SHIELD_FILE_BYTES_MAX)
                }
                Ok(bytes) => match read_networks(&String::from_utf8_lossy(&bytes)) {
                    Ok(_) => continue,
                    Err((line, wrong)) => format!("`{file}`, line {line}: {wrong}"),
                },
            };
            self.report(Code::BadValue, path, wrong, "a network or address a line, `#` before a comment");
        }
    }
}
