//! Wrong arguments, in one line: the option, what was expected, what was found.

use crate::{Error, Result};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

/// Options, and the one that each of them makes no sense without. Not clap's `requires`: its error names only what is
/// missing, not what was given.
const COMPANIONS: &[(&[&str], &str)] = &[
    (&["observations"], "operator"),
    (&["operator", "method", "solver", "iterations", "rtol", "covariance"], "observations"),
    (&["prior_above", "zeta", "lambda", "prior_model", "draws"], "observations"),
    (&["dimension"], "manifold"),
    (&["vjp"], "vjp_out"),
    (&["vjp_out"], "vjp"),
];

/// Refuses an option that was given without the one that it makes no sense without.
///
/// # Errors
/// The option, and what it needs.
pub fn companions(cli: &Command, matches: &ArgMatches) -> Result<()> {
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    let known = |id: &str| cli.find_subcommand(name).is_some_and(|c| c.get_arguments().any(|a| a.get_id() == id));
    let given = |id: &str| known(id) && matches.value_source(id) == Some(ValueSource::CommandLine);
    let long = |id: &str| format!("--{}", id.replace('_', "-"));
    for (options, needed) in COMPANIONS {
        if let Some(option) = options.iter().find(|id| given(id) && known(needed) && !given(needed)) {
            return Err(Error::mismatch(long(option), format_args!("{} with it", long(needed)), "none"));
        }
    }
    Ok(())
}

/// The line for clap's error; `None` where it is no error but the help or the version.
pub fn line(error: &clap::Error) -> Option<String> {
    let text = |kind| error.get(kind).map(context);
    let option = || text(ContextKind::InvalidArg).map(|arg| bare(&arg)).unwrap_or_default();
    let line = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return None,
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            "expected a command, found none".to_owned()
        }
        ErrorKind::InvalidSubcommand => {
            format!("expected a command, found '{}'", text(ContextKind::InvalidSubcommand).unwrap_or_default())
        }
        ErrorKind::InvalidValue => {
            let found = text(ContextKind::InvalidValue).filter(|v| !v.is_empty());
            let found = found.map_or("no value".to_owned(), |v| format!("'{v}'"));
            let valid = text(ContextKind::ValidValue).filter(|v| !v.is_empty());
            let expected = valid.map_or("a value".to_owned(), |v| format!("one of {v}"));
            format!("{}: expected {expected}, found {found}", option())
        }
        ErrorKind::ValueValidation => {
            let expected = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            let found = text(ContextKind::InvalidValue).unwrap_or_default();
            format!("{}: expected {expected}, found '{found}'", option())
        }
        ErrorKind::MissingRequiredArgument => format!("expected {}, found no such option", option()),
        ErrorKind::UnknownArgument => {
            let hint = text(ContextKind::SuggestedArg).map(|s| format!("; did you mean {s}?")).unwrap_or_default();
            format!("unknown option {}{hint}", option())
        }
        ErrorKind::ArgumentConflict => {
            let other = text(ContextKind::PriorArg).map_or("itself".to_owned(), |arg| bare(&arg));
            format!("{}: expected without {other}, found both", option())
        }
        _ => first_paragraph(&error.to_string()),
    };
    Some(format!("{line} (see {} --help)", command(error)))
}

/// `--steps` of `--steps <STEPS>`.
fn bare(arg: &str) -> String {
    arg.split(", ").map(|a| a.split([' ', '=']).next().unwrap_or(a)).collect::<Vec<_>>().join(", ")
}

fn context(value: &ContextValue) -> String {
    match value {
        ContextValue::String(s) => s.clone(),
        ContextValue::Strings(s) => s.join(", "),
        other => other.to_string(),
    }
}

fn first_paragraph(text: &str) -> String {
    let lines = text.trim_start_matches("error: ").lines().take_while(|l| !l.trim().is_empty());
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

/// "diem sample" of the usage that the error carries.
fn command(error: &clap::Error) -> String {
    let usage = error.get(ContextKind::Usage).map(context).unwrap_or_default();
    let words = usage.split_whitespace().skip_while(|w| *w != "diem");
    let words: Vec<_> = words.take_while(|w| w.chars().all(|c| c.is_ascii_lowercase())).collect();
    if words.is_empty() { "diem".to_owned() } else { words.join(" ") }
}
