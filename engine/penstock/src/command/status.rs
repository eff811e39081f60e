//! `penstock status`: asks a running engine what it is doing, and shows the answer on one screen.
//!
//! The answer is shown by its shape, not by its keys: numbers and words above, lists of objects as tables, and
//! what a newer or older engine says beside what we know is shown all the same.

use super::{ADMIN_DEFAULT, FAILED, admin_address, refuse, say};
use crate::{
    limits,
    snapshot::{Address, Host},
};
use clap::Args;
use serde_json::{Map, Value};
use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    os::unix::net::UnixStream,
    process::ExitCode,
};

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The engine's admin endpoint: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", default_value = ADMIN_DEFAULT, value_parser = admin_address)]
    admin: Address,
    /// Prints the answer as it came
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &StatusArgs) -> ExitCode {
    let answer = match fetch(&args.admin, "/status") {
        Ok(answer) => answer,
        Err(error) => {
            let advice = match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                    "; is the engine running, and does its configuration have `admin`? (--admin names another address)"
                }
                _ => "",
            };
            return refuse(FAILED, &format!("{}: {error}{advice}", args.admin));
        }
    };
    match serde_json::from_slice::<Value>(&answer) {
        Err(error) => refuse(FAILED, &format!("{}: the answer is not JSON: {error}", args.admin)),
        Ok(status) if args.json => say(&format!("{status:#}\n")),
        Ok(status) => say(&screen(&status)),
    }
}

// ── A small HTTP/1.1 client ─────────────────────────────────────────────────────────────────────────────────────────

fn fetch(address: &Address, path: &str) -> io::Result<Vec<u8>> {
    let timeout = Some(limits::STATUS_TIMEOUT);
    match address {
        Address::Unix(path_of_socket) => {
            let stream = UnixStream::connect(path_of_socket)?;
            stream.set_read_timeout(timeout)?;
            stream.set_write_timeout(timeout)?;
            exchange(stream, "localhost", path)
        }
        Address::Tcp { host, port } => {
            let candidates: Vec<SocketAddr> = match host {
                Host::Ip(ip) => vec![SocketAddr::new(*ip, *port)],
                Host::Name(name) => (&**name, *port).to_socket_addrs()?.collect(),
            };
            let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for candidate in candidates {
                match TcpStream::connect_timeout(&candidate, limits::STATUS_TIMEOUT) {
                    Ok(stream) => {
                        stream.set_read_timeout(timeout)?;
                        stream.set_write_timeout(timeout)?;
                        return exchange(stream, &address.to_string(), path);
                    }
                    Err(error) => refused = error,
                }
            }
            Err(refused)
        }
    }
}

fn exchange(mut stream: impl Read + Write, host: &str, path: &str) -> io::Result<Vec<u8>> {
    // In one piece: a server that answers after the first one may be gone before the second.
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(limits::STATUS_BYTES_MAX).read_to_end(&mut answer).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", limits::STATUS_TIMEOUT.as_secs()))
        }
        _ => error,
    })?;
    body(&answer)
}

/// The body of a whole response, as far as it is one.
fn body(answer: &[u8]) -> io::Result<Vec<u8>> {
    let broken = |why: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the answer is not HTTP: {why}"));
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").ok_or_else(|| broken("no end of its head"))?;
    let head = std::str::from_utf8(&answer[..end]).map_err(|_| broken("its head is not text"))?;
    let rest = &answer[end + 4..];
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.").and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if status != "200" {
        return Err(io::Error::other(format!("it answered `{status_line}`: is this an admin endpoint?")));
    }
    let field = |name: &str| {
        let mut fields = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    };
    if field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return unchunk(rest).ok_or_else(|| broken("its chunks are broken"));
    }
    match field("content-length").map(str::parse::<usize>) {
        None => Ok(rest.to_vec()),
        Some(Ok(length)) if length <= rest.len() => Ok(rest[..length].to_vec()),
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

// ── One screen ──────────────────────────────────────────────────────────────────────────────────────────────────────

fn screen(status: &Value) -> String {
    let mut out = String::new();
    let Some(object) = status.as_object() else {
        return format!("{status}\n");
    };
    let word = |key: &str| object.get(key).map(|value| cell(key, value));
    let _ = write!(out, "penstock {}", word("version").unwrap_or_else(|| "?".into()));
    if let Some(uptime) = word("uptime_s") {
        let _ = write!(out, "   up {uptime}");
    }
    if let Some(driver) = word("driver") {
        let _ = write!(out, "   driver {driver}");
    }
    out.push('\n');
    facts(object, &["version", "uptime_s", "driver"], "", &mut out);
    for (key, value) in object {
        section(key, value, "", &mut out);
    }
    out
}

/// The plain values of an object, a few a line.
fn facts(object: &Map<String, Value>, known: &[&str], indent: &str, out: &mut String) {
    let plain: Vec<_> = object
        .iter()
        .filter(|(key, value)| !known.contains(&key.as_str()) && is_plain(value))
        .map(|(key, value)| format!("{} {}", title(key), cell(key, value)))
        .collect();
    for line in plain.chunks(5) {
        let _ = writeln!(out, "{indent}{}", line.join("   "));
    }
}

/// What is not a plain value: a table, or a further object.
fn section(key: &str, value: &Value, indent: &str, out: &mut String) {
    match value {
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let rows: Vec<_> = items.iter().filter_map(Value::as_object).collect();
            let nested = rows.iter().any(|row| row.values().any(|value| !is_plain(value)));
            if !nested {
                let _ = writeln!(out, "\n{indent}{}", title(key));
                table(&rows, &format!("{indent}  "), out);
                return;
            }
            for row in rows {
                let name = row.get("name").map(|name| cell("name", name)).unwrap_or_default();
                let _ = writeln!(out, "\n{indent}{} {name}", title(key).trim_end_matches('s'));
                facts(row, &["name"], &format!("{indent}  "), out);
                for (key, value) in row {
                    section(key, value, &format!("{indent}  "), out);
                }
            }
        }
        Value::Object(inner) if !inner.is_empty() => {
            let _ = writeln!(out, "\n{indent}{}", title(key));
            facts(inner, &[], &format!("{indent}  "), out);
            for (key, value) in inner {
                section(key, value, &format!("{indent}  "), out);
            }
        }
        _ => {}
    }
}

/// Columns in the order in which keys first appear; numbers to the right.
fn table(rows: &[&Map<String, Value>], indent: &str, out: &mut String) {
    let mut columns: Vec<&str> = Vec::new();
    for key in rows.iter().flat_map(|row| row.keys()) {
        if !columns.contains(&key.as_str()) {
            columns.push(key);
        }
    }
    let cells: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            columns.iter().map(|key| row.get(*key).map_or_else(|| "–".into(), |value| cell(key, value))).collect()
        })
        .collect();
    let is_number = |key: &str| rows.iter().filter_map(|row| row.get(key)).all(Value::is_number);
    let widths: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, key)| cells.iter().map(|row| width(&row[at])).chain([width(&title(key))]).max().unwrap_or(0))
        .collect();
    let titles: Vec<_> = columns.iter().map(|key| title(key)).collect();
    for row in std::iter::once(&titles).chain(&cells) {
        let mut line = indent.to_owned();
        for (at, text) in row.iter().enumerate() {
            let padding = " ".repeat(widths[at] - width(text));
            let (before, after) =
                if is_number(columns[at]) { (padding, String::new()) } else { (String::new(), padding) };
            let _ = write!(line, "{before}{text}{after}  ");
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// A list of plain values is as plain as they are.
fn is_plain(value: &Value) -> bool {
    match value {
        Value::Object(_) => false,
        Value::Array(items) => !items.is_empty() && items.iter().all(|item| !item.is_object() && !item.is_array()),
        _ => true,
    }
}

/// The key without its unit, which the value shows.
fn title(key: &str) -> String {
    key.trim_end_matches("_us").trim_end_matches("_s").trim_end_matches("_ms").replace('_', " ")
}

/// A value as text, in the unit that its key names.
fn cell(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "–".into(),
        // What another process says goes to a terminal: no control characters.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Array(items) => items.iter().map(|item| cell(key, item)).collect::<Vec<_>>().join(", "),
        Value::Number(number) => {
            let Some(float) = number.as_f64() else {
                return number.to_string();
            };
            if key.ends_with("_us") {
                micros(float)
            } else if key.ends_with("_ms") {
                micros(float * 1e3)
            } else if key.ends_with("_s") {
                seconds(float)
            } else if number.is_f64() {
                format!("{float:.2}")
            } else {
                number.to_string()
            }
        }
        other => other.to_string(),
    }
}

fn micros(micros: f64) -> String {
    match micros {
        ..1e3 => format!("{micros:.0} µs"),
        1e3..1e6 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.1} s", micros / 1e6),
    }
}

fn seconds(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{whole} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", whole % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_status_fits_one_screen() {
        let status = json!({
            "version": "0.1.0", "uptime_s": 3725, "driver": "uring", "requests": 1200, "errors": 3,
            "cores": [{ "cpu": 0, "requests": 700, "busy": 0.5 }, { "cpu": 1, "requests": 500, "busy": 0.25 }],
            "listeners": [],
            "pools": [{ "name": "api", "endpoints": [
                { "address": "10.0.0.1:80", "state": "up", "in_flight": 2, "ewma_us": 812, "requests": 900, "failures": 0 },
                { "address": "10.0.0.2:80", "state": "open", "in_flight": 0, "ewma_us": 250000.0, "requests": 300, "failures": 3 },
            ]}],
        });
        let wanted = "\
penstock 0.1.0   up 1 h 2 min   driver uring
requests 1200   errors 3

cores
  cpu  requests  busy
    0       700  0.50
    1       500  0.25

pool api

  endpoints
    address      state  in flight      ewma  requests  failures
    10.0.0.1:80  up             2    812 µs       900         0
    10.0.0.2:80  open           0  250.0 ms       300         3
";
        assert_eq!(screen(&status), wanted);
    }

    #[test]
    fn any_json_is_shown() {
        for status in
            [json!(null), json!([1, [2]]), json!({}), json!({ "a": [{}, { "b": { "c": [] } }], "d": "\u{1b}[2J" })]
        {
            assert!(!screen(&status).contains('\u{1b}'));
        }
    }

    #[test]
    fn bodies() {
        let whole = |answer: &str| {
            body(answer.as_bytes()).map(|body| String::from_utf8(body).unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(whole("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"), Ok("{}".into()));
        assert_eq!(whole("HTTP/1.1 200 OK\r\n\r\n{}"), Ok("{}".into()));
        assert_eq!(
            whole("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x\r\n}\r\n0\r\n\r\n"),
            Ok("{}".into())
        );
        for answer in [
            "",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        ] {
            assert!(whole(answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn an_engine_is_asked_over_tcp_and_unix() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let socket = std::env::temp_dir().join(format!("penstock-status-{}", std::process::id()));
        let unix = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || {
            let mut head = [0; 512];
            let mut tcp = listener.accept().unwrap().0;
            let _ = tcp.read(&mut head).unwrap();
            tcp.write_all(answer).unwrap();
            drop(tcp);
            let mut unix = unix.accept().unwrap().0;
            let _ = unix.read(&mut head).unwrap();
            unix.write_all(answer).unwrap();
        });
        assert_eq!(fetch(&address.parse().unwrap(), "/status").unwrap(), b"{}");
        assert_eq!(fetch(&Address::Unix(socket.clone()), "/status").unwrap(), b"{}");
        server.join().unwrap();
        std::fs::remove_file(socket).unwrap();
    }
}
