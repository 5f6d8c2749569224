//! `fathom tokenize`: text to token numbers and back, for comparing with other implementations.

use anyhow::{Context, bail};
use text::Specials;

use crate::opened::open_tokenizer;
use crate::terminal::{print, read_input};

/// Turn text into token numbers (JSON), or back
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  echo -n 'Hello' | fathom tokenize ORG/NAME
  echo '[9906, 11]' | fathom tokenize path/to/tokenizer.json --decode

The names of special tokens in the text become those tokens, as in other implementations. --content shows what \
happens to text of users and tools: it never becomes a special token.")]
pub(crate) struct Args {
    /// A directory, a .gguf file, the name of a pulled model, or a tokenizer.json
    model: String,

    /// Treat the text as a user's: special tokens stay text
    #[arg(long)]
    content: bool,

    /// Begin with the token that begins a text, if the tokenizer says so
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
    let input = read_input(if args.decode { "a JSON list of token numbers" } else { "the text" })?;
    if args.decode {
        let ids: Vec<u32> =
            serde_json::from_str(&input).context("standard input is not a JSON list of token numbers")?;
        if let Some(&id) = ids.iter().find(|&&id| tokenizer.token(id).is_none()) {
            bail!("there is no token {id}; the tokenizer has {}, numbered from 0", tokenizer.vocab_size());
        }
        let specials = if args.hide_special { Specials::Hide } else { Specials::Show };
        return Ok(print(&tokenizer.decode(&ids, specials))?);
    }
    let mut ids = if args.content { tokenizer.encode(&input)? } else { tokenizer.encode_with_specials(&input)? };
    if let Some(bos) = tokenizer.bos_id().filter(|_| args.bos && tokenizer.add_bos()) {
        ids.insert(0, bos);
    }
    Ok(print(&format!("{}\n", serde_json::to_string(&ids)?))?)
}
