//! What the connections of a worker lend each other: room to read a head in, indexes of fields, mailboxes.
//!
//! All of it is for a moment or for a stream's life, and none of it says anything of whoever had it before; so that an idle connection
//! keeps none, and a busy one allocates none.

use std::cell::RefCell;
use std::time::Duration;

use proto::h1::{RequestHead, ResponseHead, Trailers};
use proto::h2::{Client, Connection, Fault, HeadSpace, Role, Server, Step};
use proto::h3;
use proto::http::Fields;
use proto::{Event, Malformed};
use ring::Buf;

use super::mail::Mail;
use crate::limits;

pub(super) struct Shelf<H> {
    /// Away while a connection reads, or before the first does.
    space: Option<Box<HeadSpace>>,
    #[allow(clippy::vec_box, reason = "they pass between here and the connections as they are")]
    mails: Vec<Box<Mail<H>>>,
}

impl<H> Default for Shelf<H> {
    fn default() -> Self {
        Self { space: None, mails: Vec::new() }
    }
}

impl<H> Shelf<H> {
    pub(super) fn space(&mut self) -> &mut HeadSpace {
        self.space.get_or_insert_default()
    }

    pub(super) fn take_space(&mut self) -> Box<HeadSpace> {
        self.space.take().unwrap_or_default()
    }

    pub(super) fn give_space(&mut self, space: Box<HeadSpace>) {
        self.space = Some(space);
    }

    pub(super) fn take_mail(&mut self) -> Box<Mail<H>> {
        self.mails.pop().unwrap_or_default()
    }

    pub(super) fn give_mail(&mut self, mut mail: Box<Mail<H>>) {
        if self.mails.len() < limits::HTTP2_SHELF_MAX {
            mail.clear();
            self.mails.push(mail);
        }
    }
}

/// The two roles' `read`, under one name, and the shelf of each.
pub trait Speaks: Role + 'static {
    /// Its message is not over before the peer's is.
    const HEARS_OUT: bool;
    #[doc(hidden)]
    fn read(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<Self::Head>, Fault>;
    #[doc(hidden)]
    fn read_h3(
        machine: &mut h3::Connection<Self>,
        now: Duration,
        stream: h3::StreamId,
        bytes: &[u8],
        ended: bool,
        space: &mut HeadSpace,
        out: &mut h3::Out,
    ) -> Result<h3::Step<Self::Head>, h3::Fault>;
    #[doc(hidden)]
    #[allow(private_interfaces, private_bounds, reason = "what is on the shelf is for this room alone")]
    fn with_shelf<T>(act: impl FnOnce(&mut Shelf<Self::Head>) -> T) -> T;
}

thread_local! {
    static OF_SERVERS: RefCell<Shelf<RequestHead>> = RefCell::default();
    static OF_CLIENTS: RefCell<Shelf<ResponseHead>> = RefCell::default();
    #[allow(clippy::vec_box, reason = "they pass between here and requests as they are")]
    static INDEXES: RefCell<Vec<Box<Fields>>> = const { RefCell::new(Vec::new()) };
}

impl Speaks for Server {
    const HEARS_OUT: bool = false;

    fn read(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<RequestHead>, Fault> {
        machine.read(now, bytes, space, out)
    }

    fn read_h3(
        machine: &mut h3::Connection<Self>,
        now: Duration,
        stream: h3::StreamId,
        bytes: &[u8],
        ended: bool,
        space: &mut HeadSpace,
        out: &mut h3::Out,
    ) -> Result<h3::Step<RequestHead>, h3::Fault> {
        machine.read(now, stream, bytes, ended, space, out)
    }

    #[allow(private_interfaces, private_bounds, reason = "as declared")]
    fn with_shelf<T>(act: impl FnOnce(&mut Shelf<RequestHead>) -> T) -> T {
        OF_SERVERS.with_borrow_mut(act)
    }
}

impl Speaks for Client {
    const HEARS_OUT: bool = true;

    fn read(
        machine: &mut Connection<Self>,
        now: Duration,
        bytes: &[u8],
        space: &mut HeadSpace,
        out: &mut Vec<u8>,
    ) -> Result<Step<ResponseHead>, Fault> {
        machine.read(now, bytes, space, out)
    }

    fn read_h3(
        machine: &mut h3::Connection<Self>,
        now: Duration,
        stream: h3::StreamId,
        bytes: &[u8],
        ended: bool,
        space: &mut HeadSpace,
        out: &mut h3::Out,
    ) -> Result<h3::Step<ResponseHead>, h3::Fault> {
        machine.read(now, stream, bytes, ended, space, out)
    }

    #[allow(private_interfaces, private_bounds, reason = "as declared")]
    fn with_shelf<T>(act: impl FnOnce(&mut Shelf<ResponseHead>) -> T) -> T {
        OF_CLIENTS.with_borrow_mut(act)
    }
}

/// An index of fields that goes back to the shelf. It is far away from who holds it, who holds a lot already.
#[derive(Debug)]
pub struct Index(Option<Box<Fields>>);

impl Index {
    pub fn of(fields: &Fields) -> Self {
        let mut own = INDEXES.with_borrow_mut(Vec::pop).unwrap_or_default();
        own.copy_from(fields);
        Self(Some(own))
    }

    /// Copies it to `fields`.
    pub fn copy_to(&self, fields: &mut Fields) {
        if let Some(own) = &self.0 {
            fields.copy_from(own);
        }
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let own = self.0.take();
        // At the end of a thread there is no shelf any more.
        let _ = INDEXES.try_with(|indexes| {
            let mut indexes = indexes.borrow_mut();
            if indexes.len() < limits::HTTP2_SHELF_MAX {
                indexes.extend(own);
            }
        });
    }
}

/// What of a step has to be taken before the next one: a head and trailers are in the shelf's room until then.
pub(super) enum Kept {
    Nothing,
    Head(Buf, Index),
    Trailers(Trailers),
}

impl Kept {
    pub(super) fn of<H>(event: &Event<H>, space: &HeadSpace) -> Self {
        match event {
            Event::Head(_) => Self::Head(Buf::copy_of(&space.text), Index::of(&space.fields)),
            Event::End { trailers: true, .. } => Self::Trailers(space.trailers()),
            _ => Self::Nothing,
        }
    }
}

/// What ended a stream, as those see it who read it: bytes that break the protocol, or else an end that the peer wanted.
pub(super) const fn is_malformed(why: Malformed) -> bool {
    !matches!(why, Malformed::Cancelled(_) | Malformed::Stalled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst of streams leaves no more behind than a busy worker has use for.
    #[test]
    fn the_shelf_keeps_so_many() {
        let mut shelf = Shelf::<RequestHead>::default();
        let burst: Vec<_> = (0..limits::HTTP2_SHELF_MAX + 100).map(|_| shelf.take_mail()).collect();
        burst.into_iter().for_each(|mail| shelf.give_mail(mail));
        assert_eq!(shelf.mails.len(), limits::HTTP2_SHELF_MAX);
        let fields = Fields::default();
        drop((0..limits::HTTP2_SHELF_MAX + 100).map(|_| Index::of(&fields)).collect::<Vec<_>>());
        assert_eq!(INDEXES.with_borrow(Vec::len), limits::HTTP2_SHELF_MAX);
        drop(Index::of(&fields));
        assert_eq!(INDEXES.with_borrow(Vec::len), limits::HTTP2_SHELF_MAX, "what is taken comes back");
    }
}
