"""What a person sees of a materialization: remarks as they are, the speed of a training as a picture."""

import base64

from assets.described import describe_remarks


def test_the_speed_of_a_training_is_a_picture_and_other_tables_of_remarks_are_left_out():
    speeds = {"step": [10, 20, 30], "tokens_per_second": [900, 1_100, 1_000]}
    shown = describe_remarks({"peak_memory_bytes": 7, "speeds": speeds, "another": {"a": 1}})
    assert sorted(shown) == ["peak memory bytes", "speed"]
    head, _, encoded = shown["speed"].value.partition("base64,")
    assert head == "![speed](data:image/png;"
    assert base64.b64decode(encoded.rstrip(")")).startswith(b"\x89PNG")


def test_a_training_of_which_no_speed_was_noted_has_no_picture():
    assert describe_remarks({"speeds": {"step": [], "tokens_per_second": []}, "seconds": 1.5}) == {"seconds": 1.5}
