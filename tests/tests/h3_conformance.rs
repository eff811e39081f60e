//! What RFC 9114 §§4-7, RFC 9204 and RFC 9218 oblige an endpoint to reject, and to bear, as it is said on the wire. The rows stand in
//! `tests/python/h3_conformance.py`, each with its section and the code that must come back.

use harness::{H3Door, Origin, Setup, on_each_driver};

on_each_driver! {
    /// Breaches that end the connection.
    fn connections(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_conformance.py", "connections");
        let metrics = door.engine.metrics();
        assert_eq!(metrics.sum("h3_faults_total"), metrics.sum("h3_connections_total"));
        door.engine.until_idle();
    }

    /// Breaches that end a stream: what is asked next on the same connection is answered.
    fn messages(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_conformance.py", "messages");
        let metrics = door.engine.metrics();
        assert_eq!((metrics.sum("h3_connections_total"), metrics.sum("h3_faults_total")), (1, 0));
        door.engine.until_idle();
    }

    /// What is odd, and right.
    fn borne(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        door.play("h3_conformance.py", "borne");
        assert_eq!(door.engine.metrics().sum("h3_faults_total"), 0);
        door.engine.until_idle();
    }

    /// The same obligations as h3i words them, which nobody here wrote.
    fn said_by_h3i(driver) {
        let origin = Origin::standard();
        let door = H3Door::new(driver, &origin);
        if door.foreign("h3i") {
            assert!(door.engine.metrics().sum("h3_faults_total") >= 30);
            door.engine.until_idle();
        }
    }

    /// Datagrams (RFC 9297) that must not be; and a door that takes none at all.
    fn datagrams(driver) {
        let origin = Origin::standard();
        let door = H3Door::of(Setup::new(driver).origin(&origin).listen_line("http3.datagrams = true"), "");
        door.play("h3_datagrams.py", "rejected");
        assert_eq!(door.engine.metrics().sum("h3_faults_total"), 6);
        door.engine.until_idle();
        H3Door::new(driver, &origin).play("h3_datagrams.py", "off");
    }
}
