//! Any bytes are an index or a typed error; the files of an index lie in its directory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::checkpoint::safetensors::parse_index;

fuzz_target!(|data: &[u8]| {
    match parse_index(data) {
        Ok(pairs) => {
            for (_, file) in pairs {
                assert!(file.ends_with(".safetensors") && !file.contains(['/', '\\', '\0']));
            }
        }
        Err(error) => assert!(error.to_string().len() < 2000, "an endless message: {error}"),
    }
});
