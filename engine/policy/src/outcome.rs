//! What became of one try, and what follows from it.
//!
//! An outcome says what happened; whose fault it was, whether the breaker counts it, and whether another try is allowed
//! are derived here, once, so that no caller decides them a second time and differently.

use std::time::Duration;

/// How one try at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// From choosing the endpoint to the head of its answer, or to the failure.
    pub latency: Duration,
    pub class: Class,
    /// The status code of the answer; zero when there was none.
    pub status: u16,
    /// How long the answer asked us to stay away (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A final response head came.
    Answered(StatusClass),
    /// The connection was refused, or there was no way to the address.
    Refused,
    /// The connection was not there in time.
    ConnectTimedOut,
    /// Connected, and TLS was not agreed upon: a certificate, a version, a name.
    Untrusted,
    /// The endpoint's name has no address.
    Unresolved,
    /// The connection ended before a response head.
    Reset,
    /// Connected, and no response head in time.
    TimedOut,
    /// The answer breaks its protocol.
    Malformed,
    /// The answer began, and ended or stalled before it was whole.
    Truncated,
    /// The client went away, or broke its own protocol, before the end.
    Abandoned,
    /// Another copy of the request was answered first ([`Hedge`](crate::Hedge)): this one would have taken at least so long.
    Overtaken,
    /// We gave up for a reason of ours: a bound reached, a drain.
    Shed,
}

/// What the status code says about the endpoint's fitness, which is not quite its first digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusClass {
    Informational,
    Success,
    Redirect,
    ClientError,
    /// 5xx other than those below: the application answered, with a mistake of its own.
    ServerError,
    /// 502, 503, 504: something behind the endpoint, or the endpoint itself, cannot serve now.
    Unavailable,
}

impl StatusClass {
    /// The class of a status code; what lies outside 100–599 counts as a server's error.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirect,
            400..=499 => Self::ClientError,
            502..=504 => Self::Unavailable,
            _ => Self::ServerError,
        }
    }
}

/// Who has to change something so that it does not happen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The client.
    Peer,
    /// The endpoint, or the path to it.
    Upstream,
    /// This process.
    Us,
    /// Whoever wrote the configuration.
    Operator,
}

/// What a breaker learns from an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Success,
    Failure,
    /// Says nothing about the endpoint: a client that left, a bound of ours.
    Neutral,
}

/// The cause a retry policy names (`retry.on`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryOn {
    /// No connection came about: the request cannot have been seen.
    Connect,
    /// The connection ended before a response head: the request may have been seen.
    Reset,
    /// Not a byte of a response came while the try had time: the request may still be at work there.
    TimedOut,
    /// The answer's status code is one of a list: the request was seen, and refused.
    Status,
}

/// How far the request had gone, and whether it may go twice (RFC 9110 §9.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replay {
    /// Nothing of it reached an endpoint: always safe to send again.
    Unsent,
    /// It may have been received; its method is idempotent and its body can be sent again.
    Idempotent,
    /// It may have been received; its body can be sent again, but its method is not idempotent. Only an operator who knows
    /// the application can say that twice is as good as once.
    NotIdempotent,
    /// It may have been received, and must not be repeated.
    Never,
}

impl Outcome {
    #[must_use]
    pub const fn new(latency: Duration, class: Class) -> Self {
        Self { latency, class, status: 0, retry_after: None }
    }

    #[must_use]
    pub const fn answered(latency: Duration, status: u16) -> Self {
        Self { status, ..Self::new(latency, Class::Answered(StatusClass::of(status))) }
    }

    #[must_use]
    pub const fn with_retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// Whose fault it was; `None` when nothing went wrong.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        match self.class {
            Class::Answered(StatusClass::ServerError | StatusClass::Unavailable) => Some(Fault::Upstream),
            Class::Answered(StatusClass::ClientError) | Class::Abandoned => Some(Fault::Peer),
            Class::Answered(_) | Class::Overtaken => None,
            Class::Refused
            | Class::ConnectTimedOut
            | Class::Untrusted
            | Class::Reset
            | Class::TimedOut
            | Class::Malformed
            | Class::Truncated => Some(Fault::Upstream),
            Class::Unresolved => Some(Fault::Operator),
            Class::Shed => Some(Fault::Us),
        }
    }

    /// 502, 503, 504 and every failure to answer count against the endpoint. A plain 500 does not: the endpoint is
    /// alive, and a client that finds one failing address of the application must not be able to take it away from
    /// everybody else (Envoy keeps the two apart as `consecutive_gateway_failure` and `consecutive_5xx`).
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        match self.class {
            Class::Answered(StatusClass::Unavailable) => Verdict::Failure,
            Class::Answered(_) => Verdict::Success,
            Class::Abandoned | Class::Overtaken | Class::Shed => Verdict::Neutral,
            _ => Verdict::Failure,
        }
    }

    /// [`verdict`](Self::verdict) for an operator whose application answers 500 only when it is unwell: any server error
    /// then counts when `count_500` is set.
    #[must_use]
    pub const fn verdict_with(&self, count_500: bool) -> Verdict {
        match self.class {
            Class::Answered(StatusClass::ServerError) if count_500 => Verdict::Failure,
            _ => self.verdict(),
        }
    }

    #[must_use]
    pub const fn counts_for_breaker(&self) -> bool {
        matches!(self.verdict(), Verdict::Failure)
    }

    /// The retry cause this outcome falls under, if it falls under one.
    #[must_use]
    pub const fn retry_on(&self) -> Option<RetryOn> {
        match self.class {
            Class::Refused | Class::ConnectTimedOut | Class::Untrusted | Class::Unresolved => Some(RetryOn::Connect),
            Class::Reset => Some(RetryOn::Reset),
            Class::TimedOut => Some(RetryOn::TimedOut),
            Class::Answered(StatusClass::ClientError | StatusClass::ServerError | StatusClass::Unavailable) => {
                Some(RetryOn::Status)
            }
            _ => None,
        }
    }

    /// Whether the try that ended so is none of those that a request has ([`RetryPolicy::tries`](crate::RetryPolicy)): it reached nobody, or its endpoint
    /// was known to be doubtful, or asked to find out about it. A request that breaks whoever receives it so meets no more endpoints for that.
    #[must_use]
    pub const fn is_excused(&self, on_trial: bool, doubtful: bool) -> bool {
        match self.retry_on() {
            Some(RetryOn::Connect) => true,
            Some(RetryOn::Status) => on_trial || doubtful,
            Some(RetryOn::Reset | RetryOn::TimedOut) => on_trial,
            None => false,
        }
    }

    /// Whether no endpoint had to do anything for the try: the next one is the first that somebody bears. A TLS handshake that fails has cost both ends.
    #[must_use]
    pub const fn cost_nobody(&self) -> bool {
        matches!(self.class, Class::Refused | Class::ConnectTimedOut | Class::Unresolved)
    }

    /// Whether another try is safe for this request. The policy's own list (`retry.on`), the number of tries and the
    /// budget are asked beside this ([`RetryPolicy::decide`](crate::RetryPolicy::decide)).
    #[must_use]
    pub const fn retryable(&self, replay: Replay) -> bool {
        match (self.retry_on(), replay) {
            (Some(RetryOn::Connect), _) => true,
            (Some(_), Replay::Unsent | Replay::Idempotent) => true,
            (Some(_), Replay::NotIdempotent | Replay::Never) | (None, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_each_class() {
        use Fault::{Operator, Peer, Upstream, Us};
        use Verdict::{Failure, Neutral, Success};
        // class, fault, verdict, retryable when (unsent, idempotent, never)
        let table = [
            (Class::Answered(StatusClass::of(200)), None, Success, [false; 3]),
            (Class::Answered(StatusClass::of(301)), None, Success, [false; 3]),
            (Class::Answered(StatusClass::of(404)), Some(Peer), Success, [true, true, false]),
            (Class::Answered(StatusClass::of(500)), Some(Upstream), Success, [true, true, false]),
            (Class::Answered(StatusClass::of(503)), Some(Upstream), Failure, [true, true, false]),
            (Class::Answered(StatusClass::of(999)), Some(Upstream), Success, [true, true, false]),
            (Class::Refused, Some(Upstream), Failure, [true; 3]),
            (Class::ConnectTimedOut, Some(Upstream), Failure, [true; 3]),
            (Class::Untrusted, Some(Upstream), Failure, [true; 3]),
            (Class::Unresolved, Some(Operator), Failure, [true; 3]),
            (Class::Reset, Some(Upstream), Failure, [true, true, false]),
            (Class::TimedOut, Some(Upstream), Failure, [true, true, false]),
            (Class::Malformed, Some(Upstream), Failure, [false; 3]),
            (Class::Truncated, Some(Upstream), Failure, [false; 3]),
            (Class::Abandoned, Some(Peer), Neutral, [false; 3]),
            (Class::Shed, Some(Us), Neutral, [false; 3]),
        ];
        for (class, fault, verdict, retryable) in table {
            let outcome = Outcome::new(Duration::ZERO, class);
            assert_eq!(outcome.fault(), fault, "{class:?}");
            assert_eq!(outcome.verdict(), verdict, "{class:?}");
            let found = [Replay::Unsent, Replay::Idempotent, Replay::Never].map(|replay| outcome.retryable(replay));
            assert_eq!(found, retryable, "{class:?}");
            assert_eq!(outcome.retryable(Replay::NotIdempotent), retryable[2], "{class:?}");
        }
    }

    #[test]
    fn a_try_counts_unless_it_reached_nobody_or_its_endpoint_was_doubted() {
        // Excused: at one that nobody doubts, on trial, doubtful.
        for (class, wanted) in [
            (Class::Refused, [true, true, true]),
            (Class::ConnectTimedOut, [true, true, true]),
            (Class::Reset, [false, true, false]),
            (Class::TimedOut, [false, true, false]),
            (Class::Answered(StatusClass::of(503)), [false, true, true]),
            (Class::Malformed, [false; 3]),
            (Class::Shed, [false; 3]),
        ] {
            let outcome = Outcome::new(Duration::ZERO, class);
            let found =
                [(false, false), (true, false), (false, true)].map(|(trial, doubt)| outcome.is_excused(trial, doubt));
            assert_eq!(found, wanted, "{class:?}");
        }
    }

    #[test]
    fn a_500_counts_only_when_the_operator_says_so() {
        for (status, plain, counted) in [
            (200, Verdict::Success, Verdict::Success),
            (404, Verdict::Success, Verdict::Success),
            (500, Verdict::Success, Verdict::Failure),
            (501, Verdict::Success, Verdict::Failure),
            (503, Verdict::Failure, Verdict::Failure),
        ] {
            let outcome = Outcome::answered(Duration::ZERO, status);
            assert_eq!((outcome.verdict_with(false), outcome.verdict_with(true)), (plain, counted), "{status}");
        }
    }
}
