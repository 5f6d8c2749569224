//! The model card: what the model is, what it learned from, what it cost.

use crate::bill::{Bill, grouped};
use crate::export::Finished;
use crate::recipe::Precision;
use crate::run::HeldOut;

/// The text of `README.md` for an exported model; `before` is the card of the model that its training began with.
pub(crate) fn card(run: &Finished, bill: &Bill, before: Option<&str>) -> String {
    let recipe = &run.recipe;
    let mut text = format!(
        "---\nlicense: {}\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# {}\n\n",
        before.and_then(licence).unwrap_or("other"),
        recipe.name
    );
    text += "Trained by fathom from the recipe and the data below; ";
    text += "`recipe.json` and `manifest.json` beside this file say it to the last number.\n\n## Model\n\n";
    if let Ok(spec) = recipe.spec() {
        let counts = spec.counts();
        text += &table(&[
            ("family", spec.family.to_string()),
            ("parameters", grouped(counts.total)),
            ("active for a token", grouped(counts.active)),
            ("in multi-token prediction modules", grouped(counts.mtp)),
            ("layers, width", format!("{}, {}", spec.blocks.len(), spec.hidden)),
            ("vocabulary", grouped(spec.vocab as u64)),
            ("trained on sequences of", format!("{} tokens", recipe.data.sequence)),
        ]);
    }
    text += "\n## Training\n\n";
    let state = &run.state;
    let mut rows = vec![
        ("steps", format!("{} of {}", grouped(state.step), grouped(recipe.steps()))),
        ("tokens a step", grouped(recipe.train.batch_tokens as u64)),
        ("optimiser", format!("{:?}, peak learning rate {}", recipe.optimizer.kind, recipe.optimizer.lr)),
        ("precision", format!("{}, f32 weights and sums", products(recipe.train.precision))),
        ("skipped steps", state.skipped.to_string()),
    ];
    if let Some(line) = run.log.last() {
        rows.push(("training loss at the end", format!("{:.4} nats a token", line.loss)));
    }
    if let Some(held_out) = run.held_out() {
        let HeldOut { loss, bits_per_byte, .. } = held_out;
        rows.push(("held-out loss", format!("{loss:.4} nats a token, {bits_per_byte:.4} bits a byte")));
        for (source, bits) in &held_out.by_source {
            rows.push(("", format!("{}: {bits:.4} bits a byte", plain(source))));
        }
    }
    text += &table(&rows);
    text += "\n## Data\n\n| source | licence | documents | tokens | epochs | origin | SHA-256 of the text |\n";
    text += "|---|---|---|---|---|---|---|\n";
    for entry in &run.manifest.sources {
        text += &format!(
            "| {} | {} | {} | {} | {:.2} | {} | {} |\n",
            plain(&entry.name),
            plain(&entry.licence),
            grouped(entry.documents),
            grouped(entry.main_tokens + entry.decay_tokens),
            entry.epochs,
            plain(&entry.origin),
            entry.text_sha256
        );
    }
    text += "\n## Bill\n\n";
    text += &table(&bill.rows());
    if let Some(before) = before {
        text += "\n## The model that this training began with\n\n";
        text += &lowered(body(before));
    }
    text
}

/// The head of a card, between lines of dashes, and what follows it.
fn parts(card: &str) -> Option<(&str, &str)> {
    card.strip_prefix("---\n")?.split_once("\n---\n")
}

fn body(card: &str) -> &str {
    parts(card).map_or(card, |(_, body)| body).trim_start()
}

/// The licence that a card's head names.
fn licence(card: &str) -> Option<&str> {
    parts(card)?.0.lines().find_map(|line| line.strip_prefix("license:")).map(str::trim)
}

/// A text whose headings stand below one of the second level; marks of comments in code are no headings.
fn lowered(text: &str) -> String {
    let mut code = false;
    let line = |line: &str| {
        code ^= line.trim_start().starts_with("```");
        let heading = !code && line.trim_start_matches('#').starts_with(' ') && line.starts_with('#');
        format!("{}{line}\n", if heading { "##" } else { "" })
    };
    text.lines().map(line).collect()
}

/// What products were computed in.
fn products(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "f32 products",
        Precision::Bf16 => "bf16 products",
        Precision::Fp8 => {
            "FP8 products (simulated: E4M3, tiles of 1 x 128, blocks of 128 x 128), head and embedding bf16"
        }
    }
}

fn table(rows: &[(&str, String)]) -> String {
    let rows = rows.iter().map(|(what, how_much)| format!("| {what} | {how_much} |\n"));
    format!("| | |\n|---|---|\n{}", rows.collect::<String>())
}

/// Text from a recipe, so that it stays in its cell.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_keeps_what_the_one_before_says() {
        let before = "---\nlicense: apache-2.0\ntags: x\n---\n\n# Base\n\nText.\n\n```\n# code\n```\n\n## Data\n";
        assert_eq!(licence(before), Some("apache-2.0"));
        assert_eq!(lowered(body(before)), "### Base\n\nText.\n\n```\n# code\n```\n\n#### Data\n");
        assert_eq!((licence("# Base\n"), body("# Base\n")), (None, "# Base\n"));
    }
}
