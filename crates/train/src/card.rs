//! The model card: what the model is, what it learned from, what it cost.

use crate::bill::{Bill, grouped};
use crate::export::Finished;
use crate::recipe::Precision;
use crate::run::HeldOut;

/// The text of `README.md` for an exported model.
pub(crate) fn card(run: &Finished, bill: &Bill) -> String {
    let recipe = &run.recipe;
    let mut text = format!(
        "---\nlicense: other\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n# {}\n\n",
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
    text
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
