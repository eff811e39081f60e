//! The two sides of a connection, as type parameters of the machines that are the same on both.

use crate::h1::{RequestHead, ResponseHead};

/// A side's own half of a machine: [`Server`] reads requests, [`Client`] reads responses.
pub trait Role: sealed::Sealed + Sized {
    type Head: Copy + std::fmt::Debug;
}

/// We answer.
#[derive(Debug)]
pub enum Server {}

/// We ask.
#[derive(Debug)]
pub enum Client {}

impl Role for Server {
    type Head = RequestHead;
}

impl Role for Client {
    type Head = ResponseHead;
}

mod sealed {
    pub trait Sealed {
        /// Whether this side answers (and the other asks).
        const ANSWERS: bool;
    }

    impl Sealed for super::Server {
        const ANSWERS: bool = true;
    }

    impl Sealed for super::Client {
        const ANSWERS: bool = false;
    }
}
