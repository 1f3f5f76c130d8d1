//! HTML and SVG by construction: every element is closed, every text and attribute escaped.

use std::fmt::Display;

/// Elements that have neither contents nor an end tag.
const VOID: [&str; 3] = ["meta", "img", "br"];

/// A piece of a page. There is no way to make one from text that is not escaped, except [`Node::trusted`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node(String);

impl Node {
    /// What the source of this program says, as it is.
    pub fn trusted(html: &'static str) -> Self {
        Self(html.to_owned())
    }
    /// The HTML.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Node> for Node {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        Self(nodes.into_iter().map(|node| node.0).collect())
    }
}

impl<const N: usize> From<[Node; N]> for Node {
    fn from(nodes: [Node; N]) -> Self {
        nodes.into_iter().collect()
    }
}

/// Text, escaped.
pub fn text(text: impl Display) -> Node {
    Node(escape(&text.to_string()))
}

/// `<tag attributes>contents</tag>`.
pub fn element(tag: &'static str, attributes: &[(&'static str, &dyn Display)], contents: impl Into<Node>) -> Node {
    let mut html = format!("<{tag}");
    for (name, value) in attributes {
        html += &format!(" {name}=\"{}\"", escape(&value.to_string()));
    }
    html += ">";
    if VOID.contains(&tag) {
        return Node(html);
    }
    html += &contents.into().0;
    html += &format!("</{tag}>");
    Node(html)
}

/// `<tag>contents</tag>`.
pub fn plain(tag: &'static str, contents: impl Into<Node>) -> Node {
    element(tag, &[], contents)
}

/// A table with a header row; where the first column names what the row is about, its cells are headers too.
pub fn table(header: &[String], rows: &[Vec<String>]) -> Node {
    let head = header.iter().map(|name| element("th", &[("scope", &"col")], text(name))).collect::<Node>();
    let rows = rows.iter().map(|row| {
        let cells = row.iter().enumerate().map(|(i, cell)| match i {
            0 => element("th", &[("scope", &"row")], text(cell)),
            _ => plain("td", text(cell)),
        });
        plain("tr", cells.collect::<Node>())
    });
    let table = plain("table", [plain("thead", plain("tr", head)), plain("tbody", rows.collect::<Node>())]);
    element("div", &[("class", &"scroll"), ("tabindex", &0)], table) // so that the keyboard scrolls it too
}

/// A list of terms and what they are.
pub fn definitions(entries: &[(String, String)]) -> Node {
    let pair = |(name, value): &(String, String)| plain("div", [plain("dt", text(name)), plain("dd", text(value))]);
    plain("dl", entries.iter().map(pair).collect::<Node>())
}

/// Control characters have no place in HTML; everything else is kept, with what could begin a tag, an entity or end an attribute
/// written as an entity.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_attributes_are_escaped() {
        let hostile = "</p><script>alert('x')</script>&\"\0";
        let node = element("p", &[("title", &hostile)], text(hostile));
        let escaped = "&lt;/p&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;\u{fffd}";
        assert_eq!(node.as_str(), format!("<p title=\"{escaped}\">{escaped}</p>"));
    }

    #[test]
    fn void_elements_have_no_end() {
        assert_eq!(element("img", &[("alt", &1.5)], Node::default()).as_str(), "<img alt=\"1.5\">");
    }
}
