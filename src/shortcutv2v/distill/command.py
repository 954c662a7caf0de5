"""What `shortcutv2v train` understands: Lightning's command line with this package's options.

The model is built around an adapter and an example frame, which no constructor's signature can say. So the groups
`model.` and `data.` of a LightningCLI are replaced by plain options, made into a `Distiller` and a `ClipData` by a
function that the caller gives; `--trainer.*`, `--config`, `--print_config` and nested classes are LightningCLI's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, cast

from jsonargparse.typing import NonNegativeInt
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from shortcutv2v.distill.adversarial import Adversary
from shortcutv2v.distill.checks import checked_folder
from shortcutv2v.distill.feed import KINDS, ClipData
from shortcutv2v.distill.losses import LossWeights
from shortcutv2v.distill.module import Distiller
from shortcutv2v.distill.perceptual import FeaturePerceptual, LPIPSPerceptual, VGGPerceptual
from shortcutv2v.distill.presets import PRESETS
from shortcutv2v.distill.progress import quiet_lightning
from shortcutv2v.distill.rollout import FEEDBACKS
from shortcutv2v.distill.running import callbacks_of, misconfigured, trainer_settings, validation_interval, writers
from shortcutv2v.errors import InputError, ShortcutError, near_matches

__all__ = ["TrainCLI"]

Build = Callable[[Any], tuple[Distiller, ClipData]]


class TrainCLI(LightningCLI):
    """Parses, builds, and makes the trainer; does not run it.

    Args:
        argv: arguments of the command, without its name.
        add_model: adds the options that say which model it is.
        build: makes `Distiller` and `ClipData` of the options.

    Attributes:
        config: all options with their values, as `--print_config` shows them.

    Raises:
        InputError: an unknown option, or a bad value.
    """

    def __init__(self, argv: Sequence[str], add_model: Callable[[Any], None], build: Build) -> None:
        self._add_model, self._build = add_model, build
        with quiet_lightning():
            super().__init__(
                args=list(argv),
                run=False,
                save_config_callback=None,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                trainer_defaults={
                    **trainer_settings("."),
                    "val_check_interval": None,
                },  # as it suits the number of steps
                parser_kwargs={"prog": "shortcutv2v train", "description": _ABOUT, "exit_on_error": False},
            )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The options of the model, of this package, and of the trainer."""
        self._add_model(parser)
        _add_run(parser)
        _add_data(parser)
        _add_training(parser)
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{name}": value for name, value in self.trainer_defaults.items()})
        parser.link_arguments("seed", "seed_everything")
        parser.link_arguments("minutes", "trainer.max_time", compute_fn=_max_time)
        parser.link_arguments("steps", "trainer.max_steps")
        parser.link_arguments("out", "trainer.default_root_dir")
        parser.link_arguments("device", "trainer.accelerator", compute_fn=_accelerator)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Without Lightning's advice not to do this."""
        try:
            self.config = parser.parse_args(cast("Sequence[str]", args))
        except argparse.ArgumentError as error:
            raise InputError(f"{plainly(str(error))}{_meant(error, parser)}; see shortcutv2v train --help") from None
        except UnicodeDecodeError:
            raise InputError("--config: expected a YAML file, as --print_config writes it") from None

    def instantiate_classes(self) -> None:
        """Build model and data by the caller's function, then the trainer."""
        parser: Any = self.parser
        instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # renamed in jsonargparse 4.49
        try:
            self.config_init = instantiate(self.config)
        except ValueError as error:  # jsonargparse wraps what a class of ours says in its own words
            raise InputError(_innermost(error) or plainly(str(error))) from error
        self.model, self.datamodule = self._build(self.config_init)
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """The trainer with this package's callbacks and writers; loggers and plugins that the user names win."""
        options = self.config_init
        self.trainer_defaults["callbacks"] = callbacks_of(
            options.out,
            validate=options.validation is not None,
            seed=options.seed,
            ema=options.ema,
            patience=options.patience,
            save_every=options.save_every,
            progress=options.progress,
        )
        for name, value in writers(options.out).items():
            if options.trainer[name] is None:
                kwargs.setdefault(name, value)
        if options.trainer.val_check_interval is None:
            kwargs["val_check_interval"] = validation_interval(options.steps)
        kind, _, number = options.device.partition(":")
        if number and kind != "cpu":
            kwargs["devices"] = [int(number)]
        with misconfigured():
            return super().instantiate_trainer(**kwargs)

    def save_config(self, path: Path) -> None:
        """Write all options as YAML, for `--config`."""
        self.parser.save(self.config, checked_folder(path.parent) / path.name, overwrite=True, multifile=False)


_ABOUT = """Distil a block on some clips. Options can be given in a YAML file, too (--config): the same names, without
dashes in front and with _ between words. --trainer.help and --print_config show more."""


def plainly(message: str) -> str:
    r"""What jsonargparse says of a value of several possible types, in one line.

    Examples:
        >>> text = "Does not validate\n  Errors:\n  - Expected a <class 'int'>\n  - Expected a <class 'NoneType'>"
        >>> plainly(f'Parser key "crop":\n  {text}\n  Given value: big')
        '"crop": Expected a int; Given value: big'
    """
    if "does not support item assignment" in message:
        return "an option in the YAML file must be a list: write `clips: [clip.mp4]`, and `validation` likewise"
    noise = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "- Expected a <class 'NoneType'>")
    more = ("- Does not validate", "Given value: Namespace", "Given value: NestedArg")
    message = message.replace("Expected a dot import path string:", "there is no class")
    kept: dict[str, None] = {}
    for line in (line.strip() for line in message.splitlines()):
        if line and not line.startswith(noise + more) and "does not correspond to a subclass" not in line:
            kept[re.sub(r"<class '([^']*)'>", r"\1", line.removeprefix("Parser key ").removeprefix("- "))] = None
    return re.sub(r":; ", ": ", "; ".join(kept))


def _meant(error: argparse.ArgumentError, parser: argparse.ArgumentParser) -> str:
    """The options whose names are near those that are unknown."""
    unknown = re.findall(r"--[\w.-]+", str(error)) if str(error).lower().startswith("unrecognized") else []
    known = [name for action in parser._actions for name in action.option_strings]
    near = [found[0] for name in unknown if (found := near_matches(name, known, 1))]
    return f": did you mean {' '.join(near)}?" if near else ""


def _innermost(error: BaseException | None) -> str:
    """What an error of this package says at the bottom of a chain of others; empty if there is none."""
    said = ""
    while error is not None:
        said = str(error) if isinstance(error, ShortcutError) else said
        error = error.__cause__ or error.__context__
    return said


def _max_time(minutes: float | None) -> dict[str, int] | None:
    return None if minutes is None else {"seconds": max(1, round(60 * minutes))}


def _accelerator(device: str) -> str:
    return device.partition(":")[0]


def _add_run(parser: LightningArgumentParser) -> None:
    parser.add_argument("clips", nargs="+", type=str, help="videos, folders of videos or folders of frames")
    parser.add_argument(
        "--out", type=Path | None, required=True, help="folder for the trained block, checkpoints and logs"
    )
    parser.add_argument("--minutes", type=float | None, default=5.0, help="training time, null for no limit")
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many steps; -1 goes by time alone")
    parser.add_argument("--validation", nargs="+", type=str, help="clips to validate on")
    parser.add_argument("--patience", type=int | None, default=10, help="validations without a gain that end the run")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="decides all that is drawn")
    parser.add_argument("--resume", type=Path | None, default=None, help="a last.ckpt to go on from")
    parser.add_argument("--save-every", type=int, default=50, help="steps from one checkpoint to the next")
    parser.add_argument("--progress", type=bool, default=True, help="show a progress bar")


def _add_data(parser: LightningArgumentParser) -> None:
    kind = Literal[KINDS]  # type: ignore[valid-type]
    parser.add_argument("--crop", type=int | None, default=None, help="side of the training crops; null: as it suits")
    parser.add_argument("--batch-size", type=int | None, default=None, help="samples per step; null: as it suits")
    parser.add_argument("--kind", type=kind | None, default=None, help="samples: pairs, or sequences for recurrence")
    parser.add_argument("--frames", type=int | None, default=None, help="length of a sequence; null: one interval")
    of_cache = "folder to keep the teacher's features in, unflipped; auto: for this run where it pays; null: nowhere"
    parser.add_argument("--cache", type=str | None, default="auto", help=of_cache)
    parser.add_argument("--workers", type=int | None, default=None, help="processes that read frames")


def _add_training(parser: LightningArgumentParser) -> None:
    preset = Literal[tuple(PRESETS)]  # type: ignore[valid-type]
    feedback = Literal[FEEDBACKS]  # type: ignore[valid-type]
    parser.add_argument("--interval", type=int | None, default=None, help="frames from one refresh to the next")
    parser.add_argument("--variant", type=str | None, default=None, help="the block (null: flow)")
    parser.add_argument("--channels", type=int | None, default=None, help="width h of the block; null: half of f's")
    parser.add_argument("--preset", type=preset | None, default=None, help="the paper's settings for a task")
    parser.add_argument("--lr", type=float | None, default=None, help="learning rate; null: the preset's, or 1e-3")
    parser.add_argument("--lr-discriminator", type=float | None, default=None, help="null: the preset's, or 2e-7")
    parser.add_argument("--betas", type=tuple[float, float] | None, default=None, help="of Adam; null: the preset's")
    parser.add_argument("--decay", type=float | None, default=None, help="last share of the run, in which rates fall")
    parser.add_argument("--schedule", type=int | None, default=None, help="steps over which rates decay; null: the run")
    parser.add_argument("--ema", type=float | None, default=None, help="decay of an average of the weights to keep")
    names = ", ".join(field.name for field in dataclasses.fields(LossWeights))
    of_losses = f"of the losses, such as --weights.feature 3: {names}; others: the preset's, or LossWeights.plain()"
    parser.add_argument("--weights", type=dict[str, float] | None, default=None, help=of_losses)
    distance = VGGPerceptual | LPIPSPerceptual | FeaturePerceptual | None
    of_pictures = "distance of pictures for --weights.perceptual, such as VGGPerceptual; null: VGGPerceptual"
    parser.add_argument("--perceptual", type=distance, default=None, help=of_pictures)
    of_adversary = "discriminators for --weights.gan and .temporal_gan; null: as in the authors' code"
    parser.add_argument("--adversary", type=Adversary | None, default=None, help=of_adversary)
    parser.add_argument("--feedback", type=feedback | None, default=None, help="what a recurrent teacher gets back")
    parser.add_argument("--truncate", type=int | None, default=None, help="frames that gradients flow back through")
