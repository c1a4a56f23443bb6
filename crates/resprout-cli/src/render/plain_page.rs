//! The frame of pages that need no script: one file, no network.

use super::figure::escape;

const STYLE: &str = ":root{color-scheme:light dark}body{font:15px/1.5 sans-serif;max-width:54rem;margin:2rem auto;padding:0 1rem}\
table{border-collapse:collapse}td,th{padding:.15rem .6rem;text-align:right}figure{margin:1.5rem 0}pre{overflow:auto}\
svg{max-width:100%;height:auto}";

/// A page with this title and heading; `style` and `body` are CSS and HTML.
pub fn plain_page(title: &str, heading: &str, style: &str, body: &str) -> String {
    let (title, heading) = (escape(title), escape(heading));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title>\n<style>{STYLE}{style}</style>\n<h1>{heading}</h1>\n{body}</html>\n"
    )
}
