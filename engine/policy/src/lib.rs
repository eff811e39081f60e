//! The decisions of the proxy, and nothing else: which endpoint, whether to trust it, whether to try again.
//!
//! What holds here: every function is pure in time and chance ([`Now`] and [`Random`] are arguments), a decision
//! allocates nothing, and hours of traffic can be played through in milliseconds (`tests/` does).
//! What is deliberately absent: bytes, sockets, clocks, threads, atomics. A caller that shares state between cores
//! reads its cells, puts the numbers in through [`Endpoints`], and asks.

#![forbid(unsafe_code)]

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod ewma;
pub mod outcome;
pub mod random;
pub mod time;

pub use balance::{Ask, Avoid, Balancer, Endpoints, Load};
pub use breaker::{Breaker, BreakerSettings, BreakerState};
pub use budget::{RetryBudget, RetryBudgetSettings};
pub use ewma::PeakEwma;
pub use outcome::{Class, Fault, Outcome, Replay, RetryOn, StatusClass, Verdict};
pub use random::Random;
pub use time::Now;
