//! The machine of TLS, against rustls's own buffered client: any pieces, any garbage, and what it keeps.

mod handshakes;

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use handshakes::{MEDDLING, NOW, SORTS, Told, cut, listen, tell};

use penstock::tls::{Cause, Failure, Machine, Read, ServerConfig};
use policy::Random;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use ring::Buf;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

struct World {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl World {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let mut server =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        server.send_tls13_tickets = 1;
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { server: Arc::new(server), client: Arc::new(client) }
    }

    fn server(&self) -> Machine {
        Machine::server(&self.server).unwrap()
    }

    fn client(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.client), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    /// Both, agreed; what the client says goes over in pieces of `piece` bytes.
    fn agreed(&self, piece: usize) -> (Machine, ClientConnection) {
        let (mut server, mut client) = (self.server(), self.client());
        while client.is_handshaking() || server.is_handshaking() {
            for part in said(&mut client).chunks(piece) {
                server.feed(Buf::copy_of(part));
                server.shake_hands().unwrap();
                hear(&mut client, server.take_output());
            }
        }
        (server, client)
    }
}

/// What a client has to send.
fn said(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap();
    }
    bytes
}

/// Lets a client hear what the machine says; returns the content in it.
fn hear(client: &mut ClientConnection, output: Option<Buf>) -> Vec<u8> {
    let mut content = Vec::new();
    let Some(output) = output else { return content };
    let mut bytes = output.bytes();
    while !bytes.is_empty() {
        client.read_tls(&mut bytes).unwrap();
        client.process_new_packets().unwrap();
        // An error when there is no more for now.
        let _ = client.reader().read_to_end(&mut content);
    }
    content
}

/// Everything that the machine has to read, fed in pieces.
fn read_all(server: &mut Machine, bytes: &[u8], piece: usize) -> (Vec<u8>, Option<Failure>, bool) {
    let mut content = Vec::new();
    for part in bytes.chunks(piece) {
        server.feed(Buf::copy_of(part));
        loop {
            match server.read() {
                Ok(Read::Data(data)) => content.extend_from_slice(data.bytes()),
                Ok(Read::Pause) => break,
                Ok(Read::End) => return (content, None, true),
                Err(failure) => return (content, Some(failure), false),
            }
        }
    }
    (content, None, false)
}

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + at / 251) as u8).collect()
}

#[test]
fn any_pieces_give_the_same_content() {
    let world = World::new();
    for piece in [1, 5, 6, 100, 1_500, 16_000, 250_000] {
        let (mut server, mut client) = world.agreed(piece);
        assert_eq!(server.secured().unwrap().version, "TLSv1.3");
        let wanted = content(if piece < 10 { 40_000 } else { 400_000 });
        let mut bytes = Vec::new();
        for part in wanted.chunks(50_000) {
            client.writer().write_all(part).unwrap();
            bytes.extend(said(&mut client));
        }
        client.send_close_notify();
        bytes.extend(said(&mut client));
        let (content, failure, ended) = read_all(&mut server, &bytes, piece);
        assert!(content == wanted && failure.is_none() && ended, "in pieces of {piece}: {failure:?}");
    }
}

#[test]
fn nothing_under_way_holds_no_buffer() {
    let world = World::new();
    let before = ring::buf::pool_counts().lent;
    let (mut server, mut client) = world.agreed(1_500);
    assert_eq!(ring::buf::pool_counts().lent, before, "after the handshake");
    client.writer().write_all(&content(50_000)).unwrap();
    let bytes = said(&mut client);
    let half = bytes.len() / 2;
    let (first, ..) = read_all(&mut server, &bytes[..half], 4_000);
    assert!(server.has_part() && ring::buf::pool_counts().lent > before, "half a record is kept");
    let (second, ..) = read_all(&mut server, &bytes[half..], 4_000);
    assert_eq!([first, second].concat(), content(50_000));
    server.seal(NOW, &content(300_000), drop).unwrap();
    assert!(!server.has_news() && ring::buf::pool_counts().lent == before, "after content");
}

#[test]
fn what_is_sealed_is_heard_in_order_and_ends() {
    let world = World::new();
    let (mut server, mut client) = world.agreed(1_500);
    let mut records = Vec::new();
    for size in [1, 1_378, 1_379, 70_000, 260_000, 20_000] {
        let (piece, mut heard) = (content(size), Vec::new());
        server
            .seal(NOW, &piece, |sealed| {
                let mut rest = sealed.bytes();
                while let Some(header) = rest.first_chunk::<5>() {
                    let length = 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
                    records.push(length);
                    rest = &rest[length..];
                }
                heard.extend(hear(&mut client, Some(sealed)));
            })
            .unwrap();
        assert!(heard == piece, "{size} bytes");
    }
    assert!(records.iter().take(40).all(|&record| record <= 1_400), "small at first: {records:?}");
    assert_eq!(records.iter().max(), Some(&(5 + 16_384 + 17)), "and then as large as may be");
    server.close();
    hear(&mut client, server.take_output());
    assert_eq!(client.reader().read(&mut [0; 8]).unwrap(), 0, "an end that was announced");
    assert!(server.seal(NOW, b"more", drop).is_err());
}

/// Each bit of a handshake, and of content, changed by itself: an error or a pause, and an alert where there is a connection.
#[test]
fn changed_bytes_never_panic() {
    let world = World::new();
    let hello = said(&mut world.client());
    for at in (0..hello.len()).step_by(3) {
        let mut changed = hello.clone();
        changed[at] ^= 1 << (at % 8);
        let mut server = world.server();
        server.feed(Buf::copy_of(&changed));
        let outcome = server.shake_hands();
        assert!(!matches!(outcome, Ok(false)), "half a handshake is none");
        if outcome.is_err() {
            assert!(server.shake_hands().is_err() || !server.has_part(), "it stays broken");
            assert!(server.read().is_err());
        }
    }
    let (mut server, mut client) = world.agreed(1_500);
    client.writer().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut bytes = said(&mut client);
    *bytes.last_mut().unwrap() ^= 1;
    let (content, failure, _) = read_all(&mut server, &bytes, 1_000);
    assert!(content.is_empty() && failure.is_some_and(|failure| failure.cause() == Cause::Malformed));
    assert!(server.take_output().is_some(), "the client is told");
    assert!(server.seal(NOW, b"more", drop).is_err() || server.read().is_err());
}

/// As much of it as came whole, be it in one piece with what breaks it, and with the handshake's last word.
#[test]
fn content_in_front_of_what_breaks_it_is_read() {
    let world = World::new();
    let (mut server, mut client) = (world.server(), world.client());
    server.feed(Buf::copy_of(&said(&mut client)));
    assert!(server.shake_hands().unwrap());
    hear(&mut client, server.take_output());
    client.writer().write_all(b"content").unwrap();
    let bytes = [said(&mut client), vec![23, 3, 3, 0, 20], vec![7; 20]].concat();
    server.feed(Buf::copy_of(&bytes));
    assert!(matches!(server.read(), Ok(Read::Data(data)) if data.bytes() == b"content"));
    assert!(!server.is_handshaking() && server.read().is_err() && server.read().is_err());
    // Nobody says anything behind a fatal alert.
    assert!(server.take_output().is_some() && server.seal(NOW, b"more", drop).is_err());
    assert!(server.take_output().is_none());
}

#[test]
fn what_is_kept_of_a_message_is_bounded() {
    let world = World::new();
    let mut server = world.server();
    let before = ring::buf::pool_counts().lent;
    // A client hello of 64 KiB less one byte, a byte a record: each costs its header, and none can be let go of.
    let mut bytes = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
    let mut failed = None;
    for _ in 0..70_000 {
        server.feed(Buf::copy_of(&bytes));
        if let Err(failure) = server.shake_hands() {
            failed = Some(failure);
            break;
        }
        assert!(ring::buf::pool_counts().lent - before <= 2 * (260 << 10));
        bytes = vec![22, 3, 1, 0, 1, 7];
    }
    assert!(matches!(failed, Some(Failure::TooLong | Failure::Tls(_))), "{failed:?}");
    assert!(!server.has_part());
}

#[test]
fn http_in_the_clear_is_known() {
    let mut server = World::new().server();
    server.feed(Buf::copy_of(b"GET / HTTP/1.1\r\n\r\n"));
    assert!(matches!(server.shake_hands(), Err(Failure::PlainHttp)));
}

#[test]
fn the_state_of_a_connection_is_small() {
    // What rustls keeps behind pointers comes on top; the end-to-end test of idle connections measures all of it.
    assert!(size_of::<Machine>() <= 2 << 10, "{}", size_of::<Machine>());
}

/// A script of [`tell`]: where `meddling` is `None`, nothing comes between the ends; else every so many words one does.
fn script(random: &mut Random, meddling: Option<u64>) -> Vec<u8> {
    let mut script = Vec::new();
    for _ in 0..10 + random.below(60) {
        let meddles = meddling.is_some_and(|every| random.below(every) == 0);
        let what = if meddles { u64::from(MEDDLING) + random.below(7) } else { random.below(MEDDLING.into()) };
        script.push((random.next_u64() & 0xf0 | what) as u8);
        match what {
            7 | 15 => {}
            5 | 6 | 9 => script.extend([random.next_u64() as u8, random.next_u64() as u8]),
            12 | 13 => script.extend([random.next_u64() as u8, 5].into_iter().cycle().take(8)),
            // All of it, or some.
            _ => script.push(if random.below(2) == 0 { 0 } else { random.next_u64() as u8 }),
        }
    }
    script
}

/// As the fuzz target of the same name, always.
#[test]
fn whoever_comes_between_two_ends_is_found_out() {
    for sort in SORTS {
        let world = handshakes::World::new(sort);
        let mut told = Vec::new();
        for seed in 0..600 {
            let mut random = Random::new(seed);
            let meddling = [None, Some(60), Some(15), Some(3)][seed as usize % 4];
            let script = script(&mut random, meddling);
            // Whose assertion has failed is of no use without what it was about.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tell(&world, &script)));
            told.push(outcome.unwrap_or_else(|_| panic!("{sort:?}, seed {seed}: {script:?}")));
        }
        let count = |of: &dyn Fn(&Told) -> bool| told.iter().filter(|told| of(told)).count();
        let of_each = |side: usize| {
            [
                count(&|told| told.meddled && told.opened[side]),
                count(&|told| told.failed[side]),
                count(&|told| told.failed[side] && told.heard[side] > 0),
                count(&|told| !told.meddled && told.heard[side] > 0),
            ]
        };
        let counts = [of_each(0), of_each(1)];
        assert!(counts.iter().flatten().all(|&count| count >= 2), "{sort:?} met too little: {counts:?}");
    }
}

#[test]
fn a_stream_of_a_stranger_is_one_story_however_it_is_cut() {
    let mut ends = [0; 2];
    for sort in SORTS {
        let world = handshakes::World::new(sort);
        for seed in 0..150 {
            let mut random = Random::new(seed);
            let stream = invented(&mut random);
            for client in [false, true] {
                let whole = listen(&world, client, std::iter::once(&*stream));
                assert!(whole.0.is_empty(), "content of nobody's");
                assert_eq!(listen(&world, client, cut(&stream, seed)), whole, "{sort:?}, seed {seed}: {stream:?}");
                ends[usize::from(whole.1.is_some())] += 1;
            }
        }
    }
    assert!(ends.iter().all(|&count| count >= 5), "waiting, broken: {ends:?}");
}

/// Records of any sort, and messages in them that begin like some of a handshake; alerts that a peer may send at any time.
fn invented(random: &mut Random) -> Vec<u8> {
    let mut stream = Vec::new();
    for _ in 0..1 + random.below(4) {
        let most = if random.below(8) == 0 { 16_000 } else { 80 };
        let length = 2 + random.below(most) as usize;
        let (kind, mut content) = match random.below(5) {
            0 => (21, vec![1, [0, 0, 90, 40][random.below(4) as usize]]),
            1 => (20, vec![1]),
            2 => (20 + random.below(5) as u8, (0..length).map(|_| random.next_u64() as u8).collect()),
            _ => {
                let mut message = vec![1 + random.below(2) as u8, 0, (length >> 8) as u8, length as u8];
                message.extend((0..length).map(|_| random.next_u64() as u8 & 3));
                (22, message)
            }
        };
        if random.below(10) == 0 {
            content.truncate(1);
        }
        stream.extend([kind, 3, 3, (content.len() >> 8) as u8, content.len() as u8]);
        stream.extend(content);
    }
    stream
}
