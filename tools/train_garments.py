"""Trains the classifier whose features `diem eval` compares images in, and writes assets/garments.safetensors.

    tools/fetch_fashion.sh && pip install torch numpy safetensors && python tools/train_garments.py

On the 60,000 clean training images of Fashion-MNIST as this project sees them: padded to 32 x 32, value gray 4/256 - 2. Prints
the accuracy on the 10,000 test images. Also writes tests/golden/garments.expected.safetensors, the features of the first test images
in float64 (assets/fashion-test.npy has them), which tests/features.rs reads. src/metrics/features.rs has the same network.
"""

import gzip
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cross_entropy, silu

ROOT = Path(__file__).resolve().parent.parent
CHANNELS = [1, 16, 32, 64]
FEATURES = 64
EPOCHS, BATCH, RATE, DECAY, SEED = 20, 128, 2e-3, 1e-2, 0
GOLDEN = 8


class Garments(nn.Module):
    """Three 3x3 convolutions of stride 2, a linear layer to the features, and one from silu(features) to the ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(CHANNELS, CHANNELS[1:]))
        self.features = nn.Linear(CHANNELS[-1] * 4 * 4, FEATURES)
        self.classes = nn.Linear(FEATURES, 10)

    def embed(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            x = silu(conv(x))
        return self.features(x.movedim(1, -1).flatten(1))  # (H, W, C), as this project flattens

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(silu(self.embed(x)))


def read(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    load = lambda name, offset: np.frombuffer(gzip.open(folder / name).read(), np.uint8, offset=offset)  # noqa: E731
    images = load(f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    labels = load(f"{part}-labels-idx1-ubyte.gz", 8)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2))).astype(np.float32) * (4 / 256) - 2
    return torch.from_numpy(padded), torch.from_numpy(labels.astype(np.int64))


def augment(x: torch.Tensor) -> torch.Tensor:
    """Mirrored with probability 1/2, shifted by up to two pixels: the padding is black, so that nothing wraps into view."""
    x = torch.where(torch.rand(len(x), 1, 1, 1) < 0.5, x.flip(3), x)
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    return x.roll((dy, dx), (2, 3))


def train(x: torch.Tensor, labels: torch.Tensor) -> Garments:
    net = Garments()
    steps = EPOCHS * (len(x) // BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, steps)
    for epoch in range(EPOCHS):
        losses = []
        for batch in torch.randperm(len(x))[: len(x) // BATCH * BATCH].reshape(-1, BATCH):
            loss = cross_entropy(net(augment(x[batch])), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.4f}", flush=True)
    return net.eval()


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "target" / "fashion-mnist"
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    net = train(*read(folder, "train"))
    x, labels = read(folder, "t10k")
    with torch.no_grad():
        correct = (net(x).argmax(1) == labels).float().mean().item()
    print(f"test accuracy {100 * correct:.2f}%")
    path = ROOT / "assets" / "garments.safetensors"
    save_file({name: p.contiguous() for name, p in net.state_dict().items()}, path, metadata={"accuracy": f"{correct:.4f}"})
    with torch.no_grad():
        golden = net.double().embed(x[:GOLDEN].double()).contiguous()
    save_file({"features": golden}, ROOT / "tests" / "golden" / "garments.expected.safetensors")
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB; features {golden.mean():.3f} ± {golden.std():.3f}")


if __name__ == "__main__":
    main()
