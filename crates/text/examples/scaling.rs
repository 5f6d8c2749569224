//! How the time of encoding grows with the text: `cargo run --release -p text --example scaling`.
//!
//! For runs that are hard on tokenizers (one character repeated, no place to cut) and for prose, prints the time per
//! MiB and how much longer twice the text takes. Linear time is 2; the targets are at most one second per MiB and at
//! most 2.3. The first argument is another `tokenizer.json` than DeepSeek's.

use std::path::PathBuf;
use std::time::Instant;

use text::Tokenizer;

const MIB: usize = 1 << 20;
const ENGLISH: &str = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be \
    in want of a wife. However little known the feelings or views of such a man may be on his first entering a \
    neighbourhood, this truth is so well fixed in the minds of the surrounding families, that he is considered as the \
    rightful property of some one or other of their daughters.\n\n";
const ARABIC: &str = "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق، وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم \
    بعضا بروح الإخاء. لكل إنسان حق التمتع بكافة الحقوق والحريات الواردة في هذا الإعلان، دون أي تمييز.\n\n";
const CHINESE: &str = "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n";
const CODE: &str = "fn main() {\n    let numbers: Vec<u64> = (0..1024).map(|n| n * n).collect();\n    println!(\"{:?}\", \
    &numbers[..16]); // 0, 1, 4, 9\n}\n";

/// Time that this thread has spent running, in seconds, where the system tells it; other programs do not count.
fn running_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split_whitespace().next()?.parse::<f64>().ok()? / 1e9)
}

/// The best of some runs, in seconds.
fn seconds(tokenizer: &Tokenizer, text: &str, runs: usize) -> Result<f64, Box<dyn std::error::Error>> {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let (start, running) = (Instant::now(), running_seconds());
        std::hint::black_box(tokenizer.encode(text)?);
        let ran = running_seconds().zip(running).map(|(after, before)| after - before);
        best = best.min(ran.unwrap_or(start.elapsed().as_secs_f64()));
    }
    Ok(best)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers/deepseek/tokenizer.json");
    let path = std::env::args_os().nth(1).map_or(default, PathBuf::from);
    let tokenizer = Tokenizer::from_json(&std::fs::read(path)?)?;
    let mixed = [ENGLISH, ARABIC, CHINESE, CODE, "🙂🙃 1234567.89 ^^^\t\t\r\n"].concat();
    let texts = [
        ("a", "a"),
        ("space", " "),
        ("newline", "\n"),
        ("_", "_"),
        ("digit", "7"),
        ("CJK", "字"),
        ("emoji", "🙂"),
        ("^", "^"),
        ("a and space", "a "),
        ("random letters", ""),
        ("English", ENGLISH),
        ("Arabic", ARABIC),
        ("Chinese", CHINESE),
        ("code", CODE),
        ("mixed", &mixed),
    ];
    println!("{:<16}{:>10}{:>10}{:>10}{:>12}{:>12}", "text", "s/MiB", "t2/t1", "t4/t2", "MB/s", "tokens");
    for (name, unit) in texts {
        let whole = if unit.is_empty() { random_letters(4 * MIB) } else { unit.repeat(4 * MIB / unit.len() + 1) };
        let cut = |mib: usize| &whole[..whole.floor_char_boundary(mib * MIB)];
        let [one, two, four] = [cut(1), cut(2), cut(4)];
        let times = [seconds(&tokenizer, one, 3)?, seconds(&tokenizer, two, 2)?, seconds(&tokenizer, four, 2)?];
        println!(
            "{name:<16}{:>10.3}{:>10.2}{:>10.2}{:>12.1}{:>12}",
            times[2] / 4.0,
            times[1] / times[0],
            times[2] / times[1],
            four.len() as f64 / 1e6 / times[2],
            tokenizer.encode(four)?.len()
        );
    }
    Ok(())
}

/// Letters without a place to cut and without much to merge.
fn random_letters(count: usize) -> String {
    let mut state = 1u64;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        char::from(b'a' + (state >> 33) as u8 % 26)
    };
    std::iter::repeat_with(next).take(count).collect()
}
