//! The runner on a real model: the tiny one of the command line's tests, which knows five answers by heart. From a
//! problem to its grade, the same in any batch and on any number of threads.

use std::path::Path;

use engine::compute::ModelCompute;
use engine::limits::Limits;
use engine::sampler::Sampling;
use engine::session::{Session, SessionError};
use engine::step::Engine;
use eval::bits::bits_of_text;
use eval::runner::{Job, Output, grade_output, run_jobs, sample_seed};
use eval::{Expected, Language, Problem, Reason};
use kernels::attention::CacheFormat;
use kernels::pool::Pool;
use model::checkpoint::Checkpoint;
use model::load::Model;
use text::{ReasoningFormat, Tokenizer};

const QUESTION: &str = "What is 2 + 3?";

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fathom/tests/fixtures/tiny-chat")
}

fn run(model: &Model, threads: usize, jobs: &[Job], at_once: usize) -> Vec<Output> {
    let pool = Pool::new(threads);
    let limits = Limits { context_tokens_max: 256, pages: 256, ..Limits::default() };
    let compute = ModelCompute::new(model, &pool, limits.pages, CacheFormat::F32);
    run_jobs(&mut Engine::new(compute, limits), jobs, at_once, &mut |_, _| true).expect("runs")
}

#[test]
fn from_a_problem_to_its_grade_in_any_batch() {
    let model = Model::from_checkpoint(&Checkpoint::open(folder()).expect("opens")).expect("a model");
    let tokenizer = Tokenizer::from_directory(&folder()).expect("a tokenizer");
    let job = |question: &str, temperature, sample| Job {
        prompt: tokenizer
            .encode_with_specials(&format!("<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"))
            .expect("encodes"),
        sampling: Sampling { temperature, seed: sample_seed(1, 0, sample), ..Sampling::default() },
        max_tokens: 40,
        stop_tokens: tokenizer.eos_ids().to_vec(),
        thinking: None,
    };
    let mut jobs = vec![job(QUESTION, 0.0, 0)];
    jobs.extend((0..6).map(|sample| job(["hm", "1+1", QUESTION][sample % 3], 1.0, sample)));
    let outputs = run(&model, 1, &jobs, 1);
    assert_eq!(outputs, run(&model, 1, &jobs, 64));
    assert_eq!(outputs, run(&model, 2, &jobs, 5));

    let problem = |expected| Problem {
        task: "test",
        key: String::new(),
        question: QUESTION.into(),
        language: Language::English,
        level: 1,
        expected,
    };
    let graded = |expected| grade_output(&problem(expected), &outputs[0], &tokenizer, &ReasoningFormat::think(false));
    let right = graded(Expected::Integer(5));
    assert_eq!(right.written, "<think>\n2 + 3 = 5.\n</think>\n\nThe answer is **5**.");
    assert_eq!(right.answer, "The answer is **5**.");
    assert!(right.stopped && right.grade.correct && !right.grade.format_ok, "{right:?}");
    assert!(!graded(Expected::Integer(6)).grade.correct);
    assert!(graded(Expected::Text("The answer is **5**.".into())).grade.correct);
    let cut = Output { tokens: outputs[0].tokens[..3].to_vec(), ..Output::default() };
    let cut = grade_output(&problem(Expected::Integer(5)), &cut, &tokenizer, &ReasoningFormat::think(false));
    assert_eq!(cut.grade.reason, Reason::Unfinished);
}

#[test]
fn bits_are_those_of_one_token_after_the_other() {
    let model = Model::from_checkpoint(&Checkpoint::open(folder()).expect("opens")).expect("a model");
    let tokenizer = Tokenizer::from_directory(&folder()).expect("a tokenizer");
    let text = "What is 2 + 3? The answer is 5. ".repeat(6);
    let tokens = tokenizer.encode(&text).expect("encodes");
    let pool = Pool::new(1);
    for context in [2, 70, 1024] {
        let mut session = Session::new(&model, &pool, context, CacheFormat::F32);
        let bits = bits_of_text(&mut session, 0, &tokens, text.len(), &mut |_| true).expect("runs").expect("bits");
        let mut nats = 0.0;
        for window in tokens.chunks(context - 1) {
            let mut logits = session.prompt(&[0], |_| true).expect("runs").expect("logits");
            for (at, &token) in window.iter().enumerate() {
                let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
                nats += sum.ln() - f64::from(logits[token as usize]);
                if at + 1 < window.len() {
                    logits = session.push(token).expect("runs");
                }
            }
        }
        assert_eq!((bits.bytes, bits.tokens), (text.len(), tokens.len()));
        assert!((bits.nats - nats).abs() < 1e-6 * nats, "{} and {nats} at {context}", bits.nats);
    }
    let mut session = Session::new(&model, &pool, 16, CacheFormat::F32);
    assert_eq!(bits_of_text(&mut session, 0, &[1, 2, 3], 3, &mut |_| false), Ok(None));
    let unknown = bits_of_text(&mut session, 0, &[1, 9999], 3, &mut |_| true);
    assert_eq!(unknown, Err(SessionError::Token { token: 9999, vocab: 400 }));
}
