//! Writes the seed corpora and dictionaries: `seeds DIRECTORY` makes `DIRECTORY/TARGET/*` and
//! `DIRECTORY/TARGET.dict`.

use std::fs;
use std::path::Path;

use kernels::format::Format;
use model::checkpoint::{Dtype, GgufWriter, Value};

fn main() {
    let directory = std::env::args().nth(1).expect("usage: seeds DIRECTORY");
    let directory = Path::new(&directory);
    for target in ["gguf", "safetensors", "index"] {
        fs::create_dir_all(directory.join(target)).expect("the directory can be made");
    }
    gguf_seeds(&directory.join("gguf"));
    safetensors_seeds(&directory.join("safetensors"));
    index_seeds(&directory.join("index"));
    let keys = [
        "GGUF",
        "general.alignment",
        "general.architecture",
        "split.count",
        "\\x03\\x00\\x00\\x00",
        "\\x09\\x00\\x00\\x00",
    ];
    dictionary(&directory.join("gguf.dict"), &keys);
    let names =
        ["dtype", "shape", "data_offsets", "__metadata__", "F32", "BF16", "F8_E4M3", "U8", "I64", "BOOL", "F4", "C64"];
    let quoted: Vec<String> = names.iter().map(|name| format!("\\\"{name}\\\"")).collect();
    dictionary(&directory.join("safetensors.dict"), &quoted);
    let names = ["weight_map", "metadata", "total_size", "a.safetensors", "../a.safetensors"];
    let quoted: Vec<String> = names.iter().map(|name| format!("\\\"{name}\\\"")).collect();
    dictionary(&directory.join("index.dict"), &quoted);
}

fn dictionary<T: AsRef<str>>(path: &Path, words: &[T]) {
    let lines: String = words.iter().map(|word| format!("\"{}\"\n", word.as_ref())).collect();
    fs::write(path, lines).expect("the dictionary can be written");
}

fn values() -> Vec<(&'static str, Value)> {
    vec![
        ("a.u8", Value::from(7u8)),
        ("a.i8", Value::from(-7i8)),
        ("a.u16", Value::from(7u16)),
        ("a.i16", Value::from(-7i16)),
        ("a.u32", Value::from(7u32)),
        ("a.i32", Value::from(-7i32)),
        ("a.f32", Value::from(0.5f32)),
        ("a.bool", Value::from(true)),
        ("general.architecture", Value::from("qwen3")),
        ("a.u64", Value::from(7u64)),
        ("a.i64", Value::from(-7i64)),
        ("a.f64", Value::from(0.5f64)),
        ("tokens", Value::from(&["a", "", "bc"][..])),
        ("types", Value::from(&[1i32, -2, 3][..])),
        ("scores", Value::from(&[1f32, -2.0][..])),
        ("flags", Value::from(&[true, false][..])),
    ]
}

fn gguf_seeds(directory: &Path) {
    let write = |name: &str, values: &[(&str, Value)], tensors: &[(&str, &[usize], Dtype)]| {
        let mut writer = GgufWriter::new();
        for (key, value) in values {
            writer.metadata(key, value.clone()).expect("a fresh key");
        }
        for (name, shape, dtype) in tensors {
            writer.tensor(name, shape, *dtype).expect("a valid tensor");
        }
        let mut sink = writer.start(directory.join(name)).expect("the seed can be written");
        while let Some((name, _, _, missing)) = sink.due() {
            let name = name.to_owned();
            sink.append(&name, &vec![0x5a; missing]).expect("the seed can be written");
        }
        sink.finish().expect("the seed can be written");
    };
    write("empty", &[], &[]);
    write("values", &values(), &[]);
    for (index, value) in values().into_iter().enumerate() {
        write(&format!("value-{index}"), &[value], &[]);
    }
    let f32 = Dtype::Stored(Format::F32);
    write("scalar", &[], &[("t", &[], f32)]);
    write("tensors", &[("n", Value::from(1u32))], &[("t.weight", &[2, 3], f32), ("u", &[4], f32), ("e", &[0, 2], f32)]);
    for format in Format::ALL.into_iter().filter(|&format| format != Format::F8E4M3) {
        write(format.name(), &[], &[("t", &[2, format.block().0], format.into())]);
    }
    for dtype in [Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::F64] {
        write(dtype.name(), &[], &[("t", &[1, 1, 2, 1], dtype)]);
    }
    // What the writer does not make: arrays in arrays, and another alignment.
    let mut nested = b"GGUF\x03\0\0\0".to_vec();
    nested.extend([0, 1].iter().flat_map(|count: &u64| count.to_le_bytes()));
    nested.extend(1u64.to_le_bytes());
    nested.push(b'k');
    for (kind, count) in [(9u32, None), (9, Some(2u64)), (0, Some(1))] {
        nested.extend(kind.to_le_bytes());
        nested.extend(count.map(u64::to_le_bytes).into_iter().flatten());
    }
    nested.push(1);
    nested.extend(8u32.to_le_bytes());
    nested.extend(0u64.to_le_bytes());
    fs::write(directory.join("nested"), nested).expect("the seed can be written");
    let mut aligned = b"GGUF\x02\0\0\0".to_vec();
    aligned.extend([0u64, 1, 17].iter().flat_map(|count| count.to_le_bytes()));
    aligned.extend(b"general.alignment");
    aligned.extend([4u32, 64].iter().flat_map(|value| value.to_le_bytes()));
    fs::write(directory.join("aligned"), aligned).expect("the seed can be written");
}

fn safetensors_seeds(directory: &Path) {
    let headers = [
        ("empty", "{}", 0),
        ("one", r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8),
        ("scalar", r#"{"t":{"dtype":"BF16","shape":[],"data_offsets":[0,2]}}"#, 2),
        ("metadata", r#"{"__metadata__":{"format":"pt"},"t":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}   "#, 1),
        (
            "several",
            r#"{"a":{"dtype":"F8_E4M3","shape":[2,2],"data_offsets":[4,8]},"b":{"dtype":"I32","shape":[1],"data_offsets":[0,4]},"c":{"dtype":"I64","shape":[0,3],"data_offsets":[8,8]}}"#,
            8,
        ),
    ];
    for (name, header, data) in headers {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend(vec![0x5a; data]);
        fs::write(directory.join(name), file).expect("the seed can be written");
    }
}

fn index_seeds(directory: &Path) {
    let seeds = [
        ("one", r#"{"weight_map":{"t":"model.safetensors"}}"#),
        (
            "several",
            r#"{"metadata":{"total_size":8},"weight_map":{"a.b":"m-00001-of-00002.safetensors","c":"m-00002-of-00002.safetensors"}}"#,
        ),
        ("escape", r#"{"weight_map":{"t":"../model.safetensors"}}"#),
    ];
    for (name, text) in seeds {
        fs::write(directory.join(name), text).expect("the seed can be written");
    }
}
