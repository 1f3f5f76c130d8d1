//! Where in which file something was wrong.

use crate::Error;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::Path;

/// A file, or one array of a file: how every error of this module begins.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The file.
    pub path: &'a Path,
    /// The array in it, if it holds several.
    pub array: Option<&'a str>,
}

impl<'a> Place<'a> {
    pub fn file(path: &'a Path) -> Self {
        Self { path, array: None }
    }
    pub fn array(path: &'a Path, array: &'a str) -> Self {
        Self { path, array: Some(array) }
    }
    /// Expected this, found that, here.
    pub fn mismatch(self, expected: impl ToString, found: impl ToString) -> Error {
        Error::mismatch(self, expected, found)
    }
    /// What a failed read means: a damaged file is the file's fault, anything else the system's.
    pub fn read_error(self, e: io::Error) -> Error {
        match e.kind() {
            ErrorKind::UnexpectedEof => self.mismatch("a whole file", "a truncated one"),
            ErrorKind::InvalidData | ErrorKind::InvalidInput => self.mismatch("intact data", e),
            _ => Error::io(self.path, "read", e),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        self.array.map_or(Ok(()), |name| write!(f, ": array {name}"))
    }
}
