"""A behaviour of your own, as pairs of prompts in Python: which token comes next, and what differs without the cause.

python examples/own_prompts.py
python examples/own_prompts.py --model gpt2 --edges 200

With the built-in model the prompts have to be in its few words; any model of English takes them too.
"""

from __future__ import annotations

import argparse

import edgewise as ew

NAMES = ("Mary", "Paul", "Lisa", "Mark", "Sarah", "Jamie", "Adam", "Katie")


def rows() -> list[dict[str, str]]:
    """Who is given the thing? Two names stand in each prompt, and the one that is repeated is not the answer.

    The corrupted prompt has three other names, so nothing in it says which of the two it is.
    """
    found = []
    for at, given in enumerate(NAMES):
        giver, *others = (NAMES[(at + step) % len(NAMES)] for step in (1, 2, 3, 4))
        for place in ("store", "garden"):
            clean = f"Then, {given} and {giver} went to the {place}. {giver} gave a ring to"
            corrupt = f"Then, {others[0]} and {others[1]} went to the {place}. {others[2]} gave a ring to"
            found.append({"clean": clean, "corrupt": corrupt, "answer": f" {given}", "wrong": f" {giver}"})
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--model", default="tiny-ioi", help="a built-in model, a hub id, a folder")
    options.add_argument("--edges", type=int, default=30, help="the most edges that the circuit may have")
    asked = options.parse_args()

    model = ew.load_model(asked.model)
    task = ew.load_task(rows(), model)
    print(task)
    run = ew.discover(model, task, method="eap-ig", edges=asked.edges, metric="logit_diff")
    print(run)
    found = run.evaluate()
    print(found)
    scores = run.scores
    assert scores is not None
    assert scores.scores is not None
    graph = scores.graph
    best = sorted(zip(*scores.edges.nonzero(), strict=True), key=lambda place: -abs(scores.scores[place]))  # type: ignore[index]
    for row, column in best[:5]:
        print(f"  {graph.sources[row].name}->{graph.inputs[column].name}  {scores.scores[row, column]:+.3f}")


if __name__ == "__main__":
    main()
