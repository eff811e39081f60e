//! A small HTTP/1.1 client for an engine's admin endpoint.

use crate::{
    limits,
    snapshot::{Address, Host},
};
use serde_json::Value;
use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    time::Duration,
};

/// Asks an engine's admin endpoint: for a page, or with `content` for a change.
///
/// # Errors
/// A sentence for the operator: the engine's own where it has one.
pub(super) fn ask(address: &Address, path: &str, content: Option<&Value>) -> Result<Value, String> {
    ask_within(address, path, content, limits::STATUS_TIMEOUT)
}

/// As [`ask`], for what the engine may take so long for.
pub(super) fn ask_within(
    address: &Address,
    path: &str,
    content: Option<&Value>,
    patience: Duration,
) -> Result<Value, String> {
    let answer = fetch(address, path, content, patience).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "; is the engine running, and does its configuration have `admin`? (--admin names another address)"
            }
            _ => "",
        };
        format!("{address}: {error}{advice}")
    })?;
    let value = serde_json::from_slice::<Value>(&answer.body);
    match value {
        Ok(value) if answer.status == 200 => Ok(value),
        Ok(value) if value["error"].is_string() => Err(value["error"].as_str().unwrap_or_default().to_owned()),
        Err(error) if answer.status == 200 => Err(format!("{address}: the answer is not JSON: {error}")),
        _ => Err(format!("{address}: it answered {}: is this an admin endpoint, and of this version?", answer.status)),
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

fn fetch(address: &Address, path: &str, content: Option<&Value>, patience: Duration) -> io::Result<Answer> {
    let answer = match address {
        Address::Unix(path_of_socket) => {
            let stream = UnixStream::connect(path_of_socket)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            exchange(stream, "localhost", path, content)
        }
        Address::Tcp { host, port } => {
            let stream = connect(host, *port)?;
            stream.set_read_timeout(Some(patience))?;
            let peer = stream.peer_addr()?.to_string();
            exchange(stream, &peer, path, content)
        }
    };
    answer.map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", patience.as_secs()))
        }
        _ => error,
    })
}

/// A connection to the first address of `host` that answers; each wait on it has an end.
pub(super) fn connect(host: &Host, port: u16) -> io::Result<TcpStream> {
    let candidates: Vec<SocketAddr> = match host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => (&**name, port).to_socket_addrs()?.collect(),
    };
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, limits::STATUS_TIMEOUT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limits::STATUS_TIMEOUT))?;
                stream.set_write_timeout(Some(limits::STATUS_TIMEOUT))?;
                return Ok(stream);
            }
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// `host` is an address, whatever name led there: the engine lets no name change anything.
fn exchange(mut stream: impl Read + Write, host: &str, path: &str, content: Option<&Value>) -> io::Result<Answer> {
    let (method, content) = match content {
        None => ("GET", String::new()),
        Some(content) => {
            let content = content.to_string();
            let length = content.len();
            ("POST", format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{content}"))
        }
    };
    let end = if method == "GET" { "\r\n" } else { "" };
    // In one piece: a server that answers after the first one may be gone before the second.
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n{content}{end}"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limits::STATUS_BYTES_MAX).read_to_end(&mut answer)?;
    whole(&answer)
}

/// A whole response, as far as it is one.
fn whole(answer: &[u8]) -> io::Result<Answer> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP: {why}"));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| broken("no end of its head"))?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| broken("its head is not text"))?;
    let rest = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    let status = status.parse().map_err(|_| broken("it begins with no status"))?;
    let field = |name: &str| {
        let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let body = unchunk(rest).ok_or_else(|| broken("its chunks are broken"))?;
        return Ok(Answer { status, body });
    }
    match field("content-length").map(str::parse::<usize>) {
        None => Ok(Answer { status, body: rest.to_vec() }),
        Some(Ok(length)) if length <= rest.len() => Ok(Answer { status, body: rest[..length].to_vec() }),
        Some(_) => Err(broken("it ended early")),
    }
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let digits = std::str::from_utf8(&rest[..line]).ok()?.split(';').next()?.trim();
        let size = usize::from_str_radix(digits, 16).ok()?;
        rest = &rest[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies() {
        let whole = |answer: &str| {
            whole(answer.as_bytes())
                .map(|answer| String::from_utf8(answer.body).unwrap())
                .map_err(|error| error.to_string())
        };
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok("{}".into()));
        assert_eq!(whole("HTTP/1.1 200 OK\r\n\r\n{}"), Ok("{}".into()));
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n"),
            Ok("{}".into())
        );
        for answer in [
            "",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(whole(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_engine_is_asked_over_tcp_and_unix() {
        let answer =
            |status: &str, body: &str| format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answers = [
            answer("200 OK", "{}"),
            answer("409 Conflict", r#"{"error": "in 2 pools"}"#),
            answer("404 Not Found", "x"),
        ];
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let socket = std::env::temp_dir().join(format!("penstock-client-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let mut asked = Vec::new();
            let mut head = [0; 512];
            for answer in &answers {
                let mut tcp = listener.accept().unwrap().0;
                let length = tcp.read(&mut head).unwrap();
                asked.push(String::from_utf8_lossy(&head[..length]).into_owned());
                tcp.write_all(answer.as_bytes()).unwrap();
            }
            let mut unix = unix.accept().unwrap().0;
            let _ = unix.read(&mut head).unwrap();
            unix.write_all(answers[0].as_bytes()).unwrap();
            asked
        });
        let content = serde_json::json!({ "to": "drain" });
        assert_eq!(ask(&address, "/status", None), Ok(serde_json::json!({})));
        assert_eq!(ask(&address, "/set/endpoint", Some(&content)), Err("in 2 pools".into()));
        assert!(ask(&address, "/show/pools", None).unwrap_err().contains("404"));
        assert_eq!(ask(&Address::Unix(socket.clone()), "/status", None), Ok(serde_json::json!({})));
        let asked = server.join().unwrap();
        assert!(asked[0].starts_with("GET /status HTTP/1.1\r\n") && asked[0].ends_with("\r\n\r\n"), "{}", asked[0]);
        assert!(
            asked[1].starts_with("POST /set/endpoint") && asked[1].ends_with("\r\n\r\n{\"to\":\"drain\"}"),
            "{}",
            asked[1]
        );
        std::fs::remove_file(socket).unwrap();
    }
}
