"""`edgewise generate` on the command line."""

IOI = ("discover", "ioi", "--examples", "4", "--threshold", "0.1", "--out", "run")
PROMPT = "Then, Mary and Jeffrey went to the restaurant. Jeffrey gave a bone to"
CORRUPT = "Then, Melissa and Nicole went to the restaurant. Anthony gave a bone to"


def test_a_run_generates_text_beside_the_models_own(shell):
    shell.made(*IOI)
    found = shell.json("generate", "run", PROMPT, "--tokens", 2, "--complement", "--corrupt", CORRUPT)
    assert list(found["texts"]) == ["model", "circuit", "complement"]
    assert found["ablation"] == "resample"
    assert found["texts"]["model"]["text"].startswith(" Mary")
    assert found["texts"]["circuit"]["text"].startswith(" Mary")
    assert found["texts"]["complement"]["text"].startswith(" Melissa")  # who stands there in the corrupted prompt
    shown = shell.works("generate", "run", PROMPT, "--tokens", 1, "-q").out
    assert "note: ablation 'resample' says nothing about new text" in shown
    assert "complement" not in shown


def test_what_cannot_be_generated_is_refused(shell):
    shell.made(*IOI)
    assert "'resample' swaps activations position by position" in shell.refuses(
        "generate", "run", "Then, John", "--corrupt", "a"
    )
    assert "unknown ablation" in shell.refuses("generate", "run", PROMPT, "--ablation", "zeros")
    assert "not a run folder" in shell.refuses("generate", "nowhere", PROMPT)
    assert "at least one token" in shell.refuses("generate", "run", PROMPT, "--tokens", 0)
