//! One file: from the hub to `NAME.part`, checked, then to `NAME`.
//!
//! Whatever is in `NAME.part` is hashed again before it is continued, so the hash always covers the bytes on the
//! disk. Pieces are only joined when they belong together: the commit is pinned, `Content-Range` has to start where
//! the part ends and name the listed size, and the ETag has to be the one of the first piece. A server that ignores
//! `Range`, or changes the ETag, makes the file start again from its beginning.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ureq::http::HeaderMap;
use ureq::http::header;

use crate::api::{RemoteFile, file_path};
use crate::error::{PullError, clip};
use crate::hash::{Hasher, is_hex};
use crate::http::{Answer, Client, Fault};
use crate::progress::{Event, Progress};
use crate::reference::Reference;
use crate::store::{create_directories, free_bytes, sync_directory};

/// How much further a try has to come than all before it for the count of failures to start again.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Read at a time.
const BUFFER_BYTES: usize = 128 << 10;

/// What to download and where to.
pub(crate) struct Job<'a> {
    pub(crate) client: &'a Client<'a>,
    pub(crate) reference: &'a Reference,
    pub(crate) commit: &'a str,
    pub(crate) file: &'a RemoteFile,
    pub(crate) directory: &'a Path,
    pub(crate) progress: &'a dyn Progress,
}

/// The name of an unfinished download.
pub(crate) fn part_path(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_os_string();
    name.push(".part");
    PathBuf::from(name)
}

/// Makes the file complete and verified. Returns how many bytes came over the network.
pub(crate) fn fetch(job: &Job<'_>) -> Result<u64, PullError> {
    let file = job.file;
    let target = job.directory.join(&file.path);
    job.progress.event(Event::File { path: &file.path, size_bytes: file.size_bytes });
    if target.symlink_metadata().is_ok() {
        check_existing(job, &target)?;
        job.progress.event(Event::FileDone { path: &file.path });
        return Ok(0);
    }
    let parent = target.parent().unwrap_or(job.directory);
    create_directories(parent)?;
    let mut part = Part::open(job, part_path(&target))?;
    let mut received_bytes = 0;
    loop {
        let from_disk = part.position > 0;
        receive(job, &mut part, &mut received_bytes)?;
        let found = part.hasher.clone().finish();
        if found == file.hash.hex() {
            break;
        }
        if !from_disk {
            std::fs::remove_file(&part.path).map_err(PullError::io(&part.path))?;
            return Err(PullError::HashMismatch {
                file: file.path.clone(),
                algorithm: file.hash.algorithm(),
                expected: file.hash.hex().to_string(),
                found,
            });
        }
        // What an earlier run left may be damaged (power lost before the disk had it); one whole download decides.
        part.restart(job)?;
    }
    part.file.sync_all().map_err(PullError::io(&part.path))?;
    std::fs::rename(&part.path, &target).map_err(PullError::io(&target))?;
    sync_directory(parent)?;
    job.progress.event(Event::FileDone { path: &file.path });
    Ok(received_bytes)
}

/// A file with its final name that no manifest vouches for: it was verified before it got the name, and is again.
fn check_existing(job: &Job<'_>, target: &Path) -> Result<(), PullError> {
    let in_the_way = |why: String| PullError::InTheWay { path: target.to_path_buf(), why };
    let metadata = target.symlink_metadata().map_err(PullError::io(target))?;
    if !metadata.is_file() {
        return Err(in_the_way("it is not a regular file".to_string()));
    }
    if metadata.len() != job.file.size_bytes {
        return Err(in_the_way(format!("it has {} bytes, not {}", metadata.len(), job.file.size_bytes)));
    }
    let mut hasher = Hasher::new(&job.file.hash, job.file.size_bytes);
    let opened = File::open(target).map_err(PullError::io(target))?;
    hash_with_progress(job, &mut hasher, opened).map_err(PullError::io(target))?;
    if job.progress.cancelled() {
        return Err(PullError::Cancelled);
    }
    let found = hasher.finish();
    if found == job.file.hash.hex() {
        Ok(())
    } else {
        Err(in_the_way(format!("its {} is {found}", job.file.hash.algorithm())))
    }
}

fn hash_with_progress(job: &Job<'_>, hasher: &mut Hasher, from: impl Read) -> io::Result<u64> {
    hasher.read_all(from, |bytes| {
        job.progress.event(Event::Position { bytes });
        !job.progress.cancelled()
    })
}

/// An open `NAME.part`; `hasher` has seen its first `position` bytes.
struct Part {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    position: u64,
    /// The ETag that the first piece of this process came with.
    etag: Option<String>,
}

impl Part {
    fn open(job: &Job<'_>, path: PathBuf) -> Result<Self, PullError> {
        if path.symlink_metadata().is_ok_and(|metadata| !metadata.is_file()) {
            return Err(PullError::InTheWay { path, why: "it is not a regular file".to_string() });
        }
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let file = opened.map_err(PullError::io(&path))?;
        let hasher = Hasher::new(&job.file.hash, job.file.size_bytes);
        let mut part = Self { path, file, hasher, position: 0, etag: None };
        let length = part.file.metadata().map_err(PullError::io(&part.path))?.len();
        if length > job.file.size_bytes {
            part.restart(job)?;
            return Ok(part);
        }
        let hashed = hash_with_progress(job, &mut part.hasher, &part.file);
        part.position = hashed.map_err(PullError::io(&part.path))?;
        if job.progress.cancelled() {
            return Err(PullError::Cancelled);
        }
        Ok(part)
    }

    fn restart(&mut self, job: &Job<'_>) -> Result<(), PullError> {
        self.file.set_len(0).map_err(PullError::io(&self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(PullError::io(&self.path))?;
        self.hasher = Hasher::new(&job.file.hash, job.file.size_bytes);
        self.position = 0;
        self.etag = None;
        job.progress.event(Event::Position { bytes: 0 });
        Ok(())
    }

    fn append(&mut self, job: &Job<'_>, bytes: &[u8]) -> Result<(), PullError> {
        self.file.write_all(bytes).map_err(|cause| {
            if cause.kind() == io::ErrorKind::StorageFull {
                let path = job.directory.to_path_buf();
                let needed_bytes = job.file.size_bytes - self.position;
                return PullError::NoSpace { available_bytes: free_bytes(&path).unwrap_or(0), path, needed_bytes };
            }
            PullError::io(&self.path)(cause)
        })?;
        self.hasher.update(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }
}

/// Receives until the part has the listed size, over as many connections as it takes.
fn receive(job: &Job<'_>, part: &mut Part, received_bytes: &mut u64) -> Result<(), PullError> {
    let mut failures = 0;
    let mut farthest = part.position;
    while part.position < job.file.size_bytes {
        let Err(fault) = receive_piece(job, part, received_bytes) else { continue };
        if part.position >= farthest.saturating_add(PROGRESS_BYTES) {
            failures = 0;
        }
        farthest = farthest.max(part.position);
        failures += 1;
        job.client.pause_after(fault, failures, job.progress)?;
    }
    Ok(())
}

/// One request, and as much of its body as comes.
fn receive_piece(job: &Job<'_>, part: &mut Part, received_bytes: &mut u64) -> Result<(), Fault> {
    let path = file_path(job.reference, job.commit, &job.file.path);
    let from_byte = (part.position > 0).then_some(part.position);
    let answer = match job.client.get(&path, from_byte) {
        Err(Fault::Final(error @ PullError::Status { status: 416, .. })) if from_byte.is_some() => {
            part.restart(job)?;
            return Err(Fault::Passing(error, None));
        }
        answer => answer?,
    };
    check_unchanged(job, &answer.hub_headers)?;
    join_piece(job, part, &answer, from_byte, &path)?;
    let host = answer.host.clone();
    let mut body = answer.body.into_reader();
    let mut buffer = vec![0; BUFFER_BYTES];
    while part.position < job.file.size_bytes {
        if job.progress.cancelled() {
            return Err(PullError::Cancelled.into());
        }
        let broken = |cause: &dyn std::fmt::Display| Fault::Passing(job.client.unreachable(&host, cause), None);
        let count = match body.read(&mut buffer) {
            Ok(0) => return Err(broken(&format!("{} ended after {} bytes", job.file.path, part.position))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(&error)),
        };
        *received_bytes += count as u64;
        if count as u64 > job.file.size_bytes - part.position {
            let why = format!("it is longer than the {} bytes that the hub lists", job.file.size_bytes);
            part.restart(job)?;
            return Err(job.client.answer_error(&path, why).into());
        }
        part.append(job, &buffer[..count])?;
        job.progress.event(Event::Position { bytes: part.position });
    }
    Ok(())
}

/// What the hub itself says of the file has to be what its list said.
fn check_unchanged(job: &Job<'_>, hub_headers: &HeaderMap) -> Result<(), PullError> {
    let text = |name: &str| hub_headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(commit) = text("x-repo-commit")
        && commit != job.commit
    {
        return Err(changed(job, format!("it comes from commit {}, not {}", clip(commit, 60), job.commit)));
    }
    if let Some(etag) = text("x-linked-etag").map(bare_etag)
        && is_hex(etag, job.file.hash.hex().len())
        && etag != job.file.hash.hex()
    {
        return Err(changed(job, format!("it now has the hash {etag}, not {}", job.file.hash.hex())));
    }
    Ok(())
}

/// Checks that the answer continues the part; starts the part again where the answer is the whole file.
fn join_piece(
    job: &Job<'_>,
    part: &mut Part,
    answer: &Answer,
    from_byte: Option<u64>,
    path: &str,
) -> Result<(), Fault> {
    let text = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
    let etag = text(header::ETAG).map(|etag| bare_etag(etag).to_string());
    let differs = matches!((&part.etag, &etag), (Some(before), Some(now)) if before != now);
    let size_bytes = job.file.size_bytes;
    if answer.status == 206 {
        let range = text(header::CONTENT_RANGE).unwrap_or_default();
        let (Some(from_byte), Some((start, total_bytes))) = (from_byte, parse_content_range(range)) else {
            let why = format!("HTTP 206 with the Content-Range {:?}", clip(range, 60));
            return Err(job.client.answer_error(path, why).into());
        };
        if total_bytes.is_some_and(|total_bytes| total_bytes != size_bytes) {
            return Err(changed(job, format!("its Content-Range is {range}, the listed size {size_bytes}")).into());
        }
        if start != from_byte {
            let why = format!("asked for bytes from {from_byte}, it sends {range}");
            return Err(job.client.answer_error(path, why).into());
        }
        if differs {
            part.restart(job)?;
            let error = job.client.answer_error(path, "its ETag changed during the download");
            return Err(Fault::Passing(error, None));
        }
    } else {
        if answer.body.content_length().is_some_and(|bytes| bytes != size_bytes) {
            let bytes = answer.body.content_length().unwrap_or(0);
            return Err(changed(job, format!("it has {bytes} bytes, the list says {size_bytes}")).into());
        }
        if from_byte.is_some() {
            part.restart(job)?;
        }
    }
    part.etag = etag.or(part.etag.take());
    Ok(())
}

fn changed(job: &Job<'_>, why: String) -> PullError {
    PullError::Changed {
        model: job.reference.model(),
        file: job.file.path.clone(),
        why,
        directory: job.directory.to_path_buf(),
    }
}

fn bare_etag(etag: &str) -> &str {
    etag.trim().trim_start_matches("W/").trim_matches('"')
}

/// `bytes 10-99/100` to (10, 100); the total may be `*`.
fn parse_content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end): (u64, u64) = (start.parse().ok()?, end.parse().ok()?);
    let total = if total == "*" { None } else { Some(total.parse::<u64>().ok()?) };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, total))
}

#[cfg(test)]
mod tests {
    use super::parse_content_range;

    #[test]
    fn content_ranges() {
        assert_eq!(parse_content_range("bytes 10-99/100"), Some((10, Some(100))));
        assert_eq!(parse_content_range("bytes 10-99/*"), Some((10, None)));
        for text in ["", "bytes */100", "bytes 10-100/100", "bytes 99-10/100", "bytes -1-5/10", "items 1-2/3"] {
            assert_eq!(parse_content_range(text), None, "{text}");
        }
    }
}
