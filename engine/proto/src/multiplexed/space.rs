//! Where heads and trailers are read to.

use crate::h1::Trailers;
use crate::http::Fields;

/// Where heads and trailers are read to: one a worker will do, for what is in it is taken before the next is read.
#[derive(Debug, Default)]
pub struct HeadSpace {
    /// The lines.
    pub text: Vec<u8>,
    /// Their index.
    pub fields: Fields,
    /// Crumbs, while they are joined.
    pub(super) cookie: Vec<u8>,
    /// What these trailers were made to when they were said before.
    trailers: Trailers,
}

impl HeadSpace {
    /// Holds these as if they had been read.
    pub(crate) fn set(&mut self, text: &[u8], fields: &Fields) {
        self.clear();
        self.text.extend_from_slice(text);
        self.fields.copy_from(fields);
    }

    /// The trailers that were read.
    pub fn trailers(&self) -> Trailers {
        if self.trailers.is_empty() { Trailers::of(&self.text, &self.fields) } else { self.trailers.clone() }
    }

    /// They are these.
    pub(crate) fn set_trailers(&mut self, trailers: Trailers) {
        self.trailers = trailers;
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
        self.cookie.clear();
        self.trailers.clear();
    }
}
