//! One question to a DNS server and its answer, as bytes (RFC 1035 §4).
//!
//! What holds here: no bytes panic; an answer counts only if it repeats our id and our question, and of its records only those
//! of the name that was asked for, or of what it is an alias of. Sockets and time are `ask.rs`'s.

use std::net::IpAddr;
use std::time::Duration;

use domain::base::iana::{Class, OptRcode, Rcode};
use domain::base::record::ParsedRecord;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype, Ttl};
use domain::rdata::{A, Aaaa, Srv};

use crate::limits;

/// What we take in one datagram: what crosses every network whole (DNS flag day 2020).
const UDP_BYTES: u16 = 1232;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

/// A question, ready to be sent.
pub(super) struct Query {
    message: Message<Vec<u8>>,
    kind: Kind,
}

/// What a server makes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Answer(Answer),
    /// The name does not exist.
    NoSuchName,
    /// Too long for a datagram: ask again over TCP.
    Truncated,
    /// The server does not know EDNS: ask again without.
    NoEdns,
    /// It will not or cannot answer.
    Refused(String),
}

/// Records of one kind; none is an answer too.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) services: Vec<Service>,
    /// The shortest time to live of all that led here.
    pub(super) ttl: Duration,
}

/// An SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    /// Lower ones are asked first.
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    /// Without the last dot, in lower case.
    pub(super) target: Box<str>,
}

impl Query {
    /// `None` for what is no domain name.
    pub(super) fn new(name: &str, kind: Kind, id: u16, edns: bool) -> Option<Self> {
        let name = Name::vec_from_str(name).ok()?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        question.push((&name, kind.rtype())).ok()?;
        let mut additional = question.additional();
        if edns {
            additional
                .opt(|opt| {
                    opt.set_udp_payload_size(UDP_BYTES);
                    Ok(())
                })
                .ok()?;
        }
        Some(Self { message: additional.into_message(), kind })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.message.as_slice()
    }

    /// Reads what has come; `None` when it is no answer to this question, whoever sent it.
    pub(super) fn read(&self, bytes: &[u8]) -> Option<Reply> {
        let message = Message::from_octets(bytes).ok()?;
        if !message.header().qr() || message.header().id() != self.message.header().id() {
            return None;
        }
        let rcode = message.opt_rcode();
        // A server that does not understand EDNS may not even repeat the question (RFC 6891 §7).
        let deaf = [OptRcode::FORMERR, OptRcode::NOTIMP, OptRcode::BADVERS].contains(&rcode);
        if deaf && self.message.opt().is_some() {
            return Some(Reply::NoEdns);
        }
        if !message.is_answer(&self.message) {
            return None;
        }
        if message.header().tc() {
            return Some(Reply::Truncated);
        }
        Some(match message.header().rcode() {
            Rcode::NOERROR => self.answer(&message).map_or(Reply::Refused("nonsense".into()), Reply::Answer),
            Rcode::NXDOMAIN => Reply::NoSuchName,
            _ => Reply::Refused(rcode.to_string()),
        })
    }

    fn answer(&self, message: &Message<&[u8]>) -> Option<Answer> {
        let asked = message.canonical_name()?;
        let mut answer = Answer { ttl: Duration::MAX, ..Answer::default() };
        for record in message.answer().ok()?.take(limits::RECORDS_MAX) {
            let record = record.ok()?;
            let wanted = record.rtype() == self.kind.rtype() && record.owner() == asked;
            if record.class() == Class::IN && (wanted || record.rtype() == Rtype::CNAME) {
                answer.lives(record.ttl());
            }
            if record.class() == Class::IN && wanted {
                answer.take(self.kind, &record)?;
            }
        }
        // Servers rotate records: the same ones must look the same.
        answer.addresses.sort_unstable();
        answer.addresses.dedup();
        answer.services.sort_unstable();
        answer.services.dedup();
        Some(answer)
    }
}

impl Kind {
    fn rtype(self) -> Rtype {
        match self {
            Self::A => Rtype::A,
            Self::Aaaa => Rtype::AAAA,
            Self::Srv => Rtype::SRV,
        }
    }
}

impl Answer {
    /// `None` for a record that is broken inside.
    fn take(&mut self, kind: Kind, record: &ParsedRecord<'_, &[u8]>) -> Option<()> {
        match kind {
            Kind::A => self.addresses.push(record.to_record::<A>().ok()??.data().addr().into()),
            Kind::Aaaa => self.addresses.push(record.to_record::<Aaaa>().ok()??.data().addr().into()),
            Kind::Srv => self.services.extend(Service::of(record.to_record::<Srv<ParsedName<_>>>().ok()??.data())),
        }
        Some(())
    }

    /// A time beyond 31 bits is none at all (RFC 2181 §8).
    fn lives(&mut self, ttl: Ttl) {
        let seconds = Some(ttl.as_secs()).filter(|&seconds| i32::try_from(seconds).is_ok()).unwrap_or(0);
        self.ttl = self.ttl.min(Duration::from_secs(seconds.into()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.services.is_empty()
    }
}

impl Service {
    /// `None` for the target `.`, which says that there is no such service here, and for one that is no host's name.
    fn of<N: std::fmt::Display>(record: &Srv<N>) -> Option<Self> {
        let target = record.target().to_string().trim_end_matches('.').to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        (!target.is_empty() && target.bytes().all(plain) && record.port() > 0).then(|| Self {
            priority: record.priority(),
            weight: record.weight(),
            port: record.port(),
            target: target.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reply by hand: header, question, and records as (owner, type, ttl, data).
    fn reply(id: u16, flags: u16, question: &[u8], records: &[(&[u8], u16, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [id, flags, 1, records.len() as u16, 0, 0] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(question);
        for (owner, kind, ttl, data) in records {
            bytes.extend_from_slice(owner);
            bytes.extend_from_slice(&kind.to_be_bytes());
            bytes.extend_from_slice(&1_u16.to_be_bytes());
            bytes.extend_from_slice(&ttl.to_be_bytes());
            bytes.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bytes.extend_from_slice(data);
        }
        bytes
    }

    const ANSWERED: u16 = 0x8180;
    const WEB: &[u8] = b"\x03web\x01a\x00";
    const REAL: &[u8] = b"\x04real\x01a\x00";
    const OTHER: &[u8] = b"\x05other\x01a\x00";
    const TO_QUESTION: &[u8] = b"\xc0\x0c";

    fn question(kind: u16) -> Vec<u8> {
        [WEB, &kind.to_be_bytes(), &1_u16.to_be_bytes()].concat()
    }

    fn query(kind: Kind) -> Query {
        Query::new("web.a", kind, 7, true).unwrap()
    }

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_question_is_what_servers_expect() {
        let wanted = [
            b"\x00\x07\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01".as_slice(),
            &question(28),
            b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00",
        ];
        assert_eq!(query(Kind::Aaaa).bytes(), wanted.concat());
        assert!(Query::new("a..b", Kind::A, 7, false).is_none());
        assert!(Query::new(&"a".repeat(64), Kind::A, 7, false).is_none());
    }

    #[test]
    fn records_of_the_name_and_of_what_it_is_an_alias_of_and_of_no_other() {
        let records: [(&[u8], u16, u32, &[u8]); 5] = [
            (TO_QUESTION, 5, 300, REAL),
            (REAL, 1, 60, &[10, 0, 0, 2]),
            (REAL, 1, 90, &[10, 0, 0, 1]),
            (OTHER, 1, 5, &[6, 6, 6, 6]),
            (REAL, 1, 90, &[10, 0, 0, 1]),
        ];
        let bytes = reply(7, ANSWERED, &question(1), &records);
        let wanted = Answer {
            addresses: addresses(&["10.0.0.1", "10.0.0.2"]),
            services: Vec::new(),
            ttl: Duration::from_secs(60),
        };
        assert_eq!(query(Kind::A).read(&bytes), Some(Reply::Answer(wanted)));
    }

    #[test]
    fn services_in_the_order_of_their_priority_without_those_that_are_none() {
        let target =
            |priority: u8, weight: u8, port: u8, name: &[u8]| [&[0, priority, 0, weight, 0, port], name].concat();
        let (second, first, none) = (target(20, 1, 80, OTHER), target(10, 5, 81, REAL), target(0, 0, 80, b"\0"));
        let records: [(&[u8], u16, u32, &[u8]); 3] =
            [(TO_QUESTION, 33, 9, &second), (TO_QUESTION, 33, 9, &first), (TO_QUESTION, 33, 9, &none)];
        let Some(Reply::Answer(answer)) = query(Kind::Srv).read(&reply(7, ANSWERED, &question(33), &records)) else {
            panic!("no answer");
        };
        let shown: Vec<String> =
            answer.services.iter().map(|s| format!("{} {} {}:{}", s.priority, s.weight, s.target, s.port)).collect();
        assert_eq!(shown, ["10 5 real.a:81", "20 1 other.a:80"]);
    }

    #[test]
    fn what_is_no_answer_to_this_question_is_nothing() {
        let record: [(&[u8], u16, u32, &[u8]); 1] = [(TO_QUESTION, 1, 60, &[10, 0, 0, 1])];
        let other = [OTHER, &[0, 1, 0, 1]].concat();
        for (why, bytes) in [
            ("another id", reply(8, ANSWERED, &question(1), &record)),
            ("another kind", reply(7, ANSWERED, &question(28), &record)),
            ("another name", reply(7, ANSWERED, &other, &record)),
            ("a question", reply(7, 0x0100, &question(1), &record)),
            ("too short", vec![0, 7, 0x81]),
        ] {
            assert_eq!(query(Kind::A).read(&bytes), None, "{why}");
        }
    }

    #[test]
    fn refusals_each_in_their_way() {
        let read = |flags: u16| query(Kind::A).read(&reply(7, flags, &question(1), &[]));
        assert_eq!(read(0x8183), Some(Reply::NoSuchName));
        assert_eq!(read(0x8182), Some(Reply::Refused("SERVFAIL".into())));
        assert_eq!(read(0x8380), Some(Reply::Truncated));
        assert_eq!(read(0x8181), Some(Reply::NoEdns));
        let nothing = Answer { ttl: Duration::MAX, ..Answer::default() };
        assert_eq!(read(ANSWERED), Some(Reply::Answer(nothing)));
        let plain = Query::new("web.a", Kind::A, 7, false).unwrap();
        assert_eq!(plain.read(&reply(7, 0x8181, &question(1), &[])), Some(Reply::Refused("FORMERR".into())));
    }

    #[test]
    fn no_bytes_panic() {
        let records: [(&[u8], u16, u32, &[u8]); 2] =
            [(TO_QUESTION, 5, u32::MAX, REAL), (REAL, 33, 60, &[0, 1, 0, 1, 0, 80, 0xc0, 0x0c])];
        let good = reply(7, ANSWERED, &question(33), &records);
        let mut random = policy::Random::new(1);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.next_u64() as u8;
            }
            bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
            let _ = query(Kind::Srv).read(&bytes);
        }
    }
}
