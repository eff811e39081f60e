//! Lists of SCTs, as they come in the TLS extension and in an OCSP response: bounded, and what is cut off is refused.
#![no_main]

use certs::{SCTS_MAX, read_list, sct_list_of_ocsp};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(scts) = read_list(bytes) {
        assert!(scts.len() <= SCTS_MAX);
        assert!(read_list(&bytes[..bytes.len() - 1]).is_err());
    }
    if let Some(list) = sct_list_of_ocsp(bytes) {
        assert!(list.len() < bytes.len());
        let _ = read_list(list);
    }
});
