//! One self-contained HTML file about a run: what `diem report` writes.
//!
//! A report never fails because of what a run lacks: it says what is missing or cannot be read, and shows the rest.

mod chart;
mod curves;
mod fit;
mod html;
mod log;
mod page;
mod pictures;
mod sample;
mod scale;
mod settings;
mod timings;

pub use settings::quoted_word;

use crate::data::atomic;
use crate::{Error, Result};
use page::Section;
use std::io::{ErrorKind, Read};
use std::path::Path;

/// What a report shows.
struct Report {
    /// The run's name.
    title: String,
    /// Where it stands, in a line.
    status: String,
    /// What is missing or could not be read.
    notes: Vec<String>,
    sections: Vec<Section>,
}

/// The report of a run directory of `diem fit`, or of a folder of `diem sample`; and what is missing in it.
///
/// # Errors
/// When `run` is neither.
pub fn render(run: &Path) -> Result<(String, Vec<String>)> {
    let Report { title, status, notes, sections } = if fit::is_run(run) {
        fit::report(run)
    } else if sample::is_run(run) {
        sample::report(run)
    } else {
        let found = match std::fs::read_dir(run) {
            Ok(_) => "another".to_owned(),
            Err(e) => return Err(Error::io(run, "read", e)),
        };
        return Err(Error::mismatch(run.display(), "a folder of diem fit or diem sample", found));
    };
    Ok((page::page(&title, &status, &notes, &sections), notes))
}

/// Writes the report of `run` to `out`, atomically, and says what is missing. An earlier report is replaced, another file only with
/// `overwrite`.
///
/// # Errors
/// When `run` is no run, or `out` is there and is no report, or cannot be written.
pub fn write(run: &Path, out: &Path, overwrite: bool) -> Result<Vec<String>> {
    let (html, notes) = render(run)?;
    if !overwrite && !replaceable(out)? {
        return Err(Error::mismatch(
            out.display(),
            "no such file yet, or an earlier report (or --force)",
            "another file",
        ));
    }
    atomic::write_bytes(out, html.as_bytes())?;
    Ok(notes)
}

/// Whether there is no such file, or it is a report.
fn replaceable(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(page::MARK.len() as u64).read_to_end(&mut start));
    match read {
        Ok(_) => Ok(start == page::MARK.as_bytes()),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
        Err(e) => Err(Error::io(path, "read", e)),
    }
}

/// The last part of a path, as a name.
fn name(run: &Path) -> String {
    let whole = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}
