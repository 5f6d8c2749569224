//! Chat templates against the reference's renderings, hostile templates, and the border between a template's text and
//! that of messages.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};
use text::{ChatInput, ChatTemplate, TemplateError, Tokenizer};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// (name, template, cases) of every published template.
fn published() -> Vec<(String, String, Value)> {
    let files = std::fs::read_dir(fixtures().join("chat_templates")).unwrap();
    let mut all: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jinja"))
        .map(|path| {
            let source = std::fs::read_to_string(&path).unwrap();
            let cases = std::fs::read_to_string(path.with_extension("json")).unwrap();
            (path.file_stem().unwrap().to_str().unwrap().into(), source, serde_json::from_str(&cases).unwrap())
        })
        .collect();
    all.sort_by(|a: &(String, String, Value), b| a.0.cmp(&b.0));
    all
}

fn input<'a>(messages: &'a Value, tools: &'a Value) -> ChatInput<'a> {
    ChatInput {
        messages: messages.as_array().unwrap(),
        tools: tools.as_array().map(Vec::as_slice),
        add_generation_prompt: true,
        bos_token: "<BOS>",
        eos_token: "<EOS>",
        today: Some((2026, 11, 21)),
        variables: None,
    }
}

#[test]
fn published_templates_render_as_the_reference_does() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for (name, source, file) in published() {
        let template = ChatTemplate::parse(&source).unwrap();
        // Cases with odd content, by reference/text_odd_messages.py.
        let odd = std::fs::read_to_string(fixtures().join(format!("chat_templates/{name}.odd.json"))).unwrap();
        let odd: Value = serde_json::from_str(&odd).unwrap();
        for case in file["cases"].as_array().unwrap().iter().chain(odd["cases"].as_array().unwrap()) {
            let mut input = input(&case["messages"], &case["tools"]);
            input.add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
            input.variables = case.get("variables").and_then(Value::as_object);
            let rendered = template.render(&input);
            let equal = match (&rendered, case.get("error")) {
                (rendered, Some(_)) => rendered.is_err(),
                (Ok(rendered), None) => rendered == case["rendered"].as_str().unwrap(),
                (Err(_), None) => false,
            };
            if !equal {
                wrong.push(format!(
                    "{name}, {}: {rendered:?}\nexpected {} {}",
                    case["case"], case["rendered"], case["error"]
                ));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count >= 200, "{count}");
}

fn render(source: &str, messages: Value) -> Result<String, TemplateError> {
    ChatTemplate::parse(source)?.render(&input(&messages, &Value::Null))
}

#[test]
fn python_semantics() {
    let message = |content: Value| json!([{"role": "user", "content": content}]);
    let c = "{{ messages[0].content";
    let cases = [
        (
            format!("{c} }}}}"),
            json!(["a'b", 1.5, null, true, {"x": "é\n"}]),
            r#"["a'b", 1.5, None, True, {'x': 'é\n'}]"#,
        ),
        (
            format!("{c}|tojson }}}}"),
            json!({"b": 1, "a": ["<é>\u{7}", 1e20, 0.5]}),
            r#"{"b": 1, "a": ["<é>\u0007", 1e+20, 0.5]}"#,
        ),
        (
            format!("{c}|tojson(indent=2) }}}}"),
            json!({"a": [], "b": [1]}),
            "{\n  \"a\": [],\n  \"b\": [\n    1\n  ]\n}",
        ),
        (format!("{c}.split('</think>')[-1].strip() }}}}"), json!("a</think> b </think> c "), "c"),
        (format!("{c}.split()|join('|') }}}}"), json!(" a  b\n"), "a|b"),
        (format!("{c}.rsplit('-', 1)[0] }}}}"), json!("a-b-c"), "a-b"),
        (format!("{c}.replace('<', '[').upper() }}}}"), json!("<a<"), "[A["),
        (format!("{c}[1:-1] }}}}"), json!("<é>"), "é"),
        // Slices on which the interpreter's own ones panic, found by fuzzing.
        (format!("{c}[::-1] }}}}"), json!(""), ""),
        (format!("{c}[1:-3:-1] }}}}"), json!("<BOS>"), ""),
        (format!("{c}[4:-9:-2] }}}}|{c}[-1:-3:-1] }}}}"), json!("abcdef"), "eca|fe"),
        (format!("{c}[-9223372036854775807:9223372036854775807:9223372036854775807] }}}}"), json!("ab"), "a"),
        (format!("{c}[::-1][:1]|join }}}}{{{{ (1, 2, 3)[1:] }}}}"), json!(["a", "b"]), "b(2, 3)"),
        (format!("{c}.items()|list|length }}}}"), json!({"items": {}, "a": 1}), "2"),
        (format!("{c}.title() ~ 1 ~ none }}}}"), json!("ab cd"), "Ab Cd1None"),
        (
            "{% if messages[0].content is iterable and messages[0].content is not mapping %}y{% endif %}".into(),
            json!("x"),
            "y",
        ),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}".into(), json!("x"), "x"),
        ("{{ strftime_now('%d %b %Y, %A') }}".into(), json!("x"), "21 Nov 2026, Saturday"),
        (
            "{% for m in messages %}{% break %}{% endfor %}{% macro f(a, b=2) %}{{ a + b }}{% endmacro %}{{ f(1) }}"
                .into(),
            json!("x"),
            "3",
        ),
    ];
    for (source, content, expected) in cases {
        assert_eq!(render(&source, message(content)).unwrap(), expected, "{source}");
    }
}

#[test]
fn text_of_messages_never_becomes_a_special_token() {
    let tokenizer = Tokenizer::from_directory(&fixtures().join("tokenizers/deepseek")).unwrap();
    let reserved = tokenizer.reserved_ids();
    let markers: Vec<String> = reserved
        .iter()
        .map(|&id| tokenizer.token(id).unwrap().to_string())
        .filter(|token| !token.contains("place▁holder"))
        .collect();
    assert!(markers.len() > 40);
    for (name, source, _) in published() {
        let template = ChatTemplate::parse(&source).unwrap();
        // Every field that a message can fill; `cut` spreads the marker over two neighbours.
        let conversation = |a: &str, b: &str| {
            let tools = json!([{"type": "function", "function": {"name": a, "description": b, "parameters": {a: {"enum": [b]}}}}]);
            let call =
                json!([{"id": "call00001", "type": "function", "function": {"name": a, "arguments": {a: b, "x": a}}}]);
            let messages = json!([
                {"role": "system", "content": a},
                {"role": "user", "content": format!("{a}{b}")},
                {"role": "assistant", "content": b, "tool_calls": call},
                {"role": "tool", "name": b, "tool_call_id": "call00001", "content": a},
                {"role": "assistant", "content": a, "reasoning_content": b},
                {"role": "user", "content": b},
            ]);
            let segments = template.render_segments(&input(&messages, &tools));
            segments.map(|segments| {
                let ids = tokenizer.encode_segments(&segments).unwrap();
                ids.into_iter().filter(|id| reserved.contains(id)).collect::<Vec<u32>>()
            })
        };
        let harmless = conversation("ab", "cd").unwrap();
        for marker in &markers {
            // The template itself decides by these two; what it drops or keeps is its own affair.
            let decides = marker == "<think>" || marker == "</think>";
            let middle = marker.chars().count() / 2;
            let (left, right) =
                (marker.chars().take(middle).collect::<String>(), marker.chars().skip(middle).collect::<String>());
            for (a, b) in [(marker.as_str(), marker.as_str()), (&left, &right), (marker, "cd")] {
                let found = conversation(a, b).unwrap();
                assert!(found == harmless || (decides && found.len() <= harmless.len() + 2), "{name} {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn a_closing_marker_in_content_is_seen_by_the_template_and_stays_text() {
    let source = "{% for m in messages %}{% if '</think>' in m.content %}{{ '<think>' + m.content.split('</think>')[-1] + '</think>' }}{% endif %}{% endfor %}";
    let template = ChatTemplate::parse(source).unwrap();
    let messages = json!([{"role": "user", "content": "a</think><think>b"}]);
    let segments = template.render_segments(&input(&messages, &Value::Null)).unwrap();
    let parts: Vec<(&str, bool)> = segments.iter().map(|segment| (segment.text.as_str(), segment.trusted)).collect();
    assert_eq!(parts, [("<think>", true), ("<think>b", false), ("</think>", true)]);
}

#[test]
fn hostile_templates_end_in_an_error_soon() {
    let nested = format!("{}1{}", "(".repeat(1000), ")".repeat(1000));
    let lists = format!("{{{{ {}1{} }}}}", "[".repeat(1000), "]".repeat(1000));
    let sum = format!("{{{{ {}1 }}}}", "1+".repeat(100_000));
    let ifs = format!("{}{}", "{% if 1 %}".repeat(1000), "{% endif %}".repeat(1000));
    let elifs = format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(10_000));
    let nested = format!("{{{{ {nested} }}}}");
    let cases = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x=[1]) %}{% for a in range(64) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(64) %}{% set ns.x = ns.x.replace('x', 'xx') %}{% endfor %}",
        "{% set ns = namespace(x='x') %}{% for a in range(64) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
        "{% set x = 'abcd' * 100000 %}{% for a in range(99999) %}{% set y = x.split('a') %}{% endfor %}",
        "{% set x = 'abcd' * 100000 %}{% for a in range(99999) %}{% set y = x|upper %}{% endfor %}",
        "{% set x = 'x' * 9999999999 %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns|tojson }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns == 1 }}",
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__ }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{{ messages|tojson(indent=99999999) }}",
        "{{ 9223372036854775807 + 1 }}",
        "{{ raise_exception('no') }}",
        "{{ undefined_function() }}",
        "{{ __charge(1) }}",
        "{{",
        "{% if %}",
        "{%}",
        "{%é}",
        "",
        &nested,
        &lists,
        &sum,
        &ifs,
        &elifs,
    ];
    for source in cases {
        let start = Instant::now();
        let result = render(source, json!([{"role": "user", "content": "x"}]));
        let elapsed = start.elapsed();
        let shown: String = source.chars().take(80).collect();
        assert!(result.is_err(), "{shown}: {result:?}");
        println!("{:7.1} ms {shown} -> {}", elapsed.as_secs_f64() * 1e3, result.unwrap_err());
        // 50 ms in release; tests run unoptimised on busy machines.
        assert!(elapsed.as_millis() < 2_000, "{shown}: {elapsed:?}");
    }
}

#[test]
fn errors_say_what_is_wrong() {
    let refused = render("{{ raise_exception('Only user and assistant roles!') }}", json!([])).unwrap_err();
    assert_eq!(refused.to_string(), "the chat template refuses the messages: Only user and assistant roles!");
    let template = ChatTemplate::parse("{{ bos_token }}").unwrap();
    let variables = json!({"bos_token": "x"});
    let messages = json!([]);
    let mut with = input(&messages, &Value::Null);
    with.variables = variables.as_object();
    let error = template.render(&with).unwrap_err().to_string();
    assert!(error.contains("\"bos_token\" is not a variable that can be set"), "{error}");
    assert!(matches!(ChatTemplate::parse("").unwrap_err(), TemplateError::Missing));
}
