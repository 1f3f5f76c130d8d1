//! Typed arrays in host memory, as numpy's files hold them.

use super::place::Place;
use crate::Result;
use std::io::{self, Read, Write};

/// Declares the element types once: [`DType`], [`Data`] and everything that differs between them.
macro_rules! dtypes {
    ($($variant:ident($t:ty), $descr:literal, $name:literal, $decode:expr, $encode:expr, $f32:expr;)+) => {
        /// An element type.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DType {
            $(#[doc = $name] $variant,)+
        }

        /// The elements of an array.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Data {
            $(#[doc = $name] $variant(Vec<$t>),)+
        }

        impl DType {
            /// Every type that can be read.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// numpy's code, little-endian: "<f4".
            pub const fn descr(self) -> &'static str {
                match self { $(Self::$variant => $descr),+ }
            }
            /// numpy's name: "float32".
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
            /// Bytes per element.
            pub const fn size(self) -> usize {
                match self { $(Self::$variant => size_of::<$t>()),+ }
            }
        }

        impl Data {
            /// The element type.
            pub fn dtype(&self) -> DType {
                match self { $(Self::$variant(_) => DType::$variant),+ }
            }
            /// The number of elements.
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(v) => v.len()),+ }
            }
            /// The elements, rounded to float32.
            pub fn into_f32(self) -> Vec<f32> {
                match self {
                    $(Self::$variant(v) => v.into_iter().map($f32).collect(),)+
                }
            }
            /// Reads `len` little-endian elements.
            pub(crate) fn read(r: &mut impl Read, dtype: DType, len: usize) -> io::Result<Self> {
                Ok(match dtype { $(DType::$variant => Self::$variant(decode(r, len, $decode)?)),+ })
            }
            /// Writes the elements, little-endian.
            pub(crate) fn write(&self, w: &mut impl Write) -> io::Result<()> {
                match self { $(Self::$variant(v) => encode(w, v, $encode)),+ }
            }
        }
    };
}

dtypes! {
    F32(f32), "<f4", "float32", f32::from_le_bytes, f32::to_le_bytes, |x| x;
    F64(f64), "<f8", "float64", f64::from_le_bytes, f64::to_le_bytes, |x| x as f32;
    U8(u8), "|u1", "uint8", |[x]| x, |x| [x], f32::from;
    Bool(bool), "|b1", "bool", |[x]: [u8; 1]| x != 0, |x| [u8::from(x)], |x| f32::from(u8::from(x));
    I64(i64), "<i8", "int64", i64::from_le_bytes, i64::to_le_bytes, |x| x as f32;
}

/// Elements that are converted at a time.
const CHUNK: usize = 8192;

/// Memory for `len` elements is asked for at once; callers have bounded it by what the file can hold.
fn decode<const S: usize, T>(r: &mut impl Read, len: usize, f: impl Fn([u8; S]) -> T) -> io::Result<Vec<T>> {
    let mut out = Vec::new();
    out.try_reserve_exact(len)?;
    let mut bytes = vec![0; len.min(CHUNK) * S];
    while out.len() < len {
        let bytes = &mut bytes[..(len - out.len()).min(CHUNK) * S];
        r.read_exact(bytes)?;
        out.extend(bytes.as_chunks().0.iter().map(|b| f(*b)));
    }
    Ok(out)
}

fn encode<const S: usize, T: Copy>(w: &mut impl Write, x: &[T], f: impl Fn(T) -> [u8; S]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(x.len().min(CHUNK) * S);
    for chunk in x.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|x| f(*x)));
        w.write_all(&bytes)?;
    }
    Ok(())
}

impl Data {
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Writes float32 elements, little-endian.
    pub(crate) fn write_f32(w: &mut impl Write, x: &[f32]) -> io::Result<()> {
        encode(w, x, f32::to_le_bytes)
    }
}

/// An array in C order (row-major).
#[derive(Clone, PartialEq, Debug)]
pub struct Array {
    /// Extents, outermost first; none for a scalar.
    pub shape: Vec<usize>,
    /// Elements.
    pub data: Data,
}

impl Array {
    /// An array of `shape`.
    ///
    /// # Panics
    /// When the shape does not have as many elements as there are.
    pub fn new(shape: &[usize], data: Data) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{} elements as {shape:?}", data.len());
        Self { shape: shape.to_owned(), data }
    }
    /// A float32 array.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Self {
        Self::new(shape, Data::F32(data))
    }
    /// The extents as numpy prints them: "(2, 3)", "(2,)", "()".
    pub fn shape_text(&self) -> String {
        shape_text(&self.shape)
    }
}

/// Extents as numpy prints them: "(2, 3)", "(2,)", "()".
pub(crate) fn shape_text(shape: &[usize]) -> String {
    match shape {
        [d] => format!("({d},)"),
        _ => format!("({})", shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

/// Refuses an element type that `allowed` does not list.
pub(crate) fn check_dtype(place: Place<'_>, allowed: &[DType], descr: &str) -> Result<DType> {
    allowed.iter().copied().find(|t| t.descr() == descr).ok_or_else(|| {
        let names: Vec<_> = allowed.iter().map(|t| t.name()).collect();
        let found = DType::ALL.iter().find(|t| t.descr() == descr).map_or(descr, |t| t.name());
        place.mismatch(format_args!("elements of type {}", names.join(", ")), found)
    })
}
