//! How much one client, or all of them together, may ask for.
//!
//! | what is limited | with | cost of a decision |
//! |---|---|---|
//! | a rate for each of many keys, one worker (or each key at its home worker: [`KeyTable::home`]) | [`RateTable`] | one set of 128 bytes read |
//! | a rate for each of many keys, cells shared by workers | [`KeyTable`] and [`Rate::step`] over the caller's atomics | one compare-exchange |
//! | one hot rate for all workers | [`Lease`] over one shared cell | one compare-exchange a batch |
//! | things held at the same time for each key | [`HeldTable`] | one set of 128 bytes read |
//!
//! What holds here: memory is what construction took. Whatever keys come, in whatever order, **no key is ever granted more than
//! its rate and burst**: a full table errs to the strict side, for the keys that share a set, and says how far in
//! [`KeyTable`].

mod gcra;
mod held;
mod lease;
mod rate;
mod table;

pub use gcra::{Decision, Rate, RateSettings, Wait};
pub use held::{Held, HeldTable};
pub use lease::Lease;
pub use rate::RateTable;
pub use table::{KeyTable, WAYS, Way};
