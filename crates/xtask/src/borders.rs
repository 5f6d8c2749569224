//! `cargo xtask borders`: which crate may use which.
//!
//! A crate is a border that the compiler defends, as long as nobody adds an arrow to a `Cargo.toml`.
//! The table below is the design; a crate or an arrow that is not in it fails, and so does a third
//! party's crate that reaches where it should not. Normal and build dependencies count, on every
//! platform and with every feature. Development dependencies are free, but for two things: they may
//! not point up the arrows, and never to `xtask`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::repository::{cargo, output};

/// Each of our crates and those of ours that it may use.
const ARROWS: &[(&str, &[&str])] = &[
    ("kernels", &[]),
    ("hub", &[]),
    ("text", &[]),
    ("plot", &[]),
    ("model", &["kernels"]),
    ("engine", &["kernels", "model"]),
    ("eval", &["kernels", "model", "engine", "text", "plot"]),
    ("train", &["kernels", "model", "engine", "eval", "text", "plot"]),
    // eval: its graders say whether an answer that the page shows is right.
    ("server", &["engine", "eval", "text"]),
    ("fathom", &["kernels", "hub", "text", "plot", "model", "engine", "eval", "train", "server"]),
    // For the description of the machine in bench records.
    ("xtask", &["kernels"]),
];

/// Third parties' crates that only some of ours may reach, directly or through others.
const FENCES: &[Fence] = &[
    Fence {
        crates: &["ureq", "reqwest", "hf-hub", "curl", "attohttpc", "minreq", "isahc"],
        through: &["hub"],
        reason: "hub is the only crate that opens an outbound connection",
    },
    Fence {
        crates: &["tokio", "axum", "hyper"],
        through: &["server", "fathom"],
        reason: "everything below the server is synchronous and knows no HTTP server",
    },
    Fence {
        crates: &["serde", "serde_core", "serde_json"],
        through: &["hub", "text", "model", "engine", "eval", "train", "server", "fathom", "xtask"],
        reason: "kernels knows no file formats",
    },
];

struct Fence {
    crates: &'static [&'static str],
    /// Our crates that may use them; who uses these crates may reach the fenced ones by them.
    through: &'static [&'static str],
    reason: &'static str,
}

/// Who depends on whom.
#[derive(Clone, Default)]
struct Graph {
    /// Our crates, and what they declare as normal or build dependencies, by name.
    declared: BTreeMap<String, BTreeSet<String>>,
    /// The same for development dependencies.
    declared_dev: BTreeMap<String, BTreeSet<String>>,
    /// All packages by id: name, and the ids of their normal and build dependencies.
    resolved: BTreeMap<String, (String, Vec<String>)>,
}

/// Checks the workspace; an error lists all findings.
pub(crate) fn run() -> anyhow::Result<()> {
    let graph = Graph::of_workspace()?;
    let findings = check(&graph);
    if !findings.is_empty() {
        bail!("{} crossed borders:\n  {}", findings.len(), findings.join("\n  "));
    }
    println!("{} crates, every arrow as designed", graph.declared.len());
    Ok(())
}

impl Graph {
    /// Reads what cargo says, without network. Declared dependencies are those of all platforms;
    /// resolved ones those of this platform, since others may not have been fetched.
    fn of_workspace() -> anyhow::Result<Graph> {
        let version = output(cargo(&["-vV"]).env_remove("RUSTC_WRAPPER"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("cargo -vV names no host")?;
        let metadata = output(&mut cargo(&[
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            host,
        ]))?;
        let metadata = serde_json::from_str(&metadata).context("cargo metadata is not JSON")?;
        Graph::of_metadata(&metadata).context("cargo metadata lacks a field")
    }

    fn of_metadata(metadata: &Value) -> Option<Graph> {
        let mut graph = Graph::default();
        let members: BTreeSet<&str> =
            metadata["workspace_members"].as_array()?.iter().filter_map(Value::as_str).collect();
        let mut names = BTreeMap::new();
        for package in metadata["packages"].as_array()? {
            let (id, name) = (package["id"].as_str()?, package["name"].as_str()?);
            names.insert(id, name);
            if !members.contains(id) {
                continue;
            }
            let (mut normal, mut dev) = (BTreeSet::new(), BTreeSet::new());
            for dependency in package["dependencies"].as_array()? {
                let to = if dependency["kind"] == "dev" { &mut dev } else { &mut normal };
                to.insert(dependency["name"].as_str()?.to_string());
            }
            graph.declared.insert(name.to_string(), normal);
            graph.declared_dev.insert(name.to_string(), dev);
        }
        for node in metadata["resolve"]["nodes"].as_array()? {
            let id = node["id"].as_str()?;
            let mut to = Vec::new();
            for dependency in node["deps"].as_array()? {
                if dependency["dep_kinds"].as_array()?.iter().any(|kind| kind["kind"] != "dev") {
                    to.push(dependency["pkg"].as_str()?.to_string());
                }
            }
            graph.resolved.insert(id.to_string(), ((*names.get(id)?).to_string(), to));
        }
        Some(graph)
    }

    /// The names of all that `name` reaches, without going through one of our `closed` crates.
    fn reach(&self, name: &str, closed: &[&str]) -> BTreeSet<&str> {
        let ours = self.resolved.iter().find(|(_, (n, _))| n == name && self.declared.contains_key(n));
        let mut open: Vec<&String> = ours.map(|(_, (_, to))| to.iter().collect()).unwrap_or_default();
        let (mut seen, mut reached) = (BTreeSet::new(), BTreeSet::new());
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let Some((name, to)) = self.resolved.get(id) else { continue };
            reached.insert(name.as_str());
            if !closed.contains(&name.as_str()) {
                open.extend(to);
            }
        }
        reached
    }
}

/// Every arrow that should not be there, each as a sentence.
fn check(graph: &Graph) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, uses) in &graph.declared {
        let Some(allowed) = allowed(name) else {
            findings.push(format!("{name}: a crate that the table of borders does not name"));
            continue;
        };
        for used in uses.iter().filter(|used| graph.declared.contains_key(*used)) {
            if !allowed.contains(&used.as_str()) {
                findings.push(format!("{name} -> {used}: it may use {allowed:?} of our crates"));
            }
        }
        for used in &graph.declared_dev[name] {
            let upwards = allowed_closure(used).contains(name.as_str());
            if used == "xtask" || upwards {
                findings.push(format!("{name} -> {used}: its tests may not use a crate that is above it"));
            }
        }
        for fence in FENCES.iter().filter(|fence| !fence.through.contains(&name.as_str())) {
            let mut reached = graph.reach(name, fence.through);
            // What is declared but not built on this platform, or only with a feature.
            reached.extend(uses.iter().map(String::as_str));
            for fenced in fence.crates.iter().filter(|fenced| reached.contains(**fenced)) {
                findings.push(format!("{name} -> .. -> {fenced}: only through {:?}: {}", fence.through, fence.reason));
            }
        }
    }
    findings
}

fn allowed(name: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(from, _)| *from == name).map(|(_, to)| *to)
}

/// All that a crate may reach by the table.
fn allowed_closure(name: &str) -> BTreeSet<&'static str> {
    let mut reached = BTreeSet::new();
    let mut open = allowed(name).unwrap_or_default().to_vec();
    while let Some(next) = open.pop() {
        if reached.insert(next) {
            open.extend(allowed(next).unwrap_or_default());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_borders() {
        let findings = check(&Graph::of_workspace().unwrap());
        assert!(findings.is_empty(), "\n{}", findings.join("\n"));
    }

    /// The real workspace with one more arrow, of which exactly the named crates must complain.
    #[track_caller]
    fn caught(from: &str, to: &str, dev: bool, complaints: &[&str]) {
        let mut graph = Graph::of_workspace().unwrap();
        let declared = if dev { &mut graph.declared_dev } else { &mut graph.declared };
        declared.get_mut(from).unwrap().insert(to.to_string());
        if !dev {
            let id =
                |graph: &Graph, name: &str| graph.resolved.iter().find(|(_, p)| p.0 == name).map(|(id, _)| id.clone());
            let target = id(&graph, to).unwrap_or_else(|| {
                graph.resolved.insert(to.to_string(), (to.to_string(), vec![]));
                to.to_string()
            });
            let source = id(&graph, from).unwrap();
            graph.resolved.get_mut(&source).unwrap().1.push(target);
        }
        let findings = check(&graph);
        for name in complaints {
            assert!(findings.iter().any(|f| f.starts_with(&format!("{name} -> "))), "{name} in {findings:?}");
        }
        let named = |finding: &String| complaints.iter().any(|name| finding.starts_with(&format!("{name} -> ")));
        assert!(findings.iter().all(named), "{findings:?}");
    }

    #[test]
    fn an_arrow_that_points_up_is_caught() {
        caught("kernels", "model", false, &["kernels"]);
        caught("model", "engine", false, &["model"]);
        caught("text", "kernels", false, &["text"]);
        caught("hub", "text", false, &["hub"]);
    }

    #[test]
    fn nobody_uses_xtask() {
        caught("fathom", "xtask", false, &["fathom"]);
        caught("fathom", "xtask", true, &["fathom"]);
    }

    #[test]
    fn the_network_is_reached_through_hub_only() {
        // Who uses text reaches it as well, unless by way of hub.
        caught("text", "ureq", false, &["text", "eval", "train", "server", "fathom"]);
        caught("fathom", "ureq", false, &["fathom"]);
        // eval and train reach what engine uses; so would the server and the command, which may.
        caught("engine", "tokio", false, &["engine", "eval", "train"]);
        caught("kernels", "serde", false, &["kernels"]);
    }

    #[test]
    fn tests_may_look_sideways_and_down_but_not_up() {
        caught("text", "kernels", true, &[]);
        caught("kernels", "engine", true, &["kernels"]);
    }

    #[test]
    fn a_crate_that_nobody_designed_is_caught() {
        let mut graph = Graph::of_workspace().unwrap();
        graph.declared.insert("helpers".into(), BTreeSet::new());
        graph.declared_dev.insert("helpers".into(), BTreeSet::new());
        assert_eq!(check(&graph), ["helpers: a crate that the table of borders does not name"]);
    }

    #[test]
    fn no_arrow_of_the_table_makes_a_circle() {
        for (name, _) in ARROWS {
            assert!(!allowed_closure(name).contains(name), "{name}");
        }
    }
}
