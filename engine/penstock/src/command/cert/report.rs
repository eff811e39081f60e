//! What `penstock cert check` has found, for people and for programs.

use certs::{Certificate, Judged, Judgement, Sct, Source, Time};
use serde_json::{Value, json};
use std::fmt::Write;

/// Everything that is known of a chain.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// What was asked for.
    pub(super) source: String,
    pub(super) now: Time,
    pub(super) chain: Vec<Certificate>,
    /// With a server: version, cipher suite, protocol.
    pub(super) agreed: Option<(&'static str, &'static str, Option<String>)>,
    /// From a server: the OCSP response that came along, which may be empty.
    pub(super) ocsp: Option<Vec<u8>>,
    /// Whether it leads to a root for the name asked for, if one was.
    pub(super) trust: Option<Result<(), String>>,
    /// SCTs, verified.
    pub(super) judgement: Option<Judgement>,
    /// What is to be mended.
    pub(super) flaws: Vec<String>,
    /// What is to be known.
    pub(super) notes: Vec<String>,
}

impl Report {
    pub(super) fn is_good(&self) -> bool {
        self.flaws.is_empty()
    }

    pub(super) fn render(&self) -> String {
        let mut out = format!("{}: {}\n", self.source, count(self.chain.len(), "certificate"));
        if let Some((version, cipher, protocol)) = &self.agreed {
            let protocol = protocol.as_deref().unwrap_or("none");
            let staple = if self.has_staple() { "yes" } else { "none" };
            let _ = writeln!(out, "  agreed upon: {version}, {cipher}, protocol {protocol}; OCSP staple: {staple}");
        }
        for (at, one) in self.chain.iter().enumerate() {
            self.certificate(at, one, &mut out);
        }
        for (title, lines) in [("to know", &self.notes), ("to mend", &self.flaws)] {
            for line in lines {
                let _ = writeln!(out, "{title}: {line}");
            }
        }
        if self.is_good() {
            out.push_str("nothing to mend\n");
        }
        out
    }

    fn certificate(&self, at: usize, one: &Certificate, out: &mut String) {
        let kind = if one.is_self_signed() && one.is_ca {
            "root"
        } else if one.is_ca {
            "authority"
        } else if one.is_self_signed() {
            "self-signed"
        } else {
            "host"
        };
        let days = match one.days_left(self.now) {
            days if days < 0 => format!("expired {}", ago(-days)),
            days => format!("{} left", count(days as usize, "day")),
        };
        let _ = writeln!(out, "\n{}  {kind}: {}", at + 1, one.subject);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "   {name:<12} {value}");
        };
        if !one.names.is_empty() {
            line("names", &one.names.join(", "));
        }
        line("issuer", &one.issuer);
        line("valid", &format!("{} to {}, {days}", one.not_before, one.not_after));
        line("key", &format!("{}; signed with {}", one.key, one.signature));
        line("serial", &one.serial);
        line("fingerprint", &sha256(&one.fingerprint));
        line("pin", &sha256(&one.pin));
        if !one.is_ca {
            line("SCTs", &self.scts_in_short(one));
            self.scts(one).iter().for_each(|sct| line("", sct));
        }
    }

    fn scts_in_short(&self, one: &Certificate) -> String {
        let needed = certs::needed(one);
        match (&self.judgement, &one.scts) {
            (Some(judgement), _) => {
                format!("{} good of {}, {needed} needed", judgement.counting(), judgement.scts.len())
            }
            (None, Err(bad)) => bad.to_string(),
            (None, Ok(scts)) => format!("{}, browsers want {needed}; not verified without --logs", scts.len()),
        }
    }

    fn scts(&self, one: &Certificate) -> Vec<String> {
        match (&self.judgement, &one.scts) {
            (Some(judgement), _) => {
                let bad = judgement.unreadable.iter().map(|(source, bad)| format!("{source}: {bad}"));
                judgement.scts.iter().map(judged).chain(bad).collect()
            }
            (None, scts) => scts.iter().flatten().map(unverified).collect(),
        }
    }

    fn has_staple(&self) -> bool {
        self.ocsp.as_ref().is_some_and(|staple| !staple.is_empty())
    }

    pub(super) fn to_json(&self) -> Value {
        let mut report = json!({ "source": self.source, "good": self.is_good() });
        if let Some((version, cipher, protocol)) = &self.agreed {
            report["tls"] = json!({
                "version": version, "cipher": cipher, "protocol": protocol, "ocsp_staple": self.has_staple(),
            });
        }
        report["certificates"] = self.chain.iter().map(|one| certificate(one, self.now)).collect();
        if let Some(judgement) = &self.judgement {
            report["scts"] = json!({
                "needed": judgement.needed,
                "counting": judgement.counting(),
                "each": judgement.scts.iter().map(sct).collect::<Vec<_>>(),
            });
        }
        report["to_mend"] = json!(self.flaws);
        report["to_know"] = json!(self.notes);
        report
    }
}

fn certificate(one: &Certificate, now: Time) -> Value {
    json!({
        "subject": one.subject,
        "names": one.names,
        "issuer": one.issuer,
        "serial": one.serial,
        "not_before": one.not_before.to_string(),
        "not_after": one.not_after.to_string(),
        "days_left": one.days_left(now),
        "key": one.key.to_string(),
        "signature": one.signature,
        "ca": one.is_ca,
        "self_signed": one.is_self_signed(),
        "fingerprint": sha256(&one.fingerprint),
        "pin": sha256(&one.pin),
        "scts": one.scts.as_ref().map_or(0, Vec::len),
    })
}

fn sct(one: &Judged) -> Value {
    let (log, operator) = one.log.clone().unzip();
    json!({
        "source": one.source.to_string(),
        "log": log,
        "operator": operator,
        "log_id": hex(&one.sct.log_id),
        "timestamp": one.sct.timestamp.to_string(),
        "verdict": one.verdict.to_string(),
    })
}

fn judged(one: &Judged) -> String {
    let log = match &one.log {
        Some((log, operator)) => format!("{log} ({operator})"),
        None => format!("log {}", hex(&one.sct.log_id)),
    };
    let source = if one.source == Source::Certificate { String::new() } else { format!(", from the {}", one.source) };
    format!("{log}, {}{source}: {}", one.sct.timestamp, one.verdict)
}

fn unverified(sct: &Sct) -> String {
    format!("log {}, {}", hex(&sct.log_id), sct.timestamp)
}

/// As pools pin keys.
fn sha256(digest: &[u8; 32]) -> String {
    format!("sha256:{}", hex(digest))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ago(days: i64) -> String {
    if days <= 1 { "less than a day ago".to_owned() } else { format!("{} days ago", days - 1) }
}

fn count(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
