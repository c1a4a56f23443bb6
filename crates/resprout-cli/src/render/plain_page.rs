//! The frame of pages that need no script: one file, no network.

use super::cells::Cells;
use super::figure::{Drawing, escape, svg};

const STYLE: &str = ":root{color-scheme:light dark}body{font:15px/1.5 sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse;display:block;overflow-x:auto}td,th{white-space:nowrap;padding:.15rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}figure{margin:1.5rem 0}pre{overflow:auto}\
svg{max-width:100%;height:auto}";

/// A page with this title and heading; `style` and `body` are CSS and HTML.
pub fn plain_page(title: &str, heading: &str, style: &str, body: &str) -> String {
    let (title, heading) = (escape(title), escape(heading));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title>\n<style>{STYLE}{style}</style>\n<h1>{heading}</h1>\n{body}</html>\n"
    )
}

/// A table. Its first column is text.
pub fn html_table(cells: &Cells) -> String {
    let line = |tag: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.map(|cell| format!("<{tag}>{}", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let rows: String = cells.rows.iter().map(|row| line("td", &mut row.iter().map(String::as_str))).collect();
    format!("<table>{}{rows}</table>\n", line("th", &mut cells.header.iter().copied()))
}

/// A picture with its caption.
pub fn html_figure(caption: &str, drawing: &Drawing) -> String {
    format!("<figure><figcaption>{}</figcaption>\n{}</figure>\n", escape(caption), svg(drawing))
}

/// A heading and a list, if there is anything in it.
pub fn html_list(heading: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("<li>{}</li>\n", escape(line))).collect();
    format!("<h2>{heading}</h2>\n<ul>\n{lines}</ul>\n")
}
