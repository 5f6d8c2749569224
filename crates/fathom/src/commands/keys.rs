//! `fathom keys`: who may use the server.

use std::path::PathBuf;

use anyhow::{anyhow, bail};
use server::store::Store;
use server::store::keys::{Key, NewKey};
use server::store::ledger::{Prices, money, parse_money};

use super::serve::data_directory;
use crate::terminal::{note, print};

/// Make, show and revoke the API keys of `fathom serve`
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  fathom keys new laptop
  fathom keys new school --price-hit 0.07 --price-miss 0.27 --price-output 1.10 --balance 20
  fathom keys revoke laptop

From the first key on every request needs one; a running server sees new and revoked keys at once. Keys are stored \
as hashes: a lost one cannot be shown again, only replaced.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,

    /// Where keys, usage and chats are kept [default: the directory server in FATHOM_HOME]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    data: Option<PathBuf>,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Make a key and show it, once
    New(Box<New>),
    /// Show all keys, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Refuse a key from now on
    Revoke {
        /// Its name or number
        key: String,
    },
    /// Add to what a key may spend
    Credit {
        /// Its name or number
        key: String,
        /// Such as 5 or -0.5
        #[arg(allow_negative_numbers = true)]
        amount: String,
    },
}

#[derive(clap::Args, Debug)]
struct New {
    /// What to call it
    name: String,

    /// Price of a million prompt tokens that were in the cache
    #[arg(long, value_name = "PRICE", default_value = "0")]
    price_hit: String,

    /// Price of a million prompt tokens that were not
    #[arg(long, value_name = "PRICE", default_value = "0")]
    price_miss: String,

    /// Price of a million tokens of answers
    #[arg(long, value_name = "PRICE", default_value = "0")]
    price_output: String,

    /// The currency of prices and balance
    #[arg(long, value_name = "CODE", default_value = "USD")]
    currency: String,

    /// What it may spend [default: no limit]
    #[arg(long, value_name = "AMOUNT")]
    balance: Option<String>,

    /// Requests a minute [default: no limit]
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u32>,

    /// Answers at the same time [default: the server's limit]
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let store = Store::open(&data_directory(args.data)?)?;
    match args.action {
        Action::New(new) => make(&store, &new)?,
        Action::List { json } => list(&store, json)?,
        Action::Revoke { key } => match store.key_revoke(&key)? {
            true => note(&format!("{key} is revoked")),
            false => bail!("{key}: there is no such key, or it was revoked before"),
        },
        Action::Credit { key, amount } => {
            let id = find(&store, &key)?.id;
            let pico = parse_money(&amount, 6).map_err(|error| anyhow!("{error}"))?;
            let balance = store.key_credit(id, pico)?.ok_or_else(|| anyhow!("{key}: there is no such key"))?;
            note(&format!("{key} may spend {}", money(balance)));
        }
    }
    Ok(())
}

fn make(store: &Store, new: &New) -> anyhow::Result<()> {
    // Prices have six decimal places: a price for a million tokens is then whole for one.
    let micro = |flag: &str, text: &str| match parse_money(text, 6) {
        Ok(pico) => Ok(pico / 1_000_000),
        Err(error) => Err(anyhow!("{flag}: {error}")),
    };
    let balance =
        new.balance.as_deref().map(|text| parse_money(text, 6).map_err(|error| anyhow!("--balance: {error}")));
    if new.requests_per_minute == Some(0) || new.concurrent == Some(0) {
        bail!("--requests-per-minute and --concurrent must be at least 1; `fathom keys revoke` closes a key");
    }
    let (_, secret) = store.key_new(&NewKey {
        name: new.name.clone(),
        prices: Prices {
            currency: new.currency.clone(),
            hit_micro: micro("--price-hit", &new.price_hit)?,
            miss_micro: micro("--price-miss", &new.price_miss)?,
            output_micro: micro("--price-output", &new.price_output)?,
        },
        balance_pico: balance.transpose()?,
        requests_per_minute: new.requests_per_minute,
        answers_max: new.concurrent,
    })?;
    note("this key is shown now and never again:");
    Ok(print(&format!("{secret}\n"))?)
}

fn find(store: &Store, which: &str) -> anyhow::Result<Key> {
    let keys = store.keys()?;
    let mut found = keys.into_iter().filter(|key| key.name == which || key.id.to_string() == which);
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        (None, _) => bail!("{which}: there is no such key"),
        _ => bail!("{which}: several keys have this name; give the number"),
    }
}

fn list(store: &Store, json: bool) -> anyhow::Result<()> {
    let keys = store.keys()?;
    if json {
        let rows: Vec<_> = keys.iter().map(as_json).collect();
        return Ok(print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?);
    }
    if keys.is_empty() {
        return Ok(print("No keys. The server is for this machine only, and needs none.\n")?);
    }
    let width = keys.iter().map(|key| key.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for key in &keys {
        let state = if key.revoked_ms.is_some() { "revoked" } else { "active" };
        let balance = key.balance_pico.map_or_else(String::new, |pico| format!("  balance {}", money(pico)));
        text += &format!("{:>3}  {:width$}  {}  {state:7}{balance}\n", key.id, key.name, key.hint);
    }
    Ok(print(&text)?)
}

fn as_json(key: &Key) -> serde_json::Value {
    let price = |micro: i64| money(micro * 1_000_000);
    serde_json::json!({
        "id": key.id,
        "name": key.name,
        "hint": key.hint,
        "created_ms": key.created_ms,
        "revoked_ms": key.revoked_ms,
        "currency": key.prices.currency,
        "price_hit": price(key.prices.hit_micro),
        "price_miss": price(key.prices.miss_micro),
        "price_output": price(key.prices.output_micro),
        "balance": key.balance_pico.map(money),
        "requests_per_minute": key.requests_per_minute,
        "concurrent": key.answers_max,
    })
}
