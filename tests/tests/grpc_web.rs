//! gRPC-Web: calls as browsers make them, before grpcio's server.

use data_encoding::BASE64;
use harness::{
    Client, Driver, Engine, GrpcServer, H3Door, Message, Origin, Setup, Tool, answer, free_address, on_each_driver,
    python, script,
};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

on_each_driver! {
    /// HTTP/1.1, 2 and 3, in binary and in text: the kinds of call that are not cut short, and how they end.
    fn every_version_and_coding(driver) {
        let server = GrpcServer::new();
        let door = H3Door::of(bridging(driver, &server), "");
        let authority = door.authority.file.display().to_string();
        let words = [script("grpc_web_client.py").display().to_string(), door.engine.address.to_string(), authority];
        let ran = Tool::new(python(), 80).args(words).run();
        assert_eq!(ran.text().trim(), "all well", "{}{}", ran.text(), ran.err);
        door.engine.until_idle();
        assert_eq!(door.engine.metrics().sum("panics_total"), 0);
    }

    /// Each message can be read when the server has said it, in text too; and a client that leaves is noticed.
    fn messages_arrive_while_the_call_goes_on(driver) {
        let server = GrpcServer::new();
        let engine = bridging(driver, &server).start();
        for coding in [BINARY, TEXT] {
            let mut client = engine.client();
            client.send(request("Forever", coding, "", b"\0\0\0\0\0"));
            assert_eq!(client.head().expect("a head").field("content-type"), Some(coding));
            let mut heard = 0;
            while heard < 5 {
                let content = chunk(&mut client);
                let content = if coding == TEXT { decoded(&content) } else { content };
                assert!(content.chunks(6).all(|message| message == b"\0\0\0\0\x01x"), "whole messages: {content:?}");
                heard += content.len() / 6;
            }
            drop(client);
            let (told, _) = call(&engine, "WasCancelled", coding, "", b"\0\0\0\0\0");
            assert_eq!(told, [b"yes"]);
        }
        engine.until_idle();
    }

    /// The caller's time is over between two messages: it is told so behind the last one.
    fn deadlines_are_told(driver) {
        let server = GrpcServer::new();
        let engine = bridging(driver, &server).start();
        for coding in [BINARY, TEXT] {
            let (told, trailers) = call(&engine, "Forever", coding, "grpc-timeout: 2S\r\n", b"\0\0\0\0\0");
            assert!(!told.is_empty() && told.iter().all(|message| message == b"x"), "{told:?}");
            // The server knows the time, too: whoever notices first has the word.
            assert!(trailers.starts_with("grpc-status: 4\r\n"), "{trailers}");
        }
        let mut client = engine.client();
        client.send(request("Slow", TEXT, "grpc-timeout: 300m\r\n", b"\0\0\0\0\0"));
        refused(&client.response(false).expect("an answer"), TEXT, "4");
    }

    /// Text may be cut anywhere, also between the digits of a group, and padded behind each message; what it hears may be of the other coding.
    fn text_comes_in_any_pieces(driver) {
        let server = GrpcServer::new();
        let engine = bridging(driver, &server).start();
        let mut client = engine.client();
        let text = BASE64.encode(b"\0\0\0\0\x01a") + &BASE64.encode(b"\0\0\0\0\x02bc") + &BASE64.encode(b"\0\0\0\0\0");
        assert!(text[..text.len() - 1].contains('='), "padded in the middle");
        client.send(format!(
            "POST /test.Calls/Joined HTTP/1.1\r\nHost: a\r\nContent-Type: {TEXT}\r\nAccept: {BINARY}\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        for digit in text.chars() {
            client.send(format!("1\r\n{digit}\r\n"));
        }
        client.send("0\r\n\r\n");
        let response = client.response(false).expect("an answer");
        assert_eq!(response.field("content-type"), Some(BINARY));
        assert_eq!(messages(&response.body).0, [b"abc"]);
    }

    /// What is no text is refused as a call is, and the connection is not used again; the endpoint is not to blame.
    fn text_that_is_none(driver) {
        let server = GrpcServer::new();
        let engine = bridging(driver, &server).start();
        for text in ["AAAA AAA", "AAAAAA=A", "AAAAAAB=", "AAAAAAA", "AAAA\0AAA", "A"] {
            let mut client = engine.client();
            let length = text.len();
            client.send(format!(
                "POST /test.Calls/Unary HTTP/1.1\r\nHost: a\r\nContent-Type: {TEXT}\r\nContent-Length: {length}\r\n\r\n{text}"
            ));
            let response = client.response(false).expect("an answer");
            refused(&response, TEXT, "13");
            assert!(response.is_closing(), "{text}");
        }
        let (told, _) = call(&engine, "Unary", TEXT, "", b"\0\0\0\0\x01a");
        assert_eq!(told, [b"a"], "the endpoint serves on");
        assert_eq!(engine.metrics().sum("requests_malformed_total"), 6);
    }

    /// Our own answers are the caller's kind, whether its route bridges or not; what is no call is none of this.
    fn refusals(driver) {
        let nobody = free_address();
        let line = "protocol = \"h2\"";
        let bridging = Setup::new(driver).to(&nobody.to_string()).pool_line(line).route_line("grpc_web = true").start();
        let plain = Setup::new(driver).to(&nobody.to_string()).pool_line(line).start();
        for engine in [&bridging, &plain] {
            for (asks, accepts, hears) in [(BINARY, "", BINARY), (TEXT, "", TEXT), (BINARY, "Accept: application/grpc-web-text\r\n", TEXT)] {
                let mut client = engine.client();
                client.send(request("Unary", asks, accepts, b""));
                refused(&client.response(false).expect("an answer"), hears, "14");
            }
            assert_eq!(engine.client().get("/").status(), 502);
        }
    }

    /// Other requests pass as they come, and so do answers that are none of gRPC; and nobody is bridged unasked.
    fn what_is_not_bridged(driver) {
        let origin = Origin::answering(|request| {
            let told = format!("{} {}", request.field("content-type").unwrap_or("none"), request.text());
            Some(answer(told))
        });
        let inner = Setup::new(driver).origin(&origin).start();
        let setup = || Setup::new(driver).to(&inner.address.to_string()).pool_line("protocol = \"h2\"");
        let (bridging, plain) = (setup().route_line("grpc_web = true").start(), setup().start());
        assert_eq!(bridging.client().get("/").text(), "none ");
        let ask = |engine: &Engine, content: &str| {
            let mut client = engine.client();
            client.send(request("Any", TEXT, "", content.as_bytes()));
            client.response(false).expect("an answer").text()
        };
        assert_eq!(ask(&bridging, "hi"), "application/grpc+proto hi", "asked in gRPC, and not answered in it");
        assert_eq!(ask(&plain, "hi"), format!("{TEXT} {}", BASE64.encode(b"hi")));
    }
}

fn bridging(driver: Driver, server: &GrpcServer) -> Setup {
    Setup::new(driver).to(&server.address.to_string()).pool_line("protocol = \"h2\"").route_line("grpc_web = true")
}

/// A call with its messages, encoded if it must be.
fn request(method: &str, coding: &str, lines: &str, messages: &[u8]) -> Vec<u8> {
    let content = if coding == TEXT { BASE64.encode(messages).into_bytes() } else { messages.to_vec() };
    let head = format!(
        "POST /test.Calls/{method} HTTP/1.1\r\nHost: a\r\nContent-Type: {coding}\r\n{lines}Content-Length: {}\r\n\r\n",
        content.len()
    );
    [head.into_bytes(), content].concat()
}

/// The messages and the trailers of an answer.
fn call(engine: &Engine, method: &str, coding: &str, lines: &str, content: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut client: Client = engine.client();
    client.send(request(method, coding, lines, content));
    let response = client.response(false).expect("an answer");
    assert_eq!((response.status(), response.field("content-type")), (200, Some(coding)));
    if coding == BINARY {
        return messages(&response.body);
    }
    messages(&decoded(&response.body))
}

/// Padding may stand behind each message, so each group is read by itself.
fn decoded(text: &[u8]) -> Vec<u8> {
    text.chunks(4).flat_map(|group| BASE64.decode(group).expect("a group of base64")).collect()
}

/// The content of the next chunk.
fn chunk(client: &mut Client) -> Vec<u8> {
    let mut length = 0;
    loop {
        match client.take(1).expect("a chunk's length")[0] {
            b'\r' => break,
            digit => length = length * 16 + (digit as char).to_digit(16).expect("a digit") as usize,
        }
    }
    let content = client.take(1 + length + 2).expect("a chunk");
    content[1..=length].to_vec()
}

fn messages(mut content: &[u8]) -> (Vec<Vec<u8>>, String) {
    let mut told = Vec::new();
    while let Some(([flag, length @ ..], rest)) = content.split_first_chunk::<5>() {
        let (message, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        content = rest;
        if *flag == 0x80 {
            assert!(content.is_empty(), "nothing follows trailers");
            return (told, String::from_utf8_lossy(message).into_owned());
        }
        told.push(message.to_vec());
    }
    panic!("no trailers behind {told:?}, but {content:?}")
}

fn refused(response: &Message, coding: &str, status: &str) {
    let said = (response.status(), response.field("content-type"), response.field("grpc-status"));
    assert_eq!(said, (200, Some(coding), Some(status)), "{response:?}");
    assert!(
        response.body.is_empty() && response.field("grpc-message").is_some_and(|why| !why.is_empty()),
        "{response:?}"
    );
}
