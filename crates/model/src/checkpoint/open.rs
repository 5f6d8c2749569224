//! Finding and mapping the files of a model.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use kernels::bytes::Bytes;

use super::gguf::{self, Gguf};
use super::metadata::FromItem;
use super::{Checkpoint, CheckpointError, Kind, Tensor, Tensors, safetensors, show};

/// config.json of the largest published models is a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 16 << 20;
/// The index of DeepSeek-V3, with 91,991 tensors, is 9 MB.
const MAX_INDEX_BYTES: u64 = 100_000_000;
/// How a Git LFS pointer starts, and the size that its specification allows.
const LFS_START: &[u8] = b"version https://git-lfs";
const LFS_MAX_BYTES: u64 = 1024;
const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
const CONFIG_FILE: &str = "config.json";

/// Opens whatever lies at `path`.
pub(super) fn open(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let metadata = fs::metadata(path).map_err(|source| io_error(path, source))?;
    if metadata.is_dir() {
        return open_directory(path);
    }
    match extension(path) {
        Some("gguf") => open_gguf(path),
        Some("safetensors") => open_safetensors(path),
        _ => {
            // A file of no kind that we know may still be one that we can say something about.
            map(path)?;
            Err(CheckpointError::UnknownExtension { path: path.to_path_buf() })
        }
    }
}

/// Opens a GGUF that is in memory.
pub(super) fn from_gguf(label: PathBuf, bytes: Bytes) -> Result<Checkpoint, CheckpointError> {
    let gguf = gguf::parse(&bytes).map_err(|source| CheckpointError::Gguf { path: label.clone(), source })?;
    match split_count(&gguf, &label)? {
        Some(count) => Err(CheckpointError::PartMissing { path: label, part: if count > 1 { 2 } else { 1 }, count }),
        None => gguf_checkpoint(vec![(label, gguf)]),
    }
}

fn open_directory(directory: &Path) -> Result<Checkpoint, CheckpointError> {
    let names = file_names(directory)?;
    let has = |wanted: &str| names.contains(wanted);
    let of_kind = |kind: &str| names.iter().filter(|name| extension(Path::new(name)) == Some(kind)).collect::<Vec<_>>();
    let (stored, ggufs) = (of_kind("safetensors"), of_kind("gguf"));
    let path = || directory.to_path_buf();
    if has(INDEX_FILE) || !stored.is_empty() {
        if !has(CONFIG_FILE) {
            return Err(CheckpointError::NoConfig { path: path() });
        }
        let mut notices = Vec::new();
        if has(SINGLE_FILE) {
            if has(INDEX_FILE) {
                notices.push(format!("{}: {SINGLE_FILE} is read, {INDEX_FILE} beside it is not", directory.display()));
            }
            return open_hugging_face(directory, vec![directory.join(SINGLE_FILE)], notices);
        }
        if has(INDEX_FILE) {
            return open_indexed(directory);
        }
        let files = stored.iter().map(|name| directory.join(name)).collect();
        return open_hugging_face(directory, files, notices);
    }
    if !ggufs.is_empty() {
        return open_gguf(&directory.join(only_gguf(directory, &ggufs)?));
    }
    if let Some(example) = names.iter().find(|name| matches!(extension(Path::new(name)), Some("bin" | "pt" | "pth"))) {
        return Err(CheckpointError::PyTorch { path: path(), example: show(example.as_bytes()) });
    }
    if has(CONFIG_FILE) {
        return Err(CheckpointError::NoWeights { path: path() });
    }
    Err(CheckpointError::NoModel { path: path() })
}

/// The GGUF of a directory to open: the only file, or the first of the only split set.
fn only_gguf<'a>(directory: &Path, names: &[&'a String]) -> Result<&'a String, CheckpointError> {
    let set = |name: &str| part_of(name).map(|part| (part.prefix.to_owned(), part.count));
    let first = set(names[0]);
    if names.len() == 1 || (first.is_some() && names.iter().all(|name| set(name) == first)) {
        return Ok(names[0]);
    }
    let shown: Vec<String> = names.iter().take(6).map(|name| show(name.as_bytes())).collect();
    let more = if names.len() > shown.len() { ", …" } else { "" };
    let names = format!("{}{more}", shown.join(", "));
    Err(CheckpointError::SeveralModels { path: directory.to_path_buf(), names })
}

/// Opens a safetensors file beside its config.json; if an index lists the file, all files of the index.
fn open_safetensors(file: &Path) -> Result<Checkpoint, CheckpointError> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !directory.join(CONFIG_FILE).exists() {
        // A pointer file explains itself better than a missing config does.
        map(file)?;
        return Err(CheckpointError::NoConfig { path: directory.to_path_buf() });
    }
    let index = directory.join(INDEX_FILE);
    if index.exists() {
        let pairs = read_index(&index)?;
        if pairs.iter().any(|(_, name)| file.file_name() == Some(name.as_ref())) {
            return open_indexed(directory);
        }
    }
    open_hugging_face(directory, vec![file.to_path_buf()], Vec::new())
}

fn read_index(path: &Path) -> Result<Vec<(String, String)>, CheckpointError> {
    let text = read_text(path, MAX_INDEX_BYTES)?;
    safetensors::parse_index(&text).map_err(|source| CheckpointError::Index { path: path.to_path_buf(), source })
}

/// Opens the files that the index names, and compares what they hold with what it says.
fn open_indexed(directory: &Path) -> Result<Checkpoint, CheckpointError> {
    let index = directory.join(INDEX_FILE);
    let pairs = read_index(&index)?;
    let names: BTreeSet<&String> = pairs.iter().map(|(_, file)| file).collect();
    let files: Vec<PathBuf> = names.iter().map(|name| directory.join(name)).collect();
    if let Some(path) = files.iter().find(|path| is_missing(path)) {
        return Err(CheckpointError::ShardMissing { path: path.clone(), index });
    }
    let mut checkpoint = open_hugging_face(directory, files, Vec::new())?;
    for (tensor, file) in &pairs {
        let path = directory.join(file);
        if checkpoint.file_of(tensor) != Some(&path) {
            return Err(CheckpointError::NotInShard { path, index, tensor: show(tensor.as_bytes()) });
        }
    }
    // Names are unique on both sides and every listed one was found.
    let unlisted = checkpoint.tensors.len() - pairs.len();
    if unlisted > 0 {
        let listed: BTreeSet<&String> = pairs.iter().map(|(tensor, _)| tensor).collect();
        let example = checkpoint.tensors.iter().find(|tensor| !listed.contains(&tensor.name));
        let example = example.map(|tensor| show(tensor.name.as_bytes())).unwrap_or_default();
        checkpoint.notices.push(format!(
            "{}: the files hold {unlisted} tensors that the index does not list, such as `{example}`; they are read too",
            index.display()
        ));
    }
    Ok(checkpoint)
}

fn open_hugging_face(
    directory: &Path,
    files: Vec<PathBuf>,
    notices: Vec<String>,
) -> Result<Checkpoint, CheckpointError> {
    let config = read_config(&directory.join(CONFIG_FILE))?;
    let mut tensors = Tensors::default();
    for (number, path) in files.iter().enumerate() {
        let parsed = safetensors::parse(&map(path)?)
            .map_err(|source| CheckpointError::Safetensors { path: path.clone(), source })?;
        insert_all(&mut tensors, parsed.tensors, number, &files)?;
    }
    let kind = Kind::HuggingFace { config, directory: directory.to_path_buf() };
    Ok(Checkpoint { kind, tensors, files, notices })
}

fn read_config(path: &Path) -> Result<serde_json::Value, CheckpointError> {
    let text = read_text(path, MAX_CONFIG_BYTES)?;
    let config: serde_json::Value =
        serde_json::from_slice(&text).map_err(|source| CheckpointError::Json { path: path.to_path_buf(), source })?;
    let found = match config {
        serde_json::Value::Object(_) => return Ok(config),
        serde_json::Value::Array(_) => "array",
        serde_json::Value::String(_) => "string",
        serde_json::Value::Number(_) => "number",
        serde_json::Value::Bool(_) => "bool",
        serde_json::Value::Null => "null",
    };
    Err(CheckpointError::ConfigNotObject { path: path.to_path_buf(), found })
}

/// The place of a file in a split set, from its name.
struct Part<'a> {
    prefix: &'a str,
    number: u32,
    count: u32,
}

/// Reads a name of the form `PREFIX-00001-of-00003.gguf`.
fn part_of(name: &str) -> Option<Part<'_>> {
    let stem = name.strip_suffix(".gguf")?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (prefix, number) = stem.rsplit_once('-')?;
    let five_digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !five_digits(number) || !five_digits(count) {
        return None;
    }
    let (number, count) = (number.parse().ok()?, count.parse().ok()?);
    (1..=count).contains(&number).then_some(Part { prefix, number, count })
}

/// Opens a GGUF file and, if it is part of a split set, the others of the set.
fn open_gguf(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let opened = parse_gguf(path)?;
    let Some(count) = split_count(&opened, path)? else {
        return gguf_checkpoint(vec![(path.to_path_buf(), opened)]);
    };
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let part = match part_of(name) {
        Some(part) if part.count == count => part,
        _ => return Err(CheckpointError::PartName { path: path.to_path_buf(), count }),
    };
    let part_path = |number: u32| path.with_file_name(format!("{}-{number:05}-of-{count:05}.gguf", part.prefix));
    // All of them must be there before the first is read.
    for number in 1..=count {
        if is_missing(&part_path(number)) {
            return Err(CheckpointError::PartMissing { path: part_path(number), part: number, count });
        }
    }
    let mut opened = Some(opened);
    let mut parts = Vec::new();
    for number in 1..=count {
        let path = part_path(number);
        let gguf = match opened.take_if(|_| number == part.number) {
            Some(opened) => opened,
            None => parse_gguf(&path)?,
        };
        check_part(&gguf, &path, number, count)?;
        parts.push((path, gguf));
    }
    check_split_tensors(&parts)?;
    gguf_checkpoint(parts)
}

fn parse_gguf(path: &Path) -> Result<Gguf, CheckpointError> {
    gguf::parse(&map(path)?).map_err(|source| CheckpointError::Gguf { path: path.to_path_buf(), source })
}

/// A whole number of the metadata; the error says what else it is.
fn split_field(gguf: &Gguf, path: &Path, key: &'static str) -> Result<Option<u32>, CheckpointError> {
    let Some(value) = gguf.metadata.get(key) else { return Ok(None) };
    u32::from_item(value.item()).map(Some).ok_or_else(|| CheckpointError::PartField {
        path: path.to_path_buf(),
        key,
        found: value.item().to_string(),
        expected: "a whole number".to_owned(),
    })
}

/// The number of parts, if the file is one of several.
fn split_count(gguf: &Gguf, path: &Path) -> Result<Option<u32>, CheckpointError> {
    Ok(split_field(gguf, path, "split.count")?.filter(|&count| count > 1))
}

/// Checks that the file at the place of part `number` says that it is that part.
fn check_part(gguf: &Gguf, path: &Path, number: u32, count: u32) -> Result<(), CheckpointError> {
    for (key, expected) in [("split.count", count), ("split.no", number - 1)] {
        let found = split_field(gguf, path, key)?;
        if found != Some(expected) {
            let found = found.map_or("missing".to_owned(), |found| found.to_string());
            let (path, expected) = (path.to_path_buf(), expected.to_string());
            return Err(CheckpointError::PartField { path, key, found, expected });
        }
    }
    Ok(())
}

/// Compares the tensors of all parts with the number that the first part gives.
fn check_split_tensors(parts: &[(PathBuf, Gguf)]) -> Result<(), CheckpointError> {
    let Some((path, first)) = parts.first() else { return Ok(()) };
    let key = "split.tensors.count";
    let expected = split_field(first, path, key)?.ok_or_else(|| CheckpointError::PartField {
        path: path.clone(),
        key,
        found: "missing".to_owned(),
        expected: "the number of tensors".to_owned(),
    })?;
    let found: usize = parts.iter().map(|(_, gguf)| gguf.tensors.len()).sum();
    if found != expected as usize {
        return Err(CheckpointError::PartTensors { path: path.clone(), found, expected });
    }
    Ok(())
}

/// Joins the parts of a GGUF; the metadata is that of the first.
fn gguf_checkpoint(parts: Vec<(PathBuf, Gguf)>) -> Result<Checkpoint, CheckpointError> {
    let files: Vec<PathBuf> = parts.iter().map(|(path, _)| path.clone()).collect();
    let mut tensors = Tensors::default();
    let mut metadata = None;
    for (number, (path, gguf)) in parts.into_iter().enumerate() {
        insert_all(&mut tensors, gguf.tensors, number, &files)?;
        metadata.get_or_insert_with(|| gguf.metadata.of_file(&path));
    }
    let metadata = metadata.unwrap_or_default();
    Ok(Checkpoint { kind: Kind::Gguf { metadata }, tensors, files, notices: Vec::new() })
}

/// Adds the tensors of file `number`; a name that is there already is an error.
fn insert_all(
    tensors: &mut Tensors,
    new: Vec<Tensor>,
    number: usize,
    files: &[PathBuf],
) -> Result<(), CheckpointError> {
    for tensor in new {
        let name = show(tensor.name.as_bytes());
        if let Err(index) = tensors.insert(tensor, number) {
            let other = files[tensors.file[index]].clone();
            return Err(CheckpointError::DuplicateTensor { path: files[number].clone(), other, tensor: name });
        }
    }
    Ok(())
}

/// Names of the entries of a directory, in order; names that are not UTF-8 cannot be of a model.
fn file_names(directory: &Path) -> Result<BTreeSet<String>, CheckpointError> {
    let entries = fs::read_dir(directory).map_err(|source| io_error(directory, source))?;
    let mut names = BTreeSet::new();
    for entry in entries {
        let entry = entry.map_err(|source| io_error(directory, source))?;
        // Hidden files are editors' and downloaders' (`._model.safetensors`), not models.
        if let Ok(name) = entry.file_name().into_string()
            && !name.starts_with('.')
        {
            names.insert(name);
        }
    }
    Ok(names)
}

fn extension(path: &Path) -> Option<&str> {
    path.extension().and_then(|extension| extension.to_str())
}

/// Whether nothing is at `path`. A loop of links or a forbidden file is something, and is reported when it is opened.
fn is_missing(path: &Path) -> bool {
    matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn io_error(path: &Path, source: io::Error) -> CheckpointError {
    CheckpointError::Io { path: path.to_path_buf(), source }
}

/// Opens a regular file that is not a Git LFS pointer; its size is returned too. Looking before
/// opening matters: opening a pipe would wait for its writer.
fn open_file(path: &Path) -> Result<(File, u64), CheckpointError> {
    let metadata = fs::metadata(path).map_err(|source| io_error(path, source))?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "directory" } else { "device, pipe or socket" };
        return Err(CheckpointError::NotAFile { path: path.to_path_buf(), what });
    }
    let file = File::open(path).map_err(|source| io_error(path, source))?;
    let size = metadata.len();
    if size <= LFS_MAX_BYTES {
        let mut start = Vec::new();
        (&file).take(LFS_MAX_BYTES).read_to_end(&mut start).map_err(|source| io_error(path, source))?;
        if start.starts_with(LFS_START) {
            return Err(CheckpointError::LfsPointer { path: path.to_path_buf(), size });
        }
    }
    Ok((file, size))
}

fn map(path: &Path) -> Result<Bytes, CheckpointError> {
    let (file, _) = open_file(path)?;
    Bytes::map(&file).map_err(|source| io_error(path, source))
}

/// The content of a file that is at most `limit` bytes long.
fn read_text(path: &Path, limit: u64) -> Result<Bytes, CheckpointError> {
    let (file, size) = open_file(path)?;
    if size > limit {
        return Err(CheckpointError::TooLong { path: path.to_path_buf(), size, limit });
    }
    Bytes::map(&file).map_err(|source| io_error(path, source))
}
