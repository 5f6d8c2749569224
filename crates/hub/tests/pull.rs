//! `pull` against a hub on 127.0.0.1 that behaves, fails and lies. Nothing here leaves the machine or reads or
//! changes the environment of this process.

mod fake_hub;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fake_hub::{FakeHub, Random, Reply, Repo, Seen, entry_json, noise, sha256};
use hub::{Config, Event, Progress, PullError, Reference, Retry, Silent, State, Store, StoreError, Token};

struct Setup {
    hub: FakeHub,
    config: Config,
    home: tempfile::TempDir,
}

/// A hub with this behaviour, an empty store, and retries that do not slow the tests down.
fn setup(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Setup {
    let hub = FakeHub::start(answer);
    let home = tempfile::tempdir().unwrap();
    let mut config = Config::new(home.path());
    config.endpoint = hub.url();
    config.retry =
        Retry { attempts: 4, first_pause: Duration::from_millis(1), longest_pause: Duration::from_millis(1500) };
    config.stall_timeout = Duration::from_secs(5);
    Setup { hub, config, home }
}

impl Setup {
    fn pull(&self, reference: &str) -> Result<hub::Pulled, PullError> {
        hub::pull(&self.config, &Reference::parse(reference).unwrap(), &Silent)
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.home.path().join("models").join(path)
    }

    fn store(&self) -> Store {
        Store::new(self.home.path())
    }
}

/// A small model: config, tokenizer, one weight file of 300,000 bytes.
fn tiny() -> Repo {
    let weights = noise(1, 300_000);
    Repo::new(
        "org/tiny",
        'a',
        &[
            ("config.json", b"{\"model_type\": \"llama\"}"),
            ("model.safetensors", &weights),
            ("pytorch_model.bin", b"never taken"),
            ("tokenizer.json", b"{}"),
        ],
    )
}

fn gguf_repo() -> Repo {
    let part = |seed| noise(seed, 5000);
    Repo::new(
        "org/quants",
        'b',
        &[
            ("README.md", b"# quants"),
            ("tiny-Q4_K_M.gguf", &part(2)),
            ("tiny-Q8_0.gguf", &part(3)),
            ("BF16/tiny-BF16-00001-of-00002.gguf", &part(4)),
            ("BF16/tiny-BF16-00002-of-00002.gguf", &part(5)),
        ],
    )
}

/// A hub that answers as `repo` does, but for files as `change` makes of that answer.
fn with_files(repo: Repo, change: impl Fn(&Seen, Reply) -> Reply + Send + Sync + 'static) -> Setup {
    setup(move |request| {
        let reply = repo.answer(request);
        if request.path.contains("/resolve/") { change(request, reply) } else { reply }
    })
}

fn files_below(path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            names.extend(files_below(&entry.path()));
        } else {
            names.push(entry.file_name().into_string().unwrap());
        }
    }
    names.sort();
    names
}

#[test]
fn a_model_arrives_whole() {
    let repo = tiny();
    let setup = setup({
        let repo = repo.clone();
        move |request| repo.answer(request)
    });
    let pulled = setup.pull("org/tiny").unwrap();
    assert_eq!((pulled.files, pulled.commit.as_str()), (3, repo.commit.as_str()));
    assert_eq!(pulled.received_bytes, pulled.size_bytes);
    let directory = setup.path("org/tiny");
    assert_eq!(
        files_below(&directory),
        ["config.json", "fathom-manifest.json", "model.safetensors", "tokenizer.json"],
        "no parts, no record, no pickle"
    );
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert_eq!(std::fs::read(directory.join(name)).unwrap(), repo.files[name], "{name}");
    }
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(directory.join("fathom-manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["commit"], repo.commit);
    assert_eq!(manifest["files"][1]["hash"]["sha256"], sha256(&repo.files["model.safetensors"]));
    assert_eq!(manifest["files"][1]["size_bytes"], 300_000);

    let models = setup.store().list().unwrap();
    assert_eq!((models.len(), models[0].name.as_str(), &models[0].state), (1, "org/tiny", &State::Complete));
    assert!(models[0].size_bytes > 300_000);
    assert_eq!(setup.store().resolve("org/tiny").unwrap(), directory);

    let before = setup.hub.downloads().len();
    assert_eq!(setup.pull("org/tiny").unwrap().received_bytes, 0);
    assert_eq!(setup.hub.downloads().len(), before, "a second pull downloads nothing");
    assert!(setup.hub.seen().iter().all(|seen| seen.header("authorization").is_none()), "no token, no header");
}

#[cfg(unix)]
#[test]
fn directories_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let setup = with_files(tiny(), |_, reply| reply);
    setup.pull("org/tiny").unwrap();
    for path in ["org/tiny", "org", ""] {
        let mode = setup.path(path).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{path:?}");
    }
}

#[test]
fn cut_connections_resume_without_repeating_a_byte() {
    for seed in 1..=8u64 {
        let random = Mutex::new(Random(seed.wrapping_mul(0x1234_5678_9ABC_DEF1)));
        let setup = with_files(tiny(), move |_, mut reply| {
            // Cuts until the rest is small, always somewhere else; some pieces are empty.
            if reply.body.len() > 1000 {
                let cut = random.lock().unwrap().below(reply.body.len());
                reply.cut_after = Some(if cut.is_multiple_of(7) { 0 } else { cut });
            }
            reply
        });
        let mut config = setup.config.clone();
        config.retry.attempts = 200;
        config.retry.longest_pause = Duration::from_millis(1);
        let pulled = hub::pull(&config, &Reference::parse("org/tiny").unwrap(), &Silent).unwrap();
        assert_eq!(std::fs::read(setup.path("org/tiny/model.safetensors")).unwrap(), noise(1, 300_000), "seed {seed}");
        assert_eq!(pulled.received_bytes, pulled.size_bytes, "seed {seed}: each byte once");
        let resumed = setup.hub.downloads().iter().filter(|seen| seen.range_start().is_some_and(|at| at > 0)).count();
        assert!(resumed > 0, "seed {seed}: resumed by Range");
    }
}

#[test]
fn giving_up_keeps_the_part_and_the_next_pull_goes_on() {
    let hub_is_well = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let setup = with_files(tiny(), {
        let hub_is_well = hub_is_well.clone();
        move |request, mut reply| {
            if request.path.ends_with(".safetensors") && !hub_is_well.load(Ordering::SeqCst) {
                reply.cut_after = Some(if request.range_start().is_some() { 0 } else { 100_000 });
            }
            reply
        }
    });
    let error = setup.pull("org/tiny").unwrap_err();
    assert!(matches!(error, PullError::Unreachable { .. }), "{error}");
    let tries = setup.hub.downloads().iter().filter(|seen| seen.path.ends_with(".safetensors")).count();
    assert_eq!(tries, 4, "as many as configured");
    assert_eq!(setup.path("org/tiny/model.safetensors.part").metadata().unwrap().len(), 100_000);
    assert_eq!(setup.store().list().unwrap()[0].state, State::Partial);
    assert!(matches!(setup.store().resolve("org/tiny"), Err(StoreError::Incomplete { .. })));

    hub_is_well.store(true, Ordering::SeqCst);
    let pulled = setup.pull("org/tiny").unwrap();
    assert_eq!(
        setup.hub.downloads().iter().rfind(|seen| seen.path.ends_with("rs")).unwrap().range_start(),
        Some(100_000)
    );
    assert!(pulled.received_bytes < 200_100);
    assert_eq!(setup.store().list().unwrap()[0].state, State::Complete);
}

/// Stops at the first event of a file beyond some bytes, as a user with Ctrl-C would.
struct StopAt(u64, Cell<bool>);

impl Progress for StopAt {
    fn event(&self, event: Event<'_>) {
        if matches!(event, Event::Position { bytes } if bytes >= self.0) {
            self.1.set(true);
        }
    }

    fn cancelled(&self) -> bool {
        self.1.get()
    }
}

#[test]
fn a_stopped_pull_goes_on() {
    let setup = with_files(tiny(), |_, reply| reply);
    let reference = Reference::parse("org/tiny").unwrap();
    let error = hub::pull(&setup.config, &reference, &StopAt(1000, Cell::new(false))).unwrap_err();
    assert!(matches!(error, PullError::Cancelled), "{error}");
    assert!(!setup.path("org/tiny/fathom-manifest.json").exists());
    setup.pull("org/tiny").unwrap();
    assert_eq!(std::fs::read(setup.path("org/tiny/model.safetensors")).unwrap(), noise(1, 300_000));
}

#[test]
fn an_unfinished_pull_stays_with_its_commit_when_main_moves() {
    let old = tiny();
    let mut new = Repo { commit: "c".repeat(40), ..tiny() };
    new.files.insert("config.json".to_string(), b"{\"model_type\": \"other\"}".to_vec());
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let setup = setup({
        let moved = moved.clone();
        move |request: &Seen| {
            let is_old_commit = request.path.contains(&old.commit);
            let repo = if moved.load(Ordering::SeqCst) && !is_old_commit { &new } else { &old };
            repo.answer(request)
        }
    });
    let reference = Reference::parse("org/tiny").unwrap();
    hub::pull(&setup.config, &reference, &StopAt(1000, Cell::new(false))).unwrap_err();
    moved.store(true, Ordering::SeqCst);
    assert_eq!(setup.pull("org/tiny").unwrap().commit, "a".repeat(40));
    // Complete now: the new main differs in a file, which is said and not overwritten.
    let error = setup.pull("org/tiny").unwrap_err();
    assert!(matches!(&error, PullError::Changed { file, .. } if file == "config.json"), "{error}");
    assert_eq!(std::fs::read(setup.path("org/tiny/config.json")).unwrap(), b"{\"model_type\": \"llama\"}");
    assert_eq!(setup.pull(&format!("org/tiny@{}", "c".repeat(40))).unwrap().commit, "c".repeat(40));
}

#[test]
fn wrong_content_is_thrown_away() {
    for bad_file in ["model.safetensors", "config.json"] {
        let setup = with_files(tiny(), move |request, mut reply| {
            if request.path.ends_with(bad_file) {
                let middle = reply.body.len() / 2;
                reply.body[middle] ^= 1;
            }
            reply
        });
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(matches!(&error, PullError::HashMismatch { file, .. } if file == bad_file), "{error}");
        assert!(!setup.path("org/tiny").join(bad_file).exists());
        assert!(!setup.path(&format!("org/tiny/{bad_file}.part")).exists());
        assert!(!setup.path("org/tiny/fathom-manifest.json").exists());
    }
}

#[test]
fn a_damaged_part_costs_one_whole_download() {
    let setup = with_files(tiny(), |_, reply| reply);
    std::fs::create_dir_all(setup.path("org/tiny")).unwrap();
    for (name, content) in [("model.safetensors.part", noise(9, 200_000)), ("tokenizer.json.part", noise(9, 50))] {
        std::fs::write(setup.path("org/tiny").join(name), content).unwrap();
    }
    let pulled = setup.pull("org/tiny").unwrap();
    assert_eq!(std::fs::read(setup.path("org/tiny/model.safetensors")).unwrap(), noise(1, 300_000));
    assert_eq!(pulled.received_bytes, pulled.size_bytes + 100_000, "the rest, then all of it");
}

#[test]
fn the_token_stays_with_the_hub() {
    let repo = tiny();
    let store = FakeHub::start({
        let repo = repo.clone();
        move |request| repo.file_answer(request.path.rsplit('/').next().unwrap(), request.range_start())
    });
    let store_url = store.url();
    let mut setup = with_files(repo, move |request, reply| {
        let file = request.path.rsplit('/').next().unwrap();
        if request.path.contains("/moved/") || !file.ends_with(".safetensors") {
            return reply;
        }
        Reply { body: Vec::new(), ..reply }.header("Location", format!("{store_url}/signed/{file}")).status(302)
    });
    setup.config.token = Some(Token::new("hf_secret").unwrap());
    setup.pull("org/tiny").unwrap();
    assert!(!setup.hub.seen().is_empty() && store.seen().len() == 1);
    assert!(setup.hub.seen().iter().all(|seen| seen.header("authorization") == Some("Bearer hf_secret")));
    assert!(store.seen().iter().all(|seen| seen.header("authorization").is_none()), "another port is another host");
}

trait WithStatus {
    fn status(self, status: u16) -> Self;
}

impl WithStatus for Reply {
    fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

#[test]
fn redirects_are_bounded_and_checked() {
    let to = |location: &'static str| with_files(tiny(), move |_, _| Reply::new(302, "").header("Location", location));
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/x", "http://user@127.0.0.1/x", "http://", ""] {
        let error = to(location).pull("org/tiny").unwrap_err();
        assert!(matches!(error, PullError::Redirect { .. }), "{location}: {error}");
    }
    let endless = to("/org/tiny/resolve/again");
    let error = endless.pull("org/tiny").unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
    assert!(endless.hub.downloads().len() <= 10);
}

#[test]
fn an_expired_address_of_the_file_store_is_asked_for_again() {
    let repo = tiny();
    let count = AtomicUsize::new(0);
    let store = FakeHub::start({
        let repo = repo.clone();
        move |request| match count.fetch_add(1, Ordering::SeqCst) {
            0 => Reply::new(403, "expired"),
            _ => repo.file_answer("model.safetensors", request.range_start()),
        }
    });
    let store_url = store.url();
    let setup = with_files(repo, move |request, reply| match request.path.ends_with(".safetensors") {
        true => Reply::new(302, "").header("Location", &store_url),
        false => reply,
    });
    setup.pull("org/tiny").unwrap();
    assert_eq!(store.seen().len(), 2);
}

#[test]
fn refusals_say_what_to_do() {
    let answers = |status: u16, code: &'static str, token: bool| {
        let mut setup = setup(move |_| Reply::new(status, "{}").header("X-Error-Code", code));
        setup.config.token = token.then(|| Token::new("hf_secret").unwrap());
        let error = setup.pull("org/tiny@v9").unwrap_err();
        assert_eq!(setup.hub.seen().len(), 1, "{status} {code}: asking again would not help");
        assert!(!error.to_string().contains("hf_secret"));
        assert!(!setup.path("org").exists(), "a failure before the first file leaves nothing behind");
        error
    };
    for (status, token) in [(401, false), (403, true)] {
        let error = answers(status, "GatedRepo", token);
        assert!(matches!(error, PullError::Gated { .. }));
        let text = error.to_string();
        assert!(text.contains("accept its licence at http://127.0.0.1") && text.contains("HF_TOKEN"), "{text}");
    }
    assert!(matches!(answers(404, "RepoNotFound", false), PullError::NotFound { status: 404, .. }));
    assert!(matches!(answers(401, "", false), PullError::NotFound { status: 401, .. }));
    assert!(answers(401, "", true).to_string().contains("not valid"));
    assert!(answers(403, "", true).to_string().contains("licence"));
    assert!(
        matches!(answers(404, "RevisionNotFound", false), PullError::NoRevision { revision, .. } if revision == "v9")
    );
    assert!(matches!(answers(400, "", false), PullError::Status { status: 400, .. }));
}

/// Remembers the pauses.
#[derive(Default)]
struct Pauses(RefCell<Vec<Duration>>);

impl Progress for Pauses {
    fn event(&self, event: Event<'_>) {
        if let Event::Retry { pause, .. } = event {
            self.0.borrow_mut().push(pause);
        }
    }
}

#[test]
fn slowing_down_when_asked() {
    let busy = |retry_after: &'static str, times: usize, status: u16| {
        let repo = tiny();
        let count = AtomicUsize::new(0);
        let setup = setup(move |request| match count.fetch_add(1, Ordering::SeqCst) < times {
            true if retry_after.is_empty() => Reply::new(status, ""),
            true => Reply::new(status, "").header("Retry-After", retry_after),
            false => repo.answer(request),
        });
        let pauses = Pauses::default();
        let result = hub::pull(&setup.config, &Reference::parse("org/tiny").unwrap(), &pauses);
        (result, pauses.0.into_inner())
    };
    let (result, pauses) = busy("1", 1, 429);
    assert_eq!((result.is_ok(), pauses), (true, vec![Duration::from_secs(1)]));
    let (result, pauses) = busy("3600", 1, 429);
    assert!(matches!(result, Err(PullError::RateLimited { seconds: 3600, .. })) && pauses.is_empty());
    let millis = |list: &[u64]| list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
    let (result, pauses) = busy("Wed, 21 Oct 2026 07:28:00 GMT", 2, 429);
    assert_eq!((result.is_ok(), pauses), (true, millis(&[1, 2])));
    let (result, pauses) = busy("", 3, 503);
    assert_eq!((result.is_ok(), pauses), (true, millis(&[1, 2, 4])));
    let (result, _) = busy("", 4, 500);
    assert!(matches!(result, Err(PullError::Status { status: 500, .. })), "{result:?}");
}

#[test]
fn silence_counts_as_a_broken_connection() {
    let count = AtomicUsize::new(0);
    let mut setup = with_files(tiny(), move |_, reply| {
        let delay = Duration::from_secs(if count.fetch_add(1, Ordering::SeqCst) == 0 { 2 } else { 0 });
        Reply { delay, ..reply }
    });
    setup.config.stall_timeout = Duration::from_millis(300);
    let start = Instant::now();
    setup.pull("org/tiny").unwrap();
    assert!(start.elapsed() < Duration::from_millis(1900), "did not wait for the silent answer");
}

#[test]
fn names_that_escape_end_the_pull() {
    let names =
        ["../evil.safetensors", "/tmp/evil.safetensors", "a/../../evil.gguf", "..\\evil.gguf", "C:evil.gguf", "x\ny"];
    for name in names {
        let repo = tiny();
        let tree = format!("[{}, {}]", entry_json("config.json", b"{}"), entry_json(name, b"evil"));
        let setup = setup(move |request| match request.path.contains("/tree/") {
            true => Reply::new(200, tree.clone()),
            false => repo.answer(request),
        });
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(matches!(error, PullError::UnsafeName { .. }), "{name:?}: {error}");
        assert!(!setup.path("").exists() && setup.hub.downloads().is_empty(), "{name:?}");
    }
}

#[test]
fn unusual_names_do_no_harm() {
    let mut repo = tiny();
    for name in ["figures/a b.png", "résumé.md", "a..b/c", "-rf.safetensors", ".gitattributes", "fathom-manifest.json"]
    {
        repo.files.insert(name.to_string(), b"x".to_vec());
    }
    let setup = with_files(repo, |_, reply| reply);
    assert_eq!(setup.pull("org/tiny").unwrap().files, 3);
}

#[test]
fn answers_that_are_too_large_or_no_answers() {
    let large = |reply: fn() -> Reply| {
        let setup = setup(move |_| reply());
        let start = Instant::now();
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        error
    };
    let claimed = large(|| Reply::new(200, "{").header("Content-Length", (1u64 << 40).to_string()));
    assert!(claimed.to_string().contains("larger than 64 MiB"), "{claimed}");
    let sent = large(|| Reply { no_length: true, ..Reply::new(200, vec![b' '; (64 << 20) + 2]) });
    assert!(sent.to_string().contains("larger than 64 MiB"), "{sent}");
    for body in ["", "{}", "[]", "{\"sha\": 1}", "{\"sha\": \"../../x\"}", "{\"sha\": \"ABC\"}", "<html>"] {
        let setup = setup(move |_| Reply::new(200, body));
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(matches!(error, PullError::Answer { .. }), "{body}: {error}");
    }
    let nested = large(|| Reply::new(200, "[".repeat(1 << 20)));
    assert!(matches!(nested, PullError::Answer { .. }), "{nested}");
}

#[test]
fn file_lists_that_lie() {
    let with_tree = |tree: String| {
        let repo = tiny();
        let setup = setup(move |request| match request.path.contains("/tree/") {
            true => Reply::new(200, tree.clone()),
            false => repo.answer(request),
        });
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(setup.hub.downloads().is_empty() && !setup.path("org").exists());
        error
    };
    let config = entry_json("config.json", b"{}");
    let weights = |size: &str, oid: &str| {
        format!(
            "{{\"type\": \"file\", \"path\": \"model.safetensors\", \"size\": 1, \"oid\": \"x\", \
             \"lfs\": {{\"oid\": \"{oid}\", \"size\": {size}}}}}"
        )
    };
    let hash = "0".repeat(64);
    let error = with_tree(format!("[{config}, {}]", weights("1152921504606846976", &hash)));
    assert!(matches!(error, PullError::NoSpace { .. }), "{error}");
    for size in ["18446744073709551615", "18446744073709551616", "-1", "1.5", "null", "\"1\""] {
        let error = with_tree(format!("[{config}, {}]", weights(size, &hash)));
        assert!(matches!(error, PullError::Answer { .. }), "{size}: {error}");
    }
    for oid in ["", "zz", &hash[1..], &"G".repeat(64)] {
        let error = with_tree(format!("[{config}, {}]", weights("1", oid)));
        assert!(matches!(error, PullError::Answer { .. }), "{oid}: {error}");
    }
    assert!(with_tree(format!("[{config}, {config}]")).to_string().contains("twice"));
    let many: Vec<String> = (0..100_001).map(|i| entry_json(&format!("f{i}"), b"")).collect();
    assert!(with_tree(format!("[{}]", many.join(","))).to_string().contains("100000"));
}

#[test]
fn a_server_that_ignores_range() {
    let repo = tiny();
    let count = AtomicUsize::new(0);
    let setup = with_files(repo.clone(), move |request, reply| {
        if !request.path.ends_with(".safetensors") {
            return reply;
        }
        let whole = repo.file_answer("model.safetensors", None);
        let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
        Reply { cut_after: is_first.then_some(150_000), ..whole }
    });
    let pulled = setup.pull("org/tiny").unwrap();
    assert_eq!(std::fs::read(setup.path("org/tiny/model.safetensors")).unwrap(), noise(1, 300_000));
    assert_eq!(pulled.received_bytes, pulled.size_bytes + 150_000);
}

/// Answers for the weight file only: the first is cut in the middle, the second is made by `second`.
fn second_piece(second: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Setup {
    let count = AtomicUsize::new(0);
    with_files(tiny(), move |request, mut reply| {
        if !request.path.ends_with(".safetensors") {
            return reply;
        }
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => {
                reply.cut_after = Some(150_000);
                reply
            }
            1 => second(reply),
            _ => reply,
        }
    })
}

fn replace(mut reply: Reply, name: &str, value: &str) -> Reply {
    reply.headers.retain(|(header, _)| header != name);
    reply.header(name, value)
}

#[test]
fn pieces_that_do_not_belong_together() {
    let etag = second_piece(|reply| replace(reply, "ETag", "\"another\""));
    let pulled = etag.pull("org/tiny").unwrap();
    assert_eq!(pulled.received_bytes, pulled.size_bytes + 150_000, "starts again from the beginning");

    let other = "9".repeat(64);
    let linked = second_piece(move |reply| replace(reply, "X-Linked-Etag", &format!("\"{other}\"")));
    assert!(matches!(linked.pull("org/tiny"), Err(PullError::Changed { .. })));
    let commit = second_piece(|reply| replace(reply, "X-Repo-Commit", &"d".repeat(40)));
    assert!(matches!(commit.pull("org/tiny"), Err(PullError::Changed { .. })));
    let total = second_piece(|reply| replace(reply, "Content-Range", "bytes 150000-299999/300001"));
    assert!(matches!(total.pull("org/tiny"), Err(PullError::Changed { .. })));
    for range in ["bytes 149999-299998/300000", "bytes 0-299999/300000", "garbage", ""] {
        let setup = second_piece(move |reply| replace(reply, "Content-Range", range));
        let error = setup.pull("org/tiny").unwrap_err();
        assert!(matches!(error, PullError::Answer { .. }), "{range}: {error}");
    }
    let gone = second_piece(|_| Reply::new(416, ""));
    let pulled = gone.pull("org/tiny").unwrap();
    assert_eq!(pulled.received_bytes, pulled.size_bytes + 150_000);
}

#[test]
fn bodies_of_another_length() {
    let longer = with_files(tiny(), |_, mut reply| {
        reply.body.extend_from_slice(b"more");
        reply.no_length = true;
        reply
    });
    let error = longer.pull("org/tiny").unwrap_err();
    assert!(error.to_string().contains("longer than"), "{error}");
    let declared = with_files(tiny(), |_, mut reply| {
        reply.body.extend_from_slice(b"more");
        reply
    });
    assert!(matches!(declared.pull("org/tiny"), Err(PullError::Changed { .. })));
    let unsized_body = with_files(tiny(), |_, reply| Reply { no_length: true, ..reply });
    unsized_body.pull("org/tiny").unwrap();
}

#[test]
fn an_endpoint_with_a_path() {
    let repo = tiny();
    let mut setup = setup(move |request| {
        let mut request = request.clone();
        match request.path.strip_prefix("/mirror/hf") {
            Some(path) => request.path = path.to_string(),
            None => return Reply::new(500, "outside the prefix"),
        }
        repo.answer(&request)
    });
    setup.config.endpoint = format!("{}/mirror/hf/", setup.hub.url());
    setup.pull("org/tiny").unwrap();
    assert!(setup.hub.seen().iter().all(|seen| seen.path.starts_with("/mirror/hf/")));
}

#[test]
fn long_lists_come_in_pages() {
    let repo = tiny();
    let entries: Vec<String> = repo.files.iter().map(|(path, content)| entry_json(path, content)).collect();
    let mut setup = setup(move |request| {
        if !request.path.contains("/tree/") {
            return repo.answer(request);
        }
        let page = request.path.split_once("cursor=").map_or(0, |(_, page)| page.parse().unwrap());
        let reply = Reply::new(200, format!("[{}]", entries[page]));
        if page + 1 == entries.len() {
            return reply;
        }
        // As behind a mirror that does not rewrite links: the address is the original hub's.
        let link = format!("<https://huggingface.co/api/x?recursive=true&cursor={}>; rel=\"next\"", page + 1);
        reply.header("Link", link)
    });
    setup.config.token = Some(Token::new("hf_secret").unwrap());
    assert_eq!(setup.pull("org/tiny").unwrap().files, 3);
    assert_eq!(setup.hub.seen().iter().filter(|seen| seen.path.contains("/tree/")).count(), 4);

    let repo = tiny();
    let endless = self::setup(move |request| match request.path.contains("/tree/") {
        true => Reply::new(200, "[]").header("Link", "</x?cursor=same>; rel=\"next\""),
        false => repo.answer(request),
    });
    let error = endless.pull("org/tiny").unwrap_err();
    assert!(error.to_string().contains("do not end"), "{error}");
    assert!(endless.hub.seen().len() < 10);
}

#[test]
fn revisions_live_side_by_side() {
    let main = tiny();
    let mut tagged = Repo { commit: "c".repeat(40), revisions: vec!["v1".to_string()], ..tiny() };
    tagged.files.insert("config.json".to_string(), b"{\"old\": 1}".to_vec());
    let setup = setup(move |request| {
        let is_tagged = request.path.contains(&tagged.commit) || request.path.ends_with("/v1");
        if is_tagged { tagged.answer(request) } else { main.answer(request) }
    });
    setup.pull("org/tiny").unwrap();
    setup.pull("org/tiny@v1").unwrap();
    assert_eq!(std::fs::read(setup.path("org/tiny@v1/config.json")).unwrap(), b"{\"old\": 1}");
    assert_eq!(std::fs::read(setup.path("org/tiny/config.json")).unwrap(), b"{\"model_type\": \"llama\"}");
    let names: Vec<String> = setup.store().list().unwrap().into_iter().map(|model| model.name).collect();
    assert_eq!(names, ["org/tiny", "org/tiny@v1"]);
    assert_eq!(setup.store().resolve("org/tiny@v1").unwrap(), setup.path("org/tiny@v1"));
    assert!(matches!(setup.pull("org/tiny@v2"), Err(PullError::NoRevision { .. })));
}

#[test]
fn gguf_by_quantisation() {
    let setup = with_files(gguf_repo(), |_, reply| reply);
    let store = setup.store();
    assert!(matches!(store.resolve("org/quants:q4_k_m"), Err(StoreError::NotPulled { .. })));
    setup.pull("org/quants:q4_k_m").unwrap();
    assert_eq!(store.resolve("org/quants:Q4_K_M").unwrap(), setup.path("org/quants/tiny-Q4_K_M.gguf"));
    assert_eq!(store.resolve("org/quants").unwrap(), setup.path("org/quants/tiny-Q4_K_M.gguf"), "the only one");
    setup.pull("org/quants:BF16").unwrap();
    let first = setup.path("org/quants/BF16/tiny-BF16-00001-of-00002.gguf");
    assert_eq!(store.resolve("org/quants:bf16").unwrap(), first);
    assert!(matches!(store.resolve("org/quants"), Err(StoreError::Choose { available, .. }) if available.len() == 2));
    assert!(matches!(store.resolve("org/quants:Q8_0"), Err(StoreError::NotPulled { .. })));
    let models = store.list().unwrap();
    assert_eq!(models[0].kind, Some(hub::Kind::Gguf(vec!["BF16".to_string(), "Q4_K_M".to_string()])));
    let error = setup.pull("org/quants:Q5_K_S").unwrap_err();
    assert!(error.to_string().contains("Q8_0 (5.00 kB)"), "{error}");
}

#[test]
fn one_pull_of_a_model_at_a_time() {
    let setup = with_files(tiny(), |_, reply| reply);
    let store = setup.store();
    let lock = store.lock(&Reference::parse("org/tiny").unwrap()).unwrap();
    let error = setup.pull("org/tiny").unwrap_err();
    assert!(matches!(error, PullError::Store(StoreError::Busy { .. })), "{error}");
    assert!(setup.hub.seen().is_empty());
    drop(lock);
    setup.pull("org/tiny").unwrap();
}

#[test]
fn files_in_the_way_are_not_overwritten() {
    let setup = with_files(tiny(), |_, reply| reply);
    std::fs::create_dir_all(setup.path("org/tiny")).unwrap();
    let path = setup.path("org/tiny/config.json");
    std::fs::write(&path, "mine").unwrap();
    let error = setup.pull("org/tiny").unwrap_err();
    assert!(matches!(error, PullError::InTheWay { .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn nobody_there() {
    let mut setup = setup(|_| Reply::new(500, ""));
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    setup.config.endpoint = format!("http://127.0.0.1:{port}");
    assert!(matches!(setup.pull("org/tiny"), Err(PullError::Unreachable { .. })));
    // Something that does not speak TLS.
    setup.config.stall_timeout = Duration::from_millis(200);
    setup.config.endpoint = setup.hub.url().replace("http:", "https:");
    assert!(matches!(setup.pull("org/tiny"), Err(PullError::Tls { .. } | PullError::Unreachable { .. })));
}

/// Killed for real: this test starts itself as another process, kills it in the middle of the file, and goes on.
#[cfg(unix)]
#[test]
fn a_killed_process_leaves_what_the_next_one_needs() {
    const CHILD: &str = "FATHOM_HUB_TEST_CHILD";
    if let Ok(child) = std::env::var(CHILD) {
        let (endpoint, home) = child.split_once(' ').unwrap();
        let mut config = Config::new(home);
        config.endpoint = endpoint.to_string();
        hub::pull(&config, &Reference::parse("org/tiny").unwrap(), &Silent).unwrap();
        return;
    }
    let count = AtomicUsize::new(0);
    let setup = with_files(tiny(), move |request, mut reply| {
        if request.path.ends_with(".safetensors") && count.fetch_add(1, Ordering::SeqCst) == 0 {
            reply.cut_after = Some(200_000);
        } else if request.path.ends_with(".safetensors") && count.load(Ordering::SeqCst) == 2 {
            // The child waits here for its end.
            reply.delay = Duration::from_secs(3);
        }
        reply
    });
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_process_leaves_what_the_next_one_needs"])
        .env(CHILD, format!("{} {}", setup.config.endpoint, setup.home.path().display()))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let part = setup.path("org/tiny/model.safetensors.part");
    let deadline = Instant::now() + Duration::from_secs(30);
    while part.metadata().map_or(0, |metadata| metadata.len()) < 200_000 {
        assert!(Instant::now() < deadline, "the child does not get on");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(setup.store().list().unwrap()[0].state, State::Partial);
    let pulled = setup.pull("org/tiny").unwrap();
    assert_eq!(pulled.received_bytes, 100_000 + 2, "the rest of the weights, and the tokenizer");
    assert_eq!(setup.store().verify(&Reference::parse("org/tiny").unwrap(), &Silent).unwrap(), pulled.size_bytes);
}
