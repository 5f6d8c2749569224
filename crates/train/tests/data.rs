//! From sources to sequences: what is counted, dropped, held out, learned.

mod common;

use std::path::Path;

use common::{Site, stories, tokenizer};
use text::{Specials, Tokenizer};
use train::data::{Data, DataError};

fn written(site: &Site, name: &str, content: &str) {
    std::fs::write(site.path(name), content).unwrap();
}

/// The texts of all documents of a set's sequences, and those of the learned runs.
fn texts(data: &Data) -> Vec<String> {
    let tokenizer = Tokenizer::from_directory(tokenizer().as_ref()).unwrap();
    let eos = tokenizer.eos_ids()[0];
    let mut found = Vec::new();
    for row in 0..data.main.rows() {
        let batch = data.main.batch(&[row], true).unwrap();
        let mut start = 0;
        for length in batch.lengths {
            // The last token of a sequence is only a target.
            let mut tokens = batch.tokens[start..start + length].to_vec();
            if start + length == batch.tokens.len() {
                tokens.push(batch.targets[start + length - 1]);
            }
            start += length;
            let end = tokens.iter().position(|&token| token == eos).unwrap_or(tokens.len());
            let text = tokenizer.decode(&tokens[..end], Specials::Hide);
            if !text.is_empty() {
                found.push(text);
            }
        }
    }
    found
}

#[test]
fn every_document_is_in_one_place_and_the_manifest_counts_it() {
    let site = Site::new();
    let long = [
        ("sequence = 32", "sequence = 128"),
        ("_tokens = 64", "_tokens = 128"),
        ("embeddings = 64", "embeddings = 128"),
    ];
    let data = site.data(&site.recipe(&[&long[..], &[("tokens = 4000", "tokens = 1000000")]].concat()));
    let entry = &data.manifest.sources[0];
    assert_eq!(entry.documents + entry.held_out_documents, 300);
    assert!((10..60).contains(&entry.held_out_documents), "{}", entry.held_out_documents);
    assert_eq!((entry.repeated, entry.broken, entry.epochs), (0, 0, 1.0));
    assert_eq!((entry.files[0].path.as_str(), entry.licence.as_str()), ("stories.txt", "MIT"));
    assert_eq!(entry.files[0].bytes, stories(300, 1).len() as u64);
    assert_eq!(entry.kinds["text"], entry.documents);
    let set = &data.manifest.sets["main"];
    assert!(set.padding_share < 0.2, "{}", set.padding_share);
    // Every token but each document's first is a target once.
    assert_eq!(set.learned, entry.tokens - entry.documents);
    let bytes: u64 = (0..data.main.rows()).map(|row| u64::from(data.main.text_bytes(row))).sum();
    assert_eq!(bytes, entry.text_bytes);

    // Documents that fit are whole: each is one of the file's.
    let all = stories(300, 1);
    let whole: Vec<&str> = all.split("\n\n").collect();
    let found = texts(&data);
    let intact = found.iter().filter(|text| whole.contains(&text.as_str())).count();
    assert!(intact as f64 > 0.8 * entry.documents as f64, "{intact} of {}: {:?}", entry.documents, &found[..3]);
}

#[test]
fn the_same_recipe_finds_its_data_and_another_makes_its_own() {
    let site = Site::new();
    let first = site.data(&site.recipe(&[])).manifest;
    let folders = || std::fs::read_dir(site.path("data")).unwrap().count();
    assert_eq!(site.data(&site.recipe(&[("lr = 0.01", "lr = 0.02")])).manifest, first);
    assert_eq!(folders(), 1);
    let other = site.data(&site.recipe(&[("seed = 3", "seed = 4")])).manifest;
    assert_eq!(folders(), 2);
    // The same documents in another order.
    assert_eq!(other.sources[0].text_sha256, first.sources[0].text_sha256);
    assert_ne!(other.sets["main"].sha256, first.sets["main"].sha256);
    // Half made (no manifest yet): it is made again, to the same bytes.
    for folder in std::fs::read_dir(site.path("data")).unwrap() {
        std::fs::remove_file(folder.unwrap().path().join("manifest.json")).unwrap();
    }
    assert_eq!(site.data(&site.recipe(&[])).manifest, first);
}

#[test]
fn repeated_and_nearly_repeated_documents_are_dropped() {
    let site = Site::new();
    let (long, other) = (stories(40, 5).replace("\n\n", " "), stories(40, 6).replace("\n\n", " "));
    let near = long.replacen("cat", "dog", 1);
    written(&site, "stories.txt", &format!("{long}\n\n{other}\n\n{long}\n\n{near}\n\n{}", stories(50, 9)));
    let count = |near: &str| {
        let change = format!("near_duplicates = {near}");
        let recipe = site.recipe(&[("near_duplicates = false", &change), ("tokens = 4000", "tokens = 100000")]);
        let entry = site.data(&recipe).manifest.sources[0].clone();
        (entry.documents + entry.held_out_documents, entry.repeated, entry.nearly_repeated)
    };
    assert_eq!(count("false"), (53, 1, 0));
    assert_eq!(count("true"), (52, 1, 1));
}

const JSONL: [(&str, &str); 2] = [
    ("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", "jsonl = [\"a.jsonl\"]\nfield = \"t\""),
    ("4000", "99999"),
];

#[test]
fn broken_lines_are_counted_and_shown_and_too_many_refused() {
    let site = Site::new();
    let good: String =
        stories(400, 2).split("\n\n").filter(|t| !t.is_empty()).map(|t| format!("{{\"t\":\"{t}\"}}\n")).collect();
    written(&site, "a.jsonl", &good.replacen("}\n", "}\n{\"t\": 3}\n", 2));
    let refused = site.try_data(&site.recipe(&JSONL)).err().unwrap().to_string();
    assert!(refused.contains("2 of 200 lines are broken, more than the allowed share of 0.001"), "{refused}");
    assert!(refused.contains("a.jsonl, line 2: the field \"t\" is no string"), "{refused}");

    let recipe = site.recipe(&[&JSONL[..], &[("sequence = 32", "sequence = 32\nbroken_share_max = 0.01")]].concat());
    let entry = site.data(&recipe).manifest.sources[0].clone();
    assert_eq!((entry.broken, entry.documents + entry.held_out_documents), (2, 400));
    assert!(entry.first_broken.unwrap().contains("line 2"));

    // One broken line of three is too many, too.
    written(&site, "a.jsonl", "{\"t\":\"one\"}\n{\"u\":1}\n{\"t\":\"two\"}\n");
    let refused = site.try_data(&site.recipe(&JSONL)).err().unwrap().to_string();
    assert!(refused.contains("1 of 3 lines are broken") && refused.contains("no field \"t\""), "{refused}");
    for (content, reason) in [(&b"{\"t\":\"\xff\"}\n"[..], "not valid UTF-8"), (&b"{\"t\":\n"[..], "EOF while parsing")]
    {
        std::fs::write(site.path("a.jsonl"), content).unwrap();
        let refused = site.try_data(&site.recipe(&JSONL)).err().unwrap().to_string();
        assert!(refused.contains(reason), "{refused}");
    }
}

#[test]
fn sources_that_cannot_work_are_refused_in_one_sentence() {
    let site = Site::new();
    let refused = |changes: &[(&str, &str)]| {
        let error = site.try_data(&site.recipe(changes)).err().expect("a refusal");
        (error.to_string(), matches!(error, DataError::Read { .. }))
    };
    let (message, read) = refused(&[("stories.txt", "none.txt")]);
    assert!(read && message.contains("none.txt: cannot be read"), "{message}");
    let (message, _) = refused(&[("held_out_one_in = 10", "held_out_one_in = 1000000")]);
    assert!(message.contains("held-out") && message.contains("lower data.held_out_one_in"), "{message}");
    let generate = ("text = [\"stories.txt\"]\nsplit_at_blank_lines = true", "generate = \"nonsense\"");
    let (message, _) = refused(&[generate]);
    assert!(message.starts_with("source stories: ") && message.contains("nonsense"), "{message}");
    let (message, _) = refused(&[(tokenizer(), "nowhere")]);
    assert!(message.contains("nowhere"), "{message}");
    let fim = ("\"\n\n[data]", "\"\nfim = [\"<a>\", \"<b>\", \"<c>\"]\n\n[data]");
    let (message, _) = refused(&[fim]);
    assert!(message.contains("has no token \"<a>\""), "{message}");
}

#[test]
fn of_a_chat_only_the_answers_are_learned() {
    let site = Site::new();
    let line = |q: &str, a: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"{q}"}},{{"role":"assistant","content":"{a}"}}]}}"#) + "\n"
    };
    let lines: String = (0..60).map(|i| line(&format!("q{i}?"), &format!("a{i}!"))).collect();
    written(&site, "a.jsonl", &lines);
    let recipe = site.recipe(&[JSONL[0], JSONL[1], ("jsonl = ", "chat = "), ("field = \"t\"\n", ""), ("= 32", "= 64")]);
    let data = site.data(&recipe);
    let tokenizer = Tokenizer::from_directory(tokenizer().as_ref()).unwrap();
    let mut learned = String::new();
    for row in 0..data.main.rows() {
        let batch = data.main.batch(&[row], false).unwrap();
        let targets = batch.targets.iter().zip(&batch.learned).filter(|(_, learned)| **learned).map(|(t, _)| *t);
        learned += &tokenizer.decode(&targets.collect::<Vec<u32>>(), Specials::Show);
    }
    assert!(learned.contains("a7!<|im_end|>"), "{learned}");
    assert!(!learned.contains('q') && !learned.contains("user") && !learned.contains("im_start"), "{learned}");
}

/// The learned texts of chats whose template is this one.
fn learned_with(template: &str, lines: &str) -> String {
    let site = Site::new();
    let folder = site.path("tokenizer");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(Path::new(tokenizer()).join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let config = std::fs::read(Path::new(tokenizer()).join("tokenizer_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["chat_template"] = template.into();
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    written(&site, "a.jsonl", lines);
    let own = (tokenizer(), "tokenizer");
    let long = [("= 32", "= 128"), ("_tokens = 64", "_tokens = 128"), ("embeddings = 64", "embeddings = 128")];
    let chat = [own, JSONL[0], JSONL[1], ("jsonl = ", "chat = "), ("field = \"t\"\n", "")];
    let data = site.data(&site.recipe(&[&long[..], &chat[..]].concat()));
    let tokenizer = Tokenizer::from_directory(&folder).unwrap();
    let mut learned = String::new();
    for row in 0..data.main.rows() {
        let batch = data.main.batch(&[row], false).unwrap();
        let targets = batch.targets.iter().zip(&batch.learned).filter(|(_, learned)| **learned).map(|(t, _)| *t);
        learned += &tokenizer.decode(&targets.collect::<Vec<u32>>(), Specials::Show);
    }
    learned
}

#[test]
fn reasoning_is_learned_also_where_the_template_drops_it() {
    let line = |i: u32| {
        format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"q{i}\"}},\
             {{\"role\":\"assistant\",\"reasoning_content\":\"r{i}\",\"content\":\"a{i}\"}}]}}\n"
        )
    };
    let lines: String = (0..60).map(line).collect();
    // R1's: the prompt opens the reasoning, and earlier answers lose theirs.
    let r1 = "{%- for m in messages %}{%- if m.role == 'user' %}{{- '<|im_start|>' + m.content }}{%- else %}\
              {{- '<|im_end|>' + m.content.split('</think>')[-1] + '<|im_end|>' }}{%- endif %}{%- endfor %}\
              {%- if add_generation_prompt %}{{- '<|im_end|><think>\\n' }}{%- endif %}";
    let learned = learned_with(r1, &lines);
    assert!(learned.contains("r7\n</think>\n\na7<|im_end|>") && !learned.contains("<think>r"), "{learned}");
    // Qwen2.5's: the reasoning is not looked at.
    let plain = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
                 {%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}";
    let learned = learned_with(plain, &lines);
    assert!(learned.contains("<think>\nr7\n</think>\n\na7<|im_end|>"), "{learned}");
    // The same, with the reasoning inside the content; a template that keeps it is left alone.
    let inside = lines.replace("\",\"content\":\"a", "</think>a").replace("reasoning_content", "content");
    assert!(inside.contains("\"content\":\"r7</think>a7\""), "{inside}");
    assert_eq!(learned_with(r1, &inside), learned_with(r1, &lines));
    assert!(learned_with(plain, &inside).contains("r7</think>a7<|im_end|>"));
}

#[test]
fn documents_are_filled_in_the_middle_where_asked() {
    let site = Site::new();
    let tokens = "\"\nfim = [\"<|im_start|>\", \"<think>\", \"</think>\"]\n\n[data]\nfim_rate = 0.5";
    let data = site.data(&site.recipe(&[("\"\n\n[data]", tokens), ("sequence = 32", "sequence = 64")]));
    let tokenizer = Tokenizer::from_directory(tokenizer().as_ref()).unwrap();
    let all = stories(300, 1);
    let whole: Vec<&str> = all.split("\n\n").collect();
    let (mut plain, mut turned) = (0, 0);
    for row in 0..data.main.rows() {
        let batch = data.main.batch(&[row], false).unwrap();
        let text = tokenizer.decode(&batch.tokens, Specials::Show);
        for document in text.split("<|im_end|>").map(|text| text.trim_start_matches("<|endoftext|>")) {
            plain += u32::from(whole.contains(&document) && !document.is_empty());
            let Some((prefix, rest)) = document.strip_prefix("<|im_start|>").and_then(|t| t.split_once("<think>"))
            else {
                continue;
            };
            let Some((suffix, middle)) = rest.split_once("</think>") else { continue };
            turned += u32::from(whole.contains(&format!("{prefix}{middle}{suffix}").as_str()));
        }
    }
    let share = f64::from(turned) / f64::from(plain + turned);
    assert!(turned > 20 && (0.3..0.7).contains(&share), "{turned} turned, {plain} plain");
}
