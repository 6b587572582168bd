"""The README.md of an exported model: a model card as Hugging Face shows it, front matter in YAML and Markdown."""

from collections.abc import Mapping
from typing import Any

import yaml

SHOWN = ("bag_auroc", "bag_ap", "bag_accuracy_tuned", "bag_f1_tuned", "instance_auroc", "instance_ap", "pixel_dice")
"""Test scores that the card names, where the run has them."""
TASKS = {"map": "image-segmentation"}
TAGS = ("computational-pathology", "multiple-instance-learning", "knowledge-distillation", "weakly-supervised-learning")

USE = {
    "safetensors": """import kd_mil

method = kd_mil.load("FOLDER")
said = method.predict(instances)  # (N, ...), as the training data stored them
print(said["{role}"].bag_probs, method.thresholds)""",
    "torch_export": """import torch

encoder = torch.export.load("FOLDER/encoder.pt2").module()
{role} = torch.export.load("FOLDER/{role}.pt2").module()
said = dict(zip({outputs}, {role}(*encoder(instances))))""",
    "onnx": """import onnxruntime

encoder = onnxruntime.InferenceSession("FOLDER/encoder.onnx")
{role} = onnxruntime.InferenceSession("FOLDER/{role}.onnx")
features = encoder.run(None, {{"instances": instances}})
names = [one.name for one in {role}.get_inputs()]
said = dict(zip({outputs}, {role}.run(None, dict(zip(names, features)))))""",
}
WITHOUT_ENCODER = {
    "torch_export": """import torch

{role} = torch.export.load("FOLDER/{role}.pt2").module()
said = dict(zip({outputs}, {role}(images)))""",
    "onnx": """import onnxruntime

{role} = onnxruntime.InferenceSession("FOLDER/{role}.onnx")
said = dict(zip({outputs}, {role}.run(None, {{"images": images}})))""",
}
MEANING = {
    "features": "what the graphs of the roles take, instance by instance",
    "bag_probs": "(1, C) float64, probabilities of the bag's classes",
    "instance_probs": "(N,) probability that the instance is positive",
    "instance_scores": "(N,) the same, where it ranks instances better: not bounded",
    "attention": "(N,) shares of the instances in the bag's decision",
    "class_probs": "(N, C) scores of the classes of an instance",
    "map": "(B, H, W) probability of each pixel",
}


def readme(facts: Mapping[str, Any], scores: Mapping[str, float | None], license: str | None) -> str:
    """The text.

    Args:
        facts: content of `config.json`.
        scores: of the run, as `metrics.json` has them; empty where there is none.
        license: of the weights, in the words of the hub; None leaves it open.
    """
    shown = {name: scores[name] for name in scores if is_shown(name)}
    parts = [front_matter(facts, shown, license), title(facts), files(facts), usage(facts), decisions(facts)]
    return "\n".join([*parts, instances(facts), results(shown), LIMITS])


def is_shown(name: str) -> bool:
    """Whether a score is one of the test that the card names."""
    return name.startswith("test/") and name.rpartition("/")[2] in SHOWN


def front_matter(facts: Mapping[str, Any], shown: Mapping[str, float | None], license: str | None) -> str:
    """What the hub indexes."""
    outputs = {name for graph in facts["graphs"].values() for name in graph["outputs"]}
    task = next((TASKS[name] for name in outputs if name in TASKS), "image-classification")
    content: dict[str, Any] = {"library_name": "kd_mil", "pipeline_tag": task, "tags": [*TAGS, facts["format"]]}
    if license is not None:
        content["license"] = license
    metrics = [
        {"type": name.rpartition("/")[2], "name": name, "value": round(value, 4)}
        for name, value in shown.items()
        if value is not None
    ]
    if metrics:
        dataset = {"name": "test bags of the run", "type": "own"}
        result = {"task": {"type": task}, "dataset": dataset, "metrics": metrics}
        content["model-index"] = [{"name": facts["experiment"] or "kd_mil", "results": [result]}]
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n"


def title(facts: Mapping[str, Any]) -> str:
    """What the model is."""
    method = str(facts["model_card"]["method"]["_target_"]).rpartition(".")[2]
    return (
        f"# {facts['experiment'] or method}\n\n"
        f"A {method} model trained with kd_mil {facts['kd_mil']} on slide labels: {', '.join(facts['roles'])}. "
        f"It tells {' from '.join(facts['class_names'])}. Checkpoint {facts['checkpoint']}.\n"
    )


def files(facts: Mapping[str, Any]) -> str:
    """What lies in the folder."""
    if facts["format"] == "safetensors":
        return "## Files\n\n- `model.safetensors`: all weights\n- `config.json`: how the model is built and used\n"
    ending = {"torch_export": "pt2", "onnx": "onnx"}[facts["format"]]
    lines = ["## Files\n", "`config.json` has all that is said here, for programs.\n"]
    lines += ["| File | Takes | Gives |", "|---|---|---|"]
    for name, graph in facts["graphs"].items():
        takes = "; ".join(f"`{key}` {of['dtype']} {shape(of['shape'])}" for key, of in graph["inputs"].items())
        lines.append(f"| `{name}.{ending}` | {takes} | {', '.join(f'`{one}`' for one in graph['outputs'])} |")
    known = dict.fromkeys(name for graph in facts["graphs"].values() for name in graph["outputs"])
    lines += ["", *(f"- `{name}`: {MEANING[name.rstrip('_0123456789')]}" for name in known)]
    return "\n".join(lines) + "\n"


def shape(sides: list[Any]) -> str:
    """(instances, 3, 32, 32)"""
    return f"({', '.join(map(str, sides))}{',' if len(sides) == 1 else ''})"


def usage(facts: Mapping[str, Any]) -> str:
    """Code that runs the model."""
    graphs, format = facts["graphs"], facts["format"]
    known = WITHOUT_ENCODER if graphs and "encoder" not in graphs else USE
    role = facts["decisions"]["decides"]
    role = role if role in graphs or not graphs else next(name for name in reversed(graphs) if name != "encoder")
    code = known[format].format(role=role, outputs=graphs.get(role, {}).get("outputs"))
    return f"## Use\n\n```python\n{code}\n```\n"


def decisions(facts: Mapping[str, Any]) -> str:
    """Thresholds."""
    own = facts["decisions"]
    lines = ["## Decisions\n", f"The {own['decides']} decides. Thresholds were chosen on validation labels.\n"]
    lines += ["| Role | Bag or image | Instance |", "|---|---|---|"]
    for role, threshold in own["thresholds"].items():
        instance = own.get("instance_thresholds", {}).get(role)
        lines.append(f"| {role} | {threshold:.4f} | {'' if instance is None else f'{instance:.4f}'} |")
    return "\n".join(lines) + "\n"


def instances(facts: Mapping[str, Any]) -> str:
    """How instances must be made."""
    lines = [f"- {name}: {value}" for name, value in facts["instances"].items()]
    for module, steps in facts["transforms"].items():
        lines.append(f"- within the model, `{module}`: {', '.join(f'{key} {value}' for key, value in steps.items())}")
    return "\n".join(["## Instances\n", *lines]) + "\n"


def results(shown: Mapping[str, float | None]) -> str:
    """Test scores of the run."""
    if not shown:
        return "## Scores\n\nNo test scores lie beside the checkpoint.\n"
    rows = [
        f"| {name.removeprefix('test/')} | {'' if value is None else f'{value:.4f}'} |" for name, value in shown.items()
    ]
    return "\n".join(["## Scores on the run's test data\n", "| Score | Value |", "|---|---|", *rows]) + "\n"


LIMITS = """## Limits

For research. The model was tested on the data of its run alone: other scanners, stains and hospitals need a test of
their own, and thresholds may have to be chosen again. It is no medical device.
"""
