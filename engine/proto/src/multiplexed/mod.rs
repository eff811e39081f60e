//! What HTTP/2 and HTTP/3 share, because it is the same law in both: what heads mean and how they are written, how urgent a response is,
//! what tricks cost, and where streams are kept.

pub(crate) mod compose;
pub(crate) mod head;
pub mod ledger;
mod priority;
pub(crate) mod recall;
pub(crate) mod repeat;
pub(crate) mod slab;
mod space;

pub use priority::Priority;
pub use space::HeadSpace;
