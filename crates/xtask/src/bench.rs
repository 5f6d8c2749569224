//! `cargo xtask bench MODEL [OPTIONS]`: runs `fathom bench MODEL --json` of the release build and keeps a
//! record of it; `cargo xtask bench -- ARGS` does so with any command.
//!
//! A record in `bench/runs/` is one JSON file: the machine, the commit, the command, how long it
//! took, how it ended, and the last line of its output that is a JSON object. The topology of the
//! processors is measured before and after, because a host may move a virtual machine's processors
//! onto one core in between; a record in which they were siblings says nothing about speed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use kernels::measure::{Machine, Topology, topology};
use serde_json::{Value, json};

use crate::repository::{cargo, output, root};

/// Builds, runs, records. The command's failure is recorded and then an error.
pub(crate) fn run(arguments: &[&str]) -> anyhow::Result<()> {
    let Run { name, arguments } = parse(arguments)?;
    let program = build()?;
    let before = topology();
    let start = Instant::now();
    let (exit_code, last_json) = run_and_listen(Command::new(program).args(&arguments))?;
    let duration_s = start.elapsed().as_secs_f64();
    let commit = Commit::current()?;
    let command: Vec<String> = std::iter::once("fathom".to_string())
        .chain(arguments.iter().map(|argument| without_directory(argument)))
        .collect();
    let record = json!({
        "format": 1,
        "name": name,
        "date_utc": utc(SystemTime::now())?,
        "commit": commit.hash,
        "dirty": commit.dirty,
        "machine": machine(&Machine::read()),
        "topology_before": before.map(describe),
        "topology_after": topology().map(describe),
        "command": command,
        "duration_s": duration_s,
        "exit_code": exit_code,
        "result": last_json.map(without_directories),
    });
    let path = write(&root().join("bench/runs"), &commit, &name, &record)?;
    println!("recorded in {}", path.display());
    if exit_code != Some(0) {
        bail!("the command failed (exit code {exit_code:?}); its record was kept");
    }
    Ok(())
}

/// What is run, and the name of its record.
#[derive(Debug, PartialEq)]
struct Run {
    name: String,
    arguments: Vec<String>,
}

/// `[--name NAME] MODEL [OPTIONS]`, or `[--name NAME] -- ARGS`. A record's name is by default the model's,
/// or the command's.
fn parse(arguments: &[&str]) -> anyhow::Result<Run> {
    let (name, rest) = match arguments {
        ["--name", name, rest @ ..] => (Some(*name), rest),
        rest => (None, rest),
    };
    let (default, arguments) = match rest {
        ["--"] | [] => bail!("usage: cargo xtask bench [--name NAME] MODEL [OPTIONS], or .. -- ARGS"),
        ["--", command @ ..] => (command[0].to_string(), command.to_vec()),
        [option, ..] if option.starts_with('-') => bail!("{option} stands before the model or before --"),
        [model, ..] => {
            let stem = Path::new(model).file_name().map_or((*model).into(), |name| name.to_string_lossy());
            let stem = stem.strip_suffix(".gguf").unwrap_or(&stem).to_string();
            (stem, [&["bench"], rest, &["--json"]].concat())
        }
    };
    let name = name.map_or(default, str::to_string);
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        bail!("a record's name is made of letters, digits, '-', '_' and '.', not '{name}'; give one by --name");
    }
    Ok(Run { name, arguments: arguments.into_iter().map(str::to_string).collect() })
}

/// Builds the release and returns the program.
fn build() -> anyhow::Result<PathBuf> {
    let mut build = cargo(&["build", "--release", "--locked", "--package", "fathom", "--message-format", "json"]);
    let messages = output(build.stderr(Stdio::inherit()))?;
    let program = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        (message["target"]["name"] == "fathom").then(|| message["executable"].as_str().map(PathBuf::from)).flatten()
    });
    program.context("cargo built no program 'fathom'")
}

/// Runs a command whose output goes to the terminal; its exit code and its last JSON object.
fn run_and_listen(command: &mut Command) -> anyhow::Result<(Option<i32>, Option<Value>)> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {command:?}"))?;
    let mut last_json = None;
    for line in BufReader::new(child.stdout.take().context("the output is not piped")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        last_json = serde_json::from_str(&line).ok().filter(Value::is_object).or(last_json);
    }
    Ok((child.wait()?.code(), last_json))
}

struct Commit {
    hash: String,
    dirty: bool,
}

impl Commit {
    fn current() -> anyhow::Result<Commit> {
        let git = |arguments: &[&str]| output(Command::new("git").args(arguments).current_dir(root()));
        let hash = git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_string();
        // Earlier records do not make the next one dirty.
        let dirty = !git(&["status", "--porcelain", "--", ".", ":!bench/runs"])?.is_empty();
        Ok(Commit { hash, dirty })
    }
}

fn machine(machine: &Machine) -> Value {
    json!({
        "cpu": machine.cpu_name,
        "architecture": machine.architecture,
        "features": machine.feature_names().collect::<Vec<_>>(),
        "amx": machine.amx.tile && machine.amx.enabled_by_system,
        "processors": machine.processors,
        "last_level_cache_bytes": machine.last_level_cache_bytes,
        "memory_total_bytes": machine.memory.total_bytes,
        "memory_available_bytes": machine.memory.available_bytes,
        "system": machine.system,
    })
}

fn describe(topology: Topology) -> Value {
    json!({
        "processors": topology.processors,
        "round_trip_ns": topology.round_trip_ns,
        "two_thread_scaling": topology.two_thread_scaling,
        "siblings": topology.siblings(),
    })
}

/// An argument without the directory of an absolute path: records are public, and where a model
/// lay on one machine says nothing.
fn without_directory(argument: &str) -> String {
    let (option, value) = match argument.split_once('=') {
        Some((option, value)) if option.starts_with('-') => (Some(option), value),
        _ => (None, argument),
    };
    let path = Path::new(value);
    let value = match path.file_name() {
        Some(name) if path.is_absolute() => name.to_string_lossy().into_owned(),
        _ => value.to_string(),
    };
    option.map_or(value.clone(), |option| format!("{option}={value}"))
}

fn without_directories(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_directory(&text)),
        Value::Array(items) => items.into_iter().map(without_directories).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, without_directories(value))).collect(),
        other => other,
    }
}

/// Writes `<date>-<commit>-<name>.json`, or `..-2.json` and so on if that exists.
fn write(directory: &Path, commit: &Commit, name: &str, record: &Value) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let date = record["date_utc"].as_str().and_then(|date| date.get(..10)).context("the record has no date")?;
    let text = serde_json::to_string_pretty(record)? + "\n";
    for number in 1..1000 {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = directory.join(format!("{date}-{}-{name}{suffix}.json", &commit.hash[..7]));
        match std::fs::File::create_new(&path) {
            Ok(mut file) => {
                std::io::Write::write_all(&mut file, text.as_bytes())?;
                return Ok(path);
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        }
    }
    bail!("{} holds a thousand records of one name, day and commit", directory.display())
}

/// `2026-03-01T12:00:00Z`.
fn utc(time: SystemTime) -> anyhow::Result<String> {
    let seconds = time.duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
    let (year, month, day) = civil(seconds / 86400);
    let second = seconds % 86400;
    Ok(format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60))
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let date = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
        assert_eq!(date(0), "1970-01-01T00:00:00Z");
        assert_eq!(date(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(date(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(date(4_107_542_400), "2100-03-01T00:00:00Z");
    }

    #[test]
    fn a_model_is_measured_and_any_command_recorded() {
        let run = |arguments: &[&str]| parse(arguments).map(|run| (run.name, run.arguments.join(" ")));
        let of = |name: &str, arguments: &str| (name.to_string(), arguments.to_string());
        assert_eq!(run(&["--", "doctor", "--json"]).unwrap(), of("doctor", "doctor --json"));
        assert_eq!(run(&["--name", "v2", "--", "doctor"]).unwrap(), of("v2", "doctor"));
        let measured = run(&["/m/v2-lite-q4_k_m.gguf", "--depth", "0,512"]).unwrap();
        assert_eq!(measured, of("v2-lite-q4_k_m", "bench /m/v2-lite-q4_k_m.gguf --depth 0,512 --json"));
        assert_eq!(run(&["--name", "quiet", "org/name"]).unwrap(), of("quiet", "bench org/name --json"));
        for bad in [&["--"][..], &[], &["--name", "a/b", "--", "bench"], &["--", "a b"], &["--json", "m"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn records_do_not_tell_where_files_lay() {
        assert_eq!(without_directory("/models/v2.gguf"), "v2.gguf");
        assert_eq!(without_directory("--model=/models/v2.gguf"), "--model=v2.gguf");
        assert_eq!(without_directory("models/v2.gguf"), "models/v2.gguf");
        assert_eq!(without_directory("a=b"), "a=b");
        let record = without_directories(json!({"model": "/a/b", "runs": [1, "/c/d"]}));
        assert_eq!(record, json!({"model": "b", "runs": [1, "d"]}));
    }

    #[test]
    fn the_last_json_object_is_the_result() {
        // A program that is there wherever this test runs, and prints text: no JSON.
        let (code, result) = run_and_listen(&mut cargo(&["--version"])).unwrap();
        assert_eq!((code, result), (Some(0), None));
        let (code, result) = run_and_listen(&mut cargo(&["locate-project"])).unwrap();
        assert_eq!(code, Some(0));
        assert!(result.unwrap()["root"].as_str().unwrap().ends_with("Cargo.toml"));
    }
}
