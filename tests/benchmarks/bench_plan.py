"""What `plan` says of a profile's two trainings beside what they take.

    python tests/benchmarks/bench_plan.py --home HOME --profile demo

The home has been trained in once under the profile (`python -m assets.materialize train`): its tables are what there is
to learn. The plan is made as it is before the first training, so the newest checkpoints are hidden from it. Then each
stage is trained as the product calls it, stopped after some steps, and a step's mean is set beside the plan's. All in
CPU seconds of one thread, which a neighbour's load moves little; plan itself reads the wall clock. Each side runs in a
process of its own.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

WARM_UP, STEPS = 10, 80
LINE = re.compile(
    r"^(SFT|DPO): ([\d,]+) .*about ([\d,]+) steps of ([\d,]+) tokens, in \d+ forward.*; about (.+?)"
    r"(?: in one process)? at ([\d,.]+) ms a step"
)


class Enough(Exception):  # noqa: N818  no error
    """As many steps as are measured have been done."""


class Clock:
    """A reporter that notes CPU seconds at each step and ends the training after some."""

    def __init__(self):
        self.at, self.sentences = [], []

    def say(self, sentence):
        """Keep it."""
        self.sentences.append(sentence)

    def note(self, **facts):
        """Nothing."""

    def metrics(self, step, _values):
        """Note the time."""
        self.at.append(time.process_time())
        if step == WARM_UP + STEPS:
            raise Enough


def predicted(home, profile):
    """The plan's lines as numbers, its clock being CPU seconds."""
    from dpo_pipeline.core.errors import ArtifactError
    from dpo_pipeline.core.home import Home
    from dpo_pipeline.modeling import duration
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.profiles.planning import plan_profile

    duration.time.perf_counter = time.process_time
    latest = Home.latest

    def hidden(self, kind, *rest):
        if kind == "sft_checkpoint":
            raise ArtifactError("hidden", do="nothing")
        return latest(self, kind, *rest)

    Home.latest = hidden
    started = time.process_time()
    text = plan_profile(load_profile(profile), Home(home), name=profile).text
    print(text, file=sys.stderr)
    found = {"cost_s": time.process_time() - started}
    for line in text.splitlines():
        if match := LINE.match(line):
            stage, examples, steps, tokens, _, ms = match.groups()
            numbers = (float(number.replace(",", "")) for number in (examples, steps, tokens, ms))
            found[stage] = dict(zip(("examples", "steps", "tokens", "ms"), numbers, strict=True))
    return found


def taken(home, profile, stage):
    """Steps in all, tokens and CPU milliseconds of a step, peak MiB."""
    from dpo_pipeline.core.home import Home
    from dpo_pipeline.dpo import train as dpo
    from dpo_pipeline.modeling import session
    from dpo_pipeline.profiles import load_profile
    from dpo_pipeline.sft import train as sft

    home, profile, clock = Home(home), load_profile(profile), Clock()
    tokens, record = [], session.Session.record

    def counting(self, step, values, *, tokens: int):
        counted.append(tokens)
        counting.steps = self.steps
        record(self, step, values, tokens=tokens)

    counted = tokens
    session.Session.record = counting
    pairs = home.latest("preference_pairs").path
    with tempfile.TemporaryDirectory() as folder, suppress(Enough):
        out, common = Path(folder) / "out", {"model": profile.model, "compute": profile.compute, "reporter": clock}
        out.mkdir()
        if stage == "SFT":
            drops = [home.latest("demonstrations", drop).path for drop in home.partitions("demonstrations")]
            sft.train_sft(drops, pairs, out, work=out / "work", sft=profile.sft, **common)
        else:
            reference, checkpoint = (home.latest(name).path for name in ("reference_logprobs", "sft_checkpoint"))
            dpo.train_dpo(pairs, reference, checkpoint, out, work=out / "work", dpo=profile.dpo, **common)
    steps = [after - before for before, after in zip(clock.at, clock.at[1:], strict=False)][WARM_UP:]
    return {
        "steps": counting.steps,
        "tokens": statistics.mean(counted),
        "ms": 1_000 * statistics.mean(steps),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main():
    """Both sides, each in a process of its own, and the plan's share of what was taken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        found = predicted(given.home, given.profile) if given.child == "plan" else None
        print("RESULT " + json.dumps(found or taken(given.home, given.profile, given.child)))
        return
    results = {}
    for what in ("plan", "SFT", "DPO"):
        command = [sys.executable, __file__, "--home", str(given.home), "--profile", given.profile, "--child", what]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, env=environment, text=True, stdout=subprocess.PIPE, check=True)
        results[what] = json.loads(done.stdout.rpartition("RESULT ")[2])
    plan = results.pop("plan")
    print(f"{given.profile}: the plan took {plan.pop('cost_s'):.1f} CPU s")
    for stage, real in results.items():
        said = plan.get(stage)
        if said is None:
            print(f"{stage}: the plan says nothing; {real}")
            continue
        whole = [figures["steps"] * figures["ms"] / 1_000 for figures in (said, real)]
        print(
            f"{stage}: steps {said['steps']:,.0f} said, {real['steps']:,} taken; tokens a step {said['tokens']:,.0f}, "
            f"{real['tokens']:,.0f}; ms a step {said['ms']:.1f}, {real['ms']:.1f}; in all {whole[0]:.1f} s, "
            f"{whole[1]:.1f} s: {whole[0] / whole[1]:.2f}; peak {real['peak_mib']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
