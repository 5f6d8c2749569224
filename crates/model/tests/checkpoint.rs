//! Opening and writing model files: what is good is read whole, what is wrong is named.

use std::fs;
use std::path::Path;

use ::safetensors::tensor::{Dtype as StDtype, TensorView, serialize_to_file};
use kernels::format::Format;
use model::checkpoint::{Checkpoint, CheckpointError, Dtype, GgufWriteError, GgufWriter, Kind, Metadata, Value};
use tempfile::{TempDir, tempdir};

const F32: Dtype = Dtype::Stored(Format::F32);

/// Writes a GGUF of F32 tensors; the bytes of each are its index plus 1.
fn write_gguf(path: &Path, values: &[(&str, Value)], tensors: &[(&str, &[usize])]) {
    let mut writer = GgufWriter::new();
    for (key, value) in values {
        writer.metadata(key, value.clone()).unwrap();
    }
    for (name, shape) in tensors {
        writer.tensor(name, shape, F32).unwrap();
    }
    let mut sink = writer.start(path).unwrap();
    for (index, (name, shape)) in tensors.iter().enumerate() {
        for _ in 0..shape.iter().product::<usize>() {
            sink.append(name, &[index as u8 + 1; 4]).unwrap();
        }
    }
    sink.finish().unwrap();
}

fn write_safetensors(path: &Path, tensors: &[&str]) {
    let data = [1u8; 8];
    let views = tensors.iter().map(|name| (*name, TensorView::new(StDtype::F32, vec![2], &data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn hugging_face(files: &[(&str, &[&str])], index: Option<&str>) -> TempDir {
    let directory = tempdir().unwrap();
    fs::write(directory.path().join("config.json"), r#"{"model_type":"qwen3"}"#).unwrap();
    for (file, tensors) in files {
        write_safetensors(&directory.path().join(file), tensors);
    }
    if let Some(index) = index {
        fs::write(directory.path().join("model.safetensors.index.json"), index).unwrap();
    }
    directory
}

fn metadata(checkpoint: &Checkpoint) -> &Metadata {
    match &checkpoint.kind {
        Kind::Gguf { metadata } => metadata,
        Kind::HuggingFace { .. } => panic!("not a GGUF"),
    }
}

/// The error's sentence, which must name `path`.
fn refusal(path: &Path) -> (CheckpointError, String) {
    let error = Checkpoint::open(path).expect_err("it must be refused");
    let sentence = error.to_string();
    (error, sentence)
}

#[test]
fn gguf_round_trip() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let values = [
        ("general.architecture", Value::from("qwen3")),
        ("n", Value::from(28u32)),
        ("eps", Value::from(1e-6f32)),
        ("flag", Value::from(true)),
        ("i", Value::from(-3i64)),
        ("tokens", Value::from(&["a", "", "ü"][..])),
        ("types", Value::from(&[1i32, -2][..])),
        ("scores", Value::from(&[0.5f32, -1.0][..])),
    ];
    write_gguf(&path, &values, &[("a", &[2, 3]), ("empty", &[0, 4]), ("b", &[5]), ("scalar", &[])]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let meta = metadata(&checkpoint);
    assert_eq!(meta.string("general.architecture").unwrap(), "qwen3");
    assert_eq!((meta.u32("n").unwrap(), meta.f32("eps").unwrap(), meta.bool("flag").unwrap()), (28, 1e-6, true));
    assert_eq!(meta.need::<i64>("i").unwrap(), -3);
    assert_eq!(meta.strings("tokens").unwrap(), ["a", "", "ü"]);
    assert_eq!(meta.need_list::<i32>("types").unwrap(), [1, -2]);
    assert_eq!(meta.need_list::<f32>("scores").unwrap(), [0.5, -1.0]);
    assert_eq!(meta.len(), values.len());
    let shapes: Vec<_> =
        checkpoint.tensors.iter().map(|t| (t.name.as_str(), t.shape.clone(), t.data.to_vec())).collect();
    let expected = [
        ("a", vec![2, 3], vec![1; 24]),
        ("empty", vec![0, 4], vec![]),
        ("b", vec![5], vec![3; 20]),
        ("scalar", vec![], vec![4; 4]),
    ];
    assert_eq!(shapes, expected);
    assert!(checkpoint.tensors.get("a").unwrap().data.is_mapped());
    assert_eq!(checkpoint.file_of("b"), Some(path.as_path()));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file remains");
}

#[test]
fn metadata_errors_name_key_type_and_value() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let values = [
        ("n", Value::from(5_000_000_000u64)),
        ("neg", Value::from(-1i32)),
        ("list", Value::from(&[1i32, -2][..])),
        ("text", Value::from("x")),
    ];
    write_gguf(&path, &values, &[]);
    let checkpoint = Checkpoint::open(&path).unwrap();
    let meta = metadata(&checkpoint);
    let says = |error: model::checkpoint::MetadataError, words: &[&str]| {
        let sentence = error.to_string();
        assert!(words.iter().all(|word| sentence.contains(word)) && sentence.contains("m.gguf"), "{sentence}");
    };
    says(meta.u32("n").unwrap_err(), &["`n`", "5000000000", "u64", "u32"]);
    says(meta.u32("neg").unwrap_err(), &["`neg`", "-1", "i32"]);
    says(meta.f32("text").unwrap_err(), &["`text`", "\"x\"", "string", "f32"]);
    says(meta.u32("absent").unwrap_err(), &["`absent`", "missing"]);
    says(meta.need_list::<u32>("list").unwrap_err(), &["element 1", "`list`", "-2"]);
    says(meta.need_list::<u32>("text").unwrap_err(), &["`text`", "array"]);
    assert_eq!(meta.find::<u32>("absent"), Ok(None));
}

#[test]
fn every_type_of_gguf_is_written_and_read() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let mut types: Vec<Dtype> = Format::ALL.into_iter().filter(|&f| f != Format::F8E4M3).map(Dtype::from).collect();
    types.extend([Dtype::I8, Dtype::I16, Dtype::I32, Dtype::I64, Dtype::F64]);
    let mut writer = GgufWriter::new();
    for dtype in &types {
        writer.tensor(dtype.name(), &[3, dtype.block().0], *dtype).unwrap();
    }
    assert!(matches!(writer.tensor("x", &[2], Format::F8E4M3), Err(GgufWriteError::TensorType { .. })));
    let mut sink = writer.start(&path).unwrap();
    for dtype in &types {
        sink.append(dtype.name(), &vec![7; 3 * dtype.block().1]).unwrap();
    }
    sink.finish().unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    for dtype in types {
        let tensor = checkpoint.tensors.get(dtype.name()).unwrap();
        assert_eq!((tensor.dtype, tensor.data.len()), (dtype, 3 * dtype.block().1));
    }
}

#[test]
fn the_writer_holds_to_its_plan() {
    let directory = tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let mut writer = GgufWriter::new();
    writer.tensor("a", &[2], F32).unwrap();
    writer.metadata("k", 1u32).unwrap();
    assert!(matches!(writer.tensor("a", &[2], F32), Err(GgufWriteError::DuplicateTensor { .. })));
    assert!(matches!(writer.metadata("k", 1u32), Err(GgufWriteError::DuplicateKey { .. })));
    assert!(matches!(writer.metadata("general.alignment", 8u32), Err(GgufWriteError::Alignment)));
    assert!(matches!(writer.tensor("q", &[2, 33], Format::Q8_0), Err(GgufWriteError::Shape { .. })));
    assert!(matches!(writer.tensor("d", &[1; 5], F32), Err(GgufWriteError::Dims { .. })));
    assert!(matches!(writer.tensor(&"n".repeat(64), &[1], F32), Err(GgufWriteError::NameLength { .. })));
    assert!(matches!(writer.tensor("h", &[usize::MAX, 2], F32), Err(GgufWriteError::Shape { .. })));
    let mut sink = writer.start(&path).unwrap();
    assert!(matches!(sink.append("b", &[0; 4]), Err(GgufWriteError::Order { .. })));
    assert!(matches!(sink.append("a", &[0; 9]), Err(GgufWriteError::TooMuch { missing: 8, .. })));
    sink.append("a", &[0; 4]).unwrap();
    assert!(matches!(sink.finish(), Err(GgufWriteError::Incomplete { missing: 4, .. })));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "an unfinished file leaves nothing");
}

#[test]
fn split_sets_open_from_any_part_and_only_whole() {
    let directory = tempdir().unwrap();
    let part = |number: u16| directory.path().join(format!("m-{:05}-of-00003.gguf", number + 1));
    let write = |number: u16, says: u16, count: u16, total: i32, tensor: &str| {
        let values = [
            ("split.no", Value::from(says)),
            ("split.count", Value::from(count)),
            ("split.tensors.count", Value::from(total)),
        ];
        write_gguf(&part(number), &values, &[(tensor, &[2])]);
    };
    (0..3).for_each(|number| write(number, number, 3, 3, &format!("t{number}")));
    for path in [part(0), part(2), directory.path().to_path_buf()] {
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!((checkpoint.files.len(), checkpoint.tensors.len()), (3, 3));
        assert_eq!(checkpoint.file_of("t1"), Some(part(1).as_path()));
    }
    write(1, 2, 3, 3, "t1");
    assert!(refusal(&part(0)).1.contains("split.no is 2; 1 was expected"));
    write(1, 1, 2, 3, "t1");
    assert!(refusal(&part(0)).1.contains("split.count is 2; 3 was expected"));
    write(1, 1, 3, 3, "t0");
    assert!(matches!(refusal(&part(0)).0, CheckpointError::DuplicateTensor { .. }));
    write(1, 1, 3, 3, "t1");
    write(0, 0, 3, 4, "t0");
    assert!(matches!(refusal(&part(1)).0, CheckpointError::PartTensors { found: 3, expected: 4, .. }));
    fs::remove_file(part(1)).unwrap();
    assert!(matches!(refusal(&part(0)).0, CheckpointError::PartMissing { part: 2, count: 3, .. }));
    fs::rename(part(0), directory.path().join("odd.gguf")).unwrap();
    assert!(matches!(refusal(&directory.path().join("odd.gguf")).0, CheckpointError::PartName { count: 3, .. }));
    assert!(matches!(refusal(directory.path()).0, CheckpointError::SeveralModels { .. }));
}

#[test]
fn hugging_face_directories_open_with_and_without_an_index() {
    let one = hugging_face(&[("model.safetensors", &["a", "b"])], None);
    for path in [one.path().to_path_buf(), one.path().join("model.safetensors")] {
        let checkpoint = Checkpoint::open(path).unwrap();
        let Kind::HuggingFace { config, .. } = &checkpoint.kind else { panic!("not Hugging Face") };
        assert_eq!(config["model_type"], "qwen3");
        assert_eq!(checkpoint.tensors.get("b").unwrap().shape, [2]);
    }
    let files: [(&str, &[&str]); 2] = [("m-1.safetensors", &["a"]), ("m-2.safetensors", &["b", "c"])];
    let several = hugging_face(&files, None);
    assert_eq!(Checkpoint::open(several.path()).unwrap().tensors.len(), 3);
    let index = r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors","c":"m-2.safetensors"}}"#;
    let indexed = hugging_face(&files, Some(index));
    for path in [indexed.path().to_path_buf(), indexed.path().join("m-2.safetensors")] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!((checkpoint.tensors.len(), checkpoint.notices.len()), (3, 0));
    }
    let short = hugging_face(&files, Some(r#"{"weight_map":{"a":"m-1.safetensors","b":"m-2.safetensors"}}"#));
    let checkpoint = Checkpoint::open(short.path()).unwrap();
    assert!(checkpoint.notices[0].contains("`c`"), "{:?}", checkpoint.notices);
}

#[test]
fn an_index_that_lies_is_refused() {
    let files: [(&str, &[&str]); 2] = [("m-1.safetensors", &["a"]), ("m-2.safetensors", &["b"])];
    let refuse = |index: &str, words: &str| {
        let directory = hugging_face(&files, Some(index));
        let (_, sentence) = refusal(directory.path());
        assert!(sentence.contains(words), "{sentence}");
    };
    for name in
        ["../m-1.safetensors", "/m-1.safetensors", "./m-1.safetensors", "x/m-1.safetensors", "..", "", "m-1.bin"]
    {
        refuse(&format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#), "plain name");
    }
    refuse(r#"{"weight_map":{"a":"x\\..\\m-1.safetensors"}}"#, "plain name");
    refuse(r#"{"weight_map":{"a":"m-2.safetensors","b":"m-2.safetensors"}}"#, "does not hold tensor `a`");
    refuse(r#"{"weight_map":{"z":"m-1.safetensors"}}"#, "does not hold tensor `z`");
    refuse(r#"{"weight_map":{"a":"m-3.safetensors"}}"#, "missing");
    refuse(r#"{"weight_map":{"a":"m-1.safetensors","a":"m-1.safetensors"}}"#, "twice");
    refuse(r#"{"weight_map":{"a":1}}"#, "`weight_map`, `a`");
    refuse(r#"{}"#, "no weight_map");
    let long = hugging_face(&files, Some(&format!(r#"{{"weight_map":"{}"}}"#, "x".repeat(100_000))));
    let (_, sentence) = refusal(long.path());
    assert!(sentence.len() < 1000 && sentence.contains("an object of file names"), "{sentence}");
    refuse("[]", "weight_map");
    let twice = hugging_face(&[("m-1.safetensors", &["a"]), ("m-2.safetensors", &["a"])], None);
    assert!(matches!(refusal(twice.path()).0, CheckpointError::DuplicateTensor { .. }));
}

#[test]
fn what_is_no_model_is_named() {
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    assert!(refusal(&at("absent")).1.contains("absent"));
    assert!(matches!(refusal(directory.path()).0, CheckpointError::NoModel { .. }));
    fs::write(at("notes.txt"), "hello").unwrap();
    assert!(matches!(refusal(directory.path()).0, CheckpointError::NoModel { .. }));
    assert!(matches!(refusal(&at("notes.txt")).0, CheckpointError::UnknownExtension { .. }));
    fs::write(at("pytorch_model.bin"), "PK").unwrap();
    assert!(refusal(directory.path()).1.contains("pytorch_model.bin"));
    fs::write(at("m.gguf"), "").unwrap();
    assert!(refusal(&at("m.gguf")).1.contains("not a GGUF file"));
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
    fs::write(at("m.gguf"), pointer).unwrap();
    assert!(refusal(directory.path()).1.contains("git lfs pull"));
    fs::remove_file(at("m.gguf")).unwrap();
    fs::write(at("model.safetensors"), pointer).unwrap();
    assert!(refusal(&at("model.safetensors")).1.contains("git lfs pull"));
    assert!(matches!(refusal(directory.path()).0, CheckpointError::NoConfig { .. }));
    for (config, words) in [("[]", "array"), ("{", "JSON"), (pointer, "git lfs pull")] {
        fs::write(at("config.json"), config).unwrap();
        assert!(refusal(directory.path()).1.contains(words));
    }
    fs::remove_file(at("model.safetensors")).unwrap();
    fs::remove_file(at("pytorch_model.bin")).unwrap();
    assert!(matches!(refusal(directory.path()).0, CheckpointError::NoWeights { .. }));
    fs::create_dir(at("d.gguf")).unwrap();
    assert!(matches!(refusal(directory.path()).0, CheckpointError::NotAFile { what: "directory", .. }));
}

#[cfg(unix)]
#[test]
fn loops_of_links_end() {
    let directory = tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::os::unix::fs::symlink(at("b.gguf"), at("a.gguf")).unwrap();
    std::os::unix::fs::symlink(at("a.gguf"), at("b.gguf")).unwrap();
    assert!(matches!(refusal(&at("a.gguf")).0, CheckpointError::Io { .. }));
    let whole = hugging_face(&[], Some(r#"{"weight_map":{"a":"a.safetensors"}}"#));
    let link = whole.path().join("a.safetensors");
    std::os::unix::fs::symlink(&link, &link).unwrap();
    assert!(matches!(refusal(whole.path()).0, CheckpointError::Io { .. }));
}

/// A GGUF of one or more tensors, by hand: (name, dimensions as stored, type, offset).
fn raw_gguf(version: [u8; 4], tensors: &[(&str, &[u64], u32, u64)], data: usize) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(version);
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(0u64.to_le_bytes());
    for (name, dims, kind, offset) in tensors {
        file.extend((name.len() as u64).to_le_bytes());
        file.extend(name.as_bytes());
        file.extend((dims.len() as u32).to_le_bytes());
        file.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
        file.extend(kind.to_le_bytes());
        file.extend(offset.to_le_bytes());
    }
    file.resize(file.len().next_multiple_of(32) + data, 0);
    file
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let says = |file: Vec<u8>, words: &[&str]| {
        let result = Checkpoint::from_gguf("m.gguf", file.into());
        let sentence = result.expect_err("it must be refused").to_string();
        assert!(words.iter().all(|word| sentence.contains(word)) && sentence.contains("m.gguf"), "{sentence}");
    };
    let v3 = [3, 0, 0, 0];
    let good: (&str, &[u64], u32, u64) = ("a", &[8], 0, 0);
    assert!(Checkpoint::from_gguf("m.gguf", raw_gguf([2, 0, 0, 0], &[good], 32).into()).is_ok());
    let apart = raw_gguf(v3, &[("b", &[8], 0, 64), good], 96);
    assert!(Checkpoint::from_gguf("m.gguf", apart.into()).is_ok(), "any order, with gaps");
    says(raw_gguf([0, 0, 0, 3], &[good], 32), &["big-endian"]);
    says(raw_gguf([1, 0, 0, 0], &[good], 32), &["version 1"]);
    says(raw_gguf(v3, &[("a", &[256], 16, 0)], 96), &["`a`", "16", "IQ2_XXS"]);
    says(raw_gguf(v3, &[("a", &[256], 99, 0)], 96), &["`a`", "99", "unknown"]);
    says(raw_gguf(v3, &[("a", &[33], 8, 0)], 96), &["`a`", "33", "q8_0", "32"]);
    says(raw_gguf(v3, &[("a", &[1; 5], 0, 0)], 96), &["`a`", "5 dimensions", "4"]);
    says(raw_gguf(v3, &[("a", &[1 << 62, 1 << 62], 0, 0)], 96), &["`a`", "address space"]);
    says(raw_gguf(v3, &[("a", &[8], 0, 8)], 96), &["`a`", "offset 8", "alignment, 32"]);
    says(raw_gguf(v3, &[("a", &[9], 0, 0)], 32), &["`a`", "36 bytes", "32 bytes long"]);
    says(raw_gguf(v3, &[good, good], 64), &["`a`", "twice"]);
    says(raw_gguf(v3, &[("a", &[9], 0, 0), ("b", &[8], 0, 32)], 96), &["`a`", "`b`", "overlap", "4 bytes"]);
    says(raw_gguf(v3, &[good, ("b", &[8], 0, 0)], 96), &["`a`", "`b`", "overlap"]);
}

#[test]
fn safetensors_that_do_not_fit_are_named() {
    let says = |header: &str, data: usize, words: &[&str]| {
        let directory = hugging_face(&[], None);
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.as_bytes());
        file.resize(file.len() + data, 0);
        let path = directory.path().join("model.safetensors");
        fs::write(&path, file).unwrap();
        let (_, sentence) = refusal(directory.path());
        assert!(
            words.iter().all(|word| sentence.contains(word)) && sentence.contains("model.safetensors"),
            "{sentence}"
        );
    };
    let entry = |name: &str, dtype: &str, shape: &str, offsets: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
    };
    let one = |dtype: &str, shape: &str, offsets: &str| format!("{{{}}}", entry("t", dtype, shape, offsets));
    let two = |second: String| format!("{{{},{second}}}", entry("t", "F32", "[2]", "[0,8]"));
    says(&one("F32", "[2]", "[0,8]"), 7, &["7 bytes", "end at 8"]);
    says(&one("F32", "[2]", "[0,8]"), 9, &["9 bytes", "end at 8"]);
    says(&one("F32", "[3]", "[0,8]"), 8, &["`t`", "8 bytes", "[3]", "12"]);
    says(&one("F32", "[2]", "[8,0]"), 8, &["`t`", "[8, 0]"]);
    says(&one("F32", "[2]", "[4,12]"), 12, &["`t`", "offset 4"]);
    says(&one("C64", "[1]", "[0,8]"), 8, &["`t`", "C64"]);
    says(&one("Q8", "[1]", "[0,8]"), 8, &["`t`", "`dtype`", "Q8"]);
    says(&one("F32", "[-1]", "[0,8]"), 8, &["`t`", "`shape`", "-1"]);
    says(&one("F32", "[4611686018427387904]", "[0,8]"), 8, &["`t`", "address space"]);
    says(r#"{"t":{"dtype":"F32","shape":[2]}}"#, 8, &["`t`", "data_offsets"]);
    says(&two(entry("t", "F32", "[2]", "[0,8]")), 8, &["`t`", "twice"]);
    says(&two(entry("u", "F32", "[2]", "[0,8]")), 8, &["offset 0", "end at 8"]);
    says(&two(entry("u", "F32", "[2]", "[12,20]")), 20, &["`u`", "offset 12"]);
    says("[]", 0, &["JSON object"]);
    says("{\"t\":", 0, &["`t`"]);
}
