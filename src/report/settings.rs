//! Settings and commands as text.

use super::html::{Node, plain, text};
use serde_json::Value;
use std::path::Path;

/// Every value of nested JSON objects with its path, "sampler.steps".
pub fn flattened(value: &Value) -> Vec<(String, String)> {
    let Value::Object(map) = value else { return Vec::new() };
    let entries = map.iter().flat_map(|(name, value)| match value {
        Value::Object(_) => flattened(value).into_iter().map(|(inner, v)| (format!("{name}.{inner}"), v)).collect(),
        Value::String(word) => vec![(name.clone(), word.clone())],
        other => vec![(name.clone(), other.to_string())],
    });
    entries.collect()
}

/// A file's text, or a command.
pub fn preformatted(content: &str) -> Node {
    plain("pre", plain("code", text(content.trim_end())))
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    quoted_word(&path.to_string_lossy())
}

/// A word as a shell takes it.
pub fn quoted_word(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_flattened() {
        let flat = flattened(&json!({"a": 1, "b": {"c": "x", "d": [1, 2]}, "e": null}));
        let expected = [("a", "1"), ("b.c", "x"), ("b.d", "[1,2]"), ("e", "null")];
        assert!(flat.iter().map(|(n, v)| (n.as_str(), v.as_str())).eq(expected), "{flat:?}");
    }

    #[test]
    fn words_survive_a_shell() {
        for (word, expected) in [("runs/a-1", "runs/a-1"), ("my run", "'my run'"), ("it's", r"'it'\''s'"), ("", "''")] {
            assert_eq!(quoted_word(word), expected);
        }
    }
}
