//! The little of DER (X.690) that is needed to take a certificate apart and put it together again, byte for byte.
//!
//! What holds here: an element is a view of the input; lengths are definite, minimal and inside what there is. Nothing is copied
//! but in [`wrap`]. Values are not looked into: x509-parser does that.

/// SEQUENCE.
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;

/// `[number]`, constructed.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// One element.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// Tag and length included.
    pub(crate) whole: &'a [u8],
}

/// Elements that stand one behind the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next one, which must be there; `None` when it is not, or is no DER.
    pub(crate) fn any(&mut self) -> Option<Element<'a>> {
        let (&tag, rest) = self.0.split_first()?;
        // Tags of several bytes appear nowhere in certificates.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                let length = bytes.iter().fold(0, |length: usize, &byte| length << 8 | usize::from(byte));
                if bytes[0] == 0 || length < 0x80 {
                    return None;
                }
                (length, rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        let whole = &self.0[..self.0.len() - rest.len()];
        self.0 = rest;
        Some(Element { tag, content, whole })
    }

    /// The next one, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Option<Element<'a>> {
        self.any().filter(|element| element.tag == tag)
    }

    /// The next one if it has this tag; else nothing is taken.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        let mut ahead = *self;
        let element = ahead.expect(tag)?;
        *self = ahead;
        Some(element)
    }
}

/// The content of the only element that `bytes` are.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut elements = Elements::of(bytes);
    let element = elements.expect(tag)?;
    elements.is_empty().then_some(element.content)
}

/// An element of this tag around `content`.
pub(crate) fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut element = Vec::with_capacity(content.len() + 6);
    element.push(tag);
    let length = content.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|&&byte| byte == 0).count()..];
    match content.len() {
        0..0x80 => element.push(content.len() as u8),
        _ => {
            element.push(0x80 | significant.len() as u8);
            element.extend_from_slice(significant);
        }
    }
    element.extend_from_slice(content);
    element
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let content = vec![7; length];
            let element = wrap(SEQUENCE, &content);
            assert_eq!(only(&element, SEQUENCE), Some(&*content), "{length}");
            assert!(only(&element, OCTET_STRING).is_none());
            assert!(only(&element[..element.len() - 1], SEQUENCE).is_none(), "{length}: cut off");
            assert!(only(&[&*element, &[0]].concat(), SEQUENCE).is_none(), "{length}: more behind it");
        }
    }

    #[test]
    fn what_is_no_der_is_refused() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 1, 7],
            &[0x30, 0x82, 0, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x1f, 0x20, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert!(Elements::of(bytes).any().is_none(), "{bytes:x?}");
        }
    }

    #[test]
    fn an_optional_element_may_be_absent() {
        let mut elements = Elements::of(&[0x04, 1, 7, 0x30, 0]);
        assert!(elements.optional(SEQUENCE).is_none());
        assert_eq!(
            elements.expect(OCTET_STRING).map(|element| (element.content, element.whole)),
            Some((&[7][..], &[4, 1, 7][..]))
        );
        assert!(elements.optional(SEQUENCE).is_some() && elements.is_empty());
    }
}
