"""Settings: one typed object a stage, the same fields from YAML, from `key=value` on the command line and from Python.

An unknown key is an error that names the nearest right one; a test fails on a field that nobody reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..conditioning import ASK
from ..errors import SettingsError, nearest
from ..intention import WORDS

__all__ = [
    "ConditioningSettings",
    "DataSettings",
    "IntentSettings",
    "LoraSettings",
    "ObjectiveSettings",
    "RenderSettings",
    "ScoreSettings",
    "Settings",
    "TrainSettings",
    "build",
    "hyper_parameters",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True, protected_namespaces=())


class ObjectiveSettings(_Strict):
    """Which loss, and its hyper-parameters by their own names (checked against the function's signature)."""

    model_config = ConfigDict(extra="allow", validate_assignment=True)
    name: str = Field("dpo", description="objective (see `pluralign objectives`)")

    @property
    def hyper(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class DataSettings(_Strict):
    source: str = Field("embedded", description="hub dataset, file, folder, or `embedded`")
    split: str | None = Field(None, description="split of a hub dataset (default: train)")
    format: str = Field("auto", description="row format (docs/data-formats.md); recognised where possible")
    validation: str | None = Field(None, description="file or hub split to validate on, instead of a part of the data")
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="part held out when no validation source is given")
    validation_rows: int = Field(500, ge=0, description="at most so many rows are validated on")
    limit: int | None = Field(None, gt=0, description="read at most so many rows")
    bad_rows: Literal["stop", "quarantine"] = Field("stop", description="what a malformed row does")
    columns: dict[str, str] = Field(default_factory=dict, description="your column names, e.g. {prompt: question}")
    by: str | None = Field(None, description="which score orders rated responses (`mean`: all of them, SGA's B.2)")
    responses: Literal["best", "all"] = Field("best", description="which responses of a pair or ranking to imitate")
    group: str | None = Field(None, description="which group's preference to take, where rows hold several")


class ConditioningSettings(_Strict):
    """The other response in the policy's context while it learns (InSPO); the reference never sees it."""

    strategy: Literal["none", "one-sided", "cross", "averaged"] = Field(
        "none", description="none, one-sided (5.3 ii), cross (Eq. 10), averaged (5.3 iv)"
    )
    style: Literal["separator", "turns"] = Field(
        "separator", description="x, y_l, separator, y_w (C.2), or y_l as a finished turn and one more request"
    )
    separator: str = Field("auto", description="auto: the tokenizer's separator token, else [SEP] as text")
    ask: str = Field(ASK, description="the request of style=turns")
    draft_cap: float | None = Field(
        0.4, gt=0, le=1, description="longest alternative, as a part of max_length (Table 3); null: whatever fits"
    )
    context_gradient: bool = Field(
        True, description="false: the alternative is read without gradient (D.5), cheaper; one-sided and cross only"
    )
    dropout: float = Field(0.0, ge=0, le=1, description="share of examples read without the alternative (ours)")


class ScoreSettings(_Strict):
    """Attribute scores: which, on what scale, where they stand in the prompt, how much sensing them counts (SGA)."""

    show: Literal["none", "chosen", "own"] = Field(
        "none", description="scores in every context: of the chosen response (SGA), of each term's own, or none"
    )
    attributes: list[str] = Field(default_factory=list, description="which, in this order (default: all the data have)")
    normal: Literal["range", "z", "none"] = Field(
        "range", description="to [0, 1] by the attribute's range, to z-scores over the training rows, or as they are"
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="lowest and highest score (default: the format's, else the training rows')"
    )
    wording: Literal["sga", "ric", "cpo", "steerlm"] = Field("sga", description="how scores stand in the prompt")
    sense: float = Field(0.0, ge=0, description="lambda of SGA, 1 / (2 sigma^2): weight of the sensing head's loss")
    layers: int = Field(3, ge=1, description="linear layers of the sensing or rating head")


class IntentSettings(_Strict):
    """Intents behind prompts: in every context, in the logit, and the module that infers them (A-IPO)."""

    show: Literal["none", "label", "infer", "average"] = Field(
        "none", description="no intents; each row's own; the intention module's; or one average intent for all (-I)"
    )
    names: list[str] = Field(default_factory=list, description="which, in this order (default: all the data have)")
    module: str = Field("head", description="`head`: on the policy's own state; or what `pluralign intents train` made")
    expectation: Literal["top", "sum", "draw"] = Field(
        "top", description="over q(I|x): the `candidates` likeliest intents, all of them, or one of them drawn a step"
    )
    candidates: int = Field(1, ge=1, description="how many intents of a prompt are looked at (K; `sum`: all)")
    similarity: float = Field(0.0, ge=0, description="lambda: weight of sim(y, I) in the reward (Eq. 7); 0 is -sim")
    kl: float = Field(0.0, ge=0, description="gamma: weight of KL(q || p) (Eq. 10)")
    classify: float = Field(1.0, ge=0, description="weight of the classification loss L_i on rows with an intent")
    loss: Literal["softmax", "bce"] = Field("softmax", description="one intent a prompt, or each by itself (Eq. 5)")
    prior: Literal["uniform", "data"] = Field("uniform", description="p(I): the paper's, or the share in the data")
    gradient: bool = Field(True, description="whether q learns from the preference loss (Eq. 10), if there are several")
    threshold: float = Field(0.0, ge=0, le=1, description="an inferred intent less probable is none: nothing is shown")
    words: str = Field(WORDS, description="how an intent stands at the end of the prompt; empty, with `soft`: not")
    soft: int = Field(0, ge=0, le=256, description="learnt vectors ahead of an intent's words: a soft prefix from E[I]")
    table: Literal["responses", "random"] = Field(
        "responses", description="where intent vectors start: mean states of chosen responses (ours), or random"
    )
    module_rate: float = Field(2e-5, gt=0, description="learning rate of the intention module, by AdamW (the paper's)")


class RenderSettings(_Strict):
    template: str = Field("auto", description="chat, plain, hh, raw, or auto")
    max_length: int = Field(1024, ge=16, description="tokens of context and response together")
    overlong: Literal["cut", "error"] = Field("cut", description="what a response that cannot fit does")
    score_eos: bool = Field(True, description="whether the end of turn counts in log-probs and lengths (InSPO, C.1)")


class LoraSettings(_Strict):
    rank: int = Field(0, ge=0, description="0 trains all weights")
    alpha: float | None = Field(None, description="default: 2 * rank")
    dropout: float = Field(0.0, ge=0, lt=1)
    targets: str = Field("all-linear", description="modules that get an adapter (comma-separated)")
    quantize: Literal["none", "4bit", "8bit"] = Field("none", description="load the frozen base quantised (QLoRA)")


class TrainSettings(_Strict):
    learning_rate: float = Field(5e-7, gt=0)
    epochs: float = Field(1.0, gt=0)
    max_steps: int = Field(-1, description="stop after so many optimiser steps (-1: by epochs)")
    batch_size: int = Field(64, ge=1, description="examples an optimiser step, over all processes")
    token_budget: int = Field(8192, ge=256, description="tokens of one forward pass; a step is split to fit")
    optimizer: Literal["adamw", "rmsprop", "sgd"] = "adamw"
    weight_decay: float = Field(0.0, ge=0)
    adam_betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    min_lr_ratio: float = Field(0.1, ge=0, le=1, description="the cosine ends at this part of the learning rate")
    warmup: float = Field(0.1, ge=0, description="part of the steps (below 1) or number of steps")
    clip: float = Field(1.0, ge=0, description="gradient norm limit (0: none)")
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    layout: Literal["auto", "trie", "rows"] = "auto"
    gradient_checkpointing: bool = False
    eval_every: float = Field(0.25, ge=0, description="validate every part of an epoch (below 1) or number of steps")
    save_every: float = Field(
        0.5, ge=0, description="checkpoint as often, where no best one is picked (with each validation)"
    )
    keep_checkpoints: int = Field(2, ge=1)
    log_every: int = Field(1, ge=1, description="steps between entries of metrics.jsonl")
    best_metric: str = Field(
        "auto", description="validation metric that picks the best checkpoint; `none` keeps the last"
    )
    patience: int = Field(0, ge=0, description="stop after so many validations without improvement (0: never)")
    kl_rows: int = Field(64, ge=0, description="validation rows on which KL to the reference is measured")
    collapse_nats: float = Field(20.0, gt=0, description="warn when chosen responses lose so many nats")
    track: str = Field("none", description="trackers: tensorboard, wandb, trackio (comma-separated)")
    deterministic: bool = Field(True, description="bitwise repeatable where the hardware allows it")


class Settings(_Strict):
    """Everything one run is made of."""

    recipe: str = "dpo"
    model: str = Field("embedded", description="hub model, folder, run folder, or `embedded`")
    reference: str | None = Field(None, description="reference model (default: the model as it is before training)")
    output: str | None = Field(None, description="run folder (default: runs/<recipe>-<time>)")
    seed: int = 0
    trust_remote_code: bool = Field(False, description="run code that comes with a model: only if you read it")
    objective: ObjectiveSettings = ObjectiveSettings(name="dpo")
    conditioning: ConditioningSettings = ConditioningSettings()
    data: DataSettings = DataSettings()
    scores: ScoreSettings = ScoreSettings()
    intents: IntentSettings = IntentSettings()
    rendering: RenderSettings = RenderSettings()
    lora: LoraSettings = LoraSettings()
    training: TrainSettings = TrainSettings()


class _Hyper(dict[str, Sequence[str]]):
    """Hyper-parameters by objective; a weighted sum ("dpo + 0.2*nll") is put together when it is asked for."""

    def __contains__(self, name: object) -> bool:
        if not super().__contains__(name) and isinstance(name, str) and ("+" in name or "*" in name):
            from ..objectives import mix

            try:
                self[name] = list(mix(name).defaults)
            except (KeyError, ValueError) as error:
                raise SettingsError(f'objective "{name}": {error.args[0]}') from None
        return super().__contains__(name)

    def get(self, name: str, default: Any = ()) -> Any:
        return super().get(name, default) if name in self else default


def hyper_parameters() -> dict[str, Sequence[str]]:
    """The names of every objective's hyper-parameters, sums included: what `build` takes as `hyper`."""
    from ..objectives import OBJECTIVES

    return _Hyper({name: list(o.defaults) for name, o in OBJECTIVES.items()})


SECTIONS: dict[str, type[BaseModel]] = {
    "objective": ObjectiveSettings,
    "conditioning": ConditioningSettings,
    "scores": ScoreSettings,
    "intents": IntentSettings,
    "data": DataSettings,
    "rendering": RenderSettings,
    "lora": LoraSettings,
    "training": TrainSettings,
}

# a section given as one word
WHOLE = {
    "objective": "objective.name",
    "conditioning": "conditioning.strategy",
    "data": "data.source",
    "scores": "scores.show",
    "intents": "intents.show",
}


def keys() -> dict[str, list[str]]:
    """Every full key (`training.learning_rate`) by its last word, for short forms and suggestions."""
    out: dict[str, list[str]] = {name: [name] for name in Settings.model_fields if name not in SECTIONS}
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            out.setdefault(name, []).append(f"{section}.{name}")
    return out


def build(
    preset: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    hyper: Mapping[str, Iterable[str]] | None = None,
) -> Settings:
    """Settings from a nested preset (or several, a later one overrides) and `key=value` overrides (values are YAML).

    `hyper` maps objective names to their hyper-parameters, so that `beta=0.1` is understood and a mistyped one is not.
    Raises SettingsError for an unknown key (with the nearest one) or a value of the wrong type.
    """
    tree: dict[str, Any] = {}
    for layer in [preset or {}] if preset is None or isinstance(preset, Mapping) else preset:
        _merge(tree, layer, hyper or {})
    pairs = overrides.items() if isinstance(overrides, Mapping) else map(_split, overrides)
    named = [(key, value) for key, value in pairs]
    # the objective's name decides which hyper-parameters exist, so it goes first
    for key, value in sorted(named, key=lambda kv: kv[0] not in ("objective", "objective.name")):
        _set(tree, key, value, hyper or {})
    _check_hyper(tree, hyper or {})
    try:
        return Settings(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(p) for p in first["loc"])
        raise SettingsError(f'setting "{where}": {first["msg"].lower()}, not {first["input"]!r}.') from None


def _split(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f'"{text}" is not a setting.', remedy="Write key=value, for example training.epochs=2.")
    try:
        return key.strip(), _number(yaml.safe_load(value))
    except yaml.YAMLError:
        raise SettingsError(f'setting "{key}": the value {value!r} is not valid YAML.') from None


def _number(value: Any) -> Any:
    """YAML reads 1e-6 as text; a person means the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _merge(
    tree: dict[str, Any], preset: Mapping[str, Any], hyper: Mapping[str, Iterable[str]], prefix: str = ""
) -> None:
    # the objective's name decides which hyper-parameters exist, so it goes first
    for key, value in sorted(preset.items(), key=lambda kv: kv[0] not in ("objective", "name")):
        if isinstance(value, Mapping) and (prefix + key) in SECTIONS:
            _merge(tree, value, hyper, prefix=f"{prefix}{key}.")
        else:
            _set(tree, prefix + key, _number(value), hyper)


def _set(tree: dict[str, Any], key: str, value: Any, hyper: Mapping[str, Iterable[str]]) -> None:
    section, _, leaf = _full_key(key, tree, hyper).partition(".")
    if not leaf:
        tree[section] = value
        return
    if section == "objective" and leaf == "name":
        if not isinstance(value, str):
            raise SettingsError(
                f"an objective is a name, not {value!r}.", remedy='Write a sum in words, for example "dpo + 0.2*nll".'
            )
        if tree.get("objective", {}).get("name") not in (None, value):
            tree["objective"] = {}  # another objective: the preset's hyper-parameters were the old one's
    tree.setdefault(section, {})[leaf] = value


def _full_key(key: str, tree: Mapping[str, Any], hyper: Mapping[str, Iterable[str]]) -> str:
    known = keys()
    words = hyper.get(tree.get("objective", {}).get("name", "dpo"), ())
    if key in WHOLE:
        return WHOLE[key]
    section, _, leaf = key.partition(".")
    if key in known and len(known[key]) == 1:
        return known[key][0]
    if key in known:
        raise SettingsError(f'setting "{key}" is ambiguous.', remedy=f"Write one of: {', '.join(known[key])}.")
    if not leaf and key in words:
        return f"objective.{key}"
    if section == "objective" and leaf:
        return key  # checked by _check_hyper once the objective is known
    if section in SECTIONS and leaf in SECTIONS[section].model_fields:
        return key
    every = [full for fulls in known.values() for full in fulls] + [f"objective.{w}" for w in words]
    raise SettingsError(f'unknown setting "{key}".{_suggest(key, every)}')


def _suggest(key: str, every: list[str]) -> str:
    """The nearest full key: by its last word first, so that `trainning.lr` finds training.learning_rate."""
    aliases = {"lr": "learning_rate", "bs": "batch_size", "max_len": "max_length", "num_epochs": "epochs"}
    leaf = aliases.get(key.rpartition(".")[2], key.rpartition(".")[2])
    for full in every:
        if full.rpartition(".")[2] == leaf:
            return f' Did you mean "{full}"?'
    return nearest(key, every) or nearest(leaf, [e.rpartition(".")[2] for e in every])


def _check_hyper(tree: Mapping[str, Any], hyper: Mapping[str, Iterable[str]]) -> None:
    chosen = tree.get("objective", {})
    name = chosen.get("name", "dpo")
    if not hyper:
        return
    if name not in hyper:
        raise SettingsError(f'unknown objective "{name}".{nearest(name, hyper)}', remedy="See `pluralign objectives`.")
    for key in chosen:
        if key != "name" and key not in hyper[name]:
            known = ", ".join(hyper[name]) or "none"
            raise SettingsError(
                f'objective "{name}" has no hyper-parameter "{key}" (it has: {known}).{nearest(key, hyper[name])}'
            )
