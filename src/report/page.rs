//! The page around the sections: self-contained, for screens of any width, light and dark, and for paper.

use super::html::{Node, element, plain, text};

/// What a report's file begins with: it may be written over by the next one.
pub const MARK: &str = "<!DOCTYPE html>\n<!-- diem report -->\n";

/// Nothing is fetched, and nothing runs, whatever the page says.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// A part of the report.
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its heading.
    pub heading: &'static str,
    /// What it shows; sections without contents are left out.
    pub contents: Node,
}

/// The whole file.
pub fn page(title: &str, status: &str, notes: &[String], sections: &[Section]) -> String {
    let sections: Vec<_> = sections.iter().filter(|section| !section.contents.is_empty()).collect();
    let head = [
        element("meta", &[("charset", &"utf-8")], Node::default()),
        element("meta", &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")], Node::default()),
        element("meta", &[("http-equiv", &"Content-Security-Policy"), ("content", &POLICY)], Node::default()),
        element("meta", &[("name", &"color-scheme"), ("content", &"light dark")], Node::default()),
        plain("title", text(format_args!("{title}: diem"))),
        plain("style", Node::trusted(include_str!("style.css"))),
    ];
    let links = sections.iter().map(|section| {
        let target = format!("#{}", section.id);
        plain("li", element("a", &[("href", &target)], text(section.heading)))
    });
    let header = plain(
        "header",
        [
            plain("h1", text(title)),
            element("p", &[("class", &"status")], text(status)),
            element("nav", &[("aria-label", &"Sections")], plain("ul", links.collect::<Node>())),
            warnings(notes),
        ],
    );
    let body = sections.iter().map(|section| {
        let heading = plain("h2", text(section.heading));
        element("section", &[("id", &section.id)], [heading, section.contents.clone()])
    });
    let html = element(
        "html",
        &[("lang", &"en")],
        [plain("head", head), plain("body", [header, plain("main", body.collect::<Node>())])],
    );
    format!("{MARK}{}\n", html.as_str())
}

/// What is missing or could not be read.
fn warnings(notes: &[String]) -> Node {
    if notes.is_empty() {
        return Node::default();
    }
    let list = notes.iter().map(|note| plain("li", text(note))).collect::<Node>();
    let heading = plain("strong", text("Missing or not readable"));
    element("div", &[("class", &"notes"), ("role", &"note")], [heading, plain("ul", list)])
}
