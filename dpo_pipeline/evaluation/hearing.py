"""Every model of an evaluation questioned, one in memory at a time; what is known already is not asked again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dpo_pipeline.core.digests import digest_of_json
from dpo_pipeline.core.errors import PipelineError
from dpo_pipeline.core.metrics import Reporter
from dpo_pipeline.evaluation import CODE_VERSION
from dpo_pipeline.evaluation.benchmarks import Taken, run_benchmarks
from dpo_pipeline.evaluation.held_out import Conversation, HeldOut
from dpo_pipeline.evaluation.memory import Memory, Remembering
from dpo_pipeline.evaluation.settings import EvaluationSettings
from dpo_pipeline.evaluation.speakers import speaking
from dpo_pipeline.evaluation.voices import Voice
from dpo_pipeline.evaluation.witness import Answer, Speaker, Statement, question, sample_questions
from dpo_pipeline.modeling import CODE_VERSION as MODELING_VERSION
from dpo_pipeline.modeling.device import choose_device
from dpo_pipeline.modeling.settings import ComputeSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What shapes every answer beside the model and the question, and whose tokens are taken over."""

    settings: EvaluationSettings
    model: ModelSettings
    compute: ComputeSettings
    memory: Memory
    reporter: Reporter
    tokens: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Heard:
    """What the models said.

    Attributes:
        statements: By model, in the order asked for.
        reference_samples: Log-probs under the baseline of the other models' sampled replies: model -> prompt_id.
        absent: Why a model that may be missing is missing, by name.
    """

    statements: Mapping[str, Statement]
    reference_samples: Mapping[str, Mapping[str, Answer]]
    absent: Mapping[str, str]


def hear_all(
    voices: Sequence[Voice],
    held_out: HeldOut,
    demonstrations: Sequence[Conversation],
    *,
    baseline: str,
    where: Circumstances,
) -> Heard:
    """Question each model; the baseline last, since by then there are samples of the others for it to score.

    A base that cannot be loaded any more (a folder that is gone, a hub out of reach) is left out and said to be; any
    other model that cannot be loaded ends the evaluation.
    """
    heard: dict[str, Statement] = {}
    reference_samples: dict[str, Mapping[str, Answer]] = {}
    absent: dict[str, str] = {}
    for voice in sorted(voices, key=lambda voice: voice.name == baseline):
        is_baseline = voice.name == baseline
        known = held_out.reference if is_baseline else None
        try:
            with _remembering(voice, where) as speaker:
                if is_baseline:
                    reference_samples = {
                        other: speaker.score(sample_questions(statement, held_out))
                        for other, statement in heard.items()
                    }
                heard[voice.name] = question(
                    speaker,
                    held_out,
                    name=voice.name,
                    demonstrations=demonstrations,
                    settings=where.settings,
                    is_reference=is_baseline,
                    known=known,
                    reporter=where.reporter,
                )
        except (OSError, PipelineError) as error:
            if not voice.is_before_training:
                raise
            absent[voice.name] = f"{type(error).__name__}: it could not be loaded"
            where.reporter.say(f"{voice.name} could not be loaded and is left out: {error}")
    statements = {voice.name: heard[voice.name] for voice in voices if voice.name in heard}
    return Heard(statements, reference_samples, absent)


def take_benchmarks(voices: Sequence[Voice], where: Circumstances) -> dict[str, Taken]:
    """What each model did on the benchmarks the settings ask for; empty where they ask for none.

    A model made from random numbers does not take part: it answers at chance by construction.
    """
    settings = where.settings.benchmarks
    if settings is None:
        return {}
    taken: dict[str, Taken] = {}
    for voice in voices:
        if voice.is_before_training and voice.settings.scratch is not None:
            continue
        with _opened(voice, where) as speaker:
            taken[voice.name] = run_benchmarks(
                speaker.model,
                speaker.tokenizer,
                settings=settings,
                batch_size=where.settings.generation_batch_size,
                reporter=where.reporter,
            )
    return taken


def _opened(voice: Voice, where: Circumstances) -> AbstractContextManager[Any]:
    return speaking(
        voice,
        max_length=where.model.max_length,
        tokens=where.tokens,
        compute=where.compute,
        settings=where.settings,
        reporter=where.reporter,
    )


@contextmanager
def _remembering(voice: Voice, where: Circumstances) -> Iterator[Speaker]:
    device = choose_device(where.compute)
    settings = where.settings
    identity = [
        voice.identity,
        *(MODELING_VERSION, CODE_VERSION, device.kind, device.precision, device.batch_tokens),
        where.model.max_length,
    ]
    generation = [settings.max_new_tokens, settings.generation_batch_size]
    with ExitStack() as stack:
        yield Remembering(
            _once(lambda: stack.enter_context(_opened(voice, where))),
            identity=digest_of_json(identity),
            generation=digest_of_json(generation),
            memory=where.memory,
        )


def _once(make: Callable[[], Speaker]) -> Callable[[], Speaker]:
    made: list[Speaker] = []

    def get() -> Speaker:
        if not made:
            made.append(make())
        return made[0]

    return get
