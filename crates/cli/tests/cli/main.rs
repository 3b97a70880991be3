//! The program as it is used: started on files in a folder of its own, and judged by exit code, output and files.

#[cfg(unix)]
mod assets;
mod bad_data;
mod bad_flags;
mod bad_inputs;
mod bad_models;
mod bad_outputs;
mod bad_text;
mod bench;
mod compare;
mod demo;
mod encoders;
mod eval;
mod faults;
mod inspect;
mod models;
mod numbers;
mod plan;
mod program;
mod quantize;
mod readme;
mod rotation;
mod run;
mod saturation;
mod streams;
mod study;
mod text;
mod workers;
