//! What an answer's head says of a call of gRPC.

use proto::h1::ResponseHead;
use proto::http::{Framing, Status};

use super::Relay;
use crate::exchange::bridge::Web;
use crate::exchange::grpc;

impl Relay<'_, '_, '_> {
    /// How a call ended, where the head of its answer says so.
    fn grpc_status(&self, head: &ResponseHead) -> Option<u8> {
        if !self.exchange.way.grpc || head.status != Status::OK {
            return None;
        }
        let fields = self.exchange.door.desk.response_fields.borrow();
        grpc::status_of_head(&fields, self.up.head(head.length as usize))
    }

    /// The same, and the status that an answer's head stands for: HTTP's, or what a call's own means.
    pub(super) fn meaning(&self, head: &ResponseHead) -> (Option<u8>, u16) {
        let ended = self.grpc_status(head);
        (ended, ended.map_or(head.status.code(), grpc::http_of))
    }

    /// How an answer is to be said in gRPC-Web. One that is none of gRPC goes as it came.
    pub(super) fn bridged(&self, head: &ResponseHead) -> Option<Web> {
        let web = self.exchange.way.web?;
        let fields = self.exchange.door.desk.response_fields.borrow();
        let is_answer = head.framing != Framing::None && grpc::is_grpc(&fields, self.up.head(head.length as usize));
        is_answer.then_some(web)
    }
}
