"""Who is compared: the arms of a run that were asked for, the servers that they need, and which pairs are compared.

In: names out of `ARMS`, the finished stages of the run, and of another for `full`, which comes from the same stage as
`lora`. Out: a `Lineup`. An arm that has no weights, or whose stage was not run, is left out, with the reason.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import records, settings
from helpers.evaluate.arms import Arm
from helpers.files import sha256_json
from helpers.persona import Level
from helpers.records import Artifacts, Mismatch, MissingStage, Stage, artifact_sha256
from helpers.serve.on_line import learned_on_line
from helpers.settings import BadValue

if TYPE_CHECKING:  # the command line wants the names of the arms alone, and should not load transformers for them
    from helpers.base_model import BaseModel

ARMS = {
    "base_bare": "the base model, which gets the user's turns alone",
    "base_persona": "the base model with the full persona prompt, which costs no training",
    "lora": "03's adapter",
    "qlora": "04's adapter, on the base in 16 bits",
    "full": "the model of 03, here or in `full_run`, of which all weights were trained",
    "dpo": "05's adapter",
    "merged": "06's merged model",
    "gptq": "06's merged model in 4 bits, by GPTQ",
    "awq": "06's merged model in 4 bits, by AWQ",
    "routed": "03's experts: at each turn the one that 07's router picks",
    "served": "the adapter that is current since she learns on line",
}
COLUMNS = ["arm", "what it is", "prompt", "weights"]
BASE = "base"
_ADAPTERS = {"lora": "03_lora", "qlora": "04_qlora", "dpo": "05_dpo"}
_FULL, _EXPORT = "03_lora", "06_merge_quantize"
_ROUTED_FROM = "lora"


@dataclass
class Lineup:
    """`servers`: a server's name → the folder of its model, and its adapters by name. `origin`: the arm whose adapter
    06 merged, where that matters. `left_out`: arm → why."""

    arms: list[Arm] = field(default_factory=list)
    servers: dict[str, tuple[Path, dict[str, Path]]] = field(default_factory=dict)
    origin: str | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def adapters(self) -> dict[str, Path]:
        """The adapters that the base's server holds, by name."""
        return self.servers[BASE][1] if BASE in self.servers else {}

    def on(self, server: str) -> list[Arm]:
        """The arms that `server` answers for."""
        return [arm for arm in self.arms if arm.model in {server, *self.servers[server][1]}]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """(arm, whom it has to beat), of the arms that are there: training against the prompt alone, what builds on an
        adapter or costs more than one against it, an export against what was merged."""
        exported = ["merged", self.origin]
        against = {
            "lora": ["base_persona", "base_bare"],
            "qlora": ["lora", "base_persona"],
            "full": ["lora", "base_persona", "base_bare"],
            "dpo": ["lora", "base_persona"],
            "merged": [self.origin],
            "gptq": exported,
            "awq": exported,
            "routed": [_ROUTED_FROM],
            "served": [self.origin, "base_persona"],
        }
        here = [arm.name for arm in self.arms]
        found = [(arm, next((base for base in against.get(arm, ()) if base in here), None)) for arm in here]
        return [(arm, base) for arm, base in found if base]

    @property
    def tuned(self) -> list[tuple[str, str]]:
        """(arm, base_persona) of each arm with other weights than the base: what training did, on whatever it builds.
        `pairs` where base_persona is not played."""
        here = [arm.name for arm in self.arms]
        if "base_persona" not in here:
            return self.pairs
        return [(arm, "base_persona") for arm in here if not arm.startswith("base_")]

    def table(self) -> list[list[str]]:
        """One row an arm, as `COLUMNS` names them."""
        return [[a.name, ARMS[a.name], a.prompt, a.weights[:12]] for a in self.arms]


def line_up(names: Sequence[str], base: "BaseModel", stage: Stage) -> Lineup:
    """The arms of `names`, in the order of `ARMS`; what they build on becomes part of the record of `stage`.

    Raises:
        BadValue: there is no such arm, none was named, or the run has weights for none.
        Mismatch: see `Stage.reads`; the same holds for `full_run`.
    """
    check_arms(names)
    found, read = Lineup(), {}

    def artifacts(name: str) -> Artifacts:
        read[name] = read.get(name) or stage.reads(name)
        return read[name]

    for name in (arm for arm in ARMS if arm in names):
        try:
            _add(found, name, base, artifacts, stage)
        except (_NotThere, MissingStage) as why:
            found.left_out[name] = str(why)
    if not found.arms:
        raise BadValue(
            f"Nobody can be played: {'; '.join(f'{a} is left out: {why}' for a, why in found.left_out.items())}"
        )
    return found


def check_arms(names: Sequence[str]) -> None:
    """Raises BadValue if no arm is named, or one that there is not."""
    known = ", ".join(ARMS)
    if not names:
        raise BadValue(f"arms names nobody: it takes words out of {known}, with commas between.")
    if unknown := [name for name in names if name not in ARMS]:
        raise BadValue(f"There is no arm {unknown[0]!r}: arms takes words out of {known}, with commas between.")


class _NotThere(Exception):
    """The run has no such weights."""


def _add(found: Lineup, name: str, base: "BaseModel", artifacts: Callable[[str], Artifacts], stage: Stage) -> None:
    if name in ("base_bare", "base_persona"):
        _adapters(found, base)
        found.arms.append(Arm(name, BASE, name.removeprefix("base_"), base.sha256))
    elif name in _ADAPTERS:
        made = artifacts(_ADAPTERS[name])
        if "adapter" not in made.record["artifacts"]:
            raise _NotThere(f"{_ADAPTERS[name]} trained all weights and left no adapter.")
        _adapter_arm(found, name, base, made.adapter, made.sha256)
    elif name == "full":
        _full(found, _of_full_run(stage) if stage.settings.full_run else artifacts(_FULL))
    elif name in ("merged", "gptq", "awq"):
        made = artifacts(_EXPORT)
        folders = {"merged": "merged"} | made.record["metrics"]["quantized"]
        if name not in folders:
            raise _NotThere(f"{_EXPORT} did not make it; its parameter is schemes.")
        found.origin = _merged_from(made)
        _own_server(found, name, made / folders[name], made.sha256)
    elif name == "routed":
        _routed(found, base, artifacts(_FULL))
    else:
        try:
            adapter = learned_on_line(stage.settings.run)
        except Mismatch as error:
            raise _NotThere(str(error)) from error
        if adapter is None:
            raise _NotThere("she has not learned on line yet; `python -m helpers.online learn` begins.")
        found.origin = _merged_from(artifacts(_EXPORT))
        _adapter_arm(found, name, base, adapter, artifact_sha256(adapter))


def _full(found: Lineup, made: Artifacts) -> None:
    if "model" not in made.record["artifacts"]:
        raise _NotThere(
            f"{_FULL} of run {made.folder.parent.name!r} trained an adapter: method=full, in a run of its own that "
            "full_run names, trains all weights."
        )
    _own_server(found, "full", made / "model", made.sha256)


def _of_full_run(stage: Stage) -> Artifacts:
    """03 of the run that `full_run` names; its record becomes an input of `stage`."""
    made = records.load(settings.OUTPUTS / str(stage.settings.full_run), _FULL)
    differs = [what for note, what in records.SHARED.items() if made.record.get(note) != stage.notes.get(note)]
    if differs:
        raise Mismatch(
            f"full_run: {_FULL} of run {stage.settings.full_run!r} was made with another "
            f"{' and another '.join(differs)} than run {stage.settings.run.name!r}: train it from the same, or name "
            "another run."
        )
    stage.reads_data(made / "run.json")
    return made


def _merged_from(export: Artifacts) -> str:
    stage = export.record["settings"]["adapter"]
    return next(arm for arm, trained in _ADAPTERS.items() if trained == stage)


def _routed(found: Lineup, base: "BaseModel", lora: Artifacts) -> None:
    experts = {scene: lora / folder for scene, folder in lora.record["metrics"].get("experts", {}).items()}
    if not experts:
        raise _NotThere("03_lora trained no experts; its parameter is expert_rows.")
    from helpers.safety.crisis import recognise
    from helpers.serve.router import Router

    router = Router(recognise)

    def by_scene(turns: Sequence[str], level: Level) -> str:
        scene = router.pick(turns, level).scene
        return scene if scene in experts else _ROUTED_FROM

    _adapters(found, base).update({_ROUTED_FROM: lora.adapter, **experts})
    weights = sha256_json([lora.sha256, router.sha256])
    found.arms.append(Arm("routed", _ROUTED_FROM, "persona", weights, by_scene))


def _adapters(found: Lineup, base: "BaseModel") -> dict[str, Path]:
    """The adapters beside the base: they are small, one server holds them all."""
    return found.servers.setdefault(BASE, (base.path, {}))[1]


def _adapter_arm(found: Lineup, name: str, base: "BaseModel", adapter: Path, sha256: str) -> None:
    _adapters(found, base)[name] = adapter
    found.arms.append(Arm(name, name, "persona", sha256))


def _own_server(found: Lineup, name: str, folder: Path, sha256: str) -> None:
    found.servers[name] = (folder, {})
    found.arms.append(Arm(name, name, "persona", sha256))
