//! A pool's endpoints as a balancer sees them.

use std::rc::Rc;

use policy::{Endpoints, Load, Now, SlowStart, Standing};

use super::endpoint::Endpoint;
use super::list::PoolLoad;

/// What a choice is made from, for one request.
pub(super) struct View<'a> {
    pub(super) endpoints: &'a [Rc<Endpoint>],
    pub(super) pool: &'a PoolLoad,
    pub(super) slow_start: &'a SlowStart,
    pub(super) repeatable: bool,
    pub(super) now: Now,
}

impl Endpoints for View<'_> {
    fn len(&self) -> usize {
        self.endpoints.len()
    }

    fn standing(&self, index: usize) -> Standing {
        self.endpoints[index].standing(self.now, self.repeatable)
    }

    fn load(&self, index: usize) -> Load {
        self.endpoints[index].load(self.now)
    }

    fn ramp(&self, index: usize) -> f32 {
        if self.slow_start.window.is_zero() {
            return 1.0;
        }
        self.slow_start.factor(self.endpoints[index].ready_since(), self.now)
    }

    fn in_flight(&self) -> u64 {
        self.pool.sum()
    }
}
