"""Turns a PyTorch state dict into a diem checkpoint.

    pip install torch numpy safetensors
    python tools/export_torch.py model.pt model.safetensors --config cifar
    python tools/export_torch.py run.pt model.safetensors --key ema --prefix module. --config '{"kind": "mlp", "features": 5}'

The names of the parameters are those of tools/peers/unet_torch.py, behind any prefix. --config is one of its networks
(cifar, mri, small), or JSON, in a file or as it is: {"kind": "unet", "in_channels": 3, "out_channels": 3, "channels":
[32, 64], "blocks": [2, 2], "heads": [0, 4], "emb": 64, "patch": 1} or {"kind": "mlp", "features": 5, "hidden": [256, 256, 256],
"emb": 64}. Weights are stored as float32. What is missing, unexpected or of another shape is listed, and nothing is written.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))
from unet_torch import CONFIGS, MLP, UNet  # noqa: E402

DEFAULTS = {
    "unet": dict(heads=None, emb=256, patch=1),
    "mlp": dict(hidden=[256, 256, 256], emb=64),
}


def fail(message: str) -> None:
    sys.exit(f"export_torch.py: {message}")


def read_config(text: str) -> dict:
    """The metadata of a network, complete, without noise levels."""
    if text in CONFIGS:
        config = dict(kind="unet", **CONFIGS[text])
    else:
        try:
            config = json.loads(Path(text).read_text() if Path(text).is_file() else text)
        except ValueError as e:
            fail(f"--config: expected {', '.join(CONFIGS)}, a JSON file or JSON, found {text!r} ({e})")
    if not isinstance(config, dict) or config.get("kind") not in DEFAULTS:
        fail(f"--config: expected an object with \"kind\" unet or mlp, found {config!r}")
    config = DEFAULTS[config["kind"]] | config
    if config["kind"] == "unet":
        config["heads"] = config["heads"] or [0] * len(config.get("channels", []))
    return config


def parameters(config: dict) -> dict[str, torch.Size]:
    """Names and shapes that the network has."""
    arguments = {key: value for key, value in config.items() if key != "kind"}
    try:
        with torch.device("meta"):
            net = (UNet if config["kind"] == "unet" else MLP)(**arguments)
    except (TypeError, IndexError) as e:
        fail(f"--config: {e}")
    return {name: p.shape for name, p in net.named_parameters()}


def read_state(path: Path, key: str | None) -> dict[str, torch.Tensor]:
    """The named tensors of a file."""
    if path.suffix == ".safetensors":
        state = load_file(path)
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)
    for part in key.split(".") if key else []:
        if not isinstance(state, dict) or part not in state:
            fail(f"{path}: expected an entry {part!r}, found {list(state)[:20] if isinstance(state, dict) else type(state)}")
        state = state[part]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        kinds = {k: type(v).__name__ for k, v in list(state.items())[:20]} if isinstance(state, dict) else type(state)
        fail(f"{path}: expected a state dict (names to tensors), found {kinds}; --key picks an entry")
    return state


def find_prefix(state: dict[str, torch.Tensor], first: str) -> str:
    """What stands before the network's first parameter."""
    prefixes = [name.removesuffix(first) for name in state if name == first or name.endswith(f".{first}")]
    if len(prefixes) != 1:
        fail(f"expected one tensor ...{first}, found {len(prefixes)} among {list(state)[:20]}; --prefix says which network")
    return prefixes[0]


def select(state: dict[str, torch.Tensor], prefix: str, expected: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """The network's parameters in float32, all there and finite."""
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    problems = [f"missing {name} {tuple(shape)}" for name, shape in expected.items() if name not in found]
    problems += [f"unexpected {name} {tuple(value.shape)}" for name, value in found.items() if name not in expected]
    for name in expected.keys() & found.keys():
        if found[name].shape != expected[name]:
            problems.append(f"{name}: expected shape {tuple(expected[name])}, found {tuple(found[name].shape)}")
        elif not found[name].isfinite().all():
            problems.append(f"{name}: not finite")
    if problems:
        listed = sorted(problems)[:20] + (["..."] if len(problems) > 20 else [])
        fail("\n  ".join([f"{len(problems)} tensors do not fit the configuration (prefix {prefix!r}):", *listed]))
    return {name: found[name].float().contiguous() for name in expected}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("input", type=Path, help="state dict: .pt, .pth or .safetensors")
    p.add_argument("output", type=Path, help="checkpoint: .safetensors")
    p.add_argument("--config", required=True, help="cifar, mri, small, a JSON file or JSON")
    p.add_argument("--key", help="entry of the file that holds the state dict, with dots for nested ones")
    p.add_argument("--prefix", help="what the parameters' names begin with (default: found by itself)")
    p.add_argument("--sigma-min", type=float, default=1e-3, help="smallest noise level (%(default)g)")
    p.add_argument("--sigma-max", type=float, default=1e2, help="largest noise level (%(default)g)")
    p.add_argument("--size", type=int, nargs=2, metavar=("H", "W"), help="the image size, if the model is for one only")
    p.add_argument("--mean", type=Path, help="mean of the training images, .npy (H, W, C): where sampling starts")
    p.add_argument("--force", action="store_true", help="overwrite the output")
    a = p.parse_args()
    if a.output.exists() and not a.force:
        fail(f"{a.output}: expected no file, found one; --force overwrites it")
    config = read_config(a.config)
    expected = parameters(config)
    state = read_state(a.input, a.key)
    prefix = find_prefix(state, next(iter(expected))) if a.prefix is None else a.prefix
    tensors = {f"net.{name}": value for name, value in select(state, prefix, expected).items()}
    if a.mean:
        tensors["mean"] = torch.from_numpy(np.load(a.mean).astype(np.float32).ravel())
    metadata = dict(config, sigma_min=a.sigma_min, sigma_max=a.sigma_max)
    if a.size:
        metadata |= dict(zip(("height", "width"), a.size))
    temporary = a.output.with_name(f".{a.output.name}.tmp")
    save_file(tensors, temporary, metadata={"diem": json.dumps(metadata)})
    os.replace(temporary, a.output)
    print(f"{a.output}: {len(expected)} tensors, {sum(shape.numel() for shape in expected.values()):,} parameters, prefix {prefix!r}")


if __name__ == "__main__":
    main()
