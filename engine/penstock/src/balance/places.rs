//! Who has which place among the endpoints of all VIPs. Pure.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Origin;

/// Places, each of which is somebody's or free.
#[derive(Debug)]
pub(super) struct Places {
    places: Vec<Slot>,
    most: usize,
}

#[derive(Debug)]
struct Slot {
    holder: Option<Holder>,
    generation: u16,
}

/// An endpoint of a VIP. One that has got another address is another one.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    vip: usize,
    name: Arc<str>,
    address: SocketAddr,
}

/// A place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) number: u16,
    /// How often it was given away, modulo what a word holds.
    pub(super) generation: u16,
}

impl Places {
    pub(super) const fn new(most: usize) -> Self {
        Self { places: Vec::new(), most }
    }

    /// The place that an endpoint has.
    #[must_use]
    pub(super) fn of(&self, vip: usize, origin: &Origin) -> Option<u16> {
        let holder = holder(vip, origin);
        self.places.iter().position(|slot| slot.holder.as_ref() == Some(&holder)).map(|at| at as u16)
    }

    /// The place of an endpoint, and whether it has just got it; `None` when there is none left.
    pub(super) fn take(&mut self, vip: usize, origin: &Origin) -> Option<(Place, bool)> {
        if let Some(number) = self.of(vip, origin) {
            let generation = self.places[usize::from(number)].generation;
            return Some((Place { number, generation }, false));
        }
        let at = match self.places.iter().position(|slot| slot.holder.is_none()) {
            Some(free) => free,
            None if self.places.len() < self.most => {
                self.places.push(Slot { holder: None, generation: 0 });
                self.places.len() - 1
            }
            None => return None,
        };
        let slot = &mut self.places[at];
        slot.holder = Some(holder(vip, origin));
        // Never 0: that is what programs read where nobody is.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        Some((Place { number: at as u16, generation: slot.generation }, true))
    }

    /// Frees the places of a VIP's endpoints that are none of these any more, and tells which those are.
    pub(super) fn leave(&mut self, vip: usize, stay: &[Origin]) -> Vec<Place> {
        let mut free = Vec::new();
        for (slot, number) in self.places.iter_mut().zip(0..) {
            let stays = |origin: &Origin| slot.holder.as_ref() == Some(&holder(vip, origin));
            if slot.holder.as_ref().is_some_and(|holder| holder.vip == vip) && !stay.iter().any(stays) {
                slot.holder = None;
                free.push(Place { number, generation: slot.generation });
            }
        }
        free
    }
}

fn holder(vip: usize, origin: &Origin) -> Holder {
    Holder { vip, name: Arc::clone(&origin.name), address: origin.address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(name: &str, address: &str) -> Origin {
        Origin { name: name.into(), address: address.parse().unwrap(), weight: 1, server: None, keeps: true }
    }

    #[test]
    fn a_place_that_is_given_on_has_another_generation() {
        let mut places = Places::new(2);
        let (a, b) = (origin("a", "10.0.0.1:80"), origin("b", "10.0.0.2:80"));
        let (first, is_new) = places.take(0, &a).unwrap();
        assert!(is_new);
        assert_eq!(places.take(0, &a), Some((first, false)));
        let (second, _) = places.take(0, &b).unwrap();
        assert_ne!(first.number, second.number);
        assert_eq!(places.take(1, &a), None, "there is no room");
        assert!(places.leave(1, &[]).is_empty(), "another VIP's stay");
        assert_eq!(places.leave(0, std::slice::from_ref(&b)), [first]);
        let (again, is_new) = places.take(1, &a).unwrap();
        assert!(is_new && again.number == first.number && again.generation != first.generation);
        assert_eq!(places.of(0, &b), Some(second.number));
    }

    #[test]
    fn generations_begin_anew_with_one() {
        let mut places = Places::new(1);
        let a = origin("a", "10.0.0.1:80");
        for count in 1..=70_000_u32 {
            let (place, _) = places.take(0, &a).unwrap();
            assert_eq!(u32::from(place.generation), (count - 1) % 65_535 + 1);
            places.leave(0, &[]);
        }
    }

    #[test]
    fn another_address_is_another_endpoint() {
        let mut places = Places::new(4);
        let (first, _) = places.take(0, &origin("a", "10.0.0.1:80")).unwrap();
        let moved = origin("a", "10.0.0.9:80");
        let (second, is_new) = places.take(0, &moved).unwrap();
        assert!(is_new && second.number != first.number);
        assert_eq!(places.leave(0, &[moved]), [first]);
    }
}
