//! What comes out is well-formed, self-contained, and shows the numbers that went in.

use plot::{Axis, Chart, HeatMap, Page, Series, Style, escape, sparkline};

/// Checks that tags open and close in order and that attributes are quoted; returns the tags.
fn tags(markup: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = markup;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag ends");
        let tag = &rest[start + 1..end];
        assert!(tag.matches('"').count().is_multiple_of(2), "quotes of <{tag}>");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap_or_default().to_string();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_ref(), Some(&name), "</{name}>");
        } else if !tag.ends_with('/') && !matches!(name.as_str(), "!doctype" | "meta") {
            open.push(name.clone());
        }
        all.push(name);
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

fn chart(points: Vec<(f64, f64)>) -> Chart {
    let series = vec![Series::line("a <b> & \"c\"", points)];
    Chart { title: "<script>alert(1)</script>".to_string(), x: Axis::new("step"), y: Axis::log("loss"), series }
}

#[test]
fn labels_never_become_markup() {
    let svg = chart(vec![(0.0, 1.0), (1.0, 2.0)]).svg();
    assert!(!tags(&svg).contains(&"script".to_string()) && !tags(&svg).contains(&"b".to_string()));
    let mut page = Page::new("<img src=x>");
    page.heading("<h3>").text("</p><b>").verbatim("</pre>").table(&["<th>"], &[vec!["<td>".to_string()]]).figure(&svg);
    let html = page.html();
    assert!(!tags(&html).iter().any(|t| ["img", "b", "h3", "script", "link"].contains(&t.as_str())));
    assert!(
        !html.contains("http://")
            || html.matches("http://").count() == html.matches("http://www.w3.org/2000/svg").count()
    );
    assert_eq!(escape("a\u{0}\"'<"), "a\u{fffd}&quot;&#39;&lt;");
}

#[test]
fn every_odd_number_gives_a_chart() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -1.0, 1e-300, 1e300, f64::MIN_POSITIVE, 5.0];
    for &a in &odd {
        for &b in &odd {
            for scale in [Axis::new("x"), Axis::log("x")] {
                let mut chart = chart(vec![(a, b), (b, a), (1.0, 1.0)]);
                chart.x = scale.clone();
                chart.y = scale;
                let svg = chart.svg();
                tags(&svg);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{a} {b}: {svg}");
            }
        }
    }
    for points in [vec![], vec![(1.0, 1.0)], vec![(2.0, 2.0), (2.0, 2.0)]] {
        tags(&chart(points).svg());
    }
}

#[test]
fn a_gap_breaks_the_line_and_points_stay_inside() {
    let points = vec![(0.0, 1.0), (1.0, 10.0), (2.0, f64::NAN), (3.0, 100.0), (4.0, 1000.0)];
    let svg = chart(points).svg();
    let path = svg.split(" d=\"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(path.matches('M').count(), 2, "{path}");
    let numbers: Vec<f64> = path.split(['M', 'L', ' ']).filter(|s| !s.is_empty()).map(|s| s.parse().unwrap()).collect();
    assert!(numbers.chunks(2).all(|p| (0.0..=720.0).contains(&p[0]) && (0.0..=380.0).contains(&p[1])));
    // The values rise, so the line goes up the page, evenly on a logarithmic axis.
    let ys: Vec<f64> = numbers.chunks(2).map(|p| p[1]).collect();
    assert!((ys[0] - ys[1] - (ys[2] - ys[3])).abs() < 0.2, "{ys:?}");
}

#[test]
fn long_series_keep_their_extremes() {
    let mut points: Vec<(f64, f64)> = (0..100_000).map(|i| (f64::from(i), 1.0)).collect();
    points[54_321].1 = 7.0;
    let svg = Chart { y: Axis::new("y"), ..chart(points) }.svg();
    assert!(svg.len() < 100_000, "{} bytes", svg.len());
    assert!(svg.contains(" 34.0"), "the spike reaches the top");
}

#[test]
fn heat_maps_of_every_shape() {
    for (rows, columns) in [(0, 0), (1, 1), (16, 1000), (3, 2)] {
        let values = (0..rows).map(|r| (0..columns).map(|c| (r * c) as f64).collect()).collect();
        let map =
            HeatMap { title: "load".to_string(), values, row_names: vec!["e0".to_string()], ..HeatMap::default() };
        let svg = map.svg();
        tags(&svg);
        assert!(svg.matches("<rect").count() <= 40 + 16 * 160);
    }
    let svg = HeatMap { values: vec![vec![f64::NAN, 1.0]], ..HeatMap::default() }.svg();
    assert_eq!(svg.matches("<rect").count(), 41, "a blank, a cell and the scale");
}

#[test]
fn sparklines() {
    assert_eq!(sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 8), "▁▂▃▄▅▆▇█");
    assert_eq!(sparkline(&[1.0, 1.0, f64::NAN], 3), "▁▁ ");
    assert_eq!(sparkline(&[], 10), "");
    assert_eq!(sparkline(&[0.0, 2.0, 10.0, 12.0], 2), "▁█");
}

#[test]
fn dashed_labelled_and_barred() {
    let mut chart = chart(vec![(1.0, 10.0), (9.0, 20.0)]);
    chart.series[0].style = Style::Both;
    chart.series[0].labels = vec!["first".to_string(), "last".to_string()];
    chart.series[0].bars = vec![(9.0, 11.0), (15.0, 25.0)];
    let svg = chart.svg();
    tags(&svg);
    assert_eq!(svg.matches("<circle").count(), 2);
    assert!(svg.contains(">first<") && svg.contains("text-anchor=\"end\">last<"));
    chart.series[0].style = Style::Dashed;
    assert!(chart.svg().contains("stroke-dasharray"));
}
