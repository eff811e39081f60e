//! Origins: they answer what the ledger says, in pieces and at their own pace; rude ones break off wherever they like.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use ring::sim::{Host, Listening, Socket};

use crate::ledger::{Answer, Ask, Framing, Ledger, REQUEST, content};
use crate::wire::{Head, Pace, Reader, chunks};

/// How soon an answer comes that any pool waits for: half of the engine's least patience.
pub(crate) const SOON: u64 = 50_000_000;

/// How an exchange goes wrong at an origin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    /// Ends before a byte of the answer, orderly or not.
    BeforeHead {
        reset: bool,
    },
    InHead {
        reset: bool,
    },
    InContent {
        reset: bool,
    },
    /// Answers, then ends although it did not say so, at once or after a while.
    Behind {
        reset: bool,
    },
    /// Says more than it was asked.
    Unsolicited,
    Garbage,
    /// Never answers.
    Mute,
}

pub(crate) async fn serve(host: Host, listening: Listening, ledger: Rc<Ledger>, rude: bool) {
    loop {
        let socket = listening.accept().await;
        if rude && host.chance(0.03) {
            socket.reset();
            continue;
        }
        let ledger = Rc::clone(&ledger);
        host.spawn("conversation", move |host| async move {
            // The engine may leave at any moment; what that means to anybody, the client sees.
            let _ = converse(&host, socket, &ledger, rude).await;
        });
    }
}

async fn converse(host: &Host, socket: Socket, ledger: &Ledger, rude: bool) -> io::Result<()> {
    let mut reader = Reader::new(host, &socket, Pace::FAST);
    let mut trusted = true;
    while let Some(head) = reader.head().await? {
        let id = head.number("x-id").unwrap_or_else(|| panic!("a request without its number: {head:?}")) as u64;
        let ask = ledger.asked(id).unwrap_or_else(|| panic!("a request that nobody sent: {head:?}"));
        let attempt = ledger.seen(id);
        let soon = if trusted { host.now() + SOON } else { 0 };
        assert_eq!(head.line, format!("{} /{id} HTTP/1.1", ask.method));
        assert_eq!(head.field("host"), Some("app.test"));
        let answer = ledger.answer(&ask);
        let mut fault = if rude { fault(host) } else { Fault::None };
        if fault == Fault::Unsolicited && answer.framing == Framing::Close {
            // What ends with the connection has no behind.
            fault = Fault::None;
        }
        // What nobody asked for stands before the next answer, which is none then.
        trusted &= fault != Fault::Unsolicited;
        host.note(format!("origin: attempt {attempt} of {ask:?}: {answer:?}, {fault:?}"));
        host.dawdle(Duration::from_millis(if host.chance(0.3) { 30 } else { 1 })).await;
        if answer.early {
            let _ = respond(host, &socket, ledger, &ask, (attempt, soon), &answer, fault).await?;
            // Polite to the end: a reset would overtake the answer.
            return if rude { Ok(()) } else { read_content(&mut reader, &head, &ask).await };
        }
        if head.field("expect").is_some() {
            socket.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        read_content(&mut reader, &head, &ask).await?;
        if !respond(host, &socket, ledger, &ask, (attempt, soon), &answer, fault).await? {
            break;
        }
    }
    Ok(())
}

fn fault(host: &Host) -> Fault {
    if host.chance(0.6) {
        return Fault::None;
    }
    let reset = host.chance(0.5);
    match host.pick(0..=8) {
        0 => Fault::BeforeHead { reset },
        1 => Fault::InHead { reset },
        2 | 3 => Fault::InContent { reset },
        4 | 5 => Fault::Behind { reset },
        6 => Fault::Unsolicited,
        7 => Fault::Garbage,
        _ => Fault::Mute,
    }
}

/// The request's content is the client's, or visibly cut.
async fn read_content(reader: &mut Reader, head: &Head, ask: &Ask) -> io::Result<()> {
    let read = if head.is_chunked() {
        assert!(ask.framing == Framing::Chunked || ask.ends_late, "content without need: {ask:?}");
        reader.chunked().await
    } else {
        let length = head.number("content-length").unwrap_or(0);
        assert_eq!(length, ask.size, "content-length of {ask:?}: {head:?}");
        reader.exactly(length).await
    };
    let sent = content(ask.id, REQUEST, ask.size);
    assert!(sent.starts_with(&reader.content), "the content of request {} is something else", ask.id);
    if read.is_ok() {
        assert_eq!(reader.content.len(), sent.len(), "the content of request {} ends too early", ask.id);
    }
    read
}

/// Answers; false when the connection is over.
async fn respond(
    host: &Host,
    socket: &Socket,
    ledger: &Ledger,
    ask: &Ask,
    (attempt, soon): (usize, u64),
    answer: &Answer,
    fault: Fault,
) -> io::Result<bool> {
    let pause = Duration::from_millis(if host.chance(0.2) { 20 } else { 2 });
    let closes = answer.closes || answer.early;
    let (message, head) = compose(host, ask, attempt, answer, closes);
    // How much of it goes out, and how the connection ends.
    let (sent, reset) = match fault {
        Fault::Mute => {
            host.sleep(Duration::from_secs(200)).await;
            return Ok(false);
        }
        Fault::Garbage => {
            socket.send_split(host, b"HTTP/1.1 2OO okay\r\n\0\r\n\r\n", pause).await?;
            return Ok(false);
        }
        Fault::BeforeHead { reset } => (0, Some(reset)),
        Fault::InHead { reset } => (host.pick(1..=head - 1), Some(reset)),
        Fault::InContent { reset } => (host.pick(head..=message.len()), Some(reset)),
        Fault::Behind { reset } => (message.len(), Some(reset)),
        Fault::None | Fault::Unsolicited => (message.len(), None),
    };
    let given = content_size(ask, answer);
    match answer.framing {
        _ if sent == message.len() && (answer.framing != Framing::Close || given == 0 && ask.method == "HEAD") => {
            ledger.whole(ask.id, attempt, given);
        }
        // Delimited by the end, it is whole wherever it ends, but not when it is reset.
        Framing::Close if sent >= head && reset != Some(true) => ledger.whole(ask.id, attempt, sent - head),
        _ => {}
    }
    socket.send_split(host, &message[..sent], pause).await?;
    // A reset for what it has not read may overtake what it has said.
    if sent >= head && reset != Some(true) && !answer.early && host.now() < soon {
        ledger.given(ask.id);
    }
    if fault == Fault::Unsolicited {
        // Nothing that could be an answer: one that comes behind the next request is that request's, as far as
        // anybody can tell.
        let more = "\0 nobody asked\r\n";
        socket.send_split(host, &more.as_bytes()[..host.pick(1..=more.len())], pause).await?;
    }
    match reset {
        Some(reset) => {
            if matches!(fault, Fault::Behind { .. }) && host.chance(0.7) {
                host.dawdle(Duration::from_millis(100)).await;
            }
            if reset {
                socket.clone().reset();
            }
            Ok(false)
        }
        None if closes => {
            socket.shutdown_write();
            Ok(false)
        }
        None => Ok(true),
    }
}

/// The bytes of an answer, and how many of them are before its content.
fn compose(host: &Host, ask: &Ask, attempt: usize, answer: &Answer, closes: bool) -> (Vec<u8>, usize) {
    let mut message = Vec::new();
    for _ in 0..answer.hints {
        message.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n");
    }
    let Answer { status, size, .. } = answer;
    let mut head = format!("HTTP/1.1 {status} Fine\r\nx-id: {}\r\nx-attempt: {attempt}\r\n", ask.id);
    match answer.framing {
        Framing::Length => head.push_str(&format!("Content-Length: {size}\r\n")),
        Framing::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        Framing::None | Framing::Close => {}
    }
    if closes {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    message.extend_from_slice(head.as_bytes());
    let length = message.len();
    if ask.method != "HEAD" {
        let content = content(ask.id, attempt, *size);
        match answer.framing {
            Framing::Chunked => chunks(host, &content, &mut message),
            _ => message.extend_from_slice(&content),
        }
    }
    (message, length)
}

/// Bytes of content that the client shall get.
pub(crate) fn content_size(ask: &Ask, answer: &Answer) -> usize {
    if ask.method == "HEAD" { 0 } else { answer.size }
}
