//! `fathom usage`: what the server's requests have cost, by day and model.

use std::path::PathBuf;

use anyhow::{Context, bail};
use server::store::Store;

use super::serve::data_directory;
use crate::terminal::print;

/// Show what requests to `fathom serve` have cost, by day and model
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// First day, UTC, such as 2026-11-01 [default: all]
    #[arg(long, value_name = "DAY")]
    from: Option<String>,

    /// Last day
    #[arg(long, value_name = "DAY")]
    to: Option<String>,

    /// Only this key, by name or number [default: all together]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Where keys, usage and chats are kept [default: the directory server in FATHOM_HOME]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let (from, to) = (day("--from", args.from, "0000-01-01")?, day("--to", args.to, "9999-12-31")?);
    let store = Store::open(&data_directory(args.data)?)?;
    let key = match &args.key {
        None => None,
        Some(which) => {
            let keys = store.keys()?;
            let found: Vec<i64> =
                keys.iter().filter(|k| k.name == *which || k.id.to_string() == *which).map(|k| k.id).collect();
            match found[..] {
                [id] => Some(id),
                [] => bail!("{which}: there is no such key"),
                _ => bail!("{which}: several keys have this name; give the number"),
            }
        }
    };
    let (rows, total) = store.usage(key, &from, &to)?;
    if args.json {
        let all = serde_json::json!({"rows": rows, "total": total});
        return Ok(print(&format!("{}\n", serde_json::to_string_pretty(&all)?))?);
    }
    if rows.is_empty() {
        return Ok(print("No requests.\n")?);
    }
    let width = rows.iter().map(|row| row.model.chars().count()).max().unwrap_or(0).max(5);
    let line = |day: &str, model: &str, sum: &server::wire::chats::UsageSum| {
        let joules = sum.joules.map_or_else(String::new, |joules| {
            format!("  {joules:.0} J {}", sum.joules_label.as_deref().unwrap_or_default())
        });
        format!(
            "{day:10}  {model:width$}  {:>8}  {:>12}  {:>12}  {:>12}  {:>14}  {:>9.1}{joules}\n",
            sum.requests, sum.cache_hit_tokens, sum.cache_miss_tokens, sum.completion_tokens, sum.cost, sum.seconds
        )
    };
    let mut text = format!(
        "{:10}  {:width$}  {:>8}  {:>12}  {:>12}  {:>12}  {:>14}  {:>9}\n",
        "day", "model", "requests", "cache hits", "misses", "output", "cost", "seconds"
    );
    for row in &rows {
        text += &line(&row.day, &row.model, &row.sum);
    }
    text += &line("total", "", &total);
    text += "seconds: measured, the requests' shares of the time that the engine computed\n";
    Ok(print(&text)?)
}

fn day(flag: &str, given: Option<String>, default: &str) -> anyhow::Result<String> {
    let Some(given) = given else { return Ok(default.to_string()) };
    let date: jiff::civil::Date = given.parse().with_context(|| format!("{flag} is not a day, such as 2026-11-21"))?;
    Ok(date.strftime("%Y-%m-%d").to_string())
}
