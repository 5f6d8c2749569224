//! Cached rows in pages, in one of three storage formats.
//!
//! A plane holds the rows of one kind (latents, keys, values or indexer keys) of one layer. Rows are
//! rounded when they are stored; whatever reads them later computes with the floats that they stand
//! for, so a cache in bf16 or int8 gives the bits of an f32 cache that holds the rounded rows.

use std::ops::Range;

use half::bf16;
use half::vec::HalfBitsVecExt;

use crate::gemm::f32_to_bf16;

/// Positions in a page of the cache, and in a block of the softmax.
pub const PAGE_LEN: usize = 64;

/// Elements of a row that share a scale in [`CacheFormat::Int8`].
pub const INT8_GROUP: usize = 64;

/// How cached rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFormat {
    /// 32-bit floats: exact.
    F32,
    /// The upper half of an f32, rounded to nearest even.
    BF16,
    /// Integers from -127 to 127 with one f32 scale for each [`INT8_GROUP`] elements of a row: off by
    /// at most 1/254 of the largest element of the group.
    Int8,
}

impl CacheFormat {
    /// Bytes of a row of `width` elements, scales included.
    pub const fn row_bytes(self, width: usize) -> usize {
        match self {
            CacheFormat::F32 => 4 * width,
            CacheFormat::BF16 => 2 * width,
            CacheFormat::Int8 => width + 4 * width.div_ceil(INT8_GROUP),
        }
    }

    /// The name as commands print and read it.
    pub const fn name(self) -> &'static str {
        match self {
            CacheFormat::F32 => "f32",
            CacheFormat::BF16 => "bf16",
            CacheFormat::Int8 => "int8",
        }
    }
}

/// What attention multiplies of what a plane holds, and of the queries and weights that it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factors {
    /// The floats that the rows stand for, in f32.
    Exact,
    /// Queries, keys, values and softmax weights are rounded to bfloat16; sums are f32.
    Bf16,
}

/// Cached rows of one kind of one layer, in pages of [`PAGE_LEN`] rows of `width` elements.
pub struct Plane {
    width: usize,
    factors: Factors,
    rows: Rows,
}

enum Rows {
    F32(Vec<f32>),
    BF16(Halves),
    /// `[rows, width]` and `[rows, ceil(width / INT8_GROUP)]`.
    Int8(Vec<i8>, Vec<f32>),
}

/// Numbers in bfloat16 that begin with a line of the processor's cache: attention reads them where they are.
struct Halves {
    /// With room to begin at a line.
    all: Vec<bf16>,
    start: usize,
    len: usize,
}

impl Halves {
    /// Elements of a line.
    const LINE: usize = 32;

    /// Zeros.
    fn new(len: usize) -> Halves {
        // All-zero bytes are the bf16 zero; `vec!` of zeros leaves the memory untouched until used.
        let all: Vec<bf16> = vec![0u16; len + Halves::LINE].reinterpret_into();
        let start = all.as_ptr().align_offset(2 * Halves::LINE).min(Halves::LINE);
        Halves { all, start, len }
    }
}

impl std::ops::Deref for Halves {
    type Target = [bf16];

    fn deref(&self) -> &[bf16] {
        &self.all[self.start..self.start + self.len]
    }
}

impl std::ops::DerefMut for Halves {
    fn deref_mut(&mut self) -> &mut [bf16] {
        &mut self.all[self.start..self.start + self.len]
    }
}

impl Plane {
    /// `pages` pages of rows of `width` zeros. The system gives the memory when it is first written.
    pub fn new(format: CacheFormat, width: usize, pages: usize) -> Plane {
        let count = pages * PAGE_LEN;
        let rows = match format {
            CacheFormat::F32 => Rows::F32(vec![0.0; count * width]),
            CacheFormat::BF16 => Rows::BF16(Halves::new(count * width)),
            CacheFormat::Int8 => Rows::Int8(vec![0; count * width], vec![0.0; count * width.div_ceil(INT8_GROUP)]),
        };
        Plane { width, factors: Factors::Exact, rows }
    }

    /// The same rows, which attention multiplies as `factors` says.
    pub fn with_factors(self, factors: Factors) -> Plane {
        Plane { factors, ..self }
    }

    /// As [`Plane::with_factors`].
    pub fn set_factors(&mut self, factors: Factors) {
        self.factors = factors;
    }

    /// How rows are stored.
    pub fn format(&self) -> CacheFormat {
        match self.rows {
            Rows::F32(_) => CacheFormat::F32,
            Rows::BF16(_) => CacheFormat::BF16,
            Rows::Int8(..) => CacheFormat::Int8,
        }
    }

    /// How attention multiplies its rows.
    pub fn factors(&self) -> Factors {
        self.factors
    }

    /// Whether rows are of this width in this format.
    pub fn is(&self, format: CacheFormat, width: usize) -> bool {
        (self.format(), self.width) == (format, width)
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Stores `row` at `position` of the sequence whose pages are `pages`.
    ///
    /// # Panics
    /// If the row has another width or the position lies beyond the pages.
    pub fn store(&mut self, pages: &[u32], position: usize, row: &[f32]) {
        assert_eq!(row.len(), self.width, "width of a cached row");
        let number = row_number(pages, position);
        let span = number * self.width..(number + 1) * self.width;
        match &mut self.rows {
            Rows::F32(rows) => rows[span].copy_from_slice(row),
            Rows::BF16(rows) => rows[span].iter_mut().zip(row).for_each(|(to, &v)| *to = bf16::from_f32(v)),
            Rows::Int8(rows, scales) => {
                let groups = self.width.div_ceil(INT8_GROUP);
                let parts = rows[span].chunks_mut(INT8_GROUP).zip(row.chunks(INT8_GROUP));
                for (scale, (to, from)) in scales[number * groups..].iter_mut().zip(parts) {
                    *scale = to_int8(from, to);
                }
            }
        }
    }

    /// Makes page `to` a copy of page `from`.
    ///
    /// # Panics
    /// If there are no such pages.
    pub fn copy_page(&mut self, from: u32, to: u32) {
        fn copy<T: Copy>(rows: &mut [T], width: usize, from: u32, to: u32) {
            let len = PAGE_LEN * width;
            rows.copy_within(from as usize * len..(from as usize + 1) * len, to as usize * len);
        }
        match &mut self.rows {
            Rows::F32(rows) => copy(rows, self.width, from, to),
            Rows::BF16(rows) => copy(rows, self.width, from, to),
            Rows::Int8(rows, scales) => {
                copy(rows, self.width, from, to);
                copy(scales, self.width.div_ceil(INT8_GROUP), from, to);
            }
        }
    }

    /// Bytes of a page, as [`Plane::page_to_bytes`] writes them.
    pub fn page_bytes(&self) -> usize {
        self.format().row_bytes(self.width) * PAGE_LEN
    }

    /// Appends what page `page` holds, bit for bit, in little-endian order: rows, then scales.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn page_to_bytes(&self, page: u32, out: &mut Vec<u8>) {
        let span = |width: usize| page as usize * PAGE_LEN * width..(page as usize + 1) * PAGE_LEN * width;
        match &self.rows {
            Rows::F32(rows) => out.extend(rows[span(self.width)].iter().flat_map(|v| v.to_le_bytes())),
            Rows::BF16(rows) => out.extend(rows[span(self.width)].iter().flat_map(|v| v.to_le_bytes())),
            Rows::Int8(rows, scales) => {
                out.extend(rows[span(self.width)].iter().map(|&v| v as u8));
                out.extend(scales[span(self.width.div_ceil(INT8_GROUP))].iter().flat_map(|v| v.to_le_bytes()));
            }
        }
    }

    /// Makes page `page` hold what [`Plane::page_to_bytes`] wrote.
    ///
    /// # Panics
    /// If there is no such page, or `bytes` are not [`Plane::page_bytes`] long.
    pub fn page_from_bytes(&mut self, page: u32, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.page_bytes(), "bytes of a page");
        let span = |width: usize| page as usize * PAGE_LEN * width..(page as usize + 1) * PAGE_LEN * width;
        let floats = |to: &mut [f32], bytes: &[u8]| {
            let from = bytes.as_chunks::<4>().0;
            to.iter_mut().zip(from).for_each(|(to, from)| *to = f32::from_le_bytes(*from));
        };
        match &mut self.rows {
            Rows::F32(rows) => floats(&mut rows[span(self.width)], bytes),
            Rows::BF16(rows) => {
                let from = bytes.as_chunks::<2>().0;
                rows[span(self.width)].iter_mut().zip(from).for_each(|(to, from)| *to = bf16::from_le_bytes(*from));
            }
            Rows::Int8(rows, scales) => {
                let (elements, rest) = bytes.split_at(PAGE_LEN * self.width);
                rows[span(self.width)].iter_mut().zip(elements).for_each(|(to, &from)| *to = from as i8);
                floats(&mut scales[span(self.width.div_ceil(INT8_GROUP))], rest);
            }
        }
    }

    /// Columns `cols` of the rows `rows` of page `page` as floats, one after the other, `stride` apart in
    /// `out`; what lies between them is zero.
    #[inline(always)] // for the caller's instruction set
    pub(super) fn load(&self, page: u32, rows: &[u8], cols: Range<usize>, out: &mut [f32], stride: usize) {
        let first = page as usize * PAGE_LEN;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
            let (to, rest) = out.split_at_mut(cols.len());
            self.read(first + usize::from(row), cols.clone(), to);
            rest.fill(0.0);
        }
    }

    /// As [`Plane::load`], in bfloat16.
    #[inline(always)] // for the caller's instruction set
    pub(super) fn load_halves(&self, page: u32, rows: &[u8], cols: Range<usize>, out: &mut [u16], stride: usize) {
        let first = page as usize * PAGE_LEN;
        for (&row, out) in rows.iter().zip(out.chunks_exact_mut(stride)) {
            let (to, rest) = out.split_at_mut(cols.len());
            let number = first + usize::from(row);
            if let Rows::BF16(rows) = &self.rows {
                let from = &rows[number * self.width + cols.start..number * self.width + cols.end];
                to.iter_mut().zip(from).for_each(|(to, v)| *to = v.to_bits());
            } else {
                let mut floats = [0.0f32; INT8_GROUP];
                for (i, to) in to.chunks_mut(INT8_GROUP).enumerate() {
                    let start = cols.start + i * INT8_GROUP;
                    let floats = &mut floats[..to.len()];
                    self.read(number, start..start + to.len(), floats);
                    to.iter_mut().zip(floats).for_each(|(to, v)| *to = f32_to_bf16(*v));
                }
            }
            rest.fill(0);
        }
    }

    /// Where columns `cols` of the rows `rows` of page `page` lie, one after the other in `to`; false if they are
    /// stored in another format than bfloat16.
    #[inline(always)]
    pub(super) fn find_halves(&self, page: u32, rows: &[u8], cols: Range<usize>, to: &mut [*const u16]) -> bool {
        let Rows::BF16(all) = &self.rows else { return false };
        let page = &all[page as usize * PAGE_LEN * self.width..][..PAGE_LEN * self.width];
        for (&row, to) in rows.iter().zip(to) {
            *to = page[usize::from(row) * self.width..][cols.clone()].as_ptr().cast();
        }
        true
    }

    /// Asks for columns `cols` of the rows `rows` of page `page` to be brought near the processor. Changes
    /// nothing but the time that reading them takes.
    #[inline(always)]
    pub(super) fn prefetch(&self, page: u32, rows: Range<usize>, cols: Range<usize>) {
        let first = page as usize * PAGE_LEN;
        for row in first + rows.start..first + rows.end {
            let span = row * self.width + cols.start..row * self.width + cols.end;
            match &self.rows {
                Rows::F32(rows) => lines(&rows[span]),
                Rows::BF16(rows) => lines(&rows[span]),
                // The scales are few beside the elements, and lie together.
                Rows::Int8(rows, _) => lines(&rows[span]),
            }
        }
    }

    /// The row at `position` as floats.
    ///
    /// # Panics
    /// If `out` has another width or the position lies beyond the pages.
    pub fn row(&self, pages: &[u32], position: usize, out: &mut [f32]) {
        assert_eq!(out.len(), self.width, "width of a cached row");
        self.read(row_number(pages, position), 0..self.width, out);
    }

    /// Columns `cols` of row `number` as floats.
    #[inline(always)] // for the caller's instruction set
    fn read(&self, number: usize, cols: Range<usize>, out: &mut [f32]) {
        let start = number * self.width;
        let span = start + cols.start..start + cols.end;
        match &self.rows {
            Rows::F32(rows) => out.copy_from_slice(&rows[span]),
            Rows::BF16(rows) => out.iter_mut().zip(&rows[span]).for_each(|(to, v)| *to = upper_half(*v)),
            Rows::Int8(rows, scales) => {
                let groups = self.width.div_ceil(INT8_GROUP);
                let scales = &scales[number * groups..(number + 1) * groups];
                from_int8(&rows[start..start + self.width], scales, cols, out);
            }
        }
    }
}

/// The number of a row in a plane.
fn row_number(pages: &[u32], position: usize) -> usize {
    pages[position / PAGE_LEN] as usize * PAGE_LEN + position % PAGE_LEN
}

/// The float whose upper half is stored.
#[inline(always)]
fn upper_half(v: bf16) -> f32 {
    f32::from_bits(u32::from(v.to_bits()) << 16)
}

#[inline(always)]
fn lines<T>(elements: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in elements.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: SSE, which every x86-64 processor has; a prefetch reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = elements;
}

/// Rounds a group to integers and returns their scale: a 127th of the largest element. A group that is
/// not finite gets the scale NaN, so that it is not taken for numbers; one so small that the scale
/// would not be a normal number is zero.
fn to_int8(from: &[f32], to: &mut [i8]) -> f32 {
    let largest = from.iter().fold(0.0f32, |max, v| if v.abs() > max || v.is_nan() { v.abs() } else { max });
    let scale = largest / 127.0;
    // Not `<`: NaN goes the other way.
    if !largest.is_finite() || scale < f32::MIN_POSITIVE {
        to.fill(0);
        return if largest.is_finite() { 0.0 } else { f32::NAN };
    }
    // Adding 1.5 * 2^23 rounds to an integer, ties to even, and leaves it in the lowest bits.
    const MAGIC: f32 = 12_582_912.0;
    let inverse = 127.0 / largest;
    for (to, v) in to.iter_mut().zip(from) {
        // At most 127 and a rounding error of far less than a half.
        *to = (v * inverse + MAGIC).to_bits() as i8;
    }
    // The largest number's own scale may be rounded so far up that it would become infinite.
    if (127.0 * scale).is_finite() { scale } else { scale.next_down() }
}

/// Columns `cols` of a row.
#[inline(always)] // for the caller's instruction set
fn from_int8(row: &[i8], scales: &[f32], cols: Range<usize>, out: &mut [f32]) {
    let mut at = cols.start;
    while at < cols.end {
        let group = at / INT8_GROUP;
        let end = cols.end.min((group + 1) * INT8_GROUP);
        let scale = scales[group];
        let to = &mut out[at - cols.start..end - cols.start];
        to.iter_mut().zip(&row[at..end]).for_each(|(to, &v)| *to = f32::from(v) * scale);
        at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(format: CacheFormat, row: &[f32]) -> Vec<f32> {
        let mut plane = Plane::new(format, row.len(), 2);
        plane.store(&[1], 5, row);
        plane.copy_page(1, 0);
        let (mut out, mut copied) = (vec![0.0; row.len()], vec![0.0; row.len()]);
        plane.row(&[1], 5, &mut out);
        plane.row(&[0], 5, &mut copied);
        assert!(out.iter().zip(&copied).all(|(a, b)| a.to_bits() == b.to_bits()));
        // Through bytes into another plane.
        let (mut bytes, mut other, mut read) = (Vec::new(), Plane::new(format, row.len(), 3), vec![0.0; row.len()]);
        plane.page_to_bytes(1, &mut bytes);
        assert_eq!(bytes.len(), plane.page_bytes());
        other.page_from_bytes(2, &bytes);
        other.row(&[2], 5, &mut read);
        assert!(out.iter().zip(&read).all(|(a, b)| a.to_bits() == b.to_bits()));
        out
    }

    #[test]
    fn int8_is_off_by_half_a_step_of_its_own_group() {
        for width in [1, 63, 64, 65, 80, 576] {
            let row: Vec<f32> = (0..width).map(|i| ((i * 37 % 101) as f32 - 50.0) * 1.1f32.powi(i / 64)).collect();
            let got = stored(CacheFormat::Int8, &row);
            for (got, want) in got.chunks(INT8_GROUP).zip(row.chunks(INT8_GROUP)) {
                let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                for (got, want) in got.iter().zip(want) {
                    assert!((got - want).abs() <= largest / 254.0 * 1.0001, "{got} for {want} among {largest}");
                }
            }
        }
        // The largest element itself is exact to a rounding.
        assert!((stored(CacheFormat::Int8, &[3.0, -0.2])[0] - 3.0).abs() < 1e-6);
    }

    #[test]
    fn int8_does_not_hide_what_is_not_a_number_nor_invent_it() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = vec![1.0; 130];
            row[70] = bad;
            let got = stored(CacheFormat::Int8, &row);
            assert!(
                got[64..128].iter().all(|v| v.is_nan()) && got[..64].iter().all(|v| (v - 1.0).abs() < 1e-6),
                "{bad}"
            );
        }
        for tiny in [0.0, f32::from_bits(1), f32::MIN_POSITIVE] {
            assert_eq!(stored(CacheFormat::Int8, &[tiny, -tiny]), [0.0, 0.0]);
        }
        let most = stored(CacheFormat::Int8, &[f32::MAX, f32::MIN]);
        assert!(most.iter().all(|v| v.is_finite()), "{most:?}");
    }

    #[test]
    fn rows_take_the_bytes_that_are_promised() {
        assert_eq!(CacheFormat::F32.row_bytes(576), 2304);
        assert_eq!(CacheFormat::BF16.row_bytes(576), 1152);
        assert_eq!(CacheFormat::Int8.row_bytes(576), 612);
        assert_eq!(CacheFormat::Int8.row_bytes(80), 88);
    }
}
