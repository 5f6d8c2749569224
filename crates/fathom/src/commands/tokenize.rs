//! `fathom tokenize`: text to token numbers and back, for comparing with other implementations.

use std::io::{Read, Write};

use anyhow::Context;
use text::Specials;

use crate::opened::open_tokenizer;

/// Turn text on standard input into token numbers (JSON), or back
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  echo -n 'Hello' | fathom tokenize ORG/NAME
  echo '[9906, 11]' | fathom tokenize path/to/tokenizer.json --decode

The names of special tokens in the text become those tokens, as in other implementations. --content shows what
happens to text of users and tools: it never becomes a special token.")]
pub(crate) struct Args {
    /// A model, a tokenizer.json, or a .gguf file
    model: String,

    /// Treat the text as a user's: special tokens stay text
    #[arg(long)]
    content: bool,

    /// Put the token before the text with which texts begin, if the tokenizer says so
    #[arg(long)]
    bos: bool,

    /// Read token numbers as JSON and print the text
    #[arg(long, conflicts_with_all = ["content", "bos"])]
    decode: bool,

    /// With --decode: leave out special tokens
    #[arg(long, requires = "decode")]
    hide_special: bool,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let tokenizer = open_tokenizer(&args.model)?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).context("standard input is not valid UTF-8 text")?;
    let mut out = std::io::stdout().lock();
    if args.decode {
        let ids: Vec<u32> =
            serde_json::from_str(&input).context("standard input is not a JSON list of token numbers")?;
        let specials = if args.hide_special { Specials::Hide } else { Specials::Show };
        write!(out, "{}", tokenizer.decode(&ids, specials))?;
        return Ok(());
    }
    let mut ids = if args.content { tokenizer.encode(&input)? } else { tokenizer.encode_with_specials(&input)? };
    if let Some(bos) = tokenizer.bos_id().filter(|_| args.bos && tokenizer.add_bos()) {
        ids.insert(0, bos);
    }
    writeln!(out, "{}", serde_json::to_string(&ids)?)?;
    Ok(())
}
