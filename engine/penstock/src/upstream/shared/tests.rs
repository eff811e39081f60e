use super::*;

#[test]
fn the_operators_word_survives_its_packing() {
    let shared = EndpointShared::new(1, Now::ZERO);
    assert_eq!(shared.admin(), Admin::default());
    for state in [AdminState::Ready, AdminState::Drain, AdminState::Maint] {
        for weight in [None, Some(0), Some(7), Some(u32::MAX)] {
            for breaker in [BreakerOrder::Auto, BreakerOrder::Open, BreakerOrder::Closed] {
                shared.set_admin(Admin { state, weight, breaker });
                assert_eq!(shared.admin(), Admin { state, weight, breaker });
            }
        }
    }
}

#[test]
fn operator_and_probes_each_have_a_veto() {
    let shared = EndpointShared::new(1, Now::ZERO);
    for (state, health, admits) in [
        (AdminState::Ready, Health::Unknown, true),
        (AdminState::Ready, Health::Up, true),
        (AdminState::Ready, Health::Down, false),
        (AdminState::Drain, Health::Up, false),
        (AdminState::Maint, Health::Unknown, false),
    ] {
        shared.set_admin(Admin { state, ..Admin::default() });
        shared.set_health(health);
        assert_eq!(shared.admits(), admits, "{state:?} {health:?}");
        assert_eq!(shared.health(), health);
    }
}

#[test]
fn runs_cross_intervals_and_their_records_do_not() {
    use policy::Class;
    use std::time::Duration;
    let shared = EndpointShared::new(2, Now::ZERO);
    let good = Outcome::answered(Duration::from_millis(2), 200);
    let gateway = Outcome::answered(Duration::from_millis(1), 503);
    let error = Outcome::answered(Duration::from_millis(1), 500);
    let left = Outcome::new(Duration::from_millis(1), Class::Abandoned);
    let note = |worker: usize, outcomes: &[Outcome]| outcomes.iter().for_each(|of| shared.compare(worker, of));
    note(0, &[gateway, gateway, left, gateway, good, gateway]);
    note(1, &[error, error, error, error, good]);
    let first = shared.judged();
    assert_eq!((first.calls, first.errors, first.latency_nanos), (10, 8, 4_000_000));
    assert_eq!((first.gateway_in_a_row, first.errors_in_a_row), (3, 4));
    shared.begin_interval();
    assert_eq!((shared.judged().gateway_in_a_row, shared.judged().errors_in_a_row), (0, 0));
    note(0, &[gateway]);
    let second = shared.judged();
    assert_eq!(second.gateway_in_a_row, 2, "it began before");
    let sums = second.since(&first);
    assert_eq!((sums.calls, sums.failures, sums.latency_ns, sums.gateway_in_a_row), (1, 1, 0, 2));
    shared.begin_interval();
    shared.begin_interval();
    note(0, &[gateway]);
    assert_eq!(shared.judged().gateway_in_a_row, 1, "a pause ends a run");
}

#[test]
fn an_ejection_ends_by_itself() {
    let shared = EndpointShared::new(1, Now::ZERO);
    assert!(!shared.is_ejected(Now::ZERO));
    shared.set_ejected_until(Now::from_secs(5));
    assert!(shared.is_ejected(Now::from_secs(4)) && !shared.is_ejected(Now::from_secs(5)));
}

#[test]
fn of_two_verdicts_the_greater_one_counts() {
    let shared = EndpointShared::new(2, Now::ZERO);
    for (raised, counts) in [(5, 5), (3, 5), (6, 6)] {
        shared.raise_breaker(raised);
        assert_eq!(shared.breaker_verdict(), counts);
    }
}
