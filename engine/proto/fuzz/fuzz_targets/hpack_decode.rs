//! Field blocks: bounded whatever they hold, and what was read is read again once it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h2::hpack::{Decoder, Encoder, Indexing, ListLimits};

fuzz_target!(|blocks: Vec<Vec<u8>>| {
    let limits = ListLimits { bytes: 8 * 1024, fields: 64 };
    let (mut decoder, mut encoder, mut mirror) = (Decoder::new(), Encoder::new(), Decoder::new());
    for block in &blocks {
        let (mut text, mut lines) = (Vec::new(), Vec::new());
        if decoder.decode(block, &limits, &mut text, |_, line| lines.push(line)).is_err() {
            return;
        }
        assert!(lines.len() <= limits.fields && text.len() <= limits.bytes && decoder.memory() <= 8 * 1024);
        let mut written = Vec::new();
        encoder.begin(&mut written);
        for line in &lines {
            let how = if line.never_indexed { Indexing::Never } else { Indexing::Store };
            encoder.field(line.name(&text), line.value(&text), how, &mut written);
        }
        let mut again = Vec::new();
        mirror.decode(&written, &limits, &mut again, |_, _| {}).unwrap();
        assert_eq!(again.len(), text.len());
        assert!(again.eq_ignore_ascii_case(&text));
    }
});
