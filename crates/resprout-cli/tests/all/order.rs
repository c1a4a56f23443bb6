//! The order of modules that ARCHITECTURE.md states, and the size of files.

use crate::util::{self, root};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The most lines of a file.
const LINES: usize = 450;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules of each crate's table, row by row from the bottom up.
fn stated(architecture: &str, name: &str) -> Vec<Vec<String>> {
    let heading = format!("## Inside `{name}`");
    let section = architecture.split(&heading).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2).map(String::from).collect()).collect()
}

/// What a file uses of its crate's top level: `crate::name`, and the names of `use crate::{..}`.
fn used(text: &str) -> BTreeSet<String> {
    // Tests may use everything.
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate` in a macro, and other crates' names, end in the same letters.
        if code[..at].ends_with(|c: char| c == '$' || c == '_' || c.is_alphanumeric()) {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(top_level(group)),
            None => found.extend(word(rest)),
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
    (!word.is_empty()).then_some(word)
}

/// The first word of each item of a group, up to its closing brace.
fn top_level(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(std::mem::take(&mut item)),
            _ => item.push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    items.push(item);
    items.iter().filter_map(|item| word(item.trim())).collect()
}

/// The top-level modules of a crate, and which of its others each uses.
fn uses(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(folder, &mut files);
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let below = file.strip_prefix(folder).unwrap();
        let module = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_string();
        let tests = below.iter().any(|part| part == "tests" || part == "tests.rs");
        if !tests && !matches!(module.as_str(), "lib" | "main" | "testing") {
            uses.entry(module).or_default().extend(used(&util::read(&file)));
        }
    }
    let modules: BTreeSet<String> = uses.keys().cloned().collect();
    for (module, used) in &mut uses {
        used.retain(|other| other != module && modules.contains(other));
    }
    uses
}

#[test]
fn modules_use_only_what_is_below_them() {
    let architecture = util::read(&root().join("ARCHITECTURE.md"));
    for name in ["resprout-kernels", "resprout-runtime", "resprout", "resprout-train", "resprout-cli"] {
        let rows = stated(&architecture, name);
        let rank = |module: &str| rows.iter().position(|row| row.iter().any(|other| other == module));
        let uses = uses(&root().join("crates").join(name).join("src"));
        for (module, used) in &uses {
            let own = rank(module).unwrap_or_else(|| panic!("ARCHITECTURE.md: no row for {module} of {name}"));
            for other in used {
                assert!(rank(other).is_some_and(|other| other <= own), "{name}: {module} uses {other}, which is above it");
            }
        }
        for row in rows.iter().flatten() {
            assert!(uses.contains_key(row), "ARCHITECTURE.md: {name} has no module {row}");
        }
        no_circle(name, &uses);
    }
}

/// Takes modules away that use none of those that are left, until none is left.
fn no_circle(name: &str, uses: &BTreeMap<String, BTreeSet<String>>) {
    let mut left: BTreeSet<&String> = uses.keys().collect();
    while let Some(free) = left.iter().find(|module| uses[**module].iter().all(|other| !left.contains(other))).copied() {
        left.remove(free);
    }
    assert!(left.is_empty(), "{name}: these modules use each other: {left:?}");
}

#[test]
fn files_are_short() {
    let mut files = Vec::new();
    sources(&root().join("crates"), &mut files);
    assert!(files.len() > 200);
    for file in files {
        let lines = util::read(&file).lines().count();
        assert!(lines <= LINES, "{}: {lines} lines", file.display());
    }
}

#[test]
fn the_parser_sees_groups_and_paths() {
    let text = "use crate::{a::{b, c}, d};\nfn f() { crate::e::g(); $crate::h(); resprout_crate::i(); }\n// crate::j\n";
    assert_eq!(used(text).into_iter().collect::<Vec<_>>(), ["a", "d", "e"]);
}
