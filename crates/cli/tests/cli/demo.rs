//! `fpxint demo`: what the first table says.

use serde_json::Value;

use crate::program::{Folder, keys, number};

fn report() -> Value {
    Folder::empty().run("demo --json").done().json()
}

fn row<'a>(report: &'a Value, precision: &str) -> &'a Value {
    let rows = report["rows"].as_array().unwrap();
    rows.iter().find(|row| row["precision"] == precision).unwrap_or_else(|| panic!("no {precision} in {report}"))
}

#[test]
fn keys_are_those_that_tools_rely_on() {
    let report = report();
    let top = ["fp32_accuracy", "fp32_bytes", "fp32_milliseconds", "images", "kernel", "rows"];
    assert_eq!(keys(&report), top);
    let columns = [
        "accuracy",
        "agreement",
        "bytes",
        "effective_bits",
        "milliseconds",
        "precision",
        "products",
        "weight_bound",
        "weight_error",
    ];
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() >= 6 && rows.iter().all(|row| keys(row) == columns), "{report}");
    assert_eq!(report["images"].as_u64(), Some(600));
    let version = Folder::empty().run("--version").done().stdout;
    assert!(version.contains(report["kernel"].as_str().unwrap()), "{version}");
}

#[test]
fn terms_buy_accuracy() {
    let report = report();
    let fp32 = number(&report, "fp32_accuracy");
    assert!((fp32 - 0.99).abs() < 1e-9, "{fp32}");
    assert!(number(row(&report, "int2x1"), "accuracy") < 0.80, "a term of two bits loses visibly: {report}");
    assert!((number(row(&report, "int4x2"), "accuracy") - fp32).abs() <= 0.005, "{report}");
    assert!(number(row(&report, "int4x3"), "agreement") > 0.999, "{report}");
    for bits in [2, 4] {
        let terms: Vec<_> = (1..=3).map(|terms| row(&report, &format!("int{bits}x{terms}"))).collect();
        for pair in terms.windows(2) {
            let (fewer, more) = (pair[0], pair[1]);
            assert!(number(more, "agreement") >= number(fewer, "agreement"), "{report}");
            // A further term divides the bound by 2^bits, and the error with it.
            let ratio = number(fewer, "weight_bound") / number(more, "weight_bound");
            assert!((ratio.log2() - f64::from(bits)).abs() < 0.1, "{report}");
            assert!(number(more, "weight_error") < number(fewer, "weight_error"), "{report}");
        }
    }
}

#[test]
fn figures_are_consistent() {
    let report = report();
    for row in report["rows"].as_array().unwrap() {
        let bits = number(row, "effective_bits");
        assert!(number(row, "weight_error") <= number(row, "weight_bound"), "{row}");
        assert!(number(row, "bytes") < number(&report, "fp32_bytes") * (bits / 32.0 + 0.05), "{row}");
        assert_eq!(number(row, "products") == 1.0, bits <= 8.0, "{row}");
        assert!(number(row, "milliseconds") > 0.0, "{row}");
    }
}

#[test]
fn the_table_has_a_line_for_each_precision() {
    let table = Folder::empty().run("demo").done().stdout;
    for precision in ["fp32", "int2x1", "int2x2", "int2x3", "int4x1", "int4x2", "int4x3"] {
        assert_eq!(table.lines().filter(|line| line.split(' ').next() == Some(precision)).count(), 1, "{table}");
    }
}
