//! The access log: workers format lines into a buffer of their own and hand it over now and then; one thread writes.
//!
//! What holds here: a request never waits for the log. When the writer is behind by [`ACCESS_LOG_QUEUE`] lines' worth of
//! batches, lines are dropped and counted. The file is opened anew on SIGHUP, so that it can be rotated.

mod passed;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

pub use self::passed::{Passed, port_of};
use crate::limits;
use crate::snapshot::{AccessFormat, AccessLog};

/// Bytes a worker collects before it hands them over; a tick of its housekeeping does so in any case.
const BATCH_BYTES: usize = 32 << 10;
/// Batches on their way to the writer: with 512 bytes a line, [`limits::ACCESS_LOG_QUEUE`] lines.
const BATCHES_MAX: usize = limits::ACCESS_LOG_QUEUE * 512 / BATCH_BYTES;

/// What TLS agreed upon with a client; empty texts without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Agreed {
    pub version: &'static str,
    pub cipher: &'static str,
    /// Whether a session was resumed.
    pub resumed: bool,
}

/// One exchange, as it will be told.
#[derive(Debug, Default)]
pub struct Line<'a> {
    /// The client's address.
    pub client: &'a [u8],
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub host: &'a [u8],
    pub user_agent: &'a [u8],
    pub referer: &'a [u8],
    pub version: &'static str,
    /// 0: the client got none.
    pub status: u16,
    pub bytes: u64,
    pub duration: Duration,
    pub route: &'a str,
    pub upstream: &'a str,
    pub tries: u8,
    pub tls: Agreed,
    /// Why, when it did not go well; empty otherwise.
    pub reason: &'static str,
}

/// A worker's end.
#[derive(Debug)]
pub struct Writer {
    format: AccessFormat,
    batch: Vec<u8>,
    lines: u64,
    sender: SyncSender<Message>,
    /// The wall clock's text, made anew each second.
    second: u64,
    stamp: String,
}

/// The writing thread.
#[derive(Debug)]
pub struct Log {
    sender: SyncSender<Message>,
    format: AccessFormat,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Message {
    Lines(Vec<u8>),
    Reopen,
    End,
}

impl Log {
    /// Opens the file and starts the thread.
    pub fn start(settings: &AccessLog) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(BATCHES_MAX);
        let path = settings.path.clone();
        let out = open(path.as_ref())?;
        let thread = std::thread::Builder::new()
            .name("penstock-log".into())
            .spawn(move || write_all(&receiver, path.as_ref(), out))?;
        Ok(Self { sender, format: settings.format, thread: Some(thread) })
    }

    pub fn writer(&self) -> Writer {
        Writer {
            format: self.format,
            batch: Vec::new(),
            lines: 0,
            sender: self.sender.clone(),
            second: 0,
            stamp: String::new(),
        }
    }

    /// Opens the file anew.
    pub fn reopen(&self) {
        let _ = self.sender.send(Message::Reopen);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = self.sender.send(Message::End);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Takes a line in; returns how many lines were dropped on this occasion.
    pub fn write(&mut self, line: &Line<'_>) -> u64 {
        self.stamp_now();
        match self.format {
            AccessFormat::Json => json(&mut self.batch, line, &self.stamp),
            AccessFormat::Common => common(&mut self.batch, line, &self.stamp),
        }
        self.written()
    }

    /// The same for what was passed through.
    pub fn write_passed(&mut self, passed: &Passed<'_>) -> u64 {
        self.stamp_now();
        match self.format {
            AccessFormat::Json => passed::json(&mut self.batch, passed, &self.stamp),
            AccessFormat::Common => passed::common(&mut self.batch, passed, &self.stamp),
        }
        self.written()
    }

    /// A line more has been collected.
    fn written(&mut self) -> u64 {
        self.lines += 1;
        if self.batch.len() >= BATCH_BYTES { self.flush() } else { 0 }
    }

    /// Hands over what has been collected; returns how many lines were dropped.
    pub fn flush(&mut self) -> u64 {
        if self.batch.is_empty() {
            return 0;
        }
        let lines = std::mem::take(&mut self.lines);
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_BYTES + 1_024));
        match self.sender.try_send(Message::Lines(batch)) {
            Ok(()) => 0,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => lines,
        }
    }

    fn stamp_now(&mut self) {
        let wall = ring::wall_clock();
        if self.second == wall.as_secs() && !self.stamp.is_empty() {
            return;
        }
        self.second = wall.as_secs();
        self.stamp = match self.format {
            AccessFormat::Json => Civil::of(self.second).rfc3339(),
            AccessFormat::Common => Civil::of(self.second).common(),
        };
    }
}

impl Drop for Writer {
    /// What was cut when the worker ended is told of after its last look at the log.
    fn drop(&mut self) {
        self.flush();
    }
}

fn open(path: Option<&PathBuf>) -> io::Result<Box<dyn Write + Send>> {
    let Some(path) = path else { return Ok(Box::new(io::stdout())) };
    let file: File = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("access log {}: {error}", path.display())))?;
    Ok(Box::new(file))
}

fn write_all(receiver: &Receiver<Message>, path: Option<&PathBuf>, mut out: Box<dyn Write + Send>) {
    let mut complained = false;
    loop {
        match receiver.recv_timeout(Duration::from_secs(3_600)) {
            Ok(Message::Lines(lines)) => {
                if let Err(error) = out.write_all(&lines).and_then(|()| out.flush())
                    && !std::mem::replace(&mut complained, true)
                {
                    eprintln!("penstock: the access log cannot be written: {error}");
                }
            }
            Ok(Message::Reopen) => match open(path) {
                Ok(file) => (out, complained) = (file, false),
                Err(error) => eprintln!("penstock: {error}"),
            },
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn json(out: &mut Vec<u8>, line: &Line<'_>, stamp: &str) {
    let _ = write!(out, r#"{{"time":"{stamp}""#);
    for (name, value) in [
        ("client", line.client),
        ("method", line.method),
        ("host", line.host),
        ("target", line.target),
        ("user_agent", line.user_agent),
        ("referer", line.referer),
        ("route", line.route.as_bytes()),
        ("upstream", line.upstream.as_bytes()),
        ("reason", line.reason.as_bytes()),
    ] {
        field(out, name, value);
    }
    agreed(out, line.tls);
    let _ = writeln!(
        out,
        r#","version":"{}","status":{},"bytes":{},"duration_us":{},"tries":{}}}"#,
        line.version,
        line.status,
        line.bytes,
        line.duration.as_micros(),
        line.tries
    );
}

/// A text, unless it is empty.
fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    if !value.is_empty() {
        let _ = write!(out, r#","{name}":""#);
        escaped(out, value, |byte| byte == b'"' || byte == b'\\');
        out.push(b'"');
    }
}

fn agreed(out: &mut Vec<u8>, tls: Agreed) {
    field(out, "tls", tls.version.as_bytes());
    field(out, "cipher", tls.cipher.as_bytes());
    if !tls.version.is_empty() {
        let _ = write!(out, r#","resumed":{}"#, tls.resumed);
    }
}

/// The Common Log Format with referer and agent behind it ("combined"), as every analyser reads it.
fn common(out: &mut Vec<u8>, line: &Line<'_>, stamp: &str) {
    let quote = |byte| byte == b'"' || byte == b'\\';
    escaped(out, line.client, quote);
    let _ = write!(out, " - - [{stamp}] \"");
    escaped(out, or_dash(line.method), quote);
    out.push(b' ');
    escaped(out, or_dash(line.target), quote);
    let _ = write!(out, " {}\" {} {} \"", line.version, line.status, line.bytes);
    escaped(out, or_dash(line.referer), quote);
    out.extend_from_slice(b"\" \"");
    escaped(out, or_dash(line.user_agent), quote);
    out.extend_from_slice(b"\"\n");
}

const fn or_dash(text: &[u8]) -> &[u8] {
    if text.is_empty() { b"-" } else { text }
}

/// What a client wrote must not become a line of its own, nor an escape sequence in a terminal.
fn escaped(out: &mut Vec<u8>, text: &[u8], special: impl Fn(u8) -> bool) {
    for &byte in text {
        match byte {
            _ if special(byte) => out.extend_from_slice(&[b'\\', byte]),
            0x20..0x7f => out.push(byte),
            _ => drop(write!(out, "\\u00{byte:02x}")),
        }
    }
}

/// A time since 1970 as a date with its milliseconds, UTC.
#[must_use]
pub fn rfc3339_millis(time: Duration) -> String {
    let date = Civil::of(time.as_secs()).rfc3339();
    format!("{}.{:03}Z", date.trim_end_matches('Z'), time.subsec_millis())
}

/// A date of the civil calendar, UTC.
struct Civil {
    year: i64,
    month: usize,
    day: u64,
    second_of_day: u64,
}

impl Civil {
    /// Days to date by whole 400-year eras that begin in March (H. Hinnant, "chrono-compatible low-level date
    /// algorithms").
    fn of(seconds: u64) -> Self {
        let days = (seconds / 86_400) as i64 + 719_468;
        let era = days.div_euclid(146_097);
        let of_era = days.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * of_year + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month: month as usize,
            day: (of_year - (153 * shifted + 2) / 5 + 1) as u64,
            second_of_day: seconds % 86_400,
        }
    }

    fn clock(&self) -> String {
        let second = self.second_of_day;
        format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
    }

    fn rfc3339(&self) -> String {
        format!("{:04}-{:02}-{:02}T{}Z", self.year, self.month, self.day, self.clock())
    }

    fn common(&self) -> String {
        const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        format!("{:02}/{}/{:04}:{} +0000", self.day, MONTHS[self.month - 1], self.year, self.clock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line<'static> {
        Line {
            client: b"192.0.2.7",
            method: b"GET",
            target: b"/a?\"b\"\n\x1b[31m",
            host: b"example.net",
            user_agent: b"curl/8",
            referer: b"",
            version: "HTTP/1.1",
            status: 200,
            bytes: 12,
            duration: Duration::from_micros(1_500),
            route: "everything",
            upstream: "10.0.0.1:80",
            tries: 1,
            tls: Agreed::default(),
            reason: "",
        }
    }

    #[test]
    fn dates() {
        assert_eq!(Civil::of(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339_millis(Duration::from_millis(951_782_400_007)), "2000-02-29T00:00:00.007Z");
        assert_eq!(Civil::of(951_782_400).rfc3339(), "2000-02-29T00:00:00Z");
        assert_eq!(Civil::of(1_795_307_696).common(), "22/Nov/2026:00:34:56 +0000");
    }

    #[test]
    fn json_lines_are_json_whatever_the_client_wrote() {
        let mut out = Vec::new();
        json(&mut out, &line(), "2026-11-22T00:00:00Z");
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["target"], "/a?\"b\"\n\u{1b}[31m");
        assert_eq!((&value["status"], &value["duration_us"]), (&200.into(), &1_500.into()));
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn common_lines_stay_one_line() {
        let mut out = Vec::new();
        common(&mut out, &line(), "22/Nov/2026:00:34:56 +0000");
        let text = String::from_utf8(out).unwrap();
        assert_eq!(
            text,
            "192.0.2.7 - - [22/Nov/2026:00:34:56 +0000] \
             \"GET /a?\\\"b\\\"\\u000a\\u001b[31m HTTP/1.1\" 200 12 \"-\" \"curl/8\"\n"
        );
    }

    #[test]
    fn a_writer_that_is_behind_costs_lines_and_not_time() {
        let (sender, receiver) = sync_channel(1);
        let mut writer =
            Writer { format: AccessFormat::Json, batch: Vec::new(), lines: 0, sender, second: 0, stamp: String::new() };
        writer.write(&line());
        assert_eq!(writer.flush(), 0);
        writer.write(&line());
        writer.write(&line());
        assert_eq!(writer.flush(), 2);
        drop(receiver);
    }
}
