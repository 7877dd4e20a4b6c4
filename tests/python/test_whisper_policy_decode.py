"""What Whisper may be asked, what each window is shown, and when it is tried again.

The network is a script (`whisper_script`).
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from whisper_script import (
    BEGIN,
    CONFIDENT,
    CONTROL,
    EN,
    GOOD,
    LADDER,
    LOOP,
    NOTIMES,
    PREV,
    SILENCE,
    SOT,
    START,
    TRANSLATE,
    UNSURE,
    Answer,
    Letters,
    Script,
    until,
)

from rustasr.errors import OptionError
from rustasr.families.whisper_decode import Decoding, History, Job, Prompter, WindowDecoder
from rustasr.families.whisper_options import WhisperOptions
from rustasr.languages import LANGUAGE_NAMES, language_code
from rustasr.repetition import compression_ratio


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "summarise"}, "transcribe, translate.*summarise"),
        ({"timestamps": "letter"}, "none, segment, word.*letter"),
        ({"temperature": ()}, "at least one"),
        ({"temperature": -0.1}, "temperature: expected 0 to 2"),
        ({"temperature": (0.0, 3.0)}, r"found 3\.0"),
        ({"temperature": "hot"}, "temperature: expected a number"),
        ({"beam_size": -1}, "beam_size.*0 to 64"),
        ({"beam_size": 2.5}, "beam_size.*whole number"),
        ({"beam_size": True}, "beam_size.*whole number"),
        ({"best_of": 0}, "best_of"),
        ({"batch_size": -1}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"max_tokens": 225}, "max_tokens.*1 to 224"),
        ({"patience": 0.0}, "patience"),
        ({"patience": 2.0}, "needs a beam search"),
        ({"length_penalty": 1.5}, "length_penalty.*0 to 1"),
        ({"logprob_threshold": 0.5}, "logprob_threshold"),
        ({"no_speech_threshold": 1.5}, "no_speech_threshold"),
        ({"compression_ratio_threshold": float("nan")}, "NaN"),
        ({"max_initial_timestamp": 31.0}, "max_initial_timestamp"),
        ({"hallucination_silence_threshold": 2.0}, "timestamps='word'"),
        ({"clip_timestamps": "0,10"}, "expected seconds"),
        ({"clip_timestamps": (10.0, 5.0)}, r"rising.*found 5\.0 after 10\.0"),
        ({"clip_timestamps": (-1.0,)}, "from 0"),
        ({"suppress_tokens": "a,b"}, "token ids"),
        ({"suppress_tokens": (-2,)}, "found -2"),
    ],
)
def test_an_option_outside_its_range_says_what_was_expected(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        WhisperOptions(**options)


def test_options_are_frozen_hashable_and_accept_lists() -> None:
    options = WhisperOptions(temperature=[0.0, 0.5], clip_timestamps=[1, 2], suppress_tokens=[5])  # type: ignore[arg-type]
    assert hash(options) == hash(
        WhisperOptions(temperature=(0.0, 0.5), clip_timestamps=(1, 2), suppress_tokens=(5,))
    )
    with pytest.raises(AttributeError):
        options.seed = 3  # type: ignore[misc]


def test_an_unknown_option_is_named_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"'beams'.*beam_size"):
        WhisperOptions().override(beams=5)
    assert WhisperOptions().override(beam_size=5).beam_size == 5


@pytest.mark.parametrize(
    ("given", "ids"),
    [("-1", [7, 8]), (None, []), ("", []), ((), []), ("3,-1", [3, 7, 8]), ((4, 3), [3, 4]), ("3 4", [3, 4])],
)
def test_suppressed_tokens(given: Any, ids: list[int]) -> None:
    assert WhisperOptions(suppress_tokens=given).suppressed_ids((7, 8)) == ids


def test_languages_by_code_and_name() -> None:
    assert len(LANGUAGE_NAMES) == 100
    assert list(LANGUAGE_NAMES)[:5] == ["en", "zh", "de", "es", "ru"]
    assert list(LANGUAGE_NAMES)[-2:] == ["su", "yue"]
    for given, code in [
        ("de", "de"), ("German", "de"), (" RUSSIAN ", "ru"), ("pt-BR", "pt"), ("zh_TW", "zh"),
        ("haitian creole", "ht"), ("burmese", "my"), ("Mandarin", "zh"), ("klingon", None), ("", None),
    ]:  # fmt: skip
        assert language_code(given) == code


def prompter(**options: Any) -> Prompter:
    tokenizer: Any = Letters()
    chosen = WhisperOptions(**options)
    return Prompter(tokenizer, chosen, "en", chosen.task, 448)


def test_the_prompt_is_the_start_when_nothing_came_before() -> None:
    assert prompter().build([], first=True) == START
    assert prompter(timestamps="none").build([], first=True) == [*START, NOTIMES]
    assert prompter(task="translate").build([], first=True) == [SOT, EN, TRANSLATE]


def test_the_prompt_keeps_the_last_223_tokens() -> None:
    history = list(range(300))
    assert prompter().build(history, first=False) == [PREV, *history[-223:], *START]


def test_a_prefix_follows_the_start_of_the_first_window_only() -> None:
    letters = Letters().encode(" ab")
    assert prompter(prefix=" ab ").build([1], first=True) == [PREV, 1, *START, BEGIN, *letters]
    assert prompter(prefix="ab", timestamps="none").build([], first=True) == [*START, NOTIMES, *letters]
    assert prompter(prefix="ab").build([1], first=False) == [PREV, 1, *START]


def test_hotwords_come_before_the_previous_text_in_every_window() -> None:
    hot = Letters().encode(" xy")
    made = prompter(hotwords="xy")
    assert made.build([], first=True) == [PREV, *hot, *START]
    assert made.build(list(range(300)), first=False) == [PREV, *hot, *range(80, 300), *START]
    assert prompter(hotwords="xy", prefix="ab").build([], first=False) == START


def test_long_hotwords_leave_the_prompt_within_the_context() -> None:
    made = prompter(hotwords="x" * 500)
    assert len(made.build(list(range(300)), first=False)) == 1 + 223 + 3


def test_an_initial_prompt_slides_out_of_sight_unless_it_is_carried() -> None:
    made = prompter(initial_prompt="pq")
    initial = Letters().encode(" pq")
    plain, carried = History(made), History(made, carry_initial=True)
    for history in (plain, carried):
        assert history.visible() == initial
        history.add([1, 2])
        assert history.visible() == [*initial, 1, 2]
        history.reset()
        history.add([3])
    assert plain.visible() == [3]
    assert carried.visible() == [*initial, 3]
    carried.add(list(range(400)))
    assert carried.visible() == [*initial, *range(400)[-220:]]


def test_a_carried_prompt_longer_than_the_context_leaves_room_for_nothing_else() -> None:
    history = History(prompter(initial_prompt="p" * 300), carry_initial=True)
    history.add([1, 2, 3])
    assert 3 not in history.visible()
    assert len(prompter().build(history.visible(), first=False)) == 1 + 223 + 3


def decode_one(reply: Callable[[int, Any], Answer], **options: Any) -> tuple[Decoding, Script]:
    script = Script(reply)
    tokenizer: Any = Letters()
    session: Any = script
    chosen = WhisperOptions(**{"temperature": LADDER, **options})
    decoder = WindowDecoder(session, SimpleNamespace, tokenizer, chosen, 448)
    encoded: Any = [(0, 3000)]
    return decoder.decode(encoded, [Job(0, START, 0)])[0], script


def test_a_good_window_is_decoded_once() -> None:
    found, script = decode_one(lambda *_: GOOD)
    assert [t for _, t in script.places] == [0.0]
    assert (found.text, found.temperature, found.flags, found.silent) == ("fine", 0.0, (), False)


@pytest.mark.parametrize("bad", [LOOP, UNSURE])
def test_a_doubtful_window_climbs_until_it_is_good(bad: Answer) -> None:
    found, script = decode_one(until(0.4, bad, GOOD))
    assert [t for _, t in script.places] == [0.0, 0.2, 0.4]
    assert (found.text, found.temperature) == ("fine", 0.4)


def test_the_last_attempt_is_kept_and_flagged() -> None:
    found, script = decode_one(lambda *_: LOOP)
    assert [t for _, t in script.places] == list(LADDER)
    assert found.temperature == 1.0
    assert found.flags == ("repetition",)
    assert decode_one(lambda *_: UNSURE)[0].flags == ("low_confidence",)


def test_silence_is_not_tried_again_and_is_silent() -> None:
    found, script = decode_one(lambda *_: SILENCE)
    assert [t for _, t in script.places] == [0.0]
    assert found.silent


def test_a_confident_text_is_no_silence_whatever_the_no_speech_token_says() -> None:
    found, _ = decode_one(lambda *_: CONFIDENT)
    assert not found.silent
    assert found.flags == ("no_speech",)


def test_without_a_logprob_threshold_the_no_speech_token_decides_alone() -> None:
    assert decode_one(lambda *_: CONFIDENT, logprob_threshold=None)[0].silent


def test_thresholds_that_are_off_do_not_judge() -> None:
    off = {"compression_ratio_threshold": None, "logprob_threshold": None, "no_speech_threshold": None}
    for answer in (LOOP, UNSURE, SILENCE):
        found, script = decode_one(lambda *_, answer=answer: answer, **off)
        assert len(script.places) == 1
        assert not found.silent
        assert found.flags == ()


def test_beams_are_for_temperature_zero_and_samples_for_the_others() -> None:
    _, script = decode_one(lambda *_: LOOP, beam_size=5, patience=2.0, best_of=3, temperature=(0.0, 0.4))
    first, second = script.decodes
    assert (first.beam_size, first.patience, first.best_of) == (5, 2.0, 1)
    assert (second.beam_size, second.patience, second.best_of) == (0, 1.0, 3)


def test_the_core_is_told_every_option() -> None:
    _, script = decode_one(
        lambda *_: GOOD, timestamps="none", max_tokens=50, length_penalty=0.5, suppress_blank=False,
        max_initial_timestamp=None, suppress_tokens="3,-1",
    )  # fmt: skip
    told = script.decodes[0]
    assert (told.timestamps, told.max_tokens, told.length_penalty) == (False, 50, 0.5)
    assert (told.suppress_blank, told.max_initial_timestamp) == (False, 30.0)
    assert told.suppress == sorted({3, *Letters.non_speech, *CONTROL})


def test_control_tokens_are_suppressed_even_when_nothing_else_is() -> None:
    _, script = decode_one(lambda *_: GOOD, suppress_tokens=None)
    assert script.decodes[0].suppress == sorted(CONTROL)
    assert script.decodes[0].max_tokens == 224


def test_seeds_are_equal_for_equal_windows_and_differ_between_windows_and_attempts() -> None:
    tokenizer: Any = Letters()
    encoded: Any = [(0, 3000), (3000, 3000)]
    jobs = [Job(0, START, 0), Job(1, START, 3000)]

    def seeds(batch: list[Job], seed: int) -> dict[tuple[int, float], int]:
        script = Script(lambda *_: LOOP)
        session: Any = script
        options = WhisperOptions(temperature=(0.0, 0.5, 1.0), seed=seed)
        WindowDecoder(session, SimpleNamespace, tokenizer, options, 448).decode(encoded, batch)
        return {p: d.seed for p, d in zip(script.places, script.decodes, strict=True) if p[1] > 0}

    together = seeds(jobs, 1)
    assert len(set(together.values())) == 4
    assert together == seeds(jobs[:1], 1) | seeds(jobs[1:], 1)
    assert together != seeds(jobs, 2)


def test_only_the_failing_windows_of_a_batch_are_decoded_again() -> None:
    script = Script(lambda seek, options: LOOP if seek == 3000 and options.temperature == 0 else GOOD)
    session: Any = script
    tokenizer: Any = Letters()
    decoder = WindowDecoder(session, SimpleNamespace, tokenizer, WhisperOptions(), 448)
    encoded: Any = [(0, 3000), (3000, 3000), (6000, 3000)]
    found = decoder.decode(encoded, [Job(i, START, 3000 * i) for i in range(3)])
    assert script.places == [(0, 0.0), (3000, 0.0), (6000, 0.0), (3000, 0.2)]
    assert [f.temperature for f in found] == [0.0, 0.2, 0.0]


def test_compression_ratio_tells_loops_from_speech() -> None:
    assert compression_ratio("") == 0.0
    assert compression_ratio("And so my fellow Americans, ask not what your country can do for you.") < 1.2
    assert compression_ratio("la " * 60) > 2.4
