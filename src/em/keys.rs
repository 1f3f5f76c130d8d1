//! Keys of a configuration: which one was meant, and where two configurations differ.

use super::Config;
use crate::{Error, Result};
use toml::{Table, Value};

/// What can change between two starts of one run: no bit depends on it, or (files) something else stands for it.
const FREE: &[&str] = &[
    "observations.file",
    "observations.count",
    "heldout.file",
    "heldout.truth",
    "heldout.fraction",
    "metrics.truth",
    "sample.batch",
    "laps.count",
    "laps.keep",
    "laps.save_seconds",
    "laps.max_dropped",
    "laps.max_breakdowns",
    "laps.max_loss",
];

/// The parser's error in one line: the place in `text`, an unknown key with the closest that there is.
pub fn explain(text: &str, place: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or(place.to_owned(), |line| format!("{place}, line {line}"));
    let message = error.message();
    // serde's wording: unknown field `stpes`, expected one of `steps`, `eta`
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(found)) => {
            let valid: Vec<_> = quoted.collect();
            let closest = valid.iter().max_by(|a, b| likeness(a, found).total_cmp(&likeness(b, found)));
            let expected = match closest.filter(|key| likeness(key, found) > 0.5) {
                Some(key) => format!("{key} (the closest key)"),
                None => format!("one of {}", valid.join(", ")),
            };
            Error::mismatch(place, expected, format_args!("the unknown key {found}"))
        }
        _ => Error::mismatch(place, "a configuration of diem fit", message),
    }
}

fn likeness(a: &str, b: &str) -> f64 {
    strsim::normalized_damerau_levenshtein(a, b)
}

/// Refuses a configuration that would not do what the one that a run was started with does.
///
/// # Errors
/// The key, its value in the run, and its value now.
pub fn same_run(place: &str, run: &Config, now: &Config) -> Result<()> {
    let [run, now] = [run, now].map(|config| {
        let (mut all, table) = (Table::new(), Table::try_from(config).expect("numbers, strings and lists"));
        flatten("", table, &mut all);
        all
    });
    let keys = run.keys().chain(now.keys()).filter(|key| !FREE.contains(&key.as_str()));
    for key in keys {
        let [theirs, ours] = [run.get(key), now.get(key)].map(|v| v.map_or("none".to_owned(), Value::to_string));
        if theirs != ours {
            return Err(Error::mismatch(
                format_args!("{place}: {key}"),
                format_args!("{theirs}, as the run has it"),
                ours,
            ));
        }
    }
    Ok(())
}

/// Adds the values of `table` to `all`, by keys such as "train.augmentation.flip".
fn flatten(prefix: &str, table: Table, all: &mut Table) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(section) => flatten(&format!("{key}."), section, all),
            value => _ = all.insert(key, value),
        }
    }
}
