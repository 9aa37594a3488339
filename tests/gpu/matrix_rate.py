"""How fast the device multiplies matrices, against which training is measured.

`python matrix_rate.py ROWS` prints JSON: the rate of products of two square matrices, in the dtype of the training.
"""

import json
import statistics
import sys
import time

import torch

from helpers.settings import detect_hardware

PRODUCTS, ROUNDS = 50, 3


def matrix_rate(rows: int) -> dict[str, object]:
    """10¹² operations a second: the median of `ROUNDS` rounds, after one that is not counted."""
    hardware = detect_hardware()
    a, b = torch.randn(2, rows, rows, device=hardware.device, dtype=hardware.dtype)
    rates = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        for _ in range(PRODUCTS):
            a @ b
        if hardware.device == "cuda":
            torch.cuda.synchronize()
        rates.append(2 * rows**3 * PRODUCTS / (time.perf_counter() - began) / 1e12)
    dtype = str(hardware.dtype).removeprefix("torch.")
    return {"rows": rows, "dtype": dtype, "tflops": statistics.median(rates[1:])}


if __name__ == "__main__":
    print(json.dumps(matrix_rate(int(sys.argv[1]))))
