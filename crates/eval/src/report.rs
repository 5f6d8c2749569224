//! Figures as a table and as a chart.

use plot::{Axis, Chart, Series, Style};
use serde_json::{Value, json};

use crate::runner::Summary;

/// The figures as aligned text, one line each.
pub fn table(summaries: &[Summary]) -> String {
    let header =
        ["task", "level", "problems", "samples", "pass@1", "95 %", "pass@k", "majority", "form", "tokens", "cut off"];
    let mut rows = vec![header.map(str::to_string)];
    for s in summaries {
        let percent = |share: f64| format!("{:.1}", share * 100.0);
        rows.push([
            s.task.to_string(),
            s.level.map_or("all".into(), |level| level.to_string()),
            s.problems.to_string(),
            s.samples.to_string(),
            percent(s.pass_1),
            format!("{}..{}", percent(s.interval.0), percent(s.interval.1)),
            percent(s.pass_k),
            percent(s.majority),
            percent(s.format),
            format!("{:.0}", s.tokens),
            percent(s.cut_off),
        ]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let line = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text.push_str(line.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// The figures as JSON.
pub fn as_json(summaries: &[Summary]) -> Value {
    let one = |s: &Summary| {
        json!({
            "task": s.task,
            "level": s.level,
            "problems": s.problems,
            "samples": s.samples,
            "pass_at_1": s.pass_1,
            "pass_at_1_low": s.interval.0,
            "pass_at_1_high": s.interval.1,
            "pass_at_k": s.pass_k,
            "majority": s.majority,
            "format_ok": s.format,
            "tokens_mean": s.tokens,
            "cut_off": s.cut_off,
        })
    };
    summaries.iter().map(one).collect()
}

/// Pass@1 over difficulty with its interval, one series a task, as SVG; tasks without levels stand at level 1.
pub fn chart(title: &str, summaries: &[Summary]) -> String {
    let mut tasks: Vec<&str> = summaries.iter().map(|s| s.task).collect();
    tasks.dedup();
    let series = tasks.into_iter().map(|task| {
        let own: Vec<&Summary> = summaries.iter().filter(|s| s.task == task).collect();
        let levels: Vec<&Summary> = own.iter().copied().filter(|s| s.level.is_some()).collect();
        let shown = if levels.is_empty() { own } else { levels };
        Series {
            name: task.to_string(),
            points: shown.iter().map(|s| (f64::from(s.level.unwrap_or(1)), s.pass_1 * 100.0)).collect(),
            bars: shown.iter().map(|s| (s.interval.0 * 100.0, s.interval.1 * 100.0)).collect(),
            style: Style::Both,
            ..Series::default()
        }
    });
    let chart = Chart {
        title: title.to_string(),
        x: Axis::new("level"),
        y: Axis::new("pass@1, %").including(0.0).including(100.0),
        series: series.collect(),
    };
    chart.svg()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(task: &'static str, level: Option<u8>, pass_1: f64) -> Summary {
        Summary {
            task,
            level,
            problems: 10,
            samples: 4,
            pass_1,
            interval: (0.1, 0.9),
            pass_k: 0.75,
            majority: 0.5,
            format: 1.0,
            tokens: 12.4,
            cut_off: 0.0,
        }
    }

    #[test]
    fn tables_charts_and_json() {
        let all = [summary("words", None, 0.5), summary("words", Some(1), 0.625), summary("sort", None, 0.25)];
        let text = table(&all);
        assert_eq!(text.lines().count(), 4);
        assert!(
            text.lines().nth(2).is_some_and(|line| line.starts_with("words      1") && line.contains("62.5")),
            "{text}"
        );
        assert_eq!(as_json(&all)[1]["pass_at_1"], 0.625);
        let svg = chart("a < b", &all);
        assert!(svg.starts_with("<svg") && svg.contains("a &lt; b") && svg.contains("sort"));
    }
}
