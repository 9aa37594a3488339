"""What a run has learned on line is served while the run has what it was learned on top of, and no longer."""

import json

import pytest

from helpers import records, settings
from helpers.serve import on_line
from helpers.serve.trained import served_adapters
from helpers.train import continual


def finished(stage: str, artifact: str, content: str, base: str, template: str, persona: str) -> None:
    done = records.start(settings.resolve(stage, {"profile": "smoke", "persona": persona}))
    done.notes |= {"base_sha256": base, "chat_template_sha256": template}
    (done.folder / artifact).mkdir(parents=True, exist_ok=True)
    (done.folder / artifact / "adapter_config.json").write_text(content)
    done.finish({}, [artifact])


def train(adapter: str = "first", base: str = "small", template: str = "plain", persona: str = "sakura") -> None:
    """05 and 06, again where they were run before; 01 as far as it tells whose they are."""
    records.start(settings.resolve("01_data", {"profile": "smoke", "persona": persona}))
    finished("05_dpo", "adapter", adapter, base, template, persona)
    finished("06_merge_quantize", "merged", adapter, base, template, persona)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run in which learning on line has begun."""
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    train()
    on_line.begin(tmp_path / "smoke", tmp_path / "smoke" / "05_dpo" / "adapter")
    return tmp_path / "smoke"


def learn(run, what: str = "learned", passed: bool = True):
    """What `what` says becomes current, or is refused."""
    given = run.parent / what
    given.mkdir()
    (given / "adapter_config.json").write_text(what)
    return continual.promote(given, run / on_line.ONLINE, lambda *_: continual.Verdict(passed)).candidate


def served(run):
    return served_adapters(records.load(run, "06_merge_quantize"), "sakura", experts=False)


def test_it_is_served_while_the_run_is_as_it_was(run):
    adapter = learn(run)
    assert on_line.learned_on_line(run) == adapter and served(run) == {"sakura": adapter}
    train()
    assert served(run) == {"sakura": adapter}, "the same trained again is the same"


@pytest.mark.parametrize(
    ("again", "what"),
    [
        ({"adapter": "second"}, "another starting adapter"),
        ({"base": "large"}, "another base model"),
        ({"template": "fancy"}, "another chat template"),
        ({"persona": "seiji"}, "another persona"),
        ({"base": "large", "adapter": "second"}, "another base model and another starting adapter"),
    ],
)
def test_once_the_run_has_something_else_it_is_refused_in_a_sentence_until_it_is_moved_away(run, again, what):
    adapter = learn(run)
    train(**again)
    with pytest.raises(records.Mismatch) as refusal:
        served(run)
    assert str(refusal.value) == (
        f"What run 'smoke' has learned on line began from {what} than it has now: to begin anew from what it has now, "
        "move the folder smoke/online out of the run."
    )
    assert adapter.exists()
    (run / "online").rename(run.parent / "online_before")
    assert served(run) == {}


def test_where_nothing_was_learned_nothing_is_lost_and_the_merged_model_is_served(run):
    learn(run, "refused", passed=False)
    assert served(run)["sakura"].parent.name.startswith("start_")
    train(adapter="second")
    assert served(run) == {}
    on_line.begin(run, run / "05_dpo" / "adapter")
    assert (served(run)["sakura"] / "adapter_config.json").read_text() == "second"


def test_a_run_that_learned_before_origins_were_noted_is_one_sentence(run):
    (run / "online" / on_line.ORIGIN).unlink()
    assert served(run) == {}, "nothing was learned"
    learn(run)
    with pytest.raises(records.Mismatch, match="has no record of the base model and the adapter .*: to begin anew"):
        served(run)


def test_an_origin_that_was_noted_before_personas_were_is_read(run):
    adapter = learn(run)
    origin = run / "online" / on_line.ORIGIN
    origin.write_text(json.dumps({k: v for k, v in json.loads(origin.read_text()).items() if k != "persona"}))
    assert served(run) == {"sakura": adapter}


def test_interrupted_while_it_begins_it_begins_again(run, monkeypatch):
    train(adapter="second")
    monkeypatch.setattr(on_line, "write_atomically", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        on_line.begin(run, run / "05_dpo" / "adapter")
    monkeypatch.undo()
    monkeypatch.setattr(settings, "OUTPUTS", run.parent)
    assert on_line.learned_on_line(run) is None


def test_without_what_06_merged_it_cannot_be_told(run):
    learn(run)
    record = run / "06_merge_quantize" / "run.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"status": "running"}))
    with pytest.raises(records.MissingStage, match="06_merge_quantize of run 'smoke' was not run to its end"):
        on_line.learned_on_line(run)
