//! `diem report`: one self-contained HTML file about a run.

use super::{Outcome, say};
use crate::{Result, report};
use std::io::Write;
use std::path::PathBuf;

/// Options of `diem report`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Run directory of `diem fit`, or folder of `diem sample`; the run may be under way or interrupted
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// File to write; an earlier report is replaced [default: report.html in RUN]
    #[arg(long, value_name = "REPORT.html")]
    out: Option<PathBuf>,
    /// Writes over a file that is no report
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Writes the report, and says what the run lacks.
    ///
    /// # Errors
    /// In one line: no run, a file that is there and is no report, or cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let path = self.out.clone().unwrap_or_else(|| self.run.join("report.html"));
        let notes = report::write(&self.run, &path, self.force)?;
        notes.iter().try_for_each(|note| say(out, format_args!("{}: {note}", self.run.display())))?;
        say(out, path.display())?;
        Ok(Outcome::Done)
    }
}
