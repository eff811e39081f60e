//! Certificates replaced on disk, and sessions resumed on any worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use harness::{Authority, Folder, Kind, Origin, PATIENCE, Setup, TlsClient, Tool, on_each_driver, until};

on_each_driver! {
    /// Under load: no request fails, connections stay, and what does not fit changes nothing.
    fn certificates_are_swapped_under_load(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let engine = Setup::new(driver).origin(&origin).listen_line(&issued.line()).start();
        let config = Arc::new(authority.client(None));
        let connect = || TlsClient::connect_tls(engine.address, "localhost", &config).expect("a connection");
        let mut old = connect();
        let shown = old.shown();
        // One that has been served may pause for longer than one that has said nothing.
        assert_eq!(old.get("/").text(), "hello\n");
        let (over, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let load: Vec<_> = (0..2)
            .map(|_| {
                let (over, asked, config, address) = (Arc::clone(&over), Arc::clone(&asked), Arc::clone(&config), engine.address);
                std::thread::spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        let mut client = TlsClient::connect_tls(address, "localhost", &config).expect("a connection");
                        for _ in 0..5 {
                            assert_eq!(client.get("/").text(), "hello\n");
                            asked.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        // A key that is not the certificate's: the old pair stays.
        let good = std::fs::read(&issued.key).unwrap();
        let other = authority.issue(&folder, "other", &["localhost"], Kind::Ecdsa);
        std::fs::copy(&other.key, &issued.key).unwrap();
        until("the bad key is said", PATIENCE, || engine.err().contains("the old certificates stay"));
        assert!(engine.err().contains("is not the key of"), "{}", engine.err());
        assert_eq!(connect().shown(), shown);
        std::fs::write(&issued.key, good).unwrap();
        authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        until("the new one is shown", PATIENCE, || {
            // Without a ticket: a session that is resumed shows the certificate that it began with.
            let fresh = Arc::new(authority.client(None));
            TlsClient::connect_tls(engine.address, "localhost", &fresh).expect("a connection").shown() != shown
        });
        std::thread::sleep(Duration::from_millis(200));
        over.store(true, Ordering::Relaxed);
        for thread in load {
            thread.join().expect("no request failed");
        }
        assert!(asked.load(Ordering::Relaxed) > 20);
        assert_eq!(old.get("/").text(), "hello\n", "a connection from before");
        assert!(engine.metrics().sum("tls_resumed_total") > 0);
    }

    /// OpenSSL's tickets, on two workers: every connection after the first resumes, whichever worker has it.
    fn sessions_are_resumed_on_any_worker(driver) {
        let folder = Folder::new();
        let authority = Authority::new(&folder, "ca");
        let issued = authority.issue(&folder, "site", &["localhost"], Kind::Ecdsa);
        let origin = Origin::standard();
        let tls = issued.line().replace(" }", ", min = \"1.2\" }");
        let engine = Setup::new(driver).cores("auto").origin(&origin).listen_line(&tls).start();
        let session = folder.join("session").display().to_string();
        let request = folder.write("request", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        for version in ["-tls1_3", "-tls1_2"] {
            let connect = |flag: &str| {
                let address = engine.address.to_string();
                let args = ["s_client", "-connect", &address, "-servername", "localhost", version, "-ign_eof", flag, &session];
                Tool::new("openssl", 10).args(args).input(&request).run().text()
            };
            assert!(connect("-sess_out").contains("New, TLSv1"), "{version}");
            for _ in 0..12 {
                let told = connect("-sess_in");
                assert!(told.contains("Reused, TLSv1"), "{version}: {told}");
            }
        }
        let metrics = engine.metrics();
        assert_eq!(metrics.sum("tls_resumed_total"), 24);
        let _ = authority;
    }
}
