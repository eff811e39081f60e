//! `[shield]`, compiled.

use std::path::PathBuf;
use std::time::Duration;

use policy::RateSettings;

use super::qos::rate_settings;
use super::{Networks, networks, time};
use crate::snapshot::schema::{ShieldDoc, ShieldRateDoc, SynCookies, XdpMode};

/// The XDP shield, on at least one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shield {
    pub interfaces: Box<[Box<str>]>,
    pub mode: XdpMode,
    pub dry_run: bool,
    pub drop_malformed: bool,
    pub allow: Networks,
    pub deny: Networks,
    pub deny_files: Box<[PathBuf]>,
    /// Of each source.
    pub packets: Option<RateSettings>,
    pub syns: Option<RateSettings>,
    pub syn_cookies: SynCookies,
    pub initials: Option<RateSettings>,
    pub over_limit: Option<OverLimit>,
}

/// Who is dropped for not heeding a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit {
    /// Requests turned away beyond which a client is dropped.
    pub rate: RateSettings,
    pub deny_for: Duration,
}

pub(super) fn shield(doc: &ShieldDoc) -> Option<Shield> {
    if doc.interfaces.is_empty() {
        return None;
    }
    let rate = |doc: &ShieldRateDoc| doc.rate.as_ref().map(|rate| rate_settings(rate.0, doc.burst));
    let over_limit = doc.over_limit.rate.as_ref().map(|rate| OverLimit {
        rate: rate_settings(rate.0, doc.over_limit.burst),
        deny_for: time(&doc.over_limit.deny_for),
    });
    Some(Shield {
        interfaces: doc.interfaces.iter().map(|name| name.as_str().into()).collect(),
        mode: doc.mode,
        dry_run: doc.dry_run,
        drop_malformed: doc.drop_malformed,
        allow: networks(&doc.allow),
        deny: networks(&doc.deny),
        deny_files: doc.deny_files.iter().map(PathBuf::from).collect(),
        packets: rate(&doc.packets),
        syns: rate(&doc.syns),
        syn_cookies: doc.syn_cookies,
        initials: rate(&doc.initials),
        over_limit,
    })
}
