//! The command line: one file per command, the options that they share, and how errors are told.
//!
//! Exit codes: 0; 1 where a check found a fault; 2 for wrong arguments, files and devices; 3 where samples are not finite or training
//! diverges.

mod bench;
mod calibrate;
mod check;
mod compare;
mod corruption;
mod demo;
mod denoise;
mod device;
mod eval;
mod fit;
mod harmonic;
mod images;
mod info;
mod load;
mod observe;
mod options;
mod progress;
mod report;
mod sample;
mod train;
mod usage;

use crate::{Error, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// Diffusion priors from corrupted observations, and fast posterior sampling with them.
#[derive(Parser, Debug)]
#[command(name = "diem", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Learn a prior from corrupted observations alone, by expectation maximization
    Fit(fit::Args),
    /// Draw samples of a prior, or of the posterior of each observation, into a folder
    Sample(sample::Args),
    /// Learn a prior from clean data, into a folder
    Train(train::Args),
    /// Call the denoiser, its VJP or the posterior denoiser on arrays
    Denoise(denoise::Args),
    /// Check every op: finite differences, adjoints, device against the f64 definition; and the samplers' error
    Check(check::Args),
    /// Time ops, or whole posterior steps, with the fraction of the peak
    Bench(bench::Args),
    /// Show devices, what this build does, and a model's summary
    Info(info::Args),
    /// Make an observation file from images or a random manifold: deleted pixels, random projections, k-space, blur, downsampling
    Observe(observe::Args),
    /// Test that posteriors are calibrated: coverage, ranks, TARP
    Calibrate(calibrate::Args),
    /// Reproduce comparisons of the paper
    Compare(compare::Args),
    /// Compare samples with a reference set, or with the truth that they were observed of
    Eval(eval::Args),
    /// Write a self-contained HTML file about a run of fit or sample
    Report(report::Args),
    /// Restore real images with three quarters of their pixels deleted: no arguments needed
    Demo(demo::Args),
}

/// How a command that did not fail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Outcome {
    /// All is well.
    Done = 0,
    /// A self-test found a fault.
    Faulty = 1,
    /// Some samples are not finite, or training diverges.
    NonFinite = 3,
}

/// Wrong arguments, files or devices.
const REFUSED: u8 = 2;

/// Parses the arguments, runs the command, and gives the exit code.
pub fn main() -> ExitCode {
    let mut command = Cli::command();
    let parsed = command.try_get_matches_from_mut(std::env::args_os());
    let parsed = parsed.and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(e) => {
            let Some(line) = usage::line(&e) else {
                let _ = e.print(); // the help; a closed pipe is no fault
                return ExitCode::SUCCESS;
            };
            return refuse(&line);
        }
    };
    if let Err(e) = usage::companions(&command, &matches) {
        return refuse(&e.to_string());
    }
    let mut out = std::io::stdout().lock();
    let result = match cli.command {
        Command::Fit(args) => args.run(&mut out),
        Command::Sample(args) => args.run(&mut out),
        Command::Train(args) => args.run(&mut out),
        Command::Denoise(args) => args.run(&mut out),
        Command::Check(args) => args.run(&mut out),
        Command::Bench(args) => args.run(&mut out),
        Command::Info(args) => args.run(&mut out),
        Command::Observe(args) => args.run(&mut out),
        Command::Calibrate(args) => args.run(&mut out),
        Command::Compare(args) => args.run(&mut out),
        Command::Eval(args) => args.run(&mut out),
        Command::Report(args) => args.run(&mut out),
        Command::Demo(args) => args.run(&mut out),
    };
    match result {
        Ok(outcome) => ExitCode::from(outcome as u8),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e @ Error::Diverged(_)) => {
            refuse(&e.to_string());
            ExitCode::from(Outcome::NonFinite as u8)
        }
        Err(e) => refuse(&e.to_string()),
    }
}

fn refuse(line: &str) -> ExitCode {
    let one_line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let _ = writeln!(std::io::stderr(), "error: {one_line}"); // nobody is left to be told
    ExitCode::from(REFUSED)
}

/// Prints a line.
fn say(out: &mut dyn Write, line: impl std::fmt::Display) -> Result<()> {
    writeln!(out, "{line}").map_err(|e| Error::io("standard output", "write", e))
}

/// The chart beside a file of results, which must not be the file itself.
fn chart_beside(out: &std::path::Path) -> Result<std::path::PathBuf> {
    let chart = out.with_extension("png");
    if chart == out {
        return Err(Error::mismatch("--out", "a .json file, beside which the chart is written", out.display()));
    }
    Ok(chart)
}

/// Refuses to write over a file.
fn refuse_existing(path: &std::path::Path) -> Result<()> {
    if path.exists() {
        return Err(Error::mismatch(path.display(), "no such file yet (or --force)", "one"));
    }
    Ok(())
}
