//! Promises of logs, against certificates and logs that were made by another hand: what is good counts, and nothing else does.

use certs::{
    BadScts, Certificate, Judgement, Logs, Promises, Shortfall, Time, Verdict, is_precertificate, judge, precert_tbs,
};
use harness::{Authority, CtEntry, CtLog, Folder, Kind, Logged, log_list, ocsp_response, sct_list};

const FROM: u64 = 1_793_000_000;

/// A day after certificates were issued, and promises given.
const NOW: Time = Time::from_unix(FROM as i64 + 86_400);

struct World {
    authority: Authority,
    logs: [CtLog; 4],
}

impl World {
    /// Three operators; the second has two logs, of which one signs with RSA.
    fn new() -> Self {
        let logs = [
            CtLog::new("argon", "A"),
            CtLog::with_key("birch", "B", Kind::Rsa),
            CtLog::new("beech", "B"),
            CtLog::new("cedar", "C"),
        ];
        Self { authority: Authority::new(&Folder::new(), "ca"), logs }
    }

    fn list(&self) -> Logs {
        Logs::read(log_list(&self.logs.each_ref()).as_bytes()).unwrap()
    }

    /// A certificate for `days`, with the promises of some of the logs in it.
    fn logged(&self, days: u64, by: &[usize]) -> Logged {
        self.authority.logged(&["a.test"], FROM, days, |entry| self.promises(by, FROM * 1000, entry))
    }

    fn promises(&self, by: &[usize], at_ms: u64, entry: CtEntry<'_>) -> Vec<Vec<u8>> {
        by.iter().map(|&log| self.logs[log].promise(at_ms, entry)).collect()
    }

    fn judge(&self, der: &[u8]) -> Judgement {
        self.judge_by(&self.list(), der)
    }

    fn judge_by(&self, logs: &Logs, der: &[u8]) -> Judgement {
        let certificate = Certificate::read(der).unwrap();
        let spki = self.authority.spki();
        let promises = Promises { certificate: &certificate, issuer_spki: Some(&spki), tls_extension: &[], ocsp: &[] };
        judge(logs, &promises, NOW)
    }
}

fn verdicts(judgement: &Judgement) -> Vec<Verdict> {
    judgement.scts.iter().map(|one| one.verdict).collect()
}

#[test]
fn what_logs_have_signed_is_made_again_byte_for_byte() {
    let world = World::new();
    let logged = world.logged(90, &[0, 1]);
    assert_eq!(precert_tbs(&logged.der).unwrap(), logged.tbs);
    assert_eq!(precert_tbs(&logged.precertificate).unwrap(), logged.tbs);
    assert!(is_precertificate(&logged.precertificate) && !is_precertificate(&logged.der));
    let without = world.logged(90, &[]);
    assert_eq!(precert_tbs(&without.der).unwrap(), without.tbs);
}

#[test]
fn promises_in_the_certificate_count() {
    let world = World::new();
    for (days, by, wanted) in [
        (90, &[0, 1][..], None),
        (180, &[0, 3], None),
        (180, &[0], Some(Shortfall::TooFew { counting: 1, needed: 2 })),
        (90, &[0, 0], Some(Shortfall::TooFew { counting: 1, needed: 2 })),
        (181, &[0, 1], Some(Shortfall::TooFew { counting: 2, needed: 3 })),
        (398, &[0, 1, 2], None),
        (90, &[1, 2], Some(Shortfall::OneOperator)),
        (90, &[], Some(Shortfall::None)),
    ] {
        let judgement = world.judge(&world.logged(days, by).der);
        assert_eq!(judgement.shortfall(), wanted, "{days} days, {by:?}");
        assert_eq!((verdicts(&judgement), judgement.counting()), (vec![Verdict::Counts; by.len()], by.len()));
    }
    let judgement = world.judge(&world.logged(90, &[0]).der);
    assert_eq!(judgement.scts[0].log, Some(("argon".to_owned(), "A".to_owned())));
}

#[test]
fn promises_of_the_handshake_count() {
    let world = World::new();
    let list = world.list();
    let der = world.logged(398, &[]).der;
    let certificate = Certificate::read(&der).unwrap();
    let scts = |by: &[usize]| sct_list(&world.promises(by, FROM * 1000, CtEntry::Certificate(&der)));
    let judged = |tls_extension: &[u8], ocsp: &[u8]| {
        judge(&list, &Promises { certificate: &certificate, issuer_spki: None, tls_extension, ocsp }, NOW).shortfall()
    };
    assert_eq!(judged(&scts(&[0, 1]), &[]), None);
    assert_eq!(judged(&[], &ocsp_response(&scts(&[0, 3]), true)), None);
    assert_eq!(judged(&scts(&[0]), &ocsp_response(&scts(&[3]), false)), None, "one of each");
    assert!(judged(&scts(&[0]), &[]).is_some());
    assert!(judged(&scts(&[1, 2]), &[]).is_some(), "of one operator");
    let embedded = world.promises(
        &[0, 1],
        FROM * 1000,
        CtEntry::Precertificate { issuer_spki: &world.authority.spki(), tbs: &precert_tbs(&der).unwrap() },
    );
    assert!(judged(&sct_list(&embedded), &[]).is_some(), "those are for the precertificate");
}

#[test]
fn a_bit_changed_anywhere_and_it_counts_no_more() {
    let world = World::new();
    let logged = world.logged(90, &[0, 3]);
    assert_eq!(world.judge(&logged.der).shortfall(), None);
    // Behind its to-be-signed part stand the issuer's algorithm and signature, which logs have not seen.
    let end = 8 + usize::from(u16::from_be_bytes([logged.der[6], logged.der[7]]));
    let mut refused = 0;
    for at in (0..logged.der.len()).step_by(3) {
        let mut changed = logged.der.clone();
        changed[at] ^= 1;
        let Ok(certificate) = Certificate::read(&changed) else { continue };
        let spki = world.authority.spki();
        let promises = Promises { certificate: &certificate, issuer_spki: Some(&spki), tls_extension: &[], ocsp: &[] };
        let judgement = judge(&world.list(), &promises, NOW);
        assert!(at >= end || judgement.shortfall().is_some(), "byte {at}: {judgement:?}");
        refused += 1;
    }
    assert!(refused > 100, "{refused} changed certificates could be read");
}

#[test]
fn another_log_or_issuer_or_time_does_not_count() {
    let world = World::new();
    let stranger = CtLog::new("stranger", "S");
    let der = world.authority.logged(&["a.test"], FROM, 90, |entry| vec![stranger.promise(FROM * 1000, entry)]).der;
    assert_eq!(verdicts(&world.judge(&der)), [Verdict::UnknownLog]);
    // Its identifier is a known one's, its signature is not.
    let forged = |entry: CtEntry<'_>| {
        let mut sct = stranger.promise(FROM * 1000, entry);
        sct[1..33].copy_from_slice(&world.logs[0].id());
        vec![sct]
    };
    assert_eq!(
        verdicts(&world.judge(&world.authority.logged(&["a.test"], FROM, 90, forged).der)),
        [Verdict::BadSignature]
    );
    let of_another_issuer = Authority::new(&Folder::new(), "ca").spki();
    let logged = world.authority.logged(&["a.test"], FROM, 90, |entry| match entry {
        CtEntry::Precertificate { tbs, .. } => {
            world.promises(&[0, 1], FROM * 1000, CtEntry::Precertificate { issuer_spki: &of_another_issuer, tbs })
        }
        CtEntry::Certificate(_) => vec![],
    });
    assert_eq!(verdicts(&world.judge(&logged.der)), [Verdict::BadSignature; 2]);
    let certificate = Certificate::read(&world.logged(90, &[0]).der).unwrap();
    let nobody = Promises { certificate: &certificate, issuer_spki: None, tls_extension: &[], ocsp: &[] };
    assert_eq!(verdicts(&judge(&world.list(), &nobody, NOW)), [Verdict::IssuerUnknown]);
    let later = |ms| world.authority.logged(&["a.test"], FROM, 90, |entry| world.promises(&[0], ms, entry)).der;
    let now_ms = (FROM + 86_400) * 1000;
    assert_eq!(verdicts(&world.judge(&later(now_ms + 1))), [Verdict::InTheFuture]);
    assert_eq!(verdicts(&world.judge(&later(now_ms))), [Verdict::Counts]);
    assert_eq!(verdicts(&world.judge(&later(u64::MAX))), [Verdict::InTheFuture]);
}

#[test]
fn a_list_that_cannot_be_read_is_told() {
    let world = World::new();
    let cut = |entry: CtEntry<'_>| {
        let sct = world.logs[0].promise(FROM * 1000, entry);
        vec![sct[..sct.len() - 1].to_vec()]
    };
    let judgement = world.judge(&world.authority.logged(&["a.test"], FROM, 90, cut).der);
    assert_eq!(judgement.shortfall(), Some(Shortfall::Unreadable(BadScts::Truncated)));
}

#[test]
fn what_became_of_a_log_matters() {
    let state =
        |log: CtLog, state: &str, when: &str| log.state(&format!(r#"{{"{state}": {{"timestamp": "{when}"}}}}"#));
    for (name, when, verdict, enough) in [
        ("qualified", "2024-01-01T00:00:00Z", Verdict::Counts, true),
        ("readonly", "2024-01-01T00:00:00Z", Verdict::Counts, true),
        ("pending", "2024-01-01T00:00:00Z", Verdict::NotBelieved, false),
        ("rejected", "2024-01-01T00:00:00Z", Verdict::NotBelieved, false),
        ("retired", "2024-01-01T00:00:00Z", Verdict::Retired, false),
        ("retired", "2030-01-01T00:00:00Z", Verdict::CountsOfRetired, true),
    ] {
        let mut world = World::new();
        world.logs[3] = state(CtLog::new("cedar", "C"), name, when);
        let judgement = world.judge(&world.logged(90, &[0, 3]).der);
        assert_eq!(verdicts(&judgement), [Verdict::Counts, verdict], "{name} {when}");
        assert_eq!(judgement.shortfall().is_none(), enough, "{name} {when}");
    }
    let mut world = World::new();
    for at in [0, 3] {
        world.logs[at] = state(CtLog::new("old", if at == 0 { "A" } else { "C" }), "retired", "2030-01-01T00:00:00Z");
    }
    assert_eq!(world.judge(&world.logged(90, &[0, 3]).der).shortfall(), Some(Shortfall::NoneCurrent));
}

#[test]
fn a_log_has_its_years_and_its_operators() {
    let mut world = World::new();
    let interval = |from: &str, to: &str| {
        format!(r#""temporal_interval": {{"start_inclusive": "{from}", "end_exclusive": "{to}"}}"#)
    };
    world.logs[0] = CtLog::new("argon", "A").field(&interval("2026-07-01T00:00:00Z", "2027-07-01T00:00:00Z"));
    world.logs[3] = CtLog::new("cedar", "C").field(&interval("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"));
    let judgement = world.judge(&world.logged(90, &[0, 3]).der);
    assert_eq!(verdicts(&judgement), [Verdict::Counts, Verdict::OutsideInterval]);
    // Until 2030 it was run by the other one's operator.
    world.logs[3] =
        CtLog::new("cedar", "C").field(r#""previous_operators": [{"name": "A", "end_time": "2030-01-01T00:00:00Z"}]"#);
    assert_eq!(world.judge(&world.logged(90, &[0, 3]).der).shortfall(), Some(Shortfall::OneOperator));
}

#[test]
fn a_list_of_logs_is_taken_whole_or_not_at_all() {
    let log = CtLog::new("argon", "A");
    let good = log_list(&[&log, &CtLog::new("birch", "B")]);
    let list = Logs::read(good.as_bytes()).unwrap();
    assert_eq!(
        (list.len(), list.published.map(|time| time.to_string()).as_deref()),
        (2, Some("2026-11-20 12:00:00 UTC"))
    );
    assert_eq!(list.get(&log.id()).map(|log| (log.description.as_str(), log.merge_delay_s)), Some(("argon", 86_400)));
    let tiled = good.replacen("\"logs\"", "\"old_logs\"", 1);
    assert_eq!(Logs::read(tiled.as_bytes()).unwrap().len(), 1, "an operator may have none of a kind");
    let tiles =
        good.replacen("\"tiled_logs\": []", "", 1).replacen(", }", "}", 1).replacen("\"logs\"", "\"tiled_logs\"", 1);
    assert_eq!(Logs::read(tiles.as_bytes()).unwrap().len(), 2);
    for (from, to, wanted) in [
        ("\"key\"", "\"kee\"", "operators[0].logs[0]: `key` is missing, or no text"),
        (
            "\"mmd\": 86400, \"state\": {",
            "\"state\": {\"x\": 1, ",
            "operators[0].logs[0].state: no object with a single state in it",
        ),
        ("usable", "retyred", "operators[0].logs[0].state: `retyred` is no state of the third version of this format"),
        (
            "{\"usable\": {\"timestamp\": \"2024",
            "{\"retired\": {\"timestamp\": \"20x4",
            "operators[0].logs[0].state.retired.timestamp: no time",
        ),
        ("\"operators\"", "\"operatours\"", "the list: `operators` is missing, or no array"),
        ("\"name\": \"B\"", "\"name\": 7", "operators[1]: `name` is missing, or no text"),
        ("2026-11-20T12:00:00Z", "today", "log_list_timestamp: no time"),
        ("\"log_id\": \"", "\"log_id\": \"*", "operators[0].logs[0]: `log_id` is no base64"),
        ("{\"version\"", "{version", "no JSON: key must be a string at line 1 column 2"),
    ] {
        assert!(good.contains(from), "{from}");
        let why = Logs::read(good.replacen(from, to, 1).as_bytes()).unwrap_err().to_string();
        assert!(why.starts_with(wanted), "{from}: {why}");
    }
    let twice = log_list(&[&log, &log]);
    assert!(
        Logs::read(twice.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("operators[1].logs[0]: its log_id is another one's")
    );
    let swapped = good.replace("\"key\"", "\"ke\"").replace("\"log_id\"", "\"key\"").replace("\"ke\"", "\"log_id\"");
    assert_eq!(
        Logs::read(swapped.as_bytes()).unwrap_err().to_string(),
        "operators[0].logs[0]: log_id is not the SHA-256 of key"
    );
    let ed25519 = CtLog::with_key("ed", "E", Kind::Ed25519);
    assert!(
        Logs::read(log_list(&[&ed25519]).as_bytes())
            .unwrap_err()
            .to_string()
            .contains("neither ECDSA on P-256 nor RSA")
    );
    assert_eq!(Logs::read(br#"{"operators": []}"#).unwrap_err().to_string(), "there is no log in it");
}

/// A certificate of Let's Encrypt's from July 2019 and its issuer's, and Google's log Icarus: none of them made here.
#[test]
fn a_promise_that_was_given_in_truth_is_good() {
    const LIST: &str = r#"{"operators": [{"name": "Google", "logs": [{
        "description": "Icarus",
        "log_id": "KTxRllTIOWW6qlD8WAfUt2+/WHopctykwwz05UVH9Hg=",
        "key": "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAETtK8v7MICve56qTHHDhhBOuV4IlUaESxZryCfk9QbG9co/CqPvTsgPDbCpp6oFtyAHwlDhnvr7JijXRD9Cb2FA==",
        "state": {"usable": {"timestamp": "2018-02-27T00:00:00Z"}}
    }]}]}"#;
    let chain = certs::read_chain(include_bytes!("data/icarus-2019.pem")).unwrap();
    let [host, issuer] = &chain[..] else { panic!("{} certificates", chain.len()) };
    let promises = Promises { certificate: host, issuer_spki: Some(issuer.spki()), tls_extension: &[], ocsp: &[] };
    let judgement = judge(&Logs::read(LIST.as_bytes()).unwrap(), &promises, NOW);
    assert_eq!(verdicts(&judgement), [Verdict::Counts, Verdict::UnknownLog]);
    assert_eq!(judgement.shortfall(), Some(Shortfall::TooFew { counting: 1, needed: 2 }));
}
