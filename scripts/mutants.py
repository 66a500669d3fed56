#!/usr/bin/env python3
"""Mutation tests of what decides the numbers: attacks, objectives, optimizers, evaluation, certification, smoothing.

    mutants.py WORK_DIR [--seed N] [--shard K] [--size N] [--only TEXT] [--jobs N] [--timeout SECONDS]

Changes one place of a copy of the sources at a time and runs the tests of datjob-adversarial: a mutant is killed if a test
fails. Each of the jobs has a copy of the sources and of what cargo built. The mutants are those of cargo-mutants, and those of this script: calls of tensors (`f_add`), which cargo-mutants does
not know, and numbers. They are shuffled by the seed; a shard is a part of that list. A survivor needs a test, or a reason in
trainer/adversarial/mutants.txt; without one, the exit status is 1."""

import argparse
import collections
import concurrent.futures
import json
import os
import pathlib
import queue
import random
import re
import shutil
import signal
import subprocess
import sys
import time

PACKAGE = "datjob-adversarial"
CRATE = pathlib.Path("trainer/adversarial")
GLOBS = ["attack.rs", "attack/**/*.rs", "averaging.rs", "certify.rs", "evaluate.rs", "evaluate/**/*.rs", "objective.rs",
         "optim.rs", "optim/**/*.rs", "parts.rs", "smoothing.rs", "test_protocol.rs", "weight_perturbation.rs"]
REASONS = CRATE / "mutants.txt"
# The fast tests first: most mutants do not survive them.
STAGES = [["--lib", "--test", "objective", "--test", "optim", "--test", "methods", "--test", "weights"],
          ["--test", "reference", "--test", "model"],
          ["--test", "evaluate", "--test", "gradient_masking", "--test", "architectures"]]
# Compiles in seconds; the tests of tensors take the same time.
CONFIG = ["incremental=true", f"package.{PACKAGE}.opt-level=1", f"package.{PACKAGE}.codegen-units=16",
          f"package.{PACKAGE}.debug=false"]
CARGO = ["cargo", "test", "--release", "--quiet", "-p", PACKAGE, *(f"--config=profile.release.{c}" for c in CONFIG)]

PAIRS = [("add", "sub"), ("mul", "div"), ("add_scalar", "sub_scalar"), ("mul_scalar", "div_scalar"), ("gt", "le"), ("lt", "ge"),
         ("gt_tensor", "le_tensor"), ("lt_tensor", "ge_tensor"), ("eq_tensor", "ne_tensor"), ("maximum", "minimum"),
         ("amax", "amin"), ("argmax", "argmin"), ("logical_and", "logical_or"), ("clamp_min", "clamp_max"), ("sign", "abs"),
         ("neg", "abs"), ("exp", "log"), ("sqrt", "square")]
CALLS = {}
for one, other in PAIRS:
    for a, b in [(one, other), (other, one)]:
        CALLS.setdefault(f".f_{a}(", f".f_{b}(")
        CALLS.setdefault(f".f_{a}_(", f".f_{b}_(")
CALL = re.compile(r"\.f_\w+\(")
NUMBER = re.compile(r"(?<![\w.])\d+\.\d+(?:e-?\d+)?(?![\w.])")

Mutant = collections.namedtuple("Mutant", "file start end text what")


def line_starts(source):
    return [0, *(match.end() for match in re.finditer("\n", source))]


def own_mutants(root, file):
    """Mutants of tensor calls and of numbers, outside comments, strings and tests."""
    source = (root / file).read_text()
    code = source.split("#[cfg(test)]")[0]
    code = re.sub(r'//.*|"(?:[^"\\]|\\.)*"', lambda match: " " * len(match.group()), code)
    for match in CALL.finditer(code):
        if match.group() in CALLS:
            yield Mutant(file, match.start(), match.end(), CALLS[match.group()], f"{match.group()} to {CALLS[match.group()]}")
    for match in NUMBER.finditer(code):
        value = float(match.group())
        changed = repr(value * 1.25) if value else "1.0"
        yield Mutant(file, match.start(), match.end(), changed, f"{match.group()} to {changed}")


def cargo_mutants(root, files):
    arguments = [argument for file in files for argument in ("-f", str(file))]
    command = ["cargo", "mutants", "--list", "--json", "-p", PACKAGE, *arguments]
    for item in json.loads(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout):
        file = pathlib.Path(item["file"])
        starts = line_starts((root / file).read_text())
        place = [starts[item["span"][side]["line"] - 1] + item["span"][side]["column"] - 1 for side in ("start", "end")]
        yield Mutant(file, *place, item["replacement"], re.sub(r"^.*?:\d+:\d+: ", "", item["name"]))


def key(root, mutant):
    """A mutant's name, which stays when other lines change: file, line of source, change."""
    source = (root / mutant.file).read_text()
    begin = source.rfind("\n", 0, mutant.start) + 1
    line = source[begin:].split("\n", 1)[0]
    before = line[: mutant.start - begin].count(source[mutant.start : mutant.end].split("\n")[0])
    occurrence = f" #{before + 1}" if before else ""
    return f"{mutant.file.relative_to(CRATE / 'src')} | {line.strip()} | {mutant.what}{occurrence}"


class Job:
    """A copy of the sources with its build; tests one mutant at a time."""

    def __init__(self, directory, timeout):
        self.root, self.target, self.timeout = directory / "source", directory / "target", timeout
        self.log = (directory / "log.txt").open("w")

    def cargo(self, arguments, timeout=None):
        """Whether cargo succeeds; None if it does not end in time, and then its whole process group is ended."""
        # One thread for tensor operations: jobs would wait for each other's threads.
        environment = os.environ | {"CARGO_TARGET_DIR": str(self.target), "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen([*CARGO, *arguments], cwd=self.root, env=environment, stdout=self.log, stderr=self.log,
                                   process_group=0)
        try:
            return process.wait(timeout) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None

    def passes_without_mutant(self):
        return all(self.cargo(arguments) for arguments in STAGES)

    def run(self, mutant):
        path = self.root / mutant.file
        source = path.read_text()
        self.log.write(f"\n==== {key(self.root, mutant)}\n")
        self.log.flush()
        try:
            path.write_text(source[: mutant.start] + mutant.text + source[mutant.end :])
            if not self.cargo([*STAGES[0], "--no-run"]):
                return "does not compile"
            for stage in STAGES:
                passed = self.cargo(stage, self.timeout)
                if not passed:
                    return "killed" if passed is False else "killed (time)"
            return "survived"
        finally:
            path.write_text(source)


def make_jobs(work, count, timeout):
    """The first job builds everything; the others begin with a copy of its build, and compile only the crates of the sources."""
    directories = [work / str(number) for number in range(count)]
    for directory in directories:
        (directory / "source").mkdir(parents=True, exist_ok=True)
        copy_sources(directory / "source")
    jobs = [Job(directory, timeout) for directory in directories]
    for job in jobs:
        if not job.target.exists() and job is not jobs[0]:
            shutil.copytree(jobs[0].target, job.target, symlinks=True)
        if not job.passes_without_mutant():
            sys.exit(f"mutants: the tests fail without a mutant, see {job.log.name}")
    return jobs


def copy_sources(root):
    """Makes the copy equal to the files of git. Files that have not changed keep their times, so that cargo compiles only
    what has changed."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, stdout=subprocess.PIPE, text=True).stdout.split("\0")[:-1]
    files = {file for file in listed if pathlib.Path(file).exists()}
    for path in root.rglob("*"):
        if path.is_file() and str(path.relative_to(root)) not in files:
            path.unlink()
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        source = pathlib.Path(file).read_bytes()
        if not (root / file).exists() or (root / file).read_bytes() != source:
            shutil.copyfile(file, root / file)
            shutil.copymode(file, root / file)


def reasons():
    lines = REASONS.read_text().splitlines() if REASONS.exists() else []
    pairs = [line.split(" :: ", 1) for line in lines if " :: " in line]
    return {name.strip(): reason.strip() for name, reason in pairs}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shard", type=int, default=0)
    parser.add_argument("--size", type=int, default=150)
    parser.add_argument("--only", action="append", help="only mutants whose name contains this text, or another --only")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a stage of the tests, which could wait for ever")
    options = parser.parse_args()
    began = time.time()
    jobs = make_jobs(options.work, options.jobs, options.timeout)
    root = jobs[0].root
    files = sorted({path.relative_to(root) for glob in GLOBS for path in (root / CRATE / "src").glob(glob)})
    mutants = [*cargo_mutants(root, files), *(mutant for file in files for mutant in own_mutants(root, file))]
    random.Random(options.seed).shuffle(mutants)
    if options.only:
        mutants = [mutant for mutant in mutants if any(text in key(root, mutant) for text in options.only)]
    chosen = mutants[options.shard * options.size :][: options.size]
    names = {mutant: key(root, mutant) for mutant in chosen}
    print(f"{len(mutants)} mutants; seed {options.seed}, shard {options.shard}: {len(chosen)}", flush=True)
    known, outcomes, open_survivors = reasons(), collections.Counter(), []
    free = queue.SimpleQueue()
    for job in jobs:
        free.put(job)

    def run(mutant):
        job = free.get()
        try:
            return mutant, job.run(mutant)
        finally:
            free.put(job)

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for number, future in enumerate(concurrent.futures.as_completed([pool.submit(run, mutant) for mutant in chosen]), 1):
            mutant, outcome = future.result()
            name = names[mutant]
            if outcome == "survived":
                outcome = "survived, with a reason" if name in known else "survived"
                if name not in known:
                    open_survivors.append(name)
            outcomes[mutant.file.relative_to(CRATE / "src").parts[0].removesuffix(".rs"), outcome] += 1
            print(f"{number:>4} {(time.time() - began) / 60:5.1f} min  {outcome:<24} {name}", flush=True)
    columns = ["killed", "killed (time)", "survived", "survived, with a reason", "does not compile"]
    print("\n| file | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for part in [*sorted({part for part, _ in outcomes}), "all"]:
        counts = [sum(n for (p, o), n in outcomes.items() if o == column and part in (p, "all")) for column in columns]
        print(f"| {part} | " + " | ".join(map(str, counts)) + " |")
    print("\n".join(["", *(f"no test and no reason: {name}" for name in open_survivors)]))
    sys.exit(bool(open_survivors))


main()
