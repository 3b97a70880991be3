use fpxint::*;
use std::path::Path;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let m = fpxint_onnx::read(Path::new(&a[1]), &Default::default()).unwrap_or_else(|e| {
        println!("ERR {e}");
        std::process::exit(2)
    });
    println!(
        "{} layers, {} skipped {:?}, skeleton {}",
        m.layers().len(),
        m.skipped().len(),
        m.skipped().first(),
        fpxint_onnx::skeleton(&m).len()
    );
    if let Some(p) = a.get(4) {
        std::fs::write(p, fpxint_onnx::skeleton(&m)).unwrap();
    }
    let mut v = vec![];
    for i in 0..m.layers().len() {
        let l = m.layer(i).unwrap();
        let s = Settings {
            weights: a[3].parse().unwrap(),
            activations: "int4x2".parse().unwrap(),
            granularity: Granularity::Channel,
        };
        v.push(fpxint_onnx::encode(&expand_layer(&l, &s).unwrap()));
    }
    let w = fpxint_onnx::write(&m, &v, Path::new(&a[2])).unwrap();
    println!("{w:?}");
    let b = fpxint_onnx::read(Path::new(&a[2]), &Default::default()).unwrap();
    assert_eq!(b.layers().len(), m.layers().len());
    let mut dump = vec![];
    for i in 0..m.layers().len() {
        let s = Settings {
            weights: a[3].parse().unwrap(),
            activations: "int4x2".parse().unwrap(),
            granularity: Granularity::Channel,
        };
        let x = expand_layer(&m.layer(i).unwrap(), &s).unwrap();
        let y = b.layer(i).unwrap();
        let Weight::Series(ys) = y.weight else { panic!() };
        assert_eq!(x.weight, ys);
        assert_eq!(x.bias, y.bias);
        assert_eq!(x.name, y.name);
        assert_eq!(x.geometry, y.geometry);
        assert_eq!(b.layers()[i].activations, Some(s.activations));
        for v in ys.values("", ys.precision().order()).unwrap() {
            let f = v as f32;
            assert_eq!(f as f64, v);
            dump.extend(f.to_le_bytes());
        }
    }
    if m.opset()==b.opset(){assert!(fpxint_onnx::skeleton(&m)==fpxint_onnx::skeleton(&b));}
    std::fs::write(format!("{}.f32", a[2]), dump).unwrap();
}
