//! Bytes that go from one socket to another through a pipe: calls of the node's, that happen at once.

use std::io;

use super::Sim;
use super::kernel::Got;
use super::kernel::Kernel;
use super::net::SocketId;
use crate::driver::{Fd, Pipe};

impl Sim {
    pub(crate) fn fill(&self, pipe: &mut Pipe, from: Fd) -> io::Result<usize> {
        let kernel = &mut *self.shared.borrow_mut();
        let socket = kernel.alone(from, |kernel, socket| kernel.socket(socket).read_op)?;
        kernel.counts.calls += 1;
        if kernel.dice.chance(kernel.faults.splice_stuck) {
            return Err(io::Error::from_raw_os_error(libc::EAGAIN));
        }
        let most = kernel.shortened(socket, pipe.free());
        match kernel.take(socket, most) {
            Got::Bytes(bytes) => {
                pipe.put(&bytes);
                Ok(bytes.len())
            }
            Got::End => Ok(0),
            Got::Failed(error) => Err(io::Error::from_raw_os_error(error)),
            Got::Nothing => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        }
    }

    pub(crate) fn drain(&self, pipe: &mut Pipe, to: Fd) -> io::Result<usize> {
        let kernel = &mut *self.shared.borrow_mut();
        let socket = kernel.alone(to, |kernel, socket| kernel.socket(socket).write_op)?;
        kernel.counts.calls += 1;
        if kernel.dice.chance(kernel.faults.send_broken) {
            kernel.break_connection(socket);
        }
        let mut part = pipe.held();
        if kernel.dice.chance(kernel.faults.send_in_parts) {
            part = kernel.dice.within(1..=part);
        }
        match kernel.transmit(socket, &pipe.inside()[..part]) {
            Ok(0) => Err(io::Error::from_raw_os_error(libc::EAGAIN)),
            Ok(taken) => {
                pipe.gone(taken);
                Ok(taken)
            }
            Err(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }
}

impl Kernel {
    /// The socket of `fd`, on which nothing may be in flight where it is spliced: it would be overtaken.
    fn alone(
        &mut self,
        fd: Fd,
        in_flight: impl Fn(&Self, SocketId) -> Option<crate::driver::Token>,
    ) -> io::Result<SocketId> {
        let socket = self.lookup(fd).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
        if let Some(token) = in_flight(self, socket) {
            let request = self.ops.get(&token).map(|op| op.request);
            self.violation(format!("splice of {fd} with {request:?} in flight"));
        }
        Ok(socket)
    }
}
