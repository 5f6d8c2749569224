//! `fathom serve`: the HTTP API and the web chat on a model.

use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use engine::compute::ModelCompute;
use engine::limits::Limits as EngineLimits;
use engine::request::Pooling;
use engine::sampler::Sampling;
use engine::step::Engine;
use model::cache::Cache;
use serde_json::Value;
use server::prompt_cache::{Part, PromptCacheOptions, identity};
use server::{Allowed, Embedder, Handle, Options, Served, Server};

use crate::answer::today;
use crate::built_in::{self, BuiltIn};
use crate::opened::Opened;
use crate::options::{DraftsArgs, MachineArgs};
use crate::terminal::{INTERRUPTED, note, print};

/// Serve a model: an API for DeepSeek's, OpenAI's and Anthropic's clients, and a chat in the browser
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom serve ORG/NAME
  fathom serve model.gguf --listen 127.0.0.1:9000
  fathom keys new laptop && fathom serve ORG/NAME --listen 0.0.0.0:8080

Without API keys only this machine can use the server, and needs none. From the first key on (`fathom keys new`) every \
request needs one. Nothing that is said leaves the machine or is written to a log; chats are stored where the page's \
user chooses. What was computed of prompts is kept on disk, encrypted and apart for every key, so that they begin \
fast after a restart as well (`fathom cache`). Ctrl-C or SIGTERM lets running answers finish for a while; a second \
Ctrl-C ends at once.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or nano, which is inside the program
    #[arg(default_value = built_in::DEFAULT)]
    model: String,

    /// Address and port; port 0 takes any that is free [default: 127.0.0.1:8080, or the next free port]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,

    /// The model's name for clients [default: the last part of its path]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Where keys, usage and chats are kept [default: the directory server in FATHOM_HOME]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,

    /// Answers that are computed at the same time; more wait
    #[arg(long, value_name = "N", default_value = "32", help_heading = "Machine")]
    slots: usize,

    /// Memory for the cache of earlier tokens, in MiB [default: eight contexts, at most a quarter of what is free]
    #[arg(long, value_name = "MIB", help_heading = "Machine")]
    cache_memory: Option<usize>,

    /// Disk space for the prompt cache: prompts are found again after a restart. 0: no such cache
    #[arg(long, value_name = "MIB", default_value = "4096", help_heading = "Machine")]
    prompt_cache: u64,

    /// How long the prompt cache keeps what nobody uses
    #[arg(long, value_name = "DAYS", default_value = "7", help_heading = "Machine")]
    prompt_cache_days: u32,

    /// A name under which browsers reach the server, beyond localhost and addresses; may be repeated
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    host_name: Vec<String>,

    /// Another page that may call the server, such as `https://chat.example`; may be repeated
    #[arg(long, value_name = "ORIGIN", help_heading = "Network")]
    origin: Vec<String>,

    /// What the machine draws while it computes, for estimates of energy where it has no meter
    #[arg(long, value_name = "WATTS", value_parser = watts)]
    watts: Option<f64>,

    /// Do not open the page in a browser
    #[arg(long)]
    no_browser: bool,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    drafts: DraftsArgs,
}

fn watts(text: &str) -> Result<f64, String> {
    let watts: f64 = text.parse().map_err(|_| "it must be a number".to_string())?;
    if watts > 0.0 && watts <= 100_000.0 { Ok(watts) } else { Err("it must be above 0 and at most 100000".into()) }
}

/// The directory of keys, usage and chats.
pub(crate) fn data_directory(given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match given {
        Some(directory) => Ok(directory),
        None => Ok(hub::config::home_from_env()?.join("server")),
    }
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if !(1..=1024).contains(&args.slots) {
        bail!("--slots is {}; it must be between 1 and 1024", args.slots);
    }
    let data = data_directory(args.data.clone())?;
    // Streams of answers outlive every call; the model is served as long as the process lives.
    let opened: &'static Opened = Box::leak(Box::new(Opened::open(&args.model, args.machine.inputs())?));
    opened.model.notices.iter().for_each(|notice| note(&format!("note: {notice}")));
    let context = args.machine.context(opened)?;
    let limits = engine_limits(&args, opened, context)?;
    let served = served(&args, opened, context)?;
    let (name, has_template) = (served.id.clone(), served.template.is_some());
    let pool = args.machine.pool()?;
    let allowed = Allowed { hosts: args.host_name.clone(), origins: args.origin.clone() };
    let server_limits = server_limits(&limits);
    let prompt_cache = prompt_cache(&args, opened, &data);
    let (listen, watts) = (args.listen.unwrap_or_else(free_address), args.watts);
    let options = Options { listen, data, limits: server_limits, allowed, watts, prompt_cache };
    let server = Server::bind(options, served)?;
    let url = url(server.address().context("the address is not known")?);
    stop_on_interrupt(server.handle())?;
    announce(&url, &name, server.handle().store().any_key()?)?;
    if !has_template {
        note("note: the model has no chat template; only /v1/completions answers");
    }
    if !args.no_browser {
        open_browser(&url);
    }
    let format = args.machine.cache.format();
    Ok(server.run(|| Engine::new(ModelCompute::new(&opened.model, &pool, limits.pages, format), limits))?)
}

/// The first free port from 8080 on, or 8080 where none of ten is: then the refusal names it.
fn free_address() -> SocketAddr {
    let at = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let free = (8080..8090).map(at).find(|address| TcpListener::bind(address).is_ok());
    free.unwrap_or_else(|| at(8080))
}

/// How much the engine takes on.
fn engine_limits(args: &Args, opened: &Opened, context: usize) -> anyhow::Result<EngineLimits> {
    let page_bytes = Cache::page_bytes(&opened.model.spec, args.machine.cache.format()).max(1);
    let least = Cache::pages_for(context);
    let pages = match args.cache_memory {
        Some(mib) => mib.saturating_mul(1 << 20) / page_bytes,
        None => {
            let free = kernels::measure::Memory::read().available_bytes.unwrap_or(4 << 30) as usize;
            (least * 8).min(free / 4 / page_bytes).max(least)
        }
    };
    if pages < least {
        let needed = (least * page_bytes).div_ceil(1 << 20);
        bail!("--cache-memory is too small: one context of {context} tokens takes {needed} MiB");
    }
    Ok(EngineLimits {
        running_max: args.slots,
        context_tokens_max: context,
        pages: u32::try_from(pages).map_or(u32::MAX as usize, |pages| pages as usize),
        batch_tokens_max: 512.max(args.slots),
        drafts: args.drafts.drafts(),
        ..EngineLimits::default()
    })
}

/// The prompt cache on disk, unless it is not wanted.
fn prompt_cache(args: &Args, opened: &Opened, data: &Path) -> Option<PromptCacheOptions> {
    let parts = match crate::opened::built_in(&args.model) {
        Some(model) => vec![Part::Bytes(model.bytes())],
        None => opened.files.iter().cloned().map(Part::File).collect(),
    };
    // Pages of another arithmetic or another format have other bits.
    let (isa, format) = (kernels::isa::isa().name(), args.machine.cache.format().name());
    let settings = format!("{} {isa} {format} exact={}", std::env::consts::ARCH, args.machine.exact);
    (args.prompt_cache > 0).then(|| PromptCacheOptions {
        identity: identity(data, parts, settings),
        bytes_max: args.prompt_cache.saturating_mul(1 << 20),
        age_max: Duration::from_secs(u64::from(args.prompt_cache_days) * 24 * 60 * 60),
        problem: Box::new(|problem| note(&format!("note: there is no prompt cache on disk: {problem}"))),
    })
}

/// What the server takes on: no more than the engine lets wait.
fn server_limits(engine: &EngineLimits) -> server::limits::Limits {
    let answers = (engine.running_max + engine.waiting_max).min(engine.waiting_per_owner_max.max(engine.waiting_max));
    server::limits::Limits { answers_max: answers, answers_per_key_max: answers, ..server::limits::Limits::default() }
}

fn served(args: &Args, opened: &'static Opened, context: usize) -> anyhow::Result<Served> {
    let of_path = || opened.path.file_stem().filter(|_| opened.path.extension().is_some_and(|e| e == "gguf"));
    let last = of_path().or_else(|| opened.path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let recommended = &opened.recommended;
    let built_in = crate::opened::built_in(&args.model);
    Ok(Served {
        id: args.name.clone().or(last).unwrap_or_else(|| "model".into()),
        tokenizer: opened.tokenizer()?,
        template: opened.template()?,
        defaults: Sampling {
            temperature: recommended.temperature.unwrap_or(0.6),
            top_p: recommended.top_p.unwrap_or(0.95),
            top_k: recommended.top_k.unwrap_or(0),
            min_p: recommended.min_p.unwrap_or(0.0),
            repetition_penalty: recommended.repetition_penalty.unwrap_or(1.0),
            ..Sampling::default()
        },
        context_tokens: context,
        vocab: opened.model.spec.vocab,
        today,
        built_in: built_in.is_some(),
        budget_curve: built_in.map(BuiltIn::budget_curve).transpose()?,
        embedder: Some(embedder(opened)?),
    })
}

/// How the model makes vectors: as its authors say (`1_Pooling/config.json`, the form of sentence-transformers), else
/// by the last token's row, the only one that has seen all of a text.
fn embedder(opened: &Opened) -> anyhow::Result<Embedder> {
    let length = opened.model.spec.hidden;
    let last = Embedder { pooling: Pooling::Last, length, end: None };
    let path = opened.path.join("1_Pooling/config.json");
    if !path.is_file() {
        return Ok(last);
    }
    let read = |path: &Path| -> anyhow::Result<Value> {
        let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}: is not valid JSON", path.display()))
    };
    let config = read(&path)?;
    let on = |mode: &str| config[format!("pooling_mode_{mode}")] == true;
    match (on("mean_tokens"), on("lasttoken")) {
        (true, false) => Ok(Embedder { pooling: Pooling::Mean, ..last }),
        (false, true) => {
            // What the tokenizer puts after a text is what such models were trained to sum up in.
            let parts = read(&opened.path.join("tokenizer.json"))?;
            let after = parts["post_processor"]["single"].as_array().and_then(|single| single.last().cloned());
            let name = after.and_then(|part| part["SpecialToken"]["id"].as_str().map(str::to_string));
            Ok(Embedder { end: name.and_then(|name| opened.tokenizer().ok()?.id(&name)), ..last })
        }
        _ => bail!("{}: only the mean and the last token's row are understood", path.display()),
    }
}

/// The first Ctrl-C lets answers finish, the second one ends the program.
fn stop_on_interrupt(handle: Handle) -> anyhow::Result<()> {
    let told = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if told.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED.into());
        }
        note("stopping: running answers may finish; Ctrl-C again ends at once");
        handle.stop();
    })
    .context("Ctrl-C cannot be handled")
}

/// The address as a browser on this machine takes it.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

fn announce(url: &str, name: &str, key_needed: bool) -> anyhow::Result<()> {
    let key = if key_needed { " -H 'Authorization: Bearer KEY'" } else { "" };
    let body = format!(r#"{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}"#);
    let curl = format!("curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' -d '{body}'");
    print(&format!("{name} is served at {url}\n\n  {curl}\n\n"))?;
    Ok(())
}

/// Opens the page where somebody sits before a screen.
fn open_browser(url: &str) {
    let screen =
        ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if !std::io::stdout().is_terminal() || (cfg!(target_os = "linux") && !screen) {
        return;
    }
    let opener = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    // Without a browser the printed address does as well.
    let _ = Command::new(opener).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}
