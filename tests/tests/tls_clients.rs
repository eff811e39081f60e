//! Clients that must show a certificate.

use std::sync::Arc;

use harness::{Authority, Folder, Kind, Origin, Setup, TlsClient, Tool, on_each_driver};

on_each_driver! {
    /// One of the authority's is served; none, and somebody else's, are not, by both versions of TLS.
    fn only_who_shows_a_certificate_is_served(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let (ours, theirs) = (Authority::new(&folder, "ours"), Authority::new(&folder, "theirs"));
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let good = ours.issue(&folder, "good", &["good.test"], Kind::Ecdsa);
        let bad = theirs.issue(&folder, "bad", &["bad.test"], Kind::Ecdsa);
        let origin = Origin::standard();
        let tls = issued.line().replace(" }", &format!(", min = \"1.2\", client_ca = {:?} }}", ours.file));
        let engine = Setup::new(driver).origin(&origin).listen_line(&tls).start();
        let config = Arc::new(authority.client(Some(&good)));
        let mut client = TlsClient::connect_tls(engine.address, "localhost", &config).expect("a connection");
        assert_eq!(client.get("/").text(), "hello\n");
        let before = engine.metrics().sum("requests_total");
        for max in ["1.3", "1.2"] {
            let curl = |identity: &[&str]| {
                let ca = authority.file.display().to_string();
                let url = format!("https://localhost:{}/", engine.address.port());
                let args = ["-sS", "--max-time", "8", "-4", "--tls-max", max, "--cacert", &ca, &url];
                Tool::new("curl", 10).args(args).args(identity).run()
            };
            let shown = |one: &harness::Issued| {
                curl(&["--cert", &one.cert.display().to_string(), "--key", &one.key.display().to_string()])
            };
            assert_eq!(shown(&good).text(), "hello\n");
            assert_ne!(curl(&[]).code, Some(0), "without a certificate");
            assert_ne!(shown(&bad).code, Some(0), "with somebody else's");
        }
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("requests_total") - before, 2);
        assert_eq!(metrics.sum("tls_handshakes_certificate_total"), 4);
        drop(client);
        engine.until_idle();
    }
}
