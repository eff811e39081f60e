//! Answers, made before they are asked for.

use std::cell::RefCell;
use std::rc::Rc;

use ring::{Buf, Stream};

use crate::pattern::Pattern;

/// Answers of up to this many bytes are one buffer and one send.
const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// Larger ones go out in pieces of this many bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Sizes whose answers are kept. Whoever asks for more different ones pays for making them.
const KEPT_MAX: usize = 32;

/// What a site has to say, by size.
pub(crate) struct Answers {
    name: String,
    pattern: Pattern,
    kept: RefCell<Vec<Rc<Answer>>>,
    pub(crate) failure: Rc<Answer>,
}

/// One answer.
pub(crate) struct Answer {
    body_bytes: u64,
    close: bool,
    /// Head and body; of a large answer the head alone.
    whole: Vec<u8>,
    head_bytes: usize,
}

impl Answers {
    pub(crate) fn new(name: &str) -> Self {
        let pattern = Pattern::new();
        let body = b"failed on purpose\n";
        let mut whole = head("500 Internal Server Error", name, body.len() as u64, false);
        let head_bytes = whole.len();
        whole.extend_from_slice(body);
        let failure = Answer { body_bytes: body.len() as u64, close: false, whole, head_bytes };
        Self { name: name.to_owned(), pattern, kept: RefCell::default(), failure: Rc::new(failure) }
    }

    /// The answer of `body_bytes` bytes of body.
    pub(crate) fn of(&self, body_bytes: u64, close: bool) -> Rc<Answer> {
        let mut kept = self.kept.borrow_mut();
        if let Some(answer) = kept.iter().find(|kept| kept.body_bytes == body_bytes && kept.close == close) {
            return Rc::clone(answer);
        }
        let mut whole = head("200 OK", &self.name, body_bytes, close);
        let head_bytes = whole.len();
        if body_bytes <= WHOLE_BYTES_MAX {
            whole.resize(head_bytes + body_bytes as usize, 0);
            self.pattern.fill(0, &mut whole[head_bytes..]);
        }
        let answer = Rc::new(Answer { body_bytes, close, whole, head_bytes });
        if kept.len() < KEPT_MAX {
            kept.push(Rc::clone(&answer));
        }
        answer
    }

    /// Sends an answer; waits while the client does not read.
    pub(crate) async fn send(&self, answer: &Answer, head_only: bool, stream: &mut Stream) -> std::io::Result<()> {
        if head_only {
            stream.send(Buf::copy_of(&answer.whole[..answer.head_bytes]));
            return stream.sent(PIECE_BYTES).await;
        }
        if answer.body_bytes <= WHOLE_BYTES_MAX {
            stream.send(Buf::copy_of(&answer.whole));
            // Ready at once, unless a client pipelines and does not read.
            return stream.sent(PIECE_BYTES).await;
        }
        let mut sent = 0;
        while sent < answer.body_bytes {
            let mut piece = Buf::with_room(PIECE_BYTES);
            if sent == 0 {
                piece.extend(&answer.whole);
            }
            let count = (PIECE_BYTES - piece.len()).min((answer.body_bytes - sent) as usize);
            self.pattern.fill(sent, &mut piece.spare_mut()[..count]);
            piece.grow(count);
            sent += count as u64;
            stream.send(piece);
            // One piece in the kernel's hands while the next is filled.
            stream.sent(PIECE_BYTES).await?;
        }
        Ok(())
    }
}

fn head(status: &str, name: &str, body_bytes: u64, close: bool) -> Vec<u8> {
    let close = if close { "connection: close\r\n" } else { "" };
    format!(
        "HTTP/1.1 {status}\r\nserver: {name}\r\ncontent-type: text/plain\r\n{close}content-length: {body_bytes}\r\n\r\n"
    )
    .into_bytes()
}

/// The size that a path names: `/b/16384`, `/16384`, `/16k`, `/1m`.
pub(crate) fn size_of(path: &[u8]) -> Option<u64> {
    let path = path.strip_prefix(b"/")?;
    let path = path.strip_prefix(b"b/").unwrap_or(path);
    let (digits, unit) = match path {
        [digits @ .., b'k'] => (digits, 1 << 10),
        [digits @ .., b'm'] => (digits, 1 << 20),
        digits => (digits, 1),
    };
    std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_sizes() {
        let table: &[(&str, Option<u64>)] = &[
            ("/b/16384", Some(16_384)),
            ("/100", Some(100)),
            ("/16k", Some(16 << 10)),
            ("/1m", Some(1 << 20)),
            ("/b/0", Some(0)),
            ("/", None),
            ("/index.html", None),
            ("/k", None),
            ("", None),
        ];
        for (path, size) in table {
            assert_eq!(size_of(path.as_bytes()), *size, "{path}");
        }
    }
}
