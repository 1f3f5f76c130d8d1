"""Writes the report of gpu_check.sh from what its parts left: gpu_report.py WORK OUT.

gpu_report.py --samples WORK TRUTH.npy compares the posterior samples of the GPU with the CPU's.
"""

import array
import datetime
import json
import math
import os
import re
import sys
from pathlib import Path

PARTS = {
    "device": "nvidia-smi, `diem info`",
    "tests": "tests of the kernels against the f64 reference, on the device",
    "check_f32": "`diem check --device cuda`",
    "check_bf16": "`diem check --device cuda --precision bf16`",
    "step_bf16": "`diem bench`, whole steps of the cifar network, bf16",
    "ops_bf16": "`diem bench`, ops, bf16",
    "sample": "`diem sample`, the shipped prior, against the CPU",
    "peer_f32": "azula on PyTorch, TF32",
    "peer_bf16": "azula on PyTorch, bf16",
    "step_f32": "`diem bench`, whole steps of the cifar network, f32",
    "memcheck": "compute-sanitizer memcheck",
    "racecheck": "compute-sanitizer racecheck",
    "peer_compile": "azula on PyTorch, bf16, torch.compile",
}
STEPS = 256  # of the sampler, and one last call
# Samples of the CPU with another seed differ by 0.17 dB and 2.0% of the std.
PSNR, STD = 0.25, 0.03


class Missing(Exception):
    """A result that there is not, and why."""


class Results:
    """What the parts left."""

    def __init__(self, work):
        self.work = work
        rows = [line.split("\t") for line in text(work / "parts.tsv").splitlines()]
        self.parts = {name: (rc, int(seconds), int(limit)) for name, rc, seconds, limit in rows}

    def verdict(self, name):
        rc, _, limit = self.parts[name]
        if rc == "none":
            return "not run: no time was left"
        if rc in ("124", "137"):
            return f"ended after {limit} s"
        return "passed" if rc == "0" else f"failed ({rc})"

    def why(self, name):
        """Why a part has not what was sought."""
        if name not in self.parts:
            return "the part was not asked for, or not reached"
        last = [line for line in text(self.work / f"{name}.log").splitlines() if line.strip()][-1:]
        return "; ".join([self.verdict(name)] + [line.strip() for line in last])

    def found(self, name, pattern):
        match = re.search(pattern, text(self.work / f"{name}.log"), re.M)
        if not match:
            raise Missing(self.why(name))
        return match

    def json(self, name):
        try:
            return json.loads(text(self.work / f"{name}.json"))
        except ValueError:
            raise Missing(self.why(name)) from None

    def tests(self, name):
        """(passed, skipped, failed) lines; a test without a line did not end."""
        folder = self.work / "tests.d" / name
        lines = text(folder / "lines").splitlines()
        told = {line.split()[1].rstrip(":") for line in lines if " " in line}
        expected = text(folder / "expected").split()
        if not expected:
            raise Missing(self.why(name))
        lines += [f"failed {test}: no time was left for it" for test in expected if test not in told]
        return [sorted(line for line in lines if line.startswith(kind)) for kind in ("passed", "skipped", "failed")]


def text(path):
    return path.read_text(errors="replace") if path.exists() else ""


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines) + "\n"


def by_reason(lines):
    """Lines "failed TEST: WHY", those of one reason together."""
    groups = {}
    for line in lines:
        verdict, test, why = line.split(" ", 2)
        groups.setdefault((verdict, why), []).append(test.rstrip(":"))
    return "".join(f"- {verdict}, {why}: {', '.join(tests)}\n" for (verdict, why), tests in groups.items())


def tests_of(name):
    def row(results):
        passed, skipped, failed = map(len, results.tests(name))
        return f"{passed} passed, {skipped} skipped, {failed} failed"

    return row


def check_of(name):
    return lambda results: results.found(name, r"^\d+ comparisons, \d+ failed").group(0)


def seconds_per_image(name):
    return lambda results: results.json(name)["seconds_per_image"]


def peer_seconds(name):
    return lambda results: float(results.found(name, r"^mmps.* (\S+)$").group(1))


def rate(seconds):
    return lambda results: f"{1 / (seconds(results) * (STEPS + 1)):.2f} images/s"


def ratio(peer, own):
    return lambda results: f"{peer_seconds(peer)(results) / seconds_per_image(own)(results):.2f}"


def sampled(precision):
    def row(results):
        found = results.json("sample")
        if precision not in found:
            raise Missing(results.why("sample"))
        of, cpu = found[precision], found.get("cpu", dict.fromkeys(("psnr", "std", "breakdowns"), math.nan))
        return (
            f"{of['images_per_second']:.1f} images/s; PSNR of the mean {of['psnr']:.2f} dB (CPU: {cpu['psnr']:.2f}), "
            f"std of the draws {of['std']:.4f} (CPU: {cpu['std']:.4f}), {of['breakdowns']} breakdowns (CPU: {cpu['breakdowns']})"
        )

    return row


def roof(results):
    ops = results.json("ops_bf16")
    peak, by = ops["peak"]["flops_per_second"], ops["peak"]["by"]
    peak = f"{peak / 1e12:.0f} TFLOP/s by {by}" if peak else f"no peak: {by}"
    return f"{peak}; {ops['copy_bytes_per_second'] / 1e9:.0f} GB/s"


def shares(op, share):
    """Of the slowest and the fastest call of an op that has a target; the cache does not count as memory."""

    def row(results):
        rows = [row for row in results.json("ops_bf16")["ops"] if row["op"] == op and row["target"]]
        found = [row[share] for row in rows if row[share] and (share == "of_peak" or not row["in_cache"])]
        if not found:
            raise Missing(f"{len(rows)} calls were timed, all in the cache, or no peak is known")
        return f"{min(found):.0%} to {max(found):.0%} in {len(found)} calls"

    return row


def calls(results, name, rows):
    """A table of timed calls."""
    try:
        timed = results.json(name)[rows]
    except (Missing, KeyError):
        return ""
    lines = []
    for row in timed:
        of_peak = f"{row['of_peak']:.0%}" if row["of_peak"] else ""
        target = ", ".join(f"{share:.0%} {of.replace('_', ' ')}" for of, share in (row["target"] or {}).items())
        lines.append((row["op"], row["size"], row["call"], f"{row['seconds'] * 1e3:.3f}", of_peak, f"{row['of_copy']:.0%}", target))
    head = ("op", "size", "call", "ms", "of the matrix peak", "of the copy", "target")
    return f"## Timed in bf16: {rows}\n\n" + table(head, lines)


# what, target, how it is found
RESULTS = [
    ("device tests", "all pass", tests_of("tests")),
    ("check, f32", "none failed", check_of("check_f32")),
    ("check, bf16", "none failed", check_of("check_bf16")),
    ("matrix peak and copy, measured", "", roof),
    ("convolutions, of the peak", "45%, by wgmma 70%", shares("conv2d", "of_peak")),
    ("norms, of the copy", "85%", shares("channel_norm", "of_copy")),
    ("CG, of the copy", "85%", shares("cg", "of_copy")),
    ("vectors, of the copy", "85%", shares("vector", "of_copy")),
    ("MMPS(1), 256 steps, cifar, bf16", "34 images/s, later 50", rate(seconds_per_image("step_bf16"))),
    ("the same, f32", "", rate(seconds_per_image("step_f32"))),
    ("the same by azula, TF32", "", rate(peer_seconds("peer_f32"))),
    ("the same by azula, bf16", "", rate(peer_seconds("peer_bf16"))),
    ("the same by azula, bf16, compiled", "", rate(peer_seconds("peer_compile"))),
    ("diem f32 over azula TF32", "", ratio("peer_f32", "step_f32")),
    ("diem bf16 over azula bf16", "", ratio("peer_bf16", "step_bf16")),
    ("diem bf16 over azula bf16, compiled", "", ratio("peer_compile", "step_bf16")),
    ("sample, f32", "as the CPU", sampled("f32")),
    ("sample, bf16", "as the CPU", sampled("bf16")),
    ("memcheck", "no error", tests_of("memcheck")),
    ("racecheck", "no race", tests_of("racecheck")),
]


def write(work, out):
    results = Results(work)
    rows, missing = [], []
    for what, target, find in RESULTS:
        try:
            rows.append((what, target, find(results)))
        except (Missing, KeyError, TypeError) as why:
            missing.append((what, why if isinstance(why, Missing) else f"unexpected: {why!r}"))

    manifest = dict(line.split(": ", 1) for line in text(Path("manifest.txt")).splitlines() if ": " in line)
    device = text(work / "device.log")
    gpu = (device.splitlines() or [""])[0]
    facts = {
        "GPU, driver, memory, clocks (SM, its maximum, memory)": gpu if "MiB" in gpu else f"none: {gpu}",
        "device": (re.findall(r"^(?:device|error:) +(.*)", device, re.M) or ["unknown"])[0],
        "batch of the steps": os.environ.get("BATCH"),
        "date": f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M} UTC",
        **manifest,
    }
    report = "# diem on a GPU\n\n" + table(["", ""], facts.items())
    parts = [(PARTS[name], results.verdict(name), part[1]) for name, part in results.parts.items()]
    report += "## Parts\n\n" + table(["part", "result", "s"], parts)
    report += "## Results\n\n" + table(["what", "target", "found"], rows)
    report += "## Not obtained\n\n" + table(["what", "why"], missing) if missing else ""
    for name in ("tests", "memcheck", "racecheck"):
        try:
            _, skipped, failed = results.tests(name)
        except Missing:
            continue
        if failed or skipped:
            report += f"## {PARTS[name]}\n\n{by_reason(failed + skipped)}\n"
    for name in ("check_f32", "check_bf16"):
        failed = re.findall(r"^(.*\S) +FAILED$", text(work / f"{name}.log"), re.M)
        if failed:
            lines = "".join(f"- {' '.join(line.split())}\n" for line in failed)
            report += f"## {PARTS[name]}: failed, with error and bound\n\n{lines}\n"
    report += calls(results, "ops_bf16", "ops") + calls(results, "step_bf16", "levels")
    (out / "report.md").write_text(report)
    files = {path.stem: json.loads(path.read_text()) for path in sorted(work.glob("*.json"))}
    found = {"facts": facts, "parts": results.parts, "results": {row[0]: row[2] for row in rows}, **files}
    (out / "results.json").write_text(json.dumps(found, indent=1))


def npy(path):
    """The elements of a .npy file of float32."""
    data = Path(path).read_bytes()
    length = int.from_bytes(data[8:10], "little")
    assert b"'<f4'" in data[10 : 10 + length], path
    return array.array("f", data[10 + length :])


def samples(work, truth):
    """Statistics of each run, and whether the GPU's are the CPU's."""
    truth, found = npy(truth), {}
    for which in ("cpu", "f32", "bf16"):
        folder = work / f"sample_{which}"
        if not (folder / "std.npy").exists():
            continue
        run = json.loads((folder / "run.json").read_text())
        mean, std = npy(folder / "mean.npy"), npy(folder / "std.npy")
        square = math.fsum((x - t) ** 2 for x, t in zip(mean, truth, strict=True)) / len(truth)
        found[which] = {
            "psnr": 10 * math.log10(16 / square),  # of images in [-2, 2]
            "std": math.fsum(std) / len(std),
            **{key: run[key] for key in ("images_per_second", "seconds", "breakdowns", "failures")},
        }
    (work / "sample.json").write_text(json.dumps(found))
    print(json.dumps(found, indent=1))
    if len(found) < 3:
        return f"finished: {', '.join(found) or 'none'}"
    cpu = found["cpu"]
    near = lambda x: abs(x["psnr"] - cpu["psnr"]) < PSNR and abs(x["std"] / cpu["std"] - 1) < STD and not x["failures"]
    far = [which for which, x in found.items() if not near(x)]
    return f"not as the CPU: {', '.join(far)}" if far else 0


if __name__ == "__main__":
    if sys.argv[1] == "--samples":
        sys.exit(samples(Path(sys.argv[2]), sys.argv[3]))
    write(Path(sys.argv[1]), Path(sys.argv[2]))
