//! The decisions of the proxy, and nothing else: who may come in, who waits and who is next, which endpoint, whether to
//! trust it, whether to try again, and how fast bytes go.
//!
//! What holds here: every function is pure in time and chance ([`Now`] and [`Random`] are arguments), a decision
//! allocates nothing, and hours of traffic can be played through in milliseconds (`tests/` does).
//! What is deliberately absent: bytes, sockets, clocks, threads, atomics. A caller that shares state between cores
//! reads its cells, puts the numbers in through [`Endpoints`], and asks.

#![forbid(unsafe_code)]

pub mod admit;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod budget;
pub mod classes;
pub mod ewma;
pub mod hash;
pub mod health;
pub mod hedge;
pub mod latency;
pub mod limit;
pub mod outcome;
pub mod outlier;
pub mod patience;
pub mod queue;
pub mod random;
pub mod retry;
pub mod select;
pub mod shape;
pub mod spacing;
pub mod split;
pub mod time;
pub mod window;

pub use admit::{Begun, Concurrency, GradientSettings};
pub use backoff::{Backoff, Jitter};
pub use balance::{
    Ask, Avoid, BalanceSettings, Balancer, Endpoints, Hearsay, Load, Member, NoPick, Pick, Policy, SlowStart, Standing,
};
pub use breaker::{Breaker, BreakerSettings, BreakerState, BreakerVerdict, Need, RateTrip, SlowTrip, Trip};
pub use budget::{RetryBudget, RetryBudgetSettings};
pub use classes::{ClassSettings, Dropped, Next, Preference, Seat, WaitingRoom};
pub use ewma::PeakEwma;
pub use health::{Health, HealthCheck, HealthSettings, ProbeResult};
pub use hedge::{Hedge, HedgeAfter, HedgeSettings};
pub use latency::Latencies;
pub use limit::{Decision, Held, HeldTable, KeyTable, Lease, Rate, RateSettings, RateTable, Wait};
pub use outcome::{Class, Fault, Outcome, Replay, RetryOn, StatusClass, Verdict};
pub use outlier::{Change, Oddity, OutlierSettings, Outliers, Sums};
pub use patience::{EndpointPatience, Limit, Patience, PatienceSettings, Try};
pub use queue::{QueueSettings, Reason, Served, Waiting};
pub use random::Random;
pub use retry::{RetryCauses, RetryDecision, RetryPolicy, StatusSet, Stop, Tried};
pub use select::{Candidates, Score, Seen, SelectSettings, Selected, Selector};
pub use shape::{Flows, Grant, Pacer, Turn};
pub use spacing::{Reserved, Spacing};
pub use split::Split;
pub use time::Now;
pub use window::Window;
