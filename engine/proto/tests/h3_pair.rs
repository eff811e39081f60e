//! A client's machine and a server's, with nothing between them but pieces: whatever order streams move in and wherever bytes are cut, every
//! message arrives as it was sent, and neither ever finds fault with the other.

mod quic;

use proptest::prelude::*;
use proto::h1::{Client, Server};
use proto::h3::{Abort, ErrorCode, Limits, Out, StreamId};
use proto::http::{Framing, Method};
use quic::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
struct Exchange {
    upload: usize,
    download: usize,
    known_length: bool,
    trailers: bool,
    /// What its head says besides.
    said: u8,
    /// The client gives it up when so many bytes have come.
    give_up: Option<usize>,
}

/// What one stream's receiver has of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Got {
    head: String,
    bytes: usize,
    ended: bool,
    trailers: String,
    reset: bool,
}

fn note(got: &mut BTreeMap<u64, Got>, seen: &[Seen]) {
    for seen in seen {
        match seen {
            Seen::Head { stream, text, .. } => got.entry(*stream).or_default().head.push_str(text),
            Seen::Data { stream, bytes } => {
                assert!(bytes.iter().all(|&byte| byte == *stream as u8), "another stream's content");
                got.entry(*stream).or_default().bytes += bytes.len();
            }
            Seen::End { stream, trailers } => {
                let got = got.entry(*stream).or_default();
                (got.ended, got.trailers) = (true, trailers.clone());
            }
            Seen::Reset { stream, .. } => got.entry(*stream).or_default().reset = true,
            Seen::Settings => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What is on its way in one direction: per stream, bytes and whether they are the last.
#[derive(Default)]
struct Way {
    lines: BTreeMap<u64, (Vec<u8>, bool)>,
    aborts: Vec<Abort>,
}

impl Way {
    /// Takes up what one side has put.
    fn take<S: Side>(&mut self, rig: &mut Rig<S>, ours: u64, ended: &mut Vec<u64>) {
        let Out { control, encoder, decoder, aborts } = std::mem::take(&mut rig.out);
        for (stream, bytes) in [(CONTROL, control), (ENCODER, encoder), (DECODER, decoder)] {
            if !bytes.is_empty() {
                self.lines.entry(stream | ours).or_default().0.extend(bytes);
            }
        }
        for (stream, bytes) in std::mem::take(&mut rig.sent) {
            self.lines.entry(stream).or_default().0.extend(bytes);
        }
        for stream in ended.drain(..) {
            self.lines.entry(stream).or_default().1 = true;
        }
        for abort in &aborts {
            if let Abort::Reset { stream, .. } = abort {
                self.lines.remove(&stream.0);
            }
        }
        self.aborts.extend(aborts);
    }

    /// One piece of one stream arrives, whichever `random` says.
    fn give<S: Side>(&mut self, rig: &mut Rig<S>, random: u64, got: &mut BTreeMap<u64, Got>) -> bool {
        for abort in self.aborts.drain(..) {
            let said = match abort {
                Abort::Reset { stream, code } => rig.connection.peer_reset(rig.now, stream, code, &mut rig.out),
                Abort::Stop { stream, code } => rig.connection.peer_stopped(rig.now, stream, code, &mut rig.out),
            };
            if let Some(proto::h3::Said::Stream(stream, proto::Event::Reset(_))) = said.unwrap() {
                got.entry(stream.0).or_default().reset = true;
                rig.connection.release(stream, &mut rig.out);
            }
            let (Abort::Reset { stream, .. } | Abort::Stop { stream, .. }) = abort;
            rig.forget(stream.0);
        }
        let Some(&stream) = self.lines.keys().nth(random as usize % self.lines.len().max(1)) else { return false };
        let (mut bytes, fin) = self.lines.remove(&stream).unwrap();
        let length = ((random >> 20) as usize % 400 + 1).min(bytes.len());
        let rest = bytes.split_off(length);
        let last = fin && rest.is_empty();
        if !rest.is_empty() {
            self.lines.insert(stream, (rest, fin));
        }
        note(got, &rig.feed(stream, &bytes, last).unwrap());
        true
    }
}

fn run(limits: [Limits; 2], exchanges: &[Exchange], mut seed: u64) {
    let (mut ours, mut theirs) = (Rig::<Client>::new(limits[0]), Rig::<Server>::new(limits[1]));
    let (mut up, mut down) = (BTreeMap::new(), BTreeMap::<u64, Got>::new());
    let (mut way_up, mut way_down) = (Way::default(), Way::default());
    let (mut up_ended, mut down_ended) = (Vec::new(), Vec::new());
    let mut answered = BTreeMap::new();
    let mut asked = 0;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 11
    };
    loop {
        if asked < exchanges.len() && random() % 4 == 0 {
            let exchange = &exchanges[asked];
            let (stream, method) = (4 * asked as u64, if exchange.upload > 0 { Method::Post } else { Method::Get });
            let framing = match (exchange.upload, exchange.known_length) {
                (0, _) if !exchange.trailers => Framing::None,
                (length, true) if length > 0 => Framing::Length(length as u64),
                _ => Framing::Chunked,
            };
            let text = format!(
                "{} /{} HTTP/1.1\r\nhost: a\r\naccept: type/{}\r\nx-own: {asked}\r\n\r\n",
                String::from_utf8_lossy(method.as_bytes()),
                exchange.said,
                exchange.said
            );
            ours.send_request(stream, text.as_bytes(), framing).unwrap();
            if framing != Framing::None {
                for part in [exchange.upload / 3, exchange.upload - exchange.upload / 3] {
                    ours.data(stream, part).unwrap();
                }
                ours.finish(stream, if exchange.trailers { &[("x-sum", "1")] } else { &[] }).unwrap();
            }
            up_ended.push(stream);
            asked += 1;
        }
        way_up.take(&mut ours, 0, &mut up_ended);
        let moved_up = way_up.give(&mut theirs, random(), &mut up);
        for (&stream, got) in &up {
            let exchange = &exchanges[stream as usize / 4];
            if !got.ended || got.reset || answered.contains_key(&stream) {
                continue;
            }
            answered.insert(stream, ());
            assert!(got.head.contains(&format!("accept: type/{}|", exchange.said)), "{}", got.head);
            let framing = if exchange.known_length && exchange.download > 0 {
                Framing::Length(exchange.download as u64)
            } else {
                Framing::Chunked
            };
            let said = format!("is/{}", exchange.said);
            if theirs.answer_with(stream, framing, &[(b"x-said", said.as_bytes()), (b"server", b"penstock")]).is_ok() {
                theirs.data(stream, exchange.download).unwrap();
                theirs.finish(stream, if exchange.trailers { &[("x-sum", "2")] } else { &[] }).unwrap();
                down_ended.push(stream);
            }
        }
        way_down.take(&mut theirs, 1, &mut down_ended);
        let moved_down = way_down.give(&mut ours, random(), &mut down);
        for (&stream, got) in &mut down {
            let give_up = exchanges[stream as usize / 4].give_up;
            if give_up.is_some_and(|bytes| got.bytes >= bytes && !got.ended && !got.reset) {
                got.reset = true;
                ours.connection.reset(StreamId(stream), ErrorCode::REQUEST_CANCELLED, &mut ours.out);
                way_up.lines.remove(&stream);
                way_down.lines.remove(&stream);
                ours.forget(stream);
            }
        }
        let quiet =
            way_up.lines.is_empty() && way_down.lines.is_empty() && ours.out.is_empty() && theirs.out.is_empty();
        if asked == exchanges.len() && !moved_up && !moved_down && quiet {
            break;
        }
    }
    for (at, exchange) in exchanges.iter().enumerate() {
        let got = &down[&(4 * at as u64)];
        if got.reset {
            assert!(exchange.give_up.is_some());
            continue;
        }
        let sent = &up[&(4 * at as u64)];
        assert_eq!((sent.bytes, got.bytes, got.ended), (exchange.upload, exchange.download, true));
        assert!(got.head.contains(&format!("x-said: is/{}|", exchange.said)));
        let sum = |sum: &str| if exchange.trailers { format!("x-sum: {sum}|") } else { String::new() };
        assert_eq!((sent.trailers.clone(), got.trailers.clone()), (sum("1"), sum("2")));
    }
    assert!(ours.connection.is_idle() && theirs.connection.is_idle());
    assert_eq!((ours.connection.fault(), theirs.connection.fault()), (None, None));
    assert_eq!((ours.unread(), theirs.unread()), (0, 0));
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let size = || prop_oneof![Just(0), 1_usize..40, 1_usize..3_000];
    (size(), size(), any::<bool>(), any::<bool>(), 0..3_u8, prop::option::weighted(0.1, 0_usize..500)).prop_map(
        |(upload, download, known_length, trailers, said, give_up)| Exchange {
            upload,
            download,
            known_length,
            trailers,
            said,
            give_up,
        },
    )
}

fn any_limits() -> impl Strategy<Value = Limits> {
    (prop_oneof![Just(0_u16), Just(100), Just(4096)], prop_oneof![Just(0_u16), Just(16)])
        .prop_map(|(header_table, blocked_streams)| Limits { header_table, blocked_streams, ..Limits::DEFAULT })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn every_message_arrives(
        limits in [any_limits(), any_limits()],
        exchanges in prop::collection::vec(any_exchange(), 1..30),
        seed: u64,
    ) {
        run(limits, &exchanges, seed);
    }
}

/// A segment of a stream: mostly frames that can stand there, now and then anything.
fn any_segment() -> impl Strategy<Value = (u64, Vec<u8>, bool)> {
    let stream = prop_oneof![Just(CONTROL), Just(ENCODER), Just(DECODER), Just(14), (0..4_u64).prop_map(|at| 4 * at)];
    let bytes = prop_oneof![
        Just(headers(GET)),
        Just(headers(POST)),
        Just(headers(OK)),
        Just(headers(&[("a", "b")])),
        Just(data(b"content")),
        Just(insert("x-a", "1")),
        Just(table_size(200)),
        Just(frame(HEADERS, &[&[0x02, 0x00][..], &lines(GET), &[0x80]].concat())),
        Just(frame(GREASE, b"nothing")),
        Just(frame(PRIORITY_UPDATE, b"\x00u=1")),
        Just(frame(GOAWAY, &[4])),
        Just(integer(GREASE)),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    (stream, bytes, prop::bool::weighted(0.1))
}

proptest! {
    #[test]
    fn where_streams_are_cut_says_nothing(segments in prop::collection::vec(any_segment(), 1..25), seed: u64) {
        prop_assert_eq!(tell(server(), &segments, None), tell(server(), &segments, Some(seed)));
        prop_assert_eq!(tell(client(3), &segments, None), tell(client(3), &segments, Some(seed)));
    }
}

/// A client and its server, and what they have said to each other's tables and was not delivered.
struct Pair {
    client: Rig<Client>,
    server: Rig<Server>,
}

impl Pair {
    /// With tables of so many bytes.
    fn new(table: u64) -> Self {
        let limits = Limits { header_table: table as u16, ..Limits::DEFAULT };
        let (mut client, mut server) = (Rig::new(limits), Rig::new(limits));
        client.greet(&[(0x1, table), (0x7, 16)]);
        server.greet(&[(0x1, table), (0x7, 16)]);
        client.feed(ENCODER, &table_size(table), false).unwrap();
        server.feed(ENCODER, &table_size(table), false).unwrap();
        Self { client, server }
    }

    /// One request and its answer: the bytes of both with the entries that were made, and what was read of them.
    fn exchange(&mut self, stream: u64, request: &str, add: &[(&[u8], &[u8])], trailers: &[(&str, &str)]) -> String {
        let Self { client, server } = self;
        client.send_request(stream, request.as_bytes(), Framing::None).unwrap();
        let (asked, entries) = (client.put(stream), std::mem::take(&mut client.out.encoder));
        server.feed(ENCODER, &entries, false).unwrap();
        let heard = server.feed(stream, &asked, true).unwrap();
        server.answer_with(stream, Framing::Chunked, add).unwrap();
        server.data(stream, 5).unwrap();
        server.finish(stream, trailers).unwrap();
        let (answered, more) = (server.put(stream), std::mem::take(&mut server.out.encoder));
        client.feed(ENCODER, &more, false).unwrap();
        let told = client.feed(stream, &answered, true).unwrap();
        client.now += std::time::Duration::from_millis(100);
        server.now = client.now;
        format!("{entries:x?} {asked:x?} {heard:?} {more:x?} {answered:x?} {told:?}")
    }

    /// What has been read is acknowledged.
    fn acknowledge(&mut self) {
        self.client.feed(DECODER, &std::mem::take(&mut self.server.out.decoder), false).unwrap();
        self.server.feed(DECODER, &std::mem::take(&mut self.client.out.decoder), false).unwrap();
    }
}

/// Heads and trailers that are said again and again, with tables that change between them or do not, and acknowledgements that come or do not:
/// they leave as the bytes, and mean what they mean, between two who remember nothing of the last ones.
#[test]
fn what_is_said_again_is_what_it_would_be_said_and_read_as() {
    [240, 600, 4096].into_iter().for_each(say_again);
}

fn say_again(table: u64) {
    let (mut mindful, mut forgetful, mut random) = (Pair::new(table), Pair::new(table), table);
    let mut choose = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) % most
    };
    let (long, mut chosen, mut repeats, mut mute) = ("v".repeat(table as usize / 6), [0; 5], 0, false);
    for stream in (0..6_000).step_by(4) {
        // Mostly the same as before, or but for one thing.
        match choose(12) {
            0 => chosen = chosen.map(|_| choose(3)),
            1 | 2 => chosen[choose(5) as usize] = choose(3),
            _ => repeats += 1,
        }
        let fresh = stream.to_string();
        let [path, line, add, value, trailer] = chosen.map(|at| at as usize);
        let line =
            &["Accept: b".to_owned(), format!("User-Agent: {long}{}", stream % 7), format!("X-New: {fresh}")][line];
        let value = ["b", &long, &fresh][value];
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {value}\r\n{line}\r\nAuthorization: secret\r\n\r\n");
        let added = [(&b"server"[..], value.as_bytes()), (b"set-cookie", b"c=d"), (b"via", b"1.1 a")];
        let trailers = [("grpc-status", "0"), ("grpc-message", &fresh), ("a", "b")];
        let [first, second] = [&mut mindful, &mut forgetful]
            .map(|pair| pair.exchange(stream, &request, &added[add..], &trailers[trailer..]));
        assert_eq!(first, second, "{request}");
        // For a while nobody hears that anything was read: so long that nothing more is referred to.
        mute = if choose(80) == 0 { !mute } else { mute };
        if !mute {
            mindful.acknowledge();
            forgetful.acknowledge();
        }
        forgetful.client.connection.trim();
        forgetful.server.connection.trim();
    }
    assert!(repeats > 700, "{repeats}");
    let memory =
        [&mindful, &forgetful].map(|pair| pair.client.connection.memory().min(pair.server.connection.memory()));
    assert!(memory[0] > memory[1] + 1_000 && memory[0] < 32 * 1024, "{memory:?}");
    mindful.server.connection.trim();
    assert!(mindful.server.connection.memory() < 16 * 1024, "{}", mindful.server.connection.memory());
}

/// An entry that could not be made while others were referred to is made when those have been acknowledged, whatever was said between.
#[test]
fn what_is_said_again_becomes_an_entry_when_there_is_room() {
    for oldest in 0..8 {
        let mut pairs = [Pair::new(240), Pair::new(240)];
        let mut streams = (0..).step_by(4);
        let mut say = |pairs: &mut [Pair; 2], host: u32| {
            let (stream, text) = (streams.next().unwrap(), format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let [first, second] = pairs.each_mut().map(|pair| pair.exchange(stream, &text, &[], &[]));
            assert_eq!(first, second, "{oldest}: {host}");
            pairs[1].client.connection.trim();
        };
        for host in (0..8).flat_map(|host| [host; 2]) {
            say(&mut pairs, host);
            pairs.iter_mut().for_each(Pair::acknowledge);
        }
        say(&mut pairs, oldest);
        (0..4).for_each(|_| say(&mut pairs, 8));
        pairs.iter_mut().for_each(Pair::acknowledge);
        (0..4).for_each(|_| say(&mut pairs, 8));
    }
}
