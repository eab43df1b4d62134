"""Find the circuit of a behaviour, see whether it holds on prompts that the search has not seen, and keep it.

python examples/find_a_circuit.py
python examples/find_a_circuit.py --model gpt2 --within 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import edgewise as ew


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="tiny-ioi", help="a built-in model, a hub id, a folder")
    options.add_argument("--task", default="ioi", help="a built-in task, or a JSONL file of prompt pairs")
    options.add_argument("--threshold", type=float, default=0.05)
    options.add_argument("--within", type=int, help="search among so many edges only, for large models")
    options.add_argument("--out", default="runs/example", help="a folder for the run")
    asked = options.parse_args()

    model = ew.load_model(asked.model)
    print(model)
    task = ew.load_task(asked.task, model)
    run = ew.discover(model, task, threshold=asked.threshold, within=asked.within)
    print(run)
    for step in sorted(run.trace, key=lambda step: -step.effect)[:5]:
        print(f"  {step.edge:24} {task.metric} rises by {step.effect:.3f} without it")

    unseen = ew.load_task(asked.task, model, split="test")
    print("on other prompts:", run.evaluate(unseen))

    folder = run.save(asked.out)
    page = run.report(Path(folder) / "report.html")
    print(f"kept in {folder}; open {page}")


if __name__ == "__main__":
    main()
