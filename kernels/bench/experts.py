#!/usr/bin/env python3
"""The two grouped products of a layer of experts in torch: what `gpu-bench` compares ours with.

    experts.py run --mode bf16|fp8 --device cuda --shape JSON
    experts.py check --mode bf16|fp8 [--device cpu]

run    picks the fastest of torch's ways that is right on a small case, says {"ready": ..., "means": its name}, then answers each line {"batches": n}
       with {"milliseconds": [...]}, one number a batch, by events of the device.
check  computes the small case in every way there is and tells how far each is from double precision; exit status 1 when one that runs is too far.

The shape has `hidden`, `inner` and `counts`, rows by expert. Rows lie sorted by expert; the first product makes gate and up of them, the second one goes
back to the hidden width, from rows that are there. Without the gate between them, as ours. In FP8 the scales are a row's and a column's, which is what
torch multiplies experts by: ours are of 128 neighbours, and more work. To torch's advantage too: nothing is taken from before the sort, and how many
rows an expert has the host knows.
"""

import argparse
import json
import math
import sys

from replica import Clock, torch

# Furthest from double precision, of what it comes to: two roundings to bf16 and what sums lose.
ALLOWED = 0.01
SMALL = {"hidden": 256, "inner": 128, "counts": [17, 0, 128, 1, 130, 44]}
LARGEST = 448.0
PIECE = 32768


class Bf16:
    """Numbers in bf16."""

    def __init__(self, numbers):
        self.codes = numbers.to(torch.bfloat16)

    def wide(self):
        return self.codes.double()


class Fp8:
    """E4M3 codes with a scale a row, the last dimension's."""

    def __init__(self, numbers):
        self.scales = numbers.abs().amax(dim=-1).clamp(min=1e-10).float() / LARGEST
        # Piece by piece: in single precision all of them take more memory than is left.
        self.codes = torch.cat([self.coded(*piece) for piece in zip(numbers.split(PIECE), self.scales.split(PIECE))])

    @staticmethod
    def coded(numbers, scales):
        return (numbers.float() / scales.unsqueeze(-1)).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)

    def wide(self):
        return self.codes.float().double() * self.scales.double().unsqueeze(-1)


class Products:
    """Operands of both products: rows [pair][in], weights [expert][out][in]."""

    def __init__(self, shape, mode, device):
        self.counts = shape["counts"]
        self.ends = torch.tensor(self.counts, device=device).cumsum(0).to(torch.int32)
        number = Bf16 if mode == "bf16" else Fp8
        generator = torch.Generator(device=device).manual_seed(1)

        def drawn(*of):
            numbers = torch.randn(of, generator=generator, device=device, dtype=torch.bfloat16)
            return numbers / math.sqrt(of[-1]) if len(of) == 3 else numbers

        def weights(out, inner):
            """Expert by expert, as their scales are a column's of each."""
            made = [number(drawn(1, out, inner)) for _ in self.counts]
            for name in vars(made[0]):
                setattr(made[0], name, torch.cat([getattr(of, name) for of in made]))
            return made[0]

        pairs, hidden, inner = sum(self.counts), shape["hidden"], shape["inner"]
        self.pairs = [
            (number(drawn(pairs, hidden)), weights(2 * inner, hidden)),
            (number(drawn(pairs, inner)), weights(hidden, inner)),
        ]
        if mode == "fp8":
            # Each expert's in memory of its own, aligned as kernels like it.
            for rows, _ in self.pairs:
                rows.by_expert = [rows.scales[span].clone().unsqueeze(-1) for _, span in self.spans()]
        if device.startswith("cuda"):
            torch.cuda.empty_cache()

    def spans(self):
        """Experts that have rows, and where these lie."""
        begin = 0
        for expert, count in enumerate(self.counts):
            if count:
                yield expert, slice(begin, begin + count)
            begin += count


# --- torch's ways, each of one product


def grouped_bf16(products, rows, weights):
    return torch._grouped_mm(rows.codes, weights.codes.transpose(-2, -1), offs=products.ends)


def looped_bf16(products, rows, weights):
    out = torch.empty(rows.codes.shape[0], weights.codes.shape[1], dtype=torch.bfloat16, device=rows.codes.device)
    for expert, span in products.spans():
        torch.mm(rows.codes[span], weights.codes[expert].t(), out=out[span])
    return out


def grouped_fp8(products, rows, weights):
    return torch._scaled_grouped_mm(
        rows.codes,
        weights.codes.transpose(-2, -1),
        rows.scales,
        weights.scales,
        offs=products.ends,
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )


def looped_fp8(products, rows, weights):
    out = torch.empty(rows.codes.shape[0], weights.codes.shape[1], dtype=torch.bfloat16, device=rows.codes.device)
    for (expert, span), scales in zip(products.spans(), rows.by_expert):
        torch._scaled_mm(
            rows.codes[span],
            weights.codes[expert].t(),
            scale_a=scales,
            scale_b=weights.scales[expert].unsqueeze(0),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
            out=out[span],
        )
    return out


WAYS = {
    "bf16": {"torch._grouped_mm": grouped_bf16, "torch.mm by expert": looped_bf16},
    "fp8": {"torch._scaled_grouped_mm": grouped_fp8, "torch._scaled_mm by expert": looped_fp8},
}


def run_once(way, products):
    return [way(products, rows, weights) for rows, weights in products.pairs]


def first_line(error):
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def distance(way, products):
    """Of all products from double precision, relative."""
    apart, whole = 0.0, 0.0
    for found, (rows, weights) in zip(run_once(way, products), products.pairs):
        wide_rows, wide_weights = rows.wide(), weights.wide()
        for expert, span in products.spans():
            expected = wide_rows[span] @ wide_weights[expert].t()
            apart += (found[span].double() - expected).square().sum().item()
            whole += expected.square().sum().item()
    return math.sqrt(apart / whole) if math.isfinite(apart) else math.inf


def compare(mode, device):
    """Every way on the small case: how far it is, or why it does not run."""
    small, furthest, missing = Products(SMALL, mode, device), {}, {}
    for name, way in WAYS[mode].items():
        try:
            furthest[name] = distance(way, small)
        except (RuntimeError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
            missing[name] = first_line(error)
    right = all(apart <= ALLOWED for apart in furthest.values())
    return {"mode": mode, "furthest": furthest, "missing": missing, "allowed": ALLOWED, "right": right}


def check(arguments):
    said = compare(arguments.mode, arguments.device)
    print(json.dumps(said))
    sys.exit(0 if said["right"] else 1)


def timed(way, products, device):
    clock = Clock(device)
    run_once(way, products)
    return clock.passed()


def serve(arguments):
    mode, device = arguments.mode, arguments.device
    with torch.inference_mode():
        said = compare(mode, device)
        usable = [name for name, apart in said["furthest"].items() if apart <= ALLOWED]
        if not usable:
            wrong = {name: f"{apart} from double precision" for name, apart in said["furthest"].items()}
            why = "; ".join(f"{name}: {what}" for name, what in (said["missing"] | wrong).items())
            print(json.dumps({"reason": f"torch {torch.__version__} has no products by expert in {mode}: {why}"}), flush=True)
            sys.exit(3)
        products = Products(json.loads(arguments.shape), mode, device)
        # The last run of each: the first one loads and chooses.
        fastest = min(usable, key=lambda name: [timed(WAYS[mode][name], products, device) for _ in range(3)][-1])
        name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
        print(json.dumps({"ready": True, "torch": torch.__version__, "device": name, "means": fastest}), flush=True)
        for line in sys.stdin:
            milliseconds = [timed(WAYS[mode][fastest], products, device) for _ in range(json.loads(line)["batches"])]
            print(json.dumps({"milliseconds": milliseconds}), flush=True)


def main():
    parser = argparse.ArgumentParser(description="Grouped products of a layer of experts in torch")
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run")
    run.set_defaults(command=serve)
    run.add_argument("--shape", required=True)
    checked = commands.add_parser("check")
    checked.set_defaults(command=check)
    for parser_of, device in ((run, "cuda"), (checked, "cpu")):
        parser_of.add_argument("--mode", choices=tuple(WAYS), default="bf16")
        parser_of.add_argument("--device", default=device)
    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except (RuntimeError, AssertionError, OSError) as error:
        print(json.dumps({"reason": f"torch: {first_line(error)}"}), flush=True)
        sys.exit(3)


if __name__ == "__main__":
    main()
