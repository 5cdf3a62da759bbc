"""Training of SQ-GAN: the map branch, the picture branch, then both together.

    for each stage:  crops ── reconstruction ── losses ── discriminators ── step ── moving average

Data stay on the device, every step draws from a generator of its own, and a checkpoint holds the
whole state of a run, so that a run resumed gives the same result as one never interrupted.
`output/` receives `checkpoint.safetensors`, `NAME.safetensors` (the moving average of the weights,
ready to be used as `--weights`), and what `sqlink.training.journal` writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sqlink.data.classes import NUM_CLASSES, class_set_of_size
from sqlink.errors import ConfigError, SQLinkError, WeightsError
from sqlink.model.config import ABLATIONS, ModelConfig, model_config
from sqlink.model.discriminator import FeatureDiscriminator, PatchDiscriminator
from sqlink.model.layout import channels_last
from sqlink.model.sqgan import SQGAN
from sqlink.training.adversaries import Adversaries, Played
from sqlink.training.augmentation import step_generator
from sqlink.training.checkpoint import State, follow, load_checkpoint, save_checkpoint
from sqlink.training.config import Stage, StageName, TrainConfig, load_train_config
from sqlink.training.data import TrainingData, draw_transmission
from sqlink.training.export import export_weights
from sqlink.training.interruption import Interruption
from sqlink.training.journal import Journal, sample_sheet
from sqlink.training.objective import Objective
from sqlink.training.precision import fastest_precision
from sqlink.training.reconstruction import ThroughTheLink, set_trained
from sqlink.training.schedule import warm_cosine
from sqlink.training.task import load_task
from sqlink.training.validation import validate

COMPILED = (
    "image_encoder",
    "map_encoder",
    "image_demasker",
    "map_demasker",
    "image_decoder",
    "map_decoder",
)
"""Networks that `compile` compiles; the others are small, or branch on their data."""

LEAST_RATE = 0.02
"""Learning rate at the end of a stage, as a share of its highest."""


class Trainer:
    """The state of one run: networks, optimisers, data, and how far it has come.

    report: takes lines for the user. Raises ConfigError, DataError or WeightsError in one line if
    the run cannot begin.
    """

    def __init__(self, config: TrainConfig, report: Callable[[str], None]) -> None:
        from lightning_fabric import Fabric

        self.config, self.report = config, report
        self.plan = config.plan()
        self.model_config = _model_of(config)
        _check(config, self.plan, self.model_config)
        self.classes = class_set_of_size(self.model_config.num_classes)
        self.task = load_task(config.task, self.classes)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.output = Path(config.output)
        self.journal = Journal(self.output, report)
        precision = config.precision
        if precision == "auto":
            cuda = config.device != "cpu" and torch.cuda.is_available()
            precision = fastest_precision(torch.device("cuda" if cuda else "cpu"), report)
        self.fabric = Fabric(accelerator=config.device, devices=config.devices, precision=precision)
        self.fabric.launch()
        self.device = self.fabric.device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.network = channels_last(SQGAN(self.model_config))
            self.average = SQGAN(self.model_config).requires_grad_(False).eval()
            patch = channels_last(PatchDiscriminator(self.model_config.num_classes))
        if config.start is not None:
            _load_weights(self.network, config.start)
        self.average.load_state_dict(self.network.state_dict())
        self.network.to(self.device)
        patch.to(self.device)
        channels_last(self.average.to(self.device))
        if config.compile == "yes" or (config.compile == "auto" and self.device.type == "cuda"):
            for name in COMPILED:
                self.network.get_submodule(name).compile()
        self.step = self.stage_step = 0
        self.seconds = self.stage_seconds = 0.0
        self.objective = Objective(config, self.task, self.device, report)
        self.adversaries = Adversaries(
            self.fabric,
            patch,
            self._feature_discriminator(),
            self.task,
            0.0 if "semantic-discriminator" in config.without else self.task.blend_share,
        )
        self.data = TrainingData(config, self.classes, self.task, self.device)
        self.adversaries.whiten(self.data.examples(16))
        self.interruption = Interruption()
        self.begin(next(iter(self.plan)))

    def _feature_discriminator(self) -> FeatureDiscriminator | None:
        """Build a discriminator of what the frozen networks see, if a stage asks for one."""
        if not any(stage.losses.projected for stage in self.plan.values()):
            return None
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(self.config.seed)
            views = self.objective.views(torch.zeros(1, 3, 64, 64, device=self.device))
            found = FeatureDiscriminator([view.shape[1] for view in views.coarse])
        return channels_last(found.to(self.device))

    def begin(self, name: StageName) -> None:
        """Enter a stage: choose the parts that it trains, and make new optimisers."""
        self.name, self.stage = name, self.plan[name]
        self.stage_step, self.stage_seconds = 0, 0.0
        set_trained(self.network, name, self.stage.freeze_map)
        self.network.zero_grad()  # else the last stage's gradients count in this one's norm
        optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=self.stage.learning_rate,
            betas=(0.8, 0.99),
            weight_decay=self.stage.weight_decay,
            fused=True,
        )
        self.link = ThroughTheLink(self.network)
        self.generator, self.optimizer = self.fabric.setup(self.link, optimizer)
        self.adversaries.begin(self.stage)

    @property
    def progress(self) -> float:
        """Progress of the stage, 0 to 1: the further of its two budgets."""
        steps, minutes = self.stage.max_steps, self.stage.max_minutes
        parts = [self.stage_step / steps] if steps else []
        parts += [self.stage_seconds / 60 / minutes] if minutes else []
        return min(1.0, max(parts))

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.safetensors"

    def save(self) -> None:
        """Write the checkpoint."""
        if not self.fabric.is_global_zero:
            return
        state: State = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.adversaries.state(),
        }
        save_checkpoint(
            self.checkpoint_path,
            state,
            step=self.step,
            seconds=self.seconds,
            stage=self.name,
            stage_step=self.stage_step,
            stage_seconds=self.stage_seconds,
            model=self.model_config.to_json(),
        )

    def resume(self) -> bool:
        """Load the checkpoint if there is one, and say whether there was.

        Raises ConfigError if it is of another model, or of a stage that the file no longer names.
        """
        if not self.checkpoint_path.exists():
            return False
        state, facts = load_checkpoint(self.checkpoint_path)
        if _model_in(facts.get("model")) != self.model_config:
            raise ConfigError(
                f"{self.checkpoint_path} is of another model than '{self.config.model}': "
                "name another `output`, or remove it"
            )
        if facts.get("stage") not in self.plan:
            raise ConfigError(
                f"{self.checkpoint_path} stands in stage '{facts.get('stage')}', which `stages` "
                "does not name: name it, or another `output`"
            )
        self.begin(facts["stage"])
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.adversaries.load_state(state, str(self.checkpoint_path))
        try:
            self.optimizer.load_state_dict(state["optimizer"])
        except ValueError:
            raise ConfigError(
                f"{self.checkpoint_path}: stage '{self.name}' trained other parts when it was "
                "written: set freeze_map as it was, or name another `output`"
            ) from None
        for optimizer in (self.optimizer, *self.adversaries.optimizers):
            _lay_out_as_parameters(optimizer)
        self.step, self.seconds = facts["step"], facts["seconds"]
        self.stage_step, self.stage_seconds = facts["stage_step"], facts["stage_seconds"]
        return True

    def advance(self) -> dict[str, float]:
        """Take one step of the network and of its discriminators. Returns the losses by name.

        Raises SQLinkError if a loss or a gradient is not finite.
        """
        stage, weights = self.stage, self.stage.losses
        generator = step_generator(
            self.config.seed, self.step, self.fabric.global_rank, self.device
        )
        images, maps, inputs = self.data.batch(stage, generator)
        lossless = "losing" in self.config.without
        transmission = draw_transmission(stage, self.model_config, lossless, generator)
        draw = torch.rand(1, generator=generator, device=self.device)
        true_map = self.name == "image" or bool(draw < stage.true_map_share)
        self._set_rates()

        out = self.generator(images, inputs, transmission, self.name, true_map)
        terms = {"commitment": weights.commitment * out.commitment}
        if out.logits is not None and self.network.map_decoder.conv_out.weight.requires_grad:
            terms["map"] = self.objective.of_map(stage, out.logits, inputs)
        total = _sum(terms)
        if out.images is not None:
            rebuilt = out.images.detach().requires_grad_()
            images, maps, inputs = (
                tensor.repeat_interleave(stage.realisations, 0) for tensor in (images, maps, inputs)
            )
            seen, slope = self._slope(rebuilt, images, maps, inputs, generator)
            total = total + (out.images * slope).sum()
            terms |= seen
        self._must_be_finite(terms)
        self.optimizer.zero_grad()
        self.fabric.backward(total)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), stage.gradient_clip)
        self._must_be_finite({"the norm of the gradient": norm})
        self.optimizer.step()
        decay = min(stage.ema_decay, (1 + self.step) / (10 + self.step))
        follow(self.average, self.network, decay)
        self.step += 1
        self.stage_step += 1
        return {name: float(term.detach()) for name, term in terms.items()}

    def _set_rates(self) -> None:
        """Set this step's learning rates."""
        stage = self.stage
        rate = warm_cosine(self.progress, self.stage_step, stage.warmup_steps, LEAST_RATE)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.learning_rate * rate
        for optimizer in self.adversaries.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = stage.discriminator_rate * rate

    def _slope(
        self,
        rebuilt: Tensor,
        images: Tensor,
        maps: Tensor,
        inputs: Tensor,
        generator: torch.Generator,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses of the rebuilt picture, a leaf, and their gradient at it."""
        stage, weights = self.stage, self.stage.losses
        joined = self.progress >= stage.adversarial_start
        opponent = self.adversaries.oppose if weights.projected > 0 and joined else None
        seen = self.objective.of_picture(stage, rebuilt, images, maps, generator, opponent)
        self._must_be_finite(seen)
        slope = torch.autograd.grad(_sum(seen), rebuilt)[0]
        if joined and (weights.adversarial > 0 or weights.feature_matching > 0):
            drawn = self.link.drawn
            assert drawn is not None
            ramp = min(1.0, (self.progress - stage.adversarial_start) / 0.05 + 0.1)
            played = Played(drawn, self.network.image_decoder.conv_out.weight, slope, ramp)
            slope = slope + self.adversaries.play(rebuilt, images, inputs, played, seen, generator)
        return seen, slope

    def _must_be_finite(self, terms: dict[str, Tensor]) -> None:
        stacked = torch.stack([term.detach().float() for term in terms.values()])
        if torch.isfinite(stacked).all():
            return
        wrong = [name for name, term in terms.items() if not torch.isfinite(term.detach())]
        kept = (
            f"the last checkpoint is kept in {self.checkpoint_path}"
            if self.checkpoint_path.exists()
            else "there was no checkpoint yet"
        )
        raise SQLinkError(
            f"training stopped at step {self.step}, stage {self.name}: {', '.join(wrong)} is not "
            f"finite; {kept}; lower learning_rate and run again"
        )

    @torch.inference_mode()
    def validate(self) -> dict[str, float]:
        """Measure the moving average on held-out pictures, and draw a sheet of them."""
        if self.data.held_out is None:
            return {}
        passed = validate(self.average, self.data.held_out)
        figures = passed.figures()
        if self.objective.perceptual is not None:
            distance = float(self.objective.perceptual(passed.rebuilt, passed.images).mean())
            figures["val_perceptual" if self.objective.lpips is None else "val_lpips"] = distance
        found = passed.found
        for name, indices, quantizer in (
            ("image", found.image_indices, self.network.image_quantizer),
            ("map", found.map_indices, self.network.map_quantizer),
        ):
            figures[f"val_codes_{name}"] = float(len(indices.unique()))
            figures[f"perplexity_{name}"] = float(quantizer.perplexity())
        if self.fabric.is_global_zero:
            scores = (found.image_scores, found.map_scores)
            sheet = sample_sheet(
                passed.images, passed.rebuilt, passed.sent, passed.maps, scores, self.classes
            )
            self.journal.draw(self.step, sheet)
        return figures

    def export(self, pictures_a_source: int | None = None) -> Path:
        """Write `NAME.safetensors`: the moving average, the coder's tables, the record of the run.

        pictures_a_source: see `export_weights`.
        """
        path = self.output / f"{self.config.model}.safetensors"
        record = {
            "task": self.task.to_json(),
            "steps": str(self.step),
            "minutes": f"{self.seconds / 60:.1f}",
            "batch_size": str(self.stage.batch_size * self.fabric.world_size),
            "data": ", ".join(source.name for source in self.config.sources),
            "trained_on": "" if self.objective.lpips is None else "lpips",
        }
        export_weights(path, self.average, self.data.sources, record, pictures_a_source)
        return path

    def run(self) -> Path:
        """Train until every stage's budget is spent. Returns the weights' path.

        Ctrl-C ends the step that runs and saves a checkpoint; then KeyboardInterrupt is raised.
        """
        self.output.mkdir(parents=True, exist_ok=True)
        names = list(self.plan)
        with self.interruption.deferred():
            for name in names[names.index(self.name) :]:
                if name != self.name:
                    self.begin(name)
                self._run_stage()
        self.save()
        return self.export()

    def _run_stage(self) -> None:
        """Take steps until the stage's budget is spent; measure and save from time to time."""
        last = time.monotonic()
        saved = checked = self.seconds
        sums: dict[str, float] = {}
        since = 0
        while self.progress < 1:
            for name, value in self.advance().items():
                sums[name] = sums.get(name, 0.0) + value
            since += 1
            now = time.monotonic()
            self.seconds += now - last
            self.stage_seconds += now - last
            last = now
            if self.interruption.asked:
                self.save()
                self.report(f"stopped at step {self.step}; the same command goes on from there")
                raise KeyboardInterrupt
            if self.seconds - checked >= 60 * self.config.validate_minutes or self.progress >= 1:
                means = {name: value / since for name, value in sums.items()}
                self._measure(means, since, self.seconds - checked)
                sums, since, checked, last = {}, 0, self.seconds, time.monotonic()
            if self.seconds - saved >= 60 * self.config.checkpoint_minutes:
                self.save()
                saved, last = self.seconds, time.monotonic()

    def _measure(self, losses: dict[str, float], steps: int, seconds: float) -> None:
        """Validate, write a row of the journal, and export the weights so far."""
        crops = steps * self.stage.batch_size * self.fabric.world_size
        row: dict[str, float | str] = {
            "step": self.step,
            "stage": self.name,
            "minutes": round(self.seconds / 60, 2),
            "crops_per_s": round(crops / max(seconds, 1e-9), 2),
        }
        row |= losses | self.validate()
        if self.fabric.is_global_zero:
            self.journal.write(self.step, row)
            self.export(pictures_a_source=32)


def train_sqgan(path: Path | str, report: Callable[[str], None] = print) -> Path:
    """Train as the file says, or resume from its output's checkpoint. Returns the weights' path.

    Raises ConfigError, DataError or WeightsError in one line if the run cannot begin.
    """
    trainer = Trainer(load_train_config(Path(path)), report)
    if trainer.resume():
        report(
            f"going on from step {trainer.step}, stage {trainer.name} "
            f"({trainer.seconds / 60:.1f} minutes done)"
        )
    return trainer.run()


def _check(config: TrainConfig, plan: dict[StageName, Stage], model: ModelConfig) -> None:
    """Raise ConfigError for what the networks or the machine cannot do."""
    if config.segmenter == "judge":
        raise ConfigError(
            "segmenter: 'judge' only measures and may not be trained against; use 'tx'"
        )
    if not any(source.share for source in config.sources):
        raise ConfigError("sources: every share is 0; give one above 0")
    for name, stage in plan.items():
        if any(side % model.downsampling for side in stage.crop):
            raise ConfigError(
                f"stages.{name}.crop: {list(stage.crop)} must be multiples of "
                f"{model.downsampling}, the pixels a side of a token of '{config.model}'"
            )
        if stage.realisations > 1 and not model.noise:
            raise ConfigError(
                f"stages.{name}.realisations: '{config.model}' draws no noise, so that two "
                "would be alike: set it to 1"
            )
        if stage.losses.energy and stage.realisations == 1:
            raise ConfigError(
                f"stages.{name}.losses.energy: it compares two realisations of a crop: set "
                "realisations to 2, or energy to 0"
            )
        by_tx = {"semantic": stage.losses.semantic, "features": stage.losses.features}
        for loss, weight in by_tx.items():
            if weight and model.num_classes != NUM_CLASSES:
                raise ConfigError(
                    f"stages.{name}.losses.{loss}: the segmenter `tx` knows CamVid's "
                    f"{NUM_CLASSES} classes, '{config.model}' has {model.num_classes}: set it to 0"
                )
    if config.device == "cuda" and torch.cuda.device_count() < config.devices:
        raise ConfigError(
            f"device: {config.devices} CUDA devices are asked for, "
            f"{torch.cuda.device_count()} are here: set `device: cpu` or fewer `devices`"
        )


def _model_of(config: TrainConfig) -> ModelConfig:
    """Return the model's configuration, without the parts that `without` leaves out."""
    missing = tuple(part for part in config.without if part in ABLATIONS)
    return replace(model_config(config.model), without=missing)


def _model_in(record: str | None) -> ModelConfig | None:
    """Return the model that a record names, or None if it names no known one."""
    try:
        return None if record is None else ModelConfig.from_json(record)
    except ConfigError:
        return None


def _load_weights(network: SQGAN, name: str) -> None:
    """Load shipped or own weights into a network. Raises WeightsError if of another model."""
    from sqlink.weights.manifest import load

    loaded = load(name, "sqgan")
    model = _model_in(loaded.metadata.get("model"))
    # An ablation leaves the layers as they are, and may start from weights that had all parts.
    if model not in (network.config, replace(network.config, without=())):
        raise WeightsError(
            f"start: weights '{name}' are of another model than the one to be trained"
        )
    own = {k: v for k, v in loaded.tensors.items() if not k.startswith("tables.")}
    network.load_weights(own)


def _lay_out_as_parameters(optimizer: Any) -> None:
    """Lay moments out in memory as their parameters are: the fused kernel relies on it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for name in {"exp_avg", "exp_avg_sq"} & state.keys():
                state[name] = torch.empty_like(parameter).copy_(state[name])


def _sum(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack([term.float() for term in terms.values()]).sum()
