//! Programs that a model wrote, run so that they cannot touch the machine.
//!
//! Python runs in namespaces of its own (user, mounts, processes, network, IPC, host name) with a root that holds the
//! system's libraries read-only, a small folder in memory to write to, and nothing else: no home, no network, no other
//! processes, no capabilities, and limits on time, memory, processes and files. The tools are those of util-linux
//! (`unshare`, `mount`, `pivot_root`, `prlimit`, `setpriv`), which every Linux distribution has. Kernels that do not
//! let a user make namespaces, and other systems, have no sandbox.
//!
//! It is not trusted to work: [`Sandbox::open`] first runs a program that tries what must not be possible, and refuses
//! where it could do any of it. There is no way to run a program without the sandbox.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const JAIL: &str = include_str!("jail.sh");
const PROBE: &str = include_str!("probe.py");
/// Where the tools are looked for; a user's own folders are not.
const TOOL_FOLDERS: [&str; 4] = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"];
const TOOLS: [&str; 8] = ["unshare", "sh", "mount", "umount", "pivot_root", "prlimit", "setpriv", "python3"];
/// Most bytes of what a program prints that are kept; the rest is read and dropped.
const OUTPUT_BYTES_MAX: usize = 1 << 16;
/// Largest program.
const PROGRAM_BYTES_MAX: usize = 1 << 20;

/// Why programs are not run.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A tool is missing.
    #[error("programs are run in a sandbox only, which needs {0}; it is not in /usr/bin, /bin, /usr/sbin or /sbin")]
    Missing(&'static str),
    /// It could not be set up.
    #[error("programs are run in a sandbox only, and it cannot be set up here: {0}")]
    Failed(String),
    /// Something inside could be done that must not.
    #[error("programs are run in a sandbox only, and inside it a program could {0}; none is run")]
    Leaks(String),
    /// The program is too large.
    #[error("a program has {0} bytes; the limit is {PROGRAM_BYTES_MAX}")]
    TooLarge(usize),
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// By itself, with success.
    Passed,
    /// With an error, whose last line this is.
    Failed(String),
    /// It took too long.
    TimedOut,
}

/// A sandbox that was tried.
pub struct Sandbox {
    python: PathBuf,
    /// The folder that Python's library is in.
    prefix: PathBuf,
}

impl Sandbox {
    /// Finds the tools and tries the sandbox.
    ///
    /// # Errors
    /// If a tool is missing, it cannot be set up, or something inside could be done that must not.
    pub fn open() -> Result<Sandbox, SandboxError> {
        if !cfg!(target_os = "linux") {
            return Err(SandboxError::Failed("it is made of Linux's namespaces".into()));
        }
        for tool in TOOLS {
            if !TOOL_FOLDERS.iter().any(|folder| Path::new(folder).join(tool).is_file()) {
                return Err(SandboxError::Missing(tool));
            }
        }
        // Linux counts no processes of root, in whatever namespace.
        if is_root() {
            return Err(SandboxError::Leaks("start processes without end, since root has no limit of them".into()));
        }
        let sandbox = Sandbox { python: "/usr/bin/python3".into(), prefix: "/usr".into() };
        sandbox.probe()?;
        Ok(sandbox)
    }

    /// Runs a program for at most `seconds`.
    ///
    /// # Errors
    /// If it is too large, or the sandbox cannot be set up.
    pub fn run(&self, program: &str, seconds: u64) -> Result<Ran, SandboxError> {
        let ended = self.execute(program, &[], seconds)?;
        Ok(match (ended.timed_out, ended.success) {
            (true, _) => Ran::TimedOut,
            (false, true) => Ran::Passed,
            (false, false) => {
                let last = ended.error.trim_end().lines().next_back().unwrap_or("it ended with an error");
                Ran::Failed(last.chars().take(200).collect())
            }
        })
    }

    fn probe(&self) -> Result<(), SandboxError> {
        let failed = |error: std::io::Error| SandboxError::Failed(error.to_string());
        // Something to find: a file of the user's and a port that answers.
        let folder = Folder::new().map_err(failed)?;
        let secret = folder.0.join("secret");
        std::fs::write(&secret, "secret").map_err(failed)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        let number = port.local_addr().map_err(failed)?.port().to_string();
        let words = [self.prefix.to_string_lossy().into_owned(), secret.to_string_lossy().into_owned(), number];
        let ended = self.execute(PROBE, &words, 20)?;
        drop(std::fs::remove_file(&secret));
        match ended.output.trim() {
            "nothing" if ended.success => Ok(()),
            "" => Err(SandboxError::Failed(ended.error.trim().lines().next_back().unwrap_or("no reason").to_string())),
            could => Err(SandboxError::Leaks(could.to_string())),
        }
    }

    fn execute(&self, program: &str, words: &[String], seconds: u64) -> Result<Ended, SandboxError> {
        if program.len() > PROGRAM_BYTES_MAX {
            return Err(SandboxError::TooLarge(program.len()));
        }
        let failed = |error: std::io::Error| SandboxError::Failed(error.to_string());
        let root = Folder::new().map_err(failed)?;
        let mut child = Command::new("unshare")
            .env_clear()
            .env("PATH", TOOL_FOLDERS.join(":"))
            .args(["--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--ipc", "--uts"])
            .args(["--kill-child=SIGKILL", "sh", "-c", JAIL, "jail"])
            // A program that only computes is ended by the clock, not by the limit on processor time.
            .args([root.0.as_os_str(), self.prefix.as_os_str(), (seconds + 1).to_string().as_ref()])
            .args([self.python.as_os_str(), "-I".as_ref(), "-".as_ref()])
            .args(words)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let readers = [child.stdout.take().map(kept), child.stderr.take().map(kept_error)];
        let writer = child.stdin.take().map(|mut stdin| {
            let program = program.to_string();
            // A program that ended before it was read whole is no error of ours.
            std::thread::spawn(move || drop(stdin.write_all(program.as_bytes())))
        });
        let (success, timed_out) = waited(&mut child, Duration::from_secs(seconds)).map_err(failed)?;
        let [output, error] = readers.map(|reader| reader.and_then(|r| r.join().ok()).unwrap_or_default());
        writer.map(std::thread::JoinHandle::join);
        Ok(Ended { success, timed_out, output, error })
    }
}

/// How a process ended, and what it printed.
struct Ended {
    success: bool,
    timed_out: bool,
    output: String,
    error: String,
}

type Reader = std::thread::JoinHandle<String>;

fn kept(from: std::process::ChildStdout) -> Reader {
    std::thread::spawn(move || beginning(from))
}

fn kept_error(from: std::process::ChildStderr) -> Reader {
    std::thread::spawn(move || beginning(from))
}

/// The first bytes of what is printed; all of it is read, so that nobody waits for room.
fn beginning(mut from: impl Read) -> String {
    let (mut all, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = from.read(&mut piece) {
        let room = OUTPUT_BYTES_MAX - all.len();
        all.extend_from_slice(&piece[..n.min(room)]);
    }
    String::from_utf8_lossy(&all).into_owned()
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_none_or(|ids| ids.split_whitespace().any(|id| id == "0"))
}

/// Whether a process ended with success, and whether it had to be ended. Its children end with it: they are in its
/// namespace of processes.
fn waited(child: &mut Child, limit: Duration) -> std::io::Result<(bool, bool)> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok((status.success(), false));
        }
        if begun.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok((false, true));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A folder that is removed again; what is mounted on it inside a namespace is not seen outside.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Folder> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fathom-sandbox-{}-{number}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}
