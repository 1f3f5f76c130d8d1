"""Three steps of training in PyTorch, in float64, with the random numbers of the engine: what tools/golden.py writes as
tests/golden/NAME.training.safetensors, and tests/golden_training.rs reads.

The network is that of tests/golden/NAME.safetensors. The file has, with channels last: data (the samples), and after each
step k: k.loss, k.norm (of the gradient, before clipping), k.lr; the gradients of the first step, 0.grad.PARAMETER; and at the
end weights.PARAMETER, average.PARAMETER, m.PARAMETER and v.PARAMETER. The settings are SETTINGS below, which the file's
metadata repeats.
"""

import json
import types
from pathlib import Path

import numpy
import torch
import unet_torch
from safetensors import safe_open
from safetensors.torch import save_file
from unet_torch import MLP, Denoiser, ResBlock, UNet

SEED, LAP, STEPS, SAMPLES = 5, 2, 3, 7
SETTINGS = dict(
    batch=3, micro_batch=2, lr=1e-2, lr_end=1e-4, schedule="linear", warmup=1, weight_decay=0.05, clip=0.5, ema=0.2, dropout=0.25
)
DROPOUT, TIME, NOISE, ORDER = 8, 9, 10, 12


def philox(counter: list[numpy.ndarray], seed: int) -> list[numpy.ndarray]:
    """Philox4x32-10 (Salmon et al., 2011) of broadcast counter words: four arrays of random words."""
    x = [numpy.asarray(word, numpy.uint64) for word in counter]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    low = numpy.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = x[0] * numpy.uint64(0xD2511F53), x[2] * numpy.uint64(0xCD9E8D57)
        high0, high1 = p0 >> numpy.uint64(32), p1 >> numpy.uint64(32)
        x = [high1 ^ x[1] ^ numpy.uint64(k0), p1 & low, high0 ^ x[3] ^ numpy.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return x


def words(purpose: int, epoch: int, sample: int, count: int, layer: int = 0) -> numpy.ndarray:
    """`count` random words of a sample."""
    blocks = numpy.arange((count + 3) // 4, dtype=numpy.uint64)
    four = philox([blocks, sample, layer << 16, purpose | LAP << 8 | epoch << 20], SEED)
    return numpy.stack(numpy.broadcast_arrays(*four), -1).reshape(-1)[:count].astype(numpy.float64)


def normal(epoch: int, sample: int, count: int) -> numpy.ndarray:
    w = words(NOISE, epoch, sample, (count + 3) // 4 * 4).reshape(-1, 2, 2)
    r, angle = numpy.sqrt(-2 * numpy.log((w[..., 0] + 1) / 2**32)), 2 * numpy.pi * w[..., 1] / 2**32
    return numpy.stack((r * numpy.cos(angle), r * numpy.sin(angle)), -1).reshape(-1)[:count]


def channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1) if x.ndim == 4 else x


class Masked:
    """F.dropout with the engine's masks; a block's `dropout` is its number among all blocks."""

    def __init__(self, rate: float):
        self.rate, self.epoch, self.samples = rate, 0, []

    def __call__(self, y: torch.Tensor, layer: int, training: bool) -> torch.Tensor:
        n, c, h, w = y.shape
        kept = [words(DROPOUT, self.epoch, s, c * h * w, layer) >= int(self.rate * 2**32) for s in self.samples]
        mask = torch.from_numpy(numpy.stack(kept).reshape(n, h, w, c)).movedim(-1, 1)
        return y * mask / (1 - self.rate)


def number_blocks(net: UNet) -> None:
    number = 0
    for level in [*net.down, *net.up]:
        for i, block in enumerate(level.res):
            block.dropout = number
            number += 2 if level.attn else 1
    assert all(isinstance(block.dropout, int) for block in net.modules() if isinstance(block, ResBlock))


def write(folder: Path, name: str, size: tuple[int, ...]) -> None:
    """`size` is that of a sample, channels last."""
    with safe_open(folder / f"{name}.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["diem"])
        state = {key.removeprefix("net."): file.get_tensor(key).double() for key in file.keys()}
    arguments = {key: value for key, value in metadata.items() if key not in ("kind", "sigma_min", "sigma_max")}
    net = (UNet if metadata["kind"] == "unet" else MLP)(**arguments).double().train()
    net.load_state_dict(state)
    dropout = Masked(SETTINGS["dropout"])
    if metadata["kind"] == "unet":
        number_blocks(net)
    unet_torch.F = types.SimpleNamespace(**{**vars(torch.nn.functional), "dropout": dropout})

    denoiser, params = Denoiser(net, metadata["emb"]), dict(net.named_parameters())
    average = {key: p.detach().clone() for key, p in params.items()}
    decay = torch.optim.lr_scheduler
    optimizer = torch.optim.AdamW(params.values(), lr=SETTINGS["lr"], weight_decay=SETTINGS["weight_decay"])
    end, warmup = SETTINGS["lr_end"] / SETTINGS["lr"], SETTINGS["warmup"]
    schedule = decay.ChainedScheduler(
        [decay.LinearLR(optimizer, 1.0, end, STEPS), decay.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup)]
    )
    data = torch.randn(SAMPLES, *size, generator=torch.Generator().manual_seed(11)).double()
    arrays = dict(data=data)
    per_epoch = SAMPLES // SETTINGS["batch"]
    for step in range(STEPS):
        epoch, first = step // per_epoch, step % per_epoch * SETTINGS["batch"]
        keys = words(ORDER, epoch, 0, SAMPLES)
        dropout.epoch, dropout.samples = epoch, sorted(range(SAMPLES), key=lambda i: (keys[i], i))[first : first + SETTINGS["batch"]]
        t = torch.tensor([numpy.median(words(TIME, epoch, s, 5)) / 2**32 for s in dropout.samples], dtype=torch.float64)
        sigma = metadata["sigma_min"] ** (1 - t) * metadata["sigma_max"] ** t
        x = data[dropout.samples]
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        z = torch.from_numpy(numpy.stack([normal(epoch, i, x[0].numel()) for i in dropout.samples])).reshape(x.shape)
        x, x_t = channels_first(x), channels_first(x + s * z)
        loss = ((1 / s**2 + 1) * (denoiser(x_t, sigma) - x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            arrays |= {f"0.grad.{key}": p.grad.clone() for key, p in params.items()}
        norm = torch.nn.utils.clip_grad_norm_(params.values(), SETTINGS["clip"])
        arrays |= {f"{step}.loss": loss.detach(), f"{step}.norm": norm, f"{step}.lr": torch.tensor(schedule.get_last_lr()[0], dtype=torch.float64)}
        optimizer.step()
        schedule.step()
        rate = 1 - min(SETTINGS["ema"], (2 + step) / (11 + step))
        for key, p in params.items():
            average[key] += rate * (p.detach() - average[key])
    for key, p in params.items():
        state = optimizer.state[p]
        arrays |= {f"weights.{key}": p.detach(), f"average.{key}": average[key], f"m.{key}": state["exp_avg"], f"v.{key}": state["exp_avg_sq"]}
    arrays = {key: value.contiguous().clone() for key, value in arrays.items()}
    save_file(arrays, folder / f"{name}.training.safetensors", metadata={"settings": json.dumps(SETTINGS)})
    unet_torch.F = torch.nn.functional
