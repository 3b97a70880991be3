//! Processes that fail: all end in time, and one line says which and why.

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{PROGRAM, digits, mpirun, ranks};

/// Within which all have ended.
const LIMIT: Duration = Duration::from_secs(10);

/// Starts other commands in two processes; returns what they said on standard error, and the exit code.
fn two(first: &[&str], second: &[&str]) -> (String, Option<i32>, Duration) {
    let start = Instant::now();
    let mut command = mpirun();
    command.args(["-n", "1", PROGRAM]).args(first).args([":", "-n", "1", PROGRAM]).args(second);
    let output = command.output().expect("mpirun is installed");
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code(), start.elapsed())
}

/// The lines of ours.
fn errors(stderr: &str) -> Vec<&str> {
    stderr.lines().filter(|line| line.starts_with("error: ")).collect()
}

#[test]
fn ranks_with_other_files_are_refused_before_work() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.onnx");
    let mut bytes = std::fs::read(digits()).unwrap();
    // Another producer's name leaves the model as it is.
    bytes.extend([0x12, 1, b'x']);
    std::fs::write(&other, bytes).unwrap();
    let (model, other) = (digits().display().to_string(), other.display().to_string());
    let bench = |model: &str, weights: &str| {
        let line = format!("bench {model} --weights {weights} --activations int4x2 --threads 1");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    for second in [bench(&other, "int4x2"), bench(&model, "int4x3")] {
        let first = bench(&model, "int4x2");
        let first: Vec<&str> = first.iter().map(String::as_str).collect();
        let second: Vec<&str> = second.iter().map(String::as_str).collect();
        let (stderr, code, time) = two(&first, &second);
        assert!(code.is_some_and(|code| code != 0) && time < LIMIT, "{code:?} {time:?} {stderr}");
        assert_eq!(errors(&stderr).len(), 1, "{stderr}");
        assert!(errors(&stderr)[0].contains("rank 1 loaded another model than rank 0"), "{stderr}");
    }
}

#[test]
fn ranks_whose_plans_make_other_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = |name: &str, rotation: &str, rounding: &str| {
        let path = folder.path().join(name);
        let default = format!("weights = \"int4x2\", activations = \"int4x2\", rounding = \"{rounding}\"");
        let text = format!("version = 1\nrotation = \"{rotation}\"\ndefault = {{ {default} }}\n");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let model = digits().display().to_string();
    let bench = |plan: &String| ["bench", &model, "--plan", plan, "--threads", "1"].map(str::to_owned);
    let first = bench(&plan("a.toml", "none", "nearest"));
    for (rotation, rounding) in [("hadamard", "nearest"), ("none", "sum")] {
        let second = bench(&plan(&format!("{rotation}-{rounding}.toml"), rotation, rounding));
        let (stderr, code, _) = two(&first.each_ref().map(|s| s.as_str()), &second.each_ref().map(|s| s.as_str()));
        assert!(code.is_some_and(|code| code != 0), "{stderr}");
        assert_eq!(errors(&stderr).len(), 1, "{stderr}");
        assert!(errors(&stderr)[0].contains("rank 1 loaded another model than rank 0"), "{stderr}");
    }
}

#[test]
fn a_rank_that_cannot_read_its_file_ends_all() {
    let model = digits().display().to_string();
    let line = |model: &str| format!("bench {model} --weights int4x2 --activations int4x2 --threads 1");
    let (first, second) = (line(&model), line("/nowhere/model.onnx"));
    let split = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let (first, second) = (split(&first), split(&second));
    let first: Vec<&str> = first.iter().map(String::as_str).collect();
    let second: Vec<&str> = second.iter().map(String::as_str).collect();
    let (stderr, code, time) = two(&first, &second);
    assert!(code.is_some_and(|code| code != 0) && time < LIMIT, "{code:?} {time:?} {stderr}");
    assert!(errors(&stderr).len() == 1 && errors(&stderr)[0].starts_with("error: rank 1: "), "{stderr}");
    assert!(stderr.contains("/nowhere/model.onnx"), "{stderr}");
}

#[test]
fn wrong_use_is_told_once() {
    for (line, word) in [
        ("bench", "MODEL"),
        ("bench x.onnx --parallel sideways", "sideways"),
        (&format!("bench {}", digits().display()), "not expanded"),
        (&format!("bench {} --weights int4x2 --workers 2", digits().display()), "--workers is for one process"),
    ] {
        let output = ranks(3, line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors(&stderr).len() == 1, "{line}: {stderr}");
        assert!(errors(&stderr)[0].contains(word), "{line}: {stderr}");
    }
}

/// Processes that a process started.
fn children(of: u32) -> Vec<u32> {
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found: Vec<u32> = pids.filter(|&pid| parent(pid) == Some(of)).collect();
    found.sort_unstable();
    found
}

#[test]
fn a_killed_rank_ends_all_within_ten_seconds() {
    for parallel in ["terms", "channels", "batch"] {
        let model = digits().display().to_string();
        let mut command = mpirun();
        command.args(["-n", "3", PROGRAM, "bench", &model, "--weights", "int4x3", "--activations", "int4x4"]);
        command.args(["--batch", "64", "--runs", "100000000", "--threads", "1", "--parallel", parallel]);
        let mut running = command.spawn().expect("mpirun is installed");
        let start = Instant::now();
        let ranks = loop {
            let ranks = children(running.id());
            let working = |pid: &u32| {
                Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok_and(|exe| exe.ends_with("fpxint-mpi"))
            };
            if ranks.len() == 3 && ranks.iter().all(working) {
                break ranks;
            }
            assert!(start.elapsed() < LIMIT && running.try_wait().unwrap().is_none(), "three processes start");
            std::thread::sleep(Duration::from_millis(50));
        };
        // Well into the runs.
        std::thread::sleep(Duration::from_secs(2));
        let killed = Command::new("kill").args(["-9", &ranks[1].to_string()]).status().unwrap();
        assert!(killed.success());
        let start = Instant::now();
        let code = loop {
            if let Some(status) = running.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > LIMIT {
                running.kill().unwrap();
                panic!("the job goes on without a rank");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let mut stderr = String::new();
        running.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        let line = stderr.lines().find(|line| line.contains("rank 1"));
        assert!(!code.success() && line.is_some(), "{code:?} {stderr}");
        // What nobody has waited for yet is no process any more.
        let runs = |pid: &u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
        };
        while ranks.iter().any(runs) {
            assert!(start.elapsed() < LIMIT, "processes are left");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
