//! What an answer's head says of a call of gRPC.

use proto::h1::ResponseHead;
use proto::http::{Framing, Status};

use super::Relay;
use crate::exchange::bridge::Web;
use crate::exchange::grpc;

impl Relay<'_, '_, '_> {
    /// How a call ended, where the head of its answer says so.
    pub(super) fn grpc_status(&self, head: &ResponseHead) -> Option<u8> {
        if !self.exchange.way.grpc || head.status != Status::OK {
            return None;
        }
        let fields = self.exchange.door.desk.response_fields.borrow();
        grpc::status_of_head(&fields, self.up.head(head.length as usize))
    }

    /// How an answer is to be said in gRPC-Web. One that is none of gRPC goes as it came.
    pub(super) fn bridged(&self, head: &ResponseHead) -> Option<Web> {
        let web = self.exchange.way.web?;
        let fields = self.exchange.door.desk.response_fields.borrow();
        let is_answer = head.framing != Framing::None && grpc::is_grpc(&fields, self.up.head(head.length as usize));
        is_answer.then_some(web)
    }
}
