//! Responses, read and judged.

use proto::Malformed;
use proto::h1::{self, Decoder, HeadLimits, Trailers};
use proto::http::{Fields, Framing, Method};

use crate::pattern::Pattern;

/// What a head said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) status: u16,
    pub(crate) persistent: bool,
    pub(crate) framing: Framing,
}

/// Reads the responses of one connection after another.
pub(crate) struct Reader {
    method: Method,
    /// The last head, byte for byte: the next one is most often the same.
    head: Vec<u8>,
    shape: Option<Shape>,
    fields: Fields,
    state: State,
}

enum State {
    Head,
    Body { decoder: Decoder, at: u64, intact: bool },
}

/// What a whole response was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) shape: Shape,
    pub(crate) body_bytes: u64,
    /// False when a body was compared and differed.
    pub(crate) intact: bool,
}

/// What is to be done with the bytes given.
pub(crate) enum Step {
    /// So many are read; the response goes on.
    More(usize),
    /// So many are read; it is whole.
    Whole(usize, Answer),
}

impl Reader {
    pub(crate) fn new(method: Method) -> Self {
        Self { method, head: Vec::new(), shape: None, fields: Fields::default(), state: State::Head }
    }

    /// A response is expected.
    pub(crate) fn restart(&mut self) {
        self.state = State::Head;
    }

    /// Reads what has arrived. Bytes not read must be given again with those that follow them.
    pub(crate) fn read(&mut self, bytes: &mut [u8], verify: Option<&Pattern>) -> Result<Step, Malformed> {
        let mut start = 0;
        loop {
            match &mut self.state {
                State::Head => {
                    let Some((shape, length)) = self.shape_of(&bytes[start..])? else {
                        return Ok(Step::More(start));
                    };
                    start += length;
                    // An interim response announces another one.
                    if shape.status >= 200 || shape.status == 101 {
                        self.state = State::Body { decoder: Decoder::new(shape.framing), at: 0, intact: true };
                    }
                }
                State::Body { decoder, at, intact } => {
                    let body = &mut bytes[start..];
                    let decoded = decoder.decode(body, &mut Trailers::default())?;
                    if let Some(pattern) = verify {
                        *intact &= pattern.matches(*at, &body[..decoded.payload]);
                    }
                    *at += decoded.payload as u64;
                    let read = start + decoded.consumed;
                    if !decoded.ended {
                        return Ok(Step::More(read));
                    }
                    return Ok(Step::Whole(read, self.answer()));
                }
            }
        }
    }

    /// The connection has ended: whether that makes the response whole.
    pub(crate) fn end(&mut self) -> Result<Answer, Malformed> {
        match &mut self.state {
            State::Head => Err(Malformed::Truncated),
            State::Body { decoder, .. } => {
                decoder.finish()?;
                Ok(self.answer())
            }
        }
    }

    /// Where the response's body is known to be larger than this, it is worth receiving in bulk.
    pub(crate) fn is_larger_than(&self, bytes: u64) -> bool {
        matches!(self.shape, Some(Shape { framing: Framing::Length(length), .. }) if length > bytes)
    }

    fn answer(&self) -> Answer {
        let (State::Body { at, intact, .. }, Some(shape)) = (&self.state, self.shape) else {
            unreachable!("a body is read after its head")
        };
        Answer { shape, body_bytes: *at, intact: *intact }
    }

    fn shape_of(&mut self, bytes: &[u8]) -> Result<Option<(Shape, usize)>, Malformed> {
        if let Some(shape) = self.shape
            && bytes.starts_with(&self.head)
        {
            return Ok(Some((shape, self.head.len())));
        }
        let parsed = h1::parse_response(bytes, &HeadLimits::DEFAULT, self.method, &mut self.fields)?;
        Ok(parsed.map(|head| {
            let shape = Shape { status: head.status.code(), persistent: head.persistent, framing: head.framing };
            self.shape = Some(shape);
            self.head.clear();
            self.head.extend_from_slice(&bytes[..head.length as usize]);
            (shape, head.length as usize)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, method: Method) -> Result<(Answer, usize), Malformed> {
        let mut reader = Reader::new(method);
        match reader.read(&mut text.as_bytes().to_vec(), None)? {
            Step::Whole(read, answer) => Ok((answer, read)),
            Step::More(read) => reader.end().map(|answer| (answer, read)),
        }
    }

    #[test]
    fn every_framing_ends_where_it_should() {
        let table: &[(&str, u64)] = &[
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 5),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 5),
            ("HTTP/1.0 200 OK\r\n\r\nhello to the end", 16),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 2),
            ("HTTP/1.1 204 No Content\r\n\r\n", 0),
        ];
        for (text, bytes) in table {
            let (answer, read) = whole(text, Method::Get).unwrap();
            assert_eq!((answer.body_bytes, read), (*bytes, text.len()), "{text:?}");
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(whole(head, Method::Head).unwrap().0.body_bytes, 0);
    }

    #[test]
    fn what_is_cut_off_is_malformed() {
        for text in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"] {
            assert!(whole(text, Method::Get).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_answer_cut_anywhere_is_one_answer_also_when_its_head_is_known() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        let mut reader = Reader::new(Method::Get);
        for cut in 0..text.len() {
            reader.restart();
            let Ok(Step::More(read)) = reader.read(&mut text[..cut].to_vec(), None) else { panic!("{cut}") };
            let step = reader.read(&mut text[read..].to_vec(), None);
            let Ok(Step::Whole(rest, answer)) = step else { panic!("{cut}") };
            assert_eq!((read + rest, answer.body_bytes), (text.len(), 5), "{cut}");
        }
    }

    #[test]
    fn a_body_is_compared_at_its_offset() {
        let pattern = Pattern::new();
        let mut text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n".to_vec();
        text.extend_from_slice(&pattern.at(0)[..100]);
        text.extend_from_slice(b"\r\n64\r\n");
        let mut wrong = text.clone();
        text.extend_from_slice(&pattern.at(100)[..100]);
        wrong.extend_from_slice(&pattern.at(0)[..100]);
        for (mut text, expected) in [(text, true), (wrong, false)] {
            text.extend_from_slice(b"\r\n0\r\n\r\n");
            let step = Reader::new(Method::Get).read(&mut text, Some(&pattern));
            let Ok(Step::Whole(_, answer)) = step else { panic!() };
            assert_eq!((answer.intact, answer.body_bytes), (expected, 200));
        }
    }
}
