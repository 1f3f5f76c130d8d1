//! numpy's `.npy` format, versions 1 to 3: one array, its type and shape in a header.
//!
//! The reader is our own: `npyz` 0.9 allocates a header of up to 4 GiB before it has seen that the file is shorter, multiplies
//! extents without looking for overflow, and parses the header as any Python literal, recursively. Here nothing is allocated that
//! the size of the file does not justify.
//!
//! # Reference
//! `numpy.lib.format`.

use super::array::{check_dtype, shape_text};
use super::place::Place;
use super::{Array, DType, Data, atomic};
use crate::{Error, Result};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// The longest header that is read; numpy refuses more than 10,000 bytes itself.
const MAX_HEADER: usize = 1 << 16;

/// The most extents that an array may have, numpy's limit.
const MAX_RANK: usize = 64;

/// Reads an array whose elements have one of the `allowed` types.
///
/// # Errors
/// [`Error::Io`], or a mismatch that names the file: not a `.npy`, another type, Fortran order, truncated or too long.
pub fn read(path: &Path, allowed: &[DType]) -> Result<Array> {
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let size = file.metadata().map_err(|e| Error::io(path, "read", e))?.len();
    read_from(&mut BufReader::new(file), size, Place::file(path), allowed)
}

/// Writes an array, atomically.
///
/// # Errors
/// [`Error::Io`].
pub fn write(path: &Path, array: &Array) -> Result<()> {
    stage(path, array)?.commit()
}

/// As [`write()`], but the file waits for its name.
///
/// # Errors
/// [`Error::Io`].
pub fn stage(path: &Path, array: &Array) -> Result<atomic::Staged> {
    atomic::stage(path, |w| write_to(w, array))
}

/// Reads at most the first `rows` rows (of the first extent) of an array, as [`read`] does all of it: the file must be whole, but
/// only they are read.
///
/// # Errors
/// As [`read`].
pub fn read_rows(path: &Path, allowed: &[DType], rows: usize) -> Result<Array> {
    let (file, place) = (File::open(path).map_err(|e| Error::io(path, "open", e))?, Place::file(path));
    let size = file.metadata().map_err(|e| place.read_error(e))?.len();
    let mut file = BufReader::new(file);
    let Header { dtype, mut shape, offset } = Header::read(&mut file, size, place, allowed)?;
    Header { dtype, shape: shape.clone(), offset }.check_size(size, place)?;
    if let Some(n) = shape.first_mut() {
        *n = rows.min(*n);
    }
    let data = Data::read(&mut file, dtype, shape.iter().product()).map_err(|e| place.read_error(e))?;
    Ok(Array { shape, data })
}

/// Reads an array from a source that holds `size` bytes, and nothing after them.
pub(crate) fn read_from(r: &mut impl Read, size: u64, place: Place<'_>, allowed: &[DType]) -> Result<Array> {
    let header = Header::read(r, size, place, allowed)?;
    header.check_size(size, place)?;
    let data = Data::read(r, header.dtype, header.shape.iter().product()).map_err(|e| place.read_error(e))?;
    Ok(Array { shape: header.shape, data })
}

pub(crate) fn write_to(w: &mut impl Write, array: &Array) -> io::Result<()> {
    w.write_all(&Header::encode(array.data.dtype(), &array.shape))?;
    array.data.write(w)
}

/// What stands before the elements.
pub(crate) struct Header {
    pub dtype: DType,
    /// Its product, times the element size, fits in memory.
    pub shape: Vec<usize>,
    /// Bytes before the first element.
    pub offset: u64,
}

impl Header {
    /// Version 1, padded so that elements start at a multiple of 64 bytes, as numpy does.
    pub fn encode(dtype: DType, shape: &[usize]) -> Vec<u8> {
        let (descr, shape) = (dtype.descr(), shape_text(shape));
        let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
        let total = (10 + text.len() + 1).next_multiple_of(64);
        let length = u16::try_from(total - 10).expect("64 extents of 20 digits are shorter than 64 KiB");
        let mut out = [MAGIC.as_slice(), &[1, 0], &length.to_le_bytes(), text.as_bytes()].concat();
        out.resize(total - 1, b' ');
        out.push(b'\n');
        out
    }

    /// Reads the header of a source that holds `size` bytes.
    pub fn read(r: &mut impl Read, size: u64, place: Place<'_>, allowed: &[DType]) -> Result<Self> {
        let mut take = |n: usize| {
            let mut bytes = vec![0; n];
            r.read_exact(&mut bytes).map_err(|e| place.read_error(e)).map(|()| bytes)
        };
        if size < 10 {
            return Err(place.mismatch("a .npy array", format_args!("{size} bytes")));
        }
        let start = take(8)?;
        if !start.starts_with(MAGIC) {
            return Err(place.mismatch("a .npy array", "a file that does not begin with \\x93NUMPY"));
        }
        let (length_size, length) = match start[6] {
            1 => (2, take(2)?.into_iter().rev().fold(0, |a, b| a << 8 | usize::from(b))),
            2 | 3 => (4, take(4)?.into_iter().rev().fold(0, |a, b| a << 8 | usize::from(b))),
            v => return Err(place.mismatch(".npy version 1, 2 or 3", format_args!("version {v}"))),
        };
        let offset = (8 + length_size + length) as u64;
        if length > MAX_HEADER || offset > size {
            let limit = size.min(MAX_HEADER as u64);
            return Err(place.mismatch(format_args!("a header of at most {limit} bytes"), format_args!("{length}")));
        }
        let text = take(length)?;
        let parsed = Literal::dict(&text).map_err(|expected| {
            let text = String::from_utf8_lossy(&text);
            place.mismatch(format_args!("a .npy header with {expected}"), format_args!("{:?}", text.trim_end()))
        })?;
        let dtype = check_dtype(place, allowed, &parsed.descr)?;
        if parsed.fortran_order {
            return Err(place.mismatch("C order (numpy.ascontiguousarray)", "Fortran order"));
        }
        let header = Self { dtype, shape: parsed.shape, offset };
        if header.bytes().is_none() {
            let found = shape_text(&header.shape);
            return Err(place.mismatch("a shape that fits in memory", found));
        }
        Ok(header)
    }

    /// Bytes of all elements; `None` where that overflows, or would if the empty extents were 1, so that no product of extents does.
    fn bytes(&self) -> Option<u64> {
        let bytes = self.shape.iter().try_fold(self.dtype.size(), |a, d| a.checked_mul((*d).max(1)))?;
        let bytes = isize::try_from(bytes).ok()? as u64;
        Some(if self.shape.contains(&0) { 0 } else { bytes })
    }

    /// Refuses a source that holds fewer or more bytes than the shape needs.
    pub fn check_size(&self, size: u64, place: Place<'_>) -> Result<()> {
        let expected = self.bytes().unwrap_or(u64::MAX); // never None: `read` has checked
        if size - self.offset == expected {
            return Ok(());
        }
        let (name, shape) = (self.dtype.name(), shape_text(&self.shape));
        let found = format!("{} (truncated, or more than one array)", size - self.offset);
        Err(place.mismatch(format_args!("{expected} bytes of {name} for shape {shape}"), found))
    }
}

/// The three entries of a header.
#[derive(Default)]
struct Entries {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

/// What is left of the text of a header: the few Python literals that numpy writes, and no others.
struct Literal<'a>(&'a [u8]);

/// What was expected instead.
type Parsed<T> = std::result::Result<T, &'static str>;

impl<'a> Literal<'a> {
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`, keys in any order.
    fn dict(text: &'a [u8]) -> Parsed<Entries> {
        let mut s = Self(text);
        let mut entries = Entries::default();
        let mut seen = [false; 3];
        s.expect(b'{', "a dictionary")?;
        while !s.next_is(b'}') {
            let key = s.string()?;
            s.expect(b':', "':' after a key")?;
            let index = match key {
                b"descr" => {
                    entries.descr = String::from_utf8_lossy(s.string()?).into_owned();
                    0
                }
                b"fortran_order" => {
                    entries.fortran_order = s.boolean()?;
                    1
                }
                b"shape" => {
                    entries.shape = s.tuple()?;
                    2
                }
                _ => return Err("the keys descr, fortran_order, shape and no other"),
            };
            if std::mem::replace(&mut seen[index], true) {
                return Err("each key once");
            }
            if !s.next_is(b',') {
                s.expect(b'}', "',' or '}' after a value")?;
                break;
            }
        }
        match s.peek() {
            None if seen == [true; 3] => Ok(entries),
            None => Err("the keys descr, fortran_order and shape"),
            Some(_) => Err("nothing after the dictionary"),
        }
    }
    /// The next byte that is not white space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.first().copied()
    }
    /// Consumes `byte` if it is the next one.
    fn next_is(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        self.0 = &self.0[usize::from(is)..];
        is
    }
    fn expect(&mut self, byte: u8, what: &'static str) -> Parsed<()> {
        if self.next_is(byte) { Ok(()) } else { Err(what) }
    }
    /// Takes the first `n` bytes.
    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        head
    }
    /// Quoted, without escapes.
    fn string(&mut self) -> Parsed<&'a [u8]> {
        let quote = self
            .peek()
            .filter(|b| matches!(b, b'\'' | b'"'))
            .ok_or("a quoted string (a plain, not a structured type)")?;
        self.take(1);
        let n = self.0.iter().position(|b| *b == quote).ok_or("a closing quote")?;
        let text = self.take(n);
        self.take(1);
        Ok(text)
    }
    fn boolean(&mut self) -> Parsed<bool> {
        self.peek();
        for (text, value) in [(&b"True"[..], true), (b"False", false)] {
            if self.0.starts_with(text) {
                self.take(text.len());
                return Ok(value);
            }
        }
        Err("True or False for fortran_order")
    }
    /// `()`, `(2,)`, `(2, 3)`; Python 2 wrote `2L`.
    fn tuple(&mut self) -> Parsed<Vec<usize>> {
        let mut shape = Vec::new();
        self.expect(b'(', "a tuple for shape")?;
        while !self.next_is(b')') {
            self.peek();
            let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
            let text = std::str::from_utf8(self.take(digits)).map_err(|_| "digits")?;
            shape.push(text.parse().map_err(|_| "extents that are whole numbers below 2^64")?);
            if shape.len() > MAX_RANK {
                return Err("at most 64 extents");
            }
            self.next_is(b'L');
            if !self.next_is(b',') {
                self.expect(b')', "',' or ')' after an extent")?;
                break;
            }
        }
        Ok(shape)
    }
}
