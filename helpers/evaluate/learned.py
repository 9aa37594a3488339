"""What the arms learned from, to compare the scenarios with.

In: 08's settings, the records of the run and of its `full_run`. Out: dialogues by source. 03's general and user
dialogues are not among them, for no arm plays an adapter of those stages; nor is what was learned on line, of which a
run keeps hashes alone: `helpers.online.intake` leaves out talks that share words with a scenario.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from helpers import records, settings
from helpers.conversations import Conversation, Message, read_conversations
from helpers.data.augmentation import read_counterfactuals
from helpers.persona import load_persona
from helpers.settings import Settings
from helpers.train import preferences


def learned_from(cfg: Settings) -> dict[str, list[Conversation]]:
    """Source → its dialogues: what 02 hands to 03 and 04, the contexts and better replies of 05's pairs if 05 was run,
    and what 02 hands to 03 in `full_run`.

    Raises:
        FileNotFoundError: 02 was not run (MissingStage), or the data of 05 is no longer where it was.
        Mismatch: see `records.load`.
    """
    found = {"02_augment": _dialogues(cfg.run)}
    dpo = next(record for record in records.status(cfg.run) if record["stage"] == "05_dpo")
    if dpo["status"] == "complete":
        found["05_dpo"] = _pairs(settings.resolve("05_dpo", dpo["settings"]))
    if cfg.full_run:
        found[f"02_augment of {cfg.full_run}"] = _dialogues(settings.OUTPUTS / str(cfg.full_run))
    return found


def _dialogues(run: Path) -> list[Conversation]:
    return read_conversations(records.load(run, "02_augment") / "train.jsonl").conversations


def _pairs(dpo: Settings) -> list[Conversation]:
    card = load_persona(dpo.persona)
    with TemporaryDirectory() as folder:
        pairs, _ = preferences.read_preferences(dpo.path("preferences"), card, Path(folder, "quarantine.jsonl"))
    shorter = preferences.length_pairs(read_counterfactuals(dpo.path("counterfactuals"), card).sets)
    return [
        Conversation(id=pair.id, messages=[*pair.messages, Message(role="assistant", content=pair.chosen)])
        for pair in (*pairs[: dpo.max_pairs], *shorter[: dpo.length_pairs])
    ]
