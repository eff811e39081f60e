//! The message itself: a pile of vectors, each with its length in front (RFC 8446 §3.4).

use std::fmt;

use super::ClientHello;

const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
/// RFC 8446 §4.2.10.
const EARLY_DATA: u16 = 42;
const HOST_NAME: u8 = 0;
/// RFC 1035 §2.3.4.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

/// Names of protocols (RFC 7301 §3.1), each of which is known to be well-formed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Protocols<'a>(&'a [u8]);

impl<'a> Protocols<'a> {
    /// In their order.
    pub fn iter(self) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = Reader(self.0);
        std::iter::from_fn(move || rest.short())
    }

    /// Whether it is offered.
    #[must_use]
    pub fn contains(self, name: &[u8]) -> bool {
        self.iter().any(|offered| offered == name)
    }
}

impl fmt::Debug for Protocols<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

/// Reads a ClientHello's body; `None`: it is malformed.
pub(super) fn of_hello(body: &[u8]) -> Option<ClientHello<'_>> {
    let mut body = Reader(body);
    let [major, _] = *body.take(2)? else { return None };
    body.take(32)?;
    let session = body.short()?;
    let ciphers = body.long()?;
    let compressions = body.short()?;
    let whole = major == 3 && session.len() <= 32 && !ciphers.is_empty() && ciphers.len() % 2 == 0;
    if !whole || compressions.is_empty() {
        return None;
    }
    let mut hello = ClientHello { server_name: None, protocols: Protocols::default(), early_data: false };
    if body.0.is_empty() {
        // TLS 1.2 without any extension (RFC 5246 §7.4.1.2).
        return Some(hello);
    }
    let mut extensions = Reader(body.long()?);
    if !body.0.is_empty() {
        return None;
    }
    let (mut named, mut offered) = (false, false);
    while !extensions.0.is_empty() {
        let kind = extensions.number()?;
        let data = extensions.long()?;
        // No extension stands there twice (RFC 8446 §4.2): two readers could choose differently.
        match kind {
            SERVER_NAME if !std::mem::replace(&mut named, true) => hello.server_name = Some(name(data)?),
            ALPN if !std::mem::replace(&mut offered, true) => hello.protocols = protocols(data)?,
            SERVER_NAME | ALPN => return None,
            EARLY_DATA => hello.early_data = true,
            _ => {}
        }
    }
    Some(hello)
}

/// The one name of a ServerNameList (RFC 6066 §3). There is one kind of names, and no agreement upon how another one would look.
fn name(data: &[u8]) -> Option<&str> {
    let mut data = Reader(data);
    let mut list = Reader(data.long()?);
    let (kind, name) = (*list.take(1)?.first()?, list.long()?);
    let alone = kind == HOST_NAME && list.0.is_empty() && data.0.is_empty();
    std::str::from_utf8(name).ok().filter(|name| alone && is_name(name))
}

fn is_name(name: &str) -> bool {
    let fits = |label: &str| {
        let letters = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        letters && (1..=LABEL_BYTES_MAX).contains(&label.len())
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(fits)
}

/// A ProtocolNameList (RFC 7301 §3.1).
fn protocols(data: &[u8]) -> Option<Protocols<'_>> {
    let mut data = Reader(data);
    let list = data.long()?;
    let mut rest = Reader(list);
    while !rest.0.is_empty() {
        rest.short().filter(|name| !name.is_empty())?;
    }
    (data.0.is_empty() && !list.is_empty()).then_some(Protocols(list))
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        self.0.split_off(..count)
    }

    fn number(&mut self) -> Option<u16> {
        self.take(2).map(|two| u16::from_be_bytes([two[0], two[1]]))
    }

    /// A vector with a length of one byte.
    fn short(&mut self) -> Option<&'a [u8]> {
        let length = *self.take(1)?.first()?;
        self.take(length.into())
    }

    /// A vector with a length of two bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.take(length.into())
    }
}
