//! Any bytes are a GGUF file or a typed error; a file that is accepted keeps its promises.
#![no_main]

use kernels::bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::checkpoint::{Item, gguf};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::from(data.to_vec());
    match gguf::parse(&bytes) {
        Ok(file) => check(&file, data),
        Err(error) => assert!(error.to_string().len() < 1000, "an endless message: {error}"),
    }
});

fn check(file: &gguf::Gguf, data: &[u8]) {
    for (key, value) in file.metadata.iter() {
        walk(value.item(), data.len());
        let _ = file.metadata.u32(key);
        let _ = file.metadata.f32(key);
        let _ = file.metadata.string(key);
        let _ = file.metadata.strings(key);
        let _ = file.metadata.need_list::<i32>(key).map_err(|error| error.to_string());
    }
    let mut total = 0;
    for tensor in &file.tensors {
        assert_eq!(Some(tensor.data.len()), tensor.dtype.tensor_bytes(&tensor.shape));
        total += tensor.data.len();
    }
    assert!(total <= data.len(), "tensors share bytes");
}

fn walk(item: Item, limit: usize) {
    if let Item::Array(array) = item {
        assert!(array.len() <= limit);
        let mut count = 0;
        for element in array.iter() {
            walk(element, limit);
            count += 1;
        }
        assert_eq!(count, array.len(), "a checked array must decode to its end");
    }
}
