"""What must not change a result: neighbours in a batch, how a prompt was read, what the cache held before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qwen3_goldens as q

TOLERANCE = 1e-4  # of log-probabilities: sums in another order; measured 4e-6 with F32 weights
SPEECH = ("en_lj0006", "zh_danji", "none_silence", "long_de_portal", "en_vm_savefolder", "long_en_jfk")


@pytest.fixture(scope="module")
def folder(shared_micro: Path) -> Path:
    return shared_micro / q.ASR


@pytest.fixture(scope="module")
def model(micro_gguf: Callable[..., Path]) -> Any:
    import rustasr

    return rustasr._core.Model(str(micro_gguf(q.ASR, "f32")), "cpu", 2)


@pytest.fixture(scope="module")
def quantised(micro_gguf: Callable[..., Path]) -> Any:
    import rustasr

    return rustasr._core.Model(str(micro_gguf(q.ASR, "q8_0")), "cpu", 2)


def options(**chosen: Any) -> Any:
    import rustasr

    return rustasr._core.DecodeOptions(**{"max_tokens": 400, **chosen})


def stop_tokens(model: Any) -> list[int]:
    return list(model.metadata["qwen3_asr.stop_tokens"])


def said(results: list[Any]) -> list[list[int]]:
    return [list(result.tokens) for result in results]


# --- batches ---


@pytest.mark.parametrize("chosen", [{}, {"beam_size": 3}], ids=["greedy", "beam"])
def test_batched_equals_single(chosen: dict[str, int], folder: Path, model: Any) -> None:
    session = model.session()
    items = [q.item(folder, name) for name in SPEECH]
    mels = [q.features(session, q.samples(folder, item)) for item in items]
    prompts = [item["prompt_ids"] for item in items]
    together = session.decode(session.encode(mels), list(range(len(items))), prompts, options(**chosen))
    for item, mel, prompt, batched in zip(items, mels, prompts, together, strict=True):
        (alone,) = model.session().decode(session.encode([mel]), [0], [prompt], options(**chosen))
        assert batched.tokens == alone.tokens
        assert chosen or alone.tokens == item["generated_ids"][:-1]
        np.testing.assert_allclose(batched.logprobs, alone.logprobs, rtol=0, atol=TOLERANCE)


def test_a_clips_vectors_do_not_depend_on_the_others(folder: Path, model: Any, quantised: Any) -> None:
    """Bit for bit where the products are our own (quantised weights): no row depends on another."""
    import rustasr

    ours = rustasr._core.version()["matmul"] != "off"
    for which, tolerance in ((model, 2e-5), (quantised, 0.0 if ours else 1.0)):
        session = which.session()
        mels = [q.features(session, q.samples(folder, q.item(folder, name))) for name in SPEECH]
        prompts = [q.item(folder, name)["prompt_ids"] for name in SPEECH]
        taps = session.encode_taps(mels, ["output"])["output"]
        encoded, backwards = session.encode(mels), session.encode(mels[::-1])
        at = 0
        for i, mel in enumerate(mels):
            alone = session.encode_taps([mel], ["output"])["output"]
            np.testing.assert_allclose(taps[at : at + len(alone)], alone, rtol=0, atol=tolerance)
            at += len(alone)
            first, second = (
                session.decode_taps(e, w, prompts[i], ["embeddings"])["embeddings"]
                for e, w in ((encoded, i), (backwards, len(mels) - 1 - i))
            )
            np.testing.assert_allclose(first, second, rtol=0, atol=tolerance)
            pads = np.array(prompts[i]) == which.metadata["qwen3_asr.token.audio_pad"]
            np.testing.assert_allclose(first[pads], alone, rtol=0, atol=tolerance)


def test_windows_may_come_in_any_order_and_twice(folder: Path, model: Any) -> None:
    session = model.session()
    items = [q.item(folder, name) for name in ("en_lj0006", "zh_danji")]
    encoded = session.encode([q.features(session, q.samples(folder, item)) for item in items])
    order = [1, 0, 1]
    found = session.decode(encoded, order, [items[i]["prompt_ids"] for i in order], options())
    assert said(found) == [items[i]["generated_ids"][:-1] for i in order]


# --- reading prompts, rewinding, growing ---


def long_prompt(folder: Path, model: Any, session: Any) -> tuple[Any, list[int]]:
    """100 s of speech: a prompt of more tokens than are read at a time."""
    pcm = np.tile(q.samples(folder, q.item(folder, "long_de_portal")), 8)[: 100 * 16000]
    encoded = session.encode([q.features(session, pcm)])
    assert encoded.lengths == [1300]
    golden = q.item(folder, "en_lj0006")["prompt_ids"]
    pad = model.metadata["qwen3_asr.token.audio_pad"]
    begin, end = golden.index(pad), len(golden) - golden[::-1].index(pad)
    return encoded, [*golden[:begin], *[pad] * 1300, *golden[end:]]


def test_a_prompt_read_in_pieces_is_the_prompt_read_whole(folder: Path, model: Any) -> None:
    session = model.session()
    encoded, prompt = long_prompt(folder, model, session)
    (found,) = session.decode(encoded, [0], [prompt], options(max_tokens=6))
    said = [*found.tokens, *stop_tokens(model)][: len(found.logprobs)]
    whole = q.forced_log_probs(session, encoded, 0, prompt, said)
    np.testing.assert_allclose(found.logprobs, whole, rtol=0, atol=TOLERANCE)


def test_a_rewound_cache_equals_a_fresh_one(folder: Path, model: Any) -> None:
    """The same clip again, another end of the prompt, another context, another clip, beams between."""
    session = model.session()
    plain, forced = (q.item(folder, "long_en_jfk", variant) for variant in ("plain", "forced"))
    context = q.item(folder, "en_lj0004", "context")
    other = q.item(folder, "en_lj0006")
    encoded = {
        golden["id"]: session.encode([q.features(session, q.samples(folder, golden))])
        for golden in (plain, context, other)
    }
    steps: list[tuple[dict[str, Any], dict[str, int]]] = [
        (plain, {}), (plain, {}), (forced, {}), (plain, {"beam_size": 4}), (forced, {}), (other, {}),
        (context, {}), (q.item(folder, "en_lj0004"), {}), (plain, {"max_tokens": 3}), (plain, {}),
    ]  # fmt: skip
    for golden, chosen in steps:
        for s in (session, model.session()):
            (found,) = s.decode(encoded[golden["id"]], [0], [golden["prompt_ids"]], options(**chosen))
            n = len(found.tokens)
            assert found.tokens == golden["generated_ids"][:-1][:n]
            np.testing.assert_allclose(
                found.logprobs, golden["logprobs"][: len(found.logprobs)], atol=TOLERANCE
            )


def test_a_cancelled_call_leaves_nothing_behind(folder: Path, model: Any) -> None:
    from rustasr.errors import Cancelled

    session = model.session()
    golden = q.item(folder, "en_lj0006")
    encoded = session.encode([q.features(session, q.samples(folder, golden))])
    for _ in range(2):
        session.cancel()
        with pytest.raises(Cancelled):
            session.decode(encoded, [0], [golden["prompt_ids"]], options())
        (found,) = session.decode(encoded, [0], [golden["prompt_ids"]], options())
        assert found.tokens == golden["generated_ids"][:-1]


def test_a_text_longer_than_the_first_cache(folder: Path, model: Any) -> None:
    """The cache grows in the middle; every log-probability is that of the whole read in one pass."""
    session = model.session()
    golden = q.item(folder, "zh_danji")
    encoded = session.encode([q.features(session, q.samples(folder, golden))])
    chosen = options(max_tokens=700, suppress=stop_tokens(model))
    (found,) = session.decode(encoded, [0], [golden["prompt_ids"]], chosen)
    assert (len(found.tokens), found.finish) == (700, "length")
    whole = q.forced_log_probs(session, encoded, 0, golden["prompt_ids"], list(found.tokens))
    np.testing.assert_allclose(
        found.logprobs, whole - at_stops(session, encoded, golden, found, model), atol=TOLERANCE
    )


def at_stops(session: Any, encoded: Any, golden: dict[str, Any], found: Any, model: Any) -> np.ndarray:
    """log(1 − p(stop)) at every token: what leaving the stop tokens out does to a log-probability."""
    prompt = golden["prompt_ids"]
    logits = session.decode_taps(encoded, 0, [*prompt, *found.tokens], ["logits"])["logits"]
    rows = q.log_probs(logits)[len(prompt) - 1 : -1]
    return np.log1p(-np.exp(rows[:, stop_tokens(model)]).sum(axis=1))


# --- searching ---


def test_endless_text_is_stopped_as_a_loop(folder: Path, model: Any) -> None:
    session = model.session()
    golden = q.item(folder, "zh_danji")
    encoded = session.encode([q.features(session, q.samples(folder, golden))])
    all_but_one = [token for token in range(1280) if token != 100]
    chosen = options(max_tokens=200, suppress=all_but_one, loop_tokens=40)
    (found,) = session.decode(encoded, [0], [golden["prompt_ids"]], chosen)
    assert found.finish == "loop"
    assert list(found.tokens) == [100] * 40


def test_tokens_are_told_as_they_come(folder: Path, model: Any) -> None:
    session = model.session()
    items = [q.item(folder, name) for name in ("en_lj0006", "zh_danji")]
    encoded = session.encode([q.features(session, q.samples(folder, item)) for item in items])
    prompts = [item["prompt_ids"] for item in items]
    heard: list[tuple[int, int, float]] = []
    found = session.decode(encoded, [0, 1], prompts, options(), lambda *told: heard.append(told))
    for i, item in enumerate(items):
        assert [token for window, token, _ in heard if window == i] == item["generated_ids"]
        assert [p for window, _, p in heard if window == i] == pytest.approx(found[i].logprobs)
    assert [window for window, _, _ in heard[:4]] == [0, 1, 0, 1]

    ended = session.decode(encoded, [0, 1], prompts, options(), lambda window, *_: window == 1)
    assert [result.finish for result in ended] == ["caller", "stop"]
    assert len(ended[0].tokens) == 1
    with pytest.raises(ZeroDivisionError):
        session.decode(encoded, [0, 1], prompts, options(), lambda *_: 1 / 0)
    with pytest.raises(ValueError, match="on_token"):
        session.decode(encoded, [0, 1], prompts, options(beam_size=2), lambda *_: None)
    assert said(session.decode(encoded, [0, 1], prompts, options())) == said(found)


def test_samples_of_a_temperature_are_those_of_the_seed(folder: Path, model: Any) -> None:
    session = model.session()
    golden = q.item(folder, "en_lj0006")
    encoded = session.encode([q.features(session, q.samples(folder, golden))])
    chosen = [options(temperature=3.0, best_of=3, seed=seed, max_tokens=20) for seed in (1, 1, 2)]
    one, same, other = (session.decode(encoded, [0], [golden["prompt_ids"]], c)[0].tokens for c in chosen)
    assert one == same != other


# --- what is refused ---


@pytest.mark.parametrize(
    ("windows", "change", "match"),
    [
        ([0], lambda ids: ids[:-20], "audio token 1261"),
        ([0], lambda ids: [i for i in ids if i != 1261], "74 times.*found 0"),
        ([0], lambda ids: [*ids, 1280], "below 1280, found 1280"),
        ([0], lambda ids: [*ids, -1], "found -1"),
        ([0], lambda ids: [], "found 0"),
        ([1], lambda ids: ids, "window: expected 0..0, found 1"),
        ([-1], lambda ids: ids, "window"),
        ([0, 0], lambda ids: ids, "prompts: expected 2"),
    ],
)
def test_wrong_prompts_are_refused(
    windows: list[int], change: Callable[[list[int]], list[int]], match: str, folder: Path, model: Any
) -> None:
    from rustasr.errors import OptionError

    session = model.session()
    golden = q.item(folder, "en_lj0006")
    encoded = session.encode([q.features(session, q.samples(folder, golden))])
    with pytest.raises(OptionError, match=match):
        session.decode(encoded, windows, [change(golden["prompt_ids"])], options())


def test_wrong_features_and_places_are_refused(
    folder: Path, model: Any, micro_gguf: Callable[..., Path]
) -> None:
    import rustasr
    from rustasr.errors import OptionError

    session = model.session()
    for mels in ([], [np.zeros((0, 128), np.float32)], [np.zeros((10, 80), np.float32)]):
        with pytest.raises(OptionError, match="features"):
            session.encode(mels)
    aligner = rustasr._core.Model(str(micro_gguf(q.ALIGNER, "f32")), "cpu", 1).session()
    golden = q.goldens(folder.parent / q.ALIGNER)["items"][0]
    encoded = aligner.encode([q.features(aligner, q.samples(folder.parent / q.ALIGNER, golden))])
    n = len(golden["input_ids"])
    for places in ([n], [-1], [5, 5], [6, 5]):
        with pytest.raises(OptionError, match="positions"):
            aligner.classify(encoded, [0], [golden["input_ids"]], [places])
    with pytest.raises(OptionError, match="positions: expected 1"):
        aligner.classify(encoded, [0], [golden["input_ids"]], [])
    (nothing,) = aligner.classify(encoded, [0], [golden["input_ids"]], [[]])
    assert nothing.shape == (0, 500)
