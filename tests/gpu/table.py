"""README's table of what training a 7B on a GPU takes. `python tests/gpu/table.py` prints it from the newest record.

In: a record of `check.py`, or none. Out: Markdown.
"""

import json
from pathlib import Path

RECORDS = Path(__file__).parent / "records"
NAMES = {"lora": "LoRA", "qlora": "QLoRA", "full": "full fine-tuning", "dpo": "DPO"}
COLUMNS = (
    "method",
    "micro-batch",
    "tokens/s",
    "share of the matrix rate",
    "with recomputation",
    "peak memory",
    "budget",
    "gradient norm",
)


def newest(folder: Path = RECORDS) -> dict | None:
    """The record that was measured last, or None."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return max(records, key=lambda record: record["measured"], default=None)


def table(record: dict | None) -> str:
    """A row for each case, and where the figures come from; "not measured" where there is none."""
    if record is None:
        rows = [
            [NAMES[method], str(batch)] + ["not measured"] * (len(COLUMNS) - 2) for method in NAMES for batch in (1, 4)
        ]
        source = "Not measured: no GPU was at hand. `make gpu-check` on a machine with one fills this table."
    else:
        rows, source = [_row(case) for case in record["cases"]], _source(record)
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + f"\n\n{source}"


def _row(case: dict) -> list[str]:
    first = [NAMES[case["method"]], str(case["micro_batch"])]
    predicted = f"{case['predicted_gib']:.1f} GiB" if "predicted_gib" in case else "–"
    if case["status"] != "measured":
        return [*first, case["status"], "–", "–", "–", predicted, "–"]
    peak = f"{case['peak_gib'] + case['paged_gib']:.1f} GiB" if "ratio" in case else "not measured"
    return [
        *first,
        f"{case['tokens_a_second']:,.0f}",
        f"{case['share']:.0%}",
        f"{case['share_with_recomputation']:.0%}",
        peak,
        predicted,
        f"{case['gradient_norms'][-1]:.2g}",
    ]


def _source(record: dict) -> str:
    device, matrix = record["device"], record["matrix"]
    day, commit = record["measured"][:10], record["commit"][:10]
    versions = ", ".join(f"{package} {number}" for package, number in record["versions"].items())
    more = f", {device['memory_gib']:.0f} GiB, driver {device['driver']}" if "driver" in device else ""
    return (
        f"{'A rehearsal with a tiny shape, no measurement: ' if record['rehearsal'] else ''}{device['name']}{more}; "
        f"{matrix['tflops']:.3g} TFLOP/s measured on {matrix['rows']}² matrices in {matrix['dtype']}; {day}, commit "
        f"{commit}; {versions}."
    )


if __name__ == "__main__":
    print(table(newest()))
