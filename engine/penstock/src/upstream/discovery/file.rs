//! Endpoint files: one entry a line, `#` begins a comment.
//!
//! A file that cannot be read, is too long, has nothing in it, or has a line that is no entry, is refused as a whole: half a
//! list would take the other half out of service.

use std::fs::{File, metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::limits;
use crate::snapshot::{Endpoint, Source};

/// Tells one state of a file from the next, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let meta = metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// A text file of at most `most` bytes.
pub(super) fn read_bounded(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::other(format!("it is longer than {most} bytes")));
    }
    Ok(text)
}

/// The entries of an endpoint file.
///
/// # Errors
/// What is wrong with it, with the line.
pub(super) fn entries(path: &Path) -> Result<Vec<Endpoint>, String> {
    let text = read_bounded(path, limits::ENDPOINT_FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    parse(&text)
}

fn parse(text: &str) -> Result<Vec<Endpoint>, String> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let entry: Endpoint = line.parse().map_err(|wrong| format!("line {number}: `{line}` {wrong}"))?;
        if matches!(entry.source, Source::File(_)) {
            return Err(format!("line {number}: a file in a file"));
        }
        if entries.len() == limits::ENDPOINTS_MAX {
            return Err(format!("line {number}: more than {} endpoints", limits::ENDPOINTS_MAX));
        }
        entries.push(entry);
    }
    if entries.is_empty() { Err("there is no endpoint in it".into()) } else { Ok(entries) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_a_line_and_all_or_nothing() {
        let read = |text: &str| {
            parse(text).map(|entries| entries.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
        };
        assert_eq!(
            read("# ours\n\n10.0.0.1:80 weight=2 # big\n\tunix:/run/a\r\nsrv:_http._tcp.a tier=1").as_deref(),
            Ok("10.0.0.1:80 weight=2, unix:/run/a, srv:_http._tcp.a tier=1")
        );
        for (text, wanted) in [
            ("", "there is no endpoint in it"),
            ("# nobody\n", "there is no endpoint in it"),
            ("10.0.0.1:80\n10.0.0.2", "line 2: `10.0.0.2` has no port: write `10.0.0.2:80`"),
            ("file:/etc/other", "line 1: a file in a file"),
        ] {
            assert_eq!(read(text), Err(wanted.into()), "{text:?}");
        }
        let many = "10.0.0.1:80\n".repeat(limits::ENDPOINTS_MAX + 1);
        assert_eq!(read(&many), Err("line 1025: more than 1024 endpoints".into()));
    }
}
