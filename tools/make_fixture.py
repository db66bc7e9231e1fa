#!/usr/bin/env python3
"""Makes a parity fixture: a tiny random checkpoint and what transformers computes for it.

    python3 -m venv .venv && .venv/bin/pip install torch transformers==5.23.0
    .venv/bin/python tools/make_fixture.py Qwen3MoeForCausalLM OUT --config overrides.json
    .venv/bin/python tools/make_fixture.py Qwen3MoeForCausalLM OUT num_hidden_layers=2 hidden_size=48 ...

Overrides are JSON values by config key, `text_config.KEY` for a part of a multimodal config. OUT gets
`config.json`, the weights as `save_pretrained` writes them and `expected.safetensors`; its keys are described in
crates/moescope-model/tests/fixtures/README.md. All is computed in float32 on the CPU, for `--dtype bfloat16`
on the weights as saved.
"""

import argparse
import json
import pathlib
import re

import torch
import transformers
from safetensors.torch import save_file

# Decisions closer than this could go either way on another machine.
EXPERT_MARGIN = 1e-4
TOKEN_MARGIN = 1e-2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("architecture", help="class name as in `architectures`, such as OlmoeForCausalLM")
    parser.add_argument("out", type=pathlib.Path, help="folder to write; must not exist")
    parser.add_argument("overrides", nargs="*", metavar="KEY=JSON", help="config values")
    parser.add_argument("--config", type=pathlib.Path, help="JSON file with more of them")
    parser.add_argument("--seed", type=int, default=0, help="first seed tried (default 0)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--shard-size", default="5GB", help="largest file, such as 150KB")
    args = parser.parse_args()

    overrides = json.loads(args.config.read_text()) if args.config else {}
    for override in args.overrides:
        key, _, value = override.partition("=")
        *sections, key = key.split(".")
        place = overrides
        for section in sections:
            place = place.setdefault(section, {})
        place[key] = json.loads(value)

    for seed in range(args.seed, args.seed + 100):
        torch.manual_seed(seed)
        model = make_model(args.architecture, overrides, getattr(torch, args.dtype))
        expected = compute(model)
        if expected is not None:
            break
        print(f"seed {seed}: a decision is too close, trying the next")
    else:
        raise SystemExit("no seed gives clear decisions; use fewer layers or experts")

    args.out.mkdir(parents=True)
    model.to(getattr(torch, args.dtype)).save_pretrained(args.out, max_shard_size=args.shard_size)
    save_file(expected, args.out / "expected.safetensors")
    print(f"{args.out}: seed {seed}, {sum(p.numel() for p in model.parameters())} parameters")


def make_model(architecture, overrides, dtype):
    """A model whose every weight matters: transformers starts norms at 1, biases and corrections at 0."""
    cls = getattr(transformers, architecture)
    config = cls.config_class(**overrides)
    config._attn_implementation = "eager"
    config._experts_implementation = "eager"
    model = cls(config).eval()
    with torch.no_grad():
        for weight in [*model.parameters(), *kept_buffers(model)]:
            noise = torch.randn_like(weight)
            # Matrices keep the size of what goes through them.
            weight.copy_(noise / weight.shape[-1] ** 0.5 if weight.dim() > 1 else weight + 0.1 * noise)
    return model.to(dtype).float()


def kept_buffers(model):
    """Buffers a checkpoint holds, such as corrections of router scores."""
    saved = model.state_dict().keys()
    return [buffer for name, buffer in model.named_buffers() if name in saved and buffer.is_floating_point()]


@torch.no_grad()
def compute(model):
    """Everything the tests compare, or None where a decision is too close to be told apart."""
    vocab = model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, vocab, (2, 24), generator=generator)
    with Routing(model) as routing:
        out = model(input_ids=ids, output_hidden_states=True, use_cache=False)
    if routing.margin() < EXPERT_MARGIN:
        return None
    expected = {"input_ids": ids, "logits": out.logits}
    for i, hidden in enumerate(out.hidden_states):
        expected[f"hidden_states.{i}"] = hidden
    for layer, (index, weights) in routing.chosen.items():
        expected[f"layers.{layer}.top_k_index"] = index.reshape(2, 24, -1)
        expected[f"layers.{layer}.top_k_weights"] = weights.reshape(2, 24, -1)

    prompt = torch.randint(0, vocab, (1, 8), generator=generator)
    tokens, cache, new = prompt, None, prompt
    while tokens.shape[1] < 20:
        out = model(input_ids=new, past_key_values=cache, use_cache=True)
        cache, last = out.past_key_values, out.logits[:, -1]
        best = last.topk(2).values[0]
        if best[0] - best[1] < TOKEN_MARGIN:
            return None
        new = last.argmax(-1, keepdim=True)
        tokens = torch.cat([tokens, new], 1)
    expected["generate.prompt_ids"], expected["generate.output_ids"] = prompt, tokens
    return {name: value.contiguous().clone() for name, value in expected.items()}


class Routing:
    """Records what enters the experts of each layer, and by how much it was chosen."""

    def __init__(self, model):
        self.model, self.chosen, self.gaps, self.hooks = model, {}, [], []

    def __enter__(self):
        for name, module in self.model.named_modules():
            layer = re.search(r"layers\.(\d+)\.", name)
            kind = type(module).__name__
            if layer and kind.endswith("Router"):
                self.hooks.append(module.register_forward_hook(self.score))
            elif layer and kind.endswith("Experts"):
                hook = self.record(int(layer[1]))
                self.hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
        return self

    def record(self, layer):
        def hook(_module, args, kwargs):
            given = dict(zip(["hidden_states", "top_k_index", "top_k_weights"], args)) | kwargs
            self.chosen[layer] = (given["top_k_index"].long(), given["top_k_weights"].float())

        return hook

    def score(self, router, _args, out):
        # Softmax and sigmoid keep the order of logits; a correction of sigmoid scores does not.
        correction = getattr(router, "e_score_correction_bias", None)
        scores = out[0].softmax(-1) if correction is None else out[0].sigmoid() + correction
        chosen = out[-1].shape[-1]
        best = scores.topk(min(chosen + 1, scores.shape[-1])).values
        self.gaps.append(-best.diff(dim=-1))

    def margin(self):
        """How far apart scores are at least, of neighbours in rank down to the first not chosen."""
        return min((gap.min().item() for gap in self.gaps if gap.numel()), default=1.0)

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


if __name__ == "__main__":
    main()
