//! Lists that exist twice agree: tables, help and documents.

use crate::util::{self, Scratch, root};

fn read(name: &str) -> String {
    util::read(&root().join(name))
}

#[test]
fn every_method_is_documented() {
    let tables: serde_json::Value = serde_json::from_str(&Scratch::new().ok(&["list", "--json"])).unwrap();
    let methods = read("docs/methods.md");
    for (table, rows) in tables.as_object().unwrap() {
        let rows = rows.as_array().unwrap();
        assert!(!rows.is_empty(), "{table}");
        for row in rows {
            let name = row["name"].as_str().unwrap();
            assert!(methods.contains(&format!("`{name}`")), "docs/methods.md does not describe {name} ({table})");
            for option in row["options"].as_array().unwrap() {
                let option = option["name"].as_str().unwrap();
                assert!(methods.contains(&format!("`{option}`")), "docs/methods.md does not describe {name}:{option}");
            }
        }
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let scratch = Scratch::new();
    let help = scratch.ok(&["--help"]);
    for command in
        ["prune", "compress", "sweep", "compare", "run", "bench", "eval", "inspect", "train", "score", "convert", "list", "demo"]
    {
        assert!(help.contains(command), "{help}");
        let text = scratch.ok(&[command, "--help"]);
        let example = text.split("Example").nth(1).unwrap_or_else(|| panic!("{text}"));
        assert!(example.contains(&format!(":\n  resprout {command}")), "{text}");
    }
    assert_eq!(scratch.run(&["paint"]).status.code(), Some(2));
}

#[test]
fn the_list_shows_every_table() {
    let text = Scratch::new().ok(&["list"]);
    for table in [
        "criteria",
        "allocations",
        "repairs",
        "methods",
        "pruning at initialisation",
        "architectures",
        "datasets",
        "downloads",
        "presets",
        "instruction sets",
    ] {
        assert!(text.contains(table), "{text}");
    }
}

#[test]
fn the_readme_has_the_two_commands() {
    let readme = read("README.md");
    for command in ["cargo run --release -p resprout-cli -- demo", "cargo test --workspace"] {
        assert!(readme.contains(command), "{command}");
    }
    assert!(read("CHANGELOG.md").contains(env!("CARGO_PKG_VERSION")));
    assert!(read("ARCHITECTURE.md").contains("resprout-kernels"));
}

/// Layers may use only what stands below them.
#[test]
fn crates_depend_downwards_only() {
    for (name, forbidden) in [
        ("resprout-kernels", &["resprout ", "resprout.", "resprout-train", "resprout-cli"][..]),
        ("resprout-runtime", &["resprout ", "resprout.", "resprout-train", "resprout-cli", "clap", "anyhow", "indicatif"]),
        ("resprout", &["resprout-train", "resprout-cli", "clap", "anyhow", "indicatif"]),
        ("resprout-train", &["resprout-cli", "clap"]),
    ] {
        let manifest = read(&format!("crates/{name}/Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        for other in forbidden {
            assert!(!dependencies.contains(other), "{name} must not use {other}");
        }
    }
}
