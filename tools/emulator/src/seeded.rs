//! Bugs seeded into kernels: a test of the tests. Each is one replacement in a kernel's source, compiled into a library of
//! its own; the tests that ought to fail then run on it in another process, because a bug may hang.

use crate::compile::{Build, files, object_name};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Which builds must see a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Both.
    Everywhere,
    /// The race build only: no schedule makes it change a result.
    ByRaceChecker,
}

/// A bug.
#[derive(Clone, Copy, Debug)]
pub struct Bug {
    /// The kernel's file, without extension.
    pub kernel: &'static str,
    /// What is wrong.
    pub name: &'static str,
    /// Text of the file, or else of a header beside it, whose first occurrence is replaced.
    pub from: &'static str,
    /// The replacement.
    pub to: &'static str,
    /// Who must see it.
    pub seen: Seen,
}

impl Bug {
    /// A bug that both builds must see.
    pub const fn new(kernel: &'static str, name: &'static str, from: &'static str, to: &'static str) -> Self {
        Bug { kernel, name, from, to, seen: Seen::Everywhere }
    }

    /// A bug that only the race build must see.
    pub const fn silent(kernel: &'static str, name: &'static str, from: &'static str, to: &'static str) -> Self {
        Bug { kernel, name, from, to, seen: Seen::ByRaceChecker }
    }

    /// The kernels of `folder` in one library below `scratch`, this one with its bug; objects of the others come from
    /// `objects`, or are left out where that is `None`.
    ///
    /// # Errors
    /// The text does not occur, or the compiler's message.
    pub fn library(
        &self,
        build: Build,
        folder: &Path,
        objects: Option<&Path>,
        scratch: &Path,
    ) -> Result<PathBuf, String> {
        let Bug { kernel, name, from, to, .. } = self;
        let error = |e: &dyn std::fmt::Display| format!("{kernel}, {name}: {e}");
        let compiler = crate::compiler();
        let original = folder.join(format!("{kernel}.cu"));
        std::fs::create_dir_all(scratch).map_err(|e| error(&e))?;
        let mut found = false;
        // The headers move too: an include in quotes is looked for beside the file that it stands in.
        for source in std::iter::once(original.clone()).chain(files(folder, "cuh")?) {
            let mut text = std::fs::read_to_string(&source).map_err(|e| error(&e))?;
            if !found && text.contains(from) {
                text = text.replacen(from, to, 1);
                found = true;
            }
            let copy = scratch.join(source.file_name().expect("a listed file has a name"));
            std::fs::write(copy, text).map_err(|e| error(&e))?;
        }
        if !found {
            return Err(error(&format!("no source has {from:?}")));
        }
        let changed = scratch.join(format!("{kernel}.cu"));

        let object = scratch.join(object_name(&changed));
        compiler.object(build, true, &changed, &object).map_err(|e| error(&e))?;
        let mut linked = compiler.runtime_objects(build)?;
        if let Some(objects) = objects {
            let others = files(folder, "cu")?.into_iter().filter(|f| *f != original);
            linked.extend(others.map(|f| objects.join(object_name(&f))));
        }
        linked.push(object);
        let library = scratch.join("kernels.so");
        compiler.link(build, &linked, &library).map_err(|e| error(&e))?;
        Ok(library)
    }
}

/// Runs a test program; the line that says why it failed, or nothing if it succeeded. Longer than `limit` is a failure.
/// What it prints is kept in `log`.
///
/// # Errors
/// The program cannot be started.
pub fn failure(mut command: Command, limit: Duration, log: &Path) -> std::io::Result<Option<String>> {
    let output = File::create(log)?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    let mut child = command.spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Some(format!("does not end within {} s", limit.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if status.success() {
        return Ok(None);
    }
    let bytes = std::fs::read(log)?;
    let text = String::from_utf8_lossy(&bytes);
    let reasons = ["error: ", "ERROR: AddressSanitizer", "runtime error: "];
    let told = text.lines().find(|line| reasons.iter().any(|r| line.contains(r)));
    // Else the line after "thread .. panicked at ..".
    let panic = || text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    Ok(Some(told.or_else(panic).map_or_else(|| status.to_string(), String::from)))
}

/// Prints who saw what, and the rates; the bugs that a build should have seen and did not.
pub fn report(results: &[(Bug, Build, Option<String>)]) -> Vec<String> {
    let mut missed = Vec::new();
    for build in [Build::Plain, Build::Race] {
        let of_build = || results.iter().filter(|(_, b, _)| *b == build);
        for (bug, _, notice) in of_build() {
            let line = format!("{:5} {}, {}", build.name(), bug.kernel, bug.name);
            println!("{line}: {}", notice.as_deref().unwrap_or("not seen"));
            if notice.is_none() && (build == Build::Race || bug.seen == Seen::Everywhere) {
                missed.push(line);
            }
        }
        let seen = of_build().filter(|(_, _, notice)| notice.is_some()).count();
        println!("the {} build sees {seen} of {} seeded bugs", build.name(), of_build().count());
    }
    missed
}
