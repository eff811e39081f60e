//! Where frames are cut must not matter, and what was sent is what is seen.

mod drive;
mod frames;

use drive::cut;
use frames::*;
use proptest::prelude::*;
use proto::ws::{CloseCode, Echo, Event, Kind, Message, Rules, Sender, Violation};

fn sender() -> impl Strategy<Value = Sender> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)]
}

fn rules() -> impl Strategy<Value = Rules> {
    let limit = prop_oneof![Just(u64::MAX), 0..200_u64];
    (sender(), any::<bool>(), any::<bool>(), limit.clone(), limit).prop_map(
        |(sender, deflate, utf8, frame_bytes_max, message_bytes_max)| Rules {
            deflate,
            utf8,
            frame_bytes_max,
            message_bytes_max,
            ..Rules::new(sender)
        },
    )
}

/// Frames with what is to be said of them: a message in fragments, of these sizes but for the last, each preceded by Pings.
#[derive(Debug, Clone)]
struct Sent {
    payload: Vec<u8>,
    text: bool,
    compressed: bool,
    sizes: Vec<usize>,
    pings: Vec<Vec<u8>>,
}

impl Sent {
    fn put(&self, key: impl Fn(usize) -> Option<[u8; 4]>, out: &mut Vec<u8>, expected: &mut Vec<Event>) {
        let kind = if self.text { Kind::Text } else { Kind::Binary };
        let message = |bytes, frames| Message { kind, compressed: self.compressed, bytes, frames };
        let mut opcode = if self.text { TEXT } else { BINARY } | if self.compressed { RSV1 } else { 0 };
        let (mut rest, mut frames) = (&self.payload[..], 0);
        for size in self.sizes.iter().map(Some).chain([None]) {
            for ping in self.pings.iter().skip(frames as usize).take(1) {
                out.extend_from_slice(&framed(PING, ping, key(out.len())));
                let mut start = [0; 8];
                start.iter_mut().zip(ping).for_each(|(kept, &byte)| *kept = byte);
                expected.push(Event::Ping(Echo { length: ping.len() as u8, start }));
            }
            let (piece, after) = rest.split_at(size.map_or(rest.len(), |&size| size.min(rest.len())));
            let fin = if size.is_none() { FIN } else { 0 };
            out.extend_from_slice(&framed(fin | opcode, piece, key(out.len())));
            if frames == 0 {
                expected.push(Event::Begin(message(0, 0)));
            }
            frames += 1;
            expected.push(if size.is_some() {
                Event::Fragment
            } else {
                Event::End(message(self.payload.len() as u64, frames))
            });
            (rest, opcode) = (after, CONTINUATION);
        }
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let sizes = || proptest::collection::vec(0..300_usize, 0..4);
    let pings = || proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..=125), 0..4);
    let text = (".{0,400}", sizes(), pings()).prop_map(|(text, sizes, pings)| Sent {
        payload: text.into_bytes(),
        text: true,
        compressed: false,
        sizes,
        pings,
    });
    let bytes = proptest::collection::vec(any::<u8>(), 0..70_000);
    let other =
        (bytes, any::<(bool, bool)>(), sizes(), pings()).prop_map(|(payload, (text, compressed), sizes, pings)| Sent {
            payload,
            text: text && compressed,
            compressed,
            sizes,
            pings,
        });
    prop_oneof![3 => text, 1 => other]
}

/// Bytes that are almost frames: heads that are often right, with what they say.
fn almost() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        4 => prop::sample::select(vec![FIN | TEXT, FIN | BINARY, TEXT, BINARY, FIN, CONTINUATION, PING, PONG]),
        1 => Just(CLOSE),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        "[aπ🦀]{0,30}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..140),
        (1000..5000_u16, "[aπ]{0,20}").prop_map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat()),
    ];
    let key = prop_oneof![3 => Just(Some(KEY)), 1 => any::<[u8; 4]>().prop_map(Some), 1 => Just(None)];
    let frame = (first, payload, key).prop_map(|(first, payload, key)| framed(first, &payload, key));
    (proptest::collection::vec(frame, 1..8), any::<bool>(), 0..20_usize).prop_map(|(frames, plain, lost)| {
        let mut stream = frames.concat();
        if plain {
            stream.truncate(stream.len().saturating_sub(lost));
        }
        stream
    })
}

#[test]
fn every_pair_of_cuts() {
    let text = "κόσμε 🦀".as_bytes();
    for sender in [Sender::Client, Sender::Server] {
        let stream = [
            frame(sender, TEXT, &text[..3]),
            frame(sender, PING, b"123456789"),
            frame(sender, FIN, &text[3..]),
            frame(sender, FIN | BINARY, &[7; 130]),
            frame(sender, CLOSE, b"\x03\xe8goodbye"),
            frame(sender, FIN | TEXT, b"late"),
        ]
        .concat();
        let rules = Rules { utf8: true, ..Rules::new(sender) };
        let whole = inspect(rules, &[&stream]);
        assert_eq!(whole.violation, Some(Violation::AfterClose));
        assert_eq!(whole.events.last().map(|(event, _)| *event), Some(Event::Close(CloseCode::NORMAL)));
        assert_eq!((whole.events.len(), whole.reason.as_str()), (7, "goodbye"));
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(inspect(rules, &pieces), whole, "cut at {first} and {second}");
            }
        }
    }
}

proptest! {
    #[test]
    fn what_was_sent_is_seen(messages in proptest::collection::vec(sent(), 0..5), sender in sender(), keys: [u8; 4], seed: u64) {
        let key = |at: usize| (sender == Sender::Client).then_some(keys.map(|byte| byte.wrapping_mul(at as u8 | 1)));
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for message in &messages {
            message.put(key, &mut stream, &mut expected);
        }
        let rules = Rules { deflate: true, utf8: true, ..Rules::new(sender) };
        let whole = inspect(rules, &[&stream]);
        prop_assert_eq!((whole.events(), whole.violation, whole.sound), (expected, None, stream.len()));
        prop_assert_eq!(inspect(rules, &cut(&stream, seed)), whole);
    }

    #[test]
    fn cuts_do_not_matter_to_what_is_broken(stream in almost(), rules in rules(), seed: u64) {
        let whole = inspect(rules, &[&stream]);
        prop_assert_eq!(&inspect(rules, &cut(&stream, seed)), &whole);
        prop_assert_eq!(inspect(rules, &stream.chunks(1).collect::<Vec<_>>()), whole);
    }

    #[test]
    fn no_bytes_panic(stream in proptest::collection::vec(any::<u8>(), 0..300), rules in rules(), seed: u64) {
        prop_assert_eq!(inspect(rules, &cut(&stream, seed)), inspect(rules, &[&stream]));
    }
}
