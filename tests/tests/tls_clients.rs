//! Clients that must show a certificate.

use std::sync::Arc;

use harness::{Authority, Folder, Issued, Kind, Origin, Setup, TlsClient, Tool, free_address, on_each_driver};

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

    /// Optional: none is as good as one of the authority's, and somebody else's is still none. Endpoints learn which, over either version of HTTP, and
    /// nobody can make one up: not here, and not at a listener without TLS.
    fn endpoints_learn_who_it_is(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let (ours, theirs) = (Authority::new(&folder, "ours"), Authority::new(&folder, "theirs"));
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let good = ours.issue(&folder, "good", &["good.test"], Kind::Ecdsa);
        let bad = theirs.issue(&folder, "bad", &["bad.test"], Kind::Ecdsa);
        let origin = Origin::standard();
        let more = format!(", client_ca = {:?}, client_auth = \"optional\", client_cert_field = true }}", ours.file);
        let plain = free_address();
        let engine = Setup::new(driver)
            .origin(&origin)
            .listen_line(&issued.line().replace(" }", &more))
            .more(&format!("[[listen]]\nname = \"plain\"\naddr = \"{plain}\"\n"))
            .start();
        let ca = authority.file.display().to_string();
        let curl = |version: &str, url: &str, identity: Option<&Issued>| {
            let mut args = vec!["-sS".to_owned(), "--max-time".to_owned(), "8".to_owned(), "-4".to_owned(), version.to_owned()];
            args.extend(["--cacert".to_owned(), ca.clone(), "-H".to_owned(), "Client-Cert: :Zm9yZ2Vk:".to_owned()]);
            args.extend(["-H".to_owned(), "Client-Cert-Chain: :Zm9yZ2Vk:".to_owned(), url.to_owned()]);
            if let Some(one) = identity {
                let (cert, key) = (one.cert.display().to_string(), one.key.display().to_string());
                args.extend(["--cert".to_owned(), cert, "--key".to_owned(), key]);
            }
            Tool::new("curl", 10).args(args).run()
        };
        let pem = std::fs::read_to_string(&good.cert).expect("our own file");
        let first = pem.split("-----").nth(2).expect("a certificate").split_whitespace().collect::<String>();
        let secure = format!("https://localhost:{}/head", engine.address.port());
        for version in ["--http1.1", "--http2"] {
            let told = curl(version, &secure, Some(&good)).text();
            assert!(told.contains(&format!("client-cert: :{first}:\r\n")), "{told}");
            assert!(!told.contains("Zm9yZ2Vk"), "{told}");
            let nobody = curl(version, &secure, None).text();
            assert!(nobody.contains("x-forwarded-proto: https") && !nobody.to_lowercase().contains("client-cert"), "{nobody}");
            assert_ne!(curl(version, &secure, Some(&bad)).code, Some(0), "with somebody else's");
        }
        let forged = curl("--http1.1", &format!("http://{plain}/head"), None).text();
        assert!(forged.contains("x-forwarded-proto: http\r") && !forged.to_lowercase().contains("client-cert"), "{forged}");
    }
}
