//! A seeded simulated kernel (in progress: this first form has a clock and no network).

use std::io;

use super::{Completion, DriverCounts, Fd, Granted, Request, Token, Wait};
use crate::net::{Address, ListenOptions};

/// The node of a simulated world: what a reactor under test runs on.
#[derive(Clone, Debug, Default)]
pub struct Node {}

pub(crate) struct Sim {
    now: u64,
}

impl Sim {
    pub(crate) fn new(_node: Node) -> Self {
        Self { now: 0 }
    }

    pub(crate) fn submit(&mut self, _token: Token, _request: Request) {}

    pub(crate) fn turn(&mut self, wait: Wait, _sink: impl FnMut(Completion<'_>)) -> io::Result<()> {
        if let Wait::AtMost(time) = wait {
            self.now += time.as_nanos() as u64;
        }
        Ok(())
    }

    pub(crate) fn listen(&mut self, _address: &Address, _options: &ListenOptions) -> io::Result<Fd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn socket(&mut self, _address: &Address) -> io::Result<Fd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn peer(&self, _fd: Fd) -> io::Result<Address> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn local(&self, _fd: Fd) -> io::Result<Address> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn shutdown(&mut self, _fd: Fd, _both: bool) {}

    pub(crate) fn close(&mut self, _fd: Fd, _reset: bool) {}

    pub(crate) fn clock(&self) -> u64 {
        self.now
    }

    pub(crate) fn granted(&self) -> Granted {
        Granted { driver: "sim", ..Granted::default() }
    }

    pub(crate) fn counts(&self) -> DriverCounts {
        DriverCounts::default()
    }
}
