//! Drives a machine over a stream that arrives in pieces, and writes down what it says. Shared with the fuzz targets.

#![allow(dead_code, unreachable_pub)]

use proto::Event;
use proto::h1::{Client, Connection, Eof, HeadLimits, Server};
use proto::http::{Fields, Framing, Method, Status, Version};

/// What was seen; content is joined, because where it is cut says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Request { method: Vec<u8>, target: Vec<u8>, authority: Vec<u8>, framing: Framing },
    Response { status: u16, framing: Framing },
    Data(Vec<u8>),
    End { trailers: Vec<(Vec<u8>, Vec<u8>)> },
    Tunnel(Vec<u8>),
}

/// How it ended: `Err` for bytes that made no sense or broke off within a message.
pub type Story = Result<(Vec<Seen>, bool), Vec<Seen>>;

/// A server that answers each request, when it is complete, with an empty 200 (or accepts its upgrade).
pub fn server(pieces: &[&[u8]]) -> Story {
    let mut connection = Connection::<Server>::new(HeadLimits::DEFAULT);
    let (mut fields, mut buffer, mut seen) = (Fields::default(), Vec::new(), Vec::new());
    let mut upgrade = false;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Ok(event) = connection.read(&mut buffer, &mut fields) else {
                return Err(seen);
            };
            match event {
                Event::Head(head) => {
                    seen.push(Seen::Request {
                        method: head.method_text.of(&buffer).to_vec(),
                        target: head.target.of(&buffer).to_vec(),
                        authority: head.authority.of(&buffer).to_vec(),
                        framing: head.framing,
                    });
                    upgrade = !head.upgrade.is_empty() || head.method == Method::Connect;
                    buffer.drain(..head.length as usize);
                }
                Event::Data { payload, consumed } => {
                    data(&mut seen, &buffer[..payload]);
                    buffer.drain(..consumed);
                }
                Event::End { consumed, trailers } => {
                    seen.push(end(connection.trailers()));
                    assert_eq!(trailers, !connection.trailers().is_empty());
                    buffer.drain(..consumed);
                    if upgrade {
                        let connect = matches!(seen.iter().rev().find(|seen| matches!(seen, Seen::Request { .. })),
                            Some(Seen::Request { method, .. }) if method == b"CONNECT");
                        let status = if connect { Status::OK } else { Status::SWITCHING_PROTOCOLS };
                        connection.head_written(status, Framing::None, true).unwrap();
                    } else {
                        connection.head_written(Status::OK, Framing::Length(0), true).unwrap();
                        connection.end_written().unwrap();
                    }
                }
                Event::Tunnel => {
                    tunnel(&mut seen, &buffer);
                    buffer.clear();
                    break;
                }
                Event::Reset(_) => unreachable!("HTTP/1 has no reset"),
                Event::Pause => break,
            }
        }
        if connection.is_closed() {
            return Ok((seen, false));
        }
    }
    match connection.eof() {
        Eof::Truncated => Err(seen),
        _ => Ok((seen, false)),
    }
}

/// A client that has sent one request without content. The flag says whether the connection could be used again before its end.
pub fn client(method: Method, upgrade: bool, pieces: &[&[u8]]) -> Story {
    let mut connection = Connection::<Client>::new(HeadLimits::DEFAULT);
    let (mut fields, mut buffer, mut seen) = (Fields::default(), Vec::new(), Vec::new());
    connection.head_written(method, Framing::None, true, upgrade).unwrap();
    assert_eq!(connection.end_written(), Ok(&b""[..]));
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if !drain_client(&mut connection, &mut fields, &mut buffer, &mut seen) {
            return Err(seen);
        }
    }
    let reusable = connection.is_reusable();
    match connection.eof() {
        Eof::Truncated | Eof::Unanswered => return Err(seen),
        Eof::Complete => assert!(drain_client(&mut connection, &mut fields, &mut buffer, &mut seen)),
        _ => {}
    }
    Ok((seen, reusable))
}

fn drain_client(
    connection: &mut Connection<Client>,
    fields: &mut Fields,
    buffer: &mut Vec<u8>,
    seen: &mut Vec<Seen>,
) -> bool {
    loop {
        let Ok(event) = connection.read(buffer, fields) else {
            return false;
        };
        match event {
            Event::Head(head) => {
                assert!(matches!(head.version, Version::Http10 | Version::Http11));
                seen.push(Seen::Response { status: head.status.code(), framing: head.framing });
                buffer.drain(..head.length as usize);
            }
            Event::Data { payload, consumed } => {
                data(seen, &buffer[..payload]);
                buffer.drain(..consumed);
            }
            Event::End { consumed, .. } => {
                seen.push(end(connection.trailers()));
                buffer.drain(..consumed);
            }
            Event::Tunnel => {
                tunnel(seen, buffer);
                buffer.clear();
                return true;
            }
            Event::Reset(_) => unreachable!("HTTP/1 has no reset"),
            Event::Pause => return true,
        }
    }
}

/// Cuts `bytes` at places that `seed` decides.
pub fn cut(bytes: &[u8], mut seed: u64) -> Vec<&[u8]> {
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let longest = if seed >> 60 == 0 { 4096 } else { 24 };
        let (piece, after) = rest.split_at(((seed >> 33) as usize % longest + 1).min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}

fn data(seen: &mut Vec<Seen>, payload: &[u8]) {
    match seen.last_mut() {
        Some(Seen::Data(data)) => data.extend_from_slice(payload),
        _ if payload.is_empty() => {}
        _ => seen.push(Seen::Data(payload.to_vec())),
    }
}

fn tunnel(seen: &mut Vec<Seen>, bytes: &[u8]) {
    match seen.last_mut() {
        Some(Seen::Tunnel(data)) => data.extend_from_slice(bytes),
        _ => seen.push(Seen::Tunnel(bytes.to_vec())),
    }
}

fn end(trailers: &proto::h1::Trailers) -> Seen {
    Seen::End { trailers: trailers.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect() }
}
