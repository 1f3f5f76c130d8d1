"""Writes tests/golden: small networks with random weights, and what PyTorch computes with them in float64.

    pip install torch numpy safetensors && python tools/golden.py

NAME.safetensors is a checkpoint. NAME.expected.safetensors has, in float64 and with channels last, x, u (a cotangent),
sigma (one per sample), and for the noise levels per sample (`each`) and shared (`shared`, the first of them):
network (the bare network's value at c_in x), denoised, vjp (J^T u of the denoiser), and grad.PARAMETER of <u, denoised>.
The weights are float32, so that both precisions start from the same numbers. tests/golden.rs reads the files.
NAME.training.safetensors has steps of training: see golden_training.py.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools" / "peers"))
import golden_training  # noqa: E402
from unet_torch import MLP, Denoiser, UNet, noise_embedding  # noqa: E402

NETWORKS = {
    # three levels, attention with an odd head size in the middle, channels that fill no vector register
    "unet-levels": dict(kind="unet", in_channels=3, out_channels=3, channels=[6, 10, 4], blocks=[1, 2, 1], heads=[0, 2, 0], emb=8, patch=1),
    # folded pixels, attention at the bottom, one level without blocks
    "unet-patch": dict(kind="unet", in_channels=1, out_channels=1, channels=[5, 9, 6], blocks=[1, 0, 1], heads=[0, 0, 3], emb=6, patch=2),
    "mlp": dict(kind="mlp", features=5, hidden=[7, 6], emb=4),
}
SIZES = {"unet-levels": (3, 12, 8), "unet-patch": (1, 8, 16), "mlp": (5,)}
SIGMA = [0.7, 0.02]


def randomise(net: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights, biases and modulations of the size that training gives them, rounded to float32."""
    for p in net.parameters():
        scale = 0.3 if p.ndim == 1 else p[0].numel() ** -0.5
        p.data = (scale * torch.randn(p.shape, generator=generator)).double()


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return (x.movedim(1, -1) if x.ndim == 4 else x).detach().contiguous()


def expected(denoiser: Denoiser, x: torch.Tensor, u: torch.Tensor, sigma: torch.Tensor) -> dict[str, torch.Tensor]:
    x = x.clone().requires_grad_()
    denoised = denoiser(x, sigma)
    params = dict(denoiser.net.named_parameters())
    dx, *grads = torch.autograd.grad(denoised, [x, *params.values()], u)
    s = sigma.reshape(-1, *[1] * (x.ndim - 1))
    embedding = noise_embedding(sigma.log(), denoiser.emb).expand(len(x), -1)
    network = denoiser.net(x / torch.sqrt(s * s + 1), embedding)
    values = dict(network=channels_last(network), denoised=channels_last(denoised), vjp=channels_last(dx))
    return values | {f"grad.{name}": grad.contiguous() for name, grad in zip(params, grads)}


def main() -> None:
    for seed, (name, config) in enumerate(NETWORKS.items()):
        generator = torch.Generator().manual_seed(seed)
        arguments = {key: value for key, value in config.items() if key != "kind"}
        net = (UNet if config["kind"] == "unet" else MLP)(**arguments).double().eval()
        randomise(net, generator)
        denoiser = Denoiser(net, config["emb"])
        x, u = (torch.randn(2, *SIZES[name], generator=generator).double() for _ in range(2))
        sigma = torch.tensor(SIGMA, dtype=torch.float64)
        arrays = dict(x=channels_last(x), u=channels_last(u), sigma=sigma)
        for case, levels in dict(each=sigma, shared=sigma[:1]).items():
            arrays |= {f"{case}.{key}": value for key, value in expected(denoiser, x, u, levels).items()}
        folder = ROOT / "tests" / "golden"
        folder.mkdir(exist_ok=True)
        state = {f"net.{key}": value.float().contiguous() for key, value in net.state_dict().items()}
        metadata = dict(config, sigma_min=1e-3, sigma_max=1e2)
        save_file(state, folder / f"{name}.safetensors", metadata={"diem": json.dumps(metadata)})
        save_file(arrays, folder / f"{name}.expected.safetensors")
        if name != "unet-levels":  # the largest: its gradients are compared above
            channels, *rest = SIZES[name]
            golden_training.write(folder, name, (*rest, channels))
        print(name, *(f"{file.stat().st_size / 1e3:.0f} kB" for file in sorted(folder.glob(f"{name}.*"))))


if __name__ == "__main__":
    main()
