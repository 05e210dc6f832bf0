"""The launchpad's settings: every field of the profile with its sentence, typed, absent unless filled in."""

import dagster as dg
import pytest
from dagster import DagsterInvalidConfigError

from dpo_pipeline.core.errors import SettingsError
from dpo_pipeline.profiles import Profile, load_profile
from resources.changes import changes_of
from resources.settings import PipelineSettings


@dg.op
def resolve(settings: PipelineSettings):
    return settings.values


@dg.job(resource_defs={"settings": PipelineSettings(profile="demo")})
def job():
    resolve()


def resolved(**config):
    """The profile of a run launched with a configuration."""
    result = job.execute_in_process({"resources": {"settings": {"config": config}}})
    return result.output_for_node("resolve")


def test_what_is_absent_stays_as_the_profile_has_it():
    assert resolved() == load_profile("demo")
    assert PipelineSettings().values == load_profile("demo")


@pytest.mark.parametrize(
    ("change", "place", "value"),
    [
        ({"dpo": {"beta": 0.2}}, ("dpo", "beta"), 0.2),
        ({"dpo": {"beta": 1}}, ("dpo", "beta"), 1.0),
        ({"dpo": {"loss": "ipo"}}, ("dpo", "loss"), "ipo"),
        ({"sft": {"optimizer": {"learning_rate": 1e-5}}}, ("sft", "optimizer", "learning_rate"), 1e-5),
        ({"preferences": {"languages": ["en", "de"]}}, ("preferences", "languages"), ("en", "de")),
        ({"operation": {"new_pairs": 500}}, ("operation", "new_pairs"), 500),
    ],
)
def test_a_change_is_laid_over_the_profile_and_its_neighbours_stay(change, place, value):
    found, before = resolved(change=change), load_profile("demo")
    *owners, last = place
    owner, owner_before = found, before
    for name in owners:
        owner, owner_before = getattr(owner, name), getattr(owner_before, name)
    assert getattr(owner, last) == value
    neighbours = {name: field for name, field in owner_before.model_dump().items() if name != last}
    assert {name: owner.model_dump()[name] for name in neighbours} == neighbours


def test_a_change_goes_over_what_overrides_say_and_only_these_can_say_null():
    assert resolved(overrides={"dpo": {"beta": 0.3}}, change={"dpo": {"beta": 0.2}}).dpo.beta == 0.2
    assert resolved(overrides={"evaluation": {"rubric": None}}).evaluation.rubric is None


def test_a_misspelt_field_is_refused_before_a_run_is_made_and_a_wrong_value_in_the_settings_own_words():
    with pytest.raises(DagsterInvalidConfigError, match=r'unexpected config entry "bta".*beta\?: Float'):
        resolved(change={"dpo": {"bta": 0.2}})
    with pytest.raises(SettingsError, match=r"dpo\.beta"):
        PipelineSettings(change={"dpo": {"beta": -1}}).values  # noqa: B018


def fields_of(settings, where=""):
    """Place, sentence in the launchpad and sentence of the settings, of every field."""
    for name, field in settings.model_fields.items():
        yield f"{where}{name}", changes_of(settings).model_fields[name].description, field.description
        if hasattr(field.annotation, "model_fields"):
            yield from fields_of(field.annotation, f"{where}{name}.")


def test_every_field_of_the_profile_is_there_with_its_sentence():
    found = list(fields_of(Profile))
    assert len(found) > 80
    assert [place for place, said, _ in found if not said] == []
    assert [(place, said) for place, said, meant in found if said != meant] == []
    assert set(changes_of(Profile).model_fields) == set(Profile.model_fields)
