//! What a request is told by, as a choice of endpoint needs it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::{Cluster, Endpoint, Token};
use crate::snapshot::CookieRule;

/// What a request is told by. Nothing, for most pools.
#[derive(Debug, Default)]
pub struct Affinity {
    /// Hash of what the pool tells requests by, if the request has it.
    pub key: Option<u64>,
    /// What its sticky cookie said, if it was ours and in time.
    pub token: Option<Token>,
    /// The endpoint of the cookie was full: its session is lent to another one for this request only.
    pub lent: Cell<bool>,
}

impl Cluster {
    /// The token that a text is, if this pool made it and it is still good.
    #[must_use]
    pub fn token(&self, text: &[u8], ttl: Option<Duration>) -> Option<Token> {
        let token = self.members().badges()?.seals.read(text)?;
        ttl.is_none_or(|ttl| token.is_good(ring::wall_clock(), ttl)).then_some(token)
    }

    /// Writes the `Set-Cookie` value that an answer from `endpoint` is to carry; false when the client's cookie still says
    /// what is true.
    pub fn write_cookie(
        &self,
        rule: &CookieRule,
        affinity: &Affinity,
        endpoint: &Rc<Endpoint>,
        out: &mut Vec<u8>,
    ) -> bool {
        let members = self.members();
        let (Some(badges), Some(place)) = (members.badges(), endpoint.place()) else { return false };
        let Some(id) = badges.id(place) else { return false };
        let is_said = affinity.token.is_some_and(|token| {
            let is_old = rule.ttl.is_some_and(|ttl| token.is_old(ring::wall_clock(), ttl));
            token.id == id && !is_old
        });
        if is_said || affinity.lent.get() {
            return false;
        }
        let issued = if rule.ttl.is_some() { ring::wall_clock() } else { Duration::ZERO };
        out.extend_from_slice(rule.name.as_bytes());
        out.push(b'=');
        badges.seals.signing().write(id, issued, out);
        out.extend_from_slice(rule.attributes.as_bytes());
        true
    }
}
