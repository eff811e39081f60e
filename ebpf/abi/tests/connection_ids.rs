//! Connection ids: vectors that nobody may change, what must hold for any place, and that nothing shows in them.

#![allow(deprecated)] // std's SipHasher is what it is used for here: somebody else's SipHash-2-4.

use std::hash::{Hasher, SipHasher};

use abi::{
    ConnectionIds, Destination, Form, GENERATIONS, Group, ID_LEN, ID_LEN_MAX, Key, Keys, NEWCOMER_LOAD, Place, Route,
    SEAT_GIVEN, SEAT_LOAD, SEAT_TAKEN, Seat, WORKERS_MAX, destination, siphash, two_of, worker_of,
};
use proptest::prelude::*;

const SECRET: [u8; 16] = *b"a fleet's secret";

fn ids() -> ConnectionIds {
    ConnectionIds::new(2, &SECRET)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Nonces for tests: all different, and no pattern in them.
fn nonce(index: u64) -> [u8; 8] {
    siphash(Key([1, 2]), [8 << 56 | index]).to_le_bytes()
}

#[test]
fn the_papers_own_vector() {
    // Aumasson and Bernstein, appendix A: key 00…0f, message 00…0e.
    let key = Key::from_bytes(&std::array::from_fn(|at| at as u8));
    let message = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
    assert_eq!(siphash(key, message), 0xa129_ca61_49be_45e5);
}

/// Made by another implementation, from the module's text. An id is what several machines, and two processes of one machine in an upgrade, must
/// agree on: these bytes are for ever.
#[test]
fn vectors() {
    let table = [
        (Place { server: 0, generation: 0, worker: 0 }, [0; 8], "570000000000000000f4a0c3278902fb4c"),
        (Place { server: 0xbeef, generation: 63, worker: 1023 }, *b"01234567", "473031323334353637ca6110f8575248d4"),
        (Place { server: 1, generation: 2, worker: 3 }, [0xff; 8], "56ffffffffffffffffa61421de3740e762"),
    ];
    for (place, random, wanted) in table {
        assert_eq!(hex(&ids().encode(place, random)), wanted, "{place:?}");
    }
    assert_eq!(ids().spread(b"chosen"), 0x15178780e803a949);
}

proptest! {
    #[test]
    fn siphash_is_siphash(k0: u64, k1: u64, a: u64, b: u64, tail in proptest::collection::vec(any::<u8>(), 0..8)) {
        let message = [&a.to_le_bytes()[..], &b.to_le_bytes(), &tail].concat();
        let mut oracle = SipHasher::new_with_keys(k0, k1);
        oracle.write(&message);
        let mut last = [0; 8];
        last[..tail.len()].copy_from_slice(&tail);
        last[7] = message.len() as u8;
        prop_assert_eq!(siphash(Key([k0, k1]), [a, b, u64::from_le_bytes(last)]), oracle.finish());
    }

    #[test]
    fn a_place_comes_back(server: u16, generation in 0..GENERATIONS, worker in 0..WORKERS_MAX, random: [u8; 8], config in 0..7_u8) {
        let place = Place { server, generation, worker };
        let ids = ConnectionIds::new(config, &SECRET);
        prop_assert_eq!(ids.decode(&ids.encode(place, random)), Some(place));
    }

    /// The program reads ids as words; what is behind one does not matter.
    #[test]
    fn words_say_what_octets_say(server: u16, worker in 0..WORKERS_MAX, random: [u8; 8], behind: [u8; 7]) {
        let place = Place { server, generation: 9, worker };
        let octets = [&ids().encode(place, random)[..], &behind].concat();
        let words = std::array::from_fn(|at| u64::from_le_bytes(octets[8 * at..8 * at + 8].try_into().unwrap()));
        prop_assert_eq!(ids().decode_words(words), Some(place));
        prop_assert_eq!(ids().decode_words([words[0] ^ 1, words[1], words[2]]), None);
    }

    #[test]
    fn a_changed_bit_is_seen(worker in 0..WORKERS_MAX, random: [u8; 8], bit in 0..ID_LEN * 8) {
        let mut id = ids().encode(Place { server: 7, generation: 1, worker }, random);
        id[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(ids().decode(&id), None);
    }

    #[test]
    fn other_keys_and_other_configs_are_strangers(random: [u8; 8], secret: [u8; 16]) {
        let id = ids().encode(Place::default(), random);
        prop_assert_eq!(ConnectionIds::new(3, &SECRET).decode(&id), None);
        prop_assume!(secret != SECRET);
        prop_assert_eq!(ConnectionIds::new(2, &secret).decode(&id), None);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = ids().decode(&bytes);
        let _ = ids().spread(&bytes);
        match (destination(&bytes), ids().route(&bytes)) {
            (None, route) => prop_assert_eq!(route, Route::Stranger),
            (Some(Destination { form: Form::Short, id }), _) => prop_assert_eq!(id, &bytes[1..=ID_LEN]),
            (Some(Destination { form: Form::Long, id }), route) => {
                prop_assert_eq!(id, &bytes[6..6 + usize::from(bytes[5])]);
                prop_assert!(route != Route::Stranger);
            }
        }
    }

    #[test]
    fn a_hash_means_one_of_the_live(hash: u64, live in 1..=1024_u32) {
        prop_assert!(worker_of(hash, live) < live);
        prop_assert_eq!(worker_of(hash, 0), 0);
    }

    /// The id's length counts, so an id and the same with a zero behind it are two.
    #[test]
    fn hashes_of_chosen_ids(id in proptest::collection::vec(any::<u8>(), 0..ID_LEN_MAX)) {
        let longer = [&id[..], &[0]].concat();
        prop_assert!(ids().spread(&id) != ids().spread(&longer));
        prop_assert_eq!(ids().spread(&longer), ids().spread(&[&id[..], &[0]].concat()));
    }
}

fn long_header(id: &[u8]) -> Vec<u8> {
    [&[0xc3, 0, 0, 0, 1, id.len() as u8], id, &[8, 1, 2, 3, 4, 5, 6, 7, 8], &[0; 1_180]].concat()
}

#[test]
fn datagrams_go_where_they_belong() {
    let place = Place { server: 9, generation: 4, worker: 5 };
    let id = ids().encode(place, nonce(1));
    let short = [&[0x41], &id[..], &[0; 30]].concat();
    assert_eq!(ids().route(&short), Route::Place(place));
    assert_eq!(ids().route(&long_header(&id)), Route::Place(place));
    let (initial, again) = (long_header(b"chosen.."), long_header(b"chosen.."));
    assert_eq!(ids().route(&initial), Route::Hash(ids().spread(b"chosen..")));
    assert_eq!(ids().route(&initial), ids().route(&again));
    // A client may choose an id of our length (RFC 9000 §7.2: at least eight octets).
    assert_eq!(ids().route(&long_header(&[7; ID_LEN])), Route::Hash(ids().spread(&[7; ID_LEN])));
    for stranger in [&short[..ID_LEN], &[0x41; 40], &[], &initial[..9], &[0xc3, 0, 0, 0, 1]] {
        assert_eq!(ids().route(stranger), Route::Stranger, "{stranger:02x?}");
    }
}

#[test]
fn chosen_ids_fall_evenly_on_workers() {
    let mut counts = [0_u32; 4];
    for index in 0..40_000 {
        counts[worker_of(ids().spread(&nonce(index)), 4) as usize] += 1;
    }
    // A thousand ids a worker is eleven standard deviations.
    assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
}

/// Each bit of an id but the config's three, and each bit in which two ids of one connection differ, is set in half of all: with
/// 16,384 ids a standard deviation is 64, and 400 of them would be a pattern.
#[test]
fn ids_of_one_connection_cannot_be_linked() {
    const COUNT: u64 = 16_384;
    let place = Place { server: 3, generation: 1, worker: 2 };
    let mut set = [0_u64; ID_LEN * 8];
    let mut differs = [0_u64; ID_LEN * 8];
    let mut previous = ids().encode(place, nonce(COUNT));
    for index in 0..COUNT {
        let id = ids().encode(place, nonce(index));
        for bit in 0..ID_LEN * 8 {
            let of = |id: &[u8; ID_LEN]| u64::from(id[bit / 8] >> (bit % 8) & 1);
            set[bit] += of(&id);
            differs[bit] += of(&id) ^ of(&previous);
        }
        previous = id;
    }
    let config = 5..8;
    let even = |count: u64| count.abs_diff(COUNT / 2) < 400;
    for bit in (0..ID_LEN * 8).filter(|bit| !config.contains(bit)) {
        assert!(even(set[bit]) && even(differs[bit]), "bit {bit}: {} {}", set[bit], differs[bit]);
    }
    assert!(config.into_iter().all(|bit| differs[bit] == 0));
}

/// Who sees ids of two workers cannot tell them from two of one: they differ in each bit as often as not.
#[test]
fn a_place_does_not_show() {
    let mut changed = [0_u64; ID_LEN * 8];
    for index in 0..4_096 {
        let here = ids().encode(Place { server: 0, generation: 0, worker: 0 }, nonce(index));
        let fresh = ids().encode(Place { server: 0, generation: 0, worker: 1 }, nonce(index + 4_096));
        for (bit, count) in changed.iter_mut().enumerate() {
            *count += u64::from((here[bit / 8] ^ fresh[bit / 8]) >> (bit % 8) & 1);
        }
    }
    for (bit, count) in changed.iter().enumerate().filter(|(bit, _)| !(5..8).contains(bit)) {
        assert!(count.abs_diff(2_048) < 200, "bit {bit}: {count}");
    }
}

#[test]
fn each_purpose_has_a_key_of_its_own() {
    let Keys { seal, check, spread } = Keys::derive(&SECRET);
    let words: std::collections::BTreeSet<_> = [seal, check, spread].iter().flat_map(|key| key.0).collect();
    assert_eq!(words.len(), 6);
    assert_ne!(Keys::derive(&SECRET), Keys::derive(b"another's secret"));
}

#[test]
fn two_workers_are_two_whatever_chance_says() {
    for workers in 2..40 {
        for index in 0..200 {
            let (one, other) = two_of(u64::from_le_bytes(nonce(index)), workers);
            assert!(one != other && one < workers && other < workers, "{one} {other} of {workers}");
        }
    }
    assert_eq!((two_of(7, 1), two_of(7, 0)), ((0, 0), (0, 0)));
    assert_eq!((two_of(0, 3), two_of(u64::MAX, 3)), ((0, 1), (2, 1)));
}

#[test]
fn a_burden_is_what_is_there_and_what_is_coming() {
    let mut seat = Seat([0; 16]);
    seat.0[SEAT_LOAD] = 100;
    assert_eq!(seat.burden(), 100);
    seat.0[SEAT_GIVEN] = 3;
    assert_eq!(seat.burden(), 100 + 3 * NEWCOMER_LOAD);
    seat.0[SEAT_TAKEN] = 3;
    assert_eq!(seat.burden(), 100);
    // Read while the other side writes.
    seat.0[SEAT_TAKEN] = 4;
    assert_eq!(seat.burden(), 100);
}

#[test]
fn a_group_holds_its_generation_and_the_one_before() {
    let group = Group { generation: 0, stride: 8, workers: [4, 6], ..Group::default() };
    assert!(group.holds(0) && group.holds(63) && !group.holds(1) && !group.holds(62));
    assert_eq!((group.workers_of(0), group.workers_of(63)), (4, 6));
    assert_eq!((group.socket_of(0, 3), group.socket_of(63, 3)), (3, 11));
}
