#!/usr/bin/env python3
"""Compare the logits of the `fathom` binary with expected ones, for every checkpoint below a folder.

A checkpoint is a folder with config.json and expected.safetensors (tokens i64 [T], logits f32 [T, vocab] and, if there,
greedy i64 [N]); model_fixtures.py writes such folders. For each one this runs

  fathom logits MODEL --tokens tokens.json --out logits.safetensors

and prints the largest absolute difference. With --gguf it first runs `fathom convert MODEL --to f32 OUT.gguf` and takes
the logits from the GGUF. With --greedy it also continues the prompt greedily, one `fathom logits` call a token, each on
the whole text so far (which is how the expected continuation was made).

  python3 compare_logits.py path/to/fathom ROOT [--gguf] [--greedy] [--only NAME ...]

Exit code 0 if every checkpoint passes, 1 if one fails, 2 if there was nothing to compare. Needs numpy and safetensors.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 2e-3


class Failed(Exception):
    """The binary did not deliver; the text is its last words."""


def run(command, seconds):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise Failed(f"{command[1]} took more than {seconds} s") from None
    if done.returncode != 0:
        words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise Failed(f"{command[1]} exit code {done.returncode}: {' | '.join(words[-3:])}")


def logits_of(binary, model, tokens, scratch, seconds):
    """Logits of every position, read back from the file that the binary wrote."""
    ids, out = scratch / "tokens.json", scratch / "logits.safetensors"
    ids.write_text(json.dumps([int(t) for t in tokens]))
    out.unlink(missing_ok=True)
    run([binary, "logits", model, "--tokens", ids, "--out", out], seconds)
    logits = load_file(out).get("logits")
    if logits is None or logits.dtype != np.float32 or logits.ndim != 2 or logits.shape[0] != len(tokens):
        raise Failed(f"output has no f32 logits of {len(tokens)} rows")
    return logits


def compare(binary, folder, options, scratch):
    """(passed, text) of one checkpoint."""
    expected, model = load_file(folder / "expected.safetensors"), folder
    tokens, want = expected["tokens"], expected["logits"]
    if options.gguf:
        model = scratch / f"{folder.name}.gguf"
        run([binary, "convert", folder, "--to", options.to, model], options.timeout)
    got = logits_of(binary, model, tokens, scratch, options.timeout)
    if got.shape != want.shape:
        return False, f"shape {got.shape}, expected {want.shape}"
    difference = np.abs(got - want)
    largest = float(difference.max())
    text = f"largest difference {largest:.3g}"
    passed = bool(np.isfinite(got).all()) and largest <= options.tolerance
    if not passed:
        rows = np.flatnonzero(~(difference.max(axis=1) <= options.tolerance))
        text += f", {len(rows)} of {len(tokens)} positions over, first {rows[0]}"
    if options.greedy and "greedy" in expected:
        row, said = got[-1], []
        for wanted in expected["greedy"]:
            said.append(int(row.argmax()))
            if said[-1] != wanted:
                passed = False
                text += f", greedy token {len(said) - 1} is {said[-1]}, expected {wanted}"
                break
            row = logits_of(binary, model, list(tokens) + said, scratch, options.timeout)[-1]
        else:
            text += ", greedy equal"
    return passed, text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary", type=Path)
    parser.add_argument("root", type=Path)
    parser.add_argument("--gguf", action="store_true", help="convert to GGUF first and compare the GGUF's logits")
    parser.add_argument("--to", default="f32", help="quantisation that --gguf converts to (default f32)")
    parser.add_argument("--greedy", action="store_true", help="also compare the greedy continuation")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="only these checkpoints")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="for each run of the binary")
    options = parser.parse_args()
    folders = sorted(p.parent for p in options.root.rglob("expected.safetensors") if (p.parent / "config.json").exists())
    folders = [f for f in folders if not options.only or f.name in options.only]
    if not folders:
        print(f"no checkpoint with expected.safetensors below {options.root}", file=sys.stderr)
        return 2
    binary, failures, width = options.binary.resolve(), 0, max(len(f.name) for f in folders)
    with tempfile.TemporaryDirectory() as scratch:
        for folder in folders:
            try:
                passed, text = compare(binary, folder, options, Path(scratch))
            except Failed as failure:
                passed, text = False, str(failure)
            failures += not passed
            print(f"{folder.name:{width}}  {'PASS' if passed else 'FAIL'}  {text}", flush=True)
    print(f"{len(folders) - failures} of {len(folders)} pass")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
