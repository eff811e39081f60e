//! Instructions and sections: bounded whatever they hold, and what was read is read again once it is written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::h3::qpack::{Decoder, Encoder, Indexing, ListLimits};

fuzz_target!(|said: Vec<(bool, Vec<u8>)>| {
    let limits = ListLimits { bytes: 8 * 1024, fields: 64 };
    let (mut decoder, mut space) = (Decoder::new(4096), Vec::new());
    let (mut encoder, mut mirror, mut instructions, mut feedback) =
        (Encoder::new(), Decoder::new(4096), Vec::new(), Vec::new());
    encoder.set_table_max(4096, &mut instructions);
    for (stream, (instruction, bytes)) in (0..).zip(&said) {
        if *instruction {
            let mut rest = &bytes[..];
            loop {
                match decoder.instruct(rest, &mut space) {
                    Ok(Some(length)) => rest = &rest[length..],
                    Ok(None) => break,
                    Err(_) => return,
                }
            }
            assert!(decoder.memory() <= 8 * 1024 && space.capacity() <= 32 * 1024);
            let _ = Encoder::new().hear(bytes);
            continue;
        }
        let (mut text, mut lines) = (Vec::new(), Vec::new());
        let Ok(Ok(section)) = decoder.section(bytes) else { continue };
        if section.decode(&limits, &mut text, |_, line| lines.push(line)).is_err() {
            return;
        }
        assert!(lines.len() <= limits.fields && text.len() <= limits.bytes);
        // As we would write it, to a peer that hears everything at once.
        let mut written = Vec::new();
        let mut section = encoder.section(stream, &mut instructions);
        for line in &lines {
            let how = if line.never_indexed { Indexing::Never } else { Indexing::Store };
            section.field(line.name(&text), line.value(&text), how, &mut written);
        }
        let written = [&section.finish()[..], &written].concat();
        let Ok(Ok(section)) = mirror.section(&written) else { panic!("our sections never wait") };
        let (mut again, required) = (Vec::new(), section.required());
        section.decode(&limits, &mut again, |_, _| {}).unwrap();
        assert!(again.eq_ignore_ascii_case(&text));
        mirror.acknowledge(stream, required, &mut feedback);
        let mut rest = &instructions[..];
        while let Some(length) = mirror.instruct(rest, &mut space).unwrap() {
            rest = &rest[length..];
        }
        instructions.clear();
        mirror.tell_inserted(&mut feedback);
        let mut rest = &feedback[..];
        while let Some(length) = encoder.hear(rest).unwrap() {
            rest = &rest[length..];
        }
        feedback.clear();
        assert!(encoder.memory() <= 12 * 1024);
    }
});
