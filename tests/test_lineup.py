"""The arms of a run: those it has weights for, on as few servers as can be, each with whom it has to beat."""

import json
import shutil

import pytest

from helpers import course, records, settings
from helpers.evaluate import __main__ as command
from helpers.evaluate.lineup import ARMS, check_arms, line_up
from helpers.serve import on_line
from helpers.train import continual


def finished(
    stage: str, folders: list[str], metrics: dict | None = None, notes: dict | None = None, **given
) -> records.Artifacts:
    cfg = settings.resolve(stage, {"profile": "smoke"} | given)
    done = records.start(cfg)
    done.notes |= notes or {}
    for name in folders:
        (cfg.folder / name).mkdir(parents=True)
        (cfg.folder / name / "adapter_config.json").write_text(f'"{stage} {name}"')
    done.finish(metrics or {}, folders)
    return records.load(cfg.run, stage)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    experts = {"casual": "experts/casual", "emotional": "experts/emotional"}
    finished("03_lora", ["adapter", *experts.values()], {"experts": experts})
    finished("04_qlora", ["adapter"])
    finished("05_dpo", ["adapter"])
    finished("06_merge_quantize", ["merged", "gptq"], {"quantized": {"gptq": "gptq"}}, adapter="05_dpo")
    return tmp_path / "smoke"


@pytest.fixture
def stage(run):
    return records.start(settings.resolve("08_evaluate", {"profile": "smoke"}))


def test_adapters_share_the_server_of_the_base_and_exports_have_their_own(run, stage, tiny):
    found = line_up(list(ARMS), tiny, stage)
    assert [a.name for a in found.arms] == [a for a in ARMS if a not in ("full", "awq", "served")]
    assert set(found.servers) == {"base", "merged", "gptq"}
    folder, adapters = found.servers["base"]
    assert folder == tiny.path and set(adapters) == {"lora", "qlora", "dpo", "casual", "emotional"}
    assert found.servers["merged"] == (run / "06_merge_quantize" / "merged", {})
    assert [a.name for a in found.on("gptq")] == ["gptq"]
    assert [a.name for a in found.on("base")] == ["base_bare", "base_persona", "lora", "qlora", "dpo", "routed"]
    assert [a.prompt for a in found.arms][:2] == ["bare", "persona"] and len({a.weights for a in found.arms}) == 6
    assert found.left_out["awq"].startswith("06_merge_quantize did not make it")
    assert "method=full, in a run of its own" in found.left_out["full"] and "on line" in found.left_out["served"]


def test_each_arm_is_compared_with_the_one_it_has_to_beat(stage, tiny):
    pairs = dict(line_up(list(ARMS), tiny, stage).pairs)
    assert pairs == {
        "lora": "base_persona",
        "qlora": "lora",
        "dpo": "lora",
        "merged": "dpo",
        "gptq": "merged",
        "routed": "lora",
    }
    assert line_up(["dpo", "base_persona"], tiny, stage).pairs == [("dpo", "base_persona")]
    assert line_up(["dpo", "gptq"], tiny, stage).pairs == [("gptq", "dpo")]
    assert line_up(["lora"], tiny, stage).pairs == []


def test_what_training_did_is_seen_beside_the_prompt_alone_whatever_an_arm_builds_on(stage, tiny):
    found = line_up(["base_bare", "base_persona", "lora", "dpo", "gptq"], tiny, stage)
    assert found.tuned == [("lora", "base_persona"), ("dpo", "base_persona"), ("gptq", "base_persona")]
    assert line_up(["base_bare", "lora", "dpo"], tiny, stage).tuned == [("lora", "base_bare"), ("dpo", "lora")]


def test_an_arm_whose_stage_was_not_run_is_left_out_and_the_others_are_recorded(stage, tiny, run):
    (run / "05_dpo" / "run.json").unlink()
    found = line_up(["base_bare", "lora", "dpo"], tiny, stage)
    assert list(stage.inputs) == ["03_lora"] and [arm.name for arm in found.arms] == ["base_bare", "lora"]
    assert found.left_out["dpo"].startswith("Stage 05_dpo of run 'smoke' has not been run: run notebooks/05_dpo.ipynb")
    with pytest.raises(settings.BadValue, match="dpo is left out: Stage 05_dpo"):
        line_up(["dpo"], tiny, stage)


def test_the_routed_arm_asks_the_expert_of_the_scene_or_the_one_adapter(stage, tiny):
    (arm,) = line_up(["routed"], tiny, stage).arms
    assert arm.answering(["もう消えてしまいたい。生きていたくない"], "friend") == "emotional"
    assert {arm.answering(["ねえ、キスして。大好きだよ"], "lover")} <= {"lora", "casual", "emotional"}


def test_all_weights_have_a_server_and_no_adapter(stage, tiny, run):
    shutil.rmtree(run / "03_lora")
    finished("03_lora", ["model"], {"experts": {}}, method="full")
    found = line_up(["base_persona", "lora", "full", "routed"], tiny, stage)
    assert found.servers["full"] == (run / "03_lora" / "model", {})
    assert found.pairs == [("full", "base_persona")] and set(found.left_out) == {"lora", "routed"}


def test_the_default_line_up_of_a_run_that_trained_all_weights_plays_who_is_there(stage, tiny, run):
    for made in ("03_lora", "04_qlora", "05_dpo", "06_merge_quantize"):
        shutil.rmtree(run / made)
    finished("03_lora", ["model"], {"experts": {}}, method="full")
    default = settings.parameters_of("08_evaluate")["arms"][settings.PROFILES.index("gpu")]
    found = line_up(default, tiny, stage)
    assert [arm.name for arm in found.arms] == ["base_bare", "base_persona", "full"]
    assert set(found.left_out) == set(default) - {"base_bare", "base_persona", "full"}


def test_full_of_another_run_stands_beside_lora_and_has_to_beat_it(stage, tiny):
    finished("03_lora", ["model"], {"experts": {}}, method="full", run_name="whole")
    stage.settings.full_run = "whole"
    found = line_up(list(ARMS), tiny, stage)
    model = settings.OUTPUTS / "whole" / "03_lora" / "model"
    assert found.servers["full"] == (model, {}) and ("full", "lora") in found.pairs
    noted = str(model.parent / "run.json")
    assert stage.inputs[noted] == records.data_sha256(model.parent / "run.json"), "08 is played again if it changes"


def test_full_run_must_be_there_and_have_trained_all_weights_of_the_same_base(stage, tiny):
    stage.settings.full_run = "whole"
    assert "03_lora of run 'whole' has not been run" in line_up(list(ARMS), tiny, stage).left_out["full"]
    finished("03_lora", ["adapter"], run_name="whole")
    assert line_up(list(ARMS), tiny, stage).left_out["full"].startswith("03_lora of run 'whole' trained an adapter")
    finished("03_lora", ["model"], notes={"base_sha256": "of another"}, method="full", run_name="whole2")
    stage.settings.full_run = "whole2"
    with pytest.raises(
        records.Mismatch, match="full_run: 03_lora of run 'whole2' was made with another base model than"
    ):
        line_up(list(ARMS), tiny, stage)
    finished("03_lora", ["model"], method="full", run_name="his", persona="seiji")
    stage.settings.full_run = "his"
    with pytest.raises(records.Mismatch, match="full_run: 03_lora of run 'his' was made with another persona than"):
        line_up(list(ARMS), tiny, stage)


def test_served_is_what_she_learned_on_line(stage, tiny, run):
    on_line.begin(run, run / "05_dpo" / "adapter")
    found = line_up(["dpo", "served"], tiny, stage)
    assert found.pairs == [("served", "dpo")]
    assert found.servers["base"][1]["served"].is_relative_to(run / "online")


def test_what_was_learned_on_top_of_another_adapter_is_left_out_with_the_reason(stage, tiny, run, tmp_path):
    on_line.begin(run, run / "05_dpo" / "adapter")
    continual.promote(run / "04_qlora" / "adapter", run / on_line.ONLINE, lambda *_: continual.Verdict(True))
    (run / "05_dpo" / "adapter" / "adapter_config.json").write_text("trained again")
    record = run / "05_dpo" / "run.json"
    digest = records.artifact_sha256(run / "05_dpo" / "adapter")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"artifacts": {"adapter": digest}}))
    found = line_up(["base_persona", "served"], tiny, stage)
    assert [arm.name for arm in found.arms] == ["base_persona"]
    assert "began from another starting adapter than it has now: to begin anew" in found.left_out["served"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["lora", "loRA"], "There is no arm 'loRA': arms takes words out of base_bare"),
        ([], "names nobody"),
        (["awq"], "Nobody can be played: awq is left out: 06_merge_quantize did not make it"),
    ],
)
def test_arms_that_cannot_be_are_one_sentence(stage, tiny, names, words):
    with pytest.raises(settings.BadValue, match=words):
        line_up(names, tiny, stage)


def test_the_command_starts_from_what_the_run_was_made_with(tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    monkeypatch.setattr(course, "main", lambda words: heard.append(words) or 0)
    his = {"run_name": "his", "persona": "seiji", "base_model": "/models/seven"}
    for stage in ("01_data", "02_augment", "03_lora"):
        finished(stage, [], **his)
    assert command.main(["--run-name", "his", "-p", "canaries=1"]) == 0
    words = "run --only 08 --profile smoke --run-name his -p persona=seiji -p base_model=/models/seven"
    assert heard.pop() == [*words.split(), "-p", "canaries=1"]
    assert command.main(["--run-name", "his", "--profile", "cpu", "-p", "persona=sakura"]) == 0
    assert heard.pop() == [*words.replace("smoke", "cpu").split(), "-p", "persona=sakura"], "the last word counts"
    finished("01_data", [], run_name="sakura", persona="seiji")
    assert command.main(["--profile", "cpu"]) == 0
    words = "run --only 08 --profile cpu --run-name sakura -p persona=seiji -p base_model=tiny"
    assert heard.pop() == words.split(), "of the profile's own run too"


def test_the_command_hands_its_words_to_the_course(monkeypatch, capsys, tmp_path):
    heard = []
    monkeypatch.setattr(settings, "OUTPUTS", tmp_path)
    monkeypatch.setattr(course, "main", lambda words: heard.append(words) or 0)
    given = ["--arms", "lora,merged", "--judge", "own", "--run-name", "trial", "-p", "samples=2"]
    assert command.main(given) == 0
    run = "run --only 08 --profile auto --run-name trial -p arms=lora,merged -p judge_endpoint=own -p samples=2"
    assert heard == [run.split()]
    assert command.main(["--profile", "huge"]) == 2 and "There is no profile 'huge'" in capsys.readouterr().err
    assert command.main(["--arms", "lora,"]) == 2 and "There is no arm ''" in capsys.readouterr().err
    check_arms(list(ARMS))
