//! A model hub on 127.0.0.1: a small HTTP/1.1 server over `std::net`, one thread a connection, everything bounded.
//! A test gives it a function from request to reply; [`Repo`] is the well-behaved one to start from.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::{Digest, Sha1};
use sha2::Sha256;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of `Range: bytes=N-`.
    pub(crate) fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What to answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Leave `Content-Length` out: the body ends with the connection.
    pub(crate) no_length: bool,
    /// Close the connection after so many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Say nothing for so long before the answer.
    pub(crate) delay: Duration,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_string(), value.into()));
        self
    }
}

pub(crate) struct FakeHub {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

const CONNECTIONS_LIMIT: usize = 500;
const HEAD_LIMIT_BYTES: usize = 64 << 10;

impl FakeHub {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (seen, stop) = (seen.clone(), stop.clone());
            std::thread::spawn(move || serve(&listener, &seen, &stop, &Arc::new(answer)))
        };
        Self { address, seen, stop, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests for files, by their path.
    pub(crate) fn downloads(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.path.contains("/resolve/")).collect()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve<F>(listener: &TcpListener, seen: &Arc<Mutex<Vec<Seen>>>, stop: &AtomicBool, answer: &Arc<F>)
where
    F: Fn(&Seen) -> Reply + Send + Sync + 'static,
{
    let mut workers = Vec::new();
    for stream in listener.incoming().take(CONNECTIONS_LIMIT) {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (seen, answer) = (seen.clone(), answer.clone());
        workers.push(std::thread::spawn(move || {
            if let Some(request) = read_request(&stream) {
                seen.lock().unwrap().push(request.clone());
                // The client may be gone on purpose.
                let _ = send(stream, &answer(&request));
            }
        }));
    }
    for worker in workers {
        let _ = worker.join();
    }
}

fn read_request(mut stream: &TcpStream) -> Option<Seen> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_LIMIT_BYTES {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let path = lines.next()?.strip_prefix("GET ")?.split(' ').next()?.to_string();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_string())).collect();
    Some(Seen { path, headers })
}

fn send(mut stream: TcpStream, reply: &Reply) -> std::io::Result<()> {
    std::thread::sleep(reply.delay);
    let mut head = format!("HTTP/1.1 {} X\r\nConnection: close\r\n", reply.status);
    if !reply.no_length {
        let overridden = reply.headers.iter().any(|(name, _)| name == "Content-Length");
        if !overridden {
            head += &format!("Content-Length: {}\r\n", reply.body.len());
        }
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let body = &reply.body[..reply.cut_after.unwrap_or(reply.body.len()).min(reply.body.len())];
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

/// A repository at one commit, served as the hub serves it.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub(crate) model: String,
    /// Revision names that stand for the commit, besides the commit itself.
    pub(crate) revisions: Vec<String>,
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
}

impl Repo {
    pub(crate) fn new(model: &str, commit_digit: char, files: &[(&str, &[u8])]) -> Self {
        Self {
            model: model.to_string(),
            revisions: vec!["main".to_string()],
            commit: commit_digit.to_string().repeat(40),
            files: files.iter().map(|(path, content)| (path.to_string(), content.to_vec())).collect(),
        }
    }

    /// The answer of a hub that does everything right.
    pub(crate) fn answer(&self, request: &Seen) -> Reply {
        let path = request.path.split('?').next().unwrap();
        let api = format!("/api/models/{}", self.model);
        if let Some(revision) = path.strip_prefix(&format!("{api}/revision/")) {
            if revision == self.commit || self.revisions.iter().any(|known| known == revision) {
                return Reply::new(200, format!("{{\"id\": \"{}\", \"sha\": \"{}\"}}", self.model, self.commit));
            }
            return Reply::new(404, "").header("X-Error-Code", "RevisionNotFound");
        }
        if path == format!("{api}/tree/{}", self.commit) {
            return Reply::new(200, self.tree_json());
        }
        match path.strip_prefix(&format!("/{}/resolve/{}/", self.model, self.commit)) {
            Some(file) if self.files.contains_key(file) => self.file_answer(file, request.range_start()),
            Some(_) => Reply::new(404, "").header("X-Error-Code", "EntryNotFound"),
            None => Reply::new(404, "").header("X-Error-Code", "RepoNotFound"),
        }
    }

    pub(crate) fn tree_json(&self) -> String {
        let entries: Vec<String> = self.files.iter().map(|(path, content)| entry_json(path, content)).collect();
        format!("[{}]", entries.join(","))
    }

    pub(crate) fn file_answer(&self, file: &str, range_start: Option<usize>) -> Reply {
        let content = &self.files[file];
        let reply = match range_start {
            Some(start) if start >= content.len() => {
                return Reply::new(416, "").header("Content-Range", format!("bytes */{}", content.len()));
            }
            Some(start) => {
                let range = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
                Reply::new(206, &content[start..]).header("Content-Range", range)
            }
            None => Reply::new(200, content.clone()),
        };
        let etag = format!("\"{}\"", if is_lfs(file) { sha256(content) } else { git_sha1(content) });
        reply.header("X-Repo-Commit", &self.commit).header("X-Linked-Etag", &etag).header("ETag", &etag)
    }
}

pub(crate) fn entry_json(path: &str, content: &[u8]) -> String {
    let lfs = if is_lfs(path) {
        let oid = sha256(content);
        format!(", \"lfs\": {{\"oid\": \"{oid}\", \"size\": {}, \"pointerSize\": 134}}", content.len())
    } else {
        String::new()
    };
    let oid = git_sha1(content);
    format!("{{\"type\": \"file\", \"path\": {path:?}, \"size\": {}, \"oid\": \"{oid}\"{lfs}}}", content.len())
}

fn is_lfs(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".gguf")
}

pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn git_sha1(content: &[u8]) -> String {
    let mut sha = Sha1::new();
    sha.update(format!("blob {}\0", content.len()));
    sha.update(content);
    sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not repeat (xorshift), so that a piece at a wrong place is noticed.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    (0..length).map(|_| (random.next() >> 32) as u8).collect()
}

pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}
