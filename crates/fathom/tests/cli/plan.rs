//! `plan`: published costs, a model's own, and what it refuses.

use crate::harness::{fathom, model};

#[test]
fn published_costs_are_met() {
    let rows = fathom(&["plan", "--published", "--json"]).json();
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), 5);
    for row in rows {
        assert!(row["error"].as_f64().expect("a number").abs() < 0.05, "{row}");
    }
    let text = fathom(&["plan", "--published"]).ok();
    assert!(text.contains("DeepSeek-V3, all of training") && text.contains("taken as published"), "{text}");
}

#[test]
fn a_model_and_a_cluster_of_ones_own() {
    let directory = tempfile::tempdir().expect("a directory");
    let (cluster, plot) = (directory.path().join("c.toml"), directory.path().join("cost.svg"));
    let (cluster, plot) = (cluster.to_str().expect("a name"), plot.to_str().expect("a name"));
    let device = "[device]\nname = \"D\"\nbf16_tflops = 1\nmemory_gib = 1\ndense_share = 0.5\nexpert_share = 0.5\nprice_per_hour = 3\n";
    std::fs::write(cluster, format!("devices = 2\n{device}")).expect("written");
    let plan = |more: &[&str]| fathom(&[&["plan", model(), "--cluster", cluster, "--batch", "8"], more].concat());
    let one = plan(&["--tokens", "1e9", "--json"]).json();
    let two = plan(&["--tokens", "2e9", "--json"]).json();
    let hours = |v: &serde_json::Value| v["device_hours"].as_f64().expect("a number");
    assert!((hours(&two) / hours(&one) - 2.0).abs() < 1e-9);
    assert!((one["cost"].as_f64().expect("a number") - 3.0 * hours(&one)).abs() < 1e-9);
    let text = plan(&["--tokens", "1e9", "--plot", plot]).ok();
    assert!(text.contains("2 x D") && text.contains("fits in 1 GiB"), "{text}");
    let svg = std::fs::read_to_string(plot).expect("a plot");
    assert!(svg.starts_with("<svg") && svg.contains(">V3 $"), "{svg}");

    std::fs::write(cluster, format!("devices = 2\npipelines = 2\n{device}")).expect("written");
    assert!(plan(&[]).refusal().contains("unknown field `pipelines`"));
    std::fs::write(cluster, format!("devices = 2\nexpert = 3\n{device}")).expect("written");
    assert!(plan(&[]).refusal().contains("2 devices cannot be cut into 1 pipeline stages"));
    assert!(fathom(&["plan"]).refusal().contains("which model?"));
}
