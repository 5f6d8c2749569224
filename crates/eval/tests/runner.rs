//! The runner on the engine with a scripted model: every problem gets its answers, whatever runs beside it, and the
//! figures are those of what was written.

use std::collections::HashMap;

use engine::limits::Limits;
use engine::request::Refusal;
use engine::sampler::Sampling;
use engine::step::{Compute, Engine};
use eval::grade;
use eval::runner::{Job, Output, RunError, Sample, Solved, run_jobs, sample_seed, summaries};
use eval::task::Task;
use eval::{Expected, Opened, Problem, Split};
use kernels::attention::Chunk;

const STOP: u32 = 3;

/// A model over bytes that says what the script has for a prompt, and remembers nothing but its cache's contents.
struct Scripted {
    answers: HashMap<Vec<u32>, Vec<u32>>,
    /// Tokens by page and place.
    cache: Vec<Vec<u32>>,
}

impl Compute for Scripted {
    fn vocab(&self) -> usize {
        256
    }

    fn run(&mut self, tokens: &[u32], chunks: &[Chunk], wanted: &[usize]) -> Vec<f32> {
        let page_len = kernels::attention::PAGE_LEN;
        let mut logits = Vec::new();
        for chunk in chunks {
            for row in 0..chunk.rows {
                let at = chunk.position + row;
                self.cache[chunk.pages[at / page_len] as usize][at % page_len] = tokens[chunk.first_row + row];
            }
            let last = chunk.first_row + chunk.rows - 1;
            if wanted.contains(&last) {
                let length = chunk.position + chunk.rows;
                let read = |at: usize| self.cache[chunk.pages[at / page_len] as usize][at % page_len];
                let text: Vec<u32> = (0..length).map(read).collect();
                let mut row = vec![0.0; 256];
                row[self.next(&text) as usize] = 100.0;
                logits.extend(row);
            }
        }
        logits
    }
}

impl Scripted {
    fn next(&self, text: &[u32]) -> u32 {
        let prompt_len = text.iter().position(|&token| token == u32::from(b'>')).expect("a prompt ends") + 1;
        let answer = &self.answers[&text[..prompt_len]];
        answer.get(text.len() - prompt_len).copied().unwrap_or(STOP)
    }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

fn engine(answers: &[(String, String)], limits: Limits) -> Engine<Scripted> {
    let answers = answers.iter().map(|(prompt, answer)| (bytes(prompt), bytes(answer))).collect();
    let cache = vec![vec![0; kernels::attention::PAGE_LEN]; limits.pages];
    Engine::new(Scripted { answers, cache }, limits)
}

fn script() -> Vec<(String, String)> {
    (0..40).map(|i| (format!("question {i}, {}>", "x".repeat(i * 3)), format!("hm</think>{}", i * i))).collect()
}

fn jobs(script: &[(String, String)], max_tokens: usize) -> Vec<Job> {
    let job = |(prompt, _): &(String, String)| Job {
        prompt: bytes(prompt),
        sampling: Sampling::default(),
        max_tokens,
        stop_tokens: vec![STOP],
        thinking: None,
    };
    script.iter().map(job).collect()
}

fn text_of(output: &Output) -> String {
    output.said().iter().map(|&token| token as u8 as char).collect()
}

#[test]
fn every_job_gets_its_own_answer_in_any_batch() {
    let script = script();
    let tight = Limits { running_max: 3, pages: 520, ..Limits::default() };
    for (limits, at_once) in [(Limits::default(), 64), (Limits::default(), 1), (tight, 7)] {
        let mut calls = 0;
        let mut progress = |_, _| {
            calls += 1;
            true
        };
        let mut engine = engine(&script, limits);
        let outputs = run_jobs(&mut engine, &jobs(&script, 50), at_once, &mut progress).expect("runs");
        assert!(calls > 0);
        for ((_, answer), output) in script.iter().zip(&outputs) {
            assert_eq!((text_of(output), output.stopped), (answer.clone(), true));
        }
    }
    let short =
        run_jobs(&mut engine(&script, Limits::default()), &jobs(&script, 4), 9, &mut |_, _| true).expect("runs");
    assert!(short.iter().all(|output| text_of(output) == "hm</" && !output.stopped));
}

#[test]
fn what_the_engine_refuses_is_told_and_a_run_can_be_stopped() {
    let script = script();
    let mut bad = jobs(&script, 5);
    bad[2].prompt = vec![999];
    let refused = run_jobs(&mut engine(&script, Limits::default()), &bad, 8, &mut |_, _| true);
    assert!(matches!(refused, Err(RunError::Refused { index: 2, refusal: Refusal::Token { .. } })));
    let stopped = run_jobs(&mut engine(&script, Limits::default()), &jobs(&script, 5), 8, &mut |_, _| false);
    assert!(matches!(stopped, Err(RunError::Stopped)));
}

fn sample(problem: &Problem, written: &str) -> Sample {
    let answer = written.rsplit("</think>").next().expect("a part").to_string();
    let grade = grade(problem, written, Opened::Yes);
    Sample { written: written.into(), answer, grade, tokens: written.len(), stopped: true }
}

#[test]
fn figures_are_those_of_the_samples() {
    let problems = Task::Countdown(3).problems(1, 2, Split::HeldOut);
    let levels: Vec<u8> = problems.iter().map(|problem| problem.level).collect();
    assert_eq!(levels, [2, 3]);
    let of = |value: i64, level: u8| Problem { expected: Expected::Integer(value), level, ..problems[0].clone() };
    let (one, two) = (of(7, 2), of(8, 3));
    let solved = [
        Solved { samples: ["</think>7", "</think>7", "</think>8", "7"].map(|t| sample(&one, t)).into(), problem: one },
        Solved {
            samples: ["</think>is 9", "</think>9", "</think>8", "</think>1"].map(|t| sample(&two, t)).into(),
            problem: two,
        },
    ];
    let all = summaries(&solved);
    assert_eq!(all.iter().map(|s| s.level).collect::<Vec<_>>(), [None, Some(2), Some(3)]);
    assert_eq!((all[0].problems, all[0].samples), (2, 4));
    assert!((all[0].pass_1 - 0.375).abs() < 1e-12 && all[0].pass_k == 1.0);
    assert_eq!((all[1].majority, all[2].majority), (1.0, 0.0));
    assert_eq!(all[0].format, 6.0 / 8.0);
    assert!(all[0].interval.0 < 0.375 && all[0].interval.1 > 0.375);
}

#[test]
fn seeds_of_samples_differ() {
    let seeds: std::collections::BTreeSet<u64> =
        (0..100).flat_map(|problem| (0..16).map(move |sample| sample_seed(5, problem, sample))).collect();
    assert_eq!(seeds.len(), 1600);
}
