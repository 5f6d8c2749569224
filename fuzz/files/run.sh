#!/bin/sh
# Fuzzes a target: ./run.sh gguf|safetensors|index RUNS [libFuzzer options]
# Stable Rust and a C++ compiler suffice; the flags are those that cargo-fuzz would set, without ASan.
set -eu
cd "$(dirname "$0")"
target=$1
runs=$2
shift 2
mkdir -p corpus "artifacts/$target"
cargo run --quiet --release --bin seeds -- corpus
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --release --target x86_64-unknown-linux-gnu --bin "$target"
exec "target/x86_64-unknown-linux-gnu/release/$target" "corpus/$target" -runs="$runs" -dict="corpus/$target.dict" \
    -max_len=4096 -timeout=1 -malloc_limit_mb=64 -rss_limit_mb=1024 -artifact_prefix="artifacts/$target/" \
    -print_final_stats=1 "$@"
