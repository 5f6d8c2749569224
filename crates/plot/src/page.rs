//! A page of headings, text, tables and charts as one HTML file.

use std::fmt::Write;

/// A page, built from the top down.
#[derive(Clone, Debug)]
pub struct Page {
    title: String,
    body: String,
}

/// `text` as HTML or SVG shows it: no character of it is markup.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not allowed in XML.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

const CSS: &str = "\
:root{color-scheme:light dark}body{font:16px/1.55 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;\
color:#1d2126;background:#fdfdfc}h1{font-size:1.6rem;margin-bottom:.2rem}h2{font-size:1.15rem;margin-top:2.2rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.92rem}\
th,td{padding:.25rem .7rem;text-align:start;border-bottom:1px solid #8883}td.n,th.n{text-align:end}\
pre{background:#8881;padding:.7rem;overflow-x:auto;white-space:pre-wrap;unicode-bidi:plaintext}\
figure{margin:1.2rem 0}svg.plot{width:100%;height:auto;max-width:54rem}\
@media(prefers-color-scheme:dark){body{color:#d9dde2;background:#15181c}}";

impl Page {
    /// An empty page with a title.
    pub fn new(title: impl Into<String>) -> Page {
        let title = title.into();
        let body = format!("<h1>{}</h1>\n", escape(&title));
        Page { title, body }
    }

    /// A heading.
    pub fn heading(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<h2>{}</h2>", escape(text));
        self
    }

    /// A paragraph.
    pub fn text(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<p dir=\"auto\">{}</p>", escape(text));
        self
    }

    /// Text as it stands, line by line.
    pub fn verbatim(&mut self, text: &str) -> &mut Page {
        let _ = writeln!(self.body, "<pre dir=\"auto\">{}</pre>", escape(text));
        self
    }

    /// A chart: what [`crate::Chart::svg`] or [`crate::HeatMap::svg`] gave.
    pub fn figure(&mut self, svg: &str) -> &mut Page {
        let _ = writeln!(self.body, "<figure>{svg}</figure>");
        self
    }

    /// A table; cells that read as numbers stand at the right.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> &mut Page {
        let is_number = |cell: &str| {
            let digits = cell.trim_matches(|c: char| "+-~%$ ".contains(c));
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || ",.eE+-".contains(c))
        };
        let numeric = |column: usize| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|c| !c.is_empty()).peekable();
            cells.peek().is_some() && cells.all(|cell| is_number(cell))
        };
        let class = |column: usize| if numeric(column) { " class=\"n\"" } else { "" };
        self.body.push_str("<table><thead><tr>");
        for (i, cell) in head.iter().enumerate() {
            let _ = write!(self.body, "<th{}>{}</th>", class(i), escape(cell));
        }
        self.body.push_str("</tr></thead><tbody>\n");
        for row in rows {
            self.body.push_str("<tr>");
            for (i, cell) in row.iter().enumerate() {
                let _ = write!(self.body, "<td{} dir=\"auto\">{}</td>", class(i), escape(cell));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</tbody></table>\n");
        self
    }

    /// The whole file.
    pub fn html(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\
             <title>{}</title><style>{CSS}</style></head><body>\n{}</body></html>\n",
            escape(&self.title),
            self.body
        )
    }
}
