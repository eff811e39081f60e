//! What is said of certificates and chains, against certificates that another library has made.

use certs::{Certificate, Flaw, Key, Time, flaws, read_chain};
use harness::{Authority, CtLog, Folder};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ED25519, PKCS_RSA_SHA256};

const FROM: u64 = 1_793_000_000;
const DAYS: u64 = 90;

/// A day after they were issued.
const NOW: Time = Time::from_unix(FROM as i64 + 86_400);

/// A root, an authority below it, and a host's certificate.
struct Chain {
    root: Certificate,
    middle: Certificate,
    host: Certificate,
    other: Certificate,
}

impl Chain {
    fn new() -> Self {
        let folder = Folder::new();
        let root = Authority::new(&folder, "root");
        let key = KeyPair::generate().unwrap();
        let mut params = Authority::params(&[], FROM, DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "middle");
        let middle = root.sign(&params, &key);
        let issuer = Issuer::new(params, key);
        let host =
            Authority::params(&["a.test"], FROM, DAYS).signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let other = Authority::new(&folder, "other");
        Self { root: read(root.der()), middle: read(middle.der()), host: read(host.der()), other: read(other.der()) }
    }
}

fn read(der: &[u8]) -> Certificate {
    Certificate::read(der).unwrap()
}

#[test]
fn a_certificate_is_described() {
    let folder = Folder::new();
    let authority = Authority::new(&folder, "ca");
    let mut params = Authority::params(&["a.test", "*.b.test", "192.0.2.7", "2001:db8::7"], FROM, DAYS);
    params.serial_number = Some(vec![1, 0xab, 0xff].into());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Some\u{1b}[2J Works");
    params.distinguished_name.push(DnType::CommonName, "a.test");
    let key = KeyPair::generate().unwrap();
    let issued = authority.sign(&params, &key);
    let one = read(issued.der());
    assert_eq!(one.names, ["a.test", "*.b.test", "192.0.2.7", "2001:db8::7"]);
    assert_eq!((one.subject.as_str(), one.issuer.as_str()), ("O=Some?[2J Works, CN=a.test", "CN=ca"));
    assert_eq!((one.serial.as_str(), one.not_before.unix()), ("01:ab:ff", FROM as i64));
    assert_eq!((one.days_left(NOW), one.days_left(Time::from_unix((FROM + DAYS * 86_400) as i64 + 1))), (89, -1));
    assert_eq!((&one.key, one.signature.as_str()), (&Key::Ecdsa("P-256".to_owned()), "ECDSA with SHA-256"));
    assert!(!one.is_ca && !one.is_self_signed() && one.scts == Ok(vec![]));
    assert_eq!(one.spki(), rcgen::PublicKeyData::subject_public_key_info(&key));
    let root = read(authority.der());
    assert!(root.is_ca && root.is_self_signed() && one.is_issued_by(&root) && !root.is_issued_by(&one));
}

#[test]
fn keys_are_told_by_kind_and_size() {
    for (algorithm, wanted, signature) in [
        (&PKCS_RSA_SHA256, "RSA 2048", "RSA with SHA-256"),
        (&PKCS_ED25519, "Ed25519", "Ed25519"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "ECDSA P-384", "ECDSA with SHA-384"),
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let one = read(CertificateParams::new(["a.test".to_owned()]).unwrap().self_signed(&key).unwrap().der());
        assert_eq!((one.key.to_string().as_str(), one.signature.as_str()), (wanted, signature));
        assert!(one.is_self_signed() && !one.is_ca);
    }
}

/// The same that OpenSSL says, so that an operator may compare.
#[test]
fn fingerprints_and_pins_are_openssls() {
    let folder = Folder::new();
    let file = Authority::new(&folder, "ca").file;
    let one = &read_chain(&std::fs::read(&file).unwrap()).unwrap()[0];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (command, ours) in [
        ("openssl x509 -in $0 -outform der | sha256sum", one.fingerprint),
        ("openssl x509 -in $0 -noout -pubkey | openssl pkey -pubin -outform der | sha256sum", one.pin),
    ] {
        let said = harness::Tool::new("sh", 10).args(["-c", command, &file.display().to_string()]).succeed().text();
        assert_eq!(said.split_whitespace().next(), Some(hex(&ours).as_str()), "{command}");
    }
}

#[test]
fn files_are_pem_or_der_or_refused() {
    let folder = Folder::new();
    let (one, two) = (Authority::new(&folder, "one"), Authority::new(&folder, "two"));
    let pem = [&one, &two].map(|authority| std::fs::read_to_string(&authority.file).unwrap());
    let chain = read_chain(format!("# a remark\n{}\n{}", pem[0], pem[1]).as_bytes()).unwrap();
    assert_eq!(chain.iter().map(|one| one.subject.as_str()).collect::<Vec<_>>(), ["CN=one", "CN=two"]);
    assert_eq!(read_chain(one.der()).unwrap().len(), 1);
    let refused = |file: &[u8]| read_chain(file).unwrap_err().to_string();
    assert_eq!(refused(b""), "there is no certificate in it");
    assert_eq!(
        refused(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "there is no certificate in it"
    );
    let broken = format!("{}-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n", pem[0]);
    assert!(
        refused(broken.as_bytes()).starts_with("certificate 2: it is no X.509 certificate"),
        "{}",
        refused(broken.as_bytes())
    );
    assert!(refused(&pem[0].repeat(101).into_bytes()).contains("more than 100"));
}

#[test]
fn certificates_changed_anywhere_never_panic() {
    let folder = Folder::new();
    let log = CtLog::new("log", "operator");
    let der = Authority::new(&folder, "ca")
        .logged(&["a.test"], FROM, DAYS, |entry| vec![log.promise(FROM * 1000, entry)])
        .der;
    for at in 0..der.len() {
        assert!(Certificate::read(&der[..at]).is_err(), "{at}");
        for bit in [1, 0x20, 0x80] {
            let mut changed = der.clone();
            changed[at] ^= bit;
            let one = Certificate::read(&changed);
            assert!(
                one.is_err() || one.is_ok_and(|one| one.der() != der && !flaws(&[one], NOW, None).is_empty()),
                "{at}"
            );
            assert!(certs::precert_tbs(&changed).is_none_or(|tbs| tbs.len() < der.len()), "{at}");
            let _ = certs::is_precertificate(&changed);
        }
    }
}

#[test]
fn chains_are_in_order_or_it_is_told() {
    let Chain { root, middle, host, other } = &Chain::new();
    let knows_root = |issuer: &[u8]| issuer == root.subject_der();
    let said = |chain: &[&Certificate]| {
        let chain: Vec<_> = chain.iter().map(|&one| one.clone()).collect();
        flaws(&chain, NOW, Some(&knows_root))
    };
    let table: &[(&[&Certificate], &[Flaw])] = &[
        (&[host, middle], &[]),
        (&[host, middle, root], &[Flaw::RootNotNeeded { at: 2 }]),
        (&[host], &[Flaw::IssuerMissing { at: 0 }]),
        (&[host, other], &[Flaw::IssuerMissing { at: 0 }, Flaw::Unrelated { at: 1 }]),
        (&[host, middle, middle], &[Flaw::Duplicate { at: 2, of: 1 }]),
        (&[host, host, middle], &[Flaw::Duplicate { at: 1, of: 0 }]),
        (
            &[host, root, middle],
            &[
                Flaw::OutOfOrder { at: 0, issuer: 2 },
                Flaw::OutOfOrder { at: 2, issuer: 1 },
                Flaw::RootNotNeeded { at: 1 },
            ],
        ),
        (&[middle, host], &[Flaw::HostNotFirst { at: 1 }, Flaw::OutOfOrder { at: 1, issuer: 0 }]),
        (&[host, middle, other], &[Flaw::Unrelated { at: 2 }]),
        (&[root], &[]),
        (&[], &[]),
    ];
    for (chain, wanted) in table {
        let names: Vec<_> = chain.iter().map(|one| &one.subject).collect();
        assert_eq!(said(chain), *wanted, "{names:?}");
    }
    let alone = |roots: Option<certs::IsRoot<'_>>| flaws(std::slice::from_ref(middle), NOW, roots);
    assert_eq!(alone(None), [Flaw::IssuerMissing { at: 0 }], "nobody knows which roots clients have");
    assert_eq!(flaws(&[host.clone(), middle.clone()], NOW, None), []);
}

#[test]
fn days_are_looked_at() {
    let Chain { middle, host, .. } = Chain::new();
    let said = |after_days: i64| {
        flaws(&[host.clone(), middle.clone()], Time::from_unix(FROM as i64 + after_days * 86_400), None)
    };
    assert_eq!(said(-1), [Flaw::NotYetValid { at: 0 }, Flaw::NotYetValid { at: 1 }]);
    assert_eq!(said(80), []);
    assert_eq!(said(85), [Flaw::ExpiresSoon { at: 0, days_left: 5 }, Flaw::ExpiresSoon { at: 1, days_left: 5 }]);
    assert_eq!(said(91), [Flaw::Expired { at: 0 }, Flaw::Expired { at: 1 }]);
}
