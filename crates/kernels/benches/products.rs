//! Throughput of products, of quantise-and-pack and of pools, one thread: items a second are multiply-accumulates or values.
//!
//! `cargo bench -p fpxint-kernels`; `FPXINT_KERNEL` chooses the kernel.

use divan::{Bencher, counter::ItemsCount};
use fpxint_kernels::{
    Activation, Buffer, Codes, Epilogue, Kernel, Pool, Pooling, Product, RowGrid, Shape, Weights, select,
};

fn main() {
    divan::main();
}

fn kernel() -> &'static dyn Kernel {
    select().expect("FPXINT_KERNEL")
}

const GRID: RowGrid = RowGrid { scale: 0.1, inv: 10.0, inv_wide: 10.0, zero_point: 128, code_max: 255 };

fn epilogue(channels: usize) -> Epilogue {
    Epilogue {
        scales: vec![1e-3; channels],
        bias: vec![0.1; channels],
        means: vec![],
        shift: 0,
        activation: Activation::RELU,
    }
}

fn wave(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.7).sin()).collect()
}

fn product(shape: Shape) -> Product {
    let len = shape.channels_out * shape.depth();
    let epilogue = epilogue(shape.channels_out);
    if shape.is_depthwise() {
        let words = [(0..len).map(|i| (i * 37) as i16).collect()];
        return Product::new(shape, Weights::Depthwise(&words), &epilogue, 8).expect("fits");
    }
    let limbs = [(0..len).map(|i| (i * 37) as i8).collect()];
    Product::new(shape, Weights::OutputFirst(&limbs), &epilogue, 8).expect("fits")
}

#[divan::bench(args = [(128, 768, 768), (128, 768, 3072), (128, 3072, 768), (1, 2048, 1000)])]
fn gemm(bencher: Bencher, (m, k, n): (usize, usize, usize)) {
    let product = product(Shape::matmul(k, n));
    let mut codes = Codes::default();
    codes.fill_rows(kernel(), &wave(m * k), k, &vec![GRID; m], 1);
    let mut y = Buffer::default();
    y.reserve(4 * m * n);
    let y = y.floats_mut(m * n);
    bencher.counter(ItemsCount::new(m * k * n)).bench_local(|| product.fused(kernel(), &codes, None, y, 1));
}

/// Size, channels in, channels out, kernel, stride, groups.
type Conv = (usize, usize, usize, usize, usize, usize);

#[divan::bench(args = [
    (56, 64, 64, 3, 1, 1), (28, 128, 128, 3, 1, 1), (14, 256, 256, 3, 1, 1), (7, 512, 512, 3, 1, 1),
    (56, 64, 256, 1, 1, 1), (14, 1024, 256, 1, 1, 1), (224, 3, 64, 7, 2, 1), (28, 96, 96, 3, 1, 4),
    (112, 96, 96, 3, 1, 96), (14, 576, 576, 3, 1, 576),
])]
fn conv(bencher: Bencher, (size, channels_in, channels_out, k, stride, groups): Conv) {
    let (kernel_size, strides) = ([k, k], [stride, stride]);
    let shape = Shape { channels_in, channels_out, groups, kernel: kernel_size, strides, dilations: [1, 1] };
    let product = product(shape.clone());
    let mut codes = Codes::default();
    let x = wave(size * size * channels_in);
    codes.fill_images(kernel(), &x, [1, size, size, channels_in], [k / 2; 4], &[GRID], 1);
    let [h, w] = codes.output(&shape);
    let mut y = Buffer::default();
    y.reserve(4 * h * w * channels_out);
    let y = y.floats_mut(h * w * channels_out);
    let macs = y.len() * shape.depth();
    bencher.counter(ItemsCount::new(macs)).bench_local(|| product.fused(kernel(), &codes, None, y, 1));
}

#[divan::bench(args = [1, 2])]
fn quantise(bencher: Bencher, limbs: u32) {
    let (size, channels) = (56, 64);
    let x = wave(size * size * channels);
    let grid = RowGrid { code_max: (1 << (8 * limbs)) - 1, ..GRID };
    let mut codes = Codes::default();
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| {
        let ranges = Codes::ranges(kernel(), &x, x.len(), 1);
        codes.fill_images(kernel(), &x, [1, size, size, channels], [1; 4], &[grid], 1);
        ranges
    });
}

/// Size, channels, stride and padding of a 3 x 3 pool; items are values of the image.
#[divan::bench(args = [(112, 64, 2, 1), (35, 288, 2, 0), (35, 288, 1, 1), (17, 768, 1, 1)], consts = [true, false])]
fn pool<const MAX: bool>(bencher: Bencher, (size, channels, stride, pad): (usize, usize, usize, usize)) {
    let output = (size + 2 * pad - 3) / stride + 1;
    let pooling = if MAX { Pooling::Max } else { Pooling::Average { count_padding: true } };
    let (kernel_size, strides, output) = ([3, 3], [stride, stride], [output, output]);
    let pool = Pool { pooling, kernel: kernel_size, strides, dilations: [1, 1], pads: [pad; 4], output };
    let x = wave(size * size * channels);
    let mut y = vec![0.0; output[0] * output[1] * channels];
    let shape = [1, size, size, channels];
    bencher.counter(ItemsCount::new(x.len())).bench_local(|| pool.run(kernel(), &x, shape, true, &mut y, 1));
}
