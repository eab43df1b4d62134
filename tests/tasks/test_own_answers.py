"""What a user's rows may say beside prompts and answers: answers of several tokens, scored parts, spans, messages."""

from __future__ import annotations

import copy
import json
import warnings
from functools import cache
from typing import Any

import pytest
import torch
from models_with_tokenizers import gemma_like, model_of_words

from edgewise.discovery import PlainEngine, acdc
from edgewise.errors import EdgewiseError, EdgewiseWarning
from edgewise.evaluation import answers_of
from edgewise.evaluation.answers import meaning_of_right
from edgewise.graph import Circuit
from edgewise.models import Decoder, load_model
from edgewise.models.forward import forward
from edgewise.patching import Experiment
from edgewise.runs import discover, load_run
from edgewise.tasks import Task, find_metric, load_task
from edgewise.tasks.alignment import aligned
from edgewise.tasks.jsonl import to_jsonl

WORDS = "the girl boy named Li ly To m . She He said went home to Al ic ia".split()
GIVEN = {"clean": "the girl named", "corrupt": "the boy named", "answer": " Lily", "wrong": " Alicia"}
ALL = GIVEN | {"answer_tokens": "all"}


@cache
def model() -> Decoder:
    """Names are two tokens or three."""
    return model_of_words(WORDS, pieces=r"Li|ly|To(?=m)|m$|Al|ic|ia|\w+|\.")


def ids(*words: str) -> list[int]:
    return [WORDS.index(word) + 1 for word in words]


def load(*rows: dict[str, Any], **options: Any) -> Task:
    return load_task(list(rows), model(), **options)


def refusal(*rows: dict[str, Any], **options: Any) -> str:
    with pytest.raises(EdgewiseError) as caught:
        load(*rows, **options)
    return str(caught.value)


def log_prob(prompt: list[int], answer: list[int]) -> float:
    """Of a whole answer, token by token, each by a run of its own."""
    total = 0.0
    for token in answer:
        tokens = torch.tensor([prompt])
        with torch.no_grad():
            final = forward(model(), tokens, torch.ones_like(tokens, dtype=torch.bool)).streams[-1]
            total += model().logits(final[:, -1]).double().log_softmax(dim=-1)[0, token].item()
        prompt = [*prompt, token]
    return total


# --- answers of several tokens ----------------------------------------------------------------------------------------


def test_of_several_tokens_the_first_can_count() -> None:
    task = load(GIVEN | {"answer_tokens": "first"})
    assert task.prompts.answers is not None
    assert task.prompts.wrong is not None
    assert (task.prompts.answers.tolist(), task.prompts.wrong.tolist()) == ([ids("Li")], [ids("Al")])
    assert task.prompts.sequences is None
    find_metric("logit_diff", task)
    assert "is 2 tokens ['Li', 'ly']" in load(GIVEN).why_no_answers


def test_of_several_tokens_all_can_count_each_after_those_before_it() -> None:
    task = load(ALL, ALL | {"answer": " She", "wrong": " Tom"})
    prompts = task.prompts
    start, other = ids("the", "girl", "named"), ids("the", "boy", "named")
    rows = [ids("Li"), ids("Al", "ic"), [], ids("To")]
    for row, more in enumerate(rows):
        assert prompts.clean[row][prompts.mask[row]].tolist() == [*start, *more]
        assert prompts.corrupt[row][prompts.corrupt_mask[row]].tolist() == [*other, *more]
    assert prompts.scored_rows.tolist() == [0, 0, 1, 1, 1, 2, 3, 3]
    assert prompts.scored_positions.tolist() == [2, 3, 2, 3, 4, 2, 2, 3]
    assert prompts.answers is not None
    assert prompts.wrong is not None
    assert prompts.sequences is not None
    assert prompts.answers[:, 0].tolist() == [*ids("Li", "ly"), -1, -1, -1, *ids("She"), -1, -1]
    assert prompts.wrong[:, 0].tolist() == [-1, -1, *ids("Al", "ic", "ia"), -1, *ids("To", "m")]
    assert prompts.sequences.tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    assert task.metrics == ("kl_div", "log_prob_diff", "l2")
    with pytest.raises(EdgewiseError, match="'logit_diff' means nothing on task"):
        find_metric("logit_diff", task)


def test_log_prob_diff_is_that_of_the_whole_answers_and_so_is_being_right() -> None:
    task = load(ALL, ALL | {"answer": " She", "wrong": " Tom"})
    experiment = Experiment(model(), task, metric="log_prob_diff")
    start = ids("the", "girl", "named")
    pairs = [(ids("Li", "ly"), ids("Al", "ic", "ia")), (ids("She"), ids("To", "m"))]
    differences = [log_prob(start, answer) - log_prob(start, wrong) for answer, wrong in pairs]
    assert experiment.full() * 8 == pytest.approx(-sum(differences), rel=1e-5)
    right = [difference > 0 for difference in differences]
    assert [said.right == said.places for said in answers_of(model(), task)] == [right[0], right[0], right[1], right[1]]
    assert experiment.accuracy() == pytest.approx((5 * right[0] + 3 * right[1]) / 8)
    assert "as a whole" in meaning_of_right(task)


def test_without_wrong_answers_nll_is_that_of_the_whole_answer_per_token() -> None:
    task = load(ALL | {"wrong": None})
    assert len(task) == 1
    assert task.metrics == ("kl_div", "nll", "match_nll", "l2")
    found = Experiment(model(), task, metric="nll").full()
    assert found * 2 == pytest.approx(-log_prob(ids("the", "girl", "named"), ids("Li", "ly")), rel=1e-5)


def test_both_engines_decide_alike_on_sequences() -> None:
    task = load(ALL, ALL | {"answer": " She", "wrong": " Tom"})
    for metric, threshold in (("log_prob_diff", 1e-5), ("kl_div", 1e-7)):
        wide = load_model(copy.deepcopy(model().source), dtype="float64", tokenizer=model().tokenizer)
        experiment = Experiment(wide, task, metric=metric)
        fast, plain = (acdc(experiment, threshold=threshold, engine=engine) for engine in ("incremental", PlainEngine))
        assert 0 < plain.circuit.n_edges < experiment.graph.n_edges
        for one, other in zip(fast.trace, plain.trace, strict=True):
            assert (one.edge, one.kept) == (other.edge, other.kept)
            assert one.after == pytest.approx(other.after, abs=1e-9)


def test_the_first_pairs_and_samples_of_sequences_keep_both_answers() -> None:
    task = load(ALL, ALL | {"answer": " She", "wrong": " Tom"}, ALL | {"answer": " home", "wrong": " to"})
    assert len(task) == 6
    first = task.first(2)
    assert (len(first), first.settings["examples"]) == (4, 2)
    drawn = task.resampled(0).prompts
    assert drawn.sequences is not None
    assert drawn.answers is not None
    for pair in drawn.sequences.unique():
        at = drawn.sequences == pair
        assert bool((drawn.answers[at] >= 0).any() and (drawn.answers[at] < 0).any())


def test_what_cannot_count_as_a_whole_is_refused() -> None:
    assert "a row has one answer" in refusal(ALL | {"answer": [" Lily", " She"]})
    assert "'answer' is null, and other rows have" in refusal(ALL, GIVEN | {"answer": None})
    assert "the same tokens are both an answer and a wrong answer" in refusal(ALL | {"wrong": " Lily"})
    assert "unknown 'answer_tokens' 'some'" in refusal(GIVEN | {"answer_tokens": "some"})
    assert "'scored' cannot stand beside" in refusal(ALL, {"clean": "the girl", "corrupt": "the boy", "scored": "girl"})


def test_a_run_on_sequences_comes_back_from_its_folder(tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EdgewiseWarning)
        run = discover(model(), load(ALL, ALL | {"answer": " She", "wrong": " Tom"}), threshold=0.1)
        folder = run.save(tmp_path / "run")
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    assert [row["answer"] for row in rows] == [" Lily", " She"]
    assert all(row["answer_tokens"] == "all" for row in rows)
    again = load_task(folder / "prompts.jsonl", model())
    assert torch.equal(again.prompts.clean, run.task.prompts.clean)
    assert torch.equal(again.prompts.scored_positions, run.task.prompts.scored_positions)
    assert load_run(folder).record["settings"]["task"]["examples"] == 2


# --- scored parts -----------------------------------------------------------------------------------------------------


def test_the_tokens_of_scored_parts_are_what_has_to_follow() -> None:
    row = {
        "clean": "the girl named Lily went home .",
        "corrupt": "the boy named Tom went home .",
        "scored": ["Lily", "home"],
    }
    task = load(row)
    assert task.prompts.scored_positions.tolist() == [2, 3, 5]
    assert task.prompts.answers is not None
    assert task.prompts.answers[:, 0].tolist() == ids("Li", "ly", "home")
    assert task.prompts.wrong is None
    start = ids("the", "girl", "named", "Li", "ly", "went")
    expected = log_prob(start[:3], ids("Li", "ly")) + log_prob(start, ids("home"))
    assert Experiment(model(), task, metric="nll").full() * 3 == pytest.approx(-expected, rel=1e-5)
    assert json.loads(to_jsonl(task.text)) == row | {"answer": None, "wrong": None}


def test_scored_parts_that_are_not_there_are_refused() -> None:
    row = {"clean": "the girl named Lily", "corrupt": "the boy named Lily"}
    assert "the clean prompt has no 'Tom'" in refusal(row | {"scored": "Tom"})
    assert "has no 'girl' after 'the girl named'" in refusal(row | {"scored": ["named", "girl"]})
    assert "which nothing stands before" in refusal(row | {"scored": "the"})
    assert "has both 'scored' and answers" in refusal(row | {"scored": "girl", "answer": " She"})
    assert "'scored' should be text or a list of texts, not [3]" in refusal(row | {"scored": [3]})


def test_a_part_stands_where_its_letters_stand_behind_a_bos_and_a_space() -> None:
    for dummy_prefix in (False, True):
        gemma = gemma_like(("Alicia",), dummy_prefix=dummy_prefix)
        row = {"clean": "So Alicia is great", "corrupt": "So Mary is great", "scored": ["Alicia", "great"]}
        task = load_task([row | {"spans": [["Alicia", "Mary"]]}], gemma)
        assert gemma.tokenizer is not None
        assert task.prompts.answers is not None
        tokens = gemma.tokenizer.convert_ids_to_tokens(task.prompts.answers[:, 0].tolist())
        assert "".join(tokens).replace("▁", "") == "Aliciagreat"


# --- spans ------------------------------------------------------------------------------------------------------------

UNEVEN = {
    "clean": "to Alicia went the girl",
    "corrupt": "to Tom went the boy",
    "answer": " She",
    "wrong": " He",
    "spans": [["Alicia", "Tom"]],
}


def test_spans_of_two_lengths_end_together() -> None:
    assert aligned([range(1, 4)], [range(1, 3)], 7, 6) == [0, 1, 1, 2, 3, 4, 5]
    assert aligned([range(1, 3)], [range(1, 4)], 6, 7) == [0, 2, 3, 4, 5, 6]
    assert aligned([range(0, 2), range(3, 4)], [range(0, 1), range(2, 4)], 4, 4) == [0, 0, 1, 3]
    with pytest.raises(
        EdgewiseError, match=r"after the spans, .* the clean prompt has 3 tokens where the corrupted .* 2"
    ):
        aligned([range(1, 2)], [range(1, 2)], 5, 4)


def test_an_absent_edge_carries_what_the_aligned_token_of_the_corrupted_prompt_has() -> None:
    even = {"clean": "to Tom went the girl", "corrupt": "to Tom went the boy", "answer": " She", "wrong": " He"}
    task = load(UNEVEN, even)
    prompts = task.prompts
    assert prompts.paired
    assert prompts.alignment is not None
    # "Al", "ic", "ia" against "To", "m".
    assert prompts.alignment[:, :7].tolist() == [[0, 1, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6]]
    experiment = Experiment(model(), task)
    codes = experiment.ablated_activations.codes
    tokens = torch.tensor([ids("to", "To", "m", "went", "the", "boy")])
    with torch.no_grad():
        alone = forward(model(), tokens, torch.ones_like(tokens, dtype=torch.bool))
    for code, own in zip(codes, alone.codes, strict=True):
        torch.testing.assert_close(code[0], own[0, [0, 1, 1, 2, 3, 4, 5]])
    # With no edge at all, only the corrupted prompt's last token is seen; with all of them, the model.
    logits = experiment.logits(Circuit.empty(experiment.graph))
    torch.testing.assert_close(logits[0], model().logits(alone.streams[-1][0, -1]))
    assert experiment.full() == pytest.approx(0, abs=1e-6)


def test_both_engines_decide_alike_on_aligned_prompts() -> None:
    experiment = Experiment(model(), load(UNEVEN, UNEVEN | {"corrupt": "to Alicia went the boy"}))
    fast, plain = acdc(experiment, threshold=0.001), acdc(experiment, threshold=0.001, engine=PlainEngine)
    for one, other in zip(fast.trace, plain.trace, strict=True):
        assert (one.edge, one.kept) == (other.edge, other.kept)
        assert one.after == pytest.approx(other.after, abs=1e-5)


def test_spans_go_on_behind_an_answer_of_several_tokens() -> None:
    task = load(UNEVEN | {"answer": " Lily", "answer_tokens": "all", "wrong": None})
    assert task.prompts.alignment is not None
    assert task.prompts.alignment.tolist() == [[0, 1, 1, 2, 3, 4, 5, 6]]


def test_pairs_of_two_lengths_without_spans_are_refused_with_both_tokenisations() -> None:
    bare = {name: value for name, value in UNEVEN.items() if name != "spans"}
    message = refusal(bare, ablation="resample")
    assert "has 7 tokens, the corrupted one 6" in message
    assert "['Al', 'ic', 'ia', 'went', 'the', 'girl'] against ['To', 'm', 'went', 'the', 'boy']" in message
    assert "say in 'spans' which parts stand for each other" in message
    assert "the corrupted prompt has no 'Lily'" in refusal(UNEVEN | {"spans": [["Alicia", "Lily"]]})
    assert "share a token of the clean prompt" in refusal(UNEVEN | {"spans": [["Al", "To"], ["i", "m"], ["c", "went"]]})
    assert "'spans' should be a list of pairs" in refusal(UNEVEN | {"spans": [["Alicia"]]})
    assert "the clean prompt has 2 tokens where the corrupted one has 1" in refusal(
        UNEVEN | {"spans": [["icia", "Tom"]]}
    )


# --- messages ---------------------------------------------------------------------------------------------------------


def chat_model() -> Decoder:
    template = (
        "{{ '<s>' }}{% for one in messages %}{{ '[' + one['role'] + '] ' + one['content'] }}"
        "{% if not loop.last or add_generation_prompt %}{{ ' ' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
    )
    made = model_of_words(["<s>", "[user]", "[assistant]", *WORDS], pieces=r"<s>|\[\w+\]|Li|ly|\w+|\.", bos="<s>")
    assert made.tokenizer is not None
    made.tokenizer.chat_template = template
    return made


def said(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(contents)]


TALK = {"messages": said("the girl"), "corrupt_messages": said("the boy"), "answer": " She", "wrong": " He"}


def test_messages_are_read_by_the_models_chat_template_and_prompts_never_are() -> None:
    chat = chat_model()
    assert chat.tokenizer is not None
    from tokenizers.processors import TemplateProcessing

    # A tokenizer that puts BOS itself does not put another before the template's.
    chat.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    task = load_task([TALK, {"clean": "the girl", "corrupt": "the boy", "answer": " She", "wrong": " He"}], chat)
    words = ["<unk>", "<s>", "[user]", "[assistant]", *WORDS]
    rows = [
        [words[token] for token in row[mask]] for row, mask in zip(task.prompts.clean, task.prompts.mask, strict=True)
    ]
    assert rows == [["<s>", "[user]", "the", "girl", "[assistant]"], ["<s>", "the", "girl"]]
    assert task.prompts.scored_positions.tolist() == [4, 2]
    assert task.text[0].corrupt == "<s>[user] the boy [assistant]"
    kept = [json.loads(line) for line in to_jsonl(task.text).splitlines()]
    assert kept[0] == TALK
    assert kept[1]["clean"] == "the girl"


def test_an_answer_that_has_begun_is_gone_on_with() -> None:
    row = TALK | {"messages": said("the girl", "She"), "corrupt_messages": said("the boy", "She"), "answer": " went"}
    task = load_task([row], chat_model())
    assert task.text[0].clean == "<s>[user] the girl [assistant] She"


def test_messages_that_cannot_be_read_are_refused() -> None:
    assert "has no chat template, which messages need" in refusal(TALK)
    assert "has both messages and prompts" in refusal(TALK | {"clean": "the girl"})
    assert "'messages' should be a list of messages" in refusal(TALK | {"messages": [{"role": "pope", "content": "a"}]})
    assert "'corrupt_messages' should be a list" in refusal(
        {name: value for name, value in TALK.items() if name != "corrupt_messages"}
    )
