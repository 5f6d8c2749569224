//! Documents out of sources: generators, plain text, JSONL, Parquet, chats.
//!
//! Files are read a line or a row at a time. A line that is no UTF-8, no JSON, or lacks its field is broken: it is
//! counted and shown, and where too large a share is broken the file is refused.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use kernels::pool::Pool;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::record::reader::RowIter;
use text::{ChatInput, ChatTemplate, ReasoningFormat, Segment, Tokenizer};

use super::{DataError, FileEntry, files};
use crate::corpus;
use crate::recipe::{Recipe, Source};

/// Longest line or row, and longest document of plain text.
const TEXT_BYTES_MAX: usize = 16 << 20;
/// Most messages of a chat.
const MESSAGES_MAX: usize = 1000;
/// Lines that are read before a file can be refused for its share of broken ones.
const LINES_MIN: u64 = 200;

/// A document as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Raw {
    pub(super) parts: Vec<Part>,
    pub(super) kind: String,
}

/// A run of a document, encoded by itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) segments: Vec<Segment>,
    /// Whether its tokens are learned.
    pub(super) learn: bool,
}

impl Raw {
    fn plain(text: String, kind: &str) -> Raw {
        let segments = vec![Segment::untrusted(text)];
        Raw { parts: vec![Part { segments, learn: true }], kind: kind.to_string() }
    }

    pub(super) fn text(&self) -> String {
        self.parts.iter().flat_map(|part| &part.segments).map(|segment| segment.text.as_str()).collect()
    }
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.text.len() as u64).sum()
    }
}

/// The documents of a source, a batch at a time.
pub(super) enum Feed {
    Generated { corpus: Box<dyn corpus::Source>, next: u64 },
    Files(Box<Files>),
}

impl Feed {
    pub(super) fn open(recipe: &Recipe, source: &Source, tokenizer: &Tokenizer) -> Result<Feed, DataError> {
        let refuse = |reason: String| DataError::Source { name: source.name.clone(), reason };
        if let Some(name) = &source.generate {
            let corpus = corpus::open(name, source.seed.unwrap_or(recipe.seed), &source.options);
            return Ok(Feed::Generated { corpus: corpus.map_err(refuse)?, next: 0 });
        }
        let (form, list) = if !source.text.is_empty() {
            (Form::Text { split: source.split_at_blank_lines }, &source.text)
        } else if !source.jsonl.is_empty() {
            (Form::Jsonl, &source.jsonl)
        } else if !source.parquet.is_empty() {
            (Form::Parquet, &source.parquet)
        } else {
            let template = tokenizer.chat_template(None).unwrap_or_default();
            let template = ChatTemplate::parse(template).map_err(|error| refuse(error.to_string()))?;
            (Form::Chat(Box::new(Chat::new(template, tokenizer))), &source.chat)
        };
        let paths: Vec<PathBuf> = list.iter().map(|path| recipe.path(path)).collect();
        let mut files = Vec::new();
        for (path, named) in paths.iter().zip(list) {
            let hashed = files::sha256_file(path).map_err(|source| DataError::Read { path: path.clone(), source });
            let (sha256, bytes) = hashed?;
            files.push(FileEntry { path: named.display().to_string(), bytes, sha256 });
        }
        let field = source.field.clone().unwrap_or_default();
        let limit = recipe.data.broken_share_max;
        let broken = Broken { limit, ..Broken::default() };
        Ok(Feed::Files(Box::new(Files { form, field, paths, files, at: 0, open: None, broken, in_all: (0, None) })))
    }

    /// The next documents, at most `count` and a few more; none at the end.
    pub(super) fn batch(&mut self, pool: &Pool, count: usize) -> Result<Vec<Raw>, DataError> {
        match self {
            Feed::Generated { corpus, next } => {
                let first = *next;
                *next += count as u64;
                let mut documents: Vec<Option<Raw>> = vec![None; count];
                pool.for_each_piece(&mut documents, 16, |piece, slots| {
                    for (i, slot) in slots.iter_mut().enumerate() {
                        let document = corpus.document(first + (piece * 16 + i) as u64);
                        let parts = vec![Part { segments: document.segments, learn: true }];
                        *slot = Some(Raw { parts, kind: document.kind.to_string() });
                    }
                });
                Ok(documents.into_iter().flatten().collect())
            }
            Feed::Files(files) => files.batch(count),
        }
    }

    pub(super) fn origin(&self, source: &Source) -> String {
        match self {
            Feed::Generated { corpus, .. } if source.origin.is_empty() => corpus.origin(),
            _ => source.origin.clone(),
        }
    }

    pub(super) fn licence(&self, source: &Source) -> String {
        match self {
            Feed::Generated { .. } if source.licence.is_empty() => "MIT (generated by this repository)".to_string(),
            _ => source.licence.clone(),
        }
    }

    /// How many lines or rows were broken, and the first of them.
    pub(super) fn broken(&self) -> (u64, Option<String>) {
        match self {
            Feed::Generated { .. } => (0, None),
            Feed::Files(files) => files.in_all.clone(),
        }
    }

    pub(super) fn files(&self) -> Result<Vec<FileEntry>, DataError> {
        match self {
            Feed::Generated { .. } => Ok(Vec::new()),
            Feed::Files(files) => Ok(files.files.clone()),
        }
    }
}

/// What the files hold.
enum Form {
    Text { split: bool },
    Jsonl,
    Parquet,
    Chat(Box<Chat>),
}

/// The broken lines of one file.
#[derive(Default)]
struct Broken {
    count: u64,
    total: u64,
    limit: f64,
    first: Option<String>,
}

pub(super) struct Files {
    form: Form,
    field: String,
    paths: Vec<PathBuf>,
    files: Vec<FileEntry>,
    /// The file that is read.
    at: usize,
    open: Option<Open>,
    broken: Broken,
    /// Of all files that were read to their end.
    in_all: (u64, Option<String>),
}

enum Open {
    Lines { reader: BufReader<File>, line: u64 },
    Rows { rows: Box<RowIter<'static>>, row: u64 },
}

impl Files {
    fn batch(&mut self, count: usize) -> Result<Vec<Raw>, DataError> {
        let mut documents = Vec::new();
        while documents.len() < count {
            if self.open.is_none() {
                let Some(path) = self.paths.get(self.at) else { break };
                self.open = Some(open(path, &self.form, &self.field)?);
            }
            let more = match &mut self.open {
                Some(Open::Rows { .. }) => self.row(&mut documents)?,
                _ => self.line(&mut documents)?,
            };
            self.check(!more)?;
            if !more {
                (self.open, self.at) = (None, self.at + 1);
            }
        }
        Ok(documents)
    }

    /// Refuses a file with too many broken lines: at its end, and as soon as enough have been seen to say so.
    fn check(&mut self, end: bool) -> Result<(), DataError> {
        let Broken { count, total, limit, first } = &mut self.broken;
        let too_many = *count as f64 > *limit * (*total).max(if end { 1 } else { LINES_MIN }) as f64;
        if too_many && (end || *total >= LINES_MIN) {
            let what = if matches!(self.form, Form::Parquet) { "rows" } else { "lines" };
            let (path, first) = (self.paths[self.at].clone(), first.clone().unwrap_or_default());
            return Err(DataError::Broken { path, what, broken: *count, total: *total, limit: *limit, first });
        }
        if end {
            self.in_all.0 += std::mem::take(count);
            let first = first.take();
            self.in_all.1 = self.in_all.1.take().or(first);
            *total = 0;
        }
        Ok(())
    }

    fn broken(&mut self, place: String, reason: &str) {
        self.broken.count += 1;
        let path = self.paths[self.at].display();
        self.broken.first.get_or_insert_with(|| format!("{path}, {place}: {reason}"));
    }

    /// Reads a line (of plain text: a document). Returns whether there was one.
    fn line(&mut self, documents: &mut Vec<Raw>) -> Result<bool, DataError> {
        let Some(Open::Lines { reader, line }) = &mut self.open else { return Ok(false) };
        let first_line = *line + 1;
        let (mut bytes, mut too_long) = (Vec::new(), false);
        loop {
            let read = read_line(reader, &mut bytes);
            let read = read.map_err(|source| DataError::Read { path: self.paths[self.at].clone(), source })?;
            let Some((blank, fits)) = read else { break };
            *line += 1;
            too_long |= !fits;
            match self.form {
                Form::Text { split } if !(split && blank) => {}
                _ => break,
            }
        }
        if *line < first_line {
            return Ok(false);
        }
        self.broken.total += 1;
        let place = format!("line {first_line}");
        if too_long {
            self.broken(place, &format!("longer than {TEXT_BYTES_MAX} bytes"));
            return Ok(true);
        }
        let Ok(text) = String::from_utf8(bytes) else {
            self.broken(place, "not valid UTF-8");
            return Ok(true);
        };
        if text.trim().is_empty() {
            return Ok(true);
        }
        match self.parse(&text) {
            Ok(found) => documents.extend(found),
            Err(reason) => self.broken(place, &reason),
        }
        Ok(true)
    }

    /// The documents of a line, or why it is broken.
    fn parse(&self, text: &str) -> Result<Vec<Raw>, String> {
        if matches!(self.form, Form::Text { .. }) {
            return Ok(vec![Raw::plain(text.trim_end().to_string(), "text")]);
        }
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if let Form::Chat(chat) = &self.form {
            return chat.documents(&json);
        }
        match json.get(&self.field) {
            Some(serde_json::Value::String(text)) if !text.trim().is_empty() => {
                Ok(vec![Raw::plain(text.clone(), "text")])
            }
            Some(serde_json::Value::String(_)) => Ok(Vec::new()),
            Some(_) => Err(format!("the field {:?} is no string", self.field)),
            None => Err(format!("there is no field {:?}", self.field)),
        }
    }

    /// Reads a row. Returns whether there was one.
    fn row(&mut self, documents: &mut Vec<Raw>) -> Result<bool, DataError> {
        let Some(Open::Rows { rows, row }) = &mut self.open else { return Ok(false) };
        let Some(read) = rows.next() else { return Ok(false) };
        (*row, self.broken.total) = (*row + 1, self.broken.total + 1);
        let place = format!("row {row}");
        // After an error inside a page nothing can be said of the rows behind it.
        let read = read.map_err(|error| {
            let source = std::io::Error::other(format!("{place}: {error}"));
            DataError::Read { path: self.paths[self.at].clone(), source }
        })?;
        match read.get_column_iter().next() {
            Some((_, Field::Str(text))) if text.len() <= TEXT_BYTES_MAX => {
                if !text.trim().is_empty() {
                    documents.push(Raw::plain(text.clone(), "text"));
                }
            }
            Some((_, Field::Str(text))) => {
                let reason = format!("{} bytes long; the limit is {TEXT_BYTES_MAX}", text.len());
                self.broken(place, &reason);
            }
            Some((_, Field::Null)) => self.broken(place, "no text"),
            _ => self.broken(place, "the column holds no text"),
        }
        Ok(true)
    }
}

/// Appends a line to `bytes`, or passes over what would make them too long. Returns whether the line was blank and
/// whether it fitted; nothing at the end.
fn read_line(reader: &mut impl BufRead, bytes: &mut Vec<u8>) -> std::io::Result<Option<(bool, bool)>> {
    let (mut blank, mut fits, mut any) = (true, true, false);
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            return Ok(any.then_some((blank, fits)));
        }
        any = true;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let taken = end.map_or(buffer.len(), |end| end + 1);
        blank &= buffer[..taken].iter().all(u8::is_ascii_whitespace);
        fits &= bytes.len() + taken <= TEXT_BYTES_MAX;
        if fits {
            bytes.extend_from_slice(&buffer[..taken]);
        }
        reader.consume(taken);
        if end.is_some() {
            return Ok(Some((blank, fits)));
        }
    }
}

fn open(path: &Path, form: &Form, field: &str) -> Result<Open, DataError> {
    let io = |source| DataError::Read { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    if !matches!(form, Form::Parquet) {
        return Ok(Open::Lines { reader: BufReader::with_capacity(1 << 20, file), line: 0 });
    }
    let other = |error: parquet::errors::ParquetError| io(std::io::Error::other(error.to_string()));
    let reader = SerializedFileReader::new(file).map_err(other)?;
    let schema = reader.metadata().file_metadata().schema();
    let column = schema.get_fields().iter().find(|column| column.name() == field).cloned();
    let Some(column) = column else {
        let known: Vec<&str> = schema.get_fields().iter().map(|column| column.name()).take(20).collect();
        let reason = format!("there is no column {field:?}; its columns are: {}", known.join(", "));
        return Err(io(std::io::Error::other(reason)));
    };
    let projection = parquet::schema::types::Type::group_type_builder(schema.name()).with_fields(vec![column]);
    let projection = projection.build().map_err(other)?;
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(projection));
    Ok(Open::Rows { rows: Box::new(rows.map_err(other)?), row: 0 })
}

/// Chats, of which the assistant's answers are learned.
struct Chat {
    template: ChatTemplate,
    bos: String,
    eos: String,
}

impl Chat {
    fn new(template: ChatTemplate, tokenizer: &Tokenizer) -> Chat {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default().to_string();
        Chat { template, bos: token(tokenizer.bos_id()), eos: token(tokenizer.eos_ids().first().copied()) }
    }

    /// One document for the whole chat where the template only ever appends; otherwise (templates that drop earlier
    /// reasoning) one for each answer, after the prompt that it would have been given.
    fn documents(&self, json: &serde_json::Value) -> Result<Vec<Raw>, String> {
        let messages = json.get("messages").and_then(|m| m.as_array()).ok_or("there is no list \"messages\"")?;
        if messages.len() > MESSAGES_MAX {
            return Err(format!("{} messages; the limit is {MESSAGES_MAX}", messages.len()));
        }
        let answers: Vec<usize> =
            (0..messages.len()).filter(|&i| messages[i].get("role").is_some_and(|role| role == "assistant")).collect();
        if answers.is_empty() {
            return Err("there is no message of the assistant".to_string());
        }
        let mut whole: Vec<Part> = Vec::new();
        let mut apart: Vec<Raw> = Vec::new();
        let mut appends = true;
        for &i in &answers {
            let prompt = self.render(&messages[..i], true)?;
            let full = self.render(&messages[..=i], false)?;
            let answer = self.answer(&messages[i], &prompt, after(&full, &prompt))?;
            let so_far: Vec<Segment> = whole.iter().flat_map(|part| part.segments.clone()).collect();
            match after(&prompt, &so_far) {
                Some(new) => {
                    whole.push(Part { segments: new, learn: false });
                    whole.push(Part { segments: answer.clone(), learn: true });
                }
                None => appends = false,
            }
            let parts = vec![Part { segments: prompt, learn: false }, Part { segments: answer, learn: true }];
            apart.push(Raw { parts, kind: "chat".to_string() });
        }
        if appends {
            whole.retain(|part| part.bytes() > 0);
            return Ok(vec![Raw { parts: whole, kind: "chat".to_string() }]);
        }
        Ok(apart)
    }

    /// What the model would have written after the prompt. Published templates render earlier answers, from which they
    /// drop the reasoning; then it is written here in R1's form (report, table 1), as the prompt has begun it.
    fn answer(
        &self,
        message: &serde_json::Value,
        prompt: &[Segment],
        rendered: Option<Vec<Segment>>,
    ) -> Result<Vec<Segment>, String> {
        let field = |name: &str| message.get(name).and_then(|text| text.as_str()).unwrap_or_default().trim();
        let (mut reasoning, mut content) = (field("reasoning_content"), field("content"));
        if let Some((before, after)) = content.rsplit_once("</think>") {
            reasoning = before.trim().strip_prefix("<think>").unwrap_or(before).trim();
            content = after.trim();
        }
        let shown = |segments: &[Segment]| text_of(segments).contains(reasoning);
        if let Some(rendered) = rendered.filter(|segments| shown(segments)) {
            return Ok(rendered);
        }
        let open = ReasoningFormat::think_after(&text_of(prompt)) == ReasoningFormat::think(true);
        if reasoning.is_empty() && !open {
            return Err("the chat template does not continue its own prompt with the assistant's message".to_string());
        }
        let mut segments = vec![Segment::untrusted(reasoning), Segment::trusted("\n</think>\n\n")];
        if !open {
            segments.insert(0, Segment::trusted("<think>\n"));
        }
        segments.extend([Segment::untrusted(content), Segment::trusted(self.eos.clone())]);
        Ok(segments)
    }

    fn render(&self, messages: &[serde_json::Value], prompt: bool) -> Result<Vec<Segment>, String> {
        let input = ChatInput {
            messages,
            add_generation_prompt: prompt,
            bos_token: &self.bos,
            eos_token: &self.eos,
            ..ChatInput::default()
        };
        self.template.render_segments(&input).map_err(|error| error.to_string())
    }
}

fn text_of(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect()
}

/// What stands in `full` after `prefix`; none if it does not begin with it.
fn after(full: &[Segment], prefix: &[Segment]) -> Option<Vec<Segment>> {
    let (whole, prefix) = (text_of(full), text_of(prefix));
    whole.strip_prefix(&prefix)?;
    let mut skip = prefix.len();
    let mut rest = Vec::new();
    for segment in full {
        let dropped = skip.min(segment.text.len());
        skip -= dropped;
        if dropped < segment.text.len() {
            rest.push(Segment { text: segment.text[dropped..].to_string(), trusted: segment.trusted });
        }
    }
    Some(rest)
}
