//! The documents: every page is listed, every link leads somewhere, every command can be typed.

use crate::util::{Scratch, files, read, root, text};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

/// The most lines of the README: one screen or two.
const README_LINES: usize = 90;

/// Every page below `docs/`.
fn pages() -> Vec<PathBuf> {
    files(&root().join("docs")).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// The pages, and the documents beside the code.
fn documents() -> Vec<PathBuf> {
    let beside = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(|name| root().join(name));
    beside.into_iter().chain(pages()).collect()
}

/// Lines with the language of the code block that they are in, if they are in one; fences are left out.
fn lines(text: &str) -> Vec<(Option<&str>, &str)> {
    let mut block = None;
    let mut all = Vec::new();
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(language), None) => block = Some(language.trim()),
            (None, _) => all.push((block, line)),
        }
    }
    all
}

/// The lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    lines(text).into_iter().filter(|(block, _)| block.is_none()).map(|(_, line)| line)
}

/// A line without its inline code.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

/// The targets of links and pictures.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(text).map(without_code) {
        let rests = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        targets.extend(rests.map(str::to_string));
    }
    targets
}

/// The name that a heading is linked by, as GitHub and mdBook make it.
fn anchor(heading: &str) -> String {
    let letters = heading.trim().to_lowercase();
    let kept = letters.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> HashSet<String> {
    prose(text).filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

#[test]
fn every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = docs.join("SUMMARY.md");
    let named: BTreeSet<PathBuf> = links(&read(&summary)).iter().map(|target| docs.join(target)).collect();
    let there: BTreeSet<PathBuf> = pages().into_iter().filter(|path| *path != summary).collect();
    for path in &named {
        assert!(path.is_file(), "SUMMARY.md names {}, which does not exist", path.display());
    }
    for path in &there {
        assert!(named.contains(path), "SUMMARY.md does not name {}", path.display());
    }
}

#[test]
fn every_link_resolves() {
    for document in documents() {
        let folder = document.parent().unwrap();
        for target in links(&read(&document)) {
            if target.starts_with("http://") || target.starts_with("https://") {
                continue;
            }
            let (file, heading) = target.split_once('#').map_or((&target[..], None), |(file, heading)| (file, Some(heading)));
            let path = if file.is_empty() { document.clone() } else { folder.join(file) };
            assert!(path.exists(), "{}: the link {target} leads nowhere", document.display());
            if let Some(heading) = heading.filter(|_| path.extension().is_some_and(|extension| extension == "md")) {
                assert!(anchors(&read(&path)).contains(heading), "{}: {target}: no such heading", document.display());
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    let count = read(&root().join("README.md")).lines().count();
    assert!(count <= README_LINES, "README.md has {count} lines, at most {README_LINES} are wanted");
}

/// The cells of the rows between the marks of each table that is made of the record, sorted within a row.
fn recorded_tables(page: &str) -> HashMap<String, Vec<Vec<String>>> {
    let rows = |table: &str| table.lines().skip(2).map(|line| sorted_cells(line.trim_matches('|').split('|'))).collect();
    let tables = page.split("<!-- table: ").skip(1).map(|rest| rest.split("<!-- end -->").next().unwrap());
    tables.filter_map(|table| table.split_once(" -->\n")).map(|(name, table)| (name.to_string(), rows(table))).collect()
}

fn sorted_cells<'a>(cells: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut cells: Vec<String> = cells.map(|cell| cell.trim().to_string()).collect();
    cells.sort();
    cells
}

#[test]
fn tables_of_the_benchmarks_are_the_record() {
    let mut recorded: HashMap<String, Vec<Vec<String>>> = HashMap::new();
    for file in files(&root().join("record")).iter().filter(|file| file.extension().is_some_and(|end| end == "jsonl")) {
        for line in read(file).lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            let Some(row) = line["row"].as_object() else { continue };
            let cells = sorted_cells(row.values().map(|cell| cell.as_str().unwrap()));
            recorded.entry(line["table"].as_str().unwrap().to_string()).or_default().push(cells);
        }
    }
    let page = read(&root().join("docs/benchmarks.md"));
    assert_eq!(recorded_tables(&page), recorded, "run bench/benchmark_tables.py");
    let unmarked =
        page.lines().zip(page.lines().skip(1)).filter(|(before, line)| line.starts_with("| ---") && !before.is_empty());
    assert_eq!(unmarked.count(), recorded.len() + 1, "a table beside that of the machines is typed by hand");
}

/// The commands of a document's shell blocks, each on one line.
fn commands(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut goes_on = false;
    for (block, line) in lines(text) {
        let shell = matches!(block, Some("console" | "sh"));
        let line = line.trim();
        let typed = line.strip_suffix('\\').unwrap_or(line).trim_end();
        if shell && goes_on {
            let last = all.last_mut().unwrap();
            *last = format!("{last} {typed}");
        } else if shell {
            all.push(typed.to_string());
        }
        goes_on = shell && line.ends_with('\\');
    }
    all.iter().filter_map(|line| command(line)).collect()
}

/// What follows the program's name, if the line runs it: up to a pipe, a redirection, another command or a comment.
fn command(line: &str) -> Option<String> {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let built = || line.strip_prefix("cargo run ").filter(|rest| rest.contains("-p resprout-cli"));
    let arguments = match line.strip_prefix("resprout ") {
        Some(arguments) => arguments,
        None => built()?.split_once(" -- ")?.1,
    };
    let words = arguments.split_whitespace().take_while(|word| !ends_command(word));
    Some(words.collect::<Vec<_>>().join(" "))
}

fn ends_command(word: &str) -> bool {
    ["|", ">", "<", "2>", "&", ";", "#"].iter().any(|end| word.starts_with(end))
}

/// The help of each command, printed once.
#[derive(Default)]
struct Helps(HashMap<String, String>);

impl Helps {
    /// `None` if there is no such command.
    fn of(&mut self, scratch: &Scratch, name: &str) -> Option<&str> {
        let print = || {
            let arguments: Vec<&str> = name.split_whitespace().chain(["--help"]).collect();
            let output = scratch.run(&arguments);
            if output.status.success() { text(&output.stdout) } else { String::new() }
        };
        let help = self.0.entry(name.to_string()).or_insert_with(print);
        Some(help.as_str()).filter(|help| !help.is_empty())
    }
}

/// The long options that a help names.
fn options(help: &str) -> HashSet<&str> {
    let words = help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--")).collect()
}

/// The command, with the one below it where there is one.
fn name(words: &[&str]) -> String {
    let depth = match words.first() {
        Some(&"data") => 2,
        Some(word) if !word.starts_with('-') => 1,
        _ => 0,
    };
    words[..depth.min(words.len())].join(" ")
}

#[test]
fn every_command_can_be_typed() {
    let scratch = Scratch::new();
    let mut helps = Helps::default();
    let mut seen = 0;
    for document in documents() {
        for command in commands(&read(&document)) {
            let words: Vec<&str> = command.split_whitespace().collect();
            let name = name(&words);
            let help = helps.of(&scratch, &name);
            let help = help.unwrap_or_else(|| panic!("{}: resprout {command}: no such command", document.display()));
            let known = options(help);
            for word in words.iter().filter(|word| word.starts_with("--")) {
                let option = word.split('=').next().unwrap_or(word);
                assert!(known.contains(option), "{}: resprout {command}: no option {option}", document.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} commands were found");
}

/// The long options that a help lists, without those that its texts name.
fn offered(help: &str) -> HashSet<&str> {
    let rows = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    rows.filter_map(|row| row.split([' ', '=', '[']).find(|word| word.starts_with("--"))).collect()
}

/// Words with one space between them.
fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What the page of commands says of options, without their defaults and values.
fn descriptions(section: &str) -> impl Iterator<Item = &str> {
    let said = section.lines().filter(|line| line.starts_with("* `-")).filter_map(|line| line.split_once("`: "));
    said.map(|(_, text)| text.split(" [default: ").next().unwrap_or(text).split(" [possible values: ").next().unwrap_or(text))
}

#[test]
fn the_page_of_commands_says_what_the_help_says() {
    let page = read(&root().join("docs/reference/commands.md"));
    let sections: Vec<(&str, &str)> = page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let (scratch, mut helps, mut all) = (Scratch::new(), Helps::default(), String::new());
    for (name, section) in sections.iter().filter(|(name, _)| *name != "Shared options") {
        let help = helps.of(&scratch, name).unwrap_or_else(|| panic!("{name}: no such command"));
        let listed = options(section);
        for option in offered(help).difference(&HashSet::from(["--threads", "--quiet", "--help", "--version"])) {
            assert!(listed.contains(option), "commands.md does not list {option} of {name}");
        }
        all += &joined(help);
    }
    for (name, section) in &sections {
        for text in descriptions(section) {
            assert!(all.contains(text), "commands.md, {name}: the help does not say {text:?}");
        }
    }
}

#[test]
fn lines_know_their_block_and_commands_their_end() {
    let text = "a\n```sh\n$ resprout run a.onnx \\\n  images > out\n```\nb ```\n```text\nresprout paint\n```\n";
    assert_eq!(commands(text), ["run a.onnx images"]);
    assert_eq!(command("cargo run --release -p resprout-cli -- demo"), Some("demo".into()));
    assert_eq!(command("cargo run --release -p resprout --example folded -- A --b"), None);
    assert_eq!(name(&["data", "fetch", "mnist"]), "data fetch");
    assert_eq!(anchor(" The choice: `--repair auto`"), "the-choice---repair-auto");
    assert_eq!(without_code("a `b](c)` d"), "a   d");
}
