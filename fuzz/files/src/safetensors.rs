//! Any bytes are a safetensors file or a typed error, and what we accept the format's own crate
//! accepts, with the same tensors in the same places.
#![no_main]

use ::safetensors::SafeTensors;
use kernels::bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use model::checkpoint::safetensors;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::from(data.to_vec());
    match safetensors::parse(&bytes) {
        Ok(file) => {
            let reference = SafeTensors::deserialize(data).expect("the reference refuses what we accept");
            assert_eq!(reference.len(), file.tensors.len());
            for tensor in &file.tensors {
                let view = reference.tensor(&tensor.name).expect("the reference lacks a tensor");
                assert_eq!(view.shape(), tensor.shape);
                assert_eq!(view.data(), &tensor.data[..]);
                assert_eq!(Some(tensor.data.len()), tensor.dtype.tensor_bytes(&tensor.shape));
            }
        }
        Err(error) => assert!(error.to_string().len() < 2000, "an endless message: {error}"),
    }
});
