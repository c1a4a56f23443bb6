//! The frame of a study's page: sections with figures, and one table to sort and filter. It works from the disk.

use super::figure::{Drawing, Figure, escape, slug, svg};
use resprout::formats::atomic;
use resprout::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// A model or network of a study.
pub struct Section {
    pub name: String,
    /// What it is, in a sentence.
    pub summary: String,
    /// The recommended point.
    pub best: Option<String>,
    pub findings: Vec<String>,
    pub figures: Vec<Figure>,
}

/// Everything that stands on a study's page.
pub struct StudyPage<'a> {
    pub title: &'a str,
    /// What bands and deviations are.
    pub legend: &'a str,
    pub tool_version: &'a str,
    pub recipe: &'a serde_json::Value,
    pub notes: &'a [String],
    pub failures: Vec<String>,
    pub sections: Vec<Section>,
    /// Names of the table's columns, and whether they hold words.
    pub columns: &'a [(&'a str, bool)],
    pub rows: Vec<Vec<String>>,
    /// Columns to filter by.
    pub choices: &'a [usize],
}

impl StudyPage<'_> {
    /// Writes `report.html`, and each figure as SVG, PDF and CSV into `figures/`.
    pub fn write(mut self, folder: &Path) -> Result<()> {
        for Section { name, figures, .. } in &mut self.sections {
            figures.iter_mut().for_each(|figure| figure.id = slug(&format!("{name} {}", figure.drawing.title)));
        }
        tell_apart(self.sections.iter_mut().flat_map(|section| &mut section.figures));
        let pictures = folder.join("figures");
        std::fs::create_dir_all(&pictures).map_err(|e| Error::io(&pictures, e))?;
        for figure in self.sections.iter().flat_map(|section| &section.figures) {
            figure.write(&pictures)?;
        }
        atomic::write(&folder.join("report.html"), self.html().as_bytes())
    }

    fn html(&self) -> String {
        let list = |items: &[String]| items.iter().map(|item| format!("<li>{}</li>\n", escape(item))).collect::<String>();
        let mut contents = String::new();
        let mut sections = String::new();
        for (i, section) in self.sections.iter().enumerate() {
            contents += &format!("<li><a href=\"#model-{i}\">{}</a></li>", escape(&section.name));
            let best = section.best.as_ref().map_or(String::new(), |text| format!("<p class=\"best\">{}</p>\n", escape(text)));
            sections += &format!(
                "<section id=\"model-{i}\"><h2>{}</h2>\n<p>{}</p>\n{best}<ul>\n{}</ul>\n<div class=\"figures\">\n{}</div></section>\n",
                escape(&section.name),
                escape(&section.summary),
                list(&section.findings),
                section.figures.iter().map(figure_html).collect::<String>()
            );
        }
        let failures = match self.failures.is_empty() {
            true => String::new(),
            false => format!("<section class=\"failed\"><h2>Not measured</h2>\n<ul>\n{}</ul></section>\n", list(&self.failures)),
        };
        let notes = list(self.notes);
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>{}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{}</style>\n</head>\n<body>\n\
             <a class=\"skip\" href=\"#table\">To the table</a>\n<h1>{}</h1>\n\
             <p class=\"note\">resprout {}. {}</p>\n\
             <nav aria-label=\"Contents\"><ul>{contents}<li><a href=\"#table\">All points</a></li><li><a href=\"#recipe\">Recipe</a></li></ul></nav>\n\
             <ul class=\"note\">{notes}</ul>\n{failures}<main>\n{sections}{}<section id=\"recipe\"><h2>Recipe</h2>\n<pre>{}</pre></section>\n\
             </main>\n<script>\n{}</script>\n</body>\n</html>\n",
            escape(self.title),
            include_str!("study.css"),
            escape(self.title),
            escape(self.tool_version),
            escape(self.legend),
            self.table(),
            escape(&format!("{:#}", self.recipe)),
            include_str!("study.js")
        )
    }

    fn table(&self) -> String {
        let header: String = self
            .columns
            .iter()
            .map(|(name, words)| {
                format!("<th scope=\"col\"{}><button>{name}</button></th>", if *words { " class=\"words\"" } else { "" })
            })
            .collect();
        let body: String = self
            .rows
            .iter()
            .map(|row| {
                let cell = |(text, (_, words)): (&String, &(&str, bool))| match words {
                    true => format!("<td class=\"words\">{}</td>", escape(text)),
                    false => format!("<td>{text}</td>"),
                };
                format!("<tr>{}</tr>\n", row.iter().zip(self.columns).map(cell).collect::<String>())
            })
            .collect();
        let choice = |column: usize| {
            let mut values: Vec<&str> = Vec::new();
            for row in &self.rows {
                if !values.contains(&row[column].as_str()) {
                    values.push(&row[column]);
                }
            }
            let options: String = values.iter().map(|value| format!("<option>{}</option>", escape(value))).collect();
            let name = self.columns[column].0;
            format!("<label>{name} <select data-column=\"{column}\"><option value=\"\">all</option>{options}</select></label>")
        };
        let choices: String = self.choices.iter().copied().map(choice).collect();
        format!(
            "<section id=\"table\"><h2>All points</h2>\n<p>Means over seeds. MACs saved: operations before by after, what a perfect sparse \
             machine would gain; sparse bytes: four for each parameter left, one bit for each prunable one.</p>\n<div class=\"filters\">\
             <label>search <input id=\"words\" type=\"search\"></label>{choices}<span id=\"count\" role=\"status\"></span></div>\n\
             <div class=\"scroll\"><table id=\"points\"><thead><tr>{header}</tr></thead>\n<tbody>\n{body}</tbody></table></div></section>\n"
        )
    }
}

/// A figure that the page names by its section and title.
pub fn unnamed(drawing: Drawing, columns: Vec<&'static str>, rows: Vec<Vec<String>>) -> Figure {
    Figure { id: String::new(), drawing, columns, rows }
}

/// Numbers the figures of which there are several of one name.
fn tell_apart<'a>(figures: impl Iterator<Item = &'a mut Figure>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for figure in figures {
        let count = seen.entry(figure.id.clone()).or_default();
        *count += 1;
        if *count > 1 {
            figure.id += &format!("-{count}");
        }
    }
}

/// From this width on, in pixels.
const WIDE: f64 = 720.0;

fn figure_html(figure: &Figure) -> String {
    // A picture that would become too small to read beside another has the line for itself.
    let class = if figure.drawing.width > WIDE { " class=\"wide\"" } else { "" };
    let data = serde_json::json!({ "columns": figure.columns, "rows": figure.rows }).to_string();
    format!(
        "<figure id=\"{}\"{class}><figcaption>{}</figcaption>\n{}\n<div class=\"save\">save as<button>SVG</button><button>PNG</button>\
         <button>CSV</button><button>JSON</button></div>\n<script type=\"application/json\">{}</script></figure>\n",
        escape(&figure.id),
        escape(&figure.drawing.title),
        svg(&figure.drawing),
        // Nothing in it may end the script.
        data.replace('<', "\\u003c")
    )
}
