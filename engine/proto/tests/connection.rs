//! What a connection allows, as traces.

use proto::h1::{Client, CloseReason, Connection, Eof, HeadLimits, Server};
use proto::http::{Fields, Framing, Method, Status};
use proto::{Event, Malformed};

/// A server that has read `text` until it paused or broke.
fn server(text: &str) -> (Connection<Server>, Vec<u8>, Option<Malformed>) {
    let (mut connection, mut fields) = (Connection::<Server>::new(HeadLimits::DEFAULT), Fields::default());
    let mut bytes = text.as_bytes().to_vec();
    let broken = loop {
        match connection.read(&mut bytes, &mut fields) {
            Ok(Event::Head(head)) => drop(bytes.drain(..head.length as usize)),
            Ok(Event::Data { consumed, .. } | Event::End { consumed, .. }) => drop(bytes.drain(..consumed)),
            Ok(_) => break None,
            Err(malformed) => break Some(malformed),
        }
    };
    (connection, bytes, broken)
}

fn answer(connection: &mut Connection<Server>, framing: Framing) {
    connection.head_written(Status::OK, framing, true).unwrap();
    connection.end_written().unwrap();
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_server_goes_round() {
    let (mut connection, _, _) = server(GET);
    assert!(!connection.is_idle());
    answer(&mut connection, Framing::Length(0));
    assert!(!connection.is_idle(), "not before it is known that nothing was pipelined");
    assert_eq!(connection.read(&mut [], &mut Fields::default()), Ok(Event::Pause));
    assert!(connection.is_idle() && connection.is_persistent());
    assert_eq!(connection.eof(), Eof::Clean);
    assert!(connection.is_closed());
}

#[test]
fn what_ends_a_servers_connection() {
    let after = |text: &str, framing| {
        let (mut connection, _, _) = server(text);
        answer(&mut connection, framing);
        assert_eq!(connection.is_closed(), connection.close_reason().is_some(), "{text}");
        connection.close_reason()
    };
    let none = Framing::Length(0);
    assert_eq!(after(GET, none), None);
    assert_eq!(after(GET, Framing::UntilClose), Some(CloseReason::UntilClose));
    assert_eq!(after("GET / HTTP/1.0\r\n\r\n", none), Some(CloseReason::PeerAsked));
    assert_eq!(after("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", none), None);
    assert_eq!(after("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", none), Some(CloseReason::PeerAsked));
    let post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    assert_eq!(after(post, none), Some(CloseReason::UnreadBody));
    assert_eq!(after(&format!("{post}ab"), none), Some(CloseReason::UnreadBody));
    assert_eq!(after(&format!("{post}abc"), none), None);
}

#[test]
fn a_request_that_makes_no_sense_is_answered_once() {
    let (mut connection, _, broken) = server("GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\n");
    assert_eq!(broken, Some(Malformed::FieldName));
    assert!(!connection.is_persistent() && !connection.is_closed());
    connection.head_written(Status::BAD_REQUEST, Framing::Length(0), false).unwrap();
    connection.end_written().unwrap();
    assert!(connection.is_closed());
    assert_eq!(connection.close_reason(), Some(CloseReason::Malformed));
    let mut fields = Fields::default();
    assert_eq!(connection.read(&mut GET.as_bytes().to_vec(), &mut fields), Ok(Event::Pause));
}

#[test]
fn pipelined_requests_outlive_the_end_of_input() {
    let (mut connection, mut bytes, _) = server(&GET.repeat(2));
    assert_eq!(connection.eof(), Eof::HalfClosed);
    answer(&mut connection, Framing::Length(0));
    let mut fields = Fields::default();
    assert!(matches!(connection.read(&mut bytes, &mut fields), Ok(Event::Head(_))));
    assert!(matches!(connection.read(&mut [], &mut fields), Ok(Event::End { .. })));
    answer(&mut connection, Framing::Length(0));
    assert_eq!(connection.read(&mut [], &mut fields), Ok(Event::Pause));
    assert!(connection.is_closed());
}

#[test]
fn expectations() {
    let text = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    let (mut connection, _, _) = server(text);
    assert!(connection.expects_continue());
    connection.interim_written(Status::EARLY_HINTS);
    assert!(connection.expects_continue());
    connection.interim_written(Status::CONTINUE);
    assert!(!connection.expects_continue());
    assert!(!server(&format!("{text}a")).0.expects_continue());
}

#[test]
fn a_tunnel_begins_with_101_and_not_before() {
    let offer = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n";
    let (mut connection, mut bytes, _) = server(&format!("{offer}\r\nGET /smuggled HTTP/1.1\r\n"));
    let mut fields = Fields::default();
    assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Pause), "nothing passes before 101");
    connection.head_written(Status::SWITCHING_PROTOCOLS, Framing::None, true).unwrap();
    assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Tunnel));
    assert!(connection.is_tunnel());

    // Refused: what follows is the next request.
    let (mut connection, mut bytes, _) = server(&format!("{offer}\r\n{GET}"));
    answer(&mut connection, Framing::Length(0));
    assert!(matches!(connection.read(&mut bytes, &mut fields), Ok(Event::Head(_))));

    // With content there is no offer.
    let (mut connection, _, _) = server(&format!("{offer}Content-Length: 3\r\n\r\nabc"));
    assert!(connection.head_written(Status::SWITCHING_PROTOCOLS, Framing::None, true).is_err());
    assert!(connection.is_closed());
}

#[test]
fn a_broken_promise_cuts_the_connection() {
    let (mut connection, _, _) = server(GET);
    connection.head_written(Status::OK, Framing::Length(5), true).unwrap();
    connection.body_written(3).unwrap();
    assert!(connection.end_written().is_err());
    assert!(connection.is_closed());
    assert_eq!(connection.close_reason(), Some(CloseReason::BrokenWrite));
}

fn client(method: Method, framing: Framing, upgrade: bool) -> (Connection<Client>, Fields) {
    let mut connection = Connection::<Client>::new(HeadLimits::DEFAULT);
    connection.head_written(method, framing, true, upgrade).unwrap();
    (connection, Fields::default())
}

#[test]
fn the_end_of_input_on_a_clients_connection() {
    assert_eq!(Connection::<Client>::new(HeadLimits::DEFAULT).eof(), Eof::Clean);
    let after = |text: &str| {
        let (mut connection, mut fields) = client(Method::Get, Framing::None, false);
        connection.end_written().unwrap();
        let mut bytes = text.as_bytes().to_vec();
        while let Ok(event) = connection.read(&mut bytes, &mut fields) {
            match event {
                Event::Head(head) => drop(bytes.drain(..head.length as usize)),
                Event::Data { consumed, .. } | Event::End { consumed, .. } => drop(bytes.drain(..consumed)),
                _ => break,
            }
        }
        connection.eof()
    };
    assert_eq!(after(""), Eof::Unanswered);
    assert_eq!(after("H"), Eof::Truncated);
    assert_eq!(after("HTTP/1.1 103 x\r\n\r\n"), Eof::Truncated);
    assert_eq!(after("HTTP/1.1 200 x\r\n\r\nabc"), Eof::Complete);
    assert_eq!(after("HTTP/1.1 200 x\r\nContent-Length: 4\r\n\r\nabc"), Eof::Truncated);
    assert_eq!(after("HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"), Eof::Truncated);
    assert_eq!(after("HTTP/1.1 200 x\r\nContent-Length: 3\r\n\r\nabc"), Eof::Clean);
}

#[test]
fn a_response_may_overtake_its_request() {
    let (mut connection, mut fields) = client(Method::Post, Framing::Length(3), false);
    let mut bytes = b"HTTP/1.1 413 x\r\nContent-Length: 0\r\n\r\n".to_vec();
    assert!(matches!(connection.read(&mut bytes, &mut fields), Ok(Event::Head(_))));
    assert!(matches!(connection.read(&mut [], &mut fields), Ok(Event::End { .. })));
    assert!(!connection.is_reusable());
    connection.body_written(3).unwrap();
    connection.end_written().unwrap();
    assert!(!connection.is_reusable(), "not before the response is drained");
    assert_eq!(connection.read(&mut [], &mut fields), Ok(Event::Pause));
    assert!(connection.is_reusable());
}

#[test]
fn what_follows_a_response_is_not_the_next_one() {
    let (mut connection, mut fields) = client(Method::Get, Framing::None, false);
    connection.end_written().unwrap();
    let mut bytes = b"HTTP/1.1 204 x\r\n\r\nHTTP/1.1 200 poison\r\n\r\n".to_vec();
    let Ok(Event::Head(head)) = connection.read(&mut bytes, &mut fields) else { panic!() };
    bytes.drain(..head.length as usize);
    assert!(matches!(connection.read(&mut bytes, &mut fields), Ok(Event::End { .. })));
    assert!(!connection.is_reusable());
    assert_eq!(connection.read(&mut bytes, &mut fields), Ok(Event::Pause));
    assert_eq!(connection.close_reason(), Some(CloseReason::Unsolicited));
    assert!(connection.head_written(Method::Get, Framing::None, true, false).is_err());
}

#[test]
fn upgrades_that_were_not_offered_are_faults() {
    let switch = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    for (framing, upgrade, fault) in
        [(Framing::None, true, false), (Framing::None, false, true), (Framing::Length(3), true, true)]
    {
        let (mut connection, mut fields) = client(Method::Get, framing, upgrade);
        if framing.has_body() {
            connection.body_written(3).unwrap();
        }
        connection.end_written().unwrap();
        let event = connection.read(&mut switch.to_vec(), &mut fields);
        assert_eq!(event.is_err(), fault);
        assert_eq!(connection.is_tunnel(), !fault);
    }
}

#[test]
fn interim_responses_are_bounded() {
    let (mut connection, mut fields) = client(Method::Get, Framing::None, false);
    connection.end_written().unwrap();
    let mut bytes = b"HTTP/1.1 102 x\r\n\r\n".repeat(17);
    for _ in 0..16 {
        let Ok(Event::Head(head)) = connection.read(&mut bytes, &mut fields) else { panic!() };
        bytes.drain(..head.length as usize);
    }
    assert_eq!(connection.read(&mut bytes, &mut fields), Err(Malformed::TooManyInterim));
    assert!(connection.is_closed());
}

#[test]
fn a_slow_head_costs_no_more_than_its_length() {
    let (mut connection, mut fields) = (Connection::<Server>::new(HeadLimits::DEFAULT), Fields::default());
    let text = format!("GET / HTTP/1.1\r\nHost: a\r\nb: {}", "c".repeat(20_000));
    let mut refused = None;
    for end in 1..text.len() {
        match connection.read(&mut text.as_bytes()[..end].to_vec(), &mut fields) {
            Ok(event) => assert_eq!(event, Event::Pause),
            Err(malformed) => {
                refused = Some((end, malformed));
                break;
            }
        }
    }
    assert_eq!(refused, Some((16 * 1024, Malformed::HeadTooLong)));
}
