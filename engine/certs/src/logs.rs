//! The logs that are believed: the list that Google and Apple publish for their browsers (`log_list.json`, version 3 of its schema).
//!
//! What holds here: a list is taken as a whole or not at all, and an error names the place in it. Keys that this program cannot verify with, and
//! identifiers that are not their key's hash, are errors: a log left out in silence would make good certificates look bad.
//! Source: <https://www.gstatic.com/ct/log_list/v3/log_list_schema.json>.

use std::collections::HashMap;
use std::fmt;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use data_encoding::BASE64;
use serde_json::Value;

use crate::sct::Sct;
use crate::{Time, der, sha256};

/// Logs in a list: today's lists have a hundred, with those of past years.
const LOGS_MAX: usize = 10_000;

/// 1.2.840.10045.2.1: a key of an elliptic curve.
const EC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7: P-256, the only curve that logs sign with (RFC 6962 §2.1.4).
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.2.840.113549.1.1.1: an RSA key.
const RSA_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// Those who made a promise, and what became of them since.
#[derive(Clone, Debug)]
pub struct Log {
    pub description: String,
    pub state: State,
    /// The last day of a certificate must be in it, the end excluded; `None`: any.
    pub interval: Option<(Time, Time)>,
    /// How long it may take to publish what it has promised to (the maximum merge delay), in seconds.
    pub merge_delay_s: u64,
    operator: String,
    /// Who ran it before, until when; the oldest first.
    earlier: Vec<(String, Time)>,
    key: Vec<u8>,
    algorithm: Algorithm,
}

/// Where a log stands with the program that published the list.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// Not decided yet.
    Pending,
    Qualified,
    Usable,
    /// It takes nothing new; its promises stand.
    ReadOnly,
    /// What it promised from then on counts nothing.
    Retired(Time),
    Rejected,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Algorithm {
    Ecdsa,
    Rsa,
}

/// A list of logs, by identifier.
#[derive(Clone, Debug, Default)]
pub struct Logs {
    by_id: HashMap<[u8; 32], Log>,
    /// When it was published, if it says so.
    pub published: Option<Time>,
}

/// What is wrong with a list, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BadList(String);

impl BadList {
    fn at(place: &str, why: impl fmt::Display) -> Self {
        Self(format!("{place}: {why}"))
    }
}

impl fmt::Display for BadList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadList {}

impl Logs {
    /// Reads a list.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn read(json: &[u8]) -> Result<Self, BadList> {
        let list: Value = serde_json::from_slice(json).map_err(|error| BadList(format!("no JSON: {error}")))?;
        let mut logs = Self::default();
        if let Some(text) = list.get("log_list_timestamp") {
            logs.published = Some(time(text, "log_list_timestamp")?);
        }
        for (at, operator) in array(&list, "operators", "the list")?.iter().enumerate() {
            logs.take_operator(operator, &format!("operators[{at}]"))?;
        }
        if logs.by_id.is_empty() {
            return Err(BadList("there is no log in it".to_owned()));
        }
        Ok(logs)
    }

    /// One operator's logs: those with an API as RFC 6962 has it, and those that publish tiles.
    fn take_operator(&mut self, operator: &Value, place: &str) -> Result<(), BadList> {
        let name = text(operator, "name", place)?;
        for kind in ["logs", "tiled_logs"] {
            if operator.get(kind).is_none() {
                continue;
            }
            for (at, log) in array(operator, kind, place)?.iter().enumerate() {
                let place = format!("{place}.{kind}[{at}]");
                let (id, log) = Log::read(log, name, &place)?;
                if self.by_id.insert(id, log).is_some() {
                    return Err(BadList::at(&place, "its log_id is another one's already"));
                }
                if self.by_id.len() > LOGS_MAX {
                    return Err(BadList::at(&place, format!("there are more than {LOGS_MAX} logs")));
                }
            }
        }
        Ok(())
    }

    #[must_use]
    pub fn get(&self, id: &[u8; 32]) -> Option<&Log> {
        self.by_id.get(id)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}

impl Log {
    fn read(log: &Value, operator: &str, place: &str) -> Result<([u8; 32], Self), BadList> {
        let key = base64(log, "key", place)?;
        let id = sha256(&key);
        if base64(log, "log_id", place)? != id {
            return Err(BadList::at(place, "log_id is not the SHA-256 of key"));
        }
        let algorithm = Algorithm::of(&key)
            .ok_or_else(|| BadList::at(place, "key is neither ECDSA on P-256 nor RSA (RFC 6962 §2.1.4)"))?;
        let log = Self {
            description: log.get("description").and_then(Value::as_str).unwrap_or("a log without a name").to_owned(),
            state: state(log, place)?,
            interval: interval(log, place)?,
            merge_delay_s: log.get("mmd").and_then(Value::as_u64).unwrap_or(0),
            operator: operator.to_owned(),
            earlier: earlier(log, place)?,
            key,
            algorithm,
        };
        Ok((id, log))
    }

    /// Who ran it at `when`.
    #[must_use]
    pub fn operator(&self, when: Time) -> &str {
        let earlier = self.earlier.iter().find(|(_, until)| when < *until);
        earlier.map_or(&self.operator, |(name, _)| name)
    }

    /// Whether the signature of an SCT over `signed` is this log's.
    pub(crate) fn has_signed(&self, sct: &Sct, signed: &[u8]) -> bool {
        // SHA-256 (4), with RSA (1) or ECDSA (3): RFC 5246 §7.4.1.4.1.
        let (wanted, algorithm): (_, &'static dyn VerificationAlgorithm) = match self.algorithm {
            Algorithm::Ecdsa => ([4, 3], &ECDSA_P256_SHA256_ASN1),
            Algorithm::Rsa => ([4, 1], &RSA_PKCS1_2048_8192_SHA256),
        };
        sct.algorithm == wanted && UnparsedPublicKey::new(algorithm, &self.key).verify(signed, &sct.signature).is_ok()
    }
}

impl Algorithm {
    /// Of a SubjectPublicKeyInfo.
    fn of(spki: &[u8]) -> Option<Self> {
        let algorithm = der::Elements::of(der::only(spki, der::SEQUENCE)?).expect(der::SEQUENCE)?;
        let mut algorithm = der::Elements::of(algorithm.content);
        match algorithm.expect(der::OBJECT_IDENTIFIER)?.content {
            EC_KEY if algorithm.expect(der::OBJECT_IDENTIFIER)?.content == P256 => Some(Self::Ecdsa),
            RSA_KEY => Some(Self::Rsa),
            _ => None,
        }
    }
}

fn array<'a>(value: &'a Value, key: &str, place: &str) -> Result<&'a [Value], BadList> {
    let array = value.get(key).and_then(Value::as_array);
    array.map(Vec::as_slice).ok_or_else(|| BadList::at(place, format!("`{key}` is missing, or no array")))
}

fn text<'a>(value: &'a Value, key: &str, place: &str) -> Result<&'a str, BadList> {
    let text = value.get(key).and_then(Value::as_str);
    text.ok_or_else(|| BadList::at(place, format!("`{key}` is missing, or no text")))
}

fn base64(value: &Value, key: &str, place: &str) -> Result<Vec<u8>, BadList> {
    let decoded = BASE64.decode(text(value, key, place)?.as_bytes());
    decoded.map_err(|error| BadList::at(place, format!("`{key}` is no base64: {error}")))
}

fn time(value: &Value, place: &str) -> Result<Time, BadList> {
    value.as_str().and_then(Time::parse).ok_or_else(|| BadList::at(place, "no time as 2026-11-22T10:00:00Z (RFC 3339)"))
}

fn time_of(value: &Value, key: &str, place: &str) -> Result<Time, BadList> {
    time(value.get(key).unwrap_or(&Value::Null), &format!("{place}.{key}"))
}

/// `"state": {"usable": {"timestamp": …}}`. A log without one (of a list of all that there are) counts as one that nobody has decided upon.
fn state(log: &Value, place: &str) -> Result<State, BadList> {
    let Some(state) = log.get("state") else { return Ok(State::Pending) };
    let place = format!("{place}.state");
    let single = state.as_object().filter(|state| state.len() == 1).and_then(|state| state.iter().next());
    let (name, of) = single.ok_or_else(|| BadList::at(&place, "no object with a single state in it"))?;
    Ok(match name.as_str() {
        "pending" => State::Pending,
        "qualified" => State::Qualified,
        "usable" => State::Usable,
        "readonly" => State::ReadOnly,
        "retired" => State::Retired(time_of(of, "timestamp", &format!("{place}.retired"))?),
        "rejected" => State::Rejected,
        other => return Err(BadList::at(&place, format!("`{other}` is no state of the third version of this format"))),
    })
}

fn interval(log: &Value, place: &str) -> Result<Option<(Time, Time)>, BadList> {
    let Some(interval) = log.get("temporal_interval").filter(|interval| !interval.is_null()) else { return Ok(None) };
    let place = format!("{place}.temporal_interval");
    Ok(Some((time_of(interval, "start_inclusive", &place)?, time_of(interval, "end_exclusive", &place)?)))
}

fn earlier(log: &Value, place: &str) -> Result<Vec<(String, Time)>, BadList> {
    if log.get("previous_operators").is_none() {
        return Ok(Vec::new());
    }
    let mut earlier = Vec::new();
    for (at, operator) in array(log, "previous_operators", place)?.iter().enumerate() {
        let place = format!("{place}.previous_operators[{at}]");
        earlier.push((text(operator, "name", &place)?.to_owned(), time_of(operator, "end_time", &place)?));
    }
    earlier.sort_by_key(|(_, until)| *until);
    Ok(earlier)
}

/// As the format writes it.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Qualified => "qualified",
            Self::Usable => "usable",
            Self::ReadOnly => "readonly",
            Self::Retired(_) => "retired",
            Self::Rejected => "rejected",
        })
    }
}
