"""Languages: what is expected passes, what clearly is another is found, what is short or uncertain is let pass."""

import pyarrow as pa
import pytest
from test_cleaning import GOOD, OTHER, found_by

from dpo_pipeline.core.errors import InputError
from dpo_pipeline.preferences.cleaning import prepare
from dpo_pipeline.preferences.languages import outside
from dpo_pipeline.preferences.settings import PreferenceSettings

TEXTS = {
    "en": "First boil the water, then add the pasta and a pinch of salt, and wait for ten minutes.",
    "de": "Zuerst das Wasser kochen, dann die Nudeln und eine Prise Salz dazugeben und zehn Minuten warten.",
    "fr": "Faites d'abord bouillir l'eau, puis ajoutez les pâtes et une pincée de sel, et attendez dix minutes.",
    "es": "Primero hierve el agua y luego añade la pasta y una pizca de sal, y espera diez minutos.",
    "it": "Prima fai bollire l'acqua, poi aggiungi la pasta e un pizzico di sale e aspetta dieci minuti.",
    "pt": "Primeiro ferva a água, depois junte a massa e uma pitada de sal e espere dez minutos.",
    "nl": "Kook eerst het water, voeg dan de pasta en een snufje zout toe en wacht tien minuten.",
    "pl": "Najpierw zagotuj wodę, potem dodaj makaron i szczyptę soli i odczekaj dziesięć minut.",
    "sv": "Koka först vattnet, tillsätt sedan pastan och en nypa salt och vänta i tio minuter.",
    "tr": "Önce suyu kaynatın, sonra makarnayı ve bir tutam tuzu ekleyin ve on dakika bekleyin.",
    "ru": "Сначала вскипятите воду, затем добавьте макароны и щепотку соли и подождите десять минут.",
    "zh": "先把水烧开，然后加入面条和一小撮盐，再等十分钟。",
    "ja": "まずお湯を沸かし、パスタと塩をひとつまみ加えて、十分待ちます。",
    "ar": "اغلِ الماء أولًا ثم أضف المعكرونة ورشة من الملح وانتظر عشر دقائق.",
}
NO_LANGUAGE = [
    "ok", "", "42", "lol ok thx bro brb gtg omw", "asdkjh qwepoi zxcmnb lkjhgf poiuyt",
    "```python\ndef f(x):\n    return x + 1\n```", "https://example.org/ein/langer/weg/zu/einer/seite",
    "SELECT name, age FROM users WHERE age > 30;", "x^2 + 3x - 4 = 0, x = 1",
]  # fmt: skip


@pytest.mark.parametrize("language", TEXTS)
def test_each_language_is_itself_and_no_other(language):
    texts = pa.array(list(TEXTS.values()))
    assert outside(texts, [language], 0.9).tolist() == [other != language for other in TEXTS]


def test_what_is_in_no_language_is_let_pass():
    assert outside(pa.array(NO_LANGUAGE), ["fr"], 0.9).tolist() == [False] * len(NO_LANGUAGE)


def test_code_in_a_text_does_not_count():
    text = TEXTS["de"] + "\n```\nfor the sake of it, this is all in English and there is a lot of it\n```"
    assert outside(pa.array([text]), ["de"], 0.9).tolist() == [False]


def test_nothing_is_found_unless_languages_are_named():
    assert found_by("Hi", GOOD, TEXTS["de"]) == set()
    assert found_by("Hi", GOOD, TEXTS["de"], languages=["en"]) == {"unexpected_language"}
    assert found_by("Hi", GOOD, TEXTS["de"], languages=["en", "de"]) == set()
    assert found_by(TEXTS["fr"], GOOD, OTHER, languages=["en"]) == {"unexpected_language"}
    assert found_by("Hi", GOOD, TEXTS["de"], languages=["en"], rules={"unexpected_language": "off"}) == set()


def test_it_flags_by_default():
    assert PreferenceSettings().rules.unexpected_language == "flag"


def test_an_unknown_language_is_refused_before_any_text_is_read():
    with pytest.raises(InputError, match="klingon is no language that can be told") as caught:
        prepare(PreferenceSettings(languages=["en", "klingon"]))
    assert "ar, ary" in str(caught.value)
