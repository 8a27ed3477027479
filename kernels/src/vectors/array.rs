//! The published encoding of numeric arrays: type, shape, digest of all bytes, and either all elements or both ends.

use super::{Problem, item::Item, tally::Tally};
use half::f16;
use sha2::{Digest, Sha256};

/// Most elements an array may claim.
const MAX_ELEMENTS: usize = 1 << 26;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Element {
    F64,
    F32,
    F16,
    U16,
    I64,
}

/// An array as published: its bytes from the hex fields, which are authoritative.
#[derive(Debug)]
pub(super) struct Array<'a> {
    at: Item<'a>,
    element: Element,
    shape: Vec<usize>,
    digest: Vec<u8>,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    All(Vec<u8>),
    Ends(Vec<u8>, Vec<u8>),
}

impl<'a> Array<'a> {
    /// Reads an array and checks it against itself: bytes against digest, decimal values against bytes.
    pub(super) fn read(at: &Item<'a>, tally: &mut Tally) -> Result<Self, Problem> {
        let dtype = at.field("dtype")?;
        let element = match dtype.text()? {
            "float64" => Element::F64,
            "float32" => Element::F32,
            "float16" => Element::F16,
            "uint16" => Element::U16,
            "int64" => Element::I64,
            other => return Err(dtype.problem(format!("type {other:?} is not used by either scheme"))),
        };
        let shape_item = at.field("shape")?;
        let shape = shape_item.list(|size| size.size(MAX_ELEMENTS))?;
        let count = shape.iter().try_fold(1_usize, |count, size| count.checked_mul(*size));
        let count = count.filter(|count| *count <= MAX_ELEMENTS);
        let count = count.ok_or_else(|| shape_item.problem(format!("more than {MAX_ELEMENTS} elements")))?;
        let digest = at.field("sha256_le")?.hex()?;
        let bytes = if let Some(all) = at.optional("hex_le") {
            let bytes = all.hex()?;
            if bytes.len() != count * element.size() {
                return Err(all.problem(format!("{} bytes do not make the shape {shape:?}", bytes.len())));
            }
            tally.that(&all, Sha256::digest(&bytes)[..] == digest[..], || {
                "bytes do not match sha256_le: the file is damaged".to_owned()
            });
            Bytes::All(bytes)
        } else {
            Bytes::Ends(at.field("first_hex_le")?.hex()?, at.field("last_hex_le")?.hex()?)
        };
        let array = Self {
            at: at.clone(),
            element,
            shape,
            digest,
            bytes,
        };
        array.check_decimals(tally)?;
        Ok(array)
    }

    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Rows and columns of a two-dimensional array.
    pub(super) fn rows_columns(&self) -> Result<(usize, usize), Problem> {
        match self.shape[..] {
            [rows, columns] => Ok((rows, columns)),
            _ => Err(self
                .at
                .problem(format!("shape {:?} is not that of a matrix", self.shape))),
        }
    }

    /// All elements of a small array.
    pub(super) fn floats(&self) -> Result<Vec<f32>, Problem> {
        match (&self.bytes, self.element) {
            (Bytes::All(bytes), Element::F32) => Ok(floats(bytes)),
            _ => Err(self.at.problem("is not a complete array of float32")),
        }
    }

    /// All bit patterns of a small array.
    pub(super) fn bits(&self) -> Result<Vec<u16>, Problem> {
        match (&self.bytes, self.element) {
            (Bytes::All(bytes), Element::U16) => Ok(words(bytes)),
            _ => Err(self.at.problem("is not a complete array of uint16")),
        }
    }

    /// Compares computed numbers, element by element or at both ends, within `tolerance`; zero means to the bit.
    pub(super) fn compare_floats(&self, found: &[f32], tolerance: f64, tally: &mut Tally) -> Result<(), Problem> {
        self.expect(Element::F32, found.len())?;
        let (head, tail) = self.windows(found)?;
        match &self.bytes {
            Bytes::All(bytes) => tally.close(&self.at, head, &floats(bytes), tolerance),
            Bytes::Ends(first, last) => {
                tally.close(&self.at.field("first_hex_le")?, head, &floats(first), tolerance);
                tally.close(&self.at.field("last_hex_le")?, tail, &floats(last), tolerance);
            }
        }
        let digest = found
            .iter()
            .fold(Sha256::new(), |hash, x| hash.chain_update(x.to_le_bytes()))
            .finalize();
        self.digest_matches(&digest, tolerance, tally);
        Ok(())
    }

    /// Compares computed bf16 bit patterns.
    pub(super) fn compare_bf16(&self, found: &[u16], tally: &mut Tally) -> Result<(), Problem> {
        self.expect(Element::U16, found.len())?;
        let (head, tail) = self.windows(found)?;
        match &self.bytes {
            Bytes::All(bytes) => tally.bf16(&self.at, head, &words(bytes)),
            Bytes::Ends(first, last) => {
                tally.bf16(&self.at.field("first_hex_le")?, head, &words(first));
                tally.bf16(&self.at.field("last_hex_le")?, tail, &words(last));
            }
        }
        let digest = found
            .iter()
            .fold(Sha256::new(), |hash, x| hash.chain_update(x.to_le_bytes()))
            .finalize();
        tally.informative_digest(digest[..] == self.digest);
        Ok(())
    }

    /// Compares computed elements, given as little-endian bytes, to the bit.
    pub(super) fn compare_exact(&self, element: Element, found: &[u8], tally: &mut Tally) -> Result<(), Problem> {
        let size = element.size();
        self.expect(element, found.len() / size)?;
        let mut same = |at: &Item<'_>, found: &[u8], published: &[u8]| {
            let elements = found.chunks_exact(size).zip(published.chunks_exact(size));
            for (index, (found, published)) in elements.enumerate() {
                tally.that(at, found == published, || {
                    let (found, published) = (hex::encode(found), hex::encode(published));
                    format!("element {index}: published {published}, computed {found}")
                });
            }
        };
        let (head, tail) = self.byte_windows(found)?;
        match &self.bytes {
            Bytes::All(bytes) => same(&self.at, head, bytes),
            Bytes::Ends(first, last) => {
                same(&self.at.field("first_hex_le")?, head, first);
                same(&self.at.field("last_hex_le")?, tail, last);
            }
        }
        self.digest_matches(&Sha256::digest(found), 0.0, tally);
        Ok(())
    }

    /// Compares computed doubles within `tolerance`.
    pub(super) fn compare_doubles(&self, found: &[f64], tolerance: f64, tally: &mut Tally) -> Result<(), Problem> {
        self.expect(Element::F64, found.len())?;
        let (head, tail) = self.windows(found)?;
        match &self.bytes {
            Bytes::All(bytes) => tally.close_doubles(&self.at, head, &doubles(bytes), tolerance),
            Bytes::Ends(first, last) => {
                tally.close_doubles(&self.at.field("first_hex_le")?, head, &doubles(first), tolerance);
                tally.close_doubles(&self.at.field("last_hex_le")?, tail, &doubles(last), tolerance);
            }
        }
        Ok(())
    }

    /// The published numbers, all of them or both ends, as doubles: to judge their size.
    pub(super) fn published(&self) -> Vec<f64> {
        let parts: &[&[u8]] = match &self.bytes {
            Bytes::All(bytes) => &[bytes],
            Bytes::Ends(first, last) => &[first, last],
        };
        parts.iter().flat_map(|bytes| self.element.numbers(bytes)).collect()
    }

    pub(super) fn has_digest(&self, digest: &[u8]) -> bool {
        self.digest == digest
    }

    fn digest_matches(&self, digest: &[u8], tolerance: f64, tally: &mut Tally) {
        if tolerance > 0.0 {
            tally.informative_digest(digest == self.digest);
        } else {
            tally.that(&self.at, digest == self.digest, || "digest differs".to_owned());
        }
    }

    fn expect(&self, element: Element, found: usize) -> Result<(), Problem> {
        let count: usize = self.shape.iter().product();
        if self.element != element || count != found {
            return Err(self.at.problem(format!(
                "{:?} of shape {:?} published, {element:?} with {found} elements computed",
                self.element, self.shape
            )));
        }
        Ok(())
    }

    fn byte_windows<'b>(&self, found: &'b [u8]) -> Result<(&'b [u8], &'b [u8]), Problem> {
        let elements = found.chunks_exact(self.element.size()).collect::<Vec<_>>();
        let (head, tail) = self.windows(&elements)?;
        let size = self.element.size();
        Ok((&found[..head.len() * size], &found[found.len() - tail.len() * size..]))
    }

    /// The parts of the computed elements that were published.
    fn windows<'b, T>(&self, found: &'b [T]) -> Result<(&'b [T], &'b [T]), Problem> {
        let Bytes::Ends(first, last) = &self.bytes else {
            return Ok((found, found));
        };
        let size = self.element.size();
        let head = found.get(..first.len() / size);
        let tail = found
            .len()
            .checked_sub(last.len() / size)
            .and_then(|start| found.get(start..));
        match (head, tail) {
            (Some(head), Some(tail)) if !head.is_empty() || !tail.is_empty() => Ok((head, tail)),
            _ => Err(self.at.problem("publishes no elements, or more than the shape has")),
        }
    }

    fn check_decimals(&self, tally: &mut Tally) -> Result<(), Problem> {
        let parts: [(&str, &[u8]); 2] = match &self.bytes {
            Bytes::All(bytes) => [("values", bytes), ("values", &[])],
            Bytes::Ends(first, last) => [("first", first), ("last", last)],
        };
        for (name, bytes) in parts.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let Some(decimals) = self.at.optional(name) else {
                continue;
            };
            let published: Vec<f64> = decimals.list(Item::number)?;
            let stored = self.element.numbers(bytes);
            let same = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-6 * b.abs();
            let agree = published.len() == stored.len() && published.iter().zip(&stored).all(same);
            tally.that(&decimals, agree, || {
                "decimal values do not match the hex: the file is damaged".to_owned()
            });
        }
        Ok(())
    }
}

impl Element {
    fn numbers(self, bytes: &[u8]) -> Vec<f64> {
        match self {
            Self::F64 => doubles(bytes),
            Self::F32 => floats(bytes).into_iter().map(f64::from).collect(),
            Self::F16 => words(bytes)
                .into_iter()
                .map(|bits| f16::from_bits(bits).to_f64())
                .collect(),
            Self::U16 => words(bytes).into_iter().map(f64::from).collect(),
            Self::I64 => integers(bytes),
        }
    }

    fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 => 4,
            Self::F16 | Self::U16 => 2,
        }
    }
}

fn doubles(bytes: &[u8]) -> Vec<f64> {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn integers(bytes: &[u8]) -> Vec<f64> {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().map(|bytes| i64::from_le_bytes(*bytes) as f64).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn words(bytes: &[u8]) -> Vec<u16> {
    bytes
        .as_chunks::<2>()
        .0
        .iter()
        .map(|bytes| u16::from_le_bytes(*bytes))
        .collect()
}

/// bf16 bit patterns of numbers already rounded to bf16, or to be rounded now.
pub(super) fn bf16_bits(numbers: &[f32]) -> Vec<u16> {
    use crate::decoder::Dtype;
    numbers
        .iter()
        .map(|&x| (Dtype::Bf16.round(x).to_bits() >> 16) as u16)
        .collect()
}

/// The numbers of bf16 bit patterns.
pub(super) fn widen_bf16(bits: &[u16]) -> Vec<f32> {
    bits.iter().map(|&bits| f32::from_bits(u32::from(bits) << 16)).collect()
}
