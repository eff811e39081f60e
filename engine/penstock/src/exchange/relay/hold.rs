//! Answers that are not passed on at once.

use std::task::{Context, Poll};

use policy::{Class, Outcome, StatusClass};
use proto::h1::ResponseHead;

use super::{Relay, Relayed};
use crate::conn::Index;
use crate::exchange::half::Going;
use crate::exchange::headers;
use crate::exchange::held::Answer;

impl Relay<'_, '_, '_> {
    /// An answer that says "not now, not here" is not passed on while there may be a better one elsewhere.
    pub(super) fn hold(&mut self, head: &ResponseHead, status: u16, cx: &mut Context<'_>) -> Option<Outcome> {
        if !self.tries.retries_status(status) {
            return None;
        }
        let fields = self.exchange.door.desk.response_fields.borrow();
        let retry_after = headers::retry_after(&fields, self.up.head(head.length as usize));
        let class = Class::Answered(StatusClass::of(status));
        let outcome = Outcome { status, ..self.attempt.outcome(class) }.with_retry_after(retry_after);
        let elsewhere = self.tries.has_other_than(self.attempt);
        if !self.tries.grants(self.attempt, &outcome, elsewhere) {
            return None;
        }
        self.attempt.answer = Some(Box::new(Answer { head: *head, index: Index::of(&fields) }));
        drop(fields);
        self.tries.let_go(cx);
        Some(outcome)
    }

    /// An answer that was held back is the best there is.
    pub(super) fn pass_on(&mut self, answer: &Answer) -> Poll<Relayed> {
        self.upload.state = if self.down.is_body_read() { Going::Done } else { Going::Stopped };
        answer.index.copy_to(&mut self.exchange.door.desk.response_fields.borrow_mut());
        (self.grpc_status, self.meaning) = self.meaning(&answer.head);
        self.begin_response(&answer.head)
    }
}
