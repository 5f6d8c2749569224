//! A tokenizer.json of any content: loads or fails with an error, and what it loads encodes and decodes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use text::{Segment, Specials, StreamDecoder, Tokenizer};

fuzz_target!(|bytes: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_json(bytes) else { return };
    let reserved = tokenizer.reserved_ids();
    let own = String::from_utf8_lossy(bytes);
    for text in ["", "a", "Hello  world\n\n 123 é字🙂 <s><t> ab aba", own.as_ref()] {
        if let Ok(ids) = tokenizer.encode(text) {
            assert!(ids.iter().all(|id| !reserved.contains(id)), "text became a reserved token");
            let mut stream = StreamDecoder::new(&tokenizer, Specials::Show);
            let streamed = ids.iter().map(|&id| stream.push(id)).collect::<String>() + &stream.finish();
            assert_eq!(streamed, tokenizer.decode(&ids, Specials::Show));
        }
        let _ = tokenizer.encode_with_specials(text);
        let _ = tokenizer.encode_segments(&[Segment::trusted(text), Segment::untrusted(text)]);
    }
    for id in [0, 1, 7, 1000, u32::MAX] {
        let _ = tokenizer.decode(&[id, id], Specials::Hide);
    }
});
