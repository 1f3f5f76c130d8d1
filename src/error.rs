//! The library's error: one line that says what, where, what was expected and what was found.

use std::path::{Path, PathBuf};

/// The result of every fallible library function.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. `Display` is one line, fit to be shown to a user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{path}: cannot {action}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was attempted, as a verb: "read", "write", "create".
        action: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// A file, tensor or option does not have the form that it must have.
    #[error("{place}: expected {expected}, found {found}")]
    Mismatch {
        /// The file, tensor or option.
        place: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value is not a number where one is needed.
    #[error("non-finite value in {place}")]
    NonFinite {
        /// The layer, the sample and the step, or the array and its index.
        place: String,
    },
    /// What was computed makes no sense any more: the reason.
    #[error("stopped: {0}")]
    Diverged(String),
    /// Something this build, machine or backend cannot do.
    #[error("{0}")]
    Unsupported(String),
    /// The device's memory is exhausted; everything computed since the last check is void.
    #[error("device: out of memory: {0}")]
    OutOfMemory(String),
    /// The device failed; everything computed since the last check is void.
    #[error("device: {0}")]
    Device(String),
}

impl Error {
    /// An [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_owned(), action, source }
    }

    /// The same, its place within `outer`.
    pub fn within(self, outer: impl std::fmt::Display) -> Self {
        match self {
            Self::Mismatch { place, expected, found } => {
                Self::Mismatch { place: format!("{outer}: {place}"), expected, found }
            }
            Self::NonFinite { place } => Self::NonFinite { place: format!("{outer}, {place}") },
            error => error,
        }
    }

    /// What training says of a value that is not finite, as the reason to stop.
    pub fn diverged(self) -> Self {
        match self {
            error @ Self::NonFinite { .. } => Self::Diverged(error.to_string()),
            error => error,
        }
    }

    /// An [`Error::Mismatch`].
    pub fn mismatch(place: impl ToString, expected: impl ToString, found: impl ToString) -> Self {
        Self::Mismatch { place: place.to_string(), expected: expected.to_string(), found: found.to_string() }
    }
}
