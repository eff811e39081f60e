//! gRPC-Web on one side and gRPC on the other: what becomes of content that passes between the two.
//!
//! Messages are the same in both, so in binary a request is not touched, and an answer only gains its trailers as a last message; text is decoded
//! where it lies, and encoded piece by piece. What holds here: a message that has passed in full is readable in full, whatever comes next;
//! trailers are never put into the midst of a message, where they would be read as part of it: such an answer is cut.

use std::cell::RefCell;

use proto::Malformed;
use proto::grpc::Boundaries;
use proto::grpc::web::{Coding, Decoder, Encoder, write_trailers};
use ring::Buf;

use super::half::{Cut, Piece};

/// How a call of gRPC-Web says its content, and wants to hear its answer's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Web {
    pub(super) asks: Coding,
    pub(super) hears: Coding,
}

/// What becomes of one direction's content.
pub(super) enum Bridge {
    /// A request in text.
    Decode(Decoder),
    Answer {
        seen: Boundaries,
        /// `None`: it stays binary.
        encoder: Option<Encoder>,
    },
}

thread_local! {
    /// Trailers as a message, for as long as it takes to copy them; they are bounded where they are read.
    static MESSAGE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes that are encoded at once: as text they fit in a buffer that every worker has anyway.
const ENCODED_AT_ONCE: usize = 48 << 10;

impl Bridge {
    /// For the content of a request, if anything becomes of it.
    pub(super) fn of_request(web: Web) -> Option<Box<Self>> {
        (web.asks == Coding::Text).then(|| Box::new(Self::Decode(Decoder::default())))
    }

    pub(super) fn of_answer(web: Web) -> Box<Self> {
        let encoder = (web.hears == Coding::Text).then(Encoder::default);
        Box::new(Self::Answer { seen: Boundaries::default(), encoder })
    }

    /// Passes to `put` what a piece becomes, in one piece or in several.
    ///
    /// # Errors
    /// Those of `put`; the text is none; or trailers in the midst of a message.
    pub(super) fn pass(&mut self, piece: Piece, mut put: impl FnMut(Piece) -> Result<(), Cut>) -> Result<(), Cut> {
        match self {
            Self::Decode(decoder) => put(decoded(decoder, piece)?),
            Self::Answer { seen, encoder } => answer(seen, encoder, piece, put),
        }
    }
}

fn decoded(decoder: &mut Decoder, mut piece: Piece) -> Result<Piece, Cut> {
    let wrong = |_| Cut::Source(Some(Malformed::WebText));
    if let Some(data) = &mut piece.data {
        let length = decoder.decode(data.bytes_mut()).map_err(wrong)?;
        data.truncate(length);
    }
    // A piece that has become nothing is none: in chunks it would be the end.
    piece.data = piece.data.filter(|data| !data.is_empty());
    if piece.last && !decoder.is_complete() { Err(Cut::Source(Some(Malformed::WebText))) } else { Ok(piece) }
}

fn answer(
    seen: &mut Boundaries,
    encoder: &mut Option<Encoder>,
    piece: Piece,
    mut put: impl FnMut(Piece) -> Result<(), Cut>,
) -> Result<(), Cut> {
    let Piece { data, last, trailers } = piece;
    let of = |data| Piece { data: Some(data), ..Piece::default() };
    if let Some(data) = data {
        seen.pass(data.bytes());
        match encoder {
            None => put(of(data))?,
            Some(encoder) => encode(encoder, data.bytes(), seen.is_between(), |text| put(of(text)))?,
        }
    }
    if !last {
        return Ok(());
    }
    if !seen.is_between() {
        return Err(Cut::Source(None));
    }
    if !trailers.is_empty() {
        let mut message = MESSAGE.take();
        message.clear();
        write_trailers(trailers.iter(), &mut message);
        let said = match encoder {
            None => put(of(Buf::copy_of(&message))),
            Some(encoder) => encode(encoder, &message, true, |text| put(of(text))),
        };
        MESSAGE.set(message);
        said?;
    }
    put(Piece { last, ..Piece::default() })
}

/// Passes `bytes` to `put` as text, padded where it ends if it is `whole`.
fn encode(
    encoder: &mut Encoder,
    bytes: &[u8],
    whole: bool,
    mut put: impl FnMut(Buf) -> Result<(), Cut>,
) -> Result<(), Cut> {
    let mut pieces = bytes.chunks(ENCODED_AT_ONCE).peekable();
    while let Some(piece) = pieces.next() {
        let mut text = Buf::with_room(Encoder::room(piece.len()));
        let length = encoder.encode(piece, whole && pieces.peek().is_none(), text.spare_mut());
        text.grow(length);
        // A byte or two wait for the third.
        if length > 0 {
            put(text)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::grpc::deadline_passed;
    use proto::h1::Trailers;

    fn passed(bridge: &mut Bridge, data: &[u8], last: Option<Trailers>) -> Result<(Vec<u8>, bool), bool> {
        let data = (!data.is_empty()).then(|| Buf::copy_of(data));
        let piece = Piece { data, last: last.is_some(), trailers: last.unwrap_or_default() };
        let (mut all, mut ended) = (Vec::new(), false);
        let put = |piece: Piece| {
            assert!(piece.trailers.is_empty() && !ended && piece.data.as_ref().is_none_or(|data| !data.is_empty()));
            all.extend(piece.data.iter().flat_map(|data| data.bytes()));
            ended = piece.last;
            Ok(())
        };
        match bridge.pass(piece, put) {
            Ok(()) => Ok((all, ended)),
            Err(Cut::Source(malformed)) => Err(malformed.is_some()),
            Err(Cut::Sink) => unreachable!("nobody has said so"),
        }
    }

    fn whole(text: &[u8]) -> (Vec<u8>, bool) {
        (text.to_vec(), false)
    }

    #[test]
    fn a_message_is_readable_when_it_is_whole() {
        let mut bridge = Bridge::of_answer(Web { asks: Coding::Text, hears: Coding::Text });
        assert_eq!(passed(&mut bridge, b"\0\0\0\0\x02a", None), Ok(whole(b"AAAAAAJh")));
        assert_eq!(passed(&mut bridge, b"b", None), Ok(whole(b"Yg==")));
        assert_eq!(passed(&mut bridge, b"\0\0", None), Ok(whole(b"")), "half a prefix waits");
        assert_eq!(passed(&mut bridge, b"\0\0\0", None), Ok(whole(b"AAAAAAA=")), "an empty message");
        let text = b"gAAAABBncnBjLXN0YXR1czogNA0K".to_vec();
        let trailers = passed(&mut bridge, b"", Some(deadline_passed()));
        assert_eq!(trailers.map(|(said, last)| (said.len(), last)), Ok((text.len(), true)));
    }

    #[test]
    fn in_binary_only_trailers_are_added() {
        let mut bridge = Bridge::of_answer(Web { asks: Coding::Binary, hears: Coding::Binary });
        assert_eq!(passed(&mut bridge, b"\0\0\0\0\x01", None), Ok(whole(b"\0\0\0\0\x01")));
        let end = passed(&mut bridge, b"x", Some(deadline_passed()));
        assert_eq!(end, Ok((b"x\x80\0\0\0\x10grpc-status: 4\r\n".to_vec(), true)));
    }

    #[test]
    fn nothing_is_said_in_the_midst_of_a_message() {
        for hears in [Coding::Binary, Coding::Text] {
            let mut bridge = Bridge::of_answer(Web { asks: hears, hears });
            passed(&mut bridge, b"\0\0\0\0\x02a", None).expect("a beginning");
            assert_eq!(passed(&mut bridge, b"", Some(deadline_passed())), Err(false));
        }
    }

    #[test]
    fn long_pieces_are_text_in_several() {
        let mut bridge = Bridge::of_answer(Web { asks: Coding::Text, hears: Coding::Text });
        let mut message = proto::grpc::prefix(0, 200_000).to_vec();
        message.resize(200_005, 7);
        let (text, _) = passed(&mut bridge, &message, None).expect("text");
        let mut back = text.clone();
        let length = Decoder::default().decode(&mut back).expect("base64");
        assert!(back[..length] == message && text.len() == 200_005_usize.div_ceil(3) * 4);
    }

    #[test]
    fn text_of_requests_is_decoded_and_must_be_some() {
        let web = Web { asks: Coding::Text, hears: Coding::Text };
        let mut bridge = Bridge::of_request(web).expect("text");
        assert_eq!(passed(&mut bridge, b"A", None), Ok(whole(b"")));
        assert_eq!(passed(&mut bridge, b"AAAAAJ", None), Ok(whole(b"\0\0\0\0\x02")));
        assert_eq!(passed(&mut bridge, b"h", Some(Trailers::default())), Ok((b"a".to_vec(), true)));
        for (text, last) in [(&b"A?"[..], None), (b"AAA", Some(Trailers::default()))] {
            let mut bridge = Bridge::of_request(web).expect("text");
            assert_eq!(passed(&mut bridge, text, last), Err(true));
        }
        assert!(Bridge::of_request(Web { asks: Coding::Binary, hears: Coding::Text }).is_none());
    }
}
