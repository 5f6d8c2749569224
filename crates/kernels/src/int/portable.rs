//! Integer products in plain Rust: the specification of all others.

use super::Few;
use super::coded::{Coded, Integers};
use super::inputs::PIECE;

/// The outputs of rows of weights for rows of inputs, one block after the other.
pub(super) fn few<F: Coded>(job: &Few) {
    let mut integers = Integers::new();
    let (blocks, per_piece) = (job.cols / F::BLOCK, PIECE / F::BLOCK);
    let mut sums = vec![0.0f32; job.rows];
    let mut eights = vec![[0.0f32; 8]; job.rows];
    for n in job.n.clone() {
        sums.fill(0.0);
        for block in 0..blocks {
            let (bytes, scale) = job.block::<F>(n, block);
            F::expand(bytes, &mut integers);
            let (d, m) = (F::d(bytes, scale), F::m(bytes));
            for (t, eight) in eights.iter_mut().enumerate() {
                let row = job.input_row(t);
                let x = &job.inputs.bytes(row, block / per_piece)[block % per_piece * F::BLOCK..][..F::BLOCK];
                let (s, min) = block_sums::<F>(&integers, x);
                let mut value = d * s as f32;
                if let Some(m) = m {
                    value += m * min as f32;
                }
                eight[block % 8] = value * job.inputs.scales(row)[block];
            }
            if block % 8 == 7 || block + 1 == blocks {
                sums.iter_mut().zip(&mut eights).for_each(|(sum, eight)| *sum += tree(std::mem::take(eight)));
            }
        }
        for (t, &sum) in sums.iter().enumerate() {
            job.write(t, n, sum);
        }
    }
}

fn tree(v: [f32; 8]) -> f32 {
    ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))
}

/// The two integer sums of a block: of weights times inputs, and of minima times inputs.
fn block_sums<F: Coded>(w: &Integers, x: &[i8]) -> (i32, i32) {
    let (mut s, mut m) = (0, 0);
    for (g, (u, x)) in w.u.chunks(F::GROUP).zip(x.chunks(F::GROUP)).enumerate() {
        let of_products: i32 = u.iter().zip(x).map(|(&u, &x)| (i32::from(u) - F::OFFSET) * i32::from(x)).sum();
        s += i32::from(w.scale[g]) * of_products;
        m += i32::from(w.min[g]) * x.iter().map(|&x| i32::from(x)).sum::<i32>();
    }
    (s, m)
}
